"""``python -m cac_mmseg explain``: where a prediction got its context from.

A page per image: the region that is asked about, the prediction, and maps of
what each position's context contributed to the margin of the region's class
over another one, through the predicted kernels, through the pooled branch, and
together. Red speaks for the class, blue against it; the map adds up to what
context changed. By default a row for the largest region of each predicted
class; images are read in one piece. With --html there is a page for a browser,
too, to point at any place of an image.
"""
import argparse
from pathlib import Path
from typing import Iterator, NamedTuple, Optional, Sequence, Tuple

import cv2
import mmcv
import numpy as np
import torch
from mmengine.device import get_device
from mmengine.utils import track_iter_progress

from ..attribution.pairs import attribute_pairs
from ..attribution.paths import Recording, record
from ..attribution.shares import STEPS, ContextShares, attribute_context
from ..drawing.draw import paint, save_picture
from ..drawing.draw_shares import draw_shares
from ..drawing.explorer import explorer
from ..drawing.reader import Reader, Sample, blamed_on, label_map
from ..errors import MissingFileError, UserError
from ..stack.checkpoint import load_model
from ..stack.config import dataset_without_data, load_config
from ..stack.files import check_folder, find_images, make_folder, new_file
from ..stack.words import counted
from .options import at_least, device

SMALLEST = 0.005  # of the image: regions that are explained by default


class Question(NamedTuple):
    """A region (H, W), and the class that is asked about in it.

    ``against`` is the class that it is compared with, None for the runner-up.
    """
    region: np.ndarray
    index: Optional[int]
    against: Optional[int]


def largest_region(labels: np.ndarray, index: int) -> np.ndarray:
    """Return the largest connected region of a class, (H, W), bool.

    Raises:
        ValueError: If the class is nowhere.
    """
    count, parts, stats, _ = cv2.connectedComponentsWithStats(
        (labels == index).astype(np.uint8))
    if count < 2:
        raise UserError('--class: no pixel is predicted as it; use --at or '
                        '--mask to say where')
    return parts == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()


def region_at(labels: np.ndarray, x: int, y: int) -> np.ndarray:
    """Return the connected region of the class at a pixel, (H, W), bool.

    Raises:
        ValueError: If the pixel is outside of the image.
    """
    height, width = labels.shape
    if not (0 <= x < width and 0 <= y < height):
        raise UserError(f'--at must be within the image, 0 to {width - 1} '
                        f'and 0 to {height - 1}, got {x} {y}')
    _, parts = cv2.connectedComponents((labels == labels[y,
                                                         x]).astype(np.uint8))
    return parts == parts[y, x]


def read_mask(path: str, shape: Tuple[int, int]) -> np.ndarray:
    """Read a mask, whose non-zero pixels are the region, (H, W), bool.

    Raises:
        UserError: If it is none, empty, or of another size than the image.
    """
    if not Path(path).is_file():
        raise MissingFileError(f'--mask {path} is not a file')
    try:
        picture = mmcv.imread(path)  # without an alpha channel
    except Exception:  # of any decoder
        picture = None
    if picture is None:
        raise UserError(f'--mask {path} cannot be read as an image')
    mask = picture.any(2)
    if mask.shape != shape:
        raise UserError(f'--mask {path} is of the size {mask.shape}, its '
                        f'image of {shape}')
    if not mask.any():
        raise UserError(f'--mask {path} has no pixel above zero')
    return mask


def class_index(option: str, name: Optional[str],
                classes: Sequence[str]) -> Optional[int]:
    """Return the index of a class by its name, None without one.

    Raises:
        UserError: If there is no such class.
    """
    if name is None:
        return None
    if name not in classes:
        raise UserError(f'{option} must be one of {", ".join(classes)}, got '
                        f'{name!r}')
    return [*classes].index(name)


def questions(arguments: argparse.Namespace, labels: np.ndarray,
              classes: Sequence[str]) -> Iterator[Question]:
    """Yield what is asked about an image.

    Regions of the class that others are compared with are left out.

    Args:
        arguments: Of the command.
        labels: The prediction, (H, W).
        classes: Names.

    Raises:
        UserError: If a region that is asked for is not in the image.
    """
    index = class_index('--class', arguments.class_name, classes)
    against = class_index('--against', arguments.against, classes)
    if arguments.mask:
        found = [(read_mask(arguments.mask, labels.shape), index)]
    elif arguments.at:
        found = [(region_at(labels, x, y),
                  int(labels[y, x]) if index is None else index)
                 for x, y in arguments.at]
    elif index is not None:
        found = [(largest_region(labels, index), index)]
    else:
        regions = [(largest_region(labels, i), int(i))
                   for i in np.unique(labels)]
        found = [pair for pair in regions if pair[0].mean() >= SMALLEST]
    for region, index in found:
        if against is None or index != against:
            yield Question(region, index, against)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add('config', help='such as configs/cac_r18_camvid.py')
    add('checkpoint', help='such as work_dirs/NAME/iter_1000.pth')
    add('images', nargs='+', metavar='IMAGE', help='or folders of images')
    add('--out', required=True, metavar='DIR', help='gets IMAGE.png for each')
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        '--at',
        type=int,
        nargs=2,
        action='append',
        metavar=('X', 'Y'),
        help='explain the region that is predicted at this pixel; repeated, a '
        'row for each')
    where.add_argument(
        '--mask',
        metavar='FILE',
        help='explain the region of the pixels above zero')
    add('--class',
        dest='class_name',
        metavar='NAME',
        help='explain this class (default: the predicted one); alone, its '
        'largest region')
    add('--against',
        metavar='NAME',
        help='the class it is compared with (default: the runner-up)')
    add('--html',
        action='store_true',
        help='also write IMAGE.html, a file that needs no network')
    add('--steps',
        type=at_least(1),
        default=STEPS,
        help='of the integral, for models without a closed form (default: '
        '%(default)s)')
    add('--device',
        type=device,
        default=get_device(),
        help='default: %(default)s')


