"""Runs of mmengine that take a tenth of a second each, and short ones of ours.
"""
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
from mmengine.config import Config, ConfigDict
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import (DATASETS, METRICS, MODELS,
                               OPTIM_WRAPPER_CONSTRUCTORS)
from mmengine.runner import Runner

from cac_mmseg import PreflightHook

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
METAINFO = dict(
    classes=('car', 'road'),
    palette=np.zeros((2, 3), np.uint8),
    names=np.array(['car', 'road']),
    nested=dict(pairs=[(1, 2), dict(of=[None, 1.5])]),
    config=ConfigDict(a=dict(b=[dict(c=1)])),
    scalars=[np.float32(1),
             np.int64(2),
             np.bool_(True),
             np.str_('a')],
    other=[{1, 2}, b'bytes', 1j, torch.ones(1)])


@MODELS.register_module()
class ToyModel(BaseModel):

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleDict(
            dict(first=nn.Linear(2, 2), second=nn.BatchNorm1d(2)))

    def forward(self, inputs, mode='tensor'):
        x = torch.stack([*inputs])
        for layer in self.layers.values():
            x = layer(x)
        return dict(loss=x.square().mean()) if mode == 'loss' else [x]

    def train_step(self, data, optim_wrapper):
        if not isinstance(optim_wrapper, OptimWrapperDict):
            return super().train_step(data, optim_wrapper)
        losses = self(**data, mode='loss')
        losses['loss'].backward()
        for wrapper in optim_wrapper.values():
            wrapper.step()
            wrapper.zero_grad()
        return losses


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class OnePerLayer:
    """Builds an OptimWrapperDict."""

    def __init__(self, optim_wrapper_cfg, paramwise_cfg=None):
        pass

    def __call__(self, model):
        return OptimWrapperDict(
            **{
                name: OptimWrapper(torch.optim.Adam(layer.parameters()))
                for name, layer in model.layers.items()
            })


@DATASETS.register_module()
class ToyData(torch.utils.data.Dataset):

    metainfo = METAINFO

    def __len__(self):
        return 16  # mmengine sleeps for two seconds where a data set ends

    def __getitem__(self, index):
        return dict(inputs=torch.rand(2))


@METRICS.register_module()
class ToyMetric(BaseMetric):

    def process(self, data_batch, data_samples):
        self.results.append(1)

    def compute_metrics(self, results):
        return dict(score=np.float64(0.5), each=np.ones(2))


def runner(work_dir, iterations=2, by_epoch=False, **changes):
    """Build a run of iterations, or epochs of 4 of them."""
    loader = dict(
        dataset=dict(type='ToyData'),
        batch_size=4,
        sampler=dict(type='DefaultSampler', shuffle=False))
    unit = 'epochs' if by_epoch else 'iters'
    cfg = dict(
        model=dict(type='ToyModel'),
        work_dir=str(work_dir),
        train_dataloader=loader,
        val_dataloader=loader,
        test_dataloader=loader,
        train_cfg={
            'by_epoch': by_epoch,
            f'max_{unit}': iterations,
            'val_interval': 1
        },
        val_cfg=dict(),
        test_cfg=dict(),
        val_evaluator=dict(type='ToyMetric', prefix='toy'),
        test_evaluator=dict(type='ToyMetric', prefix='toy'),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        default_hooks=dict(
            checkpoint=dict(
                type='CheckpointHook', interval=1, by_epoch=by_epoch)),
        custom_hooks=[],
        default_scope='mmengine',
        log_level='ERROR',
        experiment_name=f'{work_dir}-{iterations}-{len(changes)}')
    run = Runner.from_cfg(Config({**cfg, **changes}))
    run.register_hook(PreflightHook())
    return run


def short_run(work_dir, iterations, name='cac_r18_crossing', **more):
    """The config of a short run in this process, validated at its end."""
    loader = dict(batch_size=2, num_workers=0, persistent_workers=False)
    few = loader | dict(dataset=dict(num_images=4))
    hooks = dict(checkpoint=dict(interval=iterations), logger=dict(interval=1))
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    cfg.merge_from_dict(
        dict(
            work_dir=str(work_dir),
            train_cfg=dict(max_iters=iterations, val_interval=iterations),
            train_dataloader=loader,
            val_dataloader=few,
            test_dataloader=few,
            default_hooks=hooks))
    cfg.merge_from_dict(more)
    return cfg
