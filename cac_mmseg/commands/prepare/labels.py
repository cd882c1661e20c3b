"""``prepare labels``: label maps from the label pictures that you have.

Reads pictures in colours, with a palette, masks of two values, index maps of 8
or 16 bits, in whatever format PIL reads, or a JSON file of COCO; folders keep
their structure. What pixels mean is said by --colours, a file of lines `name r
g b`, `name value` or `name`, where the name `ignore` means 255, or by the data
set of --config, or else found by counting. Writes PNGs of one channel, and
classes.txt, which `init` reads and in which you can rename classes. Label maps
that are there are kept if they fit. Exit status 1 if pixels are of no class or
files failed.
"""
import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Optional

import numpy as np
from mmengine.utils import track_progress_rich

from ...errors import MissingFileError, UserError
from ...stack.classes import (IGNORED, TABLE, ClassTable, read_classes,
                              write_classes)
from ...stack.config import dataset_without_data, load_config
from ...stack.files import check_folder, make_folder
from ...stack.tables import class_table
from ...stack.words import counted
from ..options import add_workers
from .coco import paint_coco, read_coco
from .folder import Converter, check_unknown, count_pictures, find_pictures
from .meaning import find_meaning


def table_of(arguments: argparse.Namespace) -> Optional[ClassTable]:
    """Return the classes of --colours or --config, None without them."""
    if arguments.colours:
        return read_classes(arguments.colours)
    if not arguments.config:
        return None
    dataset = dataset_without_data(load_config(arguments.config))
    names = [*dataset.metainfo['classes']]
    read_as = dataset.label_map or {}
    if dataset.reduce_zero_label or any(
            read_as.get(i, i) != i for i in range(len(names))):
        raise UserError(
            f'the data set of --config {arguments.config} renumbers the labels'
            ' that it reads (reduce_zero_label, or a part of its classes): '
            'give the colours by --colours, and use a config that does not')
    palette = np.array(dataset.metainfo['palette']).tolist()
    keys = {tuple(colour): i for i, colour in enumerate(palette)}
    if len(keys) < len(names):
        raise UserError(f'the palette of --config {arguments.config} has '
                        f'{len(keys)} different colours for {len(names)} '
                        'classes: give the colours by --colours')
    return ClassTable(names, palette, keys)


def settle_classes(path: Path, table: ClassTable) -> ClassTable:
    """Write the table, or return the one that is there if it agrees.

    Names may differ: there they are edited.

    Raises:
        UserError: If it disagrees.
    """
    if not path.exists():
        write_classes(path, table)
        return table
    there = read_classes(path)
    if len(there.names) != len(table.names) or there.keys != table.keys:
        raise UserError(
            f'{path} has other classes ({len(there.names)}) than these '
            f'pictures ({len(table.names)}), or other colours or values of '
            f'them: give --colours {path} if it is right, or another --out')
    return there


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add('--labels',
        required=True,
        type=Path,
        metavar='DIR',
        help='label pictures, or the .json file of COCO')
    add('--out',
        required=True,
        type=Path,
        metavar='DIR',
        help='gets the label maps, and classes.txt')
    tables = parser.add_mutually_exclusive_group()
    tables.add_argument(
        '--colours', metavar='FILE', help='the classes, one a line')
    tables.add_argument(
        '--config', help='whose data set names the classes and their colours')
    add('--unknown',
        choices=('refuse', 'ignore', 'nearest'),
        default='refuse',
        help='what becomes of pixels that the table does not name: nothing is '
        'converted, 255, or the class of the nearest colour (default: refuse)')
    add_workers(parser)


def convert_pictures(arguments: argparse.Namespace) -> tuple:
    """Convert a folder; return the table and the masks.

    Raises:
        UserError: See the functions above; nothing is written then.
    """
    labels, out = arguments.labels, arguments.out
    if not labels.is_dir():
        raise MissingFileError(f'--labels {labels} is not a folder, nor the '
                               '.json file of COCO')
    inner, outer = out.resolve(), labels.resolve()
    if inner == outer or inner in outer.parents or outer in inner.parents:
        raise UserError(f'--out {out} must be neither --labels {labels}, nor '
                        'in it, nor around it')
    table = table_of(arguments)
    if table is None and arguments.unknown != 'refuse':
        raise UserError(f'--unknown {arguments.unknown} needs --colours or '
                        '--config: what is counted is known')
    targets = find_pictures(labels, out)
    counts = count_pictures([*targets], arguments.workers)
    meaning = find_meaning(counts, table)
    check_unknown(counts, meaning, arguments.unknown, arguments.colours
                  or f'the data set of {arguments.config}')
    table = settle_classes(make_folder(out) / TABLE, meaning.table)
    if meaning.note:
        print(meaning.note)
    return table, track_progress_rich(
        Converter(meaning, arguments.unknown),
        [(count._replace(content=None, pixels=None), targets[count.path])
         for count in counts],
        nproc=arguments.workers,
        chunksize=4,
        description='label maps')


def convert_coco(arguments: argparse.Namespace) -> tuple:
    """Convert the annotations of COCO; return the table and the masks.

    Raises:
        UserError: See :func:`read_coco`; nothing is written then.
    """
    if arguments.colours or arguments.config or arguments.unknown != 'refuse':
        raise UserError('--colours, --config and --unknown are for pictures: '
                        f'{arguments.labels} names its classes')
    path = make_folder(arguments.out) / TABLE
    known = read_classes(path).names if path.exists() else None
    table, painters = read_coco(arguments.labels, arguments.out, known)
    table = settle_classes(path, table)
    return table, track_progress_rich(
        paint_coco,
        painters,
        nproc=arguments.workers,
        chunksize=4,
        description='label maps')


def run(arguments: argparse.Namespace) -> None:
    """Convert, and print what was made; exit with 1 if files failed.

    Raises:
        UserError: See :func:`convert_pictures` and :func:`convert_coco`.
    """
    check_folder(arguments.out)
    coco = arguments.labels.suffix.lower() == '.json'
    table, masks = (convert_coco if coco else convert_pictures)(arguments)
    pixels, images = Counter(), Counter()
    for mask in masks:
        pixels.update(mask.counts)
        images.update(mask.counts.keys())
    rows = [*range(len(table.names))] + [IGNORED] * (IGNORED in pixels)
    names = [*table.names, 'ignored']
    print(
        class_table([f'{i} {name}' for i, name in zip(rows, names)],
                    [pixels[i] for i in rows], [images[i] for i in rows]))
    failures = [mask for mask in masks if mask.failure]
    made = len(masks) - len(failures)
    print(f'{counted(made, "label map")} '
          f'({sum(mask.kept for mask in masks)} of them kept) and {TABLE} in '
          f'{arguments.out}')
    for mask in failures:
        print(f'{mask.name} failed: {mask.failure}', file=sys.stderr)
    if not failures:
        print('rename the classes in it, and go on: python -m cac_mmseg init '
              f'NAME --images DIR --labels {arguments.out}')
    sys.exit(bool(failures))
