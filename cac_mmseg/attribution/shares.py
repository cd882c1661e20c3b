r"""Where the context of a prediction came from: an exact share per position.

Predicted kernels average over positions, and batch normalisation is affine in
evaluation, so each position's contribution to each kernel is exact. With the
queries Q, the keys K, the scale a and the running mean of the normalisation,

.. math:: D_{g,c,t} - D^0_{g,c} = \frac{1}{N} \sum_n a_{g,c}
          (Q_{g,t,n} K_{g,c,n} - \mu_{g,c})

The baseline kernels :math:`D^0` are batch norm's bias, its output at the
running mean: the "mean context". The margin m, the logit of a class minus that
of another, averaged over a region, is a function of the kernels, with the
features X held fixed. Integrated gradients
(Sundararajan et al., 2017) along the straight line from :math:`D^0` to D,

.. math:: G = \int_0^1 \frac{\partial m}{\partial D}
          (D^0 + \alpha (D - D^0)) d\alpha, \quad
          M_n = \frac{1}{N} \sum_{g,c,t} G_{g,c,t} a_{g,c}
          (Q_{g,t,n} K_{g,c,n} - \mu_{g,c})

give the share :math:`M_n` of position n, and
:math:`\sum_n M_n = m(D) - m(D^0)`, what context changed. G is multiplied with
what position n alone would predict, minus :math:`D^0`.

The globally pooled branch is a second mean over positions, before a ReLU that
is passed by its secant. The classifier adds both paths, so the shares of one
do not depend on the other, and no order has to be chosen. In a head the
integral has a closed form; behind a module in the backbone it is taken in
steps.
"""
from contextlib import ExitStack
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from ..cac_head import CaCHead
from ..checks import check_int
from ..errors import UserError
from .closed_form import class_weights, closed_form, obstacle
from .paths import ContextPath, Recording

STEPS = 16
# the margin at a place on the line, and the points that it depends on
Margin = Callable[[float], Tuple[Tensor, List[Tensor]]]


class ContextShares(NamedTuple):
    """What each position's context contributed to a margin, in logits.

    ``kernels`` and ``pooled`` are maps (h, w) of the feature map's positions,
    on the CPU in float64: the shares that went through the predicted kernels
    and through the pooled branch (None without one). ``margin`` is that of
    ``classes[0]`` over ``classes[1]``, and ``baseline`` what it would be under
    the mean context.
    """
    kernels: Tensor
    pooled: Optional[Tensor]
    classes: Tuple[int, int]
    margin: float
    baseline: float

    @property
    def total(self) -> Tensor:
        """The shares of both paths, (h, w)."""
        return self.kernels if self.pooled is None else \
            self.kernels + self.pooled

    @property
    def change(self) -> float:
        """What context changed: the margin less that of the mean context."""
        return self.margin - self.baseline

    @property
    def error(self) -> float:
        """How far the shares are from adding up to :attr:`change`.

        Relative to the sum of their absolute values. Near 0, unless a module
        predicts kernels by something else than a mean over positions.
        """
        mass = self.total.abs().sum().item()
        return abs(self.total.sum().item() - self.change) / max(mass, 1e-12)


def attribute_context(recording: Recording,
                      region: Tensor,
                      classes: Optional[Tuple[int, Optional[int]]] = None,
                      steps: int = STEPS) -> ContextShares:
    """Attribute the margin of a class in a region to positions of context.

    The image is read in one piece, also by a model that tests in windows.

    Args:
        recording: See :func:`cac_mmseg.attribution.paths.record`.
        region: Where the margin is averaged, (H, W), bool, of the size of
            the image that the pipeline gives (``img_shape``).
        classes: The class, and the one it is compared with (None: the best of
            the others); by default the two with the largest mean logits.
        steps: Nodes of Gauss-Legendre quadrature along the line, for models
            without a closed form (:mod:`cac_mmseg.attribution.closed_form`).

    Raises:
        ValueError: If the region is empty or of another size, or a class does
            not exist.
    """
    check_int('steps', steps)
    model, paths = recording.model, recording.paths
    logits = recording.class_logits(recording.logits)

    def forward() -> Tensor:
        if any(path.in_backbone for path in paths):
            found = model(recording.inputs, mode='tensor')
        else:
            found = model.decode_head(recording.features)
        return recording.class_logits(found)

    weights = _region_weights(region, recording)
    first, second = _choose(classes, (logits * weights).sum((0, 2, 3)))

    def margin_of(logits: Tensor) -> Tensor:
        differences = (logits[:, first] - logits[:, second]).double()
        return (differences * weights[:, 0]).sum()

    def margin(alpha: float) -> Tuple[Tensor, List[Tensor]]:
        with ExitStack() as stack:
            points = [stack.enter_context(path.at(alpha)) for path in paths]
            return margin_of(forward()), points

    if obstacle(model.decode_head, paths) is None:
        gradients = _exact(paths, model.decode_head, (first, second),
                           weights[0])
    else:
        gradients = _integrate(margin, paths, steps)
    with torch.no_grad():
        ends = margin_of(logits).item(), margin(0.)[0].item()
        maps: Dict[str, List[Tensor]] = dict(kernels=[], pooled=[])
        for path, gradient in zip(paths, gradients):
            maps[path.kind].append(path.shares(gradient).cpu())
    size = max((m.shape for found in maps.values() for m in found),
               key=lambda shape: shape[0] * shape[1])
    kernels, pooled = (
        sum(resize_shares(m, size) for m in found) if found else None
        for found in maps.values())
    if kernels is None:
        kernels = torch.zeros(size, dtype=torch.float64)
    return ContextShares(kernels, pooled, (first, second), *ends)


