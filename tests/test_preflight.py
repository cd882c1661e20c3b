"""Errors that a user can read, in place of deep or silent ones."""
import re
import subprocess
from types import SimpleNamespace

import cv2
import fake_data
import numpy as np
import pytest
import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.dataset import Compose, RepeatDataset
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.models import FCNHead
from mmseg.registry import DATASETS, MODELS
from mmseg.structures import SegDataSample
from test_mim import MIM, SHORT

from cac_mmseg import CheckLabels, config_path
from cac_mmseg.hooks.label_check import LabelCheck
from cac_mmseg.hooks.preflight import _loads


def fails(command, *arguments, cwd):
    """Run mim, which has to fail, and return its last error line."""
    run = subprocess.run([MIM, command, 'mmsegmentation', *arguments],
                         cwd=cwd,
                         text=True,
                         capture_output=True,
                         timeout=600)
    assert run.returncode != 0, run.stdout[-2000:]
    return [
        line for line in run.stderr.splitlines()
        if re.match(r'(cac_mmseg\.\S+\.)?\w+Error: ', line)
    ][-1]


@pytest.fixture
def run(tmp_path, configs, monkeypatch):
    """Train or test in this process, as mim does in another."""
    monkeypatch.chdir(tmp_path)

    def run(what, name, *options):
        cfg = Config.fromfile(configs / f'{name}.py')
        cfg.merge_from_dict(dict(option.split('=') for option in options))
        cfg.work_dir = str(tmp_path / 'work_dir')
        cfg.train_dataloader.update(
            num_workers=0, persistent_workers=False, batch_size=2)
        for loader in (cfg.val_dataloader, cfg.test_dataloader):
            loader.update(num_workers=0, persistent_workers=False)
            loader.dataset.num_images = 2
        cfg.train_cfg.update(max_iters=2, val_interval=2)
        runner = Runner.from_cfg(cfg)
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
        run('train', 'cac_r18_contextshapes', f'model.pretrained={weights}')
    for word in (words, weights, 'model.pretrained=FILE',
                 'model.pretrained=None'):
        assert word in str(error.value)


def test_a_checkpoint_of_another_class_count(tmp_path, configs, run):
    cfg = Config.fromfile(configs / 'cac_r18_contextshapes.py')
    init_default_scope('mmseg')
    cfg.model.decode_head.update(num_classes=7)
    cfg.model.decode_head.loss_decode.pop('class_weight')
    torch.save(
        dict(state_dict=MODELS.build(cfg.model).state_dict(), meta=dict()),
        tmp_path / 'seven.pth')
    with pytest.raises(ValueError, match='^the checkpoint does not') as error:
        run('test', 'cac_r18_contextshapes', 'load_from=seven.pth')
    assert 'predicts 7 classes and the config asks for 4' in str(error.value)


def test_a_checkpoint_of_another_head(tmp_path, run):
    torch.save(
        dict(state_dict={'decode_head.conv_seg.bias': torch.zeros(4)}),
        tmp_path / 'other.pth')
    with pytest.raises(ValueError, match='backbone.conv1.weight is missing'):
        run('test', 'fcn_r18_contextshapes', 'load_from=other.pth')


def test_fine_tuning_may_leave_out_a_classifier(tmp_path, run):
    """load_from with other classes trains, and validates afterwards."""
    torch.save(
        dict(state_dict={'decode_head.conv_seg.bias': torch.zeros(9)}),
        tmp_path / 'other.pth')
    runner = run('train', 'fcn_r18_contextshapes', 'load_from=other.pth')
    assert runner.iter == 2
    assert runner.message_hub.get_scalar('val/mIoU').current() >= 0


def test_only_a_checkpoint_of_the_same_model_is_resumed(run):
    """The optimizer's state goes by position: it would fail deep inside."""
    run('train', 'fcn_r18_contextshapes')
    with pytest.raises(ValueError, match='in [0-9]+ places') as error:
        run('train', 'cac_r18_contextshapes', 'resume=yes')
    assert 'Resume it with the config that it was' in str(error.value)
    assert run('train', 'fcn_r18_contextshapes', 'resume=yes').iter == 2


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
    message = fails(
        'train',
        configs / 'cac_r18_contextshapes.py',
        '--cfg-options',
        *SHORT,
        'model.pretrained=missing.pth',
        cwd=tmp_path)
    assert message.startswith('RuntimeError: the pretrained weights')


