"""The Triton kernels against the eager form.

In Triton's interpreter where there is no GPU: ``conftest.py`` sees to that.
"""
import math
import os
import sys
from importlib import import_module

import pytest
import torch
from conftest import ROOT, start
from hypothesis import Phase, assume, example, given, settings
from hypothesis import strategies as st
from reference import assert_near
from test_ops import (assert_laid_out, dilation_sets, exact_reweight, laid_out,
                      layouts, make_pooling, make_reweight)

from cac_mmseg.ops import eager

pytestmark = pytest.mark.slow  # Triton is large, and needed on GPUs only
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'

# taps times positions of an example: the interpreter takes 2 ms for each
WORK = 3000
# to find a smaller example would take it minutes
budget = settings(max_examples=8, phases=[Phase.explicit, Phase.generate])
shapes = st.tuples(
    st.integers(1, 2), st.integers(1, 2), st.integers(1, 9), st.integers(1, 9))
reweightings = pytest.mark.parametrize(
    'name', ['triton_reweighting', 'triton_rolling'])
poolings = pytest.mark.parametrize('name',
                                   ['triton_pooling', 'triton_split_pooling'])


def kernels_of(name):
    return import_module(f'cac_mmseg.ops.{name}')


def set_all(patch, modules, **values):
    """Change the settings of modules of kernels, where they have them."""
    for name, value in values.items():
        for module in map(kernels_of, modules):
            if hasattr(module, name):
                patch.setattr(module, name, value)


