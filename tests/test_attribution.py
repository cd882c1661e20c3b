"""Shares of positions in a margin: they add up, and mean what they say."""
import pytest
import torch
import torch.nn.functional as F
from conftest import build
from hypothesis import given, settings
from hypothesis import strategies as st
from mmseg.structures import SegDataSample

from cac_mmseg import CaCHead, GAPKernelModule
from cac_mmseg.attribution import shares as module_of_shares
from cac_mmseg.attribution.paths import record
from cac_mmseg.attribution.shares import (STEPS, attribute_context,
                                          resize_shares)

SIZE = (48, 64)
CLASSES = 4


def assert_adds_up(shares, tolerance=1e-9):
    """But for the rounding of margins, where they all but cancel."""
    margin, baseline, error = (
        torch.as_tensor(value, dtype=torch.double)
        for value in (shares.margin, shares.baseline, shares.error))
    mass = shares.total.abs().sum((-2, -1))
    gap = (shares.total.sum((-2, -1)) - (margin - baseline)).abs()
    torch.testing.assert_close(error, gap / mass.clamp_min(1e-12))
    rounding = 1e-12 * (margin.abs() + baseline.abs())
    assert (gap <= tolerance * mass + rounding).all()


def make_model(plugin=False, **head):
    """A small segmentor with statistics, in float64."""
    backbone = dict(
        type='ResNet',
        depth=50 if plugin else 18,
        base_channels=4,
        stem_channels=4,
        num_stages=2,
        strides=(1, 2),
        dilations=(1, 1),
        out_indices=(1, ))
    if plugin:
        cfg = dict(type='CaCModule')
        plugin = dict(cfg=cfg, stages=(True, False), position='after_conv3')
        backbone['plugins'] = [plugin]
    head = dict(
        type='CaCHead',
        num_classes=CLASSES,
        norm_cfg=dict(type='BN'),
        in_channels=32 if plugin else 8,
        in_index=0,
        channels=6,
        dropout_ratio=0.) | head
    model = build(
        dict(
            type='EncoderDecoder',
            data_preprocessor=dict(type='SegDataPreProcessor', size=SIZE),
            backbone=backbone,
            decode_head=head,
            train_cfg=dict(),
            test_cfg=dict(mode='whole'))).double()
    for parameter in model.decode_head.conv_seg.parameters():
        torch.nn.init.normal_(parameter)  # random ones hardly tell classes
    model.train()
    for _ in range(3):
        model(torch.rand(3, 3, *SIZE).double() * 4, mode='tensor')
    return model.eval()


def batch(model):
    """An image that is preprocessed in float64."""
    image = torch.rand(1, 3, *SIZE, dtype=torch.float64) * 4
    model.data_preprocessor.forward = lambda data, training: dict(inputs=image)
    return dict(inputs=[image[0]], data_samples=[SegDataSample()])


def logits_of(model, data):
    """The model's own, averaged over the region; of the size of the image."""
    image = model.data_preprocessor(data, False)['inputs']
    logits = model(image, mode='tensor')
    return F.interpolate(logits, SIZE, mode='bilinear')[0][:, REGION].mean(1)


REGION = torch.zeros(SIZE, dtype=torch.bool)
REGION[10:20, 30:50] = True
VARIANTS = [
    dict(),
    dict(num_heads=2, kernel_size=5, dilations=(1, 2)),
    dict(share_kernels=True),
    dict(global_pool=False),
    dict(pool_norm_cfg=None, kernel_size=1),
    dict(reweighting='GAPKernelModule'),
    dict(reweighting='FCKernelModule', num_heads=2),
    dict(reweighting='FixedKernelModule'),
    dict(reweighting='IdentityModule'),
    dict(num_classes=2, out_channels=1, threshold=0.3),
    dict(plugin=True),
]


