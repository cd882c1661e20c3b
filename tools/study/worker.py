"""Train one run of a study: ``python -m tools.study.worker``.

In its own process, so that the peak memory is that of the run, and failures
are isolated. Arguments: the folder of the run, and the file for its result.
"""
import os
import sys
from pathlib import Path
from statistics import median
from threading import Thread
from typing import Dict

import torch
import torch.nn as nn
from mmengine.runner import Runner
from mmseg.evaluation import IoUMetric
from mmseg.models.decode_heads.dm_head import DCM
from mmseg.registry import METRICS

from cac_mmseg.stack.analysis import multiply_adds, saved_bytes
from cac_mmseg.stack.config import load_config
from cac_mmseg.stack.decode_heads import Heads
from cac_mmseg.stack.env import device_name, versions
from . import heads  # noqa: F401, registers what they use
from .results import known_bound, save_run
from .settings import settings


@METRICS.register_module()
class PerImageIoU(IoUMetric):
    """mmseg's IoUMetric, which keeps the areas of every image.

    Attributes:
        areas: 'intersect' and 'union' in pixels, (images, classes), in the
            order of the data set, of the last evaluation.
    """
    areas: Dict[str, list] = {}

    def compute_metrics(self, results: list) -> Dict[str, float]:
        """Compute what IoUMetric does."""
        intersect, union = (
            torch.stack(areas) for areas in list(zip(*results))[:2])
        self.areas = dict(
            intersect=intersect.long().tolist(), union=union.long().tolist())
        return super().compute_metrics(results)


def train(folder: Path) -> dict:
    """Train and validate by mmengine's Runner, and return the figures.

    Args:
        folder: Of the run, with its ``config.py``; gets the work_dir, and the
            predicted label maps in ``masks``.
    """
    config = load_config(folder / 'config.py')
    config.work_dir = str(folder / 'work_dir')
    config.val_evaluator.output_dir = str(folder / 'masks')
    runner = Runner.from_cfg(config)
    to_channels_last(runner.model)
    runner.train()
    history = {
        key: runner.message_hub.get_scalar(key).data[0].tolist()
        for key in ('train/time', 'train/loss', 'val/mIoU')
    }
    interval = config.train_cfg.val_interval
    dataset = runner.val_dataloader.dataset
    device = next(runner.model.parameters()).device
    metric = runner.val_loop.evaluator.metrics[0]
    return dict(
        settings=settings(config),
        iterations=runner.iter,
        seconds_per_iteration=median(history['train/time']),
        peak_mib=_peak_mib(device),
        device=device_name(device),
        versions=versions(),
        parameters=sum(p.numel()
                       for p in runner.model.decode_head.parameters()),
        **_costs(runner),
        loss=history['train/loss'],
        curve=[[min((i + 1) * interval, runner.iter), value]
               for i, value in enumerate(history['val/mIoU'])],
        classes=list(dataset.metainfo['classes']),
        **known_bound(dataset),
        images=[
            Path(dataset.get_data_info(i)['img_path']).stem
            for i in range(len(dataset))
        ],
        **metric.areas)


def to_channels_last(model: nn.Module) -> None:
    """Choose the layout in which convolutions are fastest on a CPU.

    ``view`` in mmseg's DMHead needs contiguous maps: there, they are copied.
    """
    for module in model.to(memory_format=torch.channels_last).modules():
        if isinstance(module, DCM):
            for conv in (module.filter_gen_conv, module.input_redu_conv):
                conv.register_forward_hook(
                    lambda module, inputs, output: output.contiguous())


def _peak_mib(device: torch.device) -> float:
    """Return the peak memory of the GPU, or of the process without one."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource  # not on Windows
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == 'darwin' else 2**10)


def _costs(runner: Runner) -> Dict[str, float]:
    """Count the model's multiply-adds, and what the head's training keeps.

    The former for the first image of validation, the latter for two of them.
    """
    data = runner.val_dataloader.dataset[0]
    model = runner.model.eval()
    inputs = model.data_preprocessor(dict(inputs=[data['inputs']]))['inputs']
    with torch.no_grad():
        stages = model.extract_feat(torch.cat([inputs, inputs]))
    stages = [stage.requires_grad_() for stage in stages]
    return dict(
        saved_mib=saved_bytes(Heads([model.decode_head]), *stages) / 2**20,
        # last, as it moves the model
        multiply_adds=multiply_adds(model.cpu(), inputs.cpu()))


def _end_with_parent() -> None:
    """End this process when its parent does, even if that is killed.

    The parent holds the other end of the standard input, and writes nothing.
    """

    def wait() -> None:
        os.read(0, 1)
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def main(folder: str, result_file: str) -> None:
    """Train; the result is written last, completely or not at all."""
    _end_with_parent()
    save_run(train(Path(folder)), Path(result_file))


if __name__ == '__main__':
    main(*sys.argv[1:])
