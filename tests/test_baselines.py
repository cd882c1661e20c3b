"""The baselines against the literal reference, and in the head."""
import pytest
import reference
import torch
from mmseg.registry import MODELS

from cac_mmseg import (CaCHead, CaCModule, ChannelAttentionModule,
                       FCKernelModule, FixedKernelModule, GAPKernelModule,
                       IdentityModule)
from cac_mmseg.cac_module import KERNEL_NORM_EPS

BASELINES = [
    FCKernelModule, FixedKernelModule, GAPKernelModule, ChannelAttentionModule,
    IdentityModule
]
HEAD = dict(in_channels=6, channels=8, num_classes=3, norm_cfg=dict(type='BN'))


def pooled_by_hand(x):
    """Mean over positions of each image and channel."""
    means = [[sum(map(float, plane.flatten())) / plane.numel()
              for plane in image] for image in x]  # yapf: disable
    return torch.tensor(means, dtype=torch.float64)


def fc_by_hand(fc, pooled):
    return torch.stack([(fc.weight.detach() * row).sum(1) + fc.bias.detach()
                        for row in pooled])


def kernels_by_hand(module, x):
    if isinstance(module, FixedKernelModule):
        return torch.stack([module.kernels.detach()] * len(x))
    kernels = fc_by_hand(module.fc, pooled_by_hand(x))
    return kernels.view(len(x), *module.shape)


@pytest.mark.parametrize('shared', [False, True])
@pytest.mark.parametrize('make, s, dilations', [
    (GAPKernelModule, 1, (1, )),
    (GAPKernelModule, 3, (1, 3)),
    (FixedKernelModule, 3, (1, 3)),
    (FCKernelModule, 3, (1, 2)),
])
def test_kernels_are_the_literal_method(make, s, dilations, shared):
    module = make(
        3, kernel_size=s, dilations=dilations, share_kernels=shared).double()
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    kernels = kernels_by_hand(module, x)
    assert kernels.shape[1] == (1 if shared else len(dilations))
    kernels = reference.batch_norm(kernels, KERNEL_NORM_EPS)
    if make is FCKernelModule:
        maps = reference.full_weighting_map(x, kernels / 3**0.5, dilations)
    else:
        maps = reference.weighting_map(x, kernels, dilations)
    reference.assert_near(module(x), x * maps, 1e-10)


def test_no_image_changes_fixed_kernels():
    module, x = FixedKernelModule(3), torch.randn(2, 3, 5, 6)
    other = module.predict_kernels(torch.rand_like(x))
    assert torch.equal(other, module.predict_kernels(x))


def test_channel_attention_is_the_literal_method():
    module = ChannelAttentionModule(32).double()
    x = torch.randn(2, 32, 3, 4, dtype=torch.float64)
    first, second = module.attention.conv1.conv, module.attention.conv2.conv
    hidden = fc_by_hand(_as_linear(first), pooled_by_hand(x))
    scale = fc_by_hand(_as_linear(second), hidden.clamp(min=0))
    expected = x / (1 + (-scale).exp())[:, :, None, None]
    reference.assert_near(module(x), expected, 1e-10)


def _as_linear(conv):
    linear = torch.nn.Linear(conv.in_channels, conv.out_channels).double()
    linear.weight.data = conv.weight.detach()[:, :, 0, 0]
    linear.bias.data = conv.bias.detach()
    return linear


def test_identity_changes_nothing():
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(IdentityModule(3)(x), x)


@pytest.mark.parametrize('module', BASELINES)
def test_takes_the_place_of_cac_module_in_the_head(module):
    head = CaCHead(
        **HEAD,
        num_heads=2,
        kernel_size=5,
        dilations=(1, 2),
        reweighting=module.__name__)
    assert [type(m) for m in head.cac_modules] == [module] * 2
    head([torch.randn(2, 6, 7, 9)]).sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
    usual = CaCHead(**HEAD, num_heads=2)
    assert isinstance(usual.cac_modules[0], CaCModule)
    # everything around the re-weighting is the same
    for part in ('reduction', 'pool_conv', 'conv_seg'):
        assert str(getattr(head, part)) == str(getattr(usual, part))


