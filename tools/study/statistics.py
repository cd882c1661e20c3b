"""Scores of heads, and how sure their differences are."""
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from scipy import stats

from cac_mmseg.errors import UserError
from .results import AREAS, BOUND

DRAWS = 10000
ENOUGH = 5  # seeds, for two heads to tell how much they scatter


class HeadResults(NamedTuple):
    """The results of the runs of a head, one per seed.

    ``intersect`` and ``union`` are pixels, (seeds, images, classes).
    """
    name: str
    runs: List[dict]
    intersect: np.ndarray
    union: np.ndarray

    @property
    def seeds(self) -> List[int]:
        """In the order of the scores."""
        return [run['seed'] for run in self.runs]

    @property
    def scores(self) -> np.ndarray:
        """Mean IoU in percent, (seeds,)."""
        return mean_iou(self.intersect.sum(1), self.union.sum(1))

    @property
    def class_scores(self) -> np.ndarray:
        """IoU in percent, (seeds, classes); nan where a class is nowhere."""
        return iou(self.intersect.sum(1), self.union.sum(1))

    def median(self, key: str) -> float:
        """Return the median of a figure over the runs."""
        return float(np.median([run[key] for run in self.runs]))


class Gap(NamedTuple):
    """How far a head is ahead of another one, in points of mean IoU.

    ``low`` and ``high`` bound the 95 % confidence interval.
    """
    mean: float
    low: float
    high: float


def iou(intersect: np.ndarray, union: np.ndarray) -> np.ndarray:
    """Return intersection over union in percent; nan without a union."""
    with np.errstate(invalid='ignore'):
        return 100 * intersect / union


def mean_iou(intersect: np.ndarray, union: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis, the classes, as mmseg does."""
    return np.nanmean(iou(intersect, union), -1)


def passes_for_good(curve: Sequence[Sequence[float]],
                    bound: float) -> Optional[int]:
    """Return from which iteration on all scores are above a bound, or None.

    Args:
        curve: Iteration and score of each validation.
        bound: Of the scores.
    """
    # mmseg's have two digits, and results store them in float32
    below = [
        i for i, (_, score) in enumerate(curve) if not round(score, 2) > bound
    ]
    after = curve[below[-1] + 1:] if below else curve
    return int(after[0][0]) if after else None


def by_head(results: Sequence[dict]) -> List[HeadResults]:
    """Gather the results of runs by head, the best first.

    Raises:
        UserError: If they were not validated on the same images.
    """
    images = {tuple(result['images']) for result in results}
    if len(images) > 1:
        raise UserError('the runs were validated on different images: '
                        f'{[*map(len, images)]} of them')
    runs: Dict[str, List[dict]] = {}
    for result in results:
        runs.setdefault(result['head'], []).append(result)
    heads = [
        HeadResults(
            name, head,
            *(np.array([run[key] for run in head], float) for key in AREAS))
        for name, head in runs.items()
    ]
    return sorted(heads, key=lambda head: -head.scores.mean())


def measured(heads: Sequence[HeadResults], key: str) -> bool:
    """Return whether a figure, such as a time, is known of all runs."""
    return all(key in run for head in heads for run in head.runs)


def additive_bound(heads: Sequence[HeadResults]) -> Optional[float]:
    """Return the highest mIoU of heads that add their context, if known."""
    bounds = {run.get(BOUND) for head in heads for run in head.runs}
    if len(bounds) > 1:
        raise UserError('the runs were validated on images of different '
                        f'additive bounds: {bounds}')
    return bounds.pop()


def bootstrap(heads: Sequence[HeadResults],
              rng: np.random.Generator) -> List[np.ndarray]:
    """Redraw the validation images, the same for all heads and seeds.

    Counts of the images make all draws one product of matrices, where
    ``scipy.stats.bootstrap(paired=True)`` would gather them draw by draw.

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


def gaps(heads: Sequence[HeadResults], reference: str) -> Dict[str, Gap]:
    """Compare each other head with one of them, by name.

    A difference has to outlast the images and the seeds. Heads are compared on
    the seeds that they share, as a seed moves all heads alike: its runs see
    the same images in the same order. The variance of a difference is that
    over draws of the images, the same for both heads, plus that over seeds:
    of these two heads where they share :data:`ENOUGH`, as in a paired t-test,
    otherwise as all heads tell it (:func:`seed_variance`). The interval is
    Student's, with the degrees of freedom (Satterthwaite) that tell how well
    both are known.

    Args:
        heads: Validated on the same images; one without a seed of the
            reference has no gap.
        reference: Name of the head that the gaps are measured from: negative
            where it is ahead.
    """
    drawn = dict(
        zip((head.name for head in heads),
            bootstrap(heads, np.random.default_rng(0))))
    variance, dof = seed_variance(heads)
    base = next(head for head in heads if head.name == reference)
    found = {}
    for head in heads:
        if head is base:
            continue
        seeds = sorted({*base.seeds} & {*head.seeds})
        if not seeds:
            continue
        ours, theirs = ([h.seeds.index(seed) for seed in seeds]
                        for h in (base, head))
        ahead = head.scores[theirs] - base.scores[ours]
        over_seeds = (2 * variance / len(seeds), dof)
        if len(seeds) >= ENOUGH:
            over_seeds = (ahead.var(ddof=1) / len(seeds), len(seeds) - 1)
        differences = (drawn[head.name][:, theirs] -
                       drawn[reference][:, ours]).mean(1)
        over_images = (differences.var(), base.union.shape[1] - 1)
        found[head.name] = _gap(ahead.mean(), [over_images, over_seeds])
    return found


def seed_variance(heads: Sequence[HeadResults]) -> Tuple[float, int]:
    """Residual variance after head and seed effects.

    All heads tell it together, by least squares for ``score = head + seed +
    rest``: the few seeds of a head alone say little.

    Returns:
        The variance, and its degrees of freedom; 0 if nothing repeats.
    """
    scores = np.concatenate([head.scores for head in heads])
    head = np.repeat(range(len(heads)), [len(head.seeds) for head in heads])
    seed = np.concatenate([head.seeds for head in heads])
    design = np.hstack([
        factor[:, None] == np.unique(factor) for factor in (head, seed)
    ]).astype(float)
    solution, _, rank, _ = np.linalg.lstsq(design, scores, rcond=None)
    dof = len(scores) - int(rank)
    rest = scores - design @ solution
    return (rest @ rest / dof if dof else 0.), dof


def _gap(mean: float, parts: Sequence[Tuple[float, int]]) -> Gap:
    """Return the interval of a mean with these variances, by their dof."""
    parts = [(variance, dof) for variance, dof in parts if variance > 1e-12]
    if not parts:  # equal on every image
        return Gap(mean, mean, mean)
    variance = sum(v for v, _ in parts)
    student = stats.t(
        variance**2 / sum(v**2 / dof for v, dof in parts), scale=variance**0.5)
    margin = student.ppf(0.975)
    return Gap(mean, mean - margin, mean + margin)
