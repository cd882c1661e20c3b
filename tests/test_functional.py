"""The two functions against the literal reference, and their contract."""
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import assert_near
from reference import predict_kernels as literal_kernels
from reference import reweight as literal_reweight
from reference import weighting_map as literal_map

from cac_mmseg.functional import predict_kernels, reweight, weighting_maps

# relative to the largest value of the reference, or to 1
TOLERANCE = {
    torch.float64: 1e-10,
    torch.float32: 1e-5,
    torch.float16: 4e-3,
    torch.bfloat16: 3e-2,
}


def make_weights(c, s, sets, dtype=torch.float64):
    scale = c**-0.5
    return (torch.randn(sets * s * s, c, dtype=dtype) * scale,
            torch.randn(sets * s * s, dtype=dtype),
            torch.randn(sets, c, c, dtype=dtype) * scale,
            torch.randn(sets, c, dtype=dtype))


def layouts(x):
    """The same values in the memory layouts that models produce."""
    yield x.contiguous()
    yield x.contiguous(memory_format=torch.channels_last)
    b, c, h, w = x.shape
    wide = x.new_zeros(b, c + 1, h + 2, 2 * w)
    wide[:, 1:, 1:-1, ::2] = x
    yield wide[:, 1:, 1:-1, ::2]
    yield x.transpose(2, 3).contiguous().transpose(2, 3)


shapes = st.tuples(
    st.integers(1, 2), st.integers(1, 4), st.integers(1, 7), st.integers(1, 7))
kernel_sizes = st.sampled_from([1, 3, 5, 7])
dilation_sets = st.lists(st.integers(1, 6), min_size=1, max_size=3)
dtypes = st.sampled_from(list(TOLERANCE))


@settings(max_examples=25)
@given(shapes, kernel_sizes, st.integers(1, 3), dtypes)
def test_predict_kernels_is_the_literal_mean(shape, s, sets, dtype):
    x = torch.randn(shape, dtype=dtype)
    weights = make_weights(shape[1], s, sets, dtype)
    expected = literal_kernels(x, *weights, s)
    for layout in layouts(x):
        actual = predict_kernels(layout, *weights, s)
        assert actual.dtype == dtype
        assert_near(actual, expected, TOLERANCE[dtype])


@settings(max_examples=60)
@given(shapes, kernel_sizes, dilation_sets, st.booleans(), dtypes)
def test_reweight_is_the_literal_sum(shape, s, dilations, shared, dtype):
    x = torch.randn(shape, dtype=dtype)
    sets = 1 if shared else len(dilations)
    kernels = torch.randn(shape[0], sets, shape[1], s, s, dtype=dtype) / s
    expected = literal_reweight(x, kernels, dilations)
    for layout in layouts(x):
        actual = reweight(layout, kernels, dilations)
        assert actual.dtype == dtype
        assert_near(actual, expected, TOLERANCE[dtype])


@settings(max_examples=25)
@given(shapes, kernel_sizes, dilation_sets, st.booleans())
def test_weighting_maps_are_the_literal_ones(shape, s, dilations, shared):
    x = torch.randn(shape, dtype=torch.float64)
    sets = 1 if shared else len(dilations)
    kernels = torch.randn(
        shape[0], sets, shape[1], s, s, dtype=torch.float64) / s
    maps = weighting_maps(x, kernels, dilations)
    assert maps.shape == (shape[0], len(dilations), *shape[1:])
    for i, dilation in enumerate(dilations):
        of_branch = kernels[:, [0 if shared else i]]
        assert_near(maps[:, i], literal_map(x, of_branch, [dilation]), 1e-10)
    assert_near(x * maps.sum(1), reweight(x, kernels, dilations), 1e-10)


def test_predict_kernels_is_at_least_as_exact_as_the_naive_form():
    """In float32, against making the key map and multiplying."""
    x = torch.randn(2, 64, 32, 64).relu()
    weights = make_weights(64, 3, 3, torch.float32)
    qw, qb, kw, kb = weights

    def naive(x, qw, qb, kw, kb):
        x = x.flatten(2)
        q = (qw @ x + qb[:, None]).unflatten(1, (3, 9))
        k = kw @ x[:, None] + kb[..., None]
        return (k @ q.transpose(2, 3) / x.shape[2]).unflatten(3, (3, 3))

    exact = naive(*(t.double() for t in (x, *weights)))
    ours = (predict_kernels(x, *weights, 3) - exact).abs().mean()
    theirs = (naive(x, *weights) - exact).abs().mean()
    assert ours <= 1.5 * theirs
    assert ours <= 1e-6 * exact.abs().max()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_sums_run_in_float32_under_autocast(dtype):
    """A sum of 128 * 256 terms of about 100 is far beyond float16."""
    x = torch.full((1, 8, 128, 256), 10.)
    qw, qb = torch.full((9, 8), 0.125), torch.zeros(9)
    kw, kb = torch.full((1, 8, 8), 0.125), torch.zeros(1, 8)
    with torch.autocast('cpu', dtype=dtype):
        kernels = predict_kernels(x.to(dtype), qw, qb, kw, kb, 3)
        y = reweight(x.to(dtype), kernels / 1e4, (1, ))
    assert kernels.dtype == torch.float32 and y.dtype == dtype
    torch.testing.assert_close(kernels, torch.full_like(kernels, 100.))
    inside = 10 / (1 + math.exp(-9 * 0.01 * 10))
    torch.testing.assert_close(
        y[0, 0, 1:-1, 1:-1].float(),
        torch.full((126, 254), inside),
        rtol=1e-2,
        atol=0)


