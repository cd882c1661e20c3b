"""A model rewritten for inference: the same results, by operators that every
runtime has.

Our custom operators and their decomposed form serve training: they have
tensors of rank 6, products with a batch of weights, and shapes computed from
shapes, each of which some runtime refuses. Here maps and matrices have rank 3
or 4, taps are slices with constant ends, and shapes give a number of positions
and nothing else.
"""
import copy
import operator
from functools import reduce
from typing import Dict, Iterable, Iterator, List, Sequence, Tuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ..baselines import FCKernelModule, FixedKernelModule, GAPKernelModule
from ..cac_head import CaCHead
from ..cac_module import CaCModule
from ..intact import adds_nothing, has_hooks, has_plain_classifier, inherits


@torch.no_grad()
def inference_form(model: nn.Module) -> Tuple[nn.Module, List[str]]:
    """Rewrite the CaC heads and modules of a model, wherever they are.

    Args:
        model: In evaluation mode. It stays as it is.

    Returns:
        A copy, and the names of the heads and modules in it that could not be
        rewritten, as a subclass or a hook changes what they compute.
    """
    root = nn.Sequential(copy.deepcopy(model))  # a root can be replaced, too
    kept: List[str] = []
    forms: Dict[nn.Module, nn.Module] = {}  # one may have several names
    for path, module in [*root.named_modules(remove_duplicate=False)]:
        name = path.partition('.')[2]
        if any(name.startswith(f'{head}.') for head in kept):
            continue  # a head may call its modules in ways of its own
        if isinstance(module, CaCHead) and _is_plain_head(module):
            module.__class__ = _InferenceHead
        elif isinstance(module, CaCModule) and _is_plain(module):
            if module not in forms:
                forms[module] = FORMS[_kind(module)](module)
            root.set_submodule(path, forms[module])
        elif type(module) is not _InferenceHead and isinstance(
                module, (CaCHead, CaCModule)):
            kept.append(name)
    return root[0].eval(), kept


def _is_plain_head(head: CaCHead) -> bool:
    return (adds_nothing(head, CaCHead) and not has_hooks(head)
            and has_plain_classifier(head))


def _kind(module: CaCModule) -> type:
    return next(kind for kind in type(module).__mro__ if kind in FORMS)


def _is_plain(module: CaCModule) -> bool:
    layer = getattr(module, 'fc', None)
    return (adds_nothing(module, _kind(module))
            and (layer is None or inherits(layer, nn.Linear, 'forward'))
            and not any(map(has_hooks, module.modules())))


class _InferenceHead(CaCHead):
    """A CaCHead whose pooling and classifier are standard layers."""

    def _forward_branches(self, inputs: Sequence[Tensor]) -> List[Tensor]:
        features = self._transform_inputs(inputs)
        x = self.reduction(features)
        maps = [module(x) for module in self.cac_modules]
        if self.global_pool:
            maps.append(self.pool_conv(F.adaptive_avg_pool2d(features, 1)))
        return maps

    def _classify(self, maps: Sequence[Tensor]) -> Tensor:
        weights = _parts(self.conv_seg.weight, len(maps))
        n = self.num_heads
        logits = _sum(
            F.conv2d(x, weight, None if i else self.conv_seg.bias)
            for i, (x, weight) in enumerate(zip(maps[:n], weights)))
        for x, weight in zip(maps[n:], weights[n:]):
            # OpenCV 5 cannot add one position to a convolution's map
            logits = logits - F.conv2d(x, -weight)
        return logits


class _Reweighting(nn.Module):
    r"""Y = X * sum_i sigma(X *_{r_i} D_i): the form of a CaCModule.

    Batch norm over the kernels, by now a scale and a shift of each channel of
    each set, is folded into what predicts them. Any other norm stays.
    """

    def __init__(self, module: CaCModule) -> None:
        super().__init__()
        self.channels = module.in_channels
        self.kernel_size = module.kernel_size
        self.dilations = module.dilations
        self.sets = module.sets
        norm = module.kernel_norm
        folds = (
            isinstance(norm, _BatchNorm)
            and inherits(norm, _BatchNorm, 'forward')
            and norm.running_mean is not None)
        self.norm = None if folds else norm
        if folds:
            scale = (norm.running_var.double() + norm.eps).rsqrt()
            shift = torch.zeros_like(scale)
            if norm.affine:
                scale, shift = scale * norm.weight, shift + norm.bias
            shift = shift - norm.running_mean * scale
        else:
            scale = torch.ones(
                self.sets * self.channels,
                dtype=torch.float64,
                device=next(module.parameters()).device)
            shift = torch.zeros_like(scale)
        for name, value in self.fold(module, scale, shift).items():
            value = value.detach().to(next(module.parameters()).dtype)
            self.register_buffer(name, value.contiguous())

    def fold(self, module: CaCModule, scale: Tensor,
             shift: Tensor) -> Dict[str, Tensor]:
        """Return constants that predict scale * D + shift, by name.

        Args:
            module: What predicts D.
            scale, shift: (G * C,), in float64.
        """
        raise NotImplementedError

    def predict(self, x: Tensor) -> List[Tensor]:
        """Return the kernels of each set, (B, C, R)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Map X (B, C, H, W) to Y of the same shape."""
        kernels = self.predict(x)
        if self.norm is not None:  # over all sets, in the shape of training
            joined = torch.cat(kernels, 1).unflatten(2, (-1, self.kernel_size))
            kernels = _parts(self.norm(joined).flatten(2), self.sets)
        return x * _sum(
            self.response(x, kernels[i % self.sets], dilation).sigmoid()
            for i, dilation in enumerate(self.dilations))

    def response(self, x: Tensor, kernels: Tensor, dilation: int) -> Tensor:
        """Return X *_r D, a sum over taps, for kernels (B, C, s * s)."""
        taps = kernels.unsqueeze(3)
        return _sum(part * taps[:, :, t:t + 1]
                    for t, part in enumerate(self.shifted(x, dilation)))

    def shifted(self, x: Tensor, dilation: int) -> Iterator[Tensor]:
        """Yield what each tap reads of X, zero padded."""
        half = self.kernel_size // 2
        margin = half * max(self.dilations)
        padded = F.pad(x, (margin, ) * 4)
        # ends count from the far side: no size is read
        steps = [
            slice(margin + offset, offset - margin or None)
            for offset in range(-half * dilation, half * dilation +
                                1, dilation)
        ]
        for row in steps:
            for column in steps:
                yield padded[:, :, row, column]


