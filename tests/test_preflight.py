"""Errors that a user can read, in place of deep or silent ones."""
import re
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import cv2
import fake_data
import numpy as np
import pytest
import torch
import torch.nn as nn
from conftest import build, labelled, start
from mmengine.config import Config
from mmengine.dataset import Compose, RepeatDataset
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.models import FCNHead
from mmseg.registry import DATASETS
from mmseg.structures import SegDataSample
from test_mim import SHORT
from toy_runs import short_run

from cac_mmseg import CheckLabels, config_path
from cac_mmseg.hooks.label_check import LabelCheck
from cac_mmseg.hooks.preflight import _loads


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Train or test in this process, as mim does in another."""
    monkeypatch.chdir(tmp_path)

    def run(what, name, **options):
        runner = Runner.from_cfg(short_run('work_dir', 2, name, **options))
        getattr(runner, what)()
        return runner

    return run


@pytest.mark.parametrize('weights, words', [
    ('missing.pth', 'missing.pth is not a file'),
    ('garbage.pth', 'garbage.pth'),
    ('http://127.0.0.1:9/weights.pth', 'Connection refused'),
])
def test_weights_that_cannot_be_loaded(tmp_path, run, weights, words):
    (tmp_path / 'garbage.pth').write_bytes(b'not a checkpoint')
    with pytest.raises(RuntimeError, match='^the pretrained weights') as error:
        run('train', 'cac_r18_contextshapes', model=dict(pretrained=weights))
    for word in (words, weights, 'model.pretrained=FILE',
                 'model.pretrained=None'):
        assert word in str(error.value)


def test_a_checkpoint_of_another_model(tmp_path, configs, run):
    cfg = Config.fromfile(configs / 'cac_r18_contextshapes.py').model
    cfg.decode_head.update(num_classes=7)
    cfg.decode_head.loss_decode.pop('class_weight')
    weights = build(cfg).state_dict()
    torch.save(dict(state_dict=weights, meta=dict()), tmp_path / 'seven.pth')
    with pytest.raises(ValueError, match='^the checkpoint does not') as error:
        run('test', 'cac_r18_contextshapes', load_from='seven.pth')
    assert 'predicts 7 classes and the config asks for 4' in str(error.value)


def test_fine_tuning_may_leave_out_a_classifier(tmp_path, run):
    """load_from with other classes trains and validates; a test refuses it."""
    weights = {'decode_head.conv_seg.bias': torch.zeros(9)}
    torch.save(dict(state_dict=weights), tmp_path / 'other.pth')
    name, options = 'fcn_r18_contextshapes', dict(load_from='other.pth')
    with pytest.raises(ValueError, match='backbone.conv1.weight is missing'):
        run('test', name, **options)
    runner = run('train', name, **options)
    assert runner.iter == 2
    assert runner.message_hub.get_scalar('val/mIoU').current() >= 0


def test_only_a_checkpoint_of_the_same_model_is_resumed(run):
    """The optimizer's state goes by position: it would fail deep inside."""
    run('train', 'fcn_r18_contextshapes')
    with pytest.raises(ValueError, match='in [0-9]+ places') as error:
        run('train', 'cac_r18_contextshapes', resume=True)
    assert 'Resume it with the config that it was' in str(error.value)
    assert run('train', 'fcn_r18_contextshapes', resume=True).iter == 2


def test_layouts_that_a_module_converts_are_resumed():

    class Renamed(nn.Module):

        def __init__(self):
            super().__init__()
            self.new = nn.Parameter(torch.zeros(2))

        def _load_from_state_dict(self, state_dict, prefix, *args):
            state_dict[f'{prefix}new'] = state_dict.pop(f'{prefix}old')
            super()._load_from_state_dict(state_dict, prefix, *args)

    weights = dict(old=torch.ones(2))
    assert _loads(Renamed(), dict(state_dict=weights))
    assert [*weights] == ['old']
    assert not _loads(nn.Linear(1, 1), dict(state_dict=weights))


