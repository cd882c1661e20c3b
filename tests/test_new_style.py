"""Configs in mmengine's new style: classes in place of names, no scope."""
import fake_data
import pytest

from cac_mmseg.stack.config import load_config

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


@pytest.fixture
def new_style(tmp_path, monkeypatch):
    fake_data.make(tmp_path, 'camvid')
    (tmp_path / 'new style.py').write_text(CONFIG, encoding='utf-8')
    monkeypatch.chdir(tmp_path)


def test_its_data_are_checked(new_style, cli):
    line = 'check-data "new style.py" --out report --workers 1'
    code, out = cli(line)
    assert code == 0 and '6 samples read, 0 problems' in out, out


def test_adopt_prints_what_to_add(new_style, tmp_path, cli):
    """Nothing is written; with the lines added, it has a CaCHead."""
    before = {*tmp_path.iterdir()}
    out = cli('adopt "new style.py"')[1]
    assert {*tmp_path.iterdir()} == before
    lines = out.partition('Add to its end:\n')[2]
    (tmp_path / 'mine.py').write_text(CONFIG + lines, encoding='utf-8')
    config = load_config('mine.py')
    head = config.model.decode_head
    assert head.type == 'CaCHead' and head.num_classes == 12
    assert head.norm_cfg.type == 'SyncBN'
    assert head.loss_decode.type == 'CrossEntropyLoss'
    hooks = {hook.type for hook in config.default_hooks.values()}
    assert hooks == {'PreflightHook', 'ReportHook'}
    assert 'PreflightHook' not in cli('adopt "new style.py" --no-hooks')[1]
