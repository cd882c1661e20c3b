"""CaCModule: the parameters of one context-adaptive convolution."""
from typing import List, Optional, Sequence

import torch
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from mmseg.utils import ConfigType, OptMultiConfig
from torch import Tensor

from . import fused
from .checks import (check_batch_norm, check_bool, check_dilations,
                     check_feature_map, check_int, check_kernel_size,
                     check_norm)
from .functional import predict_kernels, reweight
from .intact import inherits
from .projection import Projection
from .state_dict import Versioned

# 1e-5 / N^2 at N = 45 * 60: the variance of a mean is 1 / N^2 of that of the
# paper's sum, so the usual eps would shrink the kernels.
KERNEL_NORM_EPS = 1e-12


@MODELS.register_module()
class CaCModule(Versioned, BaseModule):
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
        share_kernels: Predict one kernel set for all dilations, not one each.
        norm_cfg: Normalises the kernels over (B, s, s), set by set. Its eps
            defaults to 1e-12 here.
        init_cfg: mmengine's; PyTorch's own initialisation otherwise.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.

    Example:
        >>> module = CaCModule(64, kernel_size=3, dilations=(1, 3, 5))
        >>> tuple(module(torch.rand(2, 64, 16, 32)).shape)
        (2, 64, 16, 32)
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
        norm_cfg = {'eps': KERNEL_NORM_EPS, **check_norm('norm_cfg', norm_cfg)}
        # each channel of each set has its own statistics
        self.kernel_norm = build_norm_layer(norm_cfg,
                                            self.sets * in_channels)[1]
        self._build_predictor()

    def _build_predictor(self) -> None:
        """Create the parameters that kernels are predicted with."""
        c = self.in_channels
        self.query = Projection(c, self.sets * self.kernel_size**2)
        self.key = Projection(c, self.sets * c)

    def forward(self, x: Tensor, kernels: Optional[Tensor] = None) -> Tensor:
        """Map X (B, C, H, W) to Y = X * W of the same shape.

        ``kernels`` are predicted from X unless a head, which predicts those of
        several modules at once, passes them.
        """
        if kernels is None:
            if (inherits(self, CaCModule, 'predict_kernels', 'normalise')
                    and fused.fits(self, x)):
                return fused.context(self, x)
            kernels = self.predict_kernels(x)
        return reweight(x, kernels, self.dilations)

    def predict_kernels(self, x: Tensor) -> Tensor:
        """Predict the normalised kernels, (B, G, C, s, s), for X."""
        return self.normalise(_predict(self, x, *self.query(), *self.key()))

    def normalise(self, kernels: Tensor) -> Tensor:
        """Normalise kernels (B, G, C, ..., s, s) by set and channel."""
        stacked = kernels.flatten(1, 2).flatten(2, -2)  # [b, g * c, ..., s]
        check_batch_norm(self.kernel_norm, stacked, 'the predicted kernels',
                         'kernel_size >= 3')
        return self.kernel_norm(stacked).view_as(kernels)

    def extra_repr(self) -> str:
        return ', '.join(f'{name}={getattr(self, name)}'
                         for name in ('in_channels', 'kernel_size',
                                      'dilations', 'share_kernels'))


def predict_jointly(modules: Sequence[CaCModule], x: Tensor) -> List[Tensor]:
    """Return ``module.predict_kernels(x)`` of each module, in one pass over X.

    M modules of G sets are M * G sets. They share in_channels and kernel_size.
    """
    projections = zip(*((*m.query(), *m.key()) for m in modules))
    kernels = _predict(modules[0], x, *map(torch.cat, projections))
    parts = kernels.split([module.sets for module in modules], 1)
    return [module.normalise(part) for module, part in zip(modules, parts)]


def _predict(module: CaCModule, x: Tensor, query_weight: Tensor,
             query_bias: Tensor, key_weight: Tensor,
             key_bias: Tensor) -> Tensor:
    """Predict kernels by projections of the module's shape, of any G."""
    c = module.in_channels
    check_feature_map(x, c)
    return predict_kernels(x, query_weight.flatten(1), query_bias,
                           key_weight.view(-1, c, c), key_bias.view(-1, c),
                           module.kernel_size)
