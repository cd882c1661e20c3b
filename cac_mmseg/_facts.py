"""What a measurement depends on, to be printed beside it."""
import platform
import shlex
import sys
from pathlib import Path

import mmcv
import mmengine
import mmseg
import torch


def command() -> str:
    """Return the command line that this process was started by."""
    return shlex.join(['python', '-m', 'cac_mmseg', *sys.argv[1:]])


def versions() -> str:
    """Return the versions of this package and of what it stands on."""
    from . import __version__
    return (f'cacnet-mmseg {__version__}, torch {torch.__version__}, '
            f'mmengine {mmengine.__version__}, mmcv {mmcv.__version__}, '
            f'mmseg {mmseg.__version__}, '
            f'Python {platform.python_version()}')


def device_name(device: torch.device) -> str:
    """Return the name of a GPU, or of the processor and its threads."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        model = next(
            line.split(':')[1].strip() for line in lines
            if line.startswith('model name'))
    except (OSError, StopIteration):
        pass  # not a Linux machine
    return f'{model}, {torch.get_num_threads()} threads'
