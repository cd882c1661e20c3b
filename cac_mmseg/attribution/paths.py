"""The paths by which context reaches the logits: means over positions."""
from contextlib import contextmanager
from typing import (Any, ContextManager, Dict, Iterator, List, NamedTuple,
                    Tuple, Type)

import torch
import torch.nn as nn
from mmseg.models import BaseSegmentor
from mmseg.structures import SegDataSample
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from ..baselines import FixedKernelModule, IdentityModule
from ..cac_head import CaCHead
from ..cac_module import CaCModule
from ..errors import UserError
from .context import Watched, kernels_of, observed

# Predicted at a time, of the kernels that each position predicts by itself
MAX_VALUES = 2**24

Seen = Dict[nn.Module, Any]  # what was computed of watched modules


class ContextPath:
    """A value averaged over positions, as a forward of the model had it.

    Kernels are one, the globally pooled branch is another.

    Attributes:
        module: That computes the value.
        in_backbone: Whether it is outside of the decode head.
        x: Feature map whose positions the value averages over, (1, C, h, w).
        start: The value under the mean context: where the normalisation's
            input is its running mean.
        end: The value under the context of the image.
    """
    kind = ''

    def __init__(self, module: nn.Module, in_backbone: bool, x: Tensor,
                 start: Tensor, end: Tensor) -> None:
        self.module, self.in_backbone = module, in_backbone
        self.x, self.start, self.end = x, start, end

    def _replace(self, value: Tensor) -> RemovableHandle:
        """Make forwards use a value in place of ``end``."""
        raise NotImplementedError

    def terms(self) -> Iterator[Tensor]:
        """Yield what positions add to ``end - start``, (positions, values).

        Position by position, in parts that fit into memory. Their sum over
        positions is the difference, passed by the secant of an activation.
        """
        raise NotImplementedError

    def shares(self, gradient: Tensor) -> Tensor:
        """Return the share of each position, (h, w), in float64.

        Args:
            gradient: Of the margin, the mean along the line; as many values
                as ``end``.
        """
        shares = torch.cat([
            part.double() @ gradient.double().flatten()
            for part in self.terms()
        ])
        return shares.view(self.x.shape[2:])

    @contextmanager
    def using(self, value: Tensor) -> Iterator[Tensor]:
        """Make forwards use a value in place of ``end``.

        Yields:
            The value, as a leaf that takes a gradient.
        """
        leaf = value.detach().requires_grad_()
        handle = self._replace(leaf)
        try:
            yield leaf
        finally:
            handle.remove()

    def at(self, alpha: float) -> ContextManager[Tensor]:
        """Make forwards use the value at ``alpha`` on the line."""
        return self.using(self.start + alpha * (self.end - self.start))


