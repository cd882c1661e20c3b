"""CaCHead: its parts, and its place in mmseg."""
import warnings

import pytest
import reference
import torch
from mmengine.model import revert_sync_batchnorm
from torch.nn import Sequential
from torch.nn.utils import parametrizations, prune

from cac_mmseg import CaCHead
from cac_mmseg.cac_module import KERNEL_NORM_EPS, predict_jointly

BN = dict(type='BN', requires_grad=True)
GN = dict(type='GN', num_groups=4)

HEAD = dict(in_channels=12, channels=8, num_classes=5, norm_cfg=BN)


def make_head(**kwargs):
    return CaCHead(**HEAD | kwargs)


def maps(batch=2, h=6, w=7):
    return [torch.randn(batch, 12, h, w)]


@pytest.mark.parametrize('num_heads', [1, 2])
@pytest.mark.parametrize('global_pool', [True, False])
def test_head_is_reduction_modules_pool_and_classifier(num_heads, global_pool):
    """Each part by hand, the modules by the literal reference."""
    head = make_head(
        num_heads=num_heads, global_pool=global_pool, dropout_ratio=0)
    features = torch.randn(2, 12, 6, 7)
    parts, x = [], head.reduction(features)
    for module in head.cac_modules:
        expected = reference.cac_module(module, x, (1, 3, 5), KERNEL_NORM_EPS)
        parts.append(expected.float())
    if global_pool:
        pooled = head.pool_conv(features.mean((2, 3), keepdim=True))
        parts.append(pooled.expand(2, 8, 6, 7))
    expected = torch.nn.functional.conv2d(
        torch.cat(parts, 1), head.conv_seg.weight, head.conv_seg.bias)
    torch.testing.assert_close(head([features]), expected)


def test_modules_are_initialised_by_their_init_cfg():
    head = make_head(
        num_heads=2,
        reweighting=dict(
            type='CaCModule',
            init_cfg=dict(type='Constant', layer='_BatchNorm', val=0)))
    head.init_weights()
    for module in head.cac_modules:
        assert not module.kernel_norm.weight.any()
        x = torch.randn(2, 8, 6, 7)
        assert (module(x) == 1.5 * x).all()
    assert (head.reduction.bn.weight == 1).all()


def concatenated(head, inputs):
    """The logits as mmseg's heads compute them."""
    first, *more = head._forward_branches(inputs)
    more = [branch.expand_as(first) for branch in more]
    return head.cls_seg(torch.cat([first, *more], 1))


@pytest.mark.parametrize('num_heads', [1, 3])
@pytest.mark.parametrize('global_pool', [True, False])
def test_classifier_is_cls_seg_of_the_concatenation(num_heads, global_pool):
    """The same channels dropped too, as the same numbers are drawn."""
    options = dict(num_heads=num_heads, global_pool=global_pool)
    head = make_head(dropout_ratio=0.5, **options).double()
    features = [maps()[0].double()]
    for mode in (True, False):
        head.train(mode)
        results = []
        for logits_of in (CaCHead.__call__, concatenated):
            torch.manual_seed(0)
            logits = logits_of(head, features)
            results.append((logits, *torch.autograd.grad(
                logits.square().sum(), [*head.parameters()])))
        torch.testing.assert_close(*results)


def test_heads_share_a_pass_over_x_and_nothing_else():
    head = make_head(num_heads=3).double()
    x = torch.randn(2, 8, 6, 7, dtype=torch.float64)
    stacked = predict_jointly(head.cac_modules, x)
    for module, kernels in zip(head.cac_modules, stacked):
        torch.testing.assert_close(kernels, module.predict_kernels(x))
        torch.testing.assert_close(module(x, kernels), module(x))


def test_state_dict_names_are_a_promise():
    state = make_head(num_heads=2).state_dict()
    parts = {'reduction.conv', 'reduction.bn', 'pool_conv.conv',
             'pool_conv.bn', 'conv_seg'}  # yapf: disable
    for name in ('query', 'key', 'kernel_norm'):
        parts |= {f'cac_modules.0.{name}', f'cac_modules.1.{name}'}
    assert {name.rpartition('.')[0] for name in state} == parts