@torch.no_grad()
def _exact(paths: Sequence[ContextPath], head: CaCHead,
           classes: Tuple[int, int], weights: Tensor) -> List[Tensor]:
    """Return each path's mean gradient along the line, by the closed form."""

    def reduce(maps: Tensor) -> Tensor:
        return (maps * weights).sum((1, 2))[:, None]

    gradients = []
    for path, of_class in zip(paths, class_weights(head, paths)):
        first, second = of_class[[*classes]]
        gradients.append(closed_form(path, (first - second)[None], reduce))
    return gradients


def _integrate(margin: Margin, paths: Sequence[ContextPath],
               steps: int) -> List[Tensor]:
    """Return each path's mean gradient along the line, by Gauss-Legendre."""
    gradients: List[Tensor] = [torch.zeros(())] * len(paths)
    for node, weight in zip(*leggauss(steps)):
        with torch.enable_grad():  # from [-1, 1] to [0, 1]
            value, points = margin((1 + node) / 2)
            found = torch.autograd.grad(value, points)
        gradients = [
            total + weight / 2 * gradient.double()
            for total, gradient in zip(gradients, found)
        ]
    return gradients


def _region_weights(region: Tensor, recording: Recording) -> Tensor:
    """Weigh positions so that their sum is the mean over the region.

    Upsampling the logits is linear: this is its transpose. (1, 1, h, w).
    """
    logits, size = recording.logits, recording.inputs.shape[2:]
    if region.shape != size:
        raise UserError(f'region must be of the size {tuple(size)} that the '
                        f'model reads, got {tuple(region.shape)}')
    if not region.any():
        raise UserError('region must hold at least one position')
    probe = logits.new_zeros(1, 1, *logits.shape[2:]).double()
    with torch.enable_grad():
        probe.requires_grad_()
        upsampled = F.interpolate(
            probe,
            size=size,
            mode='bilinear',
            align_corners=recording.model.align_corners)
        mean = upsampled[0, 0][region.to(logits.device)].mean()
    return torch.autograd.grad(mean, probe)[0]


def _choose(classes: Optional[Tuple[int, Optional[int]]],
            means: Tensor) -> Tuple[int, int]:
    """Complete the classes by those with the largest mean logits."""
    order = means.argsort(descending=True).tolist()
    first, second = classes or (order[0], None)
    if second is None:
        second = next(i for i in order if i != first)
    for index in (first, second):
        if not 0 <= index < len(order):
            raise UserError(f'classes must be 0 to {len(order) - 1}, got '
                            f'{index}')
    if first == second:
        raise UserError(f'classes must be two, got {first} twice')
    return first, second


def resize_shares(shares: Tensor, size: Tuple[int, int]) -> Tensor:
    """Divide each position's share among the positions it covers.

    Args:
        shares: (h, w).
        size: H and W of the other grid over the same image.

    Returns:
        (H, W); a position gets of each share the part of its area that it
        covers, so the sum stays.
    """
    rows, columns = (_overlaps(old, new).to(shares)
                     for old, new in zip(shares.shape, size))
    return rows @ shares @ columns.t()


def _overlaps(old: int, new: int) -> Tensor:
    """Return the part of each of ``old`` intervals in each of ``new``.

    Both divide the same line evenly: (new, old), columns add up to 1.
    """
    start = torch.arange(old, dtype=torch.float64)
    edge = torch.arange(new + 1, dtype=torch.float64)[:, None] * old / new
    return (torch.minimum(start + 1, edge[1:]) -
            torch.maximum(start, edge[:-1])).clamp_min(0)
