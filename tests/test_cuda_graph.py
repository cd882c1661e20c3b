"""The hook that replays a graph, on a CPU: a stand-in captures nothing."""
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
import torch.nn as nn
import toy_runs
from conftest import labelled
from mmengine.optim import OptimWrapper
from mmengine.registry import DATASETS, MODELS, OPTIM_WRAPPERS
from torch.autograd import Function
from torch.func import functional_call

from cac_mmseg import CaCHead, CUDAGraphHook
from cac_mmseg.errors import UserError
from cac_mmseg.hooks import cuda_graph
from cac_mmseg.hooks.capturable import faults
from cac_mmseg.hooks.graphed_step import GraphedStep

HOOK = [dict(type='mmseg.CUDAGraphHook')]


class StandIn:
    """make_graphed_callables of torch: one step at a time, in fixed memory.

    Each replay takes the values of what was captured, in the memory of then:
    weights that moved since are not seen, other shapes are not refused, a
    forward overwrites what the backward of the one before needs, and each
    gradient comes in the same memory again.
    """

    def __init__(self):
        self.captures = self.replays = 0

    def __call__(self,
                 module,
                 sample_args,
                 num_warmup_iters=3,
                 allow_unused_input=False):
        assert not (torch.is_autocast_enabled('cpu')
                    and torch.is_autocast_cache_enabled())
        autocast = dict(
            device_type='cpu',
            dtype=torch.get_autocast_dtype('cpu'),
            enabled=torch.is_autocast_enabled('cpu'),
            cache_enabled=False)
        self.captures += 1

        def differentiate(logits, inputs, grad, **options):
            return torch.autograd.grad(
                logits, [t for t in inputs if t.requires_grad],
                grad,
                allow_unused=allow_unused_input,
                **options)

        for _ in range(num_warmup_iters):
            logits = module(*sample_args)
            differentiate(logits, [*sample_args, *module.parameters()],
                          torch.randn_like(logits))
        weights = {
            name: t.detach().requires_grad_(t.requires_grad)
            for name, t in module.named_parameters()
        }
        surface = [*sample_args, *weights.values()]
        weights.update(
            (name, t.detach()) for name, t in module.named_buffers())
        modes = [m.training for m in module.modules()]
        static_logits = logits.detach()
        static_grad = torch.empty_like(static_logits)
        grads = [torch.empty_like(t) for t in surface]
        memory = SimpleNamespace()
        count = self

        class Graphed(Function):

            @staticmethod
            def forward(ctx, *inputs):
                count.replays += 1
                for sample, x in zip(sample_args, inputs):
                    sample.detach().copy_(x)
                assert modes == [m.training for m in module.modules()]
                with torch.enable_grad(), torch.autocast(**autocast):
                    memory.logits = functional_call(module, weights,
                                                    sample_args)
                static_logits.copy_(memory.logits.detach())
                return static_logits.detach()

            @staticmethod
            def backward(ctx, grad):
                static_grad.copy_(grad)
                found = iter(
                    differentiate(
                        memory.logits, surface, static_grad,
                        retain_graph=True))
                returned = []
                for t, place in zip(surface, grads):
                    value = next(found) if t.requires_grad else None
                    returned.append(None if value is
                                    None else place.copy_(value).detach())
                del value
                return tuple(returned)

        parameters = [*module.parameters()]
        return lambda *maps: Graphed.apply(*maps, *parameters)


@pytest.fixture
def graphs(monkeypatch):
    stand_in = StandIn()
    monkeypatch.setattr(torch.cuda, 'make_graphed_callables', stand_in)
    monkeypatch.setattr(cuda_graph, 'DEVICE', 'cpu')
    return stand_in


@MODELS.register_module()
class GraphBackbone(nn.Module):

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, 2, 1)
        self.second = nn.Conv2d(4, 6, 3, 2, 1)

    def forward(self, x):
        first = self.first(x)
        return first, self.second(first.relu())


@DATASETS.register_module()
class GraphData(torch.utils.data.Dataset):

    metainfo = toy_runs.METAINFO

    def __len__(self):
        return 10

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        image = torch.rand(3, 32, 32, generator=generator)
        size = dict(img_shape=(32, 32), ori_shape=(32, 32))
        return dict(
            inputs=image,
            data_samples=labelled((image[0] > 0.5).long(), **size))


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """mmengine's refuses a CPU."""

    @contextmanager
    def optim_context(self, model):
        with super().optim_context(model), torch.autocast(
                'cpu', torch.bfloat16):
            yield


