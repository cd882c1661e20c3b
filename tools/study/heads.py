"""The heads that a study compares, by name: the decode head's config.

``'${name}'`` stands for a variable of the protocol, such as the channels of
the backbone's stages. All else comes from the protocol.
"""
from typing import Any, Dict

import torch.nn as nn
from mmseg.registry import MODELS

from . import held_back  # noqa: F401, registers its heads


def _cac(**arguments: Any) -> dict:
    return dict(type='CaCHead', **arguments)


@MODELS.register_module()
class NoNorm(nn.Identity):
    """A norm that changes nothing."""


HEADS: Dict[str, dict] = {
    # no context: a convolution, or two, and a classifier
    'fcn':
    dict(type='FCNHead', num_convs=1, concat_input=False),
    'fcn-2convs':
    dict(type='FCNHead', num_convs=2, concat_input=False),
    # mmseg's, with the arguments of its configs
    'pspnet':
    dict(type='PSPHead', pool_scales=(1, 2, 3, 6)),
    'deeplabv3':
    dict(type='ASPPHead', dilations='${atrous_rates}'),
    'dmnet':
    dict(type='DMHead', filter_sizes=(1, 3, 5, 7)),
    'dnlnet':
    dict(
        type='DNLHead', reduction=2, use_scale=True, mode='embedded_gaussian'),
    'gcnet':
    dict(
        type='GCHead',
        ratio=1 / 4.,
        pooling_type='att',
        fusion_types=('channel_add', )),
    'encnet':
    dict(
        type='EncHead',
        in_channels='${stage_channels}',
        in_index='${stage_indices}',
        num_codes=32,
        use_se_loss=True,
        add_lateral=False,
        loss_se_decode=dict(
            type='CrossEntropyLoss', use_sigmoid=True, loss_weight=0.2)),
    # ours
    'cac':
    _cac(),
    'cac-nopool':
    _cac(global_pool=False),
    'cac-heads2':
    _cac(num_heads=2),
    'cac-heads3':
    _cac(num_heads=3),
    'cac-heads4':
    _cac(num_heads=4),
    'cac-shared':
    _cac(share_kernels=True),
    'cac-k1':
    _cac(kernel_size=1),
    'cac-k5':
    _cac(kernel_size=5),
    'cac-d1':
    _cac(dilations=(1, )),
    'cac-d1-3':
    _cac(dilations=(1, 3)),
    # smaller dilations, for a map at output stride 16
    'cac-d1-2-3':
    _cac(dilations=(1, 2, 3)),
    # kernels normalised image by image: all channels of a set together
    'cac-kernel-gn':
    _cac(
        reweighting=dict(
            type='CaCModule', norm_cfg=dict(type='GN', num_groups=3))),
    # and not at all
    'cac-kernel-none':
    _cac(reweighting=dict(type='CaCModule', norm_cfg=dict(type='NoNorm'))),
    # kernels start at zero, and each weight at 1.5: the scale of their
    # normalisation is learned from 0
    'cac-zero':
    _cac(
        reweighting=dict(
            type='CaCModule',
            init_cfg=dict(type='Constant', layer='_BatchNorm', val=0))),
    # the norm of the pooled branch: none, GroupNorm, LayerNorm
    'cac-pool-none':
    _cac(pool_norm_cfg=None),
    'cac-pool-gn':
    _cac(pool_norm_cfg=dict(type='GN', num_groups=32)),
    'cac-pool-ln':
    _cac(pool_norm_cfg=dict(type='GN', num_groups=1)),
    # a pooled branch that is held back in training
    'cac-branch-dropped':
    dict(type='DroppedBranchHead'),
    'cac-branch-slow':
    dict(type='SlowBranchHead'),
    'cac-branch-late':
    dict(type='LateBranchHead'),
    # what the paper argues against
    'gap-kernels':
    _cac(reweighting='GAPKernelModule'),
    'fc-kernels':
    _cac(reweighting='FCKernelModule'),
    'channel-attention':
    _cac(reweighting='ChannelAttentionModule'),
    # our controls: fixed kernels with and without the pooled branch, and the
    # branch alone
    'fixed-kernels':
    _cac(reweighting='FixedKernelModule'),
    'fixed-kernels-nopool':
    _cac(reweighting='FixedKernelModule', global_pool=False),
    'global-pool':
    _cac(reweighting='IdentityModule'),
}