@reweightings
@budget
@given(shapes, st.sampled_from([1, 3, 5]), dilation_sets, st.booleans(),
       layouts(3),
       st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
@example((2, 2, 4, 1), 3, (1, 2), False, (['channels_last'] * 3, 77),
         torch.float32)
def test_reweighting_agrees_with_eager(name, shape, s, dilations, shared,
                                       drawn, dtype):
    module = kernels_of(name)
    assume(math.prod(shape) * s**2 * len(dilations) <= WORK)
    if dtype == torch.bfloat16 and DEVICE == 'cpu':
        tolerance = 2**-7  # the interpreter cuts off what does not fit
    else:
        tolerance = max(1e-5, torch.finfo(dtype).eps)
    grad, x, kernels, _ = make_reweight(shape, s, dilations, shared, dtype)
    grad, x, kernels = laid_out(drawn, grad.to(DEVICE), x.to(DEVICE),
                                kernels.float().to(DEVICE))
    with pytest.MonkeyPatch.context() as patch:
        # several programs, blocks and turns of the ring even of a small map;
        # some that are too wide for a window
        set_all(
            patch, {'triton_reweighting', name},
            LANES=4 if name == 'triton_reweighting' else 8,
            FORWARD_ROWS=2,
            BACKWARD_ROWS=2,
            BOX=(4, 4),
            BOX_CHANNELS_LAST=(4, 2),
            PROGRAMS_PER_PROCESSOR=1)
        actual = (module.reweight(x, kernels, dilations),
                  *module.reweight_backward(grad, x, kernels, dilations))
    expected = (eager.reweight(x, kernels, dilations),
                *eager.reweight_backward(grad, x, kernels, dilations))
    for ours, theirs in zip(actual, expected):
        assert_near(ours, theirs.double(), tolerance)
    assert_laid_out(actual, (x, x, kernels))


if DEVICE == 'cpu':
    # the interpreter multiplies the bits of bfloat16
    @pytest.fixture(autouse=True, scope='module')
    def exact_products():
        import triton
        import triton.language as tl

        @triton.jit
        def product(left, right, sums):
            return tl.dot(left.to(tl.float32), right.to(tl.float32), sums)

        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(globals(), 'tl', tl)  # where Triton looks for it
            patch.setattr(
                kernels_of('triton_split_pooling'), '_product', product)
            yield


@poolings
@budget
@given(
    st.tuples(
        st.integers(1, 3), st.integers(1, 40), st.integers(1, 9),
        st.integers(1, 9)), st.integers(1, 40), layouts(5),
    st.sampled_from([torch.float32, torch.float16] + 2 * [torch.bfloat16]),
    st.booleans())
@example((2, 3, 4, 1), 4, (['channels_last'] * 5, 77), torch.float32, True)
@example((2, 3, 4, 5), 4, (['every second'] * 5, None), torch.float32, True)
@example((2, 3, 4, 5), 4, (['transposed'] * 5, None), torch.float32, True)
@example((2, 20, 4, 9), 20, (['contiguous'] * 5, None), torch.bfloat16, True)
def test_pooling_agrees_with_eager(name, shape, rows, drawn, dtype, adds):
    """Also where dX is added to that of the re-weighting."""
    module = kernels_of(name)
    grads, (x, *weights) = make_pooling(shape, rows, drawn, device=DEVICE)
    x = x.to(dtype)
    with pytest.MonkeyPatch.context() as patch:
        # several rows, parts, blocks and programs even of a small map
        set_all(
            patch, {'triton_pooling', name},
            ROWS=16,
            CHANNELS=16,
            POSITIONS=16,
            BACKWARD_POSITIONS=32)
        grad_x = torch.randn_like(x) if adds else None
        given = grad_x.clone() if adds else 0
        actual = (*module.pool_queries(x, *weights),
                  *module.pool_queries_backward(*grads, x, *weights, grad_x))
    expected = [
        *eager.pool_queries(x, *weights),
        *eager.pool_queries_backward(*grads, x, *weights)
    ]
    expected[2] = expected[2].double() + given
    for ours, theirs in zip(actual, expected):
        tolerance = max(1e-5, 2 * torch.finfo(ours.dtype).eps)
        assert_near(ours, theirs.double(), tolerance)
    assert_laid_out(actual[2:], (x, *weights))


@pytest.mark.parametrize('shape, layout, dilations', [
    ((1, 1, 1, 257), 'contiguous', (1, )),
    ((1, 2, 3, 3), 'channels_last', (1, )),
    ((1, 1, 3, 3), 'contiguous', (6, 12, 18)),
])
def test_what_no_window_fits_is_left_to_the_older_kernels(
        monkeypatch, shape, layout, dilations):
    old, new = map(kernels_of, ('triton_reweighting', 'triton_rolling'))
    grad, x, kernels, _ = make_reweight(shape, 3, dilations, True,
                                        torch.float32)
    x, = laid_out(([layout], None), x)
    monkeypatch.setattr(old, 'reweight', lambda *_: 'Y')
    monkeypatch.setattr(old, 'reweight_backward', lambda *_: 'dX, dD')
    assert new.reweight(x, kernels, dilations) == 'Y'
    assert new.reweight_backward(grad, x, kernels, dilations) == 'dX, dD'


@pytest.mark.parametrize('channels, dtype', [(513, torch.bfloat16),
                                             (1, torch.float16),
                                             (1, torch.float32)])
def test_other_feature_maps_are_left_to_the_older_pooling(
        monkeypatch, channels, dtype):
    old, new = map(kernels_of, ('triton_pooling', 'triton_split_pooling'))
    grads, (x, *weights) = make_pooling((1, channels, 1, 1), 1,
                                        (['contiguous'] * 5, None))
    x = x.to(dtype)
    monkeypatch.setattr(old, 'pool_queries', lambda *_: 'P, m')
    monkeypatch.setattr(old, 'pool_queries_backward', lambda *_: 'dX, dW, db')
    assert new.pool_queries(x, *weights) == 'P, m'
    assert new.pool_queries_backward(*grads, x, *weights) == 'dX, dW, db'


@reweightings
def test_with_the_settings_of_a_gpu(name):
    """A plane wider than the lanes of a ring, and longer than it."""
    module = kernels_of(name)
    grad, x, kernels, dilations = make_reweight((1, 1, 37, 131), 3, (1, 3, 5),
                                                False, torch.float32)
    arguments = [t.to(DEVICE) for t in (grad, x, kernels)]
    actual = (module.reweight(*arguments[1:], dilations),
              *module.reweight_backward(*arguments, dilations))
    for ours, theirs in zip(actual, exact_reweight(grad, x, kernels,
                                                   dilations)):
        assert_near(ours.cpu(), theirs, 1e-5)


@reweightings
def test_a_value_that_is_not_finite_stays_where_its_taps_reach(name):
    reweight = kernels_of(name).reweight
    _, x, kernels, dilations = make_reweight((2, 2, 9, 9), 3, (1, 2), False,
                                             torch.float32)
    before = reweight(x.to(DEVICE), kernels.to(DEVICE), dilations)
    x[0, 0, 0, 0] = float('nan')
    after = reweight(x.to(DEVICE), kernels.to(DEVICE), dilations)
    rows, columns = after[0, 0].isnan().nonzero().T.tolist()
    assert {*zip(rows, columns)} == {(r, c)
                                     for d in (0, 1, 2)
                                     for r in (0, d)
                                     for c in (0, d)}
    there = after.isnan()
    assert not there[0, 1].any() and not there[1].any()
    assert torch.equal(after[~there], before[~there])


def test_kernels_compile_for_a_gpu_and_fit_its_registers():
    environment = dict(os.environ)
    environment.pop('TRITON_INTERPRET', None)
    script = ROOT / 'tests/gpu/compiled_kernels.py'
    done = start(sys.executable, script, env=environment)
    assert not done.returncode, done.stderr
    rows = [
        line.split('|') for line in done.stdout.splitlines()
        if line.startswith(('| reweight', '| pool_queries'))
    ]
    executed = {}
    for _, name, registers, stack, shared, _, count, _ in rows:
        executed[name.strip()] = int(count)
        # the older pooling is faster with larger blocks that do not fit
        most = 128 if 'reweight' in name or 'parts' in name else 640
        assert int(stack) <= most, name
        assert int(registers) <= 255 and int(shared) <= 180 * 2**10
    assert len(executed) == len(rows) == 18
    for old, factor in (('reweight', 0.9), ('reweight backward', 0.6),
                        ('pool_queries', 0.2), ('pool_queries backward', 0.2)):
        new = old.replace('reweight',
                          'reweight rolling').replace('queries',
                                                      'queries in parts')
        assert executed[f'{new}, bf16'] < factor * executed[f'{old}, bf16']
