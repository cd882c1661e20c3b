"""Read checkpoints without running the code that they name."""
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Callable, ContextManager, Dict, List, Optional, Union
from zipfile import BadZipFile, ZipFile, is_zipfile

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import revert_sync_batchnorm
from mmseg.apis import init_model
from mmseg.models import BaseSegmentor

from .config import load_config
from .errors import MissingFileError, UserError


def _history_attribute(owner: Any, name: str) -> Callable:
    """Restricted replacement for ``getattr``.

    mmengine's log names methods of ``HistoryBuffer``. With any other owner a
    file could reach everything that Python can do.
    """
    if owner is not HistoryBuffer or name.startswith('_'):
        raise UnpicklingError(f'it asks for the attribute {name!r}')
    return getattr(owner, name)


def allow_log() -> ContextManager:
    """Context in which ``torch.load(weights_only=True)`` reads mmengine's log.

    Training checkpoints hold that log, of numpy arrays, beside the weights.
    Outside of this context the load fails: OneDL's mmengine then falls back to
    an unsafe one, and the original mmengine raises. PyTorch's list of safe
    globals, which is global to the process, is restored on exit.
    """
    reconstruct = np.zeros(1).__reduce__()[0]
    scalar = np.float64().__reduce__()[0]
    functions = [
        (function, f'numpy.{core}.multiarray.{name}')
        for core in ('core', '_core')  # of numpy 1 and 2
        for function, name in ((reconstruct, '_reconstruct'), (scalar,
                                                               'scalar'))
    ]
    classes = {HistoryBuffer, np.ndarray, np.dtype}
    classes |= {type(np.dtype(code)) for code in '?bBhHiIlLqQefd'}
    # with names: OneDL's mmengine removes entries without one after each load
    return torch.serialization.safe_globals([
        *functions, (_history_attribute, 'builtins.getattr'),
        *((c, f'{c.__module__}.{c.__qualname__}') for c in classes)
    ])


def load_weights(path: Union[str, Path]) -> Dict[str, Any]:
    """Load the weights of a checkpoint and the plain values of its meta.

    Args:
        path: A file that mmengine, or ``torch.save`` of a state dict, wrote.

    Returns:
        ``state_dict`` (names to tensors, on the CPU) and ``meta`` (numbers,
        strings, and lists and dicts of them).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint, or unpickling it would import what
            no checkpoint of mmengine's needs.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f'{path} is not a file: give a checkpoint '
                               'such as work_dirs/NAME/iter_400.pth')
    try:
        with allow_log():
            unknown = _unknown(path)
            if not unknown:
                content = torch.load(
                    path, map_location='cpu', weights_only=True)
    except Exception as error:  # of zipfile, pickle, struct, torch, the disk
        reason = (str(error).strip().splitlines() or [''])[0]
        raise UserError(f'{path} cannot be read as a checkpoint: '
                        f'{type(error).__name__}: {reason}') from error
    if unknown:
        raise UserError(
            f'refusing to load {path}: unpickling would import '
            f'{", ".join(sorted(unknown))}, which no checkpoint of mmengine '
            'needs')
    if not isinstance(content, dict):
        raise UserError(f'{path} holds a {type(content).__name__}, not the '
                        'dict of a checkpoint')
    weights = content.get('state_dict', content)
    if not weights or not all(
            isinstance(value, torch.Tensor) for value in weights.values()):
        raise UserError(f'{path} holds no weights: neither under '
                        f"'state_dict' nor by itself; its keys are "
                        f'{", ".join(map(str, [*content][:8]))}')
    meta = _plain_values(content.get('meta', {}))
    return dict(state_dict=weights, meta=meta)


def _unknown(path: Path) -> List[str]:
    """Return what unpickling a file would import, but for what is safe."""
    if not is_zipfile(path):
        return []  # as torch.save wrote before 1.6, or cut off
    with ZipFile(path) as archive:
        damaged = archive.testzip()  # torch does not compare checksums
    if damaged:
        raise BadZipFile(f'{damaged} is damaged')
    return torch.serialization.get_unsafe_globals_in_checkpoint(path)


def load_model(config: Union[str, Path],
               checkpoint: Optional[Union[str, Path]] = None) -> BaseSegmentor:
    """Build the model of a config, for evaluation on the CPU.

    Args:
        config: Of any model of mmseg's; ``model.cfg`` is what was read.
        checkpoint: Its weights; without, they are random.

    Raises:
        FileNotFoundError, ValueError: If either cannot be read, or they do
            not belong together.
    """
    cfg = load_config(config)
    weights = load_weights(checkpoint)['state_dict'] if checkpoint else None
    try:
        model = revert_sync_batchnorm(init_model(cfg, device='cpu'))
    except Exception as error:  # of any module
        raise UserError(f'the model of {config} cannot be built: '
                        f'{type(error).__name__}: {error}') from error
    if weights is not None:
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            reason = ' '.join(str(error).split())[:300]
            raise UserError(f'{checkpoint} does not belong to {config}: '
                            f'{reason}') from error
    return model.eval()


def _plain_values(value: Any) -> Any:
    """Drop whatever is not a number, a string, or a container of them."""
    if isinstance(value, dict):
        return {k: _plain_values(v) for k, v in value.items() if _is_plain(v)}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain_values(v) for v in value if _is_plain(v))
    return value


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(
        value, (bool, int, float, str, dict, list, tuple))
