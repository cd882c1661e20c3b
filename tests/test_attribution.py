"""Shares of positions in a margin: they add up, and mean what they say."""
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from cac_mmseg import CaCHead, GAPKernelModule
from cac_mmseg.attribution import shares as attribution
from cac_mmseg.attribution.paths import record
from cac_mmseg.attribution.shares import (STEPS, attribute_context,
                                          resize_shares)

SIZE = (48, 64)
CLASSES = 4


def make_model(plugin=False, **head):
    """A small segmentor with statistics, in float64."""
    init_default_scope('mmseg')
    backbone = dict(
        type='ResNet',
        depth=18,
        base_channels=4,
        stem_channels=4,
        num_stages=2,
        strides=(1, 2),
        dilations=(1, 1),
        out_indices=(1, ))
    if plugin:
        backbone.update(
            type='ResNet',
            depth=50,
            plugins=[
                dict(
                    cfg=dict(type='CaCModule'),
                    stages=(True, True),
                    position='after_conv3')
            ])
    head = dict(
        type='CaCHead', num_classes=CLASSES, norm_cfg=dict(type='BN')) | head
    model = MODELS.build(
        dict(
            type='EncoderDecoder',
            data_preprocessor=dict(type='SegDataPreProcessor', size=SIZE),
            backbone=backbone,
            decode_head=dict(
                in_channels=32 if plugin else 8,
                in_index=0,
                channels=6,
                dropout_ratio=0.,
                **head),
            train_cfg=dict(),
            test_cfg=dict(mode='whole'))).double()
    with torch.no_grad():  # random ones hardly tell classes apart
        for parameter in model.decode_head.conv_seg.parameters():
            torch.nn.init.normal_(parameter)
    model.train()
    for _ in range(3):
        model(torch.rand(3, 3, *SIZE).double() * 4, mode='tensor')
    return model.eval()


def batch(model):
    """An image that is preprocessed in float64."""
    image = torch.rand(1, 3, *SIZE, dtype=torch.float64) * 4
    model.data_preprocessor.forward = lambda data, training: dict(inputs=image)
    return dict(inputs=[image[0]], data_samples=[SegDataSample()])


def make_region():
    region = torch.zeros(SIZE, dtype=torch.bool)
    region[10:20, 30:50] = True
    return region


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
    model = make_model(**variant)
    data, region = batch(model), make_region()
    shares = attribute_context(
        record(model, data),
        region,
        steps=128 if 'plugin' in variant else STEPS)
    tolerance = 1e-9
    if 'plugin' in variant:  # the ReLUs behind it ask for more steps
        tolerance = 1e-2
    elif variant.get('reweighting') == 'FCKernelModule':
        tolerance = 1e-3
    assert shares.error <= tolerance
    # where no kernel depends on context only the pooled branch does, which a
    # ReLU can silence
    assert shares.change != 0 or variant.get('reweighting') in (
        'IdentityModule', 'FixedKernelModule')
    # the margin is that of the model's own logits
    with torch.no_grad():
        logits = model(
            model.data_preprocessor(data, False)['inputs'], mode='tensor')
    full = torch.nn.functional.interpolate(
        logits, size=SIZE, mode='bilinear')[0][:, region].mean(1)
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


@pytest.mark.parametrize('old, new', [
    ((4, 4), (8, 8)),
    ((8, 8), (4, 4)),
    ((3, 5), (7, 4)),
    ((6, 4), (6, 4)),
    ((1, 3), (2, 2)),
])
def test_a_share_is_divided_among_the_positions_it_covers(old, new):
    shares = torch.randn(old).double()
    found = resize_shares(shares, new)
    torch.testing.assert_close(found, cells(shares, new))
    single = torch.zeros(4, 4).double()
    single[1, 2] = 16
    found = resize_shares(single, (8, 8))
    assert found[2:4, 4:6].eq(4).all() and found.count_nonzero() == 4


