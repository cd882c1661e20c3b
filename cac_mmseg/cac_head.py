"""CaCHead: the decode head of CaC-Net."""
from typing import Any, List, Sequence, Tuple, Union

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import ModuleList
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor

from .cac_module import CaCModule, predict_jointly
from .checks import (check_batch_norm, check_bool, check_dilations,
                     check_feature_map, check_int, check_kernel_size,
                     check_norm, check_one_map)
from .intact import has_plain_classifier, inherits
from .registry import resolve_module
from .state_dict import Versioned


@MODELS.register_module()
class CaCHead(Versioned, BaseDecodeHead):
    """The decode head of CaC-Net.

    A convolution reduces the backbone's feature map to X, which ``num_heads``
    :class:`CaCModule` re-weight side by side. Their outputs and a globally
    pooled branch of the backbone's feature map are concatenated, and a 1x1
    convolution classifies each position.

    Source: `CaC-Net <https://arxiv.org/abs/2004.08222>`_, ECCV 2020, its
    framework figure. Ours, where it is open: norm and ReLU after the reduction
    (3x3) and after the pooling (1x1); one head; dropout.

    Args:
        kernel_size, dilations, share_kernels: Of :class:`CaCModule`.
        num_heads: CaC modules in parallel.
        global_pool: Whether to add the globally pooled branch.
        pool_norm_cfg: Its norm: 'same' as norm_cfg, None for no norm, or a
            config. BN needs two images per batch, and is noisy with few.
        reweighting: The module that re-weights X: a name in mmseg's registry,
            or a config, ``dict(type='Name', knob=3)``. It is called with
            ``in_channels`` and those of kernel_size, dilations, share_kernels
            and norm_cfg that its signature has (:mod:`cac_mmseg.baselines`).
        **kwargs: Of :class:`mmseg.models.decode_heads.BaseDecodeHead`, among
            them in_channels, channels (of X), num_classes, norm_cfg. norm_cfg
            (BN if None) also normalises the kernels, with CaCModule's eps.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.

    Example:
        >>> head = CaCHead(in_channels=256, channels=64, num_classes=19)
        >>> tuple(head([torch.rand(2, 256, 16, 32)]).shape)
        (2, 19, 16, 32)
    """

    def __init__(self,
                 *,
                 kernel_size: int = 3,
                 dilations: Sequence[int] = (1, 3, 5),
                 share_kernels: bool = False,
                 num_heads: int = 1,
                 global_pool: bool = True,
                 pool_norm_cfg: Union[str, dict, None] = 'same',
                 reweighting: Union[str, dict] = 'CaCModule',
                 **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # whatever the re-weighting takes
        check_kernel_size(kernel_size)
        check_dilations(dilations)
        check_bool('share_kernels', share_kernels)
        self.num_heads = check_int('num_heads', num_heads)
        self.global_pool = check_bool('global_pool', global_pool)
        check_one_map(self.input_transform)
        conv = dict(
            conv_cfg=self.conv_cfg,
            norm_cfg=self.norm_cfg,
            act_cfg=self.act_cfg)
        self.reduction = ConvModule(
            self.in_channels, self.channels, 3, padding=1, **conv)
        # an eps chosen for feature maps does not suit kernels
        kernel_norm_cfg = dict(self.norm_cfg or dict(type='BN'))
        kernel_norm_cfg.pop('eps', None)
        module, options = resolve_module(
            'reweighting',
            reweighting,
            kernel_size=kernel_size,
            dilations=dilations,
            share_kernels=share_kernels,
            norm_cfg=kernel_norm_cfg)
        # mmengine's: with PyTorch's their init_cfg would not take effect
        self.cac_modules = ModuleList(
            module(self.channels, **options) for _ in range(num_heads))
        if global_pool:
            if pool_norm_cfg != 'same':
                conv['norm_cfg'] = None if pool_norm_cfg is None else \
                    check_norm('pool_norm_cfg', pool_norm_cfg)
            self.pool_conv = ConvModule(self.in_channels, self.channels, 1,
                                        **conv)
        # the base class sized it for a single map of `channels`
        channels = (num_heads + global_pool) * self.channels
        self.conv_seg = nn.Conv2d(channels, self.out_channels, kernel_size=1)

    def forward(self, inputs: Tuple[Tensor, ...]) -> Tensor:
        """Map the backbone's features to logits, (B, classes, H, W)."""
        return self._classify(self._forward_branches(inputs))

    def _forward_branches(self, inputs: Sequence[Tensor]) -> List[Tensor]:
        """Return a (B, C, H, W) per module, then the pooled (B, C, 1, 1)."""
        features = self._transform_inputs(inputs)
        check_feature_map(features, self.in_channels)
        # Autograd runs in reverse: called first, this branch adds its gradient
        # last, in place, to that of the reduction, which saves one map.
        pooled = [self._pool(features)] if self.global_pool else []
        x = self.reduction(features)  # [b, c, h, w]
        modules = self.cac_modules
        if len(modules) > 1 and all(
                inherits(m, CaCModule, 'forward', 'predict_kernels')
                for m in modules):
            kernels = predict_jointly(modules, x)
            return [m(x, k) for m, k in zip(modules, kernels)] + pooled
        return [module(x) for module in modules] + pooled

    def _pool(self, features: Tensor) -> Tensor:
        """Return the globally pooled branch, (B, channels, 1, 1)."""
        # the gradient of a sum is an expanded view, that of a mean a whole map
        dtype = torch.promote_types(features.dtype, torch.float32)
        total = features.sum((2, 3), keepdim=True, dtype=dtype)
        h, w = features.shape[2:]  # their numel() would fix them in an export
        pooled = (total / (h * w)).to(features.dtype)
        check_batch_norm(self.pool_conv.norm, pooled,
                         'the globally pooled branch',
                         'pool_norm_cfg=None, or global_pool=False')
        return self.pool_conv(pooled)

    def _classify(self, maps: Sequence[Tensor]) -> Tensor:
        """Return ``cls_seg`` of the concatenated maps.

        A plain classifier runs in parts, and nothing is concatenated: the sum
        of a 1x1 convolution of each map, at one position for the pooled
        branch. Dropout of a channel is dropout of a column of weights.
        """
        b, _, h, w = maps[0].shape
        if not has_plain_classifier(self):
            return self.cls_seg(
                torch.cat([x.expand(-1, -1, h, w) for x in maps], 1))
        weight = self.conv_seg.weight.flatten(1)  # [k, c of all maps]
        if self.dropout is not None and self.dropout.training:
            ones = weight.new_ones(b, 1, weight.shape[1])
            weight = weight * F.dropout(ones, self.dropout.p)
        else:
            weight = weight.expand(b, -1, -1)
        weight = weight.to(maps[0].dtype)  # autocast would do it part by part
        # [b, k, 1] or [b, k, h * w] each
        logits = [
            torch.bmm(part, x.flatten(2))
            for part, x in zip(weight.split(self.channels, 2), maps)
        ]
        bias = self.conv_seg.bias.unsqueeze(1)
        if self.global_pool:
            bias = logits.pop() + bias  # at one position
        return (sum(logits[1:], logits[0]) + bias).unflatten(2, (h, w))
