"""CaCModule: the parameters of one context-adaptive convolution."""
from typing import List, Optional, Sequence

import torch
import torch.nn as nn
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from mmseg.utils import ConfigType, OptMultiConfig
from torch import Tensor

from .functional import apply_keys, predict_kernels, reweight
from .ops import pool_queries
from .utils.checks import (check_batch_norm, check_bool, check_dilations,
                           check_feature_map, check_int, check_kernel_size)
from .utils.state_dict import Versioned

# An eps of 1e-5 beside the variance of the paper's sums over N positions is
# one of 1e-5 / N^2 beside that of means: 1e-12 at N = 45 * 60. The usual 1e-5
# would shrink the kernels, whose variance is about 1e-3 at first and falls
# with the weights' decay.
KERNEL_NORM_EPS = 1e-12


class KernelModule(Versioned, BaseModule):
    """What modules that predict kernels share: arguments and normalisation.

    Arguments and errors as of :class:`CaCModule`. ``sets`` is G.
    """

    def __init__(self,
                 in_channels: int,
                 *,
                 kernel_size: int = 3,
                 dilations: Sequence[int] = (1, 3, 5),
                 share_kernels: bool = False,
                 norm_cfg: ConfigType = dict(type='BN'),
                 init_cfg: OptMultiConfig = None) -> None:
        super().__init__(init_cfg)
        self.in_channels = check_int('in_channels', in_channels)
        self.kernel_size = check_kernel_size(kernel_size)
        self.dilations = check_dilations(dilations)
        self.share_kernels = check_bool('share_kernels', share_kernels)
        self.sets = 1 if share_kernels else len(self.dilations)
        if not isinstance(norm_cfg, dict) or 'type' not in norm_cfg:
            raise TypeError("norm_cfg must be a dict such as dict(type='BN'): "
                            'predicted kernels are always normalised, '
                            f'got {norm_cfg!r}')
        # every set has channels, and so statistics, of its own
        self.kernel_norm = build_norm_layer(
            {
                'eps': KERNEL_NORM_EPS,
                **norm_cfg
            }, self.sets * in_channels)[1]
        self._build_predictor()

    def _build_predictor(self) -> None:
        """Make the parameters that kernels are predicted with."""
        raise NotImplementedError

    def normalise(self, kernels: Tensor) -> Tensor:
        """Normalise kernels (B, G, C, ..., s, s) by set and channel."""
        stacked = kernels.flatten(1, 2).flatten(2, -2)  # [b, g * c, ..., s]
        check_batch_norm(self.kernel_norm, stacked, 'the predicted kernels',
                         'kernel_size >= 3')
        return self.kernel_norm(stacked).view_as(kernels)

    def extra_repr(self) -> str:
        return (f'in_channels={self.in_channels}, '
                f'kernel_size={self.kernel_size}, '
                f'dilations={self.dilations}, '
                f'share_kernels={self.share_kernels}')


@MODELS.register_module()
class CaCModule(KernelModule):
    """Re-weight a feature map with kernels predicted from its own context.

    One depth-wise s x s kernel per image, channel and set is predicted from
    queries and keys (:func:`cac_mmseg.functional.predict_kernels`), batch
    normalised, and turned into a spatially varying weight per channel
    (:func:`cac_mmseg.functional.reweight`), which scales the feature map.

    Source: CaC-Net, ECCV 2020, text and framework figure. Ours: the mean over
    positions, and the eps of the normalisation.

    Args:
        in_channels: C, of the input and of the output.
        kernel_size: s, odd.
        dilations: One branch, a sigmoid of a depth-wise convolution, each.
        share_kernels: Predict one kernel set for all dilations in place of
            one each.
        norm_cfg: Normalises the kernels over (B, s, s), set by set. Its eps
            defaults to 1e-12 here.
        init_cfg: mmengine's; PyTorch's own initialisation otherwise.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.

    Example:
        >>> import torch
        >>> module = CaCModule(64, kernel_size=3, dilations=(1, 3, 5))
        >>> tuple(module(torch.rand(2, 64, 16, 32)).shape)
        (2, 64, 16, 32)
    """

    def _build_predictor(self) -> None:
        # Their weights are used, not their forward: the key map is never made
        c, taps = self.in_channels, self.kernel_size**2
        self.query = nn.Conv2d(c, self.sets * taps, 1)
        self.key = nn.Conv2d(c, self.sets * c, 1)

    def forward(self, x: Tensor, kernels: Optional[Tensor] = None) -> Tensor:
        """Map X (B, C, H, W) to Y = X * W of the same shape.

        ``kernels`` are those of X, where they have been predicted already.
        """
        if kernels is None:
            kernels = self.predict_kernels(x)
        return reweight(x, kernels, self.dilations)

    def predict_kernels(self, x: Tensor) -> Tensor:
        """Predict the normalised kernels, (B, G, C, s, s), for X."""
        check_feature_map(x, self.in_channels)
        c = self.in_channels
        kernels = predict_kernels(x, self.query.weight.view(-1, c),
                                  self.query.bias,
                                  self.key.weight.view(-1, c, c),
                                  self.key.bias.view(-1, c), self.kernel_size)
        return self.normalise(kernels)


def predict_side_by_side(modules: Sequence[CaCModule],
                         x: Tensor) -> List[Tensor]:
    """Return ``[module.predict_kernels(x) for module in modules]``.

    All queries are stacked, so that X is read once for all modules.
    """
    c = modules[0].in_channels
    rows = [module.query.out_channels for module in modules]
    pooled, mean = pool_queries(
        x, torch.cat([module.query.weight.view(-1, c) for module in modules]),
        torch.cat([module.query.bias for module in modules]))
    return [
        module.normalise(
            apply_keys(*gathered, module.key.weight.view(-1, c, c),
                       module.key.bias.view(-1, c), module.kernel_size))
        for module, *gathered in zip(modules, pooled.split(rows, 1),
                                     mean.split(rows, 1))
    ]
