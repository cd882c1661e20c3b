"""``python -m cac_mmseg export``: a model as a file that runs without mmseg.

From a normalised image to logits of the image's size; batch, height and width
stay dynamic. OUT.onnx is for ONNX Runtime and the like (standard operators
only), OUT.pt2 for ``torch.export.load``. The file is compared with the model
at other sizes than it was exported with, and not written if they differ.
"""
import argparse
import io
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Callable, Iterator, Tuple, Union

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError
from ..ops import decomposed
from ..stack.checkpoint import load_model
from ..stack.files import check_writable, new_file
from .options import at_least

TOLERANCE = 1e-4  # of the largest logit: a difference that is accepted
FORMATS = ('.onnx', '.pt2')
SMALLEST = 64  # side of an image: the checked sizes are smaller still


class Network(nn.Module):
    """Backbone, decode head, and logits at the size of the image."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, C, H, W), normalised, to logits (B, classes, H, W)."""
        logits = self.model(image, mode='tensor')
        return F.interpolate(
            logits,
            size=image.shape[2:],
            mode='bilinear',
            align_corners=self.model.align_corners)


def build(config: Union[str, Path], checkpoint: Union[str, Path]) -> Network:
    """Build the network of :func:`cac_mmseg.stack.checkpoint.load_model`."""
    return Network(load_model(config, checkpoint)).eval()


@torch.no_grad()
def export(network: nn.Module,
           out: Union[str, Path],
           size: Tuple[int, int],
           channels: int = 3) -> float:
    """Write a network to a file, and compare what the file computes.

    Args:
        network: Maps (B, C, H, W) to (B, classes, H, W).
        out: A file that ends on ``.onnx`` or ``.pt2``.
        size: H and W of the image to export with.
        channels: C.

    Returns:
        The largest difference from the network, of two other sizes and two
        batches.

    Raises:
        UserError: As :func:`check_out`; if PyTorch cannot export it, or logits
            are not finite, or differ by more than 1e-4 of the largest. No file
            is left behind.
    """
    out = Path(out)
    check_out(out)
    write = _write_onnx if out.suffix == '.onnx' else _write_program
    h, w = size
    with new_file(out) as file:
        c = channels
        try:
            predict = write(network, file, torch.randn(2, c, h, w))
        except Exception as error:  # of any module, of PyTorch's exporters
            reason = ' '.join(str(error).split())[:300]
            raise UserError(f'the model cannot be exported: '
                            f'{type(error).__name__}: {reason}') from error
        try:
            return max(
                compare(predict, network, torch.randn(shape))
                for shape in ((1, c, h + 40, w - 24), (3, c, h // 2 + 16,
                                                       w + 8)))
        except AssertionError as error:
            raise UserError(f'{out} is not written: {error}') from error


def check_out(out: Path) -> None:
    """Check what can be checked before a model is built.

    Raises:
        UserError: If the ending of the file is unknown, its folder cannot be
            written to, or a package is missing, with the command to install
            it.
    """
    if out.suffix not in FORMATS:
        raise UserError(f'--out must end on {" or ".join(FORMATS)}, got '
                        f'{out.name}')
    check_writable(out)
    packages = ('onnx', 'onnxscript', 'onnxruntime')
    if out.suffix == '.onnx' and not all(map(find_spec, packages)):
        raise UserError(f'{out} needs {", ".join(packages)}: pip install '
                        f'{" ".join(packages)}')


def compare(predict: Callable[[Tensor], Tensor], network: nn.Module,
            image: Tensor) -> float:
    """Return the largest difference of two networks' logits.

    Raises:
        AssertionError: If logits are NaN or infinite, or differ by more than
            ``TOLERANCE`` of the largest.
    """
    found, expected = predict(image), network(image)
    for logits, of in ((expected, 'the model'), (found, 'the file')):
        if not logits.isfinite().all():
            raise AssertionError(f'for a random image, the logits of {of} are '
                                 'NaN or infinite')
    largest = expected.abs().max().item()
    torch.testing.assert_close(
        found,
        expected,
        rtol=0,
        atol=TOLERANCE * largest,
        msg=lambda text: 'its logits would differ from those of the model, '
        f'which reach {largest:.1e}: {" ".join(text.split())}')
    return (found - expected).abs().max().item()


def _write_onnx(network: nn.Module, file: Path,
                image: Tensor) -> Callable[[Tensor], Tensor]:
    import onnxruntime  # optional
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
        UserError: See :func:`export`.
    """
    check_out(Path(arguments.out))
    print(f'building {arguments.config}', flush=True)
    network = build(arguments.config, arguments.checkpoint)
    print(f'exporting and comparing {arguments.out}', flush=True)
    backbone = network.model.cfg.model.backbone
    difference = export(network, arguments.out, tuple(arguments.size),
                        backbone.get('in_channels', 3))
    print(f'{arguments.out}: {Path(arguments.out).stat().st_size / 2**20:.1f} '
          f'MiB, logits within {difference:.1e} of the model at other sizes')
    for line in how_to_use(network.model):
        print(line)


def how_to_use(model: nn.Module) -> Iterator[str]:
    """Yield what turns logits into classes as mmseg's test does."""
    head = model.decode_head
    head = head[-1] if isinstance(head, nn.ModuleList) else head
    if head.out_channels == 1:
        threshold = math.log(head.threshold / (1 - head.threshold))
        yield (f'classes: logits[:, 0] > {threshold:.4f}, a probability above '
               f'{head.threshold}')
    else:
        yield 'classes: logits.argmax(1)'
    if model.test_cfg.get('mode', 'whole') == 'slide':
        window, stride = model.test_cfg.crop_size, model.test_cfg.stride
        yield (f"the config tests in windows (mode='slide') of {window}, "
               f'{stride} apart, and averages logits where they overlap. The '
               'file predicts what it is given in one piece: give it such '
               'windows for the same result')
