"""ContextShapes and Crossing: out of reach without global context."""
import mmcv
import mmengine.fileio as fileio
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS

from cac_mmseg import ContextShapesDataset, CrossingDataset
from cac_mmseg.datasets.scene import (BACKGROUND, GAP, HEIGHT, MOVING, SIGNAL,
                                      TREE, WAITING, WIDTH, draw_scene)


def scenes(count=60, split='train', seed=0, crossing=False):
    return [draw_scene(split, seed, i, crossing) for i in range(count)]


def is_green(image, label):
    """Whether the signal is, by what is seen at the border."""
    blue, green, red = np.moveaxis(image.astype(int), 2, 0)
    border = np.r_[0:SIGNAL, WIDTH - SIGNAL:WIDTH]
    away = label[:, border] == BACKGROUND  # not a car at the other border
    reds = ((red - green > 100) & (red - blue > 100))[:, border] & away
    greens = ((green - red > 100) & (green - blue > 100))[:, border] & away
    assert reds.sum() + greens.sum() > 100
    return greens.sum() > reds.sum()


@pytest.mark.parametrize('crossing', [False, True])
def test_every_class_occurs_and_nothing_else(crossing):
    labels = [label.ravel() for _, label in scenes(crossing=crossing)]
    counts = np.bincount(np.concatenate(labels), minlength=4)
    assert len(counts) == 4 and (counts > 0.02 * counts.sum()).all(), counts


def test_a_scene_is_a_function_of_its_arguments():
    for a, b in zip(draw_scene('val', 3, 5), draw_scene('val', 3, 5)):
        np.testing.assert_array_equal(a, b)
    for other in [('train', 3, 5), ('val', 4, 5), ('val', 3, 6),
                  ('val', 3, 5, True)]:
        assert (draw_scene('val', 3, 5)[0] != draw_scene(*other)[0]).any()


def test_all_cars_of_a_scene_obey_its_signal():
    for image, label in scenes():
        cars = {WAITING, MOVING} & set(np.unique(label))
        assert len(cars) == 1
        assert is_green(image, label) == (cars == {MOVING})


@pytest.mark.parametrize('crossing', [False, True])
def test_objects_keep_their_distance_from_the_signal(crossing):
    for image, label in scenes(crossing=crossing):
        columns = np.flatnonzero((label >= WAITING).any(0))
        # the signal's box is the only black thing at a border
        dark = (image < 60).all(2).sum(0)
        left = dark[:SIGNAL].sum() > dark[-SIGNAL:].sum()
        distance = columns.min() - SIGNAL + 1 if left else (WIDTH - SIGNAL -
                                                            columns.max())
        assert distance > GAP
        border = label[:, :SIGNAL] if left else label[:, -SIGNAL:]
        assert (border == BACKGROUND).all()


@pytest.mark.parametrize('name', ['contextshapes', 'crossing'])
@pytest.mark.parametrize('context', [False, True])
def test_only_a_context_head_can_see_the_signal_from_an_object(
        configs, name, context):
    """d logits / d image: exactly zero between any object and the signal."""
    cfg = Config.fromfile(configs / f'cac_r18_{name}.py').model
    if not context:
        cfg.decode_head.update(global_pool=False, reweighting='IdentityModule')
    init_default_scope('mmseg')
    model = MODELS.build(cfg).double().eval()
    image = torch.randn(
        1, 3, HEIGHT, WIDTH, dtype=torch.float64, requires_grad=True)
    logits = model.decode_head.predict(
        model.extract_feat(image), [dict(img_shape=(HEIGHT, WIDTH))], None)
    logits[..., SIGNAL + GAP:].pow(2).sum().backward()  # where objects stand
    seen = image.grad[..., :SIGNAL].abs().max()  # where the signal stands
    nearby = image.grad[..., SIGNAL + GAP:].abs().max()
    assert nearby > 0
    if context:
        assert seen > 1e-9 * nearby
    else:
        assert seen == 0


@pytest.mark.parametrize('name', ['contextshapes', 'crossing'])
def test_loads_through_the_pipeline_of_mmseg(configs, name):
    cfg = Config.fromfile(configs / f'cac_r18_{name}.py')
    init_default_scope('mmseg')
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert len(dataset) == 4000
    sample = dataset[7]
    image, label = draw_scene('train', 0, 7, name == 'crossing')
    np.testing.assert_array_equal(sample['inputs'].permute(1, 2, 0), image)
    np.testing.assert_array_equal(sample['data_samples'].gt_sem_seg.data[0],
                                  label)
    assert sample['data_samples'].img_path == (
        f'{name}://image/train/0/000007.png')


def test_train_and_val_are_disjoint():
    assert not {i.tobytes()
                for i, _ in scenes(20)
                } & {i.tobytes()
                     for i, _ in scenes(20, 'val')}


def test_classes_can_be_selected():
    dataset = ContextShapesDataset(
        num_images=3,
        metainfo=dict(classes=('background', 'tree')),
        pipeline=[dict(type='mmseg.LoadAnnotations')])
    assert set(np.unique(dataset[0]['gt_seg_map'])) <= {BACKGROUND, TREE, 255}
    assert len(dataset.metainfo['palette']) == 2


def test_paths_are_read_by_mmengine_alone():
    content = fileio.get('contextshapes://image/val/2/000011.png')
    np.testing.assert_array_equal(
        mmcv.imfrombytes(content),
        draw_scene('val', 2, 11)[0])


