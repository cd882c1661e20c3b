"""``python -m cac_mmseg visualize``: a page per image, for visualisation.

Image, prediction, ground truth (with --labels) and, for the channels of the
CaC modules whose weights vary most over the image, the weights W of each
dilation, their sum, and the predicted kernels D.
"""
import argparse
from pathlib import Path
from typing import Optional, Sequence, Tuple

from mmengine.device import get_device
from mmengine.utils import track_iter_progress

from ..utils.checkpoint import load_model
from ..utils.errors import MissingFileError, UserError
from ..utils.files import make_folder
from ..utils.options import at_least, device
from ..visualization.context import context_modules
from ..visualization.draw import save_picture
from ..visualization.page import page
from ..visualization.reader import Reader, find_images, is_there

WEIGHTS = ('.pth', '.pt')


def _split(files: Sequence[str]) -> Tuple[Optional[str], Sequence[str]]:
    """Return the checkpoint, if the first of the files is one, and the rest.
    """
    if files[0].endswith(WEIGHTS):
        return files[0], files[1:]
    return None, files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add('config', help='such as configs/cac_r18_camvid.py')
    add('files',
        nargs='+',
        metavar='FILE',
        help='a checkpoint (.pth; without one, weights are random), then '
        'images or folders of images')
    add('--out', required=True, metavar='DIR', help='gets IMAGE.png for each')
    add('--labels',
        metavar='DIR',
        help='folder of the ground truth, named as in the data set')
    add('--top',
        type=at_least(1),
        default=4,
        metavar='N',
        help='draw the N channels whose weights vary most (default: 4)')
    add('--channels',
        type=at_least(0),
        nargs='+',
        metavar='C',
        help='draw these channels of every module instead')
    add('--device',
        type=device,
        default=get_device(),
        help='default: %(default)s')


def run(arguments: argparse.Namespace) -> None:
    """Write the pages, and print where.

    Raises:
        FileNotFoundError, ValueError: naming what does not fit; pages that
            were written before remain.
    """
    checkpoint, files = _split(arguments.files)
    if not files:
        raise UserError(f'no IMAGE is given, only {checkpoint}')
    images = find_images(files)
    model = load_model(arguments.config, checkpoint).to(arguments.device)
    reader = Reader(model.cfg, arguments.labels)
    missing = [
        reader.label_path(image) for image in images
        if arguments.labels and not is_there(reader.label_path(image))
    ]
    if missing:
        raise MissingFileError(
            f'{len(missing)} label maps are missing: {missing[0]}' + ', ...' *
            (len(missing) > 1))
    if not checkpoint:
        print('no checkpoint is given: the weights are random')
    if not context_modules(model):
        print('the model has no CaCModule: there are no weights to draw')
    out = make_folder(arguments.out)
    for image in track_iter_progress(images):
        data = reader(image)
        picture = page(model, data,
                       model.test_step(data)[0], reader.dataset.metainfo,
                       arguments.top, arguments.channels)
        save_picture(picture, out / f'{Path(image).stem}.png')
    print(f'\n{len(images)} pages in {out}')
