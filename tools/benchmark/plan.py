"""Sizes of everything that is measured in one run."""
from dataclasses import dataclass
from typing import Sequence, Tuple

from .heads import HEADS


@dataclass(frozen=True)
class Plan:
    """Sizes of everything that is measured.

    Args:
        checked: Feature map of the comparison with float64: several blocks
            and planes for each program of the kernels.
        channels: C of the re-weighting.
        maps: Batch, height and width.
        seconds: That a function is repeated for.
        heads: Batch, and size of the feature map.
        models: The same, for backbones with heads.
        depths: Of the backbones.
        rounds: Of heads and models.
        names: Heads to compare alone.
        in_models: Heads to compare behind a backbone.
    """
    checked: Tuple[int, int, int, int]
    channels: int
    maps: Sequence[Tuple[int, int, int]]
    seconds: float
    heads: Tuple[int, Tuple[int, int]]
    models: Tuple[int, Tuple[int, int]]
    depths: Sequence[int]
    rounds: int
    names: Sequence[str]
    in_models: Sequence[str]


FULL = Plan(
    checked=(2, 301, 131, 133),
    channels=512,
    maps=[(8, 64, 128), (2, 64, 128), (8, 60, 60)],
    seconds=0.05,
    heads=(2, (64, 128)),
    models=(2, (64, 128)),
    depths=(50, 101),
    rounds=10,
    names=tuple(HEADS),
    in_models=('FCNHead', 'PSPHead', 'DMHead', 'ASPPHead', 'OCRHead',
               'CaCHead'))
TINY = Plan(
    checked=(2, 24, 13, 17),
    channels=16,
    maps=[(2, 8, 12), (1, 7, 5)],
    seconds=0.001,
    heads=(2, (4, 4)),
    models=(2, (4, 4)),
    depths=(50, ),
    rounds=1,
    names=('CaCHead', 'OCRHead'),
    in_models=('CaCHead', ))
