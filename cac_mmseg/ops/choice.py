"""Which implementation of the operations runs on a device."""
import os
import shutil
import sysconfig
from functools import lru_cache
from pathlib import Path
from typing import Optional

import torch
from torch.torch_version import TorchVersion

# Modules of kernels. Nothing was measured yet of triton_rolling and
# triton_split_pooling, which take fewer instructions.
KERNELS = dict(reweight='triton_reweighting', pool_queries='triton_pooling')
VARIABLE = 'CAC_MMSEG_TRITON'
MEASURED = 9  # major compute capability: Hopper
OLDEST_TRITON = '3.6'  # that was measured
# Taps of all branches, of 3 x 3 kernels at three dilations. More spill
# registers and compile for a minute; whether they are faster is not known.
MEASURED_TAPS = 27


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
