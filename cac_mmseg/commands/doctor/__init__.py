"""``python -m cac_mmseg doctor``: check the installation, and suggest fixes.

Also runs where ``import cac_mmseg`` fails. Exit status 1 if a model cannot be
trained before something is fixed, 0 otherwise.
"""
import argparse
import platform
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Iterator, NamedTuple, Optional

from ...errors import UserError
from ...stack.env import (DISTRIBUTIONS, ONEDL, OPENMMLAB, installed,
                          require_stack)

MIM = ('onedl-mim', 'openmim')
ORIGINAL = 'OpenMMLab'
WEIGHTS = 'open-mmlab://resnet50_v1c'
# the newest that this version was tested with, see README.md
PYTHON, TORCH = '3.13', '2.15'


class Finding(NamedTuple):
    """One line of the report; ``fix`` is what to do about it."""
    level: str  # 'ok', 'note' (something optional is not there) or 'FAIL'
    subject: str
    detail: str
    fix: str = ''


def examine(weights: Optional[str] = None,
            config: Optional[str] = None) -> Iterator[Finding]:
    """Examine the installation, bottom up.

    Args:
        weights: A file of backbone weights to use in place of the network.
        config: Whose backbone the file is compared with.

    Yields:
        A finding per subject; the first that fails may explain later ones.
    """
    yield _python()
    yield from _torch()
    stack = _stack()
    yield stack
    yield _mim()
    if stack.level == 'FAIL':
        return  # the rest needs it
    if ORIGINAL in stack.detail:
        yield Finding(
            'note', ORIGINAL, 'with torch 2.6 or newer, init_model and '
            'MMSegInferencer load no training checkpoint; get_flops fails',
            'python -m cac_mmseg publish CHECKPOINT OUT, and load that; '
            'python -m cac_mmseg cost counts')
    yield _mmcv_ops()
    yield _registry()
    if weights:
        from .weights import examine_weights
        yield examine_weights(weights, config)
    else:
        yield _host()


def _python() -> Finding:
    found = platform.python_version()
    where = f'{found} at {sys.executable}'
    if newer(found, PYTHON):
        return Finding('note', 'Python', f'{where}, not tested',
                       f'if something fails, use Python {PYTHON}')
    return Finding('ok', 'Python', where)


def newer(found: str, tested: str) -> bool:
    """Return whether major and minor version are above those tested."""
    return [*map(int, found.split('.')[:2])] > [*map(int, tested.split('.'))]


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        yield Finding('FAIL', 'torch', f'cannot be imported: {error}',
                      'pip install torch')
        return
    from ...ops.choice import why_not_triton
    build = f'for CUDA {torch.version.cuda}' if torch.version.cuda else \
        'for the CPU only'
    where = f'{torch.__version__}, built {build}'
    if newer(torch.__version__, TORCH):
        yield Finding('note', 'torch', f'{where}, not tested',
                      f'if something fails, use torch {TORCH}')
    else:
        yield Finding('ok', 'torch', where)
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        names = {torch.cuda.get_device_name(i) for i in range(count)}
        yield Finding('ok', 'GPU', f'{count}: {", ".join(sorted(names))}')
        reason = why_not_triton(torch.device('cuda', 0))
        if reason:
            yield Finding('note', 'kernels', f'PyTorch calls: {reason}',
                          'Triton re-weights 3 to 11 times faster on an H200')
        else:
            yield Finding('ok', 'kernels', 'Triton, compiled at first use')
    else:
        yield Finding(
            'note', 'GPU', 'none that this torch can use',
            'training the large configs on a CPU takes weeks: try the config '
            'cac_r18_crossing')


def _stack() -> Finding:
    found = {
        module: distribution
        for module in DISTRIBUTIONS
        for distribution in installed(module)
    }
    names = ', '.join(f'{name} {version(name)}' for name in found.values())
    try:
        require_stack()
    except ImportError as error:
        return Finding('FAIL', 'mmseg stack', str(error),
                       'in a new virtual environment: ' * bool(found) + ONEDL)
    origins = {name.startswith('onedl-') for name in found.values()}
    if len(origins) > 1:
        return Finding(
            'FAIL', 'mmseg stack', f'half of one and half of the other: '
            f'{names}', f'in a new virtual environment: {ONEDL}, or '
            f'{OPENMMLAB}')
    which = 'OneDL' if origins == {True} else ORIGINAL
    return Finding('ok', 'mmseg stack', f'{which}: {names}')


def _mim() -> Finding:
    found = []
    for name in MIM:
        try:
            found.append(f'{name} {version(name)}')
        except PackageNotFoundError:
            pass
    if len(found) == 2:
        return Finding('FAIL', 'mim', f'installed twice: {", ".join(found)}',
                       f'pip uninstall -y {" ".join(MIM)}, then install one')
    if not found:
        return Finding('FAIL', 'mim', 'is not installed, and runs the '
                       'training', 'pip install "cacnet-mmseg[openmmlab]"'
                       if 'mmsegmentation' in installed('mmseg') else ONEDL)
    return Finding('ok', 'mim', found[0])


def _mmcv_ops() -> Finding:
    try:
        import_module('mmcv._ext')
    except ImportError as error:
        return Finding(
            'note', 'mmcv.ops', f'no compiled operators: {error}',
            'CaCHead needs none; heads such as PSAHead need an mmcv that was '
            'compiled with them')
    return Finding('ok', 'mmcv.ops', 'compiled operators are there')


def _registry() -> Finding:
    import_module('cac_mmseg.cac_head')
    from mmseg.registry import MODELS
    head = MODELS.get('CaCHead')
    if head is None:
        return Finding('FAIL', 'CaCHead', 'is not in the registry of mmseg',
                       'pip install --force-reinstall cacnet-mmseg')
    return Finding('ok', 'CaCHead', 'is in the registry of mmseg')


def _host() -> Finding:
    from ...stack.weights import find_weights
    source = find_weights(WEIGHTS)
    if not source.error:
        return Finding('ok', 'weights', f'{source.place} is there')
    return Finding(
        'note', 'weights', f'{source.place} {source.error}',
        'give a file: --cfg-options model.pretrained=FILE, and try it '
        'with doctor --weights FILE --config CONFIG; or train from '
        'scratch with model.pretrained=None')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        '--weights',
        metavar='FILE',
        help='a local file of backbone weights to check, in place of the '
        'network')
    parser.add_argument(
        '--config',
        help='compare the file with the backbone of this config, a path or a '
        'name')


def run(arguments: argparse.Namespace) -> None:
    """Print the findings, and exit with 1 if one of them is a failure.

    Raises:
        FileNotFoundError, ValueError: If the config does not fit.
    """
    if arguments.config and not arguments.weights:
        raise UserError('--config needs --weights FILE, to compare it with')
    failed = False
    for finding in examine(arguments.weights, arguments.config):
        print(f'{finding.level:4}  {finding.subject}: {finding.detail}')
        if finding.fix:
            print(f'      -> {finding.fix}')
        failed |= finding.level == 'FAIL'
    sys.exit(failed)
