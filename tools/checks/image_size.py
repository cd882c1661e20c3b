"""Mean or sum over positions? The measurement of docs/study.md.

The paper sums queries times keys over positions, we take the mean. In training
batch normalisation removes the factor. In evaluation its statistics are of the
training's image size: at another one, sums are off by the ratio of the areas.
Validation images are resized and segmented with both.
"""
from pathlib import Path
from typing import Dict, List, Optional, Sequence

import numpy as np
import torch.nn as nn
from mmengine.runner import Runner
from mmseg.models import BaseSegmentor

from cac_mmseg import CaCModule, ContextShapesDataset
from cac_mmseg.errors import UserError
from cac_mmseg.intact import inherits
from cac_mmseg.stack.tables import markdown_table
from tools.study.statistics import mean_iou
from .permute_context import load_run_model, runs_parser, segment

SCALES = (0.75, 1.0, 1.5, 2.0)


def scale_kernels(model: BaseSegmentor, factor: float) -> List[nn.Module]:
    """Multiply what is normalised as kernels; return handles to undo it."""
    return [
        module.kernel_norm.register_forward_pre_hook(lambda _, inputs:
                                                     (inputs[0] * factor, ))
        for module in model.modules()
        if inherits(module, CaCModule, 'predict_kernels')
    ]


def measure(run: Path, images: Optional[int]) -> Dict[tuple, float]:
    """Return the mIoU by ``'mean'`` or ``'sum'`` and scale."""
    model = load_run_model(run)
    scores = {}
    for scale in SCALES:
        model.cfg.val_dataloader.dataset.pipeline = [
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale_factor=scale, keep_ratio=True),
            dict(type='LoadAnnotations'),  # which keep their size
            dict(type='PackSegInputs')
        ]
        loader = Runner.build_dataloader(model.cfg.val_dataloader)
        if not isinstance(loader.dataset, ContextShapesDataset):
            raise UserError(f'{run} was not trained on images of one size: '
                            'give runs of crossing or contextshapes')
        for name, factor in (('mean', 1.), ('sum', scale**2)):
            handles = scale_kernels(model, factor)
            if not handles:
                raise UserError(f'{run} predicts no kernels by sums')
            areas = np.array([
                segment(model, data)
                for data, _ in zip(loader, range(images or len(loader)))
            ]).sum(0)
            scores[name, scale] = mean_iou(*areas)
            for handle in handles:
                handle.remove()
    return scores


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Parse the arguments, and print the mean over the runs."""
    parser = runs_parser(__doc__)
    parsed = parser.parse_args(arguments)
    try:
        found = [measure(run, parsed.images) for run in parsed.runs]
    except UserError as error:
        parser.error(str(error))
    rows = [[
        name, *(f'{np.mean([scores[name, scale] for scores in found]):.1f}'
                for scale in SCALES)
    ] for name in ('mean', 'sum')]
    print(
        markdown_table(
            ('over positions', *(f'x {scale:g}' for scale in SCALES)), rows))


if __name__ == '__main__':
    main()
