r"""Where the context of a prediction came from: an exact share per position.

Predicted kernels are a mean over positions, and batch normalisation is affine
in evaluation, so each position has a known share in each kernel. With the
queries Q, the keys K, and the scale and running mean of the normalisation,

.. math:: D_{g,c,t} - D^0_{g,c} = \frac{1}{N} \sum_n a_{g,c}
          (Q_{g,t,n} K_{g,c,n} - \mu_{g,c})

:math:`D^0`, the bias of the normalisation, are the kernels of the mean
context. The margin m of a class over another, averaged over a region, is a
function of the kernels, with the features X held. Integrated gradients
(Sundararajan et al., 2017) along the straight line from :math:`D^0` to D,

.. math:: G = \int_0^1 \frac{\partial m}{\partial D}
          (D^0 + \alpha (D - D^0)) d\alpha, \quad
          M_n = \frac{1}{N} \sum_{g,c,t} G_{g,c,t} a_{g,c}
          (Q_{g,t,n} K_{g,c,n} - \mu_{g,c})

give the share :math:`M_n` of position n, and
:math:`\sum_n M_n = m(D) - m(D^0)`, what context changed.

The globally pooled branch is a second mean over positions, ahead of a ReLU
that is passed by its secant. The classifier adds what comes of both paths, so
the shares of one do not depend on the other, and no order has to be chosen.
"""
from contextlib import ExitStack, contextmanager
from typing import (ContextManager, Dict, Iterator, List, NamedTuple, Optional,
                    Tuple)

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmseg.models import BaseSegmentor
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from ..baselines import FixedKernelModule, IdentityModule
from ..cac_head import CaCHead
from ..cac_module import CaCModule
from ..utils.checks import check_int

