"""A training with and without CUDAGraphHook: losses, and times of a step.

    python tests/gpu/graph.py
"""
import sys
import tempfile
from pathlib import Path

import torch
from mmengine.runner import Runner

sys.path[:0] = [str(Path(__file__).parents[1])]
from toy_runs import short_run  # noqa: E402

RUNS = ({}, dict(optim_wrapper=dict(accumulative_counts=2)),
        dict(optim_wrapper=dict(type='AmpOptimWrapper', dtype='bfloat16')))


def train(*hooks: str, **changes: dict) -> list:
    """Return losses and seconds of the iterations of a short run."""
    cfg = short_run(
        tempfile.mkdtemp(),
        20,
        custom_hooks=[dict(type=hook) for hook in ('PreflightHook', *hooks)],
        **changes)
    cfg.randomness, cfg.experiment_name = dict(seed=3), cfg.work_dir
    runner = Runner.from_cfg(cfg)
    runner.train()
    return [
        torch.tensor(
            runner.message_hub.get_scalar(f'train/{name}').data[0][3:])
        for name in ('loss', 'time')
    ]


if __name__ == '__main__':
    for changes in RUNS:
        (loss,
         time), (graphed,
                 faster) = train(**changes), train('CUDAGraphHook', **changes)
        print(f'{changes}: {time.median() * 1e3:.1f} ms, with a graph '
              f'{faster.median() * 1e3:.1f}')
        torch.testing.assert_close(graphed, loss, rtol=1e-2, atol=1e-3)
