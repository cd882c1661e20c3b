"""The environment: the MMSegmentation stack, versions, device, command line.

The original packages of OpenMMLab and the OneDL forks share their import
names, so a plugin can depend on neither and has to look for itself. Nothing
here imports either at module level: ``doctor`` runs without them.
"""
import platform
import shlex
import sys
import warnings
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Dict, Iterator

if TYPE_CHECKING:
    import torch

# import name -> the distributions that install it
DISTRIBUTIONS = dict(
    mmengine=('onedl-mmengine', 'mmengine', 'mmengine-lite'),
    mmcv=('onedl-mmcv', 'mmcv', 'mmcv-lite', 'mmcv-full'),
    mmseg=('onedl-mmsegmentation', 'mmsegmentation'))

# in an environment that has this package, pip takes only what it needs
ONEDL = 'pip install "cacnet-mmseg[onedl]"'
OPENMMLAB = (
    'pip install "setuptools<81" wheel ninja psutil && MMCV_WITH_OPS=1 '
    'pip install --no-build-isolation --no-binary mmcv "mmcv<2.2" && '
    'pip install "cacnet-mmseg[openmmlab]"')

# module that a sound-looking installation may lack -> what brings it
FIXES = {
    'pkg_resources':
    'pip install "setuptools<81"',
    'mmcv._ext':
    'install mmcv with its compiled operators: the original '
    'mmsegmentation needs them (the OneDL stack does not)',
}
# mmseg imports timm, where it is installed, and timm torchvision
TORCHVISION = (
    'torchvision was built for another torch: install the one of the same '
    'index, as by `pip install torchvision --index-url '
    'https://download.pytorch.org/whl/cpu`, or `pip uninstall -y timm`')


def installed(module: str) -> Dict[str, str]:
    """Return the distributions that install ``module``, with versions."""
    found = {}
    for distribution in DISTRIBUTIONS[module]:
        try:
            found[distribution] = version(distribution)
        except PackageNotFoundError:
            pass
    return found


def require_stack() -> None:
    """Import mmengine, mmcv and mmseg or raise an ImportError with a fix.

    Raises:
        ImportError: If one is missing, installed by two distributions (which
            overwrite each other's files), or present but not importable.
    """
    missing = []
    for module in DISTRIBUTIONS:
        found = installed(module)
        if len(found) > 1:
            names = ' and '.join(f'{k} {v}' for k, v in found.items())
            raise ImportError(
                f'cac_mmseg: {module} is installed twice, by {names}, and '
                "each has overwritten the other's files. Remove both with "
                f'`pip uninstall -y {" ".join(found)}`, then install one '
                f'stack: `{ONEDL}` (maintained) or `{OPENMMLAB}`')
        if find_spec(module) is None:
            missing.append(module)
    if missing:
        raise ImportError(
            f'cac_mmseg needs mmengine, mmcv and mmseg, and '
            f'{" and ".join(missing)} cannot be found. Install one stack, '
            f'not both: `{ONEDL}` (maintained) or `{OPENMMLAB}`')
    for name in (*DISTRIBUTIONS, 'mmseg.datasets', 'mmseg.models'):
        module = name.split('.')[0]
        try:
            with _without_noise():
                import_module(name)
        except (ImportError, AssertionError, RuntimeError) as error:
            lacking = getattr(error, 'name', None) or ''
            fix = TORCHVISION if 'torchvision::' in str(error) else FIXES.get(
                lacking)
            if fix is None and isinstance(error, ModuleNotFoundError):
                fix = f'pip install {lacking.split(".")[0]}'
            raise ImportError(
                f'cac_mmseg: {module} is installed but cannot be imported: '
                f'{type(error).__name__}: {error}. ' +
                (f'To fix it: {fix}' if fix else
                 f'Versions that fit together: `{ONEDL}` or `{OPENMMLAB}`'),
                name=lacking or None) from error


@contextmanager
def _without_noise() -> Iterator[None]:
    """Drop what mmseg reports at import about optional parts it lacks."""
    printed = StringIO()
    try:
        with redirect_stdout(printed), warnings.catch_warnings():
            warnings.filterwarnings('ignore', '^Fail to import')
            yield
    finally:
        for line in printed.getvalue().splitlines():
            if line != 'Could not import OneDL':
                print(line)


def command(program: str) -> str:
    """Return the command line that ``python -m program`` was started by."""
    return shlex.join(['python', '-m', program, *sys.argv[1:]])


def versions() -> str:
    """Return the versions of this package and of what it stands on."""
    import mmcv
    import mmengine
    import mmseg
    import torch

    from .. import __version__
    return (f'cacnet-mmseg {__version__}, torch {torch.__version__}, '
            f'mmengine {mmengine.__version__}, mmcv {mmcv.__version__}, '
            f'mmseg {mmseg.__version__}, '
            f'Python {platform.python_version()}')


def device_name(device: 'torch.device') -> str:
    """Return the name of a GPU, or of the processor and its threads."""
    import torch
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
        model = next(
            line.split(':')[1].strip() for line in lines
            if line.startswith('model name'))
    except (OSError, StopIteration):
        pass  # not a Linux machine
    count = torch.get_num_threads()
    return f'{model}, {count} thread{"s" if count > 1 else ""}'


def conditions(program: str, device: 'torch.device') -> str:
    """Return what a measurement depends on: command, device and versions."""
    return (f'command: {command(program)}\ndevice: {device_name(device)}\n'
            f'versions: {versions()}')
