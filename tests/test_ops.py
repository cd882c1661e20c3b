"""Every implementation of the two operations, forward and backward."""
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference import assert_near

from cac_mmseg import CaCModule, ops
from cac_mmseg.ops import decomposed, eager
from cac_mmseg.stack.analysis import saved_bytes

REGISTERED = torch.ops.cac_mmseg

shapes = st.tuples(
    st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
dilation_sets = st.lists(st.integers(1, 12), min_size=1, max_size=3).map(tuple)
LAYOUTS = ('contiguous', 'channels_last', 'transposed', 'every second',
           'expanded', 'constant')


def layouts(operands):
    """One for each operand, and the stride of dimensions of size 1."""
    return st.tuples(
        st.lists(
            st.sampled_from(LAYOUTS), min_size=operands, max_size=operands),
        st.sampled_from([None, 77]))


def laid_out(drawn, *tensors):
    """Tensors of the drawn layouts; some get other values by it."""
    names, stride = drawn
    for x, layout in zip(tensors, names):
        if layout == 'channels_last' and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        elif layout == 'transposed' and x.ndim > 1:
            x = x.mT.contiguous().mT
        elif layout == 'every second':  # from an offset on
            place = x.new_full([2 * n for n in x.shape], float('nan'))
            place = place[(slice(1, None, 2), ) * x.ndim]
            x = place.copy_(x)
        elif layout == 'expanded':
            x = x[:1].expand_as(x)
        elif layout == 'constant':  # as the gradient of a sum
            x = x.flatten()[0].expand_as(x)
        if stride:
            strides = [
                stride if n == 1 else old
                for n, old in zip(x.shape, x.stride())
            ]
            x = x.as_strided(x.shape, strides, x.storage_offset())
        yield x


def assert_laid_out(results, references):
    """As the fake kernels promise it to torch.compile."""
    for result, reference in zip(results, references):
        promised = torch.empty_like(reference)
        assert result.dtype == promised.dtype
        for size, *strides in zip(result.shape, result.stride(),
                                  promised.stride()):
            assert size == 1 or strides[0] == strides[1]


def make_reweight(shape, s, dilations, shared, dtype):
    b, c, h, w = shape
    sets = 1 if shared else len(dilations)
    x, grad = torch.randn(2, *shape).to(dtype)
    return grad, x, torch.randn(b, sets, c, s, s).to(dtype), dilations


def make_pooling(shape, rows, drawn, **kwargs):
    """Gradients of what pool_queries returns, and its inputs."""
    b, c = shape[:2]
    sizes = (b, rows, c), (b, rows), shape, (rows, c), (rows, )
    tensors = [*laid_out(drawn, *(torch.randn(s, **kwargs) for s in sizes))]
    return tensors[:2], tensors[2:]


def exact_reweight(grad, x, kernels, dilations):
    """Y and both gradients, by autograd in float64."""
    x, kernels = (t.double().clone().requires_grad_() for t in (x, kernels))
    y = decomposed.reweight(x, kernels, dilations)
    return (y, *torch.autograd.grad(y, (x, kernels), grad.double()))


@settings(max_examples=60)
@given(shapes, st.sampled_from([1, 3, 5]), dilation_sets, st.booleans(),
       layouts(3), st.sampled_from([torch.float64, torch.float32]),
       st.sampled_from([256, eager.BLOCK_BYTES]))
def test_eager_reweight_is_the_gradient_of_the_decomposed_form(
        shape, s, dilations, shared, drawn, dtype, block_bytes):
    """Whatever the blocks: a map each, some channels, some images, all."""
    *tensors, dilations = make_reweight(shape, s, dilations, shared, dtype)
    grad, x, kernels = laid_out(drawn, *tensors)
    expected = exact_reweight(grad, x, kernels, dilations)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eager, 'BLOCK_BYTES', block_bytes)
        actual = (eager.reweight(x, kernels, dilations),
                  *eager.reweight_backward(grad, x, kernels, dilations))
    for ours, theirs in zip(actual, expected):
        assert_near(ours, theirs, 1e-10 if dtype == torch.float64 else 1e-5)
    assert_laid_out(actual, (x, x, kernels))


@settings(max_examples=60)
@given(shapes, st.integers(1, 4), layouts(5),
       st.sampled_from([torch.float64, torch.float32]))
@example((2, 3, 4, 1), 4, (['transposed'] * 5, 77), torch.float32)
def test_eager_pool_queries_is_the_gradient_of_the_decomposed_form(
        shape, rows, drawn, dtype):
    grads, inputs = make_pooling(shape, rows, drawn, dtype=dtype)
    # of contiguous copies: the decomposed form takes any layout, too
    exact = [t.double().contiguous().requires_grad_() for t in inputs]
    expected = decomposed.pool_queries(*exact)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    actual = eager.pool_queries(*inputs)
    for ours, theirs in zip(actual, expected):
        assert_near(ours, theirs, tolerance)
    assert_laid_out(actual,
                    [torch.empty(t.shape, dtype=dtype) for t in actual])
    expected = torch.autograd.grad(expected, exact,
                                   [grad.double() for grad in grads])
    actual = eager.pool_queries_backward(*grads, *inputs)
    for ours, theirs in zip(actual, expected):
        assert_near(ours, theirs, tolerance)
    assert_laid_out(actual, inputs)


