"""``python -m cac_mmseg publish``: slim weights that are safe to load.

Keeps the weights and the plain values of the meta (classes, palette, config,
iteration), drops the optimizer and the log, and puts the start of the file's
SHA-256 into its name: OUT.pth becomes OUT-1a2b3c4d.pth. mmseg's
``publish_model`` keeps the log, with which ``weights_only=True`` fails.
"""
import argparse
import hashlib
import io
from pathlib import Path
from typing import Union

import torch
from torch import Tensor

from ..errors import UserError
from ..stack.checkpoint import load_weights
from ..stack.files import check_writable, new_file

STATISTICS = 'running_mean', 'running_var'


def publish(checkpoint: Union[str, Path],
            out: Union[str, Path],
            half: bool = False) -> Path:
    """Write the weights of a checkpoint to a file named by its hash.

    Args:
        checkpoint: A file written in training.
        out: Where to, without the hash; ``.pth`` is optional.
        half: Whether parameters are rounded to float16. A model takes them in
            its own type. Statistics of norms stay: those of small kernels have
            variances that float16 rounds to zero.

    Returns:
        The file, which ``torch.load(file, weights_only=True)`` reads, and so
        every mmseg.

    Raises:
        FileNotFoundError, ValueError: If the checkpoint cannot be read, as in
            :func:`cac_mmseg.stack.checkpoint.load_weights`, or the folder
            of out cannot be written to, or weights do not fit float16. No
            file is left behind.
    """
    out = Path(out)
    check_writable(out)
    content = load_weights(checkpoint)
    if half:
        content['state_dict'] = {
            name: _halved(name, value)
            for name, value in content['state_dict'].items()
        }
    buffer = io.BytesIO()  # to a full disk, torch would fail deep inside
    torch.save(content, buffer)
    digest = hashlib.sha256(buffer.getbuffer()).hexdigest()[:8]
    target = out.parent / f'{out.name.removesuffix(".pth")}-{digest}.pth'
    with new_file(target) as file:
        file.write_bytes(buffer.getbuffer())
    return target


def _halved(name: str, value: Tensor) -> Tensor:
    if not value.is_floating_point() or name.endswith(STATISTICS):
        return value
    rounded = value.half()
    if not rounded.isfinite().all():
        raise UserError(f'--half: {name} has values beyond those of float16, '
                        '65504: publish without it')
    return rounded


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('checkpoint', help='such as work_dirs/NAME/iter_1.pth')
    parser.add_argument('out', help='such as cac_r50_cityscapes.pth')
    parser.add_argument(
        '--half',
        action='store_true',
        help='parameters in float16: half the size')


def run(arguments: argparse.Namespace) -> None:
    """Publish, and print where.

    Raises:
        FileNotFoundError, ValueError: See :func:`publish`.
    """
    target = publish(arguments.checkpoint, arguments.out, arguments.half)
    before = Path(arguments.checkpoint).stat().st_size
    after = target.stat().st_size
    print(f'{target}: {after / 2**20:.1f} MiB, of {before / 2**20:.1f}')