def runner(folder, hooks=(), **changes):
    """Two epochs of batches of 4, 4 and 2, each with a validation."""
    head = dict(
        type='CaCHead',
        in_channels=6,
        in_index=1,
        channels=4,
        num_classes=2,
        out_channels=2,
        norm_cfg=dict(type='BN')) | changes.pop('head', {})
    loader = dict(
        dataset=dict(type='mmengine.GraphData'),
        batch_size=4,
        sampler=dict(type='DefaultSampler', shuffle=False))
    defaults = dict(
        default_scope='mmseg',
        randomness=dict(seed=3),
        model=dict(
            type='EncoderDecoder',
            data_preprocessor=dict(type='SegDataPreProcessor', size=(32, 32)),
            backbone=dict(type='mmengine.GraphBackbone'),
            decode_head=head,
            test_cfg=dict(mode='whole')),
        val_evaluator=dict(type='mmengine.ToyMetric', prefix='toy'),
        test_evaluator=dict(type='mmengine.ToyMetric', prefix='toy'),
        custom_hooks=[*hooks],
        train_dataloader=loader,
        val_dataloader=loader)
    return toy_runs.runner(folder, 2, by_epoch=True, **defaults | changes)


def train(folder, *args, **changes):
    """Losses, and all that a training leaves behind."""
    run = runner(folder, *args, **changes)
    run.train()
    losses, _ = run.message_hub.get_scalar('train/loss').data
    return run, torch.tensor(losses), run.model.state_dict(), torch.rand(1)


def check_same(one, other):
    assert len(one[1]) == 6
    for ours, theirs in zip(one[1:], other[1:]):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize('changes', [
    dict(),
    dict(
        head=dict(
            num_heads=2,
            in_channels=[4, 6],
            in_index=[0, 1],
            input_transform='resize_concat')),
    dict(
        optim_wrapper=dict(
            accumulative_counts=2, optimizer=dict(type='SGD', lr=0.1))),
    dict(
        optim_wrapper=dict(
            type='mmengine.CPUAmpOptimWrapper',
            optimizer=dict(type='SGD', lr=0.1))),
    dict(custom_hooks=[dict(type='mmengine.EMAHook')]),
])
def test_a_training_is_the_same(tmp_path, graphs, changes):
    plain = train(tmp_path / 'plain', **changes)
    assert not graphs.captures
    if 'custom_hooks' in changes:
        changes = dict(custom_hooks=changes['custom_hooks'] + HOOK)
    graphed = train(tmp_path / 'graphed', HOOK, **changes)
    check_same(graphed, plain)
    # all but the batches of 2 images
    assert (graphs.captures, graphs.replays) == (1, 4)
    assert 'forward' not in vars(graphed[0].model.decode_head)
    hook, = (h for h in graphed[0].hooks if isinstance(h, CUDAGraphHook))
    assert hook.step is None  # the graph's memory is free


def new_step():
    head = CaCHead(
        in_channels=6,
        channels=4,
        num_classes=3,
        in_index=1,
        norm_cfg=dict(type='BN'),
        pool_norm_cfg=None)
    head.init_weights()
    head.unused = nn.Parameter(torch.ones(1))  # such as of a loss
    return GraphedStep(head)


@pytest.fixture
def step(graphs):
    """A captured step of a head."""
    step = new_step()
    step.capture(features()[1:])
    return step


def features(b=4, size=8):
    return torch.rand(1), torch.randn(b, 6, size, size, requires_grad=True)


def replays(step, graphs, inputs):
    """Whether a step of these feature maps replays; it is right anyway."""
    before = graphs.replays
    step.waits = False
    state = torch.get_rng_state()
    got = step.forward(inputs)
    torch.set_rng_state(state)
    torch.testing.assert_close(got, CaCHead.forward(step.head, inputs))
    return graphs.replays > before


