"""The reader: what training loads is what every tool sees."""
import random
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, TRANSFORMS

from cac_mmseg.drawing.reader import Reader, blamed_on
from cac_mmseg.errors import UserError
from cac_mmseg.stack.config import unwrapped


@pytest.fixture
def files(tmp_path):
    """An image of 12 x 16 pixels in a folder with umlaut and space."""
    folder = tmp_path / 'Bilder für mich'
    folder.mkdir()
    rng = np.random.default_rng(0)
    write(folder / 'a.png', rng.integers(0, 256, (12, 16, 3)))
    write(folder / 'a_label.png', rng.integers(0, 3, (12, 16)))
    return folder


def write(path, picture):
    """cv2 writes no such names on every system."""
    content = cv2.imencode('.png', picture.astype(np.uint8))[1]
    path.write_bytes(content.tobytes())


def dataset(folder, *pipeline):
    init_default_scope('mmseg')
    steps = [step if isinstance(step, dict) else dict(type=step)
             for step in pipeline]  # yapf: disable
    return DATASETS.build(
        dict(
            type='BaseSegDataset',
            data_root=str(folder),
            data_prefix=dict(img_path='', seg_map_path=''),
            img_suffix='a.png',
            seg_map_suffix='a_label.png',
            metainfo=dict(classes=('x', 'y', 'z')),
            pipeline=steps))


LOAD = ('LoadImageFromFile', 'LoadAnnotations')
RESIZE = dict(type='Resize', scale=(32, 24))
FLIP = dict(type='RandomFlip', prob=1.)
PACK = dict(type='PackSegInputs')
STEPS = [
    RESIZE, FLIP, PACK,
    dict(type='RandomCrop', crop_size=(6, 6)),
    dict(type='PhotoMetricDistortion'),
    dict(type='RandomRotate', prob=1., degree=30),
    dict(type='Pad', size=(24, 24)),
    dict(type='ResizeToMultiple', size_divisor=10),
    dict(type='TestTimeAug', transforms=[[FLIP], [PACK]])
]


@pytest.mark.parametrize('step', STEPS, ids=lambda step: step['type'])
def test_the_loading_part_ends_there(files, step):
    data = dataset(files, *LOAD, step, 'PackSegInputs')
    reader, info = Reader(data), data.get_data_info(0)
    state = random.getstate(), torch.get_rng_state(), np.random.get_state()[1]
    sample = reader.load(info)
    assert reader.end == sample.rest == 2
    assert sample.image.shape == (12, 16, 3)
    plain = dataset(files, *LOAD).prepare_data(0)
    assert (sample.labels == plain['gt_seg_map']).all()
    assert (sample.rgb[..., ::-1] == plain['img']).all()
    # a training draws what it would have drawn
    assert state[0] == random.getstate()
    assert torch.equal(state[1], torch.get_rng_state())
    assert (state[2] == np.random.get_state()[1]).all()


@pytest.mark.parametrize('step', [RESIZE, FLIP], ids=str)
def test_labels_may_be_loaded_after_the_image_was_resized(files, step):
    """As in mmseg's test pipelines; the image is that of before."""
    data = dataset(files, 'LoadImageFromFile', step, 'LoadAnnotations',
                   'Invert', 'PackSegInputs')
    reader = Reader(data)
    for _ in range(2):
        sample = reader.load(data.get_data_info(0))
        stored = cv2.imread(str(files / 'a_label.png'), 0)
        assert (sample.labels == 2 - stored).all()
        assert sample.image.shape == (12, 16, 3) and sample.rest == 1
    size = (24, 32) if step['type'] == 'Resize' else (12, 16)
    batch = reader.batch(sample)
    assert batch['inputs'][0].shape[1:] == size
    assert batch['data_samples'][0].gt_sem_seg.shape == (12, 16)


def test_an_image_without_labels_ends_nothing_for_others(files):
    data = dataset(files, 'LoadImageFromFile', RESIZE, 'LoadAnnotations',
                   'PackSegInputs')
    reader = Reader(data)
    assert reader.read(str(files / 'a.png')).labels is None
    assert reader.load(data.get_data_info(0)).labels.shape == (12, 16)
    assert reader.read(str(files / 'a.png')).labels is None


def test_a_random_transform_changes_no_labels_in_place(files):
    cut_out = dict(
        type='RandomCutOut',
        prob=1.,
        n_holes=3,
        cutout_shape=(5, 5),
        seg_fill_in=99)
    data = dataset(files, *LOAD, cut_out, 'PackSegInputs')
    reader = Reader(data)
    sample = reader.load(data.get_data_info(0))
    assert reader.batch(sample)['data_samples'][0].gt_sem_seg.data.max() == 99
    assert sample.labels.max() < 3 and sample.results['gt_seg_map'].max() < 3


