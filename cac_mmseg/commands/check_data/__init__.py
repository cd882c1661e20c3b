"""``python -m cac_mmseg check-data``: check every sample of a config's data.

Reads every image and label map of training, validation and test as training
does. Reports files that are missing, unreadable, of different sizes or with
values that are no class, and how often each class occurs; draws a few samples.
Exit status 1 if there are problems.
"""
import argparse
import os
import sys
from pathlib import Path
from typing import List, Optional

import mmcv
import numpy as np
from mmengine.config import DictAction

from ...utils.config import load_config
from ...utils.errors import UserError
from ...utils.files import make_folder, new_file
from ...utils.options import at_least
from ...utils.tables import markdown_table
from ...visualization.draw import draw_rows, paint, save_picture
from .samples import Loader, Report, check, count_values

SPLITS = ('train', 'val', 'test')
LISTED = 20  # problems on the screen; a file gets all of them
SAMPLES = 3  # drawn of each data set


def table(reports: List[Report]) -> str:
    """Return how often each class occurs, as a Markdown table."""
    classes = reports[0].dataset.metainfo['classes']
    headings = ['class']
    rows = [[f'{i} {name}'] for i, name in enumerate(classes)] + [['no class']]
    for report in reports:
        headings += [f'{report.name}, pixels', f'{report.name}, images']
        counts = count_values(report.samples)
        unknown = counts.sum() - counts[:len(classes)].sum()
        images = [s.counts for s in report.samples if s.counts is not None]
        for i, row in enumerate(rows):
            share = counts[i] if i < len(classes) else unknown
            value = i if i < len(classes) else 255
            row += [
                f'{100 * share / max(counts.sum(), 1):.2f} %',
                sum(bool(c[value]) for c in images)
            ]
    return markdown_table(headings, rows)


def draw(reports: List[Report]) -> Optional[np.ndarray]:
    """Draw a few samples of each data set with their labels laid over."""
    rows, names = [], []
    for report in reports:
        dataset = report.dataset
        sound = [
            s for s in report.samples if s.counts is not None and not s.problem
        ]
        step = max(1, len(sound) // SAMPLES)
        load = Loader(dataset).load
        for sample in sound[::step][:SAMPLES]:
            info = dict(
                img_path=sample.image,
                seg_map_path=sample.label,
                label_map=dataset.label_map,
                reduce_zero_label=dataset.reduce_zero_label,
                seg_fields=[])
            loaded = load(info)
            image = mmcv.bgr2rgb(loaded['img'])
            rows.append(
                (image, paint(image, loaded['gt_seg_map'], dataset.metainfo)))
            names.append(f'{report.name} {Path(sample.image).name}')
    if not rows:
        return None
    return draw_rows(rows, ('image', 'labels'), reports[0].dataset.metainfo,
                     names)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add('config', help='such as configs/cac_r50_cityscapes.py')
    add('--out',
        metavar='DIR',
        help='gets samples.png and problems.txt (default: '
        'work_dirs/CONFIG/data)')
    add('--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        metavar='KEY=VALUE',
        help='changes to the config, as of mim train')
    add('--workers',
        type=at_least(1),
        default=os.cpu_count(),
        metavar='N',
        help='processes that read (default: %(default)s)')


def run(arguments: argparse.Namespace) -> None:
    """Print the tables and the problems; exit with 1 if there are any.

    Raises:
        FileNotFoundError, ValueError: See :func:`check`.
    """
    config = load_config(arguments.config)
    name = Path(arguments.config).stem
    out = make_folder(arguments.out or Path('work_dirs', name, 'data'))
    config.merge_from_dict(arguments.cfg_options)
    reports = [
        report for report in (check(config, split, arguments.workers)
                              for split in SPLITS) if report
    ]
    if not reports:
        raise UserError(f'{arguments.config} has no data set: neither '
                        'train_dataloader, val_dataloader nor '
                        'test_dataloader')
    print(table(reports))
    picture = draw(reports)
    if picture is not None:
        save_picture(picture, out / 'samples.png')
        print(f'samples: {out / "samples.png"}')
    problems = [
        f'{r.name}: {problem}' for r in reports for problem in r.problems
    ]
    with new_file(out / 'problems.txt') as file:
        file.write_text(''.join(f'{line}\n' for line in problems))
    for report in reports:
        for hint in report.hints:
            print(f'{report.name}: {hint}')
    for line in problems[:LISTED]:
        print(line)
    if len(problems) > LISTED:
        print(f'... and {len(problems) - LISTED} more')
    read = sum(len(report.samples) for report in reports)
    print(f'{read} samples read, {len(problems)} problems' +
          f': {out / "problems.txt"}' * bool(problems))
    sys.exit(bool(problems))