def before(x, kernels, dilations):
    """Three grouped convolutions through autograd, as they used to be."""
    b, c, h, w = x.shape
    s = kernels.shape[4]
    grouped = x.reshape(1, b * c, h, w)
    weights = sum(
        F.conv2d(
            grouped,
            kernels[:, i % kernels.shape[1]].reshape(b * c, 1, s, s),
            padding=r * (s // 2),
            dilation=r,
            groups=b * c).sigmoid() for i, r in enumerate(dilations))
    return x * weights.view(b, c, h, w)


def test_results_at_full_size_are_those_of_grouped_convolutions():
    x = torch.randn(2, 512, 32, 64).relu().requires_grad_()
    kernels = torch.randn(2, 3, 512, 3, 3).requires_grad_()
    grad = torch.randn_like(x)
    outputs = []
    for function in (ops.reweight, before):
        y = function(x, kernels, (1, 3, 5))
        outputs.append((y, *torch.autograd.grad(y, (x, kernels), grad)))
    for ours, theirs in zip(*outputs):
        assert_near(ours, theirs.double(), 1e-5)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_a_module_keeps_little_beside_its_input(dtype):
    x = torch.randn(2, 512, 32, 64, dtype=dtype, requires_grad=True)
    with torch.autocast('cpu', torch.bfloat16, dtype != torch.float32):
        saved = saved_bytes(CaCModule(512), x)
    assert saved <= 0.1 * x.numel() * x.element_size()


def test_operators_are_registered_as_torch_asks():
    """Schema, fake kernels, autograd, and what torch.compile makes of them."""
    x = torch.randn(2, 3, 5, 4, requires_grad=True)
    kernels = torch.randn(2, 2, 3, 3, 3, requires_grad=True)
    weight, bias = (
        torch.randn(shape, requires_grad=True) for shape in ((4, 3), (4, )))
    channels_last = x.detach().contiguous(memory_format=torch.channels_last)
    for x in (x, channels_last.requires_grad_(),
              x.detach().half().requires_grad_()):
        torch.library.opcheck(REGISTERED.reweight, (x, kernels, [1, 2]))
        torch.library.opcheck(REGISTERED.pool_queries, (x, weight, bias))
        with torch.no_grad():
            y = torch.randn_like(x)
            pooled = torch.randn(2, 4, 3), torch.randn(2, 4)
            torch.library.opcheck(REGISTERED.reweight_backward,
                                  (y, x, kernels, [1, 2]))
            torch.library.opcheck(REGISTERED.pool_queries_backward,
                                  (*pooled, x, weight, bias))


def test_module_compiles_to_one_graph():
    module = CaCModule(8).double()
    compiled = torch.compile(module, fullgraph=True, backend='aot_eager')
    for size in ((6, 7), (9, 5)):  # the second with dynamic sizes
        x = torch.randn(2, 8, *size, dtype=torch.double, requires_grad=True)
        results = []
        for forward in (module, compiled):
            y = forward(x)
            results.append((y, *torch.autograd.grad(
                y.square().sum(), [x, *module.parameters()])))
        torch.testing.assert_close(results[1], results[0])


def test_module_exports_with_dynamic_sizes():
    module = CaCModule(8).double().eval()
    batch, h, w = (torch.export.Dim(name, max=64) for name in 'bhw')
    program = torch.export.export(
        module, (torch.randn(2, 8, 6, 7, dtype=torch.double), ),
        dynamic_shapes=({0: batch, 2: h, 3: w}, ))  # yapf: disable
    x = torch.randn(3, 8, 9, 5, dtype=torch.double)
    torch.testing.assert_close(program.module()(x), module(x))
    # and where no custom operator may be left, by its decomposed form
    standard = program.run_decompositions({
        REGISTERED.reweight.default:
        decomposed.reweight,
        REGISTERED.pool_queries.default:
        decomposed.pool_queries
    })
    assert 'cac_mmseg' not in standard.graph_module.code
    torch.testing.assert_close(standard.module()(x), module(x))


def test_decomposed_form_takes_over_in_an_onnx_export(monkeypatch):
    arguments = make_reweight((2, 3, 5, 6), 3, (1, 2), False, torch.float32)
    expected = ops.reweight(*arguments[1:])
    monkeypatch.setattr(torch.onnx, 'is_in_onnx_export', lambda: True)
    monkeypatch.setattr(eager, 'reweight', None)
    torch.testing.assert_close(ops.reweight(*arguments[1:]), expected)
    module, x = CaCModule(4), torch.randn(2, 4, 5, 5)
    monkeypatch.setattr(eager, 'pool_queries', None)
    assert module(x).isfinite().all()
