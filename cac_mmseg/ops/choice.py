"""Which implementation of the operations runs on a device."""
import os
import shutil
import sysconfig
from contextlib import nullcontext
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import ContextManager, Optional, Sequence

import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from . import eager

# Modules of kernels. Nothing was measured yet of triton_rolling and
# triton_split_pooling, which take fewer instructions.
KERNELS = dict(reweight='triton_reweighting', pool_queries='triton_pooling')
VARIABLE = 'CAC_MMSEG_TRITON'
MEASURED = 9  # major compute capability: Hopper
OLDEST_TRITON = '3.6'  # that was measured
# Taps of all branches, of 3 x 3 kernels at three dilations. More spill
# registers and compile for a minute; whether they are faster is not known.
MEASURED_TAPS = 27
UNCHANGED = nullcontext()


def no_autocast(x: Tensor) -> ContextManager:
    """Autocast would run the sums over positions in float16: overflow."""
    kind = x.device.type
    # meta has no autocast; the context is 10 us of a step's host time
    if kind == 'meta' or not (torch.compiler.is_compiling()
                              or torch.is_autocast_enabled(kind)):
        return UNCHANGED
    return torch.autocast(kind, enabled=False)


def implementation(x: Tensor, operation: str, taps: int = 0) -> ModuleType:
    """Return :mod:`.eager`, or a module of Triton kernels."""
    if (x.dtype == torch.float64 or not x.numel()
            or why_not_triton(x.device, taps)):
        return eager
    try:
        # Triton is not there on every machine
        return import_module(f'.{KERNELS[operation]}', __package__)
    except (ImportError, AttributeError) as error:  # none, or an old one
        raise ImportError(
            f'the kernels need Triton {OLDEST_TRITON} or newer '
            f'({error}): pip install triton, or set {VARIABLE}=0') from error


def reweighting(x: Tensor, kernels: Tensor,
                dilations: Sequence[int]) -> ModuleType:
    """Return the :func:`implementation` of a re-weighting."""
    taps = len(dilations) * kernels.shape[3] * kernels.shape[4]
    return implementation(x, 'reweight', taps)


def why_not_triton(device: torch.device, taps: int = 0) -> Optional[str]:
    """Return what keeps the Triton kernels from a device, or None.

    They run by default where they were measured to be faster, with
    ``CAC_MMSEG_TRITON=1`` on any GPU, and with 0 on none.

    Args:
        device: Of the feature map.
        taps: Of all branches of a re-weighting.

    Raises:
        ValueError: If the variable is something else.
    """
    wanted = os.environ.get(VARIABLE, '')
    if wanted not in ('', '0', '1'):
        raise ValueError(f'{VARIABLE} must be 1 (Triton kernels), 0 (PyTorch '
                         f'calls) or unset, got {wanted!r}')
    if device.type != 'cuda':
        return 'not a GPU'
    if wanted == '0':
        return f'{VARIABLE}=0'
    if wanted == '1':
        return None
    if taps > MEASURED_TAPS:
        return f'{taps} taps, more than were measured'
    return _obstacle(device)


@lru_cache(maxsize=None)
def _obstacle(device: torch.device) -> Optional[str]:
    name = torch.cuda.get_device_name(device)
    if (torch.version.hip
            or torch.cuda.get_device_capability(device)[0] != MEASURED):
        return (f'not measured on {name}, only on Hopper: try {VARIABLE}=1, '
                'and compare by cost --time')
    try:
        import triton
    except ImportError:
        return 'no Triton: pip install triton'
    if TorchVersion(triton.__version__) < OLDEST_TRITON:
        return (f'Triton {triton.__version__}, below {OLDEST_TRITON}: update '
                'torch')
    # Triton builds a launcher for each kernel
    if not (os.environ.get('CC') or shutil.which('gcc')
            or shutil.which('clang')):
        return 'Triton needs a C compiler: apt-get install gcc'
    if not Path(sysconfig.get_path('include'), 'Python.h').is_file():
        return "Triton needs Python's headers: apt-get install python3-dev"
    return None
