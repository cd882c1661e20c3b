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
from typing import Iterator, List, Optional, Tuple

import cv2
import mmcv
import numpy as np
import torch
from mmengine.device import get_device
from mmengine.utils import track_iter_progress

from ..utils.checkpoint import load_model
from ..utils.errors import MissingFileError, UserError
from ..utils.files import make_folder, new_file
from ..utils.options import at_least, device
from ..visualization.attribution import STEPS, attribute_context
from ..visualization.draw import draw_shares, paint, save_picture
from ..visualization.explorer import explorer
from ..visualization.pair_shares import attribute_pairs
from ..visualization.reader import Reader, find_images, read_image

SMALLEST = 0.005  # of the image: regions that are explained by default
Question = Tuple[np.ndarray, Optional[int]]  # region (H, W), class


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
        FileNotFoundError, ValueError: If it is none, empty, or of another
            size than the image.
    """
    if not Path(path).is_file():
        raise MissingFileError(f'--mask {path} is not a file')
    mask = read_image(path).any(2)
    if mask.shape != shape:
        raise UserError(f'--mask {path} is of the size {mask.shape}, its '
                        f'image of {shape}')
    if not mask.any():
        raise UserError(f'--mask {path} has no pixel above zero')
    return mask


def class_index(option: str, name: str, classes: List[str]) -> int:
    """Return the index of a class by its name.

    Raises:
        ValueError: If there is no such class.
    """
    if name not in classes:
        raise UserError(f'{option} must be one of {", ".join(classes)}, got '
                        f'{name!r}')
    return [*classes].index(name)


def questions(arguments: argparse.Namespace, labels: np.ndarray,
              classes: List[str]) -> Iterator[Question]:
    """Yield the regions to explain in an image, and their classes.

    Args:
        arguments: Of the command.
        labels: The prediction, (H, W).
        classes: Names.
    """
    name = arguments.class_name
    index = class_index('--class', name, classes) if name else None
    if arguments.mask:
        yield read_mask(arguments.mask, labels.shape), index
    elif arguments.at:
        x, y = arguments.at
        yield region_at(labels, x, y), labels[y, x] if index is None else index
    elif index is not None:
        yield largest_region(labels, index), index
    else:
        for found in np.unique(labels):
            region = largest_region(labels, found)
            if region.mean() >= SMALLEST:
                yield region, int(found)


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
        metavar=('X', 'Y'),
        help='explain the region that is predicted at this pixel')
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
        FileNotFoundError, ValueError: naming what does not fit.
    """
    images = find_images(arguments.images)
    model = load_model(arguments.config,
                       arguments.checkpoint).to(arguments.device)
    reader = Reader(model.cfg, None)
    classes = reader.dataset.metainfo['classes']
    against = None
    if arguments.against:
        against = class_index('--against', arguments.against, classes)
    out = make_folder(arguments.out)
    lines = []
    for path in track_iter_progress(images):
        data, image = reader(path), read_image(path)
        labels = model.test_step(data)[0].pred_sem_seg.data[0].cpu().numpy()
        size = data['inputs'][0].shape[1:]
        rows = []
        for region, index in questions(arguments, labels, classes):
            if against is not None and index == against:
                raise UserError(
                    f'--against must be another class than that of the '
                    f'region, got {arguments.against!r} for both')
            # the model may read the image at another size
            small = mmcv.imresize(
                region.astype(np.uint8), size[::-1], interpolation='nearest')
            shares = attribute_context(
                model, data,
                torch.from_numpy(small).bool(), None if index is None else
                (int(index), against), arguments.steps)
            rows.append((region, shares))
            first, second = (classes[i] for i in shares.classes)
            lines.append(f'{Path(path).name}: {first} over {second}: margin '
                         f'{shares.margin:.2f}, context changed it by '
                         f'{shares.change:+.2f}, error of the sum '
                         f'{100 * shares.error:.3f} %')
        meta = reader.dataset.metainfo
        painted = paint(image, labels, meta)
        file = out / f'{Path(path).stem}.png'
        save_picture(draw_shares(image, painted, rows, classes), file)
        if arguments.html:
            pairs = attribute_pairs(model, data)
            content = explorer(
                Path(path).name, image, painted, pairs, meta, arguments.at)
            with new_file(file.with_suffix('.html')) as page:
                page.write_text(content, encoding='utf-8')
            lines.append(f'{Path(path).name}: {pairs.margin.numel()} places '
                         'to point at, error of the sums at most '
                         f'{100 * pairs.error.max():.3f} %')
    print('\n' + '\n'.join(lines))
    print(f'{len(images)} pages in {out}')
