"""ContextShapes and Crossing: out of reach without global context."""
from itertools import product

import mmcv
import mmengine.fileio as fileio
import numpy as np
import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS

from cac_mmseg import ContextShapesDataset
from cac_mmseg.datasets.scene import (BACKGROUND, GAP, HEIGHT, MOVING, SIGNAL,
                                      TREE, WAITING, WIDTH, draw_scene)
from cac_mmseg.stack.config import load_config


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

CAR, PEDESTRIAN = range(2, 4)  # kinds, after background and tree
RIGHT = np.eye(4)[[
    [BACKGROUND, TREE, WAITING, MOVING],  # red
    [BACKGROUND, TREE, MOVING, WAITING]
]]


def kinds(image, label):
    """What stands at each pixel, which all of its surroundings tell."""
    cars_move = is_green(image, label)
    moving = np.where(label == MOVING, CAR if cars_move else PEDESTRIAN, label)
    return np.where(label == WAITING, PEDESTRIAN if cars_move else CAR, moving)


@pytest.fixture(scope='module')
def areas():
    """Pixels by signal, kind and label, of the study's validation images."""
    counts = np.zeros((2, 4, 4))
    for image, label in scenes(200, 'val', crossing=True):
        np.add.at(counts[int(is_green(image, label))],
                  (kinds(image, label), label), 1)
    return counts


def mean_iou(areas, predicted):
    """mIoU in percent.

    Args:
        areas: Pixels, (signals, kinds, labels).
        predicted: The part of a kind under a signal that gets each label,
            (signals, kinds, labels).
    """
    confusion = np.einsum('skl,skp->lp', areas, predicted)
    hit = confusion.diagonal()
    return 100 * (hit / (confusion.sum(0) + confusion.sum(1) - hit)).mean()


def additive_bound(areas):
    """Highest mIoU of a prediction that gets one combination wrong."""
    scores = []
    for signal, kind in product(range(2), (CAR, PEDESTRIAN)):
        for label in range(4):
            predicted = RIGHT.copy()
            predicted[signal, kind] = np.eye(4)[label]
            if (predicted != RIGHT).any():
                scores.append(mean_iou(areas, predicted))
    return max(scores)


def test_pedestrians_wait_while_cars_drive(areas):
    red, green = areas
    assert red[CAR, WAITING] and red[PEDESTRIAN, MOVING]
    assert green[CAR, MOVING] and green[PEDESTRIAN, WAITING]
    # those are all
    assert (np.count_nonzero(areas, (1, 2)) == 4).all()


def test_kinds_and_labels_cover_as_many_pixels(areas):
    """So neither tells anything of the other, and one image has both."""
    of_kind, of_label = areas.sum((0, 2)), areas.sum((0, 1))
    for found in of_kind[CAR:], of_label[WAITING:]:
        assert found.max() < 1.05 * found.min()
    both = [{WAITING, MOVING} <= {*np.unique(label)}
            for _, label in scenes(200, 'val', crossing=True)]
    assert np.mean(both) > 0.95


def test_colours_tell_the_kind_but_not_the_label(areas):
    """Means of the colours of a kind are those under the other signal."""
    found = {}
    for image, label in scenes(200, 'val', crossing=True):
        what = kinds(image, label)
        for kind in CAR, PEDESTRIAN:
            pixels = image[what == kind]
            if len(pixels):
                found.setdefault((kind, is_green(image, label)),
                                 []).append(pixels.mean(0))
    for kind in CAR, PEDESTRIAN:
        red, green = (np.array(found[kind, lit]) for lit in (False, True))
        error = (red.var(0) / len(red) + green.var(0) / len(green))**0.5
        assert (abs(red.mean(0) - green.mean(0)) < 4 * error).all()


def test_an_additive_head_reaches_its_bound_and_passes_it_nowhere(areas, rng):
    """Logits f(kind) + g(signal), and the bound that the study draws."""
    bound = additive_bound(areas)
    protocol = load_config(ROOT / 'tools/study/protocols/crossing.py')
    assert protocol.additive_bound == round(bound, 2)
    assert mean_iou(areas, RIGHT) == 100

    def score(f, g):
        logits = f + np.array(g)[:, None]
        return mean_iou(areas, np.eye(4)[logits.argmax(-1)])

    # right but for pedestrians at red, who become background
    f = [[9, -9, -9, -9], [-9, 9, -9, -9], [-9, -9, 0, 1], [-1, -9, 0, -9]]
    assert score(f, [[4, 0, 2, 0], [0, 0, 0, 0]]) == pytest.approx(bound)
    for _ in range(2000):
        assert score(rng.normal(size=(4, 4)), rng.normal(size=(2, 4))) < bound
    # where f varies within a kind, the parts that are wrong add up to one
    for _ in range(2000):
        predicted = RIGHT.copy()
        wrong = rng.dirichlet([0.3] * 4).reshape(2, 2)
        for (signal, i), part in np.ndenumerate(wrong):
            others = 1 - RIGHT[signal, 2 + i]
            others *= rng.exponential(size=4)**3
            predicted[signal, 2 + i] *= 1 - part
            predicted[signal, 2 + i] += part * others / others.sum()
        assert mean_iou(areas, predicted) <= bound + 1e-9
