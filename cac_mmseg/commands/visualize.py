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

from ..attribution.context import context_modules
from ..drawing.draw import save_picture
from ..drawing.page import page
from ..drawing.reader import Reader, blamed_on
from ..errors import MissingFileError, UserError
from ..stack.checkpoint import load_model
from ..stack.config import dataset_without_data, load_config
from ..stack.files import check_folder, find_images, is_there, make_folder
from ..stack.labels import KINDS, find_faults
from ..stack.words import counted
from .options import at_least, device

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
    reader = Reader(dataset_without_data(load_config(arguments.config)))
    images = find_images(files, reader.suffixes[0])
    missing = [
        path for path in (reader.label_path(image, arguments.labels)
                          for image in images
                          if arguments.labels) if not is_there(path)
    ]
    if missing:
        raise MissingFileError(
            f'--labels {arguments.labels} lacks '
            f'{counted(len(missing), "label map")}: {missing[0]}' + ', ...' *
            (len(missing) > 1))
    check_folder(arguments.out)
    model = load_model(arguments.config, checkpoint).to(arguments.device)
    out = make_folder(arguments.out)
    if not checkpoint:
        print('no checkpoint is given: the weights are random')
    if not context_modules(model):
        print('the model has no CaCModule: there are no weights to draw')
    for image in track_iter_progress(images):
        sample = reader.read(image, arguments.labels)
        for fault in () if sample.labels is None else find_faults(
                sample.labels, [], sample.image.shape[:2]):
            path = reader.label_path(image, arguments.labels)
            raise UserError(f'{path} {fault.detail}. '
                            f'{KINDS[fault.kind].advice}')
        data = reader.batch(sample)
        with blamed_on(image):
            output = model.test_step(data)[0]
            picture = page(model, data, sample.rgb, output, reader.meta,
                           arguments.top, arguments.channels)
        save_picture(picture, out / f'{Path(image).stem}.png')
    print(f'\n{counted(len(images), "page")} in {out}')