def test_too_many_parameters_are_refused_with_their_number():
    with pytest.raises(ValueError, match='3,630,956,544 parameters') as info:
        FCKernelModule(512)
    assert 'in_channels=512' in str(info.value)
    small = FCKernelModule(8)
    assert sum(p.numel() for p in small.fc.parameters()) == 9 * 3 * 8 * 8 * 9


def test_channels_of_a_reweighting_are_those_of_the_head():
    with pytest.raises(ValueError, match="reweighting.*'in_channels': 3"):
        CaCHead(**HEAD, reweighting=dict(type='CaCModule', in_channels=3))


@pytest.mark.parametrize('name, words', [
    ('nowhere.Module', "No module named 'nowhere'"),
    ('broken.Module', "No module named 'dependency'"),
    ('broken.part.Module', "No module named 'dependency'"),
    ('scope.Module', "No module named 'dependency'"),
    ('failing.Module', 'ZeroDivisionError'),
    ('torch.nn.NoModule', r"got 'torch.nn.NoModule'$"),
    ('mmseg.NoModule', r"got 'mmseg.NoModule'$"),
])
def test_what_keeps_a_reweighting_from_importing_is_told(
        name, words, tmp_path, monkeypatch):
    (tmp_path / 'scope').mkdir()
    for file, code in (('broken.py', 'import dependency'),
                       ('failing.py', '1 / 0'), ('scope/__init__.py', ''),
                       ('scope/registry.py', 'import dependency')):
        (tmp_path / file).write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=words):
        CaCHead(**HEAD, reweighting=name)


@pytest.mark.parametrize('module', [GAPKernelModule, FCKernelModule])
def test_feature_maps_are_checked_as_of_cac_module(module):
    with pytest.raises(ValueError, match='8 channels, got 7'):
        module(8)(torch.zeros(1, 7, 4, 4))


@MODELS.register_module()
class ScaleModule(torch.nn.Module):
    """A re-weighting of a user's own, with a knob."""

    def __init__(self, in_channels, *, factor=2., dilations=()):
        super().__init__()
        self.factor, self.dilations = factor, tuple(dilations)

    def forward(self, x):
        return self.factor * x


def test_a_module_of_a_user_gets_its_knobs_and_what_its_signature_has():
    own = dict(type='mmseg.ScaleModule', factor=3.)
    head = CaCHead(**HEAD, dilations=(1, 2), reweighting=own)
    module, = head.cac_modules
    assert (module.factor, module.dilations) == (3., (1, 2))


@pytest.mark.parametrize('value', [
    dict(type='ScaleModule', facter=3.),
    dict(type='IdentityModule', kernel_size=3),
])
def test_an_argument_that_a_module_does_not_take_is_named(value):
    with pytest.raises(ValueError, match='reweighting.*takes no') as info:
        CaCHead(**HEAD, reweighting=value)
    assert [*value][1] in str(info.value)


@MODELS.register_module()
class TracedModule(CaCModule):
    """Overrides prediction."""

    def predict_kernels(self, x):
        return super().predict_kernels(x) * 0


@MODELS.register_module()
class NamedModule(CaCModule):
    """Changes nothing about prediction."""


@pytest.mark.parametrize('module, joint', [(NamedModule, True),
                                           (TracedModule, False)])
def test_a_subclass_predicts_by_itself_only_where_it_overrides_that(
        module, joint, monkeypatch):
    head = CaCHead(**HEAD, num_heads=2, reweighting=module.__name__)
    calls = []

    def predict(modules, x):
        calls.append(modules)
        return [module.predict_kernels(x) for module in modules]

    monkeypatch.setattr('cac_mmseg.cac_head.predict_jointly', predict)
    head([torch.randn(2, 6, 5, 5)])
    assert bool(calls) == joint
