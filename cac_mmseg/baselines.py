"""The re-weightings that the paper argues against, for its ablations, and a
control with fixed kernels.

Each takes :class:`CaCModule`'s place in a :class:`CaCHead`:
``reweighting='GAPKernelModule'``. Source: what CaC-Net, ECCV 2020, compares
itself with; widths, normalisation and scale are ours.
"""
import math
from typing import Optional, Tuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.models.utils import SELayer
from mmseg.registry import MODELS
from mmseg.utils import OptMultiConfig
from torch import Tensor

from .cac_module import CaCModule
from .checks import check_feature_map, check_int

# 1 GiB in float32, and four times that in training with Adam
MAX_PARAMETERS = 2**28


class _PooledKernelModule(CaCModule):
    """Predicts kernels of ``shape`` from the pooled feature by an FC layer."""

    def _build_predictor(self) -> None:
        parameters = (self.in_channels + 1) * math.prod(self.shape)
        # on the meta device, which allocates nothing, any size can be counted
        if parameters > MAX_PARAMETERS and not torch.empty(0).is_meta:
            raise ValueError(
                f'{type(self).__name__} with in_channels={self.in_channels}, '
                f'kernel_size={self.kernel_size} and {self.sets} kernel sets '
                f'needs {parameters:,} parameters, more than the '
                f'{MAX_PARAMETERS:,} that are allowed: reduce in_channels (of '
                'a CaCHead: channels)')
        self.fc = nn.Linear(self.in_channels, math.prod(self.shape))

    @property
    def shape(self) -> Tuple[int, ...]:
        """Shape of the kernels of an image, (G, C, ..., s, s)."""
        raise NotImplementedError

    def predict_kernels(self, x: Tensor) -> Tensor:
        """Predict the normalised kernels, (B, G, C, ..., s, s), for X."""
        check_feature_map(x, self.in_channels)
        kernels = self.fc(x.mean((2, 3)))
        return self.normalise(kernels.unflatten(1, self.shape))


@MODELS.register_module()
class GAPKernelModule(_PooledKernelModule):
    r"""Depth-wise kernels from globally pooled features.

    .. math:: D = BN(W \bar X + b), \quad
              Y = X \odot \sum_i \sigma(X *_{r_i} D_i)

    :class:`CaCModule`, but all spatial information is lost before the kernels
    are made. Arguments and errors: CaCModule's; the fully connected layer has
    (C + 1) * G * C * s * s parameters.
    """

    @property
    def shape(self) -> Tuple[int, ...]:
        return (self.sets, self.in_channels, *[self.kernel_size] * 2)


@MODELS.register_module()
class FixedKernelModule(CaCModule):
    r"""Depth-wise kernels that are learned, and the same for every image.

    .. math:: D = BN(P), \quad Y = X \odot \sum_i \sigma(X *_{r_i} D_i)

    :class:`CaCModule` without prediction: the difference between the two is
    what context-adaptive kernels bring. Our control, not the paper's.
    Arguments and errors: CaCModule's.
    """

    def _build_predictor(self) -> None:
        s = self.kernel_size
        self.kernels = nn.Parameter(
            torch.empty(self.sets, self.in_channels, s, s))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the kernels; normalisation follows, so their scale is free."""
        nn.init.normal_(self.kernels)

    def predict_kernels(self, x: Tensor) -> Tensor:
        """Return the normalised kernels, (B, G, C, s, s), the same B times."""
        check_feature_map(x, self.in_channels)
        return self.normalise(self.kernels.expand(len(x), -1, -1, -1, -1))


@MODELS.register_module()
class FCKernelModule(_PooledKernelModule):
    r"""Full kernels, s x s x C for each channel, from pooled features.

    .. math:: D = BN(W \bar X + b) / \sqrt{C}, \quad
              Y = X \odot \sum_i \sigma(X \star_{r_i} D_i)

    with an ordinary convolution :math:`\star`; the root keeps its sum over C
    channels at the scale of a depth-wise one. The fully connected layer has
    (C + 1) * G * C * C * s * s parameters, 3.6e9 at C = 512 with three sets:
    sizes above 2**28 are refused. Arguments: CaCModule's.

    Raises:
        ValueError: With the number of parameters, where it is too large.
        TypeError, ValueError: naming the argument that does not fit.
    """

    @property
    def shape(self) -> Tuple[int, ...]:
        return (self.sets, *[self.in_channels] * 2, *[self.kernel_size] * 2)

    def forward(self, x: Tensor, kernels: Optional[Tensor] = None) -> Tensor:
        """Map X (B, C, H, W) to Y of the same shape."""
        if kernels is None:
            kernels = self.predict_kernels(x)
        kernels = kernels * self.in_channels**-0.5
        b, c, h, w = x.shape
        s = self.kernel_size
        # images are moved beside their channels: one group per image
        grouped = x.reshape(1, b * c, h, w)
        weights = [
            F.conv2d(
                grouped,
                kernels[:, i % self.sets].reshape(b * c, c, s, s),
                padding=dilation * (s // 2),
                dilation=dilation,
                groups=b).sigmoid()
            for i, dilation in enumerate(self.dilations)
        ]
        return x * torch.stack(weights).sum(0).view(b, c, h, w)


@MODELS.register_module()
class ChannelAttentionModule(BaseModule):
    r"""One weight per channel, the same for all positions.

    .. math:: Y = X \odot \sigma(W_2 ReLU(W_1 \bar X))

    Squeeze-and-excitation (arXiv 1709.01507), by mmseg's SELayer.

    Args:
        in_channels: C, of the input and of the output.
        init_cfg: mmengine's.
    """

    def __init__(self,
                 in_channels: int,
                 *,
                 init_cfg: OptMultiConfig = None) -> None:
        super().__init__(init_cfg)
        self.in_channels = check_int('in_channels', in_channels)
        self.attention = SELayer(
            in_channels,
            ratio=16,
            act_cfg=(dict(type='ReLU'), dict(type='Sigmoid')))

    def forward(self, x: Tensor) -> Tensor:
        """Map X (B, C, H, W) to Y of the same shape."""
        check_feature_map(x, self.in_channels)
        return self.attention(x)


@MODELS.register_module()
class IdentityModule(BaseModule):
    """No re-weighting: in a CaCHead without pooling, an FCN head.

    Args:
        in_channels: C, of the input and of the output.
        init_cfg: mmengine's.
    """

    def __init__(self,
                 in_channels: int,
                 *,
                 init_cfg: OptMultiConfig = None) -> None:
        super().__init__(init_cfg)
        self.in_channels = check_int('in_channels', in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return X (B, C, H, W)."""
        return x