X, ARGUMENTS = torch.zeros(1, 4, 5, 5), dict(
    query_weight=torch.zeros(18, 4),
    query_bias=torch.zeros(18),
    key_weight=torch.zeros(2, 4, 4),
    key_bias=torch.zeros(2, 4),
    kernel_size=3)


def names(error, words, function, **arguments):
    with pytest.raises(error) as info:
        function(**arguments)
    assert all(word in str(info.value) for word in words), str(info.value)


# an argument, tensors by their shapes, and words of the error
@pytest.mark.parametrize('name, value, error, words', [
    ('x', (4, 5, 5), ValueError, ['x', '(B, C, H, W)']),
    ('x', (1, 4, 0, 5), ValueError, ['x', 'empty']),
    ('x', (1, 6, 5, 5), ValueError, ['key_weight', '(2, 4, 4)']),
    ('x', X.long(), TypeError, ['x', 'int64']),
    ('x', [[1.]], TypeError, ['x', 'list']),
    ('query_weight', (9, 4), ValueError, ['query_weight', '(18, 4)', '(9, ']),
    ('query_bias', (9, ), ValueError, ['query_bias', '(18)']),
    ('query_bias', None, TypeError, ['query_bias', 'NoneType']),
    ('key_weight', (4, 4), ValueError, ['key_weight', '(4, 4)']),
    ('key_weight', (0, 4, 4), ValueError, ['key_weight']),
    ('key_bias', (2, 5), ValueError, ['key_bias', '(2, 5)']),
    ('key_bias', torch.zeros(2, 4).int(), TypeError, ['key_bias', 'int32']),
    ('key_bias', torch.zeros(
        2, 4, device='meta'), ValueError, ['key_bias', 'meta', 'cpu']),
    ('kernel_size', 2, ValueError, ['kernel_size', 'odd', '2']),
    ('kernel_size', 5, ValueError, ['query_weight', '(50, 4)']),
    ('kernel_size', 3., TypeError, ['kernel_size', '3.0', 'float']),
])
def test_predict_kernels_names_what_does_not_fit(name, value, error, words):
    predict_kernels(X, **ARGUMENTS)
    value = torch.zeros(value) if isinstance(value, tuple) else value
    changed = dict(ARGUMENTS, x=X) | {name: value}
    names(error, words, predict_kernels, **changed)


@pytest.mark.parametrize('x, kernels, dilations, error, words', [
    ((4, 5, 5), (1, 2, 4, 3, 3), (1, 3), ValueError, ['x', '(B, C, H, W)']),
    ((2, 4, 0, 5), (1, 2, 4, 3, 3), (1, 3), ValueError, ['x', 'empty']),
    (X.shape, (1, 4, 3, 3), (1, 3), ValueError, ['kernels']),
    (X.shape, (2, 2, 4, 3, 3),
     (1, 3), ValueError, ['kernels', '(2, 2, 4, 3, 3)']),
    (X.shape, (1, 2, 5, 3, 3), (1, 3), ValueError, ['kernels', '5']),
    (X.shape, (1, 2, 4, 2, 2), (1, 3), ValueError, ['odd', '2']),
    (X.shape, (1, 2, 4, 1, 3), (1, 3), ValueError, ['square']),
    (X.shape, (1, 3, 4, 3, 3),
     (1, 3), ValueError, ['kernels', '3 sets', 'dilations (1, 3)', '2']),
    (X.shape, None, (1, 3), TypeError, ['kernels', 'NoneType']),
    (X.shape, (1, 2, 4, 3, 3), (), ValueError, ['dilations', 'at least one']),
    (X.shape, (1, 2, 4, 3, 3), (1, 0), ValueError, ['dilations[1]', '0']),
    (X.shape, (1, 2, 4, 3, 3), 3, TypeError, ['dilations', '3']),
])
def test_reweight_names_what_does_not_fit(x, kernels, dilations, error, words):
    kernels = None if kernels is None else torch.zeros(kernels)
    for function in (reweight, weighting_maps):
        function(X, torch.zeros(1, 2, 4, 3, 3), (1, 3))
        names(error, words, function, x=torch.zeros(x), kernels=kernels,
              dilations=dilations)  # yapf: disable
