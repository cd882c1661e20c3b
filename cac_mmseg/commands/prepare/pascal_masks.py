"""Masks and lists of PASCAL Context, from its official label maps."""
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Union

import numpy as np
from mmengine.utils import track_progress_rich
from mmseg.datasets import PascalContextDataset
from PIL import Image
from scipy.io import loadmat

from ...errors import MissingFileError, UserError
from ...stack.files import make_folder, new_file, read_text

# 'background', then 59 names
CLASSES = PascalContextDataset.METAINFO['classes']
MASKS, LISTS = 'SegmentationClassContext', 'ImageSets/SegmentationContext'
SPLITS = ('train', 'val')  # of VOC 2010: 4998 and 5105 images


class Mask(NamedTuple):
    """The mask of a label map, or why there is none; ``counts`` by value."""
    name: str
    counts: Sequence[int] = ()
    kept: bool = False
    failure: str = ''


class Report(NamedTuple):
    """The masks and lists that were written, and what does not match."""
    masks: List[Mask]
    splits: Dict[str, List[str]]
    missing: List[str]  # listed by VOC, but without a label map
    unlisted: List[str]  # the other way round


def read_labels(path: Union[str, Path]) -> Dict[int, str]:
    """Read labels.txt: a line ``12: name`` for each value of the label maps.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: With the line that is different.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f'--labels {path} is not a file: give the '
                               'labels.txt of PASCAL Context')
    names = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip():
            match = re.fullmatch(r'\s*(\d{1,4})\s*:\s*(.+?)\s*', line)
            if not match:
                raise UserError(f'{path}, line {number} must be like '
                                f"'12: name', got {line!r}")
            names[int(match[1])] = match[2]
    return names


def make_lookup(names: Dict[int, str]) -> np.ndarray:
    """Return the class of each value of a label map, 255 for unnamed values.

    Args:
        names: Of the values; 0 (unlabelled) needs none.

    Raises:
        ValueError: If a class of PASCAL Context has no value.
    """
    values = {name: value for value, name in names.items()}
    lookup = np.full(2**16, 255, np.uint8)
    lookup[[0, *names]] = 0
    for index, name in enumerate(CLASSES[1:], start=1):
        if name not in values:
            close = ', '.join(get_close_matches(name, values, n=3))
            raise UserError(
                f'labels.txt has no label {name!r}, a class of PASCAL '
                f'Context{close and f" (close: {close})"}; it has '
                f'{len(names)} labels, the official file 459')
        lookup[values[name]] = index
    return lookup


class Converter:
    """Converts a label map to a mask, or keeps the mask that exists.

    Args:
        lookup: See :func:`make_lookup`.
        images: Folder of the JPEG images.
        masks: Folder to write to.
    """

    def __init__(self, lookup: np.ndarray, images: Path, masks: Path) -> None:
        self.lookup = lookup
        self.images = images
        self.masks = masks

    def __call__(self, mat: Path) -> Mask:
        """Convert; a failure is reported, not raised."""
        target = self.masks / f'{mat.stem}.png'
        try:
            size = self._size(mat.stem)
            mask = _read(target, size)
            kept = mask is not None
            if mask is None:
                mask = self._convert(mat, target, size)
            counts = np.bincount(mask.ravel(), minlength=len(CLASSES))
        except Exception as error:  # of scipy's and PIL's decoders, the disk
            return Mask(mat.stem, failure=f'{type(error).__name__}: {error}')
        return Mask(mat.stem, counts.tolist(), kept)

    def _size(self, name: str) -> tuple:
        path = self.images / f'{name}.jpg'
        if not path.is_file():
            raise FileNotFoundError(f'{path} is missing')
        with Image.open(path) as image:
            return image.height, image.width

    def _convert(self, mat: Path, target: Path, size: tuple) -> np.ndarray:
        labels = loadmat(mat).get('LabelMap')
        if labels is None:
            raise ValueError('it holds no LabelMap')
        if labels.shape != size:
            raise ValueError(f'its LabelMap is of the size {labels.shape}, '
                             f'the image of {size}')
        mask = self.lookup[labels.astype(np.uint16)]
        if (mask == 255).any():
            unknown = np.unique(labels[mask == 255]).tolist()
            raise ValueError(f'it has the labels {unknown}, which labels.txt '
                             'does not name')
        with new_file(target) as file:
            Image.fromarray(mask).save(file)
        return mask


def _read(path: Path, size: tuple) -> Optional[np.ndarray]:
    """Return the mask that is there, None if it has to be made.

    Another tool may have written it: in half, in colours, with other values.
    """
    try:
        with Image.open(path) as image:
            mask = np.array(image)
    except Exception:  # of PIL's decoders
        return None
    if (mask.dtype != np.uint8 or mask.shape != size
            or mask.max() >= len(CLASSES)):
        return None
    return mask


def prepare_pascal_context(mat: Union[str, Path],
                           labels: Union[str, Path],
                           voc: Union[str, Path],
                           workers: int = 1) -> Report:
    """Make masks and lists of PASCAL Context in a VOC 2010 folder.

    Args:
        mat: Folder of the label maps, ``2008_000002.mat`` and so on.
        labels: The file ``labels.txt``.
        voc: Folder with ``JPEGImages`` and ``ImageSets/Main``.
        workers: Processes that convert.

    Returns:
        What was made. Masks that failed are in no list.

    Raises:
        FileNotFoundError, ValueError: If an argument is not what it should be;
            nothing is written then.
    """
    mat, voc = Path(mat), Path(voc)
    lookup = make_lookup(read_labels(labels))
    mats = sorted(mat.glob('*.mat'))
    if not mats:
        raise MissingFileError(f'--mat {mat} holds no *.mat file: give the '
                               'folder trainval of trainval.tar.gz')
    splits = {}
    for split in SPLITS:
        path = voc / 'ImageSets/Main' / f'{split}.txt'
        if not path.is_file() or not (voc / 'JPEGImages').is_dir():
            raise MissingFileError(
                f'--voc {voc} is not the folder VOC2010 of '
                'VOCtrainval_03-May-2010.tar: it needs JPEGImages and '
                f'ImageSets/Main/{split}.txt')
        splits[split] = read_text(path).split()
    masks = make_folder(voc / MASKS)
    lists = make_folder(voc / LISTS)
    found = track_progress_rich(
        Converter(lookup, voc / 'JPEGImages', masks),
        [(path, ) for path in mats],
        nproc=workers,
        chunksize=16,
        description='masks')
    made = {mask.name for mask in found if not mask.failure}
    for split, names in splits.items():
        with new_file(lists / f'{split}.txt') as file:
            file.write_text(
                ''.join(f'{n}\n' for n in names if n in made),
                encoding='utf-8')
    listed = {name for names in splits.values() for name in names}
    present = {path.stem for path in mats}
    return Report(
        found, {
            split: [name for name in names if name in made]
            for split, names in splits.items()
        }, sorted(listed - present), sorted(present - listed))
