"""``prepare pascal-context``: PASCAL Context from its official files.

Masks for mmseg's data sets of 59 and of 60 classes, from the per-image label
maps (.mat, 459 classes) and labels.txt of
https://cs.stanford.edu/~roozbeh/pascal-context and the VOC 2010 images. Writes
SegmentationClassContext/*.png (0: another class; 1 to 59: its classes) and
ImageSets/SegmentationContext/{train,val}.txt into the VOC folder. What has
been converted before is read, and kept if it is whole, of its image's size and
of these classes. Exit status 1 if files failed.
"""
import argparse
import sys
from pathlib import Path

import numpy as np

from ...stack.tables import class_table
from ...stack.words import counted
from ..options import add_workers
from .pascal_masks import CLASSES, MASKS, Report, prepare_pascal_context


def table(report: Report, classes: int) -> str:
    """Return how often each class occurs, as a Markdown table."""
    counts = np.array([m.counts for m in report.masks if not m.failure])
    counts = counts.reshape(-1, len(CLASSES))
    first = len(CLASSES) - classes  # of 59, what is 0 is ignored
    return class_table(
        [f'{i} {name}' for i, name in enumerate(CLASSES[first:])],
        counts.sum(0)[first:], (counts > 0).sum(0)[first:])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add('--mat', required=True, metavar='DIR', help='label maps, *.mat')
    add('--labels', required=True, metavar='FILE', help='labels.txt')
    add('--voc',
        required=True,
        metavar='DIR',
        help='such as data/VOCdevkit/VOC2010')
    add('--classes',
        type=int,
        choices=(59, 60),
        default=59,
        help='with 60 the rest is a class, background; with 59 it is ignored. '
        'The masks serve both, the table counts one of them (default: 59)')
    add_workers(parser)


def run(arguments: argparse.Namespace) -> None:
    """Prepare, and print what was made; exit with 1 if files failed.

    Raises:
        FileNotFoundError, ValueError: See :func:`prepare_pascal_context`.
    """
    report = prepare_pascal_context(arguments.mat, arguments.labels,
                                    arguments.voc, arguments.workers)
    print(table(report, arguments.classes))
    failures = [mask for mask in report.masks if mask.failure]
    made = len(report.masks) - len(failures)
    kept = sum(mask.kept for mask in report.masks)
    lists = ', '.join(f'{split} {len(names)}'
                      for split, names in report.splits.items())
    print(f'{counted(made, "mask")} ({kept} of them kept) in '
          f'{Path(arguments.voc, MASKS)}; {lists}')
    for names, noun, what in ((report.missing, 'image', 'without a label map'),
                              (report.unlisted, 'label map', 'in no split')):
        if names:
            print(
                f'{counted(len(names), noun)} {what}: {", ".join(names[:3])}' +
                ', ...' * (len(names) > 3))
    for mask in failures:
        print(f'{mask.name}.mat failed: {mask.failure}', file=sys.stderr)
    if not failures:
        print('check and train: python -m cac_mmseg check-data '
              f'configs/cac_r50_pcontext{arguments.classes}.py')
    sys.exit(bool(failures))