@pytest.mark.parametrize('variant', VARIANTS, ids=str)
def test_shares_add_up_to_what_context_changed(variant):
    model, reweighting = make_model(**variant), variant.get('reweighting')
    data = batch(model)
    shares = attribute_context(record(model, data), REGION)
    # on the line, the ReLUs behind a plugin have kinks
    assert_adds_up(shares, 1e-4 if 'plugin' in variant else 1e-9)
    # where no kernel depends on context only the pooled branch does, which a
    # ReLU can silence
    assert shares.change != 0 or reweighting in ('IdentityModule',
                                                 'FixedKernelModule')
    # the margin is that of the model's own logits
    with torch.no_grad():
        full = logits_of(model, data)
    if len(full) == 1:  # predicted where its probability is above 0.3
        full = torch.cat([torch.tensor([0.3]).logit().double(), full])
    first, second = full.argsort(descending=True)[:2].tolist()
    assert shares.classes == (first, second)
    assert shares.margin == pytest.approx((full[first] - full[second]).item())
    assert (shares.pooled is None) == (not model.decode_head.global_pool)


def cells(shares, size):
    """Divide shares literally, pixel by pixel of a common grid."""
    (h, w), (height, width) = shares.shape, size
    expected = torch.zeros(size, dtype=torch.float64)
    for i in range(h * height):
        for j in range(w * width):
            expected[i // h, j // w] += shares[i // height, j // width] / (
                height * width)
    return expected


sizes = st.tuples(st.integers(1, 8), st.integers(1, 8))


@settings(max_examples=20)
@given(sizes, sizes)
def test_a_share_is_divided_among_the_positions_it_covers(old, new):
    shares = torch.randn(old).double()
    torch.testing.assert_close(resize_shares(shares, new), cells(shares, new))


def test_maps_of_several_sizes_are_added_position_by_position(monkeypatch):
    """A stage of the backbone at twice the resolution of the head."""
    model, maps = make_model(plugin=True), []
    recording = record(model, batch(model))

    def keep(shares, size):
        maps.append((shares, resize_shares(shares, size)))
        return maps[-1][1]

    monkeypatch.setattr(module_of_shares, 'resize_shares', keep)
    right = attribute_context(recording, REGION, steps=24)
    assert {before.shape for before, _ in maps} == {(12, 16), (6, 8)}
    for before, after in maps:
        torch.testing.assert_close(after, cells(before, (12, 16)))
    torch.testing.assert_close(right.total, sum(after for _, after in maps))
    # a share that is repeated in four positions counts four times
    repeated = sum(
        F.interpolate(before[None, None], (12, 16)).sum()
        for before, _ in maps)
    error = abs(right.total.sum() - right.change)
    assert abs(repeated - right.change) > 10 * error


@settings(max_examples=5)
@given(
    st.fixed_dictionaries(
        dict(
            num_heads=st.integers(1, 2),
            kernel_size=st.sampled_from([1, 3]),
            share_kernels=st.booleans(),
            global_pool=st.booleans(),
            dilations=st.lists(st.integers(1, 3), min_size=1, max_size=3))))
def test_shares_of_random_models_are_those_of_the_integral(head):
    model = make_model(**head)
    data = batch(model)
    exact = attribute_context(record(model, data), REGION)
    assert_adds_up(exact)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module_of_shares, 'obstacle', lambda *_: 'a test')
        steps = attribute_context(record(model, data), REGION)
    assert_adds_up(steps, 1e-8)
    assert (steps.pooled is None) == (exact.pooled is None)
    tolerance = 1e-8 * exact.total.abs().max().item()
    torch.testing.assert_close(
        steps.total, exact.total, rtol=0, atol=tolerance)


def test_a_few_steps_are_exact_where_the_margin_is_smooth():
    """As Gauss-Legendre quadrature is; midpoints would leave 1e-5."""
    model = make_model(global_pool=False, reweighting='FCKernelModule')
    recording = record(model, batch(model))
    one, few = (
        attribute_context(recording, REGION, steps=steps).error
        for steps in (1, 8))
    assert few <= 1e-9 < one


class ScaledHead(CaCHead):
    """A head of a user, whose logits are not linear in its maps."""

    def forward(self, inputs):
        return super().forward(inputs).tanh()


def test_other_heads_take_steps():
    model = make_model()
    data = batch(model)
    model.decode_head.__class__ = ScaledHead
    # a saturated tanh takes more of them
    assert_adds_up(attribute_context(record(model, data), REGION, steps=64))