class KernelPath(ContextPath):
    """The kernels of a module.

    Args:
        module, in_backbone: See :class:`ContextPath`.
        seen: Of the modules that :meth:`watched` names.

    Raises:
        UserError: If the kernels' norm has no running mean.
    """
    kind = 'kernels'

    def __init__(self, module: CaCModule, in_backbone: bool,
                 seen: Seen) -> None:
        x, end = seen[module]
        start = of_mean_context(module.kernel_norm).view(end.shape[1:3])
        start = start.view(*start.shape, *[1] * (end.dim() - 3))
        super().__init__(module, in_backbone, x, start.expand_as(end), end)

    @staticmethod
    def watched(module: CaCModule) -> Watched:
        """Return what has to be computed while the model runs."""
        return {module: kernels_of}

    def _replace(self, value: Tensor) -> RemovableHandle:
        return self.module.register_forward_pre_hook(lambda _, inputs:
                                                     (inputs[0], value))

    def terms(self) -> Iterator[Tensor]:
        # each position as an image: [n, c, 1, 1]
        positions = self.x[0].flatten(1).t()[..., None, None]
        for part in positions.split(max(1, MAX_VALUES // self.end.numel())):
            kernels = self.module.predict_kernels(part) - self.start
            yield kernels.flatten(1) / len(positions)


class PooledPath(ContextPath):
    """The globally pooled branch of a head, after its activation.

    Position by position it is a mean ahead of the activation, which is passed
    by its secant. Arguments and errors: those of :class:`KernelPath`.
    """
    kind = 'pooled'

    def __init__(self, module: CaCHead, in_backbone: bool, seen: Seen) -> None:
        conv, x = module.pool_conv, seen[module.reduction]
        end = seen[conv]
        # without a norm there is no mean context: features of zeros
        start = of_mean_context(conv.norm) if conv.norm else conv.conv.bias
        self.linear_start = start.view(1, -1, 1, 1).expand_as(end)
        activated = [
            conv.activate(z.clone()) if conv.with_activation else z
            for z in (self.linear_start, end)
        ]
        change = end - self.linear_start
        self.secant = torch.where(change == 0, end > 0,
                                  (activated[1] - activated[0]) / change)
        super().__init__(module, in_backbone, x, *activated)

    @staticmethod
    def watched(module: CaCHead) -> Watched:
        """Return what has to be computed while the model runs."""
        return {
            module.reduction:
            lambda _, inputs: inputs[0],
            module.pool_conv:
            lambda conv, inputs: conv.forward(inputs[0], activate=False)
        }

    def _replace(self, value: Tensor) -> RemovableHandle:
        return self.module.pool_conv.register_forward_hook(lambda *_: value)

    def terms(self) -> Iterator[Tensor]:
        conv = self.module.pool_conv
        values = conv.forward(self.x, activate=False) - self.linear_start
        values = (values * self.secant)[0].flatten(1)  # [c, n]
        yield values.t() / values.shape[1]


class Recording(NamedTuple):
    """One forward of a model on one image, and its paths of context.

    ``logits`` are those of the decode head, (1, output channels, h, w).
    """
    model: BaseSegmentor
    data: dict
    inputs: Tensor
    features: Tuple[Tensor, ...]
    logits: Tensor
    paths: List[ContextPath]

    def class_logits(self, logits: Tensor) -> Tensor:
        """Return a channel for each class.

        A model of one channel predicts class 1 where its logit is above that
        of ``threshold``: this is the logit of class 0.
        """
        if logits.shape[1] > 1:
            return logits
        threshold = torch.tensor(self.model.decode_head.threshold).logit()
        return torch.cat([threshold.to(logits).expand_as(logits), logits], 1)

    @torch.no_grad()
    def predict(self) -> SegDataSample:
        """Return what ``model.test_step`` does, without another forward.

        A model that tests in windows needs one.
        """
        if self.model.test_cfg.get('mode', 'whole') != 'whole':
            return self.model.test_step(self.data)[0]
        data = self.model.data_preprocessor(self.data, False)
        samples = data['data_samples']
        logits = self.model.decode_head.predict_by_feat(
            self.logits, [sample.metainfo for sample in samples])
        return self.model.postprocess_result(logits, samples)[0]


@contextmanager
def recording(model: nn.Module) -> Iterator[List[ContextPath]]:
    """Record the paths of the last forward that runs inside.

    Yields:
        A list that is filled at the end.

    Raises:
        UserError: If the model has no path of context, or one that is no mean
            over positions, or if it is a cascade.
    """
    found = _find_paths(model)
    paths: List[ContextPath] = []
    watched: Watched = {}
    for _, module, kind in found:
        watched.update(kind.watched(module))
    with torch.no_grad(), observed(watched) as calls:
        yield paths
        paths += [
            kind(module, not name.startswith('decode_head'), dict(calls))
            for name, module, kind in found
        ]


def record(model: BaseSegmentor, data: dict) -> Recording:
    """Run a model once, and keep what attribution needs.

    Args:
        model: In evaluation mode.
        data: A batch of one image as a data loader gives it.

    Raises:
        UserError: As :func:`recording`; if the model pads the image.
    """
    inputs = model.data_preprocessor(data, False)['inputs']
    size, full = data['inputs'][0].shape[1:], inputs.shape[2:]
    if size != full:
        raise UserError(
            f'the model pads the image of {tuple(size)} to {tuple(full)} '
            '(data_preprocessor.test_cfg), and positions of the padding have '
            'no place in the image: give images of a size that needs none')
    with recording(model) as paths:
        features = model.extract_feat(inputs)
        logits = model.decode_head(features)
    return Recording(model, data, inputs, features, logits, paths)


def _find_paths(
        model: nn.Module) -> List[Tuple[str, nn.Module, Type[ContextPath]]]:
    """Return the modules of paths, with names and what to make of them."""
    if isinstance(getattr(model, 'decode_head', None), nn.ModuleList):
        raise UserError('the model is a cascade of decode heads: attribution '
                        'needs one head')
    found: List[Tuple[str, nn.Module, Type[ContextPath]]] = []
    for name, module in model.named_modules():
        if name.startswith('auxiliary_head'):
            continue  # it does not predict
        if isinstance(module, CaCModule):
            if not isinstance(module, FixedKernelModule):
                found.append((name, module, KernelPath))
        elif isinstance(module, CaCHead):
            for part in module.cac_modules:
                if not isinstance(part, (CaCModule, IdentityModule)):
                    raise UserError(
                        f'{type(part).__name__} gives positions no share: its '
                        'weights are no affine function of a mean over them')
            if module.global_pool:
                found.append((name, module, PooledPath))
    if not found:
        raise UserError('the model has no context to attribute: neither a '
                        'CaCModule nor a globally pooled branch of a CaCHead')
    return found


def of_mean_context(norm: nn.Module) -> Tensor:
    """Return what BN in evaluation maps its running mean to: its bias.

    Raises:
        ValueError: For a norm that has no running mean.
    """
    if not isinstance(norm, _BatchNorm) or norm.running_mean is None:
        raise UserError(
            f'{type(norm).__name__} normalises by the statistics of the image '
            'itself, so no position has a share of its own: attribution needs '
            'BN or SyncBN')
    return norm.bias if norm.affine else torch.zeros_like(norm.running_mean)
