"""Weights that were saved once load for ever."""
from pathlib import Path

import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict

from cac_mmseg import CaCHead, CaCModule
from cac_mmseg.baselines import FCKernelModule, GAPKernelModule

SAVED = Path(__file__).parent / 'saved' / 'head_version_1.pth'


def make_head(head=CaCHead):
    return head(
        in_channels=6,
        channels=4,
        num_classes=3,
        num_heads=2,
        share_kernels=True,
        norm_cfg=dict(type='BN')).eval()


def test_a_head_saved_by_the_first_release_gives_the_same_logits():
    saved = torch.load(SAVED, weights_only=True)
    head = make_head()
    head.load_state_dict(saved['state_dict'])
    torch.testing.assert_close(head([saved['x']]), saved['y'])
    # and without the metadata, as other tools save it
    head = make_head()
    head.load_state_dict(dict(saved['state_dict']))
    torch.testing.assert_close(head([saved['x']]), saved['y'])


@pytest.mark.parametrize(
    'make', [
        make_head, lambda: CaCModule(4), lambda: GAPKernelModule(4),
        lambda: FCKernelModule(4)
    ],
    ids=['CaCHead', 'CaCModule', 'GAPKernelModule', 'FCKernelModule'])
def test_a_later_layout_is_refused(make):
    model = make()
    state = model.state_dict()
    state._metadata['']['version'] = 2
    with pytest.raises(ValueError, match='layout 2.*up to 1: update'):
        model.load_state_dict(state)
    with pytest.raises(ValueError, match='layout 2.*up to 1: update'):
        load_state_dict(model, state, strict=False)
