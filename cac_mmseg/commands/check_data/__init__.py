"""``python -m cac_mmseg check-data``: check every sample of a config's data.

Reads every image and label map of training, validation and test as training
does. Reports files that are missing, unreadable, of different sizes or with
values that are no class, and how often each class occurs; draws a few samples.
Exit status 1 if there are problems.
"""
import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Dict, Iterator, List, Optional

import numpy as np
from mmengine.config import Config

from ...drawing.draw import draw_rows, save_picture
from ...drawing.reader import Reader
from ...errors import UserError
from ...stack.config import load_config
from ...stack.files import make_folder, new_file
from ...stack.labels import COLOUR
from ...stack.tables import markdown_table
from ..options import CfgOptions, add_workers
from .samples import LABEL, SETTING, Problem, Report, check

SPLITS = ('train', 'val', 'test')
SAMPLES = 3  # drawn of each data set


def table(reports: List[Report]) -> str:
    """Return how often each class occurs, as a Markdown table."""
    classes = reports[0].classes
    headings = ['class']
    rows = [[f'{i} {name}'] for i, name in enumerate(classes)] + [['no class']]
    for report in reports:
        headings += [f'{report.name}, pixels', f'{report.name}, images']
        pixels, images, read = Counter(), Counter(), 0
        for counts in report.counts:
            # what is no class is one row
            of_row = Counter()
            for value, number in counts.items():
                of_row[value if 0 <= value < len(classes) else -1] += number
            pixels += of_row
            images.update(of_row.keys())
            read += sum(of_row.values())
        for row, value in zip(rows, [*range(len(classes)), -1]):
            row += [
                f'{100 * pixels[value] / max(read, 1):.2f} %', images[value]
            ]
    return markdown_table(headings, rows)


def summary(report: Report) -> Iterator[str]:
    """Yield a line for each kind of problem of a split, the gravest first."""
    groups: Dict[tuple, List[Problem]] = {}
    for problem in sorted(report.problems, key=lambda p: p.rank):
        key = (problem.rank, problem.what)
        groups.setdefault(key, []).append(problem)
    for problems in groups.values():
        first = problems[0]
        advice = f'. {first.advice}' if first.advice else ''
        if first.rank[0] == SETTING or len(problems) == 1:
            yield f'{first}{advice}'
            continue
        of = f' of {sum(map(len, report.samples))} label maps' \
            if first.rank[0] == LABEL else ' files'
        yield (f'{len(problems)}{of} {first.what}'
               f'{_of_palette(problems, report)}{advice}. '
               f'The first: {first}')


def _of_palette(problems: List[Problem], report: Report) -> str:
    """Say which colours, or values, label maps have in common."""
    values = {
        value
        for problem in problems if problem.fault
        for value in problem.fault.values
    }
    if problems[0].rank != (LABEL, COLOUR):
        few = ', '.join(map(str, sorted(values)[:8]))
        return f' ({few}{", ..." * (len(values) > 8)})' if values else ''
    if all(len({*colour}) == 1 for colour in values):
        return '; their three channels are equal: they are index maps'
    palette = report.datasets[0].metainfo.get('palette')
    palette = {*map(tuple, np.array(palette).tolist())}
    others = sorted(values - palette)
    if not values & palette:
        return '; their colours are not those of the palette'
    few = ', '.join(map(str, others[:8])) + ', ...' * (len(others) > 8)
    return '; their colours are those of the palette' + (f' but {few}'
                                                         if others else '')


def draw(reports: List[Report]) -> Optional[np.ndarray]:
    """Draw a few samples of each data set with their labels laid over."""
    rows, names = [], []
    for report in reports:
        for dataset, samples in zip(report.datasets, report.samples):
            sound = [
                i for i, sample in enumerate(samples)
                if sample.counts and not sample.problems
            ]
            reader = Reader(dataset)
            step = max(1, len(sound) // SAMPLES)
            for i in sound[::step][:SAMPLES]:
                sample = reader.load(dataset.get_data_info(i))
                rows.append((sample.rgb, (sample.rgb, sample.labels)))
                names.append(f'{report.name} {Path(sample.path).name}')
    if not rows:
        return None
    return draw_rows(rows, ('image', 'labels'),
                     reports[0].datasets[0].metainfo, names)


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
        action=CfgOptions,
        default={},
        metavar='KEY=VALUE',
        help='changes to the config, as of mim train')
    add_workers(parser)


def run(arguments: argparse.Namespace) -> None:
    """Check the data of a config; exit with 1 if there are problems.

    Raises:
        FileNotFoundError, ValueError: See :func:`examine`.
    """
    config = load_config(arguments.config)
    name = Path(arguments.config).stem
    out = make_folder(arguments.out or Path('work_dirs', name, 'data'))
    config.merge_from_dict(arguments.cfg_options)
    sys.exit(bool(examine(config, out, arguments.workers)))


def examine(config: Config, out: Path, workers: int) -> int:
    """Print the tables and the problems, and return their number.

    Args:
        config: As read from a file.
        out: Folder for samples.png and problems.txt.
        workers: Processes that read.

    Raises:
        FileNotFoundError, ValueError: See :func:`check`; if the config has no
            data set.
    """
    reports = [
        report for report in (check(config, split, workers)
                              for split in SPLITS) if report
    ]
    if not reports:
        raise UserError(f'{config.filename} has no data set: neither '
                        'train_dataloader, val_dataloader nor '
                        'test_dataloader')
    print(table(reports))
    problems = [
        f'{report.name}: {problem}' for report in reports
        for problem in sorted(report.problems, key=lambda p: p.rank)
    ]
    with new_file(out / 'problems.txt') as file:
        file.write_text(
            ''.join(f'{line}\n' for line in problems), encoding='utf-8')
    for report in reports:
        for line in summary(report):
            print(f'{report.name}: {line}')
        for hint in report.hints:
            print(f'{report.name}: hint: {hint}')
    read = sum(len(samples) for r in reports for samples in r.samples)
    print(f'{read} samples read, {len(problems)} '
          f'problem{"s" * (len(problems) != 1)}' +
          f': {out / "problems.txt"}' * bool(problems))
    picture = draw(reports)
    if picture is not None:
        save_picture(picture, out / 'samples.png')
        print(f'samples: {out / "samples.png"}')
    return len(problems)
