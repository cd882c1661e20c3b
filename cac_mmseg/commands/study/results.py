"""The figures of a study's runs, and what can be said from them."""
import json
from typing import Dict, List, NamedTuple, Sequence

import numpy as np

from .plan import Run

DRAWS = 10000


class Head(NamedTuple):
    """Of one head, the results of its runs, one per seed.

    ``intersect`` and ``union`` are pixels, (seeds, images, classes).
    """
    name: str
    runs: List[dict]
    intersect: np.ndarray
    union: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        """Mean IoU in percent, (seeds,)."""
        return mean_iou(self.intersect.sum(1), self.union.sum(1))

    @property
    def class_scores(self) -> np.ndarray:
        """IoU in percent, (seeds, classes); nan where a class is nowhere."""
        return iou(self.intersect.sum(1), self.union.sum(1))

    def median(self, key: str) -> float:
        """Of a figure of the runs."""
        return float(np.median([run[key] for run in self.runs]))


class Gap(NamedTuple):
    """How far a head is behind the best one, in points of mean IoU.

    ``low`` and ``high`` bound 95 % of the draws, ``share`` is the share of
    them in which it is not behind.
    """
    mean: float
    low: float
    high: float
    share: float


def iou(intersect: np.ndarray, union: np.ndarray) -> np.ndarray:
    """Return intersection over union in percent; nan without a union."""
    with np.errstate(invalid='ignore'):
        return 100 * intersect / union


def mean_iou(intersect: np.ndarray, union: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis, the classes, as mmseg does."""
    return np.nanmean(iou(intersect, union), -1)


def read(runs: Sequence[Run]) -> List[Head]:
    """Read the results of finished runs, the best head first.

    Raises:
        ValueError: If they were not validated on the same images.
    """
    results: Dict[str, List[dict]] = {}
    for run in runs:
        result = json.loads(run.result_file.read_text())
        results.setdefault(run.head, []).append({**result, 'seed': run.seed})
    images = {tuple(r['images']) for own in results.values() for r in own}
    if len(images) > 1:
        raise ValueError('the runs were validated on different images: '
                         f'{[len(one) for one in images]} of them')
    heads = [
        Head(
            name, own,
            *(np.array([run[key] for run in own], float)
              for key in ('intersect', 'union')))
        for name, own in results.items()
    ]
    return sorted(heads, key=lambda head: -head.scores.mean())


def bootstrap(heads: Sequence[Head],
              rng: np.random.Generator) -> List[np.ndarray]:
    """Redraw the validation images, the same for all heads and seeds.

    Args:
        heads: Validated on the same images.
        rng: Draws as many images as there are, with replacement.

    Returns:
        Of each head the mean IoU in percent, (draws, seeds).
    """
    images = heads[0].union.shape[1]
    counts = rng.multinomial(
        images, np.full(images, 1 / images), size=DRAWS).astype(float)
    return [
        mean_iou(
            np.tensordot(counts, head.intersect, (1, 1)),
            np.tensordot(counts, head.union, (1, 1))) for head in heads
    ]


def gaps(heads: Sequence[Head]) -> List[Gap]:
    """Compare the first head with each of the others.

    Images are drawn in pairs (paired bootstrap), and from each head's seeds as
    many as there are: a difference has to outlast both.
    """
    rng = np.random.default_rng(0)
    drawn = []
    for scores in bootstrap(heads, rng):
        seeds = rng.integers(scores.shape[1], size=scores.shape)
        drawn.append(np.take_along_axis(scores, seeds, 1).mean(1))
    found = []
    for head, own in zip(heads[1:], drawn[1:]):
        behind = drawn[0] - own
        found.append(
            Gap(heads[0].scores.mean() - head.scores.mean(),
                *np.percentile(behind, (2.5, 97.5)), np.mean(behind <= 0)))
    return found