def test_a_wrapper_of_loaders_reads_images_without_labels(files):
    loaders = [dict(type=name) for name in LOAD]
    data = dataset(files, dict(type='LoadOnce', transforms=loaders), PACK)
    sample = Reader(data).read(str(files / 'a.png'))
    assert sample.labels is None and sample.image.shape == (12, 16, 3)


def test_a_transform_that_changes_only_some_sizes_ends_it_for_those(files):
    write(files / 'b_a.png', np.zeros((24, 32, 3)))
    write(files / 'b_a_label.png', np.zeros((24, 32)))
    data = dataset(files, *LOAD, dict(type='Resize', scale=(16, 12)), PACK)
    reader = Reader(data)
    infos = [data.get_data_info(i) for i in range(len(data))]
    shapes = {reader.load(info).image.shape for info in infos}
    assert shapes == {(12, 16, 3), (24, 32, 3)}


def of_a_user(change):
    """A transform neither of mmcv nor of a name that says what it does."""
    call = dict(__call__=lambda self, results: change(results))
    kind = type(change.__name__, (), call)
    TRANSFORMS.register_module(module=kind, force=True)


@of_a_user
def Invert(results):
    """Deterministic, on labels: a part of loading."""
    return {**results, 'gt_seg_map': 2 - results['gt_seg_map']}


@of_a_user
def Shuffle(results):
    """Random, with no mark of it."""
    labels = np.random.permutation(results['gt_seg_map'])
    return {**results, 'gt_seg_map': labels}


@of_a_user
def Both(results):
    """Reads an image of five bands and a label map."""
    image = cv2.imread(results['img_path']).astype(np.uint16)
    results['img'] = np.concatenate([image, image[..., :2]], 2)
    results['img_shape'] = results['ori_shape'] = image.shape[:2]
    if 'seg_map_path' in results:
        results['gt_seg_map'] = cv2.imread(results['seg_map_path'], 0)
    return results


@of_a_user
def Skip(results):
    return None


def test_transforms_of_a_user_are_part_of_it(files):
    data = dataset(files, 'Both', 'Invert', 'Shuffle', 'PackSegInputs')
    sample = Reader(data).load(data.get_data_info(0))
    stored = cv2.imread(str(files / 'a_label.png'), 0)
    assert (sample.labels == 2 - stored).all()
    assert sample.image.shape == (12, 16, 5) and sample.rest == 2


@pytest.mark.parametrize('first', [LOAD, ('Both', )], ids=str)
def test_without_a_label_map_the_rest_works(files, first):
    """What asks for one is left out."""
    data = dataset(files, *first, 'Invert', RESIZE, 'PackSegInputs')
    reader = Reader(data)
    sample = reader.read(str(files / 'a.png'))
    assert sample.labels is None and sample.image.shape[:2] == (12, 16)
    batch = reader.batch(sample)
    assert batch['inputs'][0].shape[1:] == (24, 32)
    assert 'gt_sem_seg' not in batch['data_samples'][0]
    labelled = reader.read(str(files / 'a.png'), str(files))
    assert labelled.labels.shape == (12, 16)


@pytest.mark.parametrize('steps, words', [
    (('LoadImageFromFile', 'Skip'), 'Skip finds it invalid'),
    (('LoadImageFromFile', 'Invert'), "KeyError: 'gt_seg_map'"),
    (('Skip', ), 'a.png cannot be read'),
])
def test_what_fails_names_the_files(files, steps, words):
    data = dataset(files, *steps)
    with pytest.raises(UserError, match=r'a(_label)?\.png cannot') as error:
        reader = Reader(data)
        info = data.get_data_info(0)
        if 'Invert' not in steps:
            info.pop('seg_map_path')
        reader.load(info)
    assert words in str(error.value)


def test_a_model_that_fails_names_the_image():
    with pytest.raises(UserError, match='fails on a.tif: RuntimeError: Given'):
        with blamed_on('a.tif'):
            torch.nn.Conv2d(3, 4, 1)(torch.randn(1, 6, 8, 8))
    with pytest.raises(KeyError):  # ours to mend
        with blamed_on('a.tif'):
            {}['a']


def test_wrappers_are_unwrapped():
    a, b, c = (SimpleNamespace(name=name) for name in 'abc')
    nested = SimpleNamespace(
        dataset=SimpleNamespace(datasets=[a, SimpleNamespace(dataset=b), c]))
    assert [*unwrapped(nested)] == [a, b, c]
