"""The study's statistics: how far heads are apart, and how sure that is."""
import numpy as np
import pytest
import torch
from mmseg.evaluation import IoUMetric
from scipy import stats

from tools.study import statistics
from tools.study.results import AREAS
from tools.study.worker import PerImageIoU


def areas(rng, seeds=3, images=20):
    union = rng.integers(0, 50, (seeds, images, 5)).astype(float)
    return np.floor(union * rng.random(union.shape)), union


def head(name, intersect, union):
    runs = [dict(seed=seed) for seed in range(len(intersect))]
    union = union * np.ones_like(intersect)
    return statistics.HeadResults(name, runs, intersect, union)


def test_areas_of_images_are_those_of_mmseg(rng):
    """Their sums give the mIoU that mmseg reports."""
    metric = PerImageIoU(iou_metrics=['mIoU'])
    metric.dataset_meta = dict(classes=list('abcd'))
    expected = []
    for _ in range(5):
        truth = torch.from_numpy(rng.choice([0, 1, 2, 255], (1, 8, 9)))
        guess = torch.from_numpy(rng.integers(0, 3, (1, 8, 9)))
        sample = dict(
            gt_sem_seg=dict(data=truth), pred_sem_seg=dict(data=guess))
        metric.process({}, [sample])
        found = IoUMetric.intersect_and_union(guess, truth, 4, 255)
        expected.append(torch.stack(found[:2]).tolist())
    reported = metric.compute_metrics(metric.results)['mIoU']
    found = np.array([metric.areas[key] for key in AREAS])
    assert found.swapaxes(0, 1).tolist() == expected
    # the fourth class is nowhere, and does not count
    ours = statistics.mean_iou(*found.sum(1))
    assert ours == pytest.approx(reported, abs=0.0051)


@pytest.mark.parametrize('scores, expected', [
    ([1, 2, 3], None),
    ([6, 7, 8], 10),
    ([1, 6, 7], 20),
    ([6, 1, 7], 30),
    ([1, 6, 5], None),
])
def test_a_curve_passes_a_bound_for_good(scores, expected):
    """At the first validation after the last one that is not above it."""
    curve = [*zip((10, 20, 30), scores)]
    assert statistics.passes_for_good(curve, 5) == expected


def test_bootstrap_draws_the_same_images_for_all_heads(rng, monkeypatch):
    monkeypatch.setattr(statistics, 'DRAWS', 50)
    heads = [head('a', *areas(rng)), head('b', *areas(rng, seeds=2))]
    drawn = statistics.bootstrap(heads, np.random.default_rng(7))
    counts = np.random.default_rng(7).multinomial(20, [1 / 20] * 20, size=50)
    picked = np.array([np.repeat(np.arange(20), count) for count in counts])
    for one, draws in zip(heads, drawn):
        parts = [part[:, picked].sum(2) for part in (one.intersect, one.union)]
        assert draws == pytest.approx(statistics.mean_iou(*parts).T)


def test_a_head_is_not_behind_its_equal_and_is_behind_a_better_one(rng):
    best = head('best', *areas(rng, seeds=1))
    half = best._replace(name='half', intersect=best.intersect / 2)
    gaps = statistics.gaps([best, best._replace(name='equal'), half], 'best')
    assert gaps['equal'] == (0, 0, 0)
    mean, low, high = gaps['half']
    assert low < mean < high < 0
    assert mean == pytest.approx(-best.scores.mean() / 2)


@pytest.mark.parametrize('shape, error', [((1, 60, 1), 0.05),
                                          ((3, 1, 1), 1e-6)])
def test_intervals_of_images_and_of_seeds_are_those_of_paired_t_tests(
        shape, error, rng):
    """Where only the ones or the others make two heads differ."""
    shares = rng.uniform(0, 1, (2, *shape))
    ones = np.ones((3, 60, 1))
    heads = [head(name, s * ones, ones) for name, s in zip('ab', shares)]
    first, second = 100 * shares.reshape(2, -1)
    low, high = stats.ttest_rel(second, first).confidence_interval()
    gap = statistics.gaps(heads, 'a')['b']
    assert gap.mean == pytest.approx((low + high) / 2)
    assert gap.high - gap.low == pytest.approx(high - low, rel=error)


def test_two_heads_of_five_seeds_tell_their_scatter_themselves(rng):
    """A third one, which scatters more, does not widen their interval."""
    shares = rng.uniform(0.4, 0.5, (2, 5, 1, 1))
    ones = np.ones((5, 60, 1))
    heads = [
        head(name, share * ones, ones) for name, share in zip('ab', shares)
    ]
    wild = head('wild', rng.uniform(0, 1, (5, 1, 1)) * ones, ones)
    low, high = stats.ttest_rel(*100 *
                                shares[::-1, :, 0, 0]).confidence_interval()
    gap = statistics.gaps([*heads, wild], 'a')['b']
    assert gap[1:] == pytest.approx((low, high), rel=1e-6)


def test_variances_of_images_and_seeds_are_added_as_by_welch(rng):
    first, second = rng.standard_normal(9), rng.standard_normal(4)
    test = stats.ttest_ind(first, second, equal_var=False)
    parts = [(s.var(ddof=1) / len(s), len(s) - 1) for s in (first, second)]
    gap = statistics._gap(first.mean() - second.mean(), parts)
    assert gap[1:] == pytest.approx([*test.confidence_interval()])


def test_heads_are_compared_on_the_seeds_that_they_share(rng):
    """What a seed does to both of them is no difference."""
    intersect, union = areas(rng, 1, 200)
    luck = np.array([0.7, 0.8, 0.9])[:, None, None]
    good = head('good', intersect * luck, union)
    bad = head('bad', intersect * (luck - 0.05), union)
    assert statistics.gaps([good, bad], 'bad')['good'].low > 0
    part = head('bad', bad.intersect[1:2], union)
    part.runs[0]['seed'] = 1
    mean, _, _ = statistics.gaps([good, part], 'bad')['good']
    assert mean == pytest.approx(good.scores[1] - bad.scores[1])
    part.runs[0]['seed'] = 9
    assert statistics.gaps([good, part], 'bad') == {}


def test_all_heads_tell_what_a_seed_is_worth(rng):
    """The variance is that of an analysis in blocks, with its freedom."""
    intersect, union = areas(rng, 1, 50)
    factors = rng.uniform(0.5, 1, (4, 3, 1, 1))
    heads = [
        head(name, intersect * f, union) for name, f in zip('abcd', factors)
    ]
    scores = np.array([h.scores for h in heads])
    rest = scores - scores.mean(0) - scores.mean(1)[:, None] + scores.mean()
    variance, dof = statistics.seed_variance(heads)
    assert variance == pytest.approx((rest**2).sum() / 6) and dof == 6
    # one head alone does not tell it from that of the seeds
    assert statistics.seed_variance(heads[:1]) == (0, 0)
