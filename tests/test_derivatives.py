"""Derivatives of any order and mode, against central differences in float64.
"""
import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import functional_call, hessian, jacfwd, jacrev, jvp, vmap
from torch.utils.flop_counter import FlopCounterMode

from cac_mmseg import CaCModule
from cac_mmseg.functional import predict_kernels, reweight

DILATIONS = (1, 2)


def weigh(x, kernels):
    return reweight(x, kernels, DILATIONS)


def predict(*tensors):
    return predict_kernels(*tensors, kernel_size=3)


def arguments(function, batch=2):
    shapes = dict(
        weigh=[(batch, 2, 3, 4), (batch, 2, 2, 3, 3)],
        predict=[(batch, 2, 3, 4), (18, 2), (18, ), (2, 2, 2), (2, 2)])
    return tuple(
        torch.randn(shape, dtype=torch.double, requires_grad=True)
        for shape in shapes[function.__name__])


both = pytest.mark.parametrize('function', [weigh, predict])


@both
def test_first_derivatives_in_both_modes(function):
    assert gradcheck(
        function,
        arguments(function),
        check_forward_ad=True,
        check_batched_grad=False)


@both
def test_tangents_of_gradients_of_a_graph_from_before(function):
    """Forward over reverse, where forward knew of no forward mode."""
    inputs = arguments(function)
    y = function(*inputs)
    grad, change = torch.randn_like(y), torch.randn_like(y)
    expected = torch.autograd.grad(y, inputs, change, retain_graph=True)
    with forward_ad.dual_level():
        found = torch.autograd.grad(y, inputs,
                                    forward_ad.make_dual(grad, change))
        tangents = [forward_ad.unpack_dual(t).tangent for t in found]
    # gradients are linear in those of the output
    for ours, theirs in zip(tangents, expected):
        torch.testing.assert_close(ours, theirs)


@both
def test_second_derivatives(function):
    assert gradgradcheck(function, arguments(function, batch=1))


def test_a_kernel_that_depends_on_x_is_not_counted_twice():
    """Second derivatives where one argument is computed from the other."""

    def function(x):
        return weigh(
            x,
            x.mean((2, 3)).view(1, 1, 2, 1, 1).expand(1, 2, 2, 3, 3).sin())

    x, _ = arguments(weigh, batch=1)
    assert gradgradcheck(function, (x, ))


def test_third_derivatives():
    x, kernels = arguments(weigh, batch=1)

    def second(x):
        first, = torch.autograd.grad(
            weigh(x, kernels).square().sum(), x, create_graph=True)
        return torch.autograd.grad(first.sum(), x, create_graph=True)[0]

    assert gradcheck(second, (x, ))


@both
def test_transforms_agree_with_autograd(function):
    inputs = tuple(t.detach() for t in arguments(function, batch=1))
    for i in range(len(inputs)):
        expected = torch.autograd.functional.jacobian(
            lambda t: function(*inputs[:i], t, *inputs[i + 1:]), inputs[i])
        torch.testing.assert_close(
            jacrev(function, argnums=i)(*inputs), expected)
        torch.testing.assert_close(
            jacfwd(function, argnums=i)(*inputs), expected)
    tangents = tuple(map(torch.randn_like, inputs))
    step = 1e-6
    ahead, behind = (
        function(*(t + sign * step * d for t, d in zip(inputs, tangents)))
        for sign in (1, -1))
    value, tangent = jvp(function, inputs, tangents)
    torch.testing.assert_close(value, function(*inputs))
    torch.testing.assert_close(
        tangent, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-7)


@both
def test_hessian(function):
    inputs = tuple(t.detach() for t in arguments(function, batch=1))

    def energy(t):
        return function(t, *inputs[1:]).square().sum()

    torch.testing.assert_close(
        hessian(energy)(inputs[0]),
        torch.autograd.functional.hessian(energy, inputs[0]))


@both
def test_vmap_is_a_loop(function):
    cases = [tuple(t.detach() for t in arguments(function)) for _ in range(3)]
    stacked = [torch.stack(tensors) for tensors in zip(*cases)]
    torch.testing.assert_close(
        vmap(function)(*stacked),
        torch.stack([function(*case) for case in cases]))


def test_gradients_per_sample_of_a_module():
    module = CaCModule(3).double().eval()
    x = torch.randn(4, 3, 5, 6, dtype=torch.double)
    parameters = {k: v.detach() for k, v in module.named_parameters()}

    def loss(parameters, image):
        return functional_call(module, parameters,
                               (image[None], )).square().sum()

    actual = vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    for i, image in enumerate(x):
        module.zero_grad()
        module(image[None]).square().sum().backward()
        for name, parameter in module.named_parameters():
            torch.testing.assert_close(actual[name][i], parameter.grad)


def test_operations_are_counted():
    """Two per multiply-add: five products of R rows, four convolutions."""
    x, kernels = arguments(weigh)
    counter = FlopCounterMode(display=False)
    with counter:
        weigh(x, kernels).sum().backward()
    assert counter.get_total_flops() == 2 * x.numel() * 9 * 2 * (1 + 3)
    pooled = arguments(predict)
    with counter:
        torch.ops.cac_mmseg.pool_queries(*pooled[:3])[0].sum().backward()
    assert counter.get_total_flops() == 2 * x.numel() * 18 * (2 + 5)
