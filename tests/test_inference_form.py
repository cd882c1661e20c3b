"""The form of a model that is exported: equal, by plainer operators."""
import pytest
import torch
from mmengine.model import ModuleList
from torch import nn

from cac_mmseg import CaCHead, CaCModule
from cac_mmseg.deploy.form import inference_form


def trained(module, *inputs):
    """The module with statistics and affine parameters of its own."""
    module.train()
    for _ in range(3):
        with torch.no_grad():
            module(*inputs)
    for norm in module.modules():
        if getattr(norm, 'weight',
                   None) is not None and 'Norm' in type(norm).__name__:
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)
    return module.eval()


def head(**options):
    built = CaCHead(in_channels=8, channels=12, num_classes=5, **options)
    return trained(built, [torch.randn(4, 8, 9, 11)])


def assert_same(form, module, *inputs):
    with torch.no_grad():
        found, expected = form(*inputs), module(*inputs)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    'options', [
        dict(),
        dict(num_heads=2, share_kernels=True),
        dict(kernel_size=5, dilations=(2, ), global_pool=False),
        dict(kernel_size=1, dilations=(1, 4)),
        dict(norm_cfg=dict(type='GN', num_groups=4)),
        dict(
            norm_cfg=dict(type='IN2d'), pool_norm_cfg=None,
            share_kernels=True),
        dict(norm_cfg=dict(type='BN', affine=False)),
        dict(
            norm_cfg=dict(type='BN', track_running_stats=False),
            pool_norm_cfg=None),
    ],
    ids=str)
@pytest.mark.parametrize('reweighting', [
    'CaCModule', 'GAPKernelModule', 'FCKernelModule', 'FixedKernelModule',
    'ChannelAttentionModule', 'IdentityModule'
])
def test_every_head_has_one(reweighting, options):
    original = head(reweighting=reweighting, **options)
    before = {k: v.clone() for k, v in original.state_dict().items()}
    form, kept = inference_form(original)
    assert not kept
    assert not any(isinstance(m, CaCModule) for m in form.modules())
    for shape in ((2, 8, 9, 11), (1, 8, 4, 23), (3, 8, 1, 2)):
        x = torch.randn(shape)
        assert_same(form, original, [x])
    after = original.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())


class WithPlugin(nn.Module):
    """A backbone's stage, in the middle of which is a module."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 3), CaCModule(6), nn.ReLU())

    def forward(self, x):
        return self.layers(x)


def test_a_module_anywhere_has_one():
    x = torch.randn(2, 3, 12, 10)
    stage = trained(WithPlugin(), x)
    assert_same(inference_form(stage)[0], stage, x)
    alone = trained(CaCModule(3), x)
    assert_same(inference_form(alone)[0], alone, x)


def test_parametrized_weights_are_those_of_the_parametrization():
    x = torch.randn(2, 3, 12, 10)
    module = CaCModule(3)
    nn.utils.parametrizations.spectral_norm(module.query)
    trained(module, x)
    assert_same(inference_form(module)[0], module, x)


class Doubled(CaCModule):

    def forward(self, x, kernels=None):
        return 2 * super().forward(x, kernels)


class Smoothed(CaCModule):

    def predict_kernels(self, x):
        return super().predict_kernels(x) / 2


class QuarterBN(nn.BatchNorm2d):

    def forward(self, x):
        return super().forward(x) / 4


class Inverted(CaCHead):

    def _classify(self, maps):
        return -super()._classify(maps)


class BuiltOtherwise(CaCHead):
    """Which changes nothing else, and so is rewritten."""

    def __init__(self, **options):
        super().__init__(num_heads=2, **options)


def test_what_a_subclass_or_a_hook_changes_stays_and_is_named():
    sizes = dict(in_channels=8, channels=12, num_classes=5)
    heads = [head() for _ in range(7)]
    heads += [Inverted(**sizes).eval(), BuiltOtherwise(**sizes).eval()]
    heads[1].cac_modules[0] = Doubled(12).eval()
    heads[2].cac_modules[0] = Smoothed(12).eval()
    heads[3].cac_modules[0].kernel_norm.register_forward_hook(
        lambda module, inputs, output: output / 2)
    heads[4].register_forward_hook(lambda module, inputs, output: -output)
    heads[5].conv_seg.register_forward_hook(
        lambda module, inputs, output: -output)
    heads[6].cac_modules[0].normalise = torch.zeros_like
    form, kept = inference_form(ModuleList(heads))
    assert kept == [
        '1.cac_modules.0', '2.cac_modules.0', '3.cac_modules.0', '4', '5',
        '6.cac_modules.0', '7'
    ]
    x = torch.randn(2, 8, 9, 11)
    for found, expected in zip(form, heads):
        assert_same(found, expected, [x])


def test_a_norm_of_a_user_normalises_what_it_does_in_training():
    original = head()
    module, = original.cac_modules
    for norm in (QuarterBN(36), nn.LayerNorm(3)):  # its last axis is a row
        module.kernel_norm = norm.eval()
        form, kept = inference_form(original)
        assert not kept
        assert_same(form, original, [torch.randn(2, 8, 9, 11)])


def test_a_module_of_two_names_is_one():
    module = trained(CaCModule(3), torch.randn(2, 3, 12, 10))
    both = nn.Sequential(module, module)
    form, kept = inference_form(both)
    assert not kept and form[0] is form[1]
    assert_same(form, both, torch.randn(2, 3, 12, 10))
    copied, _ = inference_form(form)  # it can be copied
    assert_same(copied, both, torch.randn(1, 3, 7, 9))


@pytest.mark.parametrize(
    'reweighting',
    ['CaCModule', 'GAPKernelModule', 'FCKernelModule', 'FixedKernelModule'])
def test_its_operators_are_those_that_runtimes_have(reweighting):
    """No custom ones, and no rank above 4."""
    form, _ = inference_form(head(reweighting=reweighting, num_heads=2))
    free = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        form, ([torch.randn(2, 8, 9, 11)], ),
        dynamic_shapes=([{
            0: free,
            2: free,
            3: free
        }], ))
    allowed = {
        'adaptive_avg_pool2d', 'add', 'conv2d', 'div', 'flatten', 'linear',
        'matmul', 'mul', 'neg', 'pad', 'relu_', 'select', 'sigmoid', 'slice',
        'sub', 'sum', 'sym_size', 'transpose', 'unflatten', 'unsqueeze',
        'view', 'view_as'
    }
    for node in program.graph.nodes:
        if node.op != 'call_function':
            continue
        name = node.target.__name__.split('.')[0]
        assert name in allowed, name
        value = node.meta.get('val')
        if isinstance(value, torch.Tensor):
            assert value.ndim <= 4, node


def test_float16_holds_on_large_maps():
    """The sums over 32,768 positions of a plain product would overflow."""
    x = 10 + torch.randn(1, 4, 128, 256)
    module = trained(CaCModule(4), x.repeat(2, 1, 1, 1))
    form, _ = inference_form(module)
    with torch.no_grad():
        found = form.half()(x.half()).float()
    assert found.isfinite().all()
    assert (found - module(x)).abs().max() < 0.1 * x.max()