def run(arguments: argparse.Namespace) -> None:
    """Write the pages, and print the numbers.

    Raises:
        UserError: naming what does not fit.
    """
    reader = Reader(dataset_without_data(load_config(arguments.config)))
    images = find_images(arguments.images, reader.suffixes[0])
    check_classes(arguments, reader.meta['classes'])
    check_folder(arguments.out)
    model = load_model(arguments.config,
                       arguments.checkpoint).to(arguments.device)
    out = make_folder(arguments.out)
    lines, skipped = [], []
    for path in track_iter_progress(images):
        sample = reader.read(path)
        with blamed_on(path):
            recording = record(model, reader.batch(sample))
            labels = label_map(recording.predict().pred_sem_seg)
        try:
            asked = [*questions(arguments, labels, reader.meta['classes'])]
        except UserError as error:  # the next image may have it
            skipped.append(f'{Path(path).name}: {error}')
            continue
        rows = [(question.region, answer(recording, question, arguments.steps))
                for question in asked]
        file = out / f'{Path(path).stem}.png'
        save_picture(draw_shares(sample.rgb, labels, rows, reader.meta), file)
        lines += [
            f'{Path(path).name}: {line}'
            for line in numbers(rows, reader.meta['classes'])
        ]
        if arguments.html:
            lines.append(
                write_page(recording, sample, labels, reader.meta,
                           file.with_suffix('.html'),
                           (arguments.at or [None])[0]))
    print()
    if len(skipped) == len(images):
        raise UserError('\n'.join(skipped))
    print('\n'.join([*lines, *skipped]))
    print(f'{counted(len(images) - len(skipped), "page")} in {out}')


def check_classes(arguments: argparse.Namespace,
                  classes: Sequence[str]) -> None:
    """Check the classes that are asked about, before a model is built.

    Raises:
        UserError: naming the option.
    """
    index = class_index('--class', arguments.class_name, classes)
    against = class_index('--against', arguments.against, classes)
    if index is not None and index == against:
        raise UserError(f'--against must be another class than --class, got '
                        f'{arguments.against!r} for both')


def answer(recording: Recording, question: Question,
           steps: int) -> ContextShares:
    """Attribute the margin that a question asks about."""
    size = recording.data['inputs'][0].shape[1:]
    # the model may read the image at another size
    region = mmcv.imresize(
        question.region.astype(np.float32),
        size[::-1],
        interpolation='nearest') > 0
    if not region.any():  # smaller than a pixel there
        region = mmcv.imresize(
            question.region.astype(np.float32),
            size[::-1],
            interpolation='area') > 0
    classes = None if question.index is None else (question.index,
                                                   question.against)
    return attribute_context(recording, torch.from_numpy(region), classes,
                             steps)


def numbers(rows: Sequence[Tuple[np.ndarray, ContextShares]],
            classes: Sequence[str]) -> Iterator[str]:
    """Yield a line for each region."""
    if not rows:
        yield 'no region to explain'
    for _, shares in rows:
        first, second = (classes[i] for i in shares.classes)
        yield (f'{first} over {second}: margin {shares.margin:.2f}, context '
               f'changed it by {shares.change:+.2f}, error of the sum '
               f'{100 * shares.error:.3f} %')


def write_page(recording: Recording, sample: Sample, labels: np.ndarray,
               meta: dict, file: Path, at: Optional[Tuple[int, int]]) -> str:
    """Write the page for a browser, and return a line about it."""
    pairs = attribute_pairs(recording)
    name = Path(sample.path).name
    painted = paint(sample.rgb, labels, meta)
    content = explorer(name, sample.rgb, painted, pairs, meta, at)
    with new_file(file) as page:
        page.write_text(content, encoding='utf-8')
    return (f'{name}: {counted(pairs.margin.numel(), "place")} to point at, '
            'error of the sums at most '
            f'{100 * pairs.error.max():.3f} %')
