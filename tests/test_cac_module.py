"""CaCModule: the literal maths, BN over kernels, and how it is used."""
import pytest
import reference
import torch
from conftest import build
from torch.nn.utils import prune

from cac_mmseg import CaCModule, FixedKernelModule
from cac_mmseg.cac_module import KERNEL_NORM_EPS


@pytest.mark.parametrize('shared', [False, True])
@pytest.mark.parametrize('s, dilations', [(1, (1, )), (3, (1, 3, 5)),
                                          (5, (2, 1))])
def test_module_is_the_literal_method(s, dilations, shared):
    module = CaCModule(
        3, kernel_size=s, dilations=dilations, share_kernels=shared).double()
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    expected = reference.cac_module(module, x, dilations, KERNEL_NORM_EPS)
    reference.assert_near(module(x), expected, 1e-10)
    sets = module.predict_kernels(x).shape[1]
    assert sets == (1 if shared else len(dilations))


def real_features(c=16):
    """Feature maps as a decode head makes them: smooth, and after a ReLU."""
    x = torch.randn(2, c, 9, 17) + torch.randn(1, c, 1, 1)
    return torch.nn.functional.interpolate(
        x, size=(32, 64), mode='bilinear').relu()


def test_mean_and_batch_norm_equal_sum_and_batch_norm_in_training():
    """BN removes the factor N, if its eps is small beside the variance."""
    module = CaCModule(16)
    x = real_features()
    raw = []
    module.kernel_norm.register_forward_pre_hook(
        lambda _, args: raw.append(args[0].detach()))

    def variance():
        return raw[-1].transpose(0, 1).flatten(1).var(1).median().item()

    # as late in training, bring the variance of the kernels down to 2e-5;
    # they are quadratic in the weights
    module.predict_kernels(x)
    with torch.no_grad():
        for parameter in (*module.query.parameters(),
                          *module.key.parameters()):
            parameter *= (2e-5 / variance())**0.25
    mean_then_bn = module.predict_kernels(x).flatten(1, 2)
    assert variance() == pytest.approx(2e-5, rel=1e-3)

    of_sums = torch.nn.BatchNorm2d(raw[-1].shape[1], eps=1e-5).double()
    sum_then_bn = of_sums(raw[-1].double() * 32 * 64)
    error = (mean_then_bn - sum_then_bn).abs().max() / sum_then_bn.abs().max()
    assert error <= 1e-3
    # and with the usual eps it would not hold: this test can fail
    usual = torch.nn.BatchNorm2d(raw[-1].shape[1], eps=1e-5)(raw[-1])
    assert (usual - sum_then_bn).abs().max() > 0.1 * sum_then_bn.abs().max()


def test_state_dict_names_are_a_promise():
    state = CaCModule(8, kernel_size=3, dilations=(1, 3)).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        'query.weight': (18, 8, 1, 1), 'query.bias': (18, ),
        'key.weight': (16, 8, 1, 1), 'key.bias': (16, ),
        'kernel_norm.weight': (16, ), 'kernel_norm.bias': (16, ),
        'kernel_norm.running_mean': (16, ), 'kernel_norm.running_var': (16, ),
        'kernel_norm.num_batches_tracked': ()
    }  # yapf: disable


@pytest.mark.parametrize('norm_cfg', [
    dict(type='SyncBN', requires_grad=True),
    dict(type='GN', num_groups=4),
    dict(type='IN', affine=True),
])
def test_other_norms(norm_cfg):
    module = CaCModule(8, norm_cfg=norm_cfg)
    assert module.kernel_norm.eps == KERNEL_NORM_EPS
    module(torch.randn(2, 8, 6, 6)).sum().backward()
    assert CaCModule(8, norm_cfg=norm_cfg | dict(eps=0.1)).kernel_norm.eps \
        == 0.1


def test_is_a_resnet_plugin():
    plugin = dict(
        cfg=dict(type='CaCModule'),
        stages=(False, False, True, True),
        position='after_conv3')
    backbone = build(
        dict(
            type='ResNet',
            depth=50,
            base_channels=4,
            stem_channels=4,
            strides=(1, 2, 1, 1),
            dilations=(1, 1, 2, 4),
            plugins=[plugin]))
    modules = [m for m in backbone.modules() if isinstance(m, CaCModule)]
    assert len(modules) == 6 + 3  # each block of stages 3 and 4
    features = backbone(torch.randn(2, 3, 64, 64))
    assert features[-1].shape == (2, 128, 8, 8)
    features[-1].sum().backward()


@pytest.mark.parametrize('x, words', [
    (torch.zeros(8, 4, 4), '3 dimensions'),
    (torch.zeros(2, 7, 4, 4), '8 channels, got 7'),
    (torch.zeros(2, 8, 0, 4), 'empty'),
])
def test_bad_feature_maps_are_named(x, words):
    with pytest.raises(ValueError, match=words):
        CaCModule(8)(x)


def test_one_value_per_kernel_channel_says_what_to_do():
    """s = 1 and batch 1: BN would have a single value."""
    module = CaCModule(8, kernel_size=1)
    with pytest.raises(ValueError, match='batch_size >= 2.*kernel_size >= 3'):
        module(torch.randn(1, 8, 4, 4))
    module.eval()(torch.randn(1, 8, 4, 4))
    CaCModule(8, kernel_size=3)(torch.randn(1, 8, 4, 4))


def loss_step(module):
    module(torch.randn(2, 8, 6, 7)).square().sum().backward()


@pytest.mark.parametrize(
    'apply', [
        torch.nn.utils.spectral_norm,
        torch.nn.utils.parametrizations.weight_norm,
        torch.nn.utils.parametrizations.spectral_norm,
        lambda part: prune.l1_unstructured(part, 'weight', 0.5)
    ],
    ids=['spectral_norm, by hook', 'weight_norm', 'spectral_norm', 'prune'])
@pytest.mark.parametrize('name', ['query', 'key'])
def test_tools_that_change_a_weight_train_it(apply, name):
    module = CaCModule(8)
    apply(getattr(module, name))
    for _ in range(2):  # a graph that is kept would fail the second time
        module.zero_grad()
        loss_step(module)
        for key, parameter in getattr(module, name).named_parameters():
            assert parameter.grad.abs().sum() > 0, key


def test_hooks_of_queries_and_keys_fire():
    module, fired = CaCModule(8), []
    for name in ('query', 'key'):
        getattr(module, name).register_forward_hook(
            lambda *_, name=name: fired.append(name))
    loss_step(module)
    assert fired == ['query', 'key']


def test_a_layer_in_place_of_a_projection_fails_loudly():
    module = CaCModule(8)
    assert not isinstance(module.key, torch.nn.Conv2d)
    module.key = torch.nn.Conv2d(8, 24, 1)
    with pytest.raises(TypeError):
        loss_step(module)


@pytest.mark.parametrize('module_class', [CaCModule, FixedKernelModule])
def test_built_on_meta_and_initialised_elsewhere(module_class):
    torch.manual_seed(0)
    expected = module_class(8).state_dict()
    with torch.device('meta'):
        module = module_class(8)
    module.to_empty(device='cpu')
    torch.manual_seed(0)
    for part in module.modules():  # as FSDP does
        if [*part.parameters(recurse=False)]:
            part.reset_parameters()
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, expected[name])