def test_maps_of_several_sizes_are_added_position_by_position(monkeypatch):
    """A stage of the backbone at twice the resolution of the head."""
    model, maps = make_model(plugin=True), []
    recording = record(model, batch(model))

    def keep(shares, size):
        maps.append((shares, resize_shares(shares, size)))
        return maps[-1][1]

    monkeypatch.setattr(attribution, 'resize_shares', keep)
    right = attribute_context(recording, make_region(), steps=24)
    assert {before.shape for before, _ in maps} == {(12, 16), (6, 8)}
    for before, after in maps:
        torch.testing.assert_close(after, cells(before, (12, 16)))
    torch.testing.assert_close(right.total, sum(after for _, after in maps))
    # a share that is repeated in four positions counts four times
    monkeypatch.setattr(
        attribution, 'resize_shares', lambda shares, size: F.interpolate(
            shares[None, None], size=size)[0, 0])
    wrong = attribute_context(recording, make_region(), steps=24)
    assert wrong.error > 10 * right.error


@settings(max_examples=6, deadline=None)
@given(
    st.integers(1, 2), st.sampled_from([1, 3]), st.booleans(), st.booleans(),
    st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_shares_of_random_models_add_up(num_heads, kernel_size, shared, pool,
                                        dilations):
    model = make_model(
        num_heads=num_heads,
        kernel_size=kernel_size,
        share_kernels=shared,
        global_pool=pool,
        dilations=tuple(dilations))
    data, region = batch(model), make_region()
    exact = attribute_context(record(model, data), region)
    assert exact.error <= 1e-9
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attribution, 'obstacle', lambda *_: 'a test')
        assert attribute_context(record(model, data), region).error <= 1e-3
        fine = attribute_context(record(model, data), region, steps=512)
    assert fine.error <= 1e-6
    assert (fine.pooled is None) == (exact.pooled is None)
    torch.testing.assert_close(
        fine.total,
        exact.total,
        rtol=0,
        atol=1e-5 * exact.total.abs().max().item())


def test_the_error_falls_with_the_square_of_the_steps():
    """As that of the midpoint rule does, where no ReLU lies on the line."""
    model = make_model(global_pool=False, reweighting='FCKernelModule')
    data, region = batch(model), make_region()
    errors = [
        attribute_context(record(model, data), region, steps=steps).error
        for steps in (4, 16, 64)
    ]
    assert errors[1] < errors[0] / 8 and errors[2] < errors[1] / 8


class ScaledHead(CaCHead):
    """A head of a user, whose logits are not linear in its maps."""

    def forward(self, inputs):
        return super().forward(inputs).tanh()


def test_other_heads_take_steps():
    model = make_model()
    data, region = batch(model), make_region()
    model.decode_head.__class__ = ScaledHead
    assert attribute_context(
        record(model, data), region, steps=512).error <= 1e-3


def test_an_auxiliary_head_has_no_part():
    model = make_model()
    data, region = batch(model), make_region()
    expected = attribute_context(record(model, data), region)
    model.auxiliary_head = make_model().decode_head
    found = attribute_context(record(model, data), region)
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
    data, region = batch(model), make_region()
    module, = model.decode_head.cac_modules
    norm, kept = module.kernel_norm, {}
    handle = module.register_forward_pre_hook(
        lambda _, inputs: kept.update(x=inputs[0]))
    shares = attribute_context(
        record(model, data), region, (0, 1), steps=STEPS)
    handle.remove()
    x = kept['x'].detach()
    with torch.no_grad():
        kernels = module.predict_kernels(x)
        start = norm.bias.view(kernels.shape[1:3])[None, ..., None, None]
        start = start.expand_as(kernels)

        def margin(kernels):
            handle = module.register_forward_pre_hook(lambda _, inputs:
                                                      (inputs[0], kernels))
            out = model(
                model.data_preprocessor(data, False)['inputs'], mode='tensor')
            handle.remove()
            out = torch.nn.functional.interpolate(
                out, size=SIZE, mode='bilinear')[0][:, region].mean(1)
            return out[0] - out[1]

        h, w = x.shape[2:]
        scale = (norm.weight / (norm.running_var + norm.eps).sqrt())
        scale = scale.view(start.shape[1:3])[..., None]
        mean = norm.running_mean.view(scale.shape)
        for i, j in ((0, 0), (2, 5), (h - 1, w - 1)):
            # the equation, literally: [g, c, t]
            share = scale * (literal_term(module, x[0, :, i, j]) - mean) / (
                h * w)
            share = share.view(kernels.shape)
            little = 1e-4
            removed = 0.
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
        attribute_context(record(model, batch(model)), make_region())


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
    arguments = dict(region=make_region()) | change
    with pytest.raises(ValueError, match=words):
        attribute_context(record(model, batch(model)), **arguments)