@pytest.mark.parametrize('path', [
    'crossing://image/val/2/1/1.png', 'contextshapes://image/val/2',
    'contextshapes://image/valid/2/1.png', 'contextshapes://depth/val/2/1.png',
    'contextshapes://image/val/x/1.png', 'contextshapes://image/val/-1/1.png'
])
def test_a_path_that_is_not_one_says_what_is(path):
    with pytest.raises(FileNotFoundError, match='index') as info:
        fileio.get(path)
    assert path in str(info.value)


# ---- crossing


@pytest.fixture(scope='module')
def pairs():
    """Images and label maps of layouts, at green and at red."""
    drawn = scenes(200, 'val', crossing=True)
    return [
        sorted(drawn[i:i + 2], key=lambda scene: not is_green(*scene))
        for i in range(0, 200, 2)
    ]


def test_two_images_differ_in_the_signal_alone(pairs):
    """And what moves at green waits at red, and the reverse."""
    swapped = np.array([BACKGROUND, TREE, MOVING, WAITING])
    for (green, at_green), (red, at_red) in pairs:
        columns = np.flatnonzero((green != red).any((0, 2)))
        assert columns.max() < SIGNAL or columns.min() >= WIDTH - SIGNAL
        np.testing.assert_array_equal(swapped[at_green], at_red)
    firsts = [
        is_green(*draw_scene('val', 0, i, True)) for i in range(0, 200, 2)
    ]
    assert 30 < sum(firsts) < 70  # the order tells nothing


def test_an_image_to_train_on_has_no_pair(configs):
    drawn = scenes(300, crossing=True)
    greens = [is_green(*scene) for scene in drawn]
    assert 0.57 < np.mean(greens) < 0.76
    assert all((a[0][:, 60:130] != b[0][:, 60:130]).any()
               for a, b in zip(drawn, drawn[1:]))


def test_colours_tell_the_kind(pairs):
    """Blue above red: a car, which moves at green."""
    for (image, label), _ in pairs:
        blue, _, red = np.moveaxis(image.astype(int), 2, 0)
        for moves in WAITING, MOVING:
            assert (np.median((blue - red)[label == moves]) > 0) == (
                moves == MOVING)


def test_cars_and_pedestrians_cover_as_many_pixels(pairs):
    """In all, and nearly so in each image."""
    cars, pedestrians = np.array([[(label == moves).sum()
                                   for moves in (MOVING, WAITING)]
                                  for (_, label), _ in pairs]).T
    assert 0.95 < cars.sum() / pedestrians.sum() < 1.05
    ratio = cars / pedestrians
    assert 0.7 < ratio.min() and ratio.max() < 1.4


def mean_iou(truth, predicted):
    """Of label maps, or labels with their number of pixels, in percent."""
    confusion = np.zeros((4, 4))
    np.add.at(confusion, (truth[0], predicted), truth[1])
    hit = confusion.diagonal()
    return 100 * (hit / (confusion.sum(0) + confusion.sum(1) - hit)).mean()


def test_an_additive_head_reaches_its_bound_and_passes_it_nowhere(pairs, rng):
    """Logits f(position without the signal) + g(image)."""
    bound = CrossingDataset('val', 200, pipeline=[]).additive_bound()
    # labels of cars and of pedestrians, at green and at red, and their pixels
    right = np.array([[MOVING, WAITING], [WAITING, MOVING]])
    cells, pixels, best = [], [], []
    rest = np.zeros(2)
    for (_, label), _ in pairs:
        size = np.bincount(label.ravel(), minlength=4)
        rest += 2 * size[[BACKGROUND, TREE]]
        cells.append(right)
        pixels.append([[size[MOVING], size[WAITING]]] * 2)
        # the kind that covers less becomes background at red
        lost = int(size[WAITING] < size[MOVING])  # 0: cars, 1: pedestrians
        f = np.full((2, 4), -9)
        f[0, [WAITING, MOVING]] = 0, 1
        f[1, WAITING] = 0
        f[lost, BACKGROUND] = -1
        g = [[0, 0, 0, 0], [4, 0, 2, 0]]
        if not lost:  # then cars go, and pedestrians are right
            f[1, [WAITING, MOVING]] = 0, -1
            g = [[0, 0, 0, 0], [6, 0, 2, 4]]
        best.append((f + np.array(g)[:, None]).argmax(-1))
    truth = (np.append(cells, [BACKGROUND, TREE]), np.append(pixels, rest))

    def score(predicted):
        return mean_iou(truth, np.append(predicted, [BACKGROUND, TREE]))

    assert score(cells) == 100
    assert score(best) == pytest.approx(bound)
    # whichever kind of each layout is wrong, under either signal, as anything
    scores = []
    for _ in range(3000):
        chance = rng.random(3)  # of cars, of red, of background
        predicted = np.array(cells)
        for layout in predicted:
            kind, signal = (rng.random(2) < chance[:2]).astype(int)
            wrong = [*{*range(4)} - {layout[signal, kind]}]
            layout[signal, kind] = (
                BACKGROUND if rng.random() < chance[2] else rng.choice(wrong))
        scores.append(score(predicted))
    assert bound - 3 < max(scores) <= bound


@pytest.mark.parametrize('split, count, more', [
    ('train', 10, {}),
    ('val', 11, {}),
    ('val', 10, dict(indices=4)),
])
def test_without_pairs_there_is_no_bound(split, count, more):
    dataset = CrossingDataset(split, count, pipeline=[], **more)
    with pytest.raises(ValueError, match='even num_images, all of them, got'):
        dataset.additive_bound()
