"""Write a network to a file, and compare what the file computes."""
import io
import json
import logging
import re
import warnings
from contextlib import contextmanager, redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from typing import (Any, Callable, Dict, Iterator, List, Optional, Sequence,
                    Union)

import torch
from torch import Tensor

from ..errors import UserError
from ..ops import decomposed
from ..stack.files import check_writable, new_file
from .network import Network
from .runtime import METADATA

TOLERANCE = 1e-4  # of the largest logit: a difference that is accepted
FORMATS = ('.onnx', '.pt2')
PACKAGES = ('onnx', 'onnxscript', 'onnxruntime')
AXES = {0: 'batch', 2: 'height', 3: 'width'}
Function = Callable[[Tensor], Tensor]


@torch.no_grad()
def export(network: Network,
           reference: Network,
           out: Union[str, Path],
           shape: Sequence[int],
           facts: Dict[str, Any],
           fixed: Sequence[int] = (),
           opset: Optional[int] = None) -> float:
    """Write a network to a file that says what it is.

    Args:
        network: What to write, in evaluation mode.
        reference: What the file is compared with.
        out: A file that ends on ``.onnx`` or ``.pt2``.
        shape: (B, C, H, W) of the image to export with.
        facts: What the file says of itself.
        fixed: Axes of the image whose size stays the one of ``shape``; of
            0, 2 and 3.
        opset: Of ONNX, the exporter's own if None.

    Returns:
        The largest difference from the reference over its largest score, of
        three images, two of them of other sizes along axes that are not fixed.

    Raises:
        UserError: As :func:`check_out`; if PyTorch cannot export it, or scores
            are not finite, or differ by more than 1e-4 of the largest. No file
            is left behind.
    """
    out = Path(out)
    check_out(out)
    write = _write_onnx if out.suffix == '.onnx' else _write_program
    free = {axis: name for axis, name in AXES.items() if axis not in fixed}
    with new_file(out) as file:
        try:
            with _quiet():
                predict = write(network, file, network.example(shape), free,
                                json.dumps(facts), opset)
        except Exception as error:  # of any module, of PyTorch's exporters
            reason = _reason(error)
            # the words of torch.export for a size that became a constant
            sizes = re.search('onstrain|dynamic shape|uard', reason)
            hint = _hint(free) if sizes and 'data-dep' not in reason else ''
            raise UserError(
                f'the model cannot be exported{hint}: {reason}') from error
        differences = []
        for other in _shapes(shape, free):
            try:
                differences.append(
                    compare(predict, reference, reference.example(other)))
            except Exception as error:  # a difference, or of either runtime
                hint = _hint(free) if other[2:] != [*shape[2:]] else ''
                raise UserError(f'{out.name} is not written{hint}: '
                                f'{_reason(error)}') from error
        return max(differences)


def _reason(error: BaseException) -> str:
    """Return what is wrong: exporters wrap it, in steps and in colours."""
    while error.__cause__:
        error = error.__cause__
    text = re.sub(r'\x1b\[\d*m', '', str(error))
    name = '' if type(error) is AssertionError else f'{type(error).__name__}: '
    return name + ' '.join(text.split())[:300]


def _hint(free: Dict[int, str]) -> str:
    """Return the options that make constants of what is free."""
    options = ['--batch 1'] * (0 in free) + ['--static'] * (2 in free)
    return f' (try {" or ".join(options)})' if options else ''


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what PyTorch's exporters print: steps, graphs, old calls."""
    disabled = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter('ignore', FutureWarning)
            yield
    finally:
        logging.disable(disabled)


def _shapes(shape: Sequence[int], free: Dict[int, str]) -> List[List[int]]:
    """Of images to compare with: the one that is exported with, and others."""
    b, c, h, w = shape
    return [[(new if axis in free else old)
             for axis, (new, old) in enumerate(zip(other, shape))]
            for other in (shape, (1, c, h + 41, w - 23), (b + 1, c,
                                                          h // 2 + 15, w + 7))]


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
    if out.suffix == '.onnx' and not all(map(find_spec, PACKAGES)):
        raise UserError(f'{out} needs {", ".join(PACKAGES)}: pip install '
                        f'{" ".join(PACKAGES)} (the extra "export")')


def compare(predict: Function, network: Network, image: Tensor) -> float:
    """Return the largest difference of a file's scores, over the largest.

    Of classes it is how far the logit of the file's class is below the best.

    Raises:
        AssertionError: If scores are NaN or infinite, or differ by more than
            ``TOLERANCE`` of the largest.
    """
    found, expected = predict(image), network(image)
    if network.output == 'classes':
        margins = network.margins(image)  # equal but for rounding may change
        found = margins.gather(1, found.long().unsqueeze(1))
        expected = margins.amax(1, keepdim=True)
    for scores, of in ((expected, 'the model'), (found, 'the file')):
        if not scores.isfinite().all():
            raise AssertionError(f'for a random image, the scores of {of} are '
                                 'NaN or infinite')
    largest = expected.abs().max().item()
    torch.testing.assert_close(
        found,
        expected,
        rtol=0,
        atol=TOLERANCE * largest,
        msg=lambda text: 'its scores would differ from those of the model, '
        f'which reach {largest:.1e}: {" ".join(text.split())}')
    return (found - expected).abs().max().item() / (largest or 1.)


def _write_onnx(network: Network, file: Path, image: Tensor, free: Dict[int,
                                                                        str],
                facts: str, opset: Optional[int]) -> Function:
    import onnxruntime  # optional

    program = torch.onnx.export(
        network, (image, ),
        dynamo=True,
        opset_version=opset,
        dynamic_shapes=(free, ) if free else None,
        input_names=['image'],
        output_names=[network.output],
        verbose=False)
    model = program.model
    if opset and model.opset_imports[''] != opset:
        raise ValueError(f'PyTorch writes opset {model.opset_imports[""]}, '
                         f'and cannot convert it to {opset}')
    model.metadata_props.clear()
    model.metadata_props[METADATA] = facts
    # where the exporter's code lies on this machine
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
    program.save(str(file))
    if len([*file.parent.iterdir()]) > 1:
        raise ValueError('it is larger than the 2 GiB of a single ONNX file: '
                         'write a .pt2')
    session = onnxruntime.InferenceSession(
        str(file), providers=['CPUExecutionProvider'])
    return lambda x: torch.from_numpy(
        session.run(None, dict(image=x.numpy()))[0])


def _write_program(network: Network, file: Path, image: Tensor,
                   free: Dict[int, str], facts: str,
                   opset: Optional[int]) -> Function:
    dynamic = {axis: torch.export.Dim.DYNAMIC for axis in free}
    program = torch.export.export(
        network, (image, ), dynamic_shapes=(dynamic, ))
    # what is not rewritten loads where this package is not installed
    ops = torch.ops.cac_mmseg
    program = program.run_decompositions({
        ops.reweight.default:
        decomposed.reweight,
        ops.pool_queries.default:
        decomposed.pool_queries
    })
    for node in program.graph.nodes:
        for name in ('stack_trace', 'nn_module_stack', 'source_fn_stack'):
            node.meta.pop(name, None)
    buffer = io.BytesIO()  # to a full disk, torch would end the process
    torch.export.save(program, buffer, extra_files={METADATA: facts})
    file.write_bytes(buffer.getbuffer())
    return torch.export.load(file).module()
