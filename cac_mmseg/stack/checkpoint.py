"""Read checkpoints without running the code that they name."""
import logging
import os
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union
from urllib.parse import urlparse
from zipfile import BadZipFile, ZipFile, is_zipfile

import torch
from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log
from mmengine.model import revert_sync_batchnorm
from mmengine.runner.checkpoint import (CheckpointLoader, load_from_http,
                                        load_from_local)
from mmseg.apis import init_model
from mmseg.models import BaseSegmentor

from ..errors import MissingFileError, UnsafeError, UserError
from .config import load_config
from .feature_maps import load_no_weights
from .unpickling import StandIn, read


@contextmanager
def safe_loading() -> Iterator[None]:
    """Context in which mmengine reads files and addresses without their code.

    Outside of it OneDL's mmengine falls back to an unsafe load, the original
    mmengine raises, and both read what they download unsafely.
    """
    ours = {load_from_local: _from_file, load_from_http: _from_url}
    before = dict(CheckpointLoader._schemes)
    try:
        for prefix, loader in before.items():
            # a loader that someone registered stays
            if loader in ours:
                CheckpointLoader.register_scheme(
                    prefix, ours[loader], force=True)
        yield
    finally:
        for prefix, loader in before.items():
            CheckpointLoader.register_scheme(prefix, loader, force=True)


def _from_file(filename: str, map_location: Any = None) -> Dict[str, Any]:
    content, unknown = read_checkpoint(filename, map_location)
    return _weights(filename, content, unknown) if unknown else content


def _from_url(filename: str, map_location: Any = None) -> Dict[str, Any]:
    """Download once, to where PyTorch and mmengine look for it."""
    name = Path(urlparse(filename).path).name
    path = Path(torch.hub.get_dir(), 'checkpoints', name)
    error: Optional[Exception] = None
    for downloads in (is_main_process(), True):  # others may share its disk
        try:
            if downloads and not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(filename, str(path))
        except Exception as found:  # raised below: others wait at the barrier
            error = found
        barrier()
    if error is not None and not path.is_file():
        raise error
    return _from_file(str(path), map_location)


def read_checkpoint(path: Union[str, Path],
                    map_location: Any = 'cpu') -> Tuple[dict, List[str]]:
    """Read all of a checkpoint that can be read without running its code.

    Args:
        path: A file that mmengine, or ``torch.save`` of a state dict, wrote.
        map_location: As in ``torch.load``.

    Returns:
        As of :func:`cac_mmseg.stack.unpickling.read`: the content, and the
        names of what it would import that mmengine does not save by itself.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint.
    """
    path = os.path.expanduser(path)  # as mmengine does
    if not os.path.isfile(path):
        raise MissingFileError(f'{path} is not a file: give a checkpoint '
                               'such as work_dirs/NAME/iter_400.pth')
    try:
        if is_zipfile(path):  # not as torch.save wrote before 1.6, or cut off
            with ZipFile(path) as archive:
                damaged = archive.testzip()  # torch compares no checksums
            if damaged:
                raise BadZipFile(f'{damaged} is damaged')
        content, unknown = read(path, map_location)
    except Exception as error:  # of zipfile, pickle, struct, torch, the disk
        reason = (str(error).strip().splitlines() or [''])[0]
        if 'weights_only' in str(error):  # advice to load it unsafely
            reason = 'it is an archive of another kind'
        raise UserError(f'{path} cannot be read as a checkpoint: '
                        f'{type(error).__name__}: {reason}') from None
    if not isinstance(content, dict) and content is not StandIn:
        raise UserError(f'{path} holds a {type(content).__name__}, not the '
                        'dict of a checkpoint')
    return content, unknown


def check_resumable(path: Union[str, Path]) -> None:
    """Check that all of a checkpoint can be read without running its code.

    Raises:
        FileNotFoundError: If there is no such file.
        UnsafeError: If it names what mmengine does not save by itself.
        ValueError: If it is no checkpoint, or its weights are no tensors.
    """
    content, unknown = read_checkpoint(path)
    if unknown:
        raise UnsafeError(path, unknown)
    _weights(path, content, unknown)


def load_weights(path: Union[str, Path]) -> Dict[str, Any]:
    """Load the weights of a checkpoint and the plain values of its meta.

    Everything else is left out. A warning names what is not of mmengine.

    Args:
        path: A file that mmengine, or ``torch.save`` of a state dict, wrote.

    Returns:
        ``state_dict`` (names to tensors, on the CPU) and ``meta`` (numbers,
        strings, and lists and dicts of them).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint, or its weights are no tensors.
    """
    content, unknown = read_checkpoint(path)
    result = _weights(path, content, unknown)
    if unknown:
        print_log(
            f'{path}: only the weights are used; not imported: '
            f'{", ".join(unknown)}',
            logger='current',
            level=logging.WARNING)
    return result


def _weights(path: Union[str, Path], content: Any,
             unknown: List[str]) -> Dict[str, Any]:
    if not isinstance(content, dict):
        content = dict(state_dict=content)
    meta = content.get('meta')
    # mmengine's, that of the authors of Swin and MAE, and a plain state dict
    candidates = [content.get(key, None) for key in ('state_dict', 'model')]
    weights = next(filter(_are_weights, [*candidates, content]), None)
    if weights is None:
        if unknown:
            raise UserError(f'refusing to load {path}: its weights are not all'
                            ' tensors; reading it would import '
                            f'{", ".join(unknown)}')
        raise UserError(f'{path} holds no weights: neither under '
                        f"'state_dict' nor by itself; its keys are "
                        f'{", ".join(map(str, [*content][:8]))}')
    meta = _plain_values(meta) if isinstance(meta, dict) else {}
    return dict(state_dict=weights, meta=meta)


def _are_weights(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(
        isinstance(weight, torch.Tensor) and name is not StandIn
        for name, weight in value.items())


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
    load_no_weights(cfg.model.get('backbone') or {})
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
            reason = shorten(str(error), 300, placeholder=' ...')
            raise UserError(
                f'{checkpoint} does not belong to {config}: give the config '
                f'that it was trained with. {reason}') from error
    return model.eval()


def _plain_values(value: Any) -> Any:
    """Drop whatever is not a number, a string, or a container of them."""
    if isinstance(value, dict):
        return {
            _plain_values(k): _plain_values(v)
            for k, v in value.items() if _is_plain(k) and _is_plain(v)
        }
    if isinstance(value, (list, tuple)):
        plain = [_plain_values(v) for v in value if _is_plain(v)]
        return plain if isinstance(value, list) else tuple(plain)
    for kind in (str, float):  # NumPy derives classes from these
        if isinstance(value, kind):
            return kind(value)
    return value


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(
        value, (bool, int, float, str, dict, list, tuple))
