"""What a label map is, and what keeps a head from learning from it."""
import io
from collections import Counter
from typing import Any, Iterator, NamedTuple, Optional, Sequence, Tuple

import mmengine.fileio as fileio
import numpy as np
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image, UnidentifiedImageError

from .targets import Target

# kinds of faults, the gravest first
COLOUR, WRAPPED, SIZE, VALUES = range(4)
MAX_COLOURS = 257  # of a picture that are kept: more are no classes


class Kind(NamedTuple):
    """What label maps do that cannot be learned, and what to do about it."""
    what: str
    advice: str


KINDS = {
    COLOUR:
    Kind('are colour pictures, not one channel of class indices',
         'Convert them by python -m cac_mmseg prepare labels'),
    WRAPPED:
    Kind("hold values above 255, which LoadAnnotations reads modulo 256",
         'Convert them by python -m cac_mmseg prepare labels'),
    SIZE:
    Kind('are not of the size of their image',
         'Resize them without interpolation, or pair other files'),
    VALUES:
    Kind(
        'have values that are no class',
        'Convert them, or change num_classes, ignore_index or '
        'reduce_zero_label'),
}


class Fault(NamedTuple):
    """What is wrong with a label map.

    ``values`` are those that are no class, or the colours of a picture;
    ``detail`` is what only this map has.
    """
    kind: int
    detail: str
    values: Tuple[Any, ...] = ()


def find_faults(labels: np.ndarray,
                targets: Sequence[Target],
                size: Optional[Tuple[int, int]] = None,
                stored: Optional[np.ndarray] = None) -> Iterator[Fault]:
    """Find what keeps a label map from being learned as it was meant.

    Args:
        labels: As the pipeline loads them.
        targets: What takes them.
        size: Of the image, (H, W).
        stored: What the file holds, see :func:`stored_values`.
    """
    if labels.ndim != 2:
        colours = () if stored is None else _colours(stored)
        yield Fault(COLOUR, f'is a picture of the shape {labels.shape}',
                    colours)
        return
    if size is not None and labels.shape != size:
        yield Fault(SIZE, f'is of the size {labels.shape}, its image of '
                    f'{size}')
    wrapped = [] if stored is None or stored.ndim != 2 else [
        value for value in np.unique(stored[stored > 255]).tolist()
        # such as 65535, which becomes 255, and is ignored as it was meant
        if any(value % 256 != target.ignored for target in targets)
    ]
    if wrapped:
        yield Fault(WRAPPED, f'holds {_listed(wrapped)}', tuple(wrapped))
        return  # what was read is not what was meant
    for target in targets:
        found = np.unique(labels[~target.takes(labels)]).tolist()
        if found:
            yield Fault(VALUES, f'has {_listed(found)}, but labels are '
                        f'{target}', tuple(found))
            return


def check_labels(labels: np.ndarray,
                 targets: Sequence[Target],
                 path: Optional[str],
                 *,
                 reduced: bool = False,
                 **more: Any) -> None:
    """Refuse a label map that a head cannot learn from, naming its file.

    The loss would fail without naming it, on a GPU with a device-side
    assertion that ends the process.

    Args:
        labels, targets, **more: See :func:`find_faults`.
        path: Of the label map's file.
        reduced: Whether reduce_zero_label has shifted the values.

    Raises:
        ValueError: With the file, what is wrong, and what to do.
    """
    for fault in find_faults(labels, targets, **more):
        shift = ' (after reduce_zero_label)' * reduced
        raise ValueError(
            f'label map {path} {fault.detail}{shift}. '
            f'{KINDS[fault.kind].advice}. '
            'python -m cac_mmseg check-data CONFIG lists all that are wrong')


def count_values(labels: np.ndarray) -> Counter:
    """Return how often each value occurs."""
    if labels.dtype == np.uint8:  # faster than sorting
        counts = np.bincount(labels.ravel(), minlength=256)
        values = np.flatnonzero(counts)
        return Counter(dict(zip(values.tolist(), counts[values].tolist())))
    values, counts = np.unique(labels, return_counts=True)
    return Counter(dict(zip(values.tolist(), counts.tolist())))


def unconverted_mask(counts: Counter,
                     targets: Sequence[Target]) -> Optional[str]:
    """Return what is wrong with masks such as of 0 and 255, or None."""
    for target in targets:
        found = sorted(counts)
        taught = [i for i in found if i != target.ignored]
        if (target.classes == 2 and len(taught) == 1
                and target.ignored in found and target.ignored > 1):
            return (f'all labels are {taught[0]} and {target.ignored}, and '
                    f'{target.ignored} is ignored ({target.setting}): class '
                    f'{1 - taught[0]} never occurs. Convert {target.ignored} '
                    f'to {1 - taught[0]}')
    return None


def untrained(counts: Counter, targets: Sequence[Target]) -> Optional[str]:
    """Return why a head learns nothing from the labels of a data set, or None.

    Args:
        counts: How often each value occurs, over all label maps.
        targets: What takes them.
    """
    for target in targets:
        found = sorted(counts)
        if found and len([i for i in found if i != target.ignored]) < 2:
            held = ' and '.join(map(str, found))
            return unconverted_mask(counts, targets) or (
                f'all labels are {held}: no two classes to tell apart, and '
                'nothing is learned')
    return None


def stored_values(path: str, always: bool = True) -> Optional[np.ndarray]:
    """Return what a label map's file holds, None if it is no picture.

    Args:
        path: Of the file, wherever mmengine reads.
        always: Not only where the values do not fit a byte.
    """
    try:
        with Image.open(io.BytesIO(fileio.get(path))) as image:
            if not always and image.mode in ('1', 'L', 'P'):
                return None  # the header says that they do
            return np.array(image)
    except (UnidentifiedImageError, OSError, SyntaxError):
        return None  # the loading transform says what is wrong


def wraps(transforms: Any) -> bool:
    """Return whether a pipeline casts label maps to bytes, as mmseg does."""
    for transform in getattr(transforms, 'transforms', transforms):
        if isinstance(transform, LoadAnnotations):
            if type(transform)._load_seg_map is LoadAnnotations._load_seg_map:
                return True
        elif hasattr(transform, 'transforms') and wraps(transform.transforms):
            return True
    return False


def _listed(values: Sequence[int]) -> str:
    few = ', '.join(map(str, values[:8]))
    return f'the values {few}{", ..." if len(values) > 8 else ""}'


def _colours(stored: np.ndarray) -> Tuple[Tuple[int, ...], ...]:
    """Return the different colours of a picture (H, W, bands)."""
    if stored.ndim != 3:
        return ()
    pixels = stored[..., :3].reshape(-1, min(3, stored.shape[2]))
    found = np.unique(pixels, axis=0)[:MAX_COLOURS]
    return tuple(map(tuple, found.tolist()))
