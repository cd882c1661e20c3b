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
from typing import Iterator, Optional, Sequence, Tuple

import mmcv
import numpy as np
import torch
from mmengine.device import get_device
from mmengine.utils import track_iter_progress

from ...attribution.pairs import attribute_pairs
from ...attribution.paths import Recording, record
from ...attribution.shares import STEPS, ContextShares, attribute_context
from ...drawing.draw import paint, save_picture
from ...drawing.draw_shares import draw_shares
from ...drawing.explorer import explorer
from ...drawing.reader import Reader, Sample, blamed_on, label_map
from ...errors import UserError
from ...stack.checkpoint import load_model
from ...stack.config import dataset_without_data, load_config
from ...stack.files import check_folder, find_images, make_folder, new_file
from ...stack.words import counted
from ..options import at_least, device
from .demo import Demo, fill_in, show
from .regions import Question, check_classes, questions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    needed = [
        add('config', help='such as configs/cac_r18_camvid.py'),
        add('checkpoint', help='such as work_dirs/NAME/iter_1000.pth'),
        add('images', nargs='+', metavar='IMAGE', help='or folders of images'),
        add('--out',
            required=True,
            metavar='DIR',
            help='gets IMAGE.png for each')
    ]
    add('--demo',
        action=Demo,
        needed=needed,
        help='explain an image of the Crossing data by a model that comes '
        'along, and open the page: nothing else is needed')
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
    if arguments.demo:
        fill_in(arguments)
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
                           file.with_suffix('.html'), (arguments.at
                                                       or [None])[0]))
    print()
    if len(skipped) == len(images):
        raise UserError('\n'.join(skipped))
    print('\n'.join([*lines, *skipped]))
    print(f'{counted(len(images) - len(skipped), "page")} in {out}')
    if arguments.demo:
        show(out / f'{Path(images[0]).stem}.html')


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
