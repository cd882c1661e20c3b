"""Configs in mmengine's new style: classes in place of names, no scope."""
from pathlib import Path

import fake_data
import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from cac_mmseg import CaCHead, PreflightHook, ReportHook
from cac_mmseg.commands import adopt
from cac_mmseg.commands.adopt.new_style import base_module
from cac_mmseg.stack.config import load_config, with_type_names

CONFIG = '''
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import DefaultSampler
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations, PackSegInputs
from mmseg.evaluation import IoUMetric
from mmseg.models import (CrossEntropyLoss, EncoderDecoder, FCNHead, ResNetV1c,
                          SegDataPreProcessor)
from torch.nn import SyncBatchNorm

default_scope = None
norm_cfg = dict(type=SyncBatchNorm, requires_grad=True)
model = dict(
    type=EncoderDecoder,
    data_preprocessor=dict(type=SegDataPreProcessor, size=(32, 32)),
    backbone=dict(type=ResNetV1c, depth=18, norm_cfg=norm_cfg),
    decode_head=dict(
        type=FCNHead,
        in_channels=512,
        channels=16,
        num_classes=12,
        norm_cfg=norm_cfg,
        loss_decode=dict(type=CrossEntropyLoss)),
    auxiliary_head=None,
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
train_dataloader = dict(
    batch_size=2,
    sampler=dict(type=DefaultSampler),
    dataset=dict(
        type=BaseSegDataset,
        data_root='data/camvid',
        data_prefix=dict(img_path='train', seg_map_path='trainannot'),
        img_suffix='.png',
        metainfo=dict(classes=tuple('abcdefghijkl')),
        pipeline=[
            dict(type=LoadImageFromFile),
            dict(type=LoadAnnotations),
            dict(type=PackSegInputs)
        ]))
val_dataloader = None
test_dataloader = dict(train_dataloader)
test_evaluator = dict(type=IoUMetric)
'''