# ---- labels


def load(values, **more):
    """Check a label map as it is loaded."""
    results = dict(
        gt_seg_map=np.array([values], np.uint8),
        seg_map_path='labels/a.png',
        **more)
    assert CheckLabels(num_classes=4)(results) is results


def head(ignore_index=255, classes=4):
    module = nn.Module()
    module.num_classes, module.ignore_index = classes, ignore_index
    return module


def step(values,
         *,
         shape=None,
         pad=None,
         path='labels/a.png',
         model=None,
         **more):
    """Check a batch with a label map, a sound one, and an image without."""
    if model is None:
        model = nn.Module()
        model.decode_head = head()
    samples = [SegDataSample()]
    for name, labels in (('labels/b.png', [0, 3]), (path, values)):
        sample = SegDataSample(metainfo=dict(seg_map_path=name, **more))
        sample.gt_sem_seg = PixelData(data=torch.tensor([[labels]]))
        samples.append(sample)
    if shape:
        samples[-1].gt_sem_seg = PixelData(data=torch.zeros(shape).long())
    dataset = SimpleNamespace(
        dataset=None, pipeline=Compose([dict(type='LoadAnnotations')]))
    check = LabelCheck(model, dataset)
    check.wraps = True
    check.check_batch(
        dict(inputs=torch.zeros(3, 3, 1, len(values)), data_samples=samples))


def cascade(*args, **kwargs):
    model = nn.Module()
    model.decode_head = nn.ModuleList([nn.Identity(), head()])
    step(*args, model=model, **kwargs)


def auxiliary(*args, **kwargs):
    model = nn.Module()
    model.decode_head = head(classes=255)
    model.auxiliary_head = nn.ModuleList([head()])
    step(*args, model=model, **kwargs)


CHECKS = [load, step, cascade, auxiliary]


@pytest.mark.parametrize('check', CHECKS)
def test_labels_in_range_pass(check):
    check([0, 3, 255] if check is load else [3, 255])


@pytest.mark.parametrize('check', CHECKS)
@pytest.mark.parametrize('values, wrong', [([0, 4], '4'),
                                           ([254, 9], '9, 254')])
def test_labels_out_of_range_are_named_with_their_file(check, values, wrong):
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
    model = nn.Module()
    model.decode_head = head(ignored)
    if words is None:
        step(values, model=model)
        return
    with pytest.raises(ValueError, match=words):
        step(values, model=model)


def test_void_of_16_bits_is_ignored_as_it_was_meant(tmp_path):
    """65535 becomes 255."""
    path = str(tmp_path / 'a.png')
    cv2.imwrite(path, np.array([[0, 65535]], np.uint16))
    step([0, 255], path=path)
    cv2.imwrite(path, np.array([[256, 65535]], np.uint16))
    with pytest.raises(ValueError, match='holds the values 256$|values 256.'):
        step([0, 255], path=path)


@pytest.mark.parametrize('batch', [
    dict(inputs=dict(sup=[1], unsup=[2]), data_samples=dict(sup=[1])),
    dict(data_samples=None),
    dict(inputs=[1]),
    [1, 2],
])
def test_batches_of_other_trainings_are_left_alone(batch):
    model = nn.Module()
    model.decode_head = head()
    LabelCheck(model, None).check_batch(batch)


def test_labels_may_be_smaller_than_images():
    """The loss resizes logits to the labels, if these are of one size."""
    model = nn.Module()
    model.decode_head = head()
    samples = []
    for _ in range(2):
        samples.append(SegDataSample())
        samples[-1].gt_sem_seg = PixelData(data=torch.zeros(1, 4, 4).long())
    check = LabelCheck(model, None)
    batch = dict(inputs=dict(rgb=1, depth=2), data_samples=samples)
    check.check_batch(batch)
    check.check_batch(dict(batch, inputs=[torch.zeros(3, 8, 8)] * 2))


