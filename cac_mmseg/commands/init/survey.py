"""What images and label maps hold: sizes, values, and near-duplicates."""
from collections import Counter
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import cv2
import numpy as np
from mmengine.utils import track_progress_rich
from mmseg.datasets import BaseSegDataset
from PIL import Image

from ...drawing.draw import displayable
from ...drawing.reader import Reader
from ...errors import UserError
from ...stack.classes import IGNORED
from ...stack.labels import (KINDS, SIZE, Fault, count_values, find_faults,
                             stored_values)
from ...stack.targets import Target
from ...stack.words import counted
from ..prepare.pictures import raw_mode
from .pairs import Pairs

THUMBNAIL = 24  # pixels
ALIKE = 0.99  # correlation of thumbnails: frames of a video, re-saved images
BYTE_MODES = '1', 'L', 'P', 'RGB', 'RGBA', 'LA', 'PA', 'CMYK', 'YCbCr'
ORIENTATION = 0x0112  # of EXIF
# OpenCV's IMREAD_COLOR | IMREAD_ANYDEPTH: three channels, all their bits
DEEP = dict(color_type=3, to_float32=True)


class Sample(NamedTuple):
    """What a pair holds.

    Args:
        size: (H, W) of the image.
        counts: Of the values of the label map.
        thumbnail: Of the image.
        turned: Whether the image has an EXIF orientation.
        moments: Means of its values and of their squares.
        fault: Of the label map.
        error: Why the pair cannot be read.
    """
    size: Tuple[int, int]
    counts: Counter
    thumbnail: Optional[np.ndarray]
    turned: bool = False
    moments: Tuple[float, float] = (0., 0.)
    fault: Optional[Fault] = None
    error: str = ''


class Survey(NamedTuple):
    """What pairs hold, by name.

    Args:
        loading: Arguments of LoadImageFromFile.
        samples: See :class:`Sample`.
    """
    loading: dict
    samples: Dict[str, Sample]

    def counts(self, names: Sequence[str]) -> Counter:
        """Return how often each value occurs, without the ignored one."""
        total = sum((self.samples[n].counts for n in names), Counter())
        total.pop(IGNORED, None)
        return total

    def normalisation(self) -> Tuple[float, float]:
        """Return mean and standard deviation of the values of images."""
        mean, square = np.mean([s.moments for s in self.samples.values()], 0)
        return float(mean), float(max(square - mean**2, 1e-12)**0.5)


class Look:
    """Reads a pair as training does."""

    def __init__(self, loading: dict) -> None:
        self.reader = Reader(
            BaseSegDataset(
                ann_file=__file__,  # any file: nothing is listed
                lazy_init=True,
                metainfo=dict(classes=('a', )),
                pipeline=[
                    dict(type='LoadImageFromFile', **loading),
                    dict(type='mmseg.LoadAnnotations')
                ]))

    def __call__(self, image: str, label: str) -> Sample:
        """Read a pair; what is wrong is returned, never raised."""
        info = dict(self.reader.info, img_path=image, seg_map_path=label)
        try:
            sample = self.reader.load(info)
        except UserError as error:
            return Sample((0, 0), Counter(), None, error=str(error))
        size = sample.image.shape[:2]
        colour = sample.labels.ndim != 2
        fault = next(
            find_faults(sample.labels, [Target('--labels', IGNORED, IGNORED)],
                        size, stored_values(label, always=colour)), None)
        values = sample.image.astype(np.float32)
        return Sample(size,
                      Counter() if colour else count_values(sample.labels),
                      _thumbnail(sample.image), _is_turned(image),
                      (float(values.mean()), float(np.square(values).mean())),
                      fault)


def _is_turned(path: str) -> bool:
    """Return whether mmcv turns an image by its EXIF orientation."""
    try:
        with Image.open(path) as image:
            return image.getexif().get(ORIENTATION, 1) != 1
    except Exception:  # of PIL, for what only cv2 reads
        return False


def _thumbnail(image: np.ndarray) -> np.ndarray:
    """Return a small grey image, of mean 0 and norm 1 unless it is flat."""
    grey = displayable(image).mean(2).astype(np.float32)
    small = cv2.resize(
        grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).ravel()
    small -= small.mean()
    # what JPEG does to a flat image is no content
    return small / max(np.linalg.norm(small), THUMBNAIL)


def survey(pairs: Pairs, names: Sequence[str], workers: int) -> Survey:
    """Read all pairs.

    Raises:
        UserError: If files cannot be read, or label maps are no index maps,
            with the command that converts them.
    """
    files = [pairs.files(name) for name in names]
    loading = _loading([image for image, _ in files])
    found = track_progress_rich(
        Look(loading),
        files,
        nproc=workers,
        chunksize=8,
        description='looking')
    samples = dict(zip(names, found))
    errors = [s.error for s in found if s.error]
    if errors:
        raise UserError(f'{counted(len(errors), "pair")} cannot be read. '
                        f'The first: {errors[0]}')
    faults = {
        name: sample.fault
        for name, sample in samples.items() if sample.fault
    }
    if faults:
        name, fault = min(faults.items(), key=lambda item: item[1].kind)
        turned = sum(samples[name].turned for name in faults)
        advice = f'{KINDS[fault.kind].advice}'
        if fault.kind != SIZE:
            advice = convert(pairs)
        elif turned:
            advice += (f'; {turned} of the images have an EXIF orientation, '
                       'by which they are turned: turn their label maps, too')
        raise UserError(
            f'{len(faults)} of {counted(len(names), "label map")} cannot be '
            f'learned; {pairs.files(name)[1]} {fault.detail}. {advice}')
    return Survey(loading, samples)


def convert(pairs: Pairs, table: str = '') -> str:
    """Return what to do about label maps of other values."""
    folder = str(pairs.labels).rstrip('/')
    colours = f' --colours {table}' if table else ''
    return (
        f'Convert them: python -m cac_mmseg prepare labels --labels {folder}'
        f' --out {folder}_indices{colours}, then give --labels '
        f'{folder}_indices')


def _loading(images: Sequence[str]) -> dict:
    """Choose how images are loaded, by their headers."""
    deep: Dict[bool, List[str]] = {}
    for path in images:
        try:
            with Image.open(path) as image:
                many = (
                    image.mode not in BYTE_MODES or ';16' in raw_mode(image))
                deep.setdefault(many, []).append(path)
        except Exception:  # of PIL: cv2 may read it, or says what is wrong
            continue
    if len(deep) == 2:
        raise UserError(
            f'{len(deep[True])} images have more than 8 bits per channel and '
            f'{len(deep[False])} have 8, such as {deep[True][0]} and '
            f'{deep[False][0]}: convert one of them')
    return DEEP if True in deep else {}


def duplicates(found: Survey, train: Sequence[str],
               val: Sequence[str]) -> List[Tuple[str, str]]:
    """Return images of validation with one of training that looks like it."""
    known = np.stack([found.samples[name].thumbnail for name in train])
    alike = []
    for name in val:
        match = known @ found.samples[name].thumbnail
        if match.max() >= ALIKE:
            alike.append((name, train[int(match.argmax())]))
    return alike