class _CaC(_Reweighting):
    r"""D_g = (Q_g / H) (X' / W)^T W_{k,g}^T + \bar Q_g b_{k,g}^T.

    Divided ahead of the product, its sums stay in the range of float16.
    """

    def fold(self, module: CaCModule, scale: Tensor,
             shift: Tensor) -> Dict[str, Tensor]:
        (query, query_bias), (key, key_bias) = module.query(), module.key()
        key = key.flatten(1) * scale[:, None]  # [g * c, c]
        joined = dict(key=key, key_bias=key_bias * scale, shift=shift)
        # one of each set, as a slice of a constant is not always folded
        parts = {
            f'{name}{g}': part.view(1, -1, self.channels)
            for name, value in joined.items()
            for g, part in enumerate(value.chunk(self.sets))
        }
        return dict(query=query, query_bias=query_bias, **parts)

    def predict(self, x: Tensor) -> List[Tensor]:
        h, w = x.shape[2:]
        queries = F.conv2d(x, self.query, self.query_bias).flatten(2) / h
        pooled = queries @ (x / w).flatten(2).transpose(1, 2)  # [b, g * t, c]
        means = queries.sum(2, keepdim=True) / w  # [b, g * t, 1]
        parts = zip(_parts(pooled, self.sets), _parts(means, self.sets))
        return [
            getattr(self, f'key{g}') @ part.transpose(1, 2) +
            (mean * getattr(self, f'key_bias{g}') +
             getattr(self, f'shift{g}')).transpose(1, 2)
            for g, (part, mean) in enumerate(parts)
        ]


class _GAPKernels(_Reweighting):
    r"""D = W \bar X + b."""

    def fold(self, module: GAPKernelModule, scale: Tensor,
             shift: Tensor) -> Dict[str, Tensor]:
        rows = scale.numel()  # of kernels, g * c
        weight = module.fc.weight.unflatten(0, (rows, -1))
        bias = module.fc.bias.view(rows, -1)
        return dict(
            weight=(weight * scale[:, None, None]).flatten(0, 1),
            bias=(bias * scale[:, None] + shift[:, None]).flatten())

    def predict(self, x: Tensor) -> List[Tensor]:
        mean = F.adaptive_avg_pool2d(x, 1).flatten(1)
        kernels = F.linear(mean, self.weight, self.bias)
        return _parts(
            kernels.unflatten(1, (self.sets * self.channels, -1)), self.sets)


class _FCKernels(_GAPKernels):
    r"""D = (W \bar X + b) / sqrt(C), of ordinary convolutions."""

    def response(self, x: Tensor, kernels: Tensor, dilation: int) -> Tensor:
        """Return X * D, tap by tap, for kernels (B, C, C * s * s)."""
        taps = (kernels * self.channels**-0.5).unflatten(
            2, (self.channels, -1))
        parts = self.shifted(x, dilation)
        maps = _sum(taps[..., t] @ part.flatten(2)
                    for t, part in enumerate(parts))
        return maps.view_as(x)


class _FixedKernels(_Reweighting):
    """D is the same for every image: ordinary depth-wise convolutions."""

    def fold(self, module: FixedKernelModule, scale: Tensor,
             shift: Tensor) -> Dict[str, Tensor]:
        kernels = module.kernels.flatten(0, 1).flatten(1)  # [g * c, t]
        return dict(kernels=(kernels * scale[:, None] + shift[:, None])[None])

    def predict(self, x: Tensor) -> List[Tensor]:
        return _parts(self.kernels, self.sets)

    def response(self, x: Tensor, kernels: Tensor, dilation: int) -> Tensor:
        s, c = self.kernel_size, self.channels
        return F.conv2d(
            x,
            kernels.view(c, 1, s, s),
            padding=dilation * (s // 2),
            dilation=dilation,
            groups=c)


FORMS = {
    CaCModule: _CaC,
    GAPKernelModule: _GAPKernels,
    FCKernelModule: _FCKernels,
    FixedKernelModule: _FixedKernels
}


def _sum(maps: Iterable[Tensor]) -> Tensor:
    """Add maps; the built-in would add the first to a zero."""
    return reduce(operator.add, maps)


def _parts(stacked: Tensor, count: int) -> List[Tensor]:
    """Return equal parts along dimension 1, as slices: not all split."""
    step = stacked.shape[1] // count
    return [stacked] if count == 1 else [
        stacked[:, i * step:(i + 1) * step] for i in range(count)
    ]