STEPS = 32


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

        Relative to the sum of their absolute values.
        """
        mass = self.total.abs().sum().item()
        return abs(self.total.sum().item() - self.change) / max(mass, 1e-12)


def attribute_context(model: BaseSegmentor,
                      data: dict,
                      region: Tensor,
                      classes: Optional[Tuple[int, Optional[int]]] = None,
                      steps: int = STEPS) -> ContextShares:
    """Attribute the margin of a class in a region to positions of context.

    The image is read in one piece, also by a model that tests in windows.

    Args:
        model: In evaluation mode.
        data: A batch of one image as a data loader gives it.
        region: Where the margin is averaged, (H, W), bool, of the size that
            the model reads (``img_shape``).
        classes: The class, and the one it is compared with (None: the best of
            the others); by default the two with the largest mean logits.
        steps: Of the midpoint rule along the line.

    Raises:
        ValueError: If the model has no path that is a mean over positions, or
            a normalisation that is not affine in evaluation; if the region is
            empty or of another size; if a class does not exist.
    """
    check_int('steps', steps)
    inputs = model.data_preprocessor(data, False)['inputs']
    paths = _find_paths(model)
    with torch.no_grad(), ExitStack() as stack:
        for path in paths:
            stack.enter_context(path.recording())
        features = model.extract_feat(inputs)
        logits = model.decode_head(features)

    def forward() -> Tensor:
        if any(path.in_backbone for path in paths):
            return model(inputs, mode='tensor')
        return model.decode_head(features)

    weights = _region_weights(region, logits, model, inputs)
    first, second = _choose(classes, (logits * weights).sum((0, 2, 3)))

    def margin(alpha: float) -> Tensor:
        with ExitStack() as stack:
            for path in paths:
                stack.enter_context(path.at(alpha))
            logits = forward()
        logits = (logits[:, first] - logits[:, second]).double()
        return (logits * weights[:, 0]).sum()

    gradients: List[Tensor] = [torch.zeros(())] * len(paths)
    for step in range(steps):
        with torch.enable_grad():
            value = margin((step + 0.5) / steps)
            found = torch.autograd.grad(value, [path.point for path in paths])
        gradients = [
            total + gradient.double() / steps
            for total, gradient in zip(gradients, found)
        ]
    with torch.no_grad():
        ends = [margin(alpha).item() for alpha in (1., 0.)]
        maps: Dict[str, List[Tensor]] = dict(kernels=[], pooled=[])
        for path, gradient in zip(paths, gradients):
            maps[path.kind].append(path.shares(gradient))
    size = max((m.shape for found in maps.values() for m in found),
               key=lambda shape: shape[0] * shape[1])
    kernels, pooled = (
        sum(_resize(m, size) for m in found) if found else None
        for found in maps.values())
    if kernels is None:
        kernels = torch.zeros(size, dtype=torch.float64)
    return ContextShares(kernels, pooled, (first, second), *ends)


class _Path:
    """A way on which context reaches the logits: a mean over positions.

    ``start`` and ``end`` are its values under the mean context and under the
    image's, ``point`` the one on the line between them that a forward used.
    """
    kind = ''

    def __init__(self, name: str, module: nn.Module) -> None:
        self.module = module
        self.in_backbone = not name.startswith('decode_head')
        self.start = self.end = self.point = torch.zeros(())

    def recording(self) -> ContextManager:
        """Record ``start`` and ``end`` in a forward of the model."""
        raise NotImplementedError

    def _use_point(self) -> RemovableHandle:
        """Let the next forward use ``point``."""
        raise NotImplementedError

    def shares(self, gradient: Tensor) -> Tensor:
        """Return the share of each position, (h, w), in float64.

        Args:
            gradient: Of the margin along the line, shaped as ``point``.
        """
        raise NotImplementedError

    @contextmanager
    def at(self, alpha: float) -> Iterator[None]:
        """Run a forward with the value at ``alpha`` on the line."""
        point = self.start + alpha * (self.end - self.start)
        self.point = point.detach().requires_grad_()
        handle = self._use_point()
        try:
            yield
        finally:
            handle.remove()


class _KernelPath(_Path):
    """The kernels of a module."""
    kind = 'kernels'

    @contextmanager
    def recording(self) -> Iterator[None]:

        def record(module: CaCModule, inputs: Tuple[Tensor, ...]) -> None:
            # a head passes kernels that it predicted for several modules
            self.x, kernels = (*inputs, None)[:2]
            self.end = module.predict_kernels(
                self.x) if kernels is None else kernels
            bias = _affine(module.kernel_norm)[2].view(self.end.shape[1:3])
            bias = bias.view(*bias.shape, *[1] * (self.end.dim() - 3))
            self.start = bias.expand_as(self.end)

        handle = self.module.register_forward_pre_hook(record)
        try:
            yield
        finally:
            handle.remove()

    def _use_point(self) -> RemovableHandle:
        return self.module.register_forward_pre_hook(lambda _, inputs:
                                                     (inputs[0], self.point))

    def shares(self, gradient: Tensor) -> Tensor:
        module, (scale, mean,
                 _) = self.module, _affine(self.module.kernel_norm)
        c = module.in_channels
        x = self.x[0].double().flatten(1)  # [c, n]
        # by set and channel, as the normalisation is
        gradient = gradient[0].flatten(0, 1).flatten(1) * scale[:, None]
        constant = (gradient * mean[:, None]).sum()
        if hasattr(module, 'fc'):  # kernels from the pooled feature
            fc = module.fc
            values = gradient.flatten() @ fc.weight.double() @ x
            values = values + gradient.flatten() @ fc.bias.double()
        else:
            query_weight, query_bias = (t.double() for t in module.query())
            key_weight, key_bias = (t.double() for t in module.key())
            gradient = gradient.view(-1, c, gradient.shape[1])  # [g, c, t]
            # sum_c G_c K_c is linear in X: the key map is never made
            weight = torch.einsum('gct,gcd->gtd', gradient,
                                  key_weight.view(-1, c, c)).flatten(0, 1)
            bias = torch.einsum('gct,gc->gt', gradient, key_bias.view(-1, c))
            queries = query_weight.flatten(1) @ x + query_bias[:, None]
            keys = weight @ x + bias.flatten()[:, None]
            values = (queries * keys).sum(0)
        return ((values - constant) / x.shape[1]).view(self.x.shape[2:])


class _PooledPath(_Path):
    """The globally pooled branch of a head, after its activation."""
    kind = 'pooled'

    @contextmanager
    def recording(self) -> Iterator[None]:
        conv = self.module.pool_conv

        def record_features(_: nn.Module, inputs: Tuple[Tensor, ...]) -> None:
            self.x, = inputs

        def record(_: nn.Module, inputs: Tuple[Tensor, ...]) -> None:
            end = conv.forward(inputs[0], activate=False)
            start = _affine(conv.norm)[2] if conv.norm else conv.conv.bias
            start = start.view(1, -1, 1, 1).to(end)
            self.start, self.end = (
                conv.activate(z.clone()) if conv.with_activation else z
                for z in (start, end))
            change = end - start
            self.secant = torch.where(change == 0, end > 0,
                                      (self.end - self.start) / change)

        handles = [
            self.module.reduction.register_forward_pre_hook(record_features),
            conv.register_forward_pre_hook(record)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _use_point(self) -> RemovableHandle:
        return self.module.pool_conv.register_forward_hook(
            lambda *_: self.point)

    def shares(self, gradient: Tensor) -> Tensor:
        conv = self.module.pool_conv
        gradient, constant = (gradient * self.secant).flatten(), 0.
        if conv.norm:
            scale, mean, _ = _affine(conv.norm)
            if conv.conv.bias is not None:
                mean = mean - conv.conv.bias.double()
            gradient = gradient * scale
            constant = (gradient * mean).sum()
        x = self.x[0].double().flatten(1)  # [c, n]
        values = gradient @ conv.conv.weight.double().flatten(1) @ x
        return ((values - constant) / x.shape[1]).view(self.x.shape[2:])


def _find_paths(model: nn.Module) -> List[_Path]:
    """Find how context reaches the logits, or say why that is not known."""
    paths: List[_Path] = []
    for name, module in model.named_modules():
        if isinstance(module, CaCModule):
            if not isinstance(module, FixedKernelModule):
                _affine(module.kernel_norm)
                paths.append(_KernelPath(name, module))
        elif isinstance(module, CaCHead):
            for part in module.cac_modules:
                if not isinstance(part, (CaCModule, IdentityModule)):
                    raise ValueError(
                        f'{type(part).__name__} gives positions no share: its '
                        'weights are no affine function of a mean over them')
            if module.global_pool:
                if module.pool_conv.norm:
                    _affine(module.pool_conv.norm)
                paths.append(_PooledPath(name, module))
    if not paths:
        raise ValueError('the model has no context to attribute: neither a '
                         'CaCModule nor a globally pooled branch of a CaCHead')
    return paths


def _affine(norm: nn.Module) -> Tuple[Tensor, Tensor, Tensor]:
    """Return scale, running mean and bias of a BN in evaluation, float64."""
    if not isinstance(norm, _BatchNorm) or norm.running_mean is None:
        raise ValueError(
            f'{type(norm).__name__} normalises by the statistics of the image '
            'itself, so no position has a share of its own: attribution needs '
            'BN or SyncBN')
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = (variance + norm.eps).rsqrt()
    if not norm.affine:
        return scale, mean, torch.zeros_like(mean)
    return scale * norm.weight.double(), mean, norm.bias.double()


def _region_weights(region: Tensor, logits: Tensor, model: BaseSegmentor,
                    inputs: Tensor) -> Tensor:
    """Weigh positions so that their sum is the mean over the region.

    Upsampling the logits is linear: this is its transpose. (1, 1, h, w).
    """
    size = inputs.shape[2:]
    if region.shape != size:
        raise ValueError(f'region must be of the size {tuple(size)} that the '
                         f'model reads, got {tuple(region.shape)}')
    if not region.any():
        raise ValueError('region must hold at least one position')
    probe = logits.new_zeros(1, 1, *logits.shape[2:]).double()
    with torch.enable_grad():
        probe.requires_grad_()
        upsampled = F.interpolate(
            probe,
            size=size,
            mode='bilinear',
            align_corners=model.align_corners)
        mean = upsampled[0, 0][region.to(inputs.device)].mean()
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
            raise ValueError(f'classes must be 0 to {len(order) - 1}, got '
                             f'{index}')
    if first == second:
        raise ValueError(f'classes must be two, got {first} twice')
    return first, second


def _resize(shares: Tensor, size: Tuple[int, int]) -> Tensor:
    """Bring a map to another size; its sum stays."""
    if shares.shape == size:
        return shares
    resized = F.interpolate(shares[None, None], size=size, mode='area')[0, 0]
    return resized + (shares.sum() - resized.sum()) / resized.numel()
