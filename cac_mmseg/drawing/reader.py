"""Read images and label maps as the pipeline of a data set does."""
import os
import random
import re
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, Iterator, NamedTuple, Optional

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.structures import PixelData

from ..errors import UserError

ARRAYS = ('img', 'gt_seg_map')
# what a transform asks for that needs a label map
LABEL_KEYS = ('seg_map_path', 'gt_seg_map')


class Sample(NamedTuple):
    """What the loading part of a pipeline makes of an image.

    ``image`` is (H, W) or (H, W, bands), as loaded; ``labels`` (H, W), None
    without a label map. ``results`` is what the transforms from ``rest``
    on go on with.
    """
    path: str
    image: np.ndarray
    labels: Optional[np.ndarray]
    results: dict
    rest: int

    @property
    def rgb(self) -> np.ndarray:
        """The image with red first: mmcv loads BGR, and with alpha BGRA."""
        bands = self.image.shape[2] if self.image.ndim == 3 else 1
        if bands == 3 or bands == 4 and self.image.dtype == np.uint8:
            return self.image[..., [2, 1, 0, 3][:bands]]
        return self.image


class Reader:
    """Reads samples by a data set's own pipeline.

    Their loading part ends before the first transform that draws random
    numbers, changes the size of image or labels, or packs them away. So it
    includes loaders of any name, and masks that are merged after loading.
    Without a label map, transforms that ask for one are skipped.

    Args:
        dataset: Whose pipeline, classes and file names they are.
    """

    def __init__(self, dataset: BaseDataset) -> None:
        self.transforms = dataset.pipeline.transforms
        # of the loading part, as far as samples have shown
        self.end, self.known = len(self.transforms), False
        self.meta = dataset.metainfo
        self.suffixes = tuple(
            getattr(dataset, name, default)
            for name, default in (('img_suffix', '.jpg'), ('seg_map_suffix',
                                                           '.png')))
        self.info = {
            name: getattr(dataset, name, default)
            for name, default in (('label_map', None), ('reduce_zero_label',
                                                        False))
        }

    def load(self, info: dict) -> Sample:
        """Run the loading part on what a data set says of a sample.

        Test pipelines load labels after they resized the image: there the
        image is that of before, and transforms go on for the labels.

        Raises:
            UserError: If a transform or a decoder fails, naming the files.
        """
        results = dict(info, seg_fields=[])
        path, label = str(info.get('img_path')), info.get('seg_map_path')
        loaded = None  # for the rest of the pipeline, and where it starts
        try:
            with _random_state_kept():
                for i, transform in enumerate(self.transforms[:self.end]):
                    before = self._copied(results)
                    state = _random_state()
                    after = self._apply(transform, results)
                    if _random_state() != state or _is_other(before, after):
                        loaded = loaded or (before, i)
                        if ('gt_seg_map' in before or not label
                                or 'img' not in after):
                            results = before
                            if label:  # others may have one, and go on
                                self.end, self.known = i, True
                            break
                    results = after
            loaded = loaded or (results, self.end)
            image = loaded[0]['img']
        except Exception as error:  # of any transform and decoder
            # the file that was not loaded yet
            blamed = path if 'img' not in results else label
            if not blamed or 'gt_seg_map' in results:
                blamed = f'{path} or {label}' if label else path
            reason = re.sub('<_io.BytesIO[^>]*>', 'it',
                            ' '.join(str(error).split()))
            raise UserError(f'{blamed} cannot be read: '
                            f'{type(error).__name__}: {reason}') from error
        return Sample(path, image, results.get('gt_seg_map'), *loaded)

    def _copied(self, results: dict) -> dict:
        """Return what a transform cannot change: some work in place."""
        arrays = {} if self.known else {
            key: results[key].copy()
            for key in ARRAYS if key in results
        }
        return {**results, **arrays, 'seg_fields': [*results['seg_fields']]}

    def batch(self, sample: Sample) -> dict:
        """Return a batch of one sample, as a data loader gives it.

        Raises:
            UserError: If the rest of the pipeline fails.
        """
        results = deepcopy(sample.results)  # some change arrays in place
        try:
            with _random_state_kept():
                for transform in self.transforms[sample.rest:]:
                    results = self._apply(transform, results)
        except Exception as error:  # of any transform
            raise UserError(f'{sample.path} cannot be prepared for the model: '
                            f'{type(error).__name__}: {error}') from error
        return {key: [value] for key, value in results.items()}

    def read(self, image: str, labels: Optional[str] = None) -> Sample:
        """Load an image that need not be of the data set.

        Args:
            image: Its file.
            labels: Folder of its label map, see :meth:`label_path`.
        """
        info = dict(self.info, img_path=image)
        if labels:
            info['seg_map_path'] = self.label_path(image, labels)
        return self.load(info)

    def label_path(self, image: str, folder: str) -> str:
        """Return where the label map of an image should be."""
        suffix, label_suffix = self.suffixes
        name = os.path.basename(image)
        # which may be more than an ending, such as _leftImg8bit.png
        stem = name.removesuffix(suffix) if name.endswith(suffix) else Path(
            name).stem
        return os.path.join(folder, f'{stem}{label_suffix}')

    def _apply(self, transform: Any, results: dict) -> dict:
        if 'seg_map_path' in results:
            found = transform(results)
        else:
            try:
                found = transform(dict(results))
            except KeyError as error:
                if error.args[0] not in LABEL_KEYS:
                    raise
                found = results
                # a wrapper may load the image as well
                nested = getattr(transform, 'transforms', ())
                for part in getattr(nested, 'transforms', nested):
                    found = self._apply(part, found)
        if found is None:  # as a data set skips a sample
            raise ValueError(f'{type(transform).__name__} finds it invalid')
        return found


def _is_other(before: dict, after: dict) -> bool:
    """Return whether a transform changed a size, or packed an array away."""
    return any(
        key in before and (
            key not in after or before[key].shape[:2] != after[key].shape[:2])
        for key in ARRAYS)


def _random_state() -> tuple:
    """Return what changes when a transform draws a random number."""
    numpy = np.random.get_state()
    return (random.getstate(), numpy[1].tobytes(), numpy[2:],
            torch.get_rng_state().numpy().tobytes())


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Reading must not change what a training draws."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


@contextmanager
def blamed_on(path: str) -> Iterator[None]:
    """Name the image that a model fails on: its bands or size may not fit.

    Raises:
        UserError: In place of an error of PyTorch's.
    """
    try:
        yield
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or [''])[0]
        raise UserError(f'the model fails on {path}: {type(error).__name__}: '
                        f'{reason}') from error


def label_map(data: PixelData) -> np.ndarray:
    """Return integers (H, W): a model with one channel predicts floats."""
    return data.data[0].cpu().numpy().astype(np.int64)