def test_a_capture_leaves_no_trace(graphs):
    step = new_step()
    head = step.head
    del head.unused
    CaCHead.forward(head, features()).sum().backward()
    before = {name: t.clone() for name, t in head.state_dict().items()}
    grads = [p.grad.clone() for p in head.parameters()]
    maps = features()[1:]
    state = torch.get_rng_state()
    step.capture(maps)
    assert torch.equal(torch.get_rng_state(), state)
    assert head.state_dict().keys() == before.keys()
    for name, value in head.state_dict().items():
        assert torch.equal(value, before[name]), name
    for parameter, grad in zip(head.parameters(), grads):
        assert torch.equal(parameter.grad, grad)


def test_what_differs_from_the_capture_runs_as_usual(step, graphs):
    head = step.head
    assert replays(step, graphs, features())
    for inputs in (features(1), features(2), features(size=9),
                   features()[:1] + (torch.randn(4, 6, 8, 8), )):
        assert not replays(step, graphs, inputs)
    with torch.autocast('cpu', torch.bfloat16):
        assert not replays(step, graphs, features())
    with torch.no_grad():
        assert not replays(step, graphs, features())
    head.eval()
    assert not replays(step, graphs, features())
    head.train().reduction.bn.eval()
    assert not replays(step, graphs, features())
    head.train().conv_seg.bias.requires_grad_(False)
    assert not replays(step, graphs, features())
    head.conv_seg.bias.requires_grad_(True)
    handle = head.reduction.register_forward_hook(lambda *_: None)
    assert not replays(step, graphs, features())
    handle.remove()
    assert replays(step, graphs, features())
    head.conv_seg.weight.data = head.conv_seg.weight * 2
    assert not replays(step, graphs, features())


def test_a_dtype_that_was_not_captured_runs_as_usual(graphs):
    with torch.autocast('cpu', torch.bfloat16):
        step = new_step()
        step.capture(features()[1:])
        first, second = features()
        assert replays(step, graphs, (first, second))
        second = second.detach().bfloat16().requires_grad_()
        assert not replays(step, graphs, (first, second))
    with torch.autocast('cpu', torch.float16):
        assert not replays(step, graphs, features())


def test_torch_takes_the_call(monkeypatch):
    """Its own code, which warms up, checks and pairs gradients.

    The graphs are empty: a replay leaves what the capture computed.
    """
    for name, fake in dict(
            CUDAGraph=lambda: SimpleNamespace(replay=lambda: None),
            Stream=lambda: None,
            graph=lambda *_, **__: nullcontext(),
            stream=lambda _: nullcontext(),
            synchronize=lambda: None).items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch.cuda.graphs, 'graph_pool_handle', lambda: None)
    step, inputs = new_step(), features()
    step.head.dropout.p = 0.
    logits = step.forward(inputs)
    assert step.waits
    torch.testing.assert_close(logits, CaCHead.forward(step.head, inputs))
    logits.sum().backward()
    assert inputs[1].grad.shape == inputs[1].shape
    for name, parameter in step.head.named_parameters():
        assert (parameter.grad is None) == (name == 'unused'), name


def test_the_first_training_step_is_captured(graphs):
    step = new_step()
    with torch.no_grad():
        step.forward(features())
    step.head.eval()
    step.forward(features())
    assert not graphs.captures
    step.head.train()
    first = features(size=5)
    before = first[1].clone()
    step.forward(first)
    assert replays(step, graphs, features(size=5))
    assert torch.equal(first[1], before)  # it is not the graph's own
    assert graphs.captures == 1 and replays(step, graphs, features(size=5))
    assert not replays(step, graphs, features())


def test_hooks_that_came_before_the_first_iteration_are_refused(
        tmp_path, graphs):
    hook, run = CUDAGraphHook(), runner(tmp_path)
    hook.before_train(run)
    run.model.decode_head.register_forward_hook(abs)
    with pytest.raises(UserError, match='decode_head has hooks'):
        hook.before_train_iter(run, 0)
    assert not graphs.captures


@pytest.mark.parametrize('at_once', [True, False])
@pytest.mark.parametrize('set_to_none', [True, False])
def test_gradients_add_up(step, graphs, at_once, set_to_none):
    """Of two backwards, or of one after two forwards; twice."""
    head = step.head
    head.dropout.p = 0.
    optimizer = torch.optim.SGD(head.parameters(), lr=0.)
    for _ in range(2):
        grads = []
        inputs = [features(), features()]
        for forward in (step.forward, lambda x: CaCHead.forward(head, x)):
            optimizer.zero_grad(set_to_none=set_to_none)
            if at_once:
                one, other = map(forward, inputs)
                (one.square().sum() + other.square().sum()).backward()
            else:
                for x in inputs:
                    forward(x).square().sum().backward()
            assert head.unused.grad is None
            grads.append([
                p.grad.clone() for p in head.parameters()
                if p is not head.unused
            ])
        torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-3)
    assert graphs.replays == (2 if at_once else 4)


