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
from typing import Iterator, List, NamedTuple, Optional

import mmcv
import mmengine.fileio as fileio
import numpy as np
from mmengine.config import Config, DictAction
from mmengine.dataset import BaseDataset, Compose
from mmengine.utils import track_progress_rich

from ..utils.checks import check_int
from ..utils.config import build_datasets, dataset_configs, load_config
from ..utils.files import make_folder, new_file
from ..utils.tables import markdown_table
from ..visualization.draw import draw_rows, paint, save_picture
from ..visualization.reader import read_image

SPLITS = ('train', 'val', 'test')
LISTED = 20  # problems on the screen; a file gets all of them
SAMPLES = 3  # drawn of each data set


class Sample(NamedTuple):
    """An image and its label map, and what is wrong with them."""
    image: str
    label: str
    problem: str = ''
    counts: Optional[np.ndarray] = None  # of each value, (256,)


class Loader:
    """Reads a sample by the loading transforms of a pipeline.

    Args:
        dataset: Whose pipeline it is.
    """

    def __init__(self, dataset: BaseDataset) -> None:
        # mmseg's loading transforms have such names; others resize or crop
        self.load = Compose([
            transform for transform in dataset.pipeline.transforms
            if type(transform).__name__.startswith('Load')
        ])
        self.classes = len(dataset.metainfo['classes'])
        self.ignored = dataset.ignore_index

    def __call__(self, image: str, label: str, info: dict) -> Sample:
        """Read a sample; problems are returned, never raised."""
        for path in (image, label):
            # others are served by a backend of mmengine's
            if path and '://' not in path and not os.path.isfile(path):
                return Sample(image, label, f'{path} is missing')
        try:
            if not label:  # a test set without ground truth
                read_image(image)
                return Sample(image, label)
            loaded = self.load(info)
            size, labels = loaded['img'].shape[:2], loaded['gt_seg_map']
        except Exception as error:  # of any transform and decoder
            return Sample(
                image, label, f'{image} or {label} cannot be read: '
                f'{type(error).__name__}: {error}')
        problems = []
        if labels.shape != size:
            problems.append(f'{label} is of the size {labels.shape}, its '
                            f'image of {size}')
        counts = np.bincount(labels.ravel(), minlength=256)
        known = {*range(self.classes), self.ignored}
        wrong = [v for v in np.flatnonzero(counts).tolist() if v not in known]
        if wrong:
            problems.append(f'{label} has the values {wrong}, but labels are '
                            f'0 to {self.classes - 1}, or {self.ignored}')
        return Sample(image, label, '; '.join(problems), counts)


class Report(NamedTuple):
    """The report on a data set. A hint does not count as a problem."""
    name: str
    dataset: BaseDataset
    samples: List[Sample]
    problems: List[str]
    hints: List[str]


def check(config: Config, split: str, workers: int = 1) -> Optional[Report]:
    """Check every sample of a data set.

    Args:
        config: As read from a file.
        split: 'train', 'val' or 'test'.
        workers: Processes that read.

    Returns:
        None if the config has no such data set, or tests on the 'val' one.

    Raises:
        FileNotFoundError: If the data set cannot be listed.
        ValueError: If it cannot be built.
    """
    cfgs = list(dataset_configs(config, split))
    if not cfgs or split == 'test' and cfgs == list(
            dataset_configs(config, 'val')):
        return None
    problems, samples = [], []
    # serialised, one without a sample cannot be built
    datasets = build_datasets(config, split, serialize_data=False)
    for dataset in datasets:
        infos = [dataset.get_data_info(i) for i in range(len(dataset))]
        tasks = [(info['img_path'], info.get('seg_map_path', ''), info)
                 for info in infos]
        if not tasks:
            problems.append(f'the {split} data set is empty: no '
                            f'*{dataset.img_suffix} in '
                            f'{dataset.data_prefix.get("img_path")!r}')
            continue
        found = track_progress_rich(
            Loader(dataset),
            tasks,
            nproc=workers,
            chunksize=16,
            description=split)
        samples += found
        problems += [sample.problem for sample in found if sample.problem]
        problems += _without_image(dataset, {s.label for s in found})
    problems += _inconsistent(config, split, datasets[0])
    hints = list(_hints(datasets[0], _total(samples)))
    return Report(split, datasets[0], samples, problems, hints)


def _without_image(dataset: BaseDataset, known: set) -> Iterator[str]:
    """Find label maps without an image, unless a file lists the images."""
    folder = dataset.data_prefix.get('seg_map_path')
    if dataset.ann_file or not folder or not os.path.isdir(folder):
        return
    for name in fileio.list_dir_or_file(
            folder, list_dir=False, suffix=dataset.seg_map_suffix,
            recursive=True):
        path = os.path.join(folder, name)
        if path not in known:
            yield f'{path} has no image'


def _inconsistent(config: Config, split: str,
                  dataset: BaseDataset) -> Iterator[str]:
    """Find settings that contradict each other or the data set."""
    classes = dataset.metainfo['classes']
    for name in ('decode_head', 'auxiliary_head'):
        heads = config.model.get(name) or []
        for head in heads if isinstance(heads, list) else [heads]:
            if head.get('num_classes') != len(classes):
                yield (f'{name}.num_classes is {head.get("num_classes")}, but '
                       f'the {split} data set has {len(classes)} classes')
    for transform in dataset.pipeline.transforms:
        asked = getattr(transform, 'reduce_zero_label', None)
        # None means that of the data set
        if asked is not None and asked != dataset.reduce_zero_label:
            yield (f'{type(transform).__name__} has reduce_zero_label={asked},'
                   f' but the {split} data set {dataset.reduce_zero_label}')


def _hints(dataset: BaseDataset, counts: np.ndarray) -> Iterator[str]:
    """Guess from the values whether reduce_zero_label is right."""
    classes = dataset.metainfo['classes']
    if not dataset.reduce_zero_label and counts[len(classes)]:
        yield (f'labels reach {len(classes)}: if they count from 1, and 0 is '
               'to be ignored, set reduce_zero_label=True')
    if dataset.reduce_zero_label and counts.any() and not counts[len(classes) -
                                                                 1]:
        yield (f'no label is the last class, {classes[-1]!r}: if labels count '
               'from 0, reduce_zero_label=True shifts them by one')


def _total(samples: List[Sample]) -> np.ndarray:
    counts = np.zeros(256, np.int64)
    for sample in samples:
        if sample.counts is not None:
            counts += sample.counts
    return counts


def table(reports: List[Report]) -> str:
    """Return how often each class occurs, as a Markdown table."""
    classes = reports[0].dataset.metainfo['classes']
    headings = ['class']
    rows = [[f'{i} {name}'] for i, name in enumerate(classes)] + [['no class']]
    for report in reports:
        headings += [f'{report.name}, pixels', f'{report.name}, images']
        counts = _total(report.samples)
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
        type=int,
        default=os.cpu_count(),
        metavar='N',
        help='processes that read (default: %(default)s)')


def run(arguments: argparse.Namespace) -> None:
    """Print the tables and the problems; exit with 1 if there are any.

    Raises:
        FileNotFoundError, ValueError: See :func:`check`.
    """
    check_int('--workers', arguments.workers)
    config = load_config(arguments.config)
    name = Path(arguments.config).stem
    out = make_folder(arguments.out or Path('work_dirs', name, 'data'))
    config.merge_from_dict(arguments.cfg_options)
    reports = [
        report for report in (check(config, split, arguments.workers)
                              for split in SPLITS) if report
    ]
    if not reports:
        raise ValueError(f'{arguments.config} has no data set: neither '
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
