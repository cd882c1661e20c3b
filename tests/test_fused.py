"""A CaCModule as one function of autograd: the same numbers, where it fits."""
from contextlib import contextmanager

import pytest
import torch
from mmseg.registry import MODELS
from torch.autograd import forward_ad, gradgradcheck
from torch.func import functional_call, vjp
from torch.nn.utils import parametrizations, prune
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from cac_mmseg import CaCModule, fused
from cac_mmseg.ops import choice


@pytest.fixture
def calls(monkeypatch):
    """The modules that were one function."""
    found = []
    context = fused.context

    def record(module, x):
        found.append(module)
        return context(module, x)

    monkeypatch.setattr(fused, 'context', record)
    return found


def module_of(channels=6, **options):
    """A module whose norm is not the one it starts with."""
    module = CaCModule(channels, **options)
    norm = module.kernel_norm
    for tensor in (norm.weight, norm.running_mean, norm.running_var):
        if tensor is not None:
            torch.nn.init.uniform_(tensor, 0.5, 2)
    if norm.bias is not None:
        torch.nn.init.normal_(norm.bias)
    return module


def outcome(module, x, autocast):
    """Output, gradients, and state after a step; X is used elsewhere too."""
    module.zero_grad()
    x = x.detach().requires_grad_()
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        y = module(x)
    (y.float() * x.sin()).square().sum().backward()
    return dict(
        module.state_dict(),
        y=y,
        x=x.grad,
        **{
            f'grad of {name}': p.grad
            for name, p in module.named_parameters()
        })


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('dtype, autocast', [(torch.float64, False),
                                             (torch.float32, False),
                                             (torch.float32, True),
                                             (torch.bfloat16, True)])
@pytest.mark.parametrize('options', [
    {},
    dict(share_kernels=True, dilations=(2, )),
    dict(kernel_size=5, dilations=(1, 2), norm_cfg=dict(type='SyncBN')),
    dict(kernel_size=1, dilations=(1, )),
])
def test_it_computes_what_the_parts_do(calls, monkeypatch, options, dtype,
                                       autocast, training):
    double = dtype == torch.float64
    module = module_of(**options).train(training)
    module = module.double() if double else module
    state = {k: v.clone() for k, v in module.state_dict().items()}
    x = torch.randn(3, 6, 7, 5).to(dtype)
    if torch.rand(()) < 0.5:
        x = x.to(memory_format=torch.channels_last)
    found = []
    for fits in (fused.fits, lambda *_: False):
        module.load_state_dict(state)
        monkeypatch.setattr(fused, 'fits', fits)
        found.append(outcome(module, x, autocast))
    assert len(calls) == 1
    tolerance = 1e-9 if double else 2e-2 if dtype == torch.bfloat16 else 1e-4
    for name, expected in found[1].items():
        actual = found[0][name]
        assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
        largest = expected.abs().max().item()
        torch.testing.assert_close(
            actual, expected, rtol=0, atol=tolerance * max(largest, 1e-3))


@pytest.mark.parametrize('training', [True, False])
def test_second_derivatives(calls, training):
    module = module_of(2, dilations=(1, 2)).double().train(training)
    names, values = zip(*module.named_parameters())

    def function(x, *values):
        return functional_call(module, dict(zip(names, values)), (x, ))

    inputs = [torch.randn(2, 2, 3, 4, dtype=torch.double), *values]
    assert gradgradcheck(
        function, [t.detach().requires_grad_() for t in inputs], atol=1e-4)
    assert calls


def test_batched_gradients(calls):
    module = module_of().double()
    x = torch.randn(2, 6, 4, 5, dtype=torch.double, requires_grad=True)
    y = module(x)
    grads = torch.randn(3, *y.shape, dtype=torch.double)
    batched, = torch.autograd.grad(
        y, x, grads, is_grads_batched=True, retain_graph=True)
    for grad, actual in zip(grads, batched):
        expected, = torch.autograd.grad(y, x, grad, retain_graph=True)
        torch.testing.assert_close(actual, expected)
    assert len(calls) == 1


class Halved(CaCModule):

    def predict_kernels(self, x):
        return super().predict_kernels(x) / 2


class Norm(torch.nn.BatchNorm2d):

    def forward(self, x):
        return super().forward(x) / 2


class Subclass(torch.Tensor):
    pass


@contextmanager
def hook_of_all_modules():
    handle = torch.nn.modules.module.register_module_forward_hook(
        lambda *_: None)
    yield
    handle.remove()


@contextmanager
def dual_level():
    with forward_ad.dual_level():
        yield


def with_norm(norm):

    def change(module):
        module.kernel_norm = norm

    return change


