"""Every sample of a data set, read as training does, and what is wrong."""
import os
from typing import Iterator, List, NamedTuple, Optional

import mmengine.fileio as fileio
import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset, Compose
from mmengine.utils import track_progress_rich

from ...utils.config import build_datasets, dataset_configs
from ...utils.labels import wrong_labels
from ...visualization.reader import is_there, read_image


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
            if path and not is_there(path):
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
        wrong = wrong_labels(labels, self.classes, self.ignored)
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
    hints = list(_hints(datasets[0], count_values(samples)))
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


def count_values(samples: List[Sample]) -> np.ndarray:
    """Return how often each value occurs in the label maps, (256,)."""
    counts = np.zeros(256, np.int64)
    for sample in samples:
        if sample.counts is not None:
            counts += sample.counts
    return counts
