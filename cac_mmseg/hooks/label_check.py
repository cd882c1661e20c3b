"""Checks of the labels that a training sees, before its loss does."""
import os
from collections import Counter
from typing import Any, Iterator, Optional, Set

import numpy as np
import torch.nn as nn
from mmengine.dataset import BaseDataset
from mmengine.model import is_model_wrapper
from torch import Tensor
from torch.utils.data import Subset

from ..drawing.reader import Reader
from ..errors import UserError
from ..stack.config import unwrapped
from ..stack.labels import (check_labels, count_values, stored_values,
                            untrained, wraps)
from ..stack.targets import head_faults, targets_of

SAMPLES = 8  # label maps of each data set that are read before training


class LabelCheck:
    """Refuses labels that no head of a model can learn from.

    Args:
        model: Whose heads take the labels.
        dataset: That it is trained on.
    """

    def __init__(self, model: nn.Module, dataset: Any) -> None:
        self.targets = targets_of(model)
        self.model = model.module if is_model_wrapper(model) else model
        # of a Subset, which samples are trained is not known here
        self.parts = [] if isinstance(dataset, Subset) else [
            part for part in unwrapped(dataset)
            if isinstance(part, BaseDataset) and hasattr(part, 'pipeline')
        ]
        # whether labels are cast to bytes, and the files that were looked at
        self.wraps = any(wraps(p.pipeline.transforms) for p in self.parts)
        self.known: Set[str] = set()

    def check_dataset(self) -> None:
        """Read a few label maps, and all if they have one class only.

        Raises:
            ValueError: Naming the file, or what all have in common.
        """
        for fault in head_faults(self.model):
            raise ValueError(fault)
        counts = Counter()
        for part in self.parts if self.targets else ():
            reader = Reader(part)
            for number, index in enumerate(_spread(len(part))):
                if number >= SAMPLES and not untrained(counts, self.targets):
                    break
                info = part.get_data_info(index)
                try:
                    batch = reader.batch(reader.load(info))
                except UserError:
                    continue  # a training may skip it, or say what is wrong
                self.check_batch(batch)
                for sample in batch.get('data_samples', ()):
                    if 'gt_sem_seg' in sample:
                        counts += count_values(sample.gt_sem_seg.data.numpy())
        reason = untrained(counts, self.targets)
        if reason:
            raise ValueError(reason)

    def check_batch(self, batch: Any) -> None:
        """Check what a data loader gives, before it is moved to a device.

        Raises:
            ValueError: Naming the file.
        """
        samples = batch.get('data_samples') if isinstance(batch,
                                                          dict) else None
        if not self.targets or not isinstance(samples, (list, tuple)):
            return  # such as of a semi-supervised training
        # torch.stack takes maps of one size: those of another are named
        shapes = {s.gt_sem_seg.shape for s in samples if 'gt_sem_seg' in s}
        sizes = [None] * len(samples) if len(shapes) < 2 else [
            tuple(image.shape[-2:]) for image in batch['inputs']
        ]
        for size, sample in zip(sizes, samples):
            if 'gt_sem_seg' not in sample:
                continue
            labels = sample.gt_sem_seg.data.numpy()
            path = sample.get('seg_map_path')
            check_labels(
                labels[0] if labels.shape[0] == 1 else labels,
                self.targets,
                path,
                size=size,
                stored=self._stored(path),
                reduced=bool(sample.get('reduce_zero_label')))
        self._check_padding(batch.get('inputs'))

    def _stored(self, path: Optional[str]) -> Optional[np.ndarray]:
        """Return what a file holds where that does not fit a byte."""
        if not self.wraps or path in self.known or not os.path.isfile(path
                                                                      or ''):
            return None
        self.known.add(path)
        return stored_values(path, always=False)

    def _check_padding(self, images: Any) -> None:
        """Check the label that smaller images are filled up with."""
        preprocessor = getattr(self.model, 'data_preprocessor', None)
        value = getattr(preprocessor, 'seg_pad_val', None)
        full = getattr(preprocessor, 'size', None)
        divisor = getattr(preprocessor, 'size_divisor', None) or 1
        if value is None or not isinstance(images, (list, tuple, Tensor)):
            return
        sizes = {tuple(image.shape[-2:]) for image in images}
        least = full or [max(sides) for sides in zip(*sizes)]
        if not any(side < limit or not full and side % divisor
                   for size in sizes for side, limit in zip(size, least)):
            return
        for target in self.targets:
            if not target.takes(np.array(value)):
                raise ValueError(
                    f'images of the sizes {sorted(sizes)} are padded with '
                    f'labels of {value}, but labels are {target}: set '
                    f'data_preprocessor.seg_pad_val to {target.ignored}')


def _spread(length: int) -> Iterator[int]:
    """Yield all indices; neighbours are often frames of one video."""
    step = max(1, length // SAMPLES)
    for start in range(step):
        yield from range(start, length, step)
