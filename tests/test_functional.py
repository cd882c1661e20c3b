"""The two functions against the literal reference, and their contract."""
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import predict_kernels as literal_kernels
from reference import reweight as literal_reweight
from reference import weighting_map as literal_map
from torch.autograd import gradcheck

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


def assert_close(actual, expected, dtype):
    assert actual.shape == expected.shape
    error = (actual.double() - expected).abs().max()
    # what is summed is about 1, even where the sum happens to vanish
    scale = expected.abs().max().clamp(min=1)
    assert error <= TOLERANCE[dtype] * scale, float(error)


def layouts(x):
    """The same values in the memory layouts that models produce."""
    yield x.contiguous()
    yield x.contiguous(memory_format=torch.channels_last)
    b, c, h, w = x.shape
    wide = x.new_zeros(b, c + 1, h + 2, 2 * w)
    wide[:, 1:, 1:-1, ::2] = x
    yield wide[:, 1:, 1:-1, ::2]
    yield x.flip(0).contiguous().flip(0).transpose(2,
                                                   3).contiguous().transpose(
                                                       2, 3)


shapes = st.tuples(
    st.integers(1, 2), st.integers(1, 4), st.integers(1, 7), st.integers(1, 7))
kernel_sizes = st.sampled_from([1, 3, 5, 7])
dilation_sets = st.lists(st.integers(1, 6), min_size=1, max_size=3)
dtypes = st.sampled_from(list(TOLERANCE))


@settings(max_examples=25, deadline=None)
@given(shapes, kernel_sizes, st.integers(1, 3), dtypes)
def test_predict_kernels_is_the_literal_mean(shape, s, sets, dtype):
    x = torch.randn(shape, dtype=dtype)
    weights = make_weights(shape[1], s, sets, dtype)
    expected = literal_kernels(x, *weights, s)
    for layout in layouts(x):
        actual = predict_kernels(layout, *weights, s)
        assert actual.dtype == dtype
        assert_close(actual, expected, dtype)


@settings(max_examples=60, deadline=None)
@given(shapes, kernel_sizes, dilation_sets, st.booleans(), dtypes)
def test_reweight_is_the_literal_sum(shape, s, dilations, shared, dtype):
    x = torch.randn(shape, dtype=dtype)
    sets = 1 if shared else len(dilations)
    kernels = torch.randn(shape[0], sets, shape[1], s, s, dtype=dtype) / s
    expected = literal_reweight(x, kernels, dilations)
    for layout in layouts(x):
        actual = reweight(layout, kernels, dilations)
        assert actual.dtype == dtype
        assert_close(actual, expected, dtype)


@settings(max_examples=25, deadline=None)
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
        assert_close(maps[:, i], literal_map(x, of_branch, [dilation]),
                     torch.float64)
    assert_close(x * maps.sum(1), reweight(x, kernels, dilations),
                 torch.float64)


@pytest.mark.parametrize('s', [1, 3, 7])
def test_larger_maps_agree_with_the_reference(s):
    x = torch.randn(2, 3, 19, 23, dtype=torch.float64)
    weights = make_weights(3, s, 3)
    kernels = predict_kernels(x, *weights, s)
    assert_close(kernels, literal_kernels(x, *weights, s), torch.float64)
    assert_close(
        reweight(x, kernels, (1, 3, 5)),
        literal_reweight(x, kernels, (1, 3, 5)), torch.float64)


@pytest.mark.parametrize('s', [1, 3])
def test_predict_kernels_gradient(s):
    inputs = (torch.randn(2, 3, 4, 5, dtype=torch.float64), ) + make_weights(
        3, s, 2)
    for tensor in inputs:
        tensor.requires_grad_()
    assert gradcheck(lambda *t: predict_kernels(*t, s), inputs)


