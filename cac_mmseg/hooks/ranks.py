"""What ranks have to agree on before they train or test."""
import os
import socket
import zlib
from pathlib import Path
from typing import Callable, Optional
from uuid import uuid4

from mmengine.dist import (all_gather_object, broadcast_object_list,
                           is_main_process)
from mmengine.runner import BaseLoop

from ..errors import UserError
from ..stack.files import UNFINISHED


def agree(check: Callable[[], None], main_only: bool = False) -> None:
    """Run a check on every rank, or the first; all raise what one finds.

    If one raised by itself, the others would wait for it until a timeout.
    """
    error = None
    if is_main_process() or not main_only:
        try:
            check()
        except Exception as found:  # raised below
            error = found
    # not the errors: some cannot be pickled
    messages = all_gather_object(None if error is None else str(error))
    if error is not None:
        raise error
    message = next((m for m in messages if m is not None), None)
    if message is not None:
        raise UserError(f'on another rank: {message}')


def check_same_file(path: Optional[str]) -> None:
    """Check that all ranks load the same file, bit by bit.

    mmengine loads a checkpoint on each rank, from the disk of its own machine,
    and nothing copies the weights of rank 0 to the others after that. With
    different files each rank would train its own weights by the mean of all
    gradients, and a metric would be that of several models.

    Raises:
        ValueError: On all ranks, if one has another file.
    """
    here = path and os.path.isfile(path)
    ours = socket.gethostname(), path if here else None
    starts = all_gather_object((*ours, _checksum(path) if here else None))
    host, path, checksum = starts[0]
    for rank, (other, theirs, found) in enumerate(starts):
        if found != checksum:
            same_name = theirs and theirs == path
            raise UserError(
                f'rank 0 on {host} starts from {path or "no checkpoint"}, and '
                f'rank {rank} on {other} from '
                f'{theirs or "none"}{", which differs" * bool(same_name)}: '
                'work_dir and load_from have to be the same on all machines, '
                'such as on a shared file system')


def check_shared_folder(loop: Optional[BaseLoop]) -> None:
    """Check that all ranks see the folder that metrics collect results in.

    mmengine's write files below the current directory of each rank, and rank 0
    reads them. Without a shared one, training would end at a validation.

    Args:
        loop: Whose metrics collect, None where there is no validation.

    Raises:
        ValueError: On all ranks, if one does not see the files of rank 0.
    """
    metrics = getattr(getattr(loop, 'evaluator', None), 'metrics', ())
    if not any(metric.collect_device == 'cpu' and not metric.collect_dir
               for metric in metrics):
        return
    name = [f'{UNFINISHED}{uuid4().hex}']
    broadcast_object_list(name)
    file = Path(name[0])
    agree(file.touch, main_only=True)
    ranks = all_gather_object(
        (socket.gethostname(), os.getcwd(), file.exists()))
    if is_main_process():
        file.unlink()
    for rank, (host, folder, sees) in enumerate(ranks):
        if not sees:
            raise UserError(
                f'rank {rank} on {host} runs in {folder}, which is not the '
                f'{ranks[0][1]} of rank 0 on {ranks[0][0]}. mmengine collects '
                'results for metrics there: start all machines in one folder '
                'of a shared file system')


def _checksum(path: str) -> int:
    with open(path, 'rb') as file:
        total = 0
        while block := file.read(2**24):
            total = zlib.crc32(block, total)
    return total
