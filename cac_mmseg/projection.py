"""A linear map whose product is computed elsewhere."""
from typing import Tuple

import torch
import torch.nn as nn
from torch import Tensor


class Projection(nn.Module):
    """Weight and bias of a 1x1 convolution that never runs as one.

    Its product with X is folded into a larger one. Calling it returns both,
    (out, in, 1, 1) and (out,), so that hooks fire and what is built on them
    (pruning, spectral norm) works. Not a ``Conv2d``: tools would replace that
    by a layer that never runs.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(
            torch.empty(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.empty(out_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as ``nn.Conv2d`` does."""
        bound = self.weight.shape[1]**-0.5
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self) -> Tuple[Tensor, Tensor]:
        return self.weight, self.bias