RUN = '''
from mmengine.optim import OptimWrapper
from mmengine.runner import IterBasedTrainLoop
from torch.optim import SGD

train_cfg = dict(type=IterBasedTrainLoop, max_iters=1)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=.01))
test_dataloader = test_evaluator = None
work_dir = 'work'
'''
CASCADE = '''
from mmengine.config import read_base
from mmseg.models import CascadeEncoderDecoder, DepthwiseSeparableFCNHead

with read_base():
    from .base import *
head = dict(model.decode_head)
model.update(
    type=CascadeEncoderDecoder,
    num_stages=2,
    decode_head=[head, dict(head, type=DepthwiseSeparableFCNHead)])
default_hooks = dict(logger=None)
'''
PARTS = '''
from mmseg.models import CrossEntropyLoss as Loss
from mmseg.models import ResNetV1c


class MyNet(ResNetV1c):
    pass


class CrossEntropyLoss(Loss):
    pass
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, text):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text, encoding='utf-8')


def test_its_data_are_checked(folder, cli):
    fake_data.make(folder, 'camvid')
    write(folder / 'new style.py', CONFIG)
    line = 'check-data "new style.py" --out report --workers 1'
    code, out = cli(line)
    assert code == 0 and '6 samples read, 0 problems' in out, out


def test_adopt_writes_one_that_trains(folder, cli):
    fake_data.make(folder, 'camvid')
    write(folder / 'mine.py', CONFIG + RUN)
    text = cli('adopt mine.py --dry-run --no-hooks')[1]
    assert 'read_base' in text and 'PreflightHook' not in text
    assert not (folder / 'cac_mine.py').exists()
    code, out = cli('adopt mine.py')
    assert code == 0, out
    before, after = load_config('mine.py'), load_config('cac_mine.py')
    new, old = after.model.decode_head, before.model.decode_head
    assert new == dict(old, type=CaCHead, in_index=-1)
    assert {hook.type for hook in after.default_hooks.values()
            } == {PreflightHook, ReportHook}  # yapf: disable
    for part in (before, after):
        del part.model.decode_head
    assert with_type_names(before.model) == with_type_names(after.model)
    assert after.train_dataloader == before.train_dataloader
    runner = Runner.from_cfg(load_config('cac_mine.py'))
    runner.train()
    assert type(runner.model.decode_head) is CaCHead
    code, out = cli('adopt mine.py')
    assert code == 2 and 'exists' in out


@pytest.mark.parametrize(
    'base, out, module',
    [
        ('base.py', 'a-b.py', '.base'),
        ('base.py', 'there/out.py', '..base'),
        ('a/b/base.py', 'there/out.py', '..a.b.base'),
        ('a-b/base.py', 'a-b/out.py', '.base'),
        ('a-b/base.py', 'out.py', None),
        ('new style.py', 'out.py', None),
        ('class.py', 'out.py', None),
        ('1.py', 'out.py', None),
        ('a.b.py', 'out.py', None),
        ('\ufb01ne.py', 'out.py', None),  # Python would look for fine.py
    ])
def test_what_can_be_imported(base, out, module, folder):
    assert base_module(base, folder / Path(out).parent) == module
    if module:
        write(folder / base, 'value = 1')
        text = f'with read_base():\n    from {module} import *'
        write(folder / out, f'from mmengine.config import read_base\n{text}')
        assert Config.fromfile(folder / out).value == 1


def test_lines_to_paste_where_none_can(folder, cli, monkeypatch):
    """Nothing is written; with the lines added, it has a CaCHead."""
    monkeypatch.setattr(adopt, 'check', lambda *_: ['unused.weight'])
    write(folder / 'new style.py', CONFIG)
    out = cli('adopt "new style.py"')[1]
    assert [*folder.iterdir()] == [folder / 'new style.py']
    lines = out.partition('Add to its end:\n')[2]
    write(folder / 'pasted.py', CONFIG + lines)
    write(folder / 'base.py', CONFIG)
    cli('adopt base.py --out written.py')
    pasted, written = load_config('pasted.py'), load_config('written.py')
    assert pasted.model.decode_head.type is CaCHead
    assert pasted.find_unused_parameters and written.find_unused_parameters
    for key in ('model', 'default_hooks'):
        assert with_type_names(pasted[key]) == with_type_names(written[key])


def test_cascade(folder, cli):
    """Of a base with a base; names in place of classes stay names."""
    write(folder / 'base.py', CONFIG.replace('SyncBatchNorm,', "'SyncBN',"))
    write(folder / 'mine.py', CASCADE)
    code, out = cli('adopt mine.py')
    assert code == 0, out
    before, after = load_config('mine.py').model, load_config('cac_mine.py')
    assert {*after.default_hooks} == {
        'logger', 'preflight', 'report'}  # yapf: disable
    after = after.model
    assert after.type.__name__ == 'EncoderDecoder'
    assert 'num_stages' not in after
    assert after.auxiliary_head == [before.decode_head[0]]
    assert after.decode_head.norm_cfg == dict(
        type='SyncBN', requires_grad=True)


def test_classes_that_are_not_registered(folder, cli, monkeypatch):
    """Nor may another class of the same name take their place."""
    monkeypatch.syspath_prepend(folder)
    write(folder / 'my_parts.py', PARTS)
    text = CONFIG.replace('type=ResNetV1c', 'type=MyNet').replace(
        'default_scope', 'from my_parts import CrossEntropyLoss as Mine\n'
        'from my_parts import MyNet\ndefault_scope', 1)
    write(folder / 'mine.py', text)
    code, out = cli('adopt mine.py')
    assert code == 0, out
    backbone = load_config('cac_mine.py').model.backbone
    assert backbone.type.__name__ == 'MyNet'
    write(
        folder / 'two.py',
        text.replace('auxiliary_head=None',
                     'auxiliary_head=dict(loss_decode=Mine)'))
    code, out = cli('adopt two.py')
    assert code == 2 and 'two classes of the model are called Cross' in out