@pytest.mark.slow
def test_mim_ends_with_the_same_message(tmp_path, configs):
    mim = Path(sys.executable).with_name('mim')
    words = [mim, 'train', 'mmsegmentation']
    words += [configs / 'cac_r18_contextshapes.py', '--cfg-options', *SHORT]
    run = start(*words, 'model.pretrained=missing.pth', cwd=tmp_path)
    assert run.returncode != 0
    assert '\nRuntimeError: the pretrained weights' in run.stderr


# ---- labels


def head(ignore_index=255, classes=4):
    module = nn.Module()
    module.num_classes, module.ignore_index = classes, ignore_index
    return module


def model(**parts):
    """A model of a decode head, or of these parts."""
    module = nn.Module()
    for name, part in (parts or dict(decode_head=head())).items():
        setattr(module, name, part)
    return module


def check_batch(samples, of=None, inputs=None):
    """Check samples, and images of the size of the last label map."""
    dataset = SimpleNamespace(
        dataset=None, pipeline=Compose([dict(type='LoadAnnotations')]))
    check = LabelCheck(of or model(), dataset)
    check.wraps = True
    if inputs is None:
        inputs = torch.zeros(3, 3, 1, 2)
    check.check_batch(dict(inputs=inputs, data_samples=samples))


def step(values, path='labels/a.png', of=None, **more):
    """Check a batch with a label map, a sound one, and an image without."""
    check_batch([
        SegDataSample(),
        labelled([[0, 3]], seg_map_path='labels/b.png', **more),
        labelled([values], seg_map_path=path, **more)
    ], of)


def load(values, **more):
    """Check a label map as it is loaded."""
    results = dict(
        gt_seg_map=np.array([values], np.uint8),
        seg_map_path='labels/a.png',
        **more)
    assert CheckLabels(num_classes=4)(results) is results


def cascade(values, **more):
    heads = nn.ModuleList([nn.Identity(), head()])
    step(values, of=model(decode_head=heads), **more)


def auxiliary(values, **more):
    of = model(
        decode_head=head(classes=255), auxiliary_head=nn.ModuleList([head()]))
    step(values, of=of, **more)


@pytest.mark.parametrize('check', [load, step, cascade, auxiliary])
def test_labels_out_of_range_are_named_with_their_file(check):
    for values in ([0, 3], [3, 255]):
        check(values)
    for values, wrong in (([0, 4], '4'), ([254, 9], '9, 254')):
        with pytest.raises(ValueError, match='labels/a.png') as info:
            check(values, reduce_zero_label=True)
        assert f'the values {wrong}, but labels are 0 to 3' in str(info.value)
        assert '(after reduce_zero_label)' in str(info.value)


@pytest.mark.parametrize('ignored, values, words', [
    (-1, [3, -1], None),
    (None, [3, 255], None),
    (-1, [3, 255], '255, but .* or -1 to ignore'),
    (255, [3, -1], '-1, but .* or 255 to ignore'),
])
def test_the_head_says_which_label_is_ignored(ignored, values, words):
    with raises(words):
        step(values, of=model(decode_head=head(ignored)))


def raises(words):
    """What names these words, or nothing."""
    return pytest.raises(ValueError, match=words) if words else nullcontext()


@pytest.mark.parametrize(
    'stored, values, words',
    [
        ([0, 3], [0, 3], None),
        ([256, 259], [0, 3], 'a.png holds the values 256, 259'),
        ([0, 65535], [0, 255], None),  # ignored, as it was meant
        ([256, 65535], [0, 255], 'holds the values 256$|values 256.'),
    ])
def test_values_beyond_a_byte_are_named(tmp_path, stored, values, words):
    path = str(tmp_path / 'a.png')
    cv2.imwrite(path, np.array([stored], np.uint16))
    with raises(words):
        step(values, path=path)


@pytest.mark.parametrize('batch', [
    dict(inputs=dict(sup=[1], unsup=[2]), data_samples=dict(sup=[1])),
    dict(data_samples=None),
    dict(inputs=[1]),
    [1, 2],
])
def test_batches_of_other_trainings_are_left_alone(batch):
    LabelCheck(model(), None).check_batch(batch)


