"""``python -m cac_mmseg export``: a model as a file that runs without mmseg.

From a normalised image to logits of the image's size; batch, height and width
stay dynamic. OUT.onnx is for ONNX Runtime and the like (standard operators
only), OUT.pt2 for ``torch.export.load``. The file is compared with the model
at other sizes than it was exported with, and not written if they differ.
"""
import argparse
import io
from pathlib import Path
from typing import Callable, Tuple, Union

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..ops import decomposed
from ..utils.checkpoint import load_model
from ..utils.errors import UserError
from ..utils.files import new_file
from ..utils.options import at_least

TOLERANCE = 1e-3  # the largest difference of a logit that is accepted
FORMATS = ('.onnx', '.pt2')
SMALLEST = 64  # side of an image: the checked sizes are smaller still


class Network(nn.Module):
    """Backbone, decode head, and logits at the size of the image."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 3, H, W), normalised, to logits (B, classes, H, W)."""
        logits = self.model(image, mode='tensor')
        return F.interpolate(
            logits,
            size=image.shape[2:],
            mode='bilinear',
            align_corners=self.model.align_corners)


def build(config: Union[str, Path], checkpoint: Union[str, Path]) -> Network:
    """Build the network of :func:`cac_mmseg.utils.checkpoint.load_model`."""
    return Network(load_model(config, checkpoint)).eval()


@torch.no_grad()
def export(network: nn.Module, out: Union[str, Path],
           size: Tuple[int, int]) -> float:
    """Write a network to a file, and compare what the file computes.

    Args:
        network: Maps (B, 3, H, W) to (B, classes, H, W).
        out: A file that ends on ``.onnx`` or ``.pt2``.
        size: H and W of the image to export with.

    Returns:
        The largest difference from the network, of two other sizes and two
        batches.

    Raises:
        ImportError: If a package is missing, with the command to install it.
        ValueError: If the ending is unknown, the folder cannot be written to,
            or the difference is above 1e-3. No file is left behind.
    """
    out = Path(out)
    if out.suffix not in FORMATS:
        raise UserError(f'--out must end on {" or ".join(FORMATS)}, got '
                        f'{out.name}')
    write = _write_onnx if out.suffix == '.onnx' else _write_program
    h, w = size
    with new_file(out) as file:
        predict = write(network, file, torch.randn(2, 3, h, w))
        difference = 0.
        for shape in ((1, 3, h + 40, w - 24), (3, 3, h // 2 + 16, w + 8)):
            image = torch.randn(shape)
            difference = max(difference, (predict(image) -
                                          network(image)).abs().max().item())
        if not difference <= TOLERANCE:
            raise UserError(f'{out} is not written: its logits would differ '
                            f'by {difference:.1e}, more than {TOLERANCE}')
    return difference


def _write_onnx(network: nn.Module, file: Path,
                image: Tensor) -> Callable[[Tensor], Tensor]:
    try:
        import onnx  # noqa: F401 what torch.onnx needs
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f'{error}: pip install onnx onnxscript onnxruntime') from error
    program = torch.onnx.export(
        network, (image, ),
        dynamo=True,
        dynamic_shapes=_dynamic(),
        input_names=['image'],
        output_names=['logits'],
        verbose=False)
    program.save(str(file))
    session = onnxruntime.InferenceSession(
        str(file), providers=['CPUExecutionProvider'])
    return lambda x: torch.from_numpy(
        session.run(['logits'], dict(image=x.numpy()))[0])


def _write_program(network: nn.Module, file: Path,
                   image: Tensor) -> Callable[[Tensor], Tensor]:
    program = torch.export.export(
        network, (image, ), dynamic_shapes=_dynamic())
    # loads where this package is not installed
    ops = torch.ops.cac_mmseg
    program = program.run_decompositions({
        ops.reweight.default:
        decomposed.reweight,
        ops.pool_queries.default:
        decomposed.pool_queries
    })
    buffer = io.BytesIO()  # to a full disk, torch would end the process
    torch.export.save(program, buffer)
    file.write_bytes(buffer.getbuffer())
    return torch.export.load(file).module()


def _dynamic() -> Tuple[dict]:
    free = torch.export.Dim.DYNAMIC
    return {0: free, 2: free, 3: free},


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add('config', help='such as configs/cac_r50_cityscapes.py')
    add('checkpoint', help='such as work_dirs/NAME/iter_80000.pth')
    add('--out', required=True, help='such as model.onnx or model.pt2')
    add('--size',
        type=at_least(SMALLEST),
        nargs=2,
        default=(256, 512),
        metavar=('H', 'W'),
        help='image to export with; others work too (default: 256 512)')


def run(arguments: argparse.Namespace) -> None:
    """Export, and print how close the file is to the model.

    Raises:
        FileNotFoundError, ImportError, ValueError: See :func:`export`.
    """
    print(f'building {arguments.config}', flush=True)
    network = build(arguments.config, arguments.checkpoint)
    print(f'exporting and comparing {arguments.out}', flush=True)
    difference = export(network, arguments.out, tuple(arguments.size))
    print(f'{arguments.out}: {Path(arguments.out).stat().st_size / 2**20:.1f} '
          f'MiB, logits within {difference:.1e} of the model at other sizes')
