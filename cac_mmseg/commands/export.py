"""``python -m cac_mmseg export``: a model as a file that runs without mmseg.

OUT.onnx is for ONNX Runtime and the like, OUT.pt2 for ``torch.export.load``;
both have standard operators only. Batch, height and width stay dynamic unless
they are fixed. The file says how images are prepared and what its classes are,
and ``python -m cac_mmseg predict`` runs it. It is compared with the model, at
other sizes than it was exported with, and not written if they differ.
"""
import argparse
from pathlib import Path

from ..deploy.facts import facts_of, size_to_fit
from ..deploy.form import inference_form
from ..deploy.network import OUTPUTS, Network, Reference
from ..deploy.runtime import load
from ..deploy.score import compare_scores, first_images, test_split
from ..deploy.smaller import to_float16, to_int8
from ..deploy.write import check_out, export
from ..errors import UserError
from ..stack.checkpoint import load_model
from ..stack.files import new_file
from .options import at_least

SMALLEST = 64  # side of an image: the checked sizes are smaller still
SIZE = 256, 512  # of an image to export with


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add('config', help='such as configs/cac_r50_cityscapes.py')
    add('checkpoint', help='such as work_dirs/NAME/iter_80000.pth')
    add('--out', required=True, help='such as model.onnx or model.pt2')
    add('--output',
        choices=OUTPUTS,
        default='logits',
        help='what the file gives for each pixel (default: logits)')
    add('--raw',
        action='store_true',
        help='the file takes images in uint8 (colours: RGB) and normalises '
        'them')
    add('--size',
        type=at_least(SMALLEST),
        nargs=2,
        metavar=('H', 'W'),
        help='image to export with (default: the window of a config that '
        f'tests in windows, else {SIZE[0]} {SIZE[1]})')
    add('--static',
        action='store_true',
        help='the file takes images of --size only, as some runtimes ask for')
    add('--batch',
        type=at_least(1),
        metavar='N',
        help='the file takes N images at a time (default: any number)')
    add('--opset',
        type=at_least(18),
        metavar='N',
        help="of ONNX (default: the exporter's)")
    smaller = parser.add_mutually_exclusive_group()
    smaller.add_argument(
        '--int8',
        type=at_least(1),
        metavar='N',
        help='quantise an .onnx, calibrated on N training images; prints the '
        'mIoU on the test data, before and after')
    smaller.add_argument(
        '--fp16', action='store_true', help='the same in float16')


def run(arguments: argparse.Namespace) -> None:
    """Export, and print how close the file is to the model.

    Raises:
        UserError: See :func:`cac_mmseg.deploy.write.export`.
    """
    out = Path(arguments.out)
    smaller = bool(arguments.int8) or arguments.fp16
    check_out(out)
    if arguments.static and not arguments.size:
        raise UserError('--static fixes the size of the image: give it by '
                        '--size H W')
    if out.suffix != '.onnx' and (smaller or arguments.opset):
        raise UserError('--int8, --fp16 and --opset need --out FILE.onnx, got '
                        f'{out}')
    print(f'building {arguments.config}', flush=True)
    model = load_model(arguments.config, arguments.checkpoint)
    facts = facts_of(
        model,
        arguments.output,
        arguments.raw,
        size=arguments.size if arguments.static else None,
        batch=arguments.batch or (1 if arguments.static else None),
        precision='int8'
        if arguments.int8 else 'float16' if arguments.fp16 else 'float32')
    for name in facts['others']:
        print(f"the test pipeline's {name} is not repeated by predict: its "
              'results may differ')
    if smaller:
        test_split(model.cfg)
    size = tuple(arguments.size or ())
    if arguments.static and size_to_fit(facts) != size:
        h, w = size_to_fit(facts)
        print(f"no image of the config's test fits --size {size[0]} {size[1]} "
              f'(one of this size becomes {h} x {w}): predict will take none; '
              f'--size {h} {w} would fit')
    images = first_images(model.cfg, 'train', arguments.int8 or 0)
    for image in images if arguments.static else ():
        h, w = size_to_fit(dict(facts, size=image.shape[:2]))
        if (h, w) != size:
            raise UserError(
                f'--int8 {arguments.int8} --static --size {size[0]} {size[1]}'
                f': of a training image of {image.shape[0]} x '
                f'{image.shape[1]} pixels the model is given {h} x {w}')
    form, kept = inference_form(model)
    for name in kept:
        print(f'{name} is exported as it is: a subclass or a hook changes '
              'what it computes')
    network = Network(form, arguments.output, arguments.raw).eval()
    reference = Reference(model, arguments.output, arguments.raw)
    size = size or [
        max(side, SMALLEST)
        for side in (facts['window'] or {}).get('size', SIZE)
    ]
    shape = (facts['batch'] or 2, facts['channels'], *size)
    fixed = (0, ) * bool(facts['batch']) + (2, 3) * arguments.static
    print(f'exporting and comparing {out}', flush=True)
    with new_file(out) as file:
        difference = export(network, reference, file, shape, facts, fixed,
                            arguments.opset)
        print(f'{arguments.output} within {difference:.1e} of the largest, '
              f'at {"its size" if arguments.static else "other sizes too"}')
        if smaller:
            before = load(file)
            to_int8(file, images) if arguments.int8 else to_float16(file)
            print(compare_scores(model, dict(before=before, after=load(file))))
    print(f'{out}: {out.stat().st_size / 2**20:.1f} MiB\n'
          f'python -m cac_mmseg predict {out} IMAGE ... --out DIR')