def zeros(*shape):
    labels = PixelData(data=torch.zeros(*shape).long())
    metainfo = dict(seg_map_path='labels/a.png')
    return SegDataSample(gt_sem_seg=labels, metainfo=metainfo)


def test_label_maps_of_another_shape_are_named():
    """Beside the image of its own; they would fail in torch.stack."""
    of_size = 'a.png is of the size (2, 2), its image of (1, 2)'
    coloured = 'a.png is a picture of the shape (2, 3, 3)'
    for shape, words in [((1, 2, 2), of_size), ((2, 3, 3), coloured)]:
        with pytest.raises(ValueError, match=re.escape(words)):
            check_batch([SegDataSample(), zeros(1, 1, 2), zeros(*shape)])
    images = [torch.zeros(3, *size) for size in ((9, 9), (4, 5), (6, 7))]
    check_batch(
        [SegDataSample(), zeros(1, 4, 5),
         zeros(1, 6, 7)], inputs=images)
    # the loss resizes logits to labels, if these are of one size
    for inputs in (dict(rgb=1, depth=2), [torch.zeros(3, 8, 8)] * 2):
        check_batch([zeros(1, 4, 4), zeros(1, 4, 4)], inputs=inputs)


class EdgeHead(FCNHead):
    """A head that makes targets of its own."""

    def loss_by_feat(self, *args):
        raise NotImplementedError


def test_heads_with_targets_of_their_own_take_no_labels():
    edges = EdgeHead(in_channels=4, channels=4, num_classes=2)
    step([0, 8], of=model(decode_head=head(classes=9), auxiliary_head=edges))
    step([9, 9], of=nn.Identity())  # a model without a decode head


@pytest.mark.parametrize('size, divisor, pad, fails', [
    ((8, 8), None, 255, False),
    ((8, 8), None, 3, False),
    ((1, 1), None, 4, False),
    ((8, 8), None, 4, True),
    ((1, 2), None, 4, False),
    (None, 2, 4, True),
    (None, 1, 4, False),
    (None, None, 4, False),
])
def test_padding_that_is_no_class_is_named_where_it_acts(
        size, divisor, pad, fails):
    padding = SimpleNamespace(size=size, size_divisor=divisor, seg_pad_val=pad)
    with raises('seg_pad_val to 255' if fails else None):
        step([0, 1], of=model(decode_head=head(), data_preprocessor=padding))


@pytest.mark.parametrize('values, count, words', [
    ([0, 255], 2, 'class 1 never occurs. Convert 255 to 1'),
    ([0, 1], 1, 'num_classes=2 and out_channels=1'),
    ([0, 1], 2, None),
])
def test_before_training_labels_must_tell_classes_apart(
        tmp_path, values, count, words):
    """All label maps are read only where the first have one class."""
    fake_data.make(tmp_path, 'camvid')
    root = tmp_path / 'data/camvid'
    for path in root.glob('trainannot/*.png'):
        labels = np.random.default_rng(0).choice(values, fake_data.SIZE)
        cv2.imwrite(str(path), labels)
    init_default_scope('mmseg')
    names = 'LoadImageFromFile', 'LoadAnnotations', 'PackSegInputs'
    part = DATASETS.build(
        dict(
            type='BaseSegDataset',
            data_root=str(root),
            img_suffix='.png',
            data_prefix=dict(img_path='train', seg_map_path='trainannot'),
            pipeline=[dict(type=name) for name in names]))
    state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    with raises(words):
        LabelCheck(
            model(decode_head=head(classes=count)),
            RepeatDataset(part, 2)).check_dataset()
    assert torch.equal(state[0], torch.get_rng_state())
    assert state[1] == np.random.get_state()[1].tolist()


def test_training_names_the_first_label_that_is_no_class(tmp_path, run):
    config = tmp_path / 'three.py'
    config.write_text(f"_base_ = '{config_path('cac_r18_contextshapes')}'\n"
                      'model = dict(decode_head=dict(num_classes=3, '
                      'loss_decode=dict(class_weight=None)))\n')
    with pytest.raises(ValueError, match=r'contextshapes://.*values 3, but'):
        run('train', config.with_suffix(''))
