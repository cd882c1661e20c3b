"""Errors that a user can read, in place of deep or silent ones."""
import re
import subprocess
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from test_mim import MIM, SHORT

from cac_mmseg import CheckLabels, PreflightHook, config_path


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
        if re.match(r'\w+Error: ', line)
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
    with pytest.raises(ValueError, match='^checkpoint .*seven.pth') as error:
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


def step(values, cascade=False, ignore_index=255, **more):
    """Check a batch with a label map, a sound one, and an image without."""
    head = nn.Module()
    head.num_classes, head.ignore_index = 4, ignore_index
    model = nn.Module()
    model.decode_head = head
    if cascade:
        model.decode_head = nn.ModuleList([nn.Identity(), head])
    samples = [SegDataSample()]
    for name, labels in (('b', [0, 3]), ('a', values)):
        sample = SegDataSample(
            metainfo=dict(seg_map_path=f'labels/{name}.png', **more))
        sample.gt_sem_seg = PixelData(data=torch.tensor([[labels]]))
        samples.append(sample)
    PreflightHook().before_train_iter(
        SimpleNamespace(model=model), 0, dict(data_samples=samples))


CHECKS = [load, step, partial(step, cascade=True)]


@pytest.mark.parametrize('check', CHECKS)
def test_labels_in_range_pass(check):
    check([0, 3, 255])


@pytest.mark.parametrize('check', CHECKS)
@pytest.mark.parametrize('values, wrong', [([0, 4], '[4]'),
                                           ([254, 9, 9, 255], '[9, 254]')])
def test_labels_out_of_range_are_named_with_their_file(check, values, wrong):
    with pytest.raises(ValueError, match='labels/a.png') as info:
        check(values, reduce_zero_label=True)
    assert f'the values {wrong} (after reduce_zero_label)' in str(info.value)
    assert '0 to 3' in str(info.value)


def test_the_head_says_which_label_is_ignored():
    step([3, -1], ignore_index=-1)
    step([3, 255], ignore_index=None)
    with pytest.raises(ValueError, match=r'\[255\].* or -1 to ignore'):
        step([3, 255], ignore_index=-1)
    with pytest.raises(ValueError, match=r'\[-1\].* or 255 to ignore'):
        step([3, -1])


def test_a_model_without_a_decode_head_is_left_alone():
    PreflightHook().before_train_iter(
        SimpleNamespace(model=nn.Identity()), 0, dict(data_samples=[None]))


def test_training_names_the_first_label_that_is_no_class(tmp_path, run):
    config = tmp_path / 'three.py'
    config.write_text(f"_base_ = '{config_path('cac_r18_contextshapes')}'\n"
                      'model = dict(decode_head=dict(num_classes=3, '
                      'loss_decode=dict(class_weight=None)))\n')
    with pytest.raises(ValueError, match=r'contextshapes://.*values \[3\]'):
        run('train', config.with_suffix(''))