def test_batch_of_one_in_training_says_what_to_do():
    with pytest.raises(ValueError, match='^BN cannot .*size >= 2') as info:
        make_head()(maps(1))
    for way_out in ('SyncBN', 'GN', 'global_pool=False', 'drop_last=True'):
        assert way_out in str(info.value)
    sync = make_head(norm_cfg=dict(type='SyncBN'))
    with pytest.raises(ValueError, match='^SyncBN cannot') as info:
        revert_sync_batchnorm(sync)(maps(1))
    assert str(info.value).count('SyncBN') == 1
    assert 'BatchNorm' not in str(info.value)
    # each way out that the message names is one
    make_head(global_pool=False)(maps(1))
    make_head(norm_cfg=GN)(maps(1))
    make_head().eval()(maps(1))
    make_head(norm_cfg=None)(maps(1))


@pytest.mark.parametrize('batch, changes, warns', [
    (2, {}, True),
    (3, {}, True),
    (4, {}, False),
    (2, dict(pool_norm_cfg=None), False),
    (2, dict(global_pool=False), False),
    (2, dict(norm_cfg=GN), False),
])
def test_batch_of_few_in_training_is_warned_of(batch, changes, warns):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter('always')
        make_head(**changes)(maps(batch))
        make_head(**changes).eval()(maps(batch))
    messages = [str(w.message) for w in found if 'normalises' in str(w)]
    assert len(messages) == warns
    for message in messages:
        assert f'pooled branch by {batch} values' in message
        assert 'pool_norm_cfg=None' in message


@pytest.mark.parametrize('num_heads', [1, 2])
def test_a_batch_of_no_images_goes_through_in_evaluation(num_heads):
    head = make_head(num_heads=num_heads).eval()
    x = torch.randn(0, 12, 6, 7, requires_grad=True)
    logits = head([x])
    assert logits.shape == (0, 5, 6, 7)
    logits.sum().backward()
    assert x.grad.shape == x.shape
    with pytest.raises(ValueError, match='batch of 0'):
        head.train()([x])


@pytest.mark.parametrize('norm', [None, dict(type='GN', num_groups=1)])
def test_the_norm_of_the_pooled_branch_is_one_of_its_own(norm):
    """Without BN there, a batch of one image trains; names stay the same."""
    head = make_head(pool_norm_cfg=norm)
    x = torch.randn(1, 12, 6, 6)
    head([x]).sum().backward()
    pooled = torch.nn.functional.conv2d(
        x.mean((2, 3), keepdim=True), head.pool_conv.conv.weight,
        head.pool_conv.conv.bias)
    if norm:
        pooled = torch.nn.functional.layer_norm(pooled, pooled.shape[1:])
    torch.testing.assert_close(head._pool(x), pooled.relu())


def test_an_eps_for_feature_maps_stays_away_from_the_kernels():
    head = make_head(norm_cfg=dict(type='BN', eps=1e-3, momentum=0.03))
    assert head.reduction.bn.eps == 1e-3
    assert head.cac_modules[0].kernel_norm.eps == KERNEL_NORM_EPS
    assert head.cac_modules[0].kernel_norm.momentum == 0.03


def test_arguments_reach_the_modules():
    options = dict(kernel_size=5, dilations=(2, 4), share_kernels=True)
    head = make_head(**options, num_heads=3)
    assert len(head.cac_modules) == 3
    for module in head.cac_modules:
        assert {name: getattr(module, name) for name in options} == options
    assert head.conv_seg.in_channels == 4 * 8


def test_several_maps_without_concatenation_are_refused():
    with pytest.raises(ValueError, match='input_transform.*multiple_select'):
        make_head(
            in_channels=[12], in_index=[0], input_transform='multiple_select')


