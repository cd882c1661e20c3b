r"""The integral of a head's gradient along the line, without steps.

In a head the margin is a sum over positions p of :math:`v_c X_{c,p}
\sum_i \sigma(S_{i,c,p})`, with v the difference of two classes' weights, and
the responses S are linear in the kernels D. So along the straight line of
:mod:`cac_mmseg.attribution.shares` each sigmoid goes by its secant:

.. math:: G^p_{i,c,t} = v_c X_{c,p} X_{c,p + r_i t}
          \frac{\sigma(S_{i,c,p}) - \sigma(S^0_{i,c,p})}
               {S_{i,c,p} - S^0_{i,c,p}}
"""
from typing import Callable, List, Optional, Sequence

import torch
import torch.nn as nn
from torch import Tensor

from ..cac_head import CaCHead
from ..cac_module import CaCModule
from ..intact import has_plain_classifier, inherits
from ..ops.decomposed import shifted
from .paths import ContextPath, KernelPath


def obstacle(head: nn.Module, paths: Sequence[ContextPath]) -> Optional[str]:
    """Return what keeps a margin from being such a sum, or None."""
    for path in paths:
        name = type(path.module).__name__
        if path.in_backbone:
            return f'what follows {name} in the backbone is not linear'
        if isinstance(path, KernelPath) and \
                not inherits(path.module, CaCModule, 'forward'):
            return f'{name} does not re-weight by depth-wise kernels'
    if not (inherits(head, CaCHead, 'forward') and has_plain_classifier(head)):
        return f'{type(head).__name__} does not classify as CaCHead does'
    return None


def class_weights(head: CaCHead, paths: Sequence[ContextPath]) -> List[Tensor]:
    """Return the weights (classes, C) by which each path reaches the logits.

    The classifier reads the modules' maps side by side, then the pooled one.
    """
    weight = head.conv_seg.weight.flatten(1)
    if len(weight) == 1:  # the logit of class 0 is that of the threshold
        weight = torch.cat([torch.zeros_like(weight), weight])
    parts = weight.split(head.channels, 1)
    modules = [*head.cac_modules]
    return [
        parts[modules.index(path.module)]
        if isinstance(path, KernelPath) else parts[-1] for path in paths
    ]


def closed_form(path: ContextPath, differences: Tensor,
                reduce: Callable[[Tensor], Tensor]) -> Tensor:
    """Return G of margins, (margins, values of the path).

    Args:
        path: After it was recorded.
        differences: Of the weights of two classes, v, (margins, C).
        reduce: Averages maps (C, H, W) over the positions of each margin,
            (C, ...).
    """
    if not isinstance(path, KernelPath):
        return differences  # linear but for the activation, in its terms
    module, x = path.module, path.x[0].double()
    # [g, c, t]
    start, end = (k[0].double().flatten(2) for k in (path.start, path.end))
    gradients = path.x.new_zeros(len(differences), *start.shape)
    for i, dilation in enumerate(module.dilations):
        g = i % module.sets
        shifts = [*shifted(x, module.kernel_size, dilation)]
        responses = [
            sum(kernel[:, None, None] * shift
                for kernel, shift in zip(kernels[g].t(), shifts))
            for kernels in (start, end)
        ]
        weights = x * _secant(*responses)
        for t, shift in enumerate(shifts):
            means = reduce(weights * shift).flatten(1).t()
            gradients[:, g, :, t] += differences * means
    return gradients.flatten(1)


def _secant(start: Tensor, end: Tensor) -> Tensor:
    """Return the slope of the sigmoid between two points, in float64."""
    near = (end - start).abs() < 1e-5  # where the quotient loses digits
    middle = ((start + end) / 2).sigmoid()
    quotient = (end.sigmoid() - start.sigmoid()) / (end - start)
    return torch.where(near, middle * (1 - middle), quotient)