@pytest.mark.parametrize('sets', [1, 2])
def test_reweight_gradient(sets):
    x = torch.randn(2, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    kernels = torch.randn(
        2, sets, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda *t: reweight(*t, (1, 3)), (x, kernels))


def test_predict_kernels_is_a_mean_over_positions():
    """Four copies of a scene give the kernels of one: no N in them."""
    x = torch.randn(1, 4, 5, 6, dtype=torch.float64)
    weights = make_weights(4, 3, 2)
    assert_close(
        predict_kernels(x.repeat(1, 1, 2, 2), *weights, 3),
        predict_kernels(x, *weights, 3), torch.float64)


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


def test_shared_kernels_serve_every_dilation():
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    kernels = torch.randn(2, 1, 3, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(
        reweight(x, kernels, (1, 2, 4)),
        reweight(x, kernels.expand(-1, 3, -1, -1, -1), (1, 2, 4)))


def test_images_do_not_mix():
    x = torch.randn(3, 4, 6, 6)
    weights = make_weights(4, 3, 2, torch.float32)
    kernels = predict_kernels(x, *weights, 3)
    y = reweight(x, kernels, (1, 3))
    for n in range(3):
        alone = predict_kernels(x[n:n + 1], *weights, 3)
        torch.testing.assert_close(alone, kernels[n:n + 1])
        torch.testing.assert_close(
            reweight(x[n:n + 1], alone, (1, 3)), y[n:n + 1])


@pytest.mark.parametrize('change, error, words', [
    (dict(x=torch.zeros(4, 5, 5)), ValueError, ['x', '(B, C, H, W)']),
    (dict(x=torch.zeros(1, 4, 0, 5)), ValueError, ['x', 'empty']),
    (dict(x=torch.zeros(1, 6, 5, 5)), ValueError, ['key_weight', '(2, 4, 4)']),
    (dict(x=torch.zeros(1, 4, 5, 5).long()), TypeError, ['x', 'int64']),
    (dict(x=[[1.]]), TypeError, ['x', 'list']),
    (dict(query_weight=torch.zeros(9, 4)), ValueError,
     ['query_weight', '(18, 4)', '(9, 4)']),
    (dict(query_bias=torch.zeros(9)), ValueError, ['query_bias', '(18)']),
    (dict(query_bias=None), TypeError, ['query_bias', 'NoneType']),
    (dict(key_weight=torch.zeros(4, 4)), ValueError, ['key_weight', '(4, 4)']),
    (dict(key_weight=torch.zeros(0, 4, 4)), ValueError, ['key_weight']),
    (dict(key_bias=torch.zeros(2, 5)), ValueError, ['key_bias', '(2, 5)']),
    (dict(key_bias=torch.zeros(2, 4).int()), TypeError, ['key_bias', 'int32']),
    (dict(key_bias=torch.zeros(2, 4, device='meta')), ValueError,
     ['key_bias', 'meta', 'cpu']),
    (dict(kernel_size=2), ValueError, ['kernel_size', 'odd', '2']),
    (dict(kernel_size=5), ValueError, ['query_weight', '(50, 4)']),
    (dict(kernel_size=3.), TypeError, ['kernel_size', '3.0', 'float']),
])
def test_predict_kernels_names_what_does_not_fit(change, error, words):
    arguments = dict(
        x=torch.zeros(1, 4, 5, 5),
        query_weight=torch.zeros(18, 4),
        query_bias=torch.zeros(18),
        key_weight=torch.zeros(2, 4, 4),
        key_bias=torch.zeros(2, 4),
        kernel_size=3)
    predict_kernels(**arguments)
    with pytest.raises(error) as info:
        predict_kernels(**arguments | change)
    assert all(word in str(info.value) for word in words), str(info.value)


@pytest.mark.parametrize('change, error, words', [
    (dict(x=torch.zeros(4, 5, 5)), ValueError, ['x', '(B, C, H, W)']),
    (dict(x=torch.zeros(2, 4, 0, 5)), ValueError, ['x', 'empty']),
    (dict(kernels=torch.zeros(1, 4, 3, 3)), ValueError, ['kernels']),
    (dict(kernels=torch.zeros(2, 2, 4, 3, 3)), ValueError,
     ['kernels', '(2, 2, 4, 3, 3)']),
    (dict(kernels=torch.zeros(1, 2, 5, 3, 3)), ValueError, ['kernels', '5']),
    (dict(kernels=torch.zeros(1, 2, 4, 2, 2)), ValueError, ['odd', '2']),
    (dict(kernels=torch.zeros(1, 2, 4, 1, 3)), ValueError, ['square']),
    (dict(kernels=torch.zeros(1, 3, 4, 3, 3)), ValueError,
     ['kernels', '3 sets', 'dilations (1, 3)', '2']),
    (dict(kernels=None), TypeError, ['kernels', 'NoneType']),
    (dict(dilations=()), ValueError, ['dilations', 'at least one']),
    (dict(dilations=(1, 0)), ValueError, ['dilations[1]', '0']),
    (dict(dilations=3), TypeError, ['dilations', '3']),
])
def test_reweight_names_what_does_not_fit(change, error, words):
    arguments = dict(
        x=torch.zeros(1, 4, 5, 5),
        kernels=torch.zeros(1, 2, 4, 3, 3),
        dilations=(1, 3))
    for function in (reweight, weighting_maps):
        function(**arguments)
        with pytest.raises(error) as info:
            function(**arguments | change)
        assert all(word in str(info.value) for word in words), str(info.value)