@pytest.mark.parametrize('x, words', [
    (torch.zeros(2, 12, 4), '3 dimensions'),
    (torch.zeros(2, 7, 4, 4), '12 channels, got 7'),
    (torch.zeros(2, 12, 4, 0), 'empty'),
])
def test_bad_feature_maps_are_named(x, words):
    with pytest.raises(ValueError, match=words):
        make_head()([x])


def wrap_forward(head):
    """As tools do that place the weights of a module on demand."""
    forward = head.conv_seg.forward
    head.conv_seg.forward = lambda x: 2 * forward(x)


def hook_dropout(head):
    head.dropout = torch.nn.Dropout2d(1e-9)
    head.dropout.register_forward_hook(lambda _, inputs, y: y.clamp(max=0.5))


def pad(head):
    head.conv_seg = torch.nn.Conv2d(24, 5, 1, padding=1)


def of_classifier(change, *arguments):
    return lambda head: change(head.conv_seg, *arguments)


CHANGES = {
    'prune': of_classifier(prune.l1_unstructured, 'weight', 0.5),
    'spectral_norm, by hook': of_classifier(torch.nn.utils.spectral_norm),
    'spectral_norm': of_classifier(parametrizations.spectral_norm),
    'weight_norm': of_classifier(parametrizations.weight_norm),
    'replaced': lambda h: setattr(h, 'conv_seg', Sequential(h.conv_seg)),
    'wrapped': wrap_forward,
    'without bias': lambda h: h.conv_seg.register_parameter('bias', None),
    'replaced dropout': lambda h: setattr(h, 'dropout', torch.nn.Hardtanh()),
    'hooked dropout': hook_dropout,
    'padded': pad,
}  # yapf: disable


@pytest.mark.parametrize('name', CHANGES)
def test_a_changed_classifier_is_the_one_that_trains(name):
    """Three steps: logits are ``cls_seg`` of the maps, gradients its own."""
    head = make_head(num_heads=2, dropout_ratio=0.)
    CHANGES[name](head)
    head.double()
    optimizer = torch.optim.SGD(head.parameters(), 0.1)
    for _ in range(3):
        features = [maps()[0].double()]
        logits = head(features)
        if 'spectral' not in name:  # a power iteration in each call
            torch.testing.assert_close(logits, concatenated(head, features))
        optimizer.zero_grad()
        logits.square().sum().backward()
        assert all(p.grad is not None for p in head.conv_seg.parameters()
                   if p.requires_grad)
        optimizer.step()


@pytest.mark.parametrize('register', [
    'register_forward_hook', 'register_forward_pre_hook',
    'register_full_backward_hook', 'register_full_backward_pre_hook'
])
def test_hooks_on_the_classifier_fire(register):
    head, calls = make_head(), []
    handle = getattr(head.conv_seg, register)(lambda *_: calls.append(1))
    features = maps()
    head(features).sum().backward()
    assert calls == [1]
    handle.remove()
    head(features).sum().backward()
    assert calls == [1]


def test_an_overridden_cls_seg_is_called():

    class Scaled(CaCHead):

        def cls_seg(self, feat):
            return 3 * super().cls_seg(feat)

    head = make_head(dropout_ratio=0).eval()
    features = maps()
    expected = 3 * head(features)
    head.__class__ = Scaled
    torch.testing.assert_close(head(features), expected)
    head.__class__ = CaCHead
    head.cls_seg = lambda feat: feat[:, :1]
    assert head(features).shape == (2, 1, 6, 7)


def test_each_module_may_predict_in_its_own_way():
    """One that was replaced is asked, whichever of them it is."""
    head = make_head(num_heads=2).eval()
    features = maps()
    before = head(features)
    module = head.cac_modules[1]
    module.predict_kernels = lambda x: x.new_zeros(len(x), 3, 8, 3, 3)
    after, x = head._forward_branches(features), head.reduction(features[0])
    torch.testing.assert_close(after[1], 1.5 * x)
    assert not torch.equal(head(features), before)
