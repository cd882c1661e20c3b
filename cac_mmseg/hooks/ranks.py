"""What ranks have to agree on before they train."""
import socket
import zlib
from typing import Callable

import torch
import torch.nn as nn
from mmengine.dist import all_gather_object, get_world_size, is_main_process
from mmengine.runner import Runner
from torch.nn.parallel import DistributedDataParallel

from ..errors import UserError


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


def check_same_start(runner: Runner) -> None:
    """Check that all ranks start from the same iteration and weights.

    DDP copies the weights of rank 0 to the others, but mmengine loads a
    checkpoint after that, on each rank from its own machine's disk. Where one
    of them has no checkpoint, or another, every rank would train other
    weights, and the gradients would fit none.

    Raises:
        ValueError: On all ranks, if one differs.
    """
    if get_world_size() == 1:
        return
    model = runner.model
    same = isinstance(model, DistributedDataParallel)  # others may have shards
    starts = all_gather_object(
        (socket.gethostname(), runner.iter, _checksum(model) if same else 0))
    first, *_ = starts
    for rank, start in enumerate(starts):
        if start[1:] != first[1:]:
            differ = f'at iteration {start[1]}, rank 0 at {first[1]}' \
                if start[1] != first[1] else 'from other weights than rank 0'
            raise UserError(
                f'rank {rank} on {start[0]} starts {differ} (on {first[0]}): '
                f'the work_dir {runner.work_dir} and load_from have to be the '
                'same on all machines, such as on a shared file system')


def _checksum(model: nn.Module) -> int:
    """Return a checksum of all parameters, bit by bit."""
    total = 0
    for parameter in model.parameters():
        data = parameter.detach().cpu().contiguous().reshape(-1)
        total = zlib.crc32(data.view(torch.uint8).numpy(), total)
    return total
