"""Shares of all positions at once are those of one position at a time."""
import pytest
import torch
from test_attribution import (SIZE, ScaledHead, assert_adds_up, batch,
                              make_model)

from cac_mmseg.attribution import shares as module_of_shares
from cac_mmseg.attribution.closed_form import _secant
from cac_mmseg.attribution.pairs import attribute_pairs
from cac_mmseg.attribution.paths import record
from cac_mmseg.attribution.shares import attribute_context

VARIANTS = [
    dict(),
    dict(num_heads=2, kernel_size=5, dilations=(1, 2)),
    dict(share_kernels=True, global_pool=False),
    dict(pool_norm_cfg=None, kernel_size=1),
    dict(reweighting='GAPKernelModule'),
    dict(reweighting='IdentityModule'),
]


@pytest.mark.parametrize('variant', VARIANTS, ids=str)
def test_each_is_the_integral(variant, monkeypatch):
    """At corners, where upsampling with aligned corners mixes nothing."""
    model = make_model(**variant)
    model.align_corners = True
    monkeypatch.setattr(module_of_shares, 'obstacle', lambda *_: 'a test')
    data = batch(model)
    pairs = attribute_pairs(record(model, data))
    assert_adds_up(pairs)
    for corner in ((0, 0), (0, -1)):
        region = torch.zeros(SIZE, dtype=torch.bool)
        region[corner] = True
        shares = attribute_context(record(model, data), region, steps=40)
        assert shares.classes == tuple(pairs.classes[corner].tolist())
        assert shares.margin == pytest.approx(pairs.margin[corner].item())
        assert shares.baseline == pytest.approx(pairs.baseline[corner].item())
        for kind in ('kernels', 'pooled'):
            found, exact = getattr(shares, kind), getattr(pairs, kind)
            if exact is None:
                assert not model.decode_head.global_pool
                continue
            tolerance = 1e-3 * exact[corner].abs().max().item()
            torch.testing.assert_close(
                found, exact[corner], rtol=0, atol=tolerance)


def by_cells(reduce, maps, dim, side):
    return torch.stack([reduce(cell, dim) for cell in maps.split(side, dim)],
                       dim)


@pytest.mark.parametrize('side', [2, 3, 5, 100])
def test_cells_add_up_positions(side):
    model = make_model()
    # of two classes, so that one margin is that of all but for its sign
    head = model.decode_head
    head.conv_seg = torch.nn.Conv2d(head.conv_seg.in_channels, 2, 1).double()
    data = batch(model)

    def signed(pairs):
        sign = 1. - 2 * pairs.classes[..., 0]
        return sign * pairs.margin, sign[..., None, None] * pairs.total

    fine, coarse = (attribute_pairs(record(model, data), s) for s in (1, side))
    assert_adds_up(coarse)
    margin, shares = signed(fine)
    for dim in (0, 1):
        margin = by_cells(torch.mean, margin, dim, side)
        shares = by_cells(torch.mean, shares, dim, side)
        shares = by_cells(torch.sum, shares, dim + 2, side)
    torch.testing.assert_close(signed(coarse)[0], margin)
    torch.testing.assert_close(signed(coarse)[1], shares)


@pytest.mark.parametrize('variant, words', [
    (dict(plugin=True), 'CaCModule in the backbone'),
    (dict(reweighting='FCKernelModule'), 'FCKernelModule does not re-weight'),
    (dict(reweighting='ChannelAttentionModule'), 'ChannelAttentionModule'),
])
def test_what_has_no_closed_form_is_named(variant, words):
    model = make_model(**variant)
    with pytest.raises(ValueError, match=words):
        attribute_pairs(record(model, batch(model)))


def test_other_heads_are_named():
    model = make_model()
    model.decode_head.__class__ = ScaledHead
    with pytest.raises(ValueError, match='ScaledHead does not classify'):
        attribute_pairs(record(model, batch(model)))


def test_bad_arguments_are_named():
    model = make_model()
    with pytest.raises(ValueError, match='side must be >= 1, got 0'):
        attribute_pairs(record(model, batch(model)), side=0)


def test_small_changes_keep_their_digits():
    """The quotient of two close sigmoids would lose them."""
    start = torch.randn(100).double() * 5
    for change in (0., 1e-12, 1e-7, 1e-3, 1., 50.):
        end = start + change
        steps = (torch.arange(20001).double() + 0.5) / 20001
        line = start[:, None] + steps * change
        expected = (line.sigmoid() * (1 - line.sigmoid())).mean(1)
        torch.testing.assert_close(
            _secant(start, end), expected, rtol=1e-6, atol=1e-12)