@pytest.mark.parametrize('change', [
    lambda m: m.query.register_forward_hook(lambda *_: None),
    lambda m: m.key.register_forward_pre_hook(lambda *_: None),
    lambda m: m.kernel_norm.register_full_backward_hook(lambda *_: None),
    lambda m: m.kernel_norm.register_forward_hook(lambda *_: None),
    lambda m: prune.l1_unstructured(m.query, 'weight', 0.5),
    lambda m: parametrizations.spectral_norm(m.key),
    lambda m: m.bfloat16(),
    lambda m: setattr(m, 'normalise', lambda kernels: kernels * 0),
    lambda m: setattr(m.kernel_norm, 'forward', lambda x: x / 2),
    lambda m: setattr(m.kernel_norm, 'track_running_stats', False),
    lambda m: setattr(m.kernel_norm, 'num_batches_tracked', None),
    lambda m: setattr(m.kernel_norm, 'bias', None),
    with_norm(Norm(18)),
    with_norm(torch.nn.GroupNorm(2, 18)),
    with_norm(torch.nn.BatchNorm2d(18, momentum=None)),
    with_norm(torch.nn.BatchNorm2d(18, affine=False)),
    with_norm(torch.nn.BatchNorm2d(18, track_running_stats=False)),
])
def test_a_changed_part_is_called(calls, change):
    module = module_of()
    change(module)
    module(torch.randn(2, 6, 5, 4, dtype=module.query.weight.dtype))
    assert not calls


@pytest.mark.parametrize('change', [
    with_norm(torch.nn.BatchNorm2d(12)),
    with_norm(torch.nn.BatchNorm2d(24)),
    lambda m: setattr(m, 'dilations', (1, 3)),
    lambda m: setattr(m.query, 'bias', torch.nn.Parameter(torch.zeros(9))),
])
@pytest.mark.parametrize('training', [True, False])
def test_parts_that_do_not_fit_together_are_refused(calls, change, training):
    """By PyTorch or by name; one function would read past their ends."""
    module = module_of()
    change(module.train(training))
    with pytest.raises((RuntimeError, ValueError)):
        module(torch.randn(2, 6, 5, 4))
    assert not calls


def test_saved_tensors_are_asked_for_once(calls):
    """Non-reentrant checkpoints compute them again when they are."""
    module, x = module_of(), torch.randn(2, 6, 5, 4, requires_grad=True)
    y = checkpoint(module, x, use_reentrant=False)
    grad, = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    grad.square().sum().backward()
    assert calls and x.grad.abs().sum() > 0


@pytest.mark.parametrize('context', [
    hook_of_all_modules, dual_level, lambda: FlopCounterMode(display=False),
    lambda: torch.device('cpu')
])
def test_what_watches_sees_the_parts(calls, context):
    module, x = module_of(), torch.randn(2, 6, 5, 4)
    with context():
        module(x)
    assert not calls
    module(x)
    assert len(calls) == 1


def test_transforms_traces_subclasses_and_overrides_see_the_parts(calls):
    x = torch.randn(2, 6, 5, 4)
    vjp(module_of().eval(), x)
    torch.jit.trace(module_of().eval(), x, check_trace=False)
    module_of()(x.as_subclass(Subclass))
    module_of().eval()(x[:0])
    Halved(6)(x)
    module_of().to('meta')(x.to('meta'))
    assert not calls


# aten operators that compute nothing
FREE = {
    'alias', 'detach', 'empty', 'empty_like', 'empty_strided', 'new_empty',
    'promote_types', 'split', '_unsafe_view'
}


class Counter(TorchDispatchMode):
    """Counts what is dispatched, and what of it launches a kernel."""

    dispatched = launched = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.dispatched += 1
        name = func._schema.name.split('::')[1]
        self.launched += not func.is_view and name not in FREE
        return func(*args, **(kwargs or {}))


def nodes_of(tensor):
    """The nodes of a graph of autograd."""
    found, todo = set(), [tensor.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in found:
            found.add(node)
            todo += [child for child, _ in node.next_functions]
    return found


@pytest.mark.slow  # needs Triton
@pytest.mark.parametrize('amp, launches', [(False, 65), (True, 77)])
def test_a_step_launches_no_more_than_it_has_to(monkeypatch, amp, launches):
    """Of one head, for a training step: two less on a GPU, by its dropout."""
    from cac_mmseg.ops import triton_pooling, triton_reweighting
    counter = Counter()

    def launch(*_, **__):
        counter.launched += 1

    modules = dict(pool_queries=triton_pooling, reweight=triton_reweighting)
    for module in modules.values():
        monkeypatch.setattr(module, 'launch', launch)
    monkeypatch.setattr(fused, 'is_plain', lambda *_: True)
    for module in (choice, fused):
        monkeypatch.setattr(
            module,
            'implementation',
            lambda x, operation, taps=0: modules[operation])
    head = MODELS.build(
        dict(
            type='CaCHead',
            in_channels=64,
            channels=16,
            num_classes=19,
            norm_cfg=dict(type='BN')))
    x = torch.rand(2, 64, 4, 4, requires_grad=True)
    with counter:
        with torch.autocast('cpu', torch.bfloat16, enabled=amp):
            y = head([x])
        y.sum().backward()
    # two for the sum here
    assert counter.launched <= launches + 2
    assert counter.dispatched <= 160
    assert len(nodes_of(y)) <= 40
