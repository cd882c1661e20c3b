"""Does a trained head use its context? The measurement of docs/study.md.

Every validation image is segmented with the kernels, or the globally pooled
branch, of the image half of the data set further on (permutation importance:
Breiman, 2001), or with the mean ones, which batch normalisation maps from its
running mean: the same for every image. The change in mIoU is what this path of
the context is worth.
"""
import argparse
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Dict, List, Optional, Sequence

import numpy as np
import torch
from mmengine.runner import Runner
from mmseg.evaluation import IoUMetric
from mmseg.models import BaseSegmentor
from torch import Tensor

import tools.study.heads  # noqa: F401, registers those of the runs
from cac_mmseg.attribution.paths import (ContextPath, KernelPath, PooledPath,
                                         recording)
from cac_mmseg.commands.options import at_least
from cac_mmseg.errors import UserError
from cac_mmseg.stack.checkpoint import load_model
from cac_mmseg.stack.tables import markdown_table
from tools.study.statistics import HeadResults, gaps

OWN = 'mIoU'  # with the context of the image itself
CHANGES = ('mean kernels', 'kernels of another', 'mean branch',
           'branch of another', 'both of another')
Values = Dict[ContextPath, Tensor]


def changes(paths: Sequence[ContextPath], mean: Sequence[Tensor],
            other: Sequence[Tensor]) -> Dict[str, Values]:
    """Return what takes the place of the image's own context, by name.

    Args:
        paths: Of the model.
        mean: Of each path, its value under the mean context.
        other: Its value for another image.
    """
    parts: List[Values] = [{
        path: value
        for path, value in zip(paths, values) if isinstance(path, kind)
    } for kind in (KernelPath, PooledPath) for values in (mean, other)]
    if all(parts):  # else both are the one that there is
        parts.append(dict(zip(paths, other)))
    return {name: part for name, part in zip(CHANGES, parts) if part}


def runs_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser of the runs to measure, and of how many images."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'runs', nargs='+', type=Path, help='folders HEAD-seedN of a study')
    parser.add_argument(
        '--images', type=at_least(1), help='at most (default: all)')
    return parser


def load_run_model(run: Path) -> BaseSegmentor:
    """Build the model of a run, to segment image by image.

    Raises:
        UserError: If there is none.
    """
    checkpoint = next(run.glob('work_dir/iter_*.pth'), None)
    if checkpoint is None:
        raise UserError(f'{run} is no folder HEAD-seedN of a study: it holds '
                        'no work_dir/iter_*.pth')
    model = load_model(run / 'config.py', checkpoint)
    model.cfg.val_dataloader.batch_size = 1
    return model


@torch.no_grad()
def segment(model: BaseSegmentor, data: dict) -> np.ndarray:
    """Segment an image: intersections and unions with the truth, (2, K)."""
    output, = model.test_step(data)
    found = IoUMetric.intersect_and_union(output.pred_sem_seg.data[0],
                                          output.gt_sem_seg.data[0],
                                          output.seg_logits.data.shape[0], 255)
    return torch.stack(found[:2]).double().numpy()


def measure(run: Path, images: Optional[int]) -> Dict[str, np.ndarray]:
    """Segment the images with each context: their areas, (images, 2, K)."""
    model = load_run_model(run)
    loader = Runner.build_dataloader(model.cfg.val_dataloader)
    areas: Dict[str, List[np.ndarray]] = {OWN: []}
    means: List[List[Tensor]] = []
    ends: List[List[Tensor]] = []
    for data in islice(loader, images):
        with recording(model) as paths:
            areas[OWN].append(segment(model, data))
        means.append([path.start for path in paths])
        ends.append([path.end for path in paths])
    if len(ends) < 2:
        raise UserError(f'{run}: the context of another image needs two '
                        'images, and there is one: raise --images')
    half = len(ends) // 2
    for i, (data, mean) in enumerate(zip(loader, means)):
        other = ends[(i + half) % len(ends)]
        for name, values in changes(paths, mean, other).items():
            with ExitStack() as stack:
                for path, value in values.items():
                    stack.enter_context(path.using(value))
                areas.setdefault(name, []).append(segment(model, data))
    return {name: np.array(found) for name, found in areas.items()}


def row(head: str, seeds: Sequence[Dict[str, np.ndarray]]) -> List[str]:
    """Return the row of a head: its score, and how each change moves it."""
    results = []
    for name in seeds[0]:
        areas = np.array([seed[name] for seed in seeds])
        runs = [dict(seed=i) for i in range(len(seeds))]
        results.append(HeadResults(name, runs, *np.moveaxis(areas, 2, 0)))
    own, *changed = results
    # not jointly: seeds differ in what a path is worth
    moved = {r.name: gaps([own, r], OWN)[r.name] for r in changed}
    return [f'`{head}`', f'{own.scores.mean():.1f}'] + [
        '{:.1f} [{:.1f}, {:.1f}]'.format(*moved[name]) if name in moved else ''
        for name in CHANGES
    ]


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Parse the arguments, and print a row for each head."""
    parser = runs_parser(__doc__)
    parsed = parser.parse_args(arguments)
    heads: Dict[str, List[Dict[str, np.ndarray]]] = {}
    for run in parsed.runs:
        head, _, _ = run.name.rpartition('-seed')
        try:
            heads.setdefault(head, []).append(measure(run, parsed.images))
        except UserError as error:
            parser.error(str(error))
    print(
        markdown_table(('head', OWN, *CHANGES),
                       [row(head, seeds) for head, seeds in heads.items()]))


if __name__ == '__main__':
    main()
