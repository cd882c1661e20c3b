"""Checks of arguments: each error names the argument, the value and the rule.

``TypeError`` for a value of the wrong kind, ``ValueError`` for a value out of
range. None of them reads tensor data, so none synchronises a device.
"""
import warnings
from typing import Any, Optional, Sequence, Tuple

import torch
import torch.distributed as dist
import torch.nn as nn
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
FEW_VALUES = 4  # of which BN makes noise: docs/study.md, small batches


def check_int(name: str, value: Any, minimum: int = 1) -> int:
    """Return ``value`` if it is an integer >= ``minimum``."""
    # bool is a subclass of int: num_heads=True is a mistake, not a 1
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f'{name} must be an int, got {value!r} '
                        f'of type {type(value).__name__}')
    if value < minimum:
        raise ValueError(f'{name} must be >= {minimum}, got {value}')
    return value


def check_bool(name: str, value: Any) -> bool:
    """Return ``value`` if it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f'{name} must be True or False, got {value!r} '
                        f'of type {type(value).__name__}')
    return value


def check_norm(name: str, value: Any) -> dict:
    """Return ``value`` if it is the config of a norm."""
    if not isinstance(value, dict) or 'type' not in value:
        raise TypeError(f"{name} must be a dict such as dict(type='BN'), got "
                        f'{value!r}')
    return value


def check_kernel_size(kernel_size: Any) -> int:
    """Return ``kernel_size`` if it is an odd positive integer."""
    check_int('kernel_size', kernel_size)
    if kernel_size % 2 == 0:
        raise ValueError(
            f'kernel_size must be odd (1, 3, 5, ...), got {kernel_size}: an '
            "even kernel has no centre, so no 'same' padding")
    return kernel_size


def check_dilations(dilations: Any) -> Tuple[int, ...]:
    """Return ``dilations`` as a tuple if it lists positive integers."""
    if not isinstance(dilations, (list, tuple)):
        raise TypeError(
            'dilations must be a list or tuple of ints such as (1, 3, 5), '
            f'got {dilations!r} of type {type(dilations).__name__}')
    if not dilations:
        raise ValueError('dilations must name at least one dilation, such as '
                         f'(1, 3, 5), got {dilations!r}')
    for i, dilation in enumerate(dilations):
        check_int(f'dilations[{i}]', dilation)
    return tuple(dilations)


def check_one_map(input_transform: Any) -> None:
    """Check that a head is not given several feature maps side by side."""
    if input_transform == 'multiple_select':
        raise ValueError("input_transform must be None or 'resize_concat', "
                         "got 'multiple_select': CaCHead reads one feature "
                         'map')


def check_feature_map(x: Any, channels: Optional[int] = None) -> None:
    """Check that ``x`` is a (B, C, H, W) floating point tensor.

    B may be 0, as detectors and empty last batches have it.
    """
    if not isinstance(x, Tensor):
        raise TypeError('x must be a (B, C, H, W) tensor, '
                        f'got {type(x).__name__}')
    if not x.is_floating_point():
        raise TypeError('x must be of a floating point dtype, '
                        f'got {x.dtype}')
    if x.dim() != 4:
        raise ValueError('x must be a feature map (B, C, H, W), got '
                         f'{x.dim()} dimensions: {tuple(x.shape)}')
    if any(size == 0 for size in x.shape[1:]):
        raise ValueError('x must have no empty side, got (B, C, H, W) = '
                         f'{tuple(x.shape)}')
    if channels is not None and x.shape[1] != channels:
        raise ValueError(f'x must have {channels} channels, got '
                         f'{x.shape[1]}: {tuple(x.shape)}')


def check_operand(name: str, tensor: Any, symbols: str,
                  shape: Sequence[Optional[int]], x: Tensor) -> None:
    """Check that ``tensor`` fits beside x; None in shape is any size >= 1."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f'{name} must be a tensor of shape {symbols}, '
                        f'got {type(tensor).__name__}')
    if tensor.dim() != len(shape) or any(
            size != expected if expected is not None else size == 0
            for size, expected in zip(tensor.shape, shape)):
        sizes = ', '.join('any' if n is None else str(n) for n in shape)
        raise ValueError(f'{name} must have shape {symbols} = ({sizes}), '
                         f'got {tuple(tensor.shape)}')
    if not tensor.is_floating_point():
        raise TypeError(f'{name} must be of a floating point dtype, '
                        f'got {tensor.dtype}')
    if tensor.device != x.device:
        raise ValueError(f'{name} is on {tensor.device} but x is on '
                         f'{x.device}: move both to one device')


def check_branches(x: Any, kernels: Any, dilations: Any) -> Tuple[int, ...]:
    """Return ``dilations`` as a tuple if each has kernels that fit x."""
    check_feature_map(x)
    dilations = check_dilations(dilations)
    b, c = x.shape[:2]
    check_operand('kernels', kernels, '(B, G, C, s, s)',
                  (b, None, c, None, None), x)
    sets, s = kernels.shape[1], kernels.shape[4]
    if kernels.shape[3] != s or s % 2 == 0:
        raise ValueError('kernels must be square and of an odd size, '
                         f'(B, G, C, s, s), got {tuple(kernels.shape)}')
    if sets not in (1, len(dilations)):
        raise ValueError(
            f'kernels holds {sets} sets, but dilations {dilations} needs '
            f'{len(dilations)} (one each) or 1 (shared by all)')
    return dilations


def check_batch_norm(norm: Optional[nn.Module], x: Tensor, what: str,
                     way_out: str) -> None:
    """Refuse to estimate statistics from one value, warn of very few."""
    if not isinstance(norm, _BatchNorm) or not norm.training:
        return
    if isinstance(norm, nn.SyncBatchNorm) and dist.is_initialized():
        return  # it counts the values of all ranks, and checks that itself
    # reverted for one GPU, SyncBN is a class of mmengine's
    sync = not isinstance(norm, BATCH_NORMS)
    name, values = 'SyncBN' if sync else 'BN', x.numel() // x.shape[1]
    instead = (f'{"" if sync else "SyncBN on "}several GPUs, '
               f"norm_cfg=dict(type='GN', num_groups=32), or {way_out}")
    if values < 2:
        raise ValueError(
            f'{name} cannot normalise {what} in training: a batch of {len(x)} '
            f'has {values} value(s) per channel, and it needs 2. Use '
            'train_dataloader.batch_size >= 2, or drop_last=True where only '
            f'the last batch of an epoch is that small, {instead}')
    if not torch.compiler.is_compiling() and values < FEW_VALUES:
        warnings.warn(
            f'{name} normalises {what} by {values} values per channel, which '
            'are mostly noise. Better are train_dataloader.batch_size >= '
            f'{FEW_VALUES}, {instead}')
