"""The shares of every position in the margin of every position, at once.

By the closed form (:mod:`cac_mmseg.attribution.closed_form`) they are the
product of two matrices, G (positions, G C s s) and what each position adds to
the kernels.
"""
from contextlib import ExitStack
from itertools import count
from typing import Dict, List, NamedTuple, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import check_int
from ..errors import UserError
from .closed_form import class_weights, closed_form, obstacle
from .paths import Recording

MAX_CELLS = 3700  # whose shares, a byte each, make a page of 18 MB


class PairShares(NamedTuple):
    """What the context of each cell contributed to the margin at each cell.

    Cells are squares of the feature map's positions. A margin is the mean over
    a cell, a share the sum over one, in logits, on the CPU in float32.

    ``kernels`` and ``pooled`` (None without that branch) are (h, w, h, w): the
    first two index the cell of the margin, the last two that of the share.
    ``classes`` is (h, w, 2), the two with the largest mean logits; ``margin``
    and ``baseline`` are (h, w), the latter under the mean context. ``cell`` is
    the height and width of a cell as parts of the image's; at the right and
    lower edge cells may be cut.
    """
    kernels: Tensor
    pooled: Optional[Tensor]
    classes: Tensor
    margin: Tensor
    baseline: Tensor
    cell: Tuple[float, float]

    @property
    def total(self) -> Tensor:
        """The shares of both paths, (h, w, h, w)."""
        return self.kernels if self.pooled is None else \
            self.kernels + self.pooled

    @property
    def error(self) -> Tensor:
        """How far shares are from adding up, relative to their mass, (h, w).

        See :attr:`cac_mmseg.attribution.shares.ContextShares.error`.
        """
        mass = self.total.abs().sum((2, 3)).clamp_min(1e-12)
        change = self.margin - self.baseline
        return (self.total.sum((2, 3)) - change).abs() / mass


@torch.no_grad()
def attribute_pairs(recording: Recording,
                    side: Optional[int] = None) -> PairShares:
    """Attribute the margin at each cell to the cells of the image.

    Takes N^2 G C s^2 / side^2 multiply-adds for N positions. The image is read
    in one piece, also by a model that tests in windows.

    Args:
        recording: Of a model with a CaCHead, see
            :func:`cac_mmseg.attribution.paths.record`.
        side: Of a cell, in positions of the feature map. By default the
            smallest that makes no more than 3,700 cells.

    Raises:
        ValueError: If there is no closed form for the model.
    """
    if side is not None:
        check_int('side', side)
    head, paths = recording.model.decode_head, recording.paths
    logits = recording.class_logits(recording.logits)
    reason = obstacle(head, paths)
    if reason:
        raise UserError(f'{reason}: attribute one region at a time (explain '
                        'without --html)')
    h, w = logits.shape[2:]
    if side is None:
        side = next(
            i for i in count(1) if -(-h // i) * -(-w // i) <= MAX_CELLS)
    mean = _cell_means(logits[0], side)  # [k, h, w]
    classes = mean.topk(2, 0).indices
    with ExitStack() as stack:
        for path in paths:
            stack.enter_context(path.at(0.))
        start = recording.class_logits(head(recording.features))
        mean_start = _cell_means(start[0], side)
    margin, baseline = (
        torch.sub(*value.gather(0, classes)) for value in (mean, mean_start))

    weights = class_weights(head, paths)
    found: Dict[str, List[Tensor]] = dict(kernels=[], pooled=[])
    for path, weight in zip(paths, weights):
        first, second = weight[classes.flatten(1)]  # [cells, c]
        gradients = closed_form(path, first - second,
                                lambda maps: _cell_means(maps, side))
        shares = torch.cat([gradients @ part.t() for part in path.terms()], 1)
        shares = shares.unflatten(1, path.x.shape[2:])
        found[path.kind].append(_cell_sums(shares, side).cpu())
    kernels, pooled = (
        sum(maps).unflatten(0, margin.shape) if maps else None
        for maps in found.values())
    if kernels is None:
        kernels = torch.zeros_like(pooled)
    return PairShares(kernels, pooled,
                      classes.permute(1, 2, 0).cpu(), margin.cpu(),
                      baseline.cpu(), (side / h, side / w))


def _cell_sums(maps: Tensor, side: int) -> Tensor:
    """Sum maps (..., H, W) over cells."""
    h, w = maps.shape[-2:]
    padded = F.pad(maps, (0, -w % side, 0, -h % side))
    return F.avg_pool2d(padded, side, divisor_override=1)


def _cell_means(maps: Tensor, side: int) -> Tensor:
    """Average maps (..., H, W) over cells."""
    ones = maps.new_ones(1, *maps.shape[-2:])
    return _cell_sums(maps, side) / _cell_sums(ones, side)