def test_a_replay_without_backward_is_forgotten(tmp_path, graphs):
    """A step that was given up does not keep the next ones from the graph."""
    hook = CUDAGraphHook()
    run = runner(tmp_path)
    hook.before_train(run)
    head = run.model.decode_head
    for i in range(5):
        if i == 4:  # a hook that comes now is called
            head.register_forward_hook(lambda *_: None)
        hook.before_train_iter(run, 0)
        head.forward(features())
        hook.after_train_iter(run, 0)
    assert graphs.replays == 4
    hook.after_train(run)


def test_needs_a_gpu(tmp_path):
    with pytest.raises(UserError, match='needs a CUDA GPU.* is on cpu'):
        runner(tmp_path, HOOK).train()


def set_in_config(**changes):
    return lambda run: run.cfg.merge_from_dict(changes)


def set_in(path, name, value):

    def change(run):
        part = run.model.get_submodule(path)
        setattr(part, name, value)

    return change


def replace(name, value):

    def change(run):
        setattr(run, name, value)

    return change


class MMDistributedDataParallel(nn.Module):
    pass


class ApexOptimWrapper:
    pass


@pytest.mark.parametrize('setting, change', [
    (r"launcher='none', with 2 rank\(s\) and EncoderDecoder",
     lambda run: None),
    ("launcher='none', with 1 rank.* MMDistributedDataParallel",
     replace('model', MMDistributedDataParallel())),
    ('compile=True', set_in_config(compile=True)),
    ('compile={}', set_in_config(compile={})),
    ("optim_wrapper.type='ApexOptimWrapper'",
     replace('optim_wrapper', ApexOptimWrapper())),
    ('train_dataloader.pin_memory=True',
     lambda run: setattr(run.train_dataloader, 'pin_memory', True)),
    (r'set_detect_anomaly\(True\)',
     lambda run: torch.autograd.set_detect_anomaly(True)),
    ("model.decode_head.type='Identity'",
     set_in('', 'decode_head', nn.Identity())),
    ('decode_head.reduction.with_cp=True',
     set_in('decode_head.reduction', 'with_cp', True)),
    (r"decode_head.reduction.forward was replaced by "
     r"activation_checkpointing=\['decode_head.reduction'\]", lambda run:
     (set_in_config(activation_checkpointing=['decode_head.reduction'])
      (run), set_in('decode_head.reduction', 'forward', abs)(run))),
    ('decode_head.reduction was given to torch.compile',
     set_in('decode_head.reduction', '_compiled_call_impl', abs)),
    ('decode_head.reduction was given to torch.compile',
     set_in('decode_head.reduction', '_orig_mod', abs)),
    ('decode_head.reduction has hooks',
     lambda run: run.model.decode_head.reduction.register_forward_hook(abs)),
    ('decode_head.conv_seg.weight has a hook on its gradient',
     lambda run: run.model.decode_head.conv_seg.weight.register_hook(abs)),
    ('decode_head.reduction.bn.momentum=None',
     set_in('decode_head.reduction.bn', 'momentum', None)),
])
def test_refusals(tmp_path, monkeypatch, setting, change):
    """Each in a line, and nothing else of a usual config."""
    run = runner(tmp_path)
    run.build_train_loop(run._train_loop)
    monkeypatch.setattr(
        'cac_mmseg.hooks.capturable.is_model_wrapper',
        lambda model: isinstance(model, MMDistributedDataParallel))
    assert not [*faults(run, 'cpu')]
    if '2 rank' in setting:
        monkeypatch.setattr('cac_mmseg.hooks.capturable.get_world_size',
                            lambda: 2)
    monkeypatch.setattr(cuda_graph, 'DEVICE', 'cpu')
    change(run)
    try:
        message = f'^CUDAGraphHook: .*{setting}[^\n]*: [^\n]+ the hook$'
        with pytest.raises(UserError, match=message):
            CUDAGraphHook().before_train(run)
    finally:
        torch.autograd.set_detect_anomaly(False)
