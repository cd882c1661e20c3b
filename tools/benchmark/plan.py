"""Sizes of everything that is measured in one run."""
from dataclasses import dataclass
from typing import Sequence, Tuple

import torch

from .heads import HEADS


@dataclass(frozen=True)
class Plan:
    """Sizes of everything that is measured."""
    # feature map that is compared with float64: several blocks and planes for
    # each program of the kernels
    checked: Tuple[int, int, int, int] = (2, 301, 131, 133)
    channels: int = 512  # of the operations
    # of the operations: batch, height and width
    maps: Sequence[Tuple[int, int,
                         int]] = ((8, 64, 128), (2, 64, 128), (8, 60, 60))
    seconds: float = 0.005  # that an operation is repeated for in a round
    rounds: int = 10
    batch: int = 2  # of heads
    size: Tuple[int, int] = (64, 128)  # of their feature map
    dtype: torch.dtype = torch.bfloat16
    names: Sequence[str] = tuple(HEADS)
    depths: Sequence[int] = (50, 101)  # of backbones
    in_models: Sequence[str] = ('FCNHead', 'PSPHead', 'DMHead', 'ASPPHead',
                                'OCRHead', 'CaCHead')


FULL = Plan()
TINY = Plan(
    checked=(2, 24, 13, 17),
    channels=16,
    maps=((2, 8, 12), (1, 7, 5)),
    seconds=0.,
    rounds=1,
    size=(4, 4),
    dtype=torch.float32,  # CPUs may be slow in others
    names=('CaCHead', 'OCRHead'),
    depths=(50, ),
    in_models=('CaCHead', ))