def test_each_label_map_is_compared_with_its_own_image():
    """Also behind an image without one."""
    model = nn.Module()
    model.decode_head = head()
    samples, images = [SegDataSample()], [torch.zeros(3, 9, 9)]
    for size in ((4, 5), (6, 7)):
        samples.append(SegDataSample())
        samples[-1].gt_sem_seg = PixelData(data=torch.zeros(1, *size).long())
        images.append(torch.zeros(3, *size))
    LabelCheck(model,
               None).check_batch(dict(inputs=images, data_samples=samples))


class EdgeHead(FCNHead):
    """A head that makes targets of its own."""

    def loss_by_feat(self, *args):
        raise NotImplementedError


def test_auxiliary_heads_with_targets_of_their_own_take_no_labels():
    model = nn.Module()
    model.decode_head = head(classes=9)
    model.auxiliary_head = EdgeHead(in_channels=4, channels=4, num_classes=2)
    step([0, 8], model=model)


@pytest.mark.parametrize('shape, words', [
    ((1, 2, 2), r'a.png is of the size \(2, 2\), its image of \(1, 2\)'),
    ((1, 2, 3), r'a.png is of the size'),
    ((2, 3, 3), r'a.png is a picture of the shape \(2, 3, 3\)'),
])
def test_label_maps_of_another_shape_are_named(shape, words):
    """They would fail in torch.stack."""
    with pytest.raises(ValueError, match=words):
        step([0, 1], shape=shape)


def test_values_beyond_a_byte_are_named(tmp_path):
    path = str(tmp_path / 'a.png')
    cv2.imwrite(path, np.array([[0, 3]], np.uint16))
    step([0, 3], path=path)
    cv2.imwrite(path, np.array([[256, 259]], np.uint16))
    with pytest.raises(ValueError, match='a.png holds the values 256, 259'):
        step([0, 3], path=path)


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
    model = nn.Module()
    model.decode_head = head()
    model.data_preprocessor = SimpleNamespace(
        size=size, size_divisor=divisor, seg_pad_val=pad)
    if not fails:
        step([0, 1], model=model)
        return
    with pytest.raises(ValueError, match='seg_pad_val to 255'):
        step([0, 1], model=model)


def test_a_model_without_a_decode_head_is_left_alone():
    step([9, 9], model=nn.Identity())


@pytest.mark.parametrize('values, count, words', [
    ([0, 255], 2, 'class 1 never occurs. Convert 255 to 1'),
    ([2], 4, 'all labels are 2'),
    ([0, 1], 1, 'num_classes=2 and out_channels=1'),
    ([0, 1], 2, None),
])
def test_before_training_labels_must_tell_classes_apart(
        tmp_path, values, count, words):
    """All label maps are read only where the first have one class."""
    fake_data.camvid(tmp_path / 'data', np.random.default_rng(0))
    root = tmp_path / 'data/camvid'
    for path in root.glob('trainannot/*.png'):
        labels = np.random.default_rng(0).choice(values, fake_data.SIZE)
        cv2.imwrite(str(path), labels)
    init_default_scope('mmseg')
    part = DATASETS.build(
        dict(
            type='BaseSegDataset',
            data_root=str(root),
            img_suffix='.png',
            data_prefix=dict(img_path='train', seg_map_path='trainannot'),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations'),
                dict(type='PackSegInputs')
            ]))
    model = nn.Module()
    model.decode_head = head(classes=count)
    check = LabelCheck(model, RepeatDataset(part, 2))
    state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    if words is None:
        check.check_dataset()
    else:
        with pytest.raises(ValueError, match=words):
            check.check_dataset()
    assert torch.equal(state[0], torch.get_rng_state())
    assert state[1] == np.random.get_state()[1].tolist()


def test_training_names_the_first_label_that_is_no_class(tmp_path, run):
    config = tmp_path / 'three.py'
    config.write_text(f"_base_ = '{config_path('cac_r18_contextshapes')}'\n"
                      'model = dict(decode_head=dict(num_classes=3, '
                      'loss_decode=dict(class_weight=None)))\n')
    with pytest.raises(ValueError, match=r'contextshapes://.*values 3, but'):
        run('train', config.with_suffix(''))