def test_an_auxiliary_head_has_no_part():
    model = make_model()
    data = batch(model)
    expected = attribute_context(record(model, data), REGION)
    model.auxiliary_head = make_model().decode_head
    found = attribute_context(record(model, data), REGION)
    assert torch.equal(found.total, expected.total)


def literal_term(module, x):
    """What stands in the mean over positions, (G, C, s * s)."""
    c, taps = module.in_channels, module.kernel_size**2
    if isinstance(module, GAPKernelModule):
        return (module.fc.weight @ x + module.fc.bias).view(-1, c, taps)
    queries = module.query.weight.view(-1, c) @ x + module.query.bias
    keys = module.key.weight.view(-1, c) @ x + module.key.bias
    return queries.view(-1, 1, taps) * keys.view(-1, c, 1)


@pytest.mark.parametrize('reweighting', ['CaCModule', 'GAPKernelModule'])
def test_a_position_without_its_share_changes_the_margin_by_it(reweighting):
    """Along the line: D less a little of a position's share, by hand.

    At each point of the line the margin falls by the gradient there times the
    share; the map is the mean of that over the line.
    """
    model = make_model(global_pool=False, reweighting=reweighting)
    data = batch(model)
    module, = model.decode_head.cac_modules
    norm, kept = module.kernel_norm, {}
    handle = module.register_forward_pre_hook(
        lambda _, inputs: kept.update(x=inputs[0].detach()))
    shares = attribute_context(record(model, data), REGION, (0, 1))
    handle.remove()
    x = kept['x']
    with torch.no_grad():
        kernels = module.predict_kernels(x)
        start = norm.bias.view(1, *kernels.shape[1:3], 1, 1)

        def margin(kernels):
            handle = module.register_forward_pre_hook(lambda _, inputs:
                                                      (inputs[0], kernels))
            first, second, *_ = logits_of(model, data)
            handle.remove()
            return first - second

        h, w = x.shape[2:]
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        scale = scale.view(*kernels.shape[1:3], 1)
        mean = norm.running_mean.view(scale.shape)
        for i, j in ((0, 0), (2, 5), (h - 1, w - 1)):
            # the equation, literally: [g, c, t]
            share = scale * (literal_term(module, x[0, :, i, j]) - mean) / (
                h * w)
            share, little, removed = share.view(kernels.shape), 1e-4, 0.
            for step in range(STEPS):
                point = start + (step + 0.5) / STEPS * (kernels - start)
                removed += margin(point) - margin(point - little * share)
            torch.testing.assert_close(
                removed / STEPS / little,
                shares.kernels[i, j],
                rtol=1e-3,
                atol=1e-6)


@pytest.mark.parametrize('head, words', [
    (dict(reweighting='ChannelAttentionModule'), 'ChannelAttentionModule'),
    (dict(reweighting='FixedKernelModule', global_pool=False), 'no context'),
    (dict(reweighting='IdentityModule', global_pool=False), 'no context'),
    (dict(norm_cfg=dict(type='GN', num_groups=2)), 'GroupNorm'),
    (dict(pool_norm_cfg=dict(type='GN', num_groups=2)), 'GroupNorm'),
])
def test_what_has_no_shares_is_named(head, words):
    model = make_model(**head)
    with pytest.raises(ValueError, match=words):
        attribute_context(record(model, batch(model)), REGION)


@pytest.mark.parametrize('change, words', [
    (dict(region=torch.ones(3, 4, dtype=torch.bool)), r'\(48, 64\).*\(3, 4\)'),
    (dict(region=torch.zeros(SIZE, dtype=torch.bool)), 'at least one'),
    (dict(classes=(0, 4)), 'classes must be 0 to 3, got 4'),
    (dict(classes=(-1, None)), 'got -1'),
    (dict(classes=(2, 2)), '2 twice'),
    (dict(steps=0), 'steps must be >= 1'),
])
def test_bad_arguments_are_named(change, words):
    model = make_model()
    arguments = dict(region=REGION) | change
    with pytest.raises(ValueError, match=words):
        attribute_context(record(model, batch(model)), **arguments)
