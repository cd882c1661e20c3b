"""Every sample of a data set, read as training does, and what is wrong."""
import os
from collections import Counter
from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple

import mmengine.fileio as fileio
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.utils import track_progress_rich

from ...drawing.reader import Reader
from ...errors import UserError
from ...stack.config import build_datasets, dataset_configs
from ...stack.files import is_there
from ...stack.labels import (KINDS, Fault, count_values, find_faults,
                             stored_values, unconverted_mask, untrained, wraps)
from ...stack.targets import Target, targets_of
from ...stack.words import counted
from .settings import EVALUATED, build_heads, contradictions, metric_targets

# of a problem, the gravest first; faults of labels come last but one
SETTING, MISSING, UNREADABLE, LABEL, UNPAIRED = range(5)


class Problem(NamedTuple):
    """What is wrong with a file, or with a setting.

    Args:
        rank: Of the kind, the gravest first.
        what: What files of the kind do or are, or the setting.
        advice: What to do about it, or ''.
        path: Of the file, or ''.
        detail: What only this file has.
        fault: Of its labels.
    """
    rank: Tuple[int, int]
    what: str
    advice: str = ''
    path: str = ''
    detail: str = ''
    fault: Optional[Fault] = None

    def __str__(self) -> str:
        if not self.path:
            return self.what
        # what cannot be read is named by the error
        return self.detail if self.path in self.detail else \
            f'{self.path} {self.detail}'


class Sample(NamedTuple):
    """An image and its label map; ``counts`` of each value in it."""
    image: str
    label: str
    problems: Sequence[Problem] = ()
    counts: Optional[Counter] = None


class Check:
    """Reads a sample as a data set does, and finds what is wrong.

    Args:
        dataset: Whose sample it is.
        targets: What takes its labels.
    """

    def __init__(self, dataset: BaseDataset, targets: List[Target]) -> None:
        self.reader = Reader(dataset)
        self.targets = targets
        self.wraps = wraps(dataset.pipeline.transforms)

    def __call__(self, info: dict) -> Sample:
        """Read a sample; problems are returned, never raised."""
        image, label = (
            info.get(key, '') for key in ('img_path', 'seg_map_path'))
        for path in filter(None, (image, label)):
            if not is_there(path):
                return Sample(image, label, [
                    Problem(
                        (MISSING, 0), 'are missing', '', path, 'is missing')
                ])
        try:
            sample = self.reader.load(info)
        except UserError as error:
            return Sample(image, label, [
                Problem(
                    (UNREADABLE, 0), 'cannot be read', '', image, str(error))
            ])
        if sample.labels is None:  # a test set without ground truth
            return Sample(image, label)
        # decoding twice takes its time, so only where it can tell
        colour = sample.labels.ndim != 2
        stored = stored_values(
            label, always=colour) if self.wraps or colour else None
        faults = find_faults(sample.labels, self.targets,
                             sample.image.shape[:2], stored)
        problems = [
            Problem((LABEL, fault.kind), *KINDS[fault.kind], label,
                    fault.detail, fault) for fault in faults
        ]
        counts = Counter() if colour else count_values(sample.labels)
        return Sample(image, label, problems, counts)


class Report(NamedTuple):
    """The report on the data sets of a split.

    A hint does not count as a problem. ``classes`` are those of the first.
    """
    name: str
    datasets: List[BaseDataset]
    samples: List[List[Sample]]
    problems: List[Problem]
    hints: List[str]

    @property
    def classes(self) -> Sequence[str]:
        return self.datasets[0].metainfo.get('classes') or ()

    @property
    def counts(self) -> List[Counter]:
        """How often each value occurs, in each label map."""
        return [
            sample.counts for samples in self.samples for sample in samples
            if sample.counts is not None
        ]


def check(config: Config, split: str, workers: int = 1) -> Optional[Report]:
    """Check every sample of the data sets of a split.

    Args:
        config: As read from a file.
        split: 'train', 'val' or 'test'.
        workers: Processes that read.

    Returns:
        None if the config has no such data set, or tests on the 'val' one.

    Raises:
        UserError: If a data set cannot be listed or built.
    """
    cfgs = list(dataset_configs(config, split))
    if not cfgs or split == 'test' and cfgs == list(
            dataset_configs(config, 'val')):
        return None
    # serialised, one without a sample cannot be built
    datasets = build_datasets(config, split, serialize_data=False)
    model = build_heads(config)
    problems = [
        Problem((SETTING, 0), line)
        for line in contradictions(config, split, datasets, model)
    ]
    samples, hints = [], []
    for dataset in datasets:
        targets = metric_targets(
            config, split,
            dataset) if split in EVALUATED else targets_of(model)
        infos = [dataset.get_data_info(i) for i in range(len(dataset))]
        samples.append([])
        if not infos:
            problems.append(
                Problem((SETTING, 0), f'the {split} data set is empty: no '
                        f'*{getattr(dataset, "img_suffix", "")} in '
                        f'{dataset.data_prefix.get("img_path")!r}'))
            continue
        found = samples[-1] = track_progress_rich(
            Check(dataset, targets), [(info, ) for info in infos],
            nproc=workers,
            chunksize=16,
            description=split)
        faults = [problem for s in found for problem in s.problems]
        problems += [*faults, *_unpaired(dataset)]
        counts = sum((s.counts for s in found if s.counts), Counter())
        find = untrained if split == 'train' else unconverted_mask
        nothing = None if faults else find(counts, targets)
        if nothing:
            problems.append(Problem((SETTING, 0), nothing))
        hints += _hints(dataset, counts, split == 'train' and not faults)
    return Report(split, datasets, samples, problems, hints)


def _unpaired(dataset: BaseDataset) -> Iterator[Problem]:
    """Find label maps without an image, unless a file lists the images."""
    images, labels = (
        dataset.data_prefix.get(key) for key in ('img_path', 'seg_map_path'))
    if dataset.ann_file or not labels or not os.path.isdir(labels):
        return
    suffix = dataset.seg_map_suffix
    for name in fileio.list_dir_or_file(
            labels, list_dir=False, suffix=suffix, recursive=True):
        image = os.path.join(
            images, f'{name.removesuffix(suffix)}{dataset.img_suffix}')
        if not is_there(image):
            yield Problem((UNPAIRED, 0), 'have no image', '',
                          os.path.join(labels, name), 'has no image')


def _hints(dataset: BaseDataset, counts: Counter,
           absent: bool) -> Iterator[str]:
    """Guess from the values whether reduce_zero_label is right.

    With ``absent``, also name classes that do not occur.
    """
    classes = dataset.metainfo.get('classes') or ()
    last = len(classes) - 1
    if last > 0 and not dataset.reduce_zero_label and counts[last + 1] and \
            not counts[0]:
        yield (f'labels reach {last + 1}: if they count from 1, and 0 is to '
               'be ignored, set reduce_zero_label=True')
    if dataset.reduce_zero_label and counts and not counts[last]:
        yield (f'no label is the last class, {classes[-1]!r}: if labels count '
               'from 0, reduce_zero_label=True shifts them by one')
    missing = [name for i, name in enumerate(classes) if not counts[i]]
    if absent and counts and missing and last > 0:
        few = ', '.join(map(repr, missing[:8])) + ', ...' * (len(missing) > 8)
        number = counted(len(missing), 'class', 'classes')
        yield f'no pixel of {number}: {few}'
