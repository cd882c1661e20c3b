"""Which regions of an image are asked about, and which classes."""
import argparse
from pathlib import Path
from typing import Iterator, NamedTuple, Optional, Sequence, Tuple

import cv2
import mmcv
import numpy as np

from ...errors import MissingFileError, UserError

SMALLEST = 0.005  # of the image: regions that are explained by default


class Question(NamedTuple):
    """A region (H, W), and the class that is asked about in it.

    ``against`` is the class that it is compared with, None for the runner-up.
    """
    region: np.ndarray
    index: Optional[int]
    against: Optional[int]


def largest_region(labels: np.ndarray, index: int) -> np.ndarray:
    """Return the largest connected region of a class, (H, W), bool.

    Raises:
        ValueError: If the class is nowhere.
    """
    count, parts, stats, _ = cv2.connectedComponentsWithStats(
        (labels == index).astype(np.uint8))
    if count < 2:
        raise UserError('--class: no pixel is predicted as it; use --at or '
                        '--mask to say where')
    return parts == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()


def region_at(labels: np.ndarray, x: int, y: int) -> np.ndarray:
    """Return the connected region of the class at a pixel, (H, W), bool.

    Raises:
        ValueError: If the pixel is outside of the image.
    """
    height, width = labels.shape
    if not (0 <= x < width and 0 <= y < height):
        raise UserError(f'--at must be within the image, 0 to {width - 1} '
                        f'and 0 to {height - 1}, got {x} {y}')
    _, parts = cv2.connectedComponents((labels == labels[y,
                                                         x]).astype(np.uint8))
    return parts == parts[y, x]


def read_mask(path: str, shape: Tuple[int, int]) -> np.ndarray:
    """Read a mask, whose non-zero pixels are the region, (H, W), bool.

    Raises:
        UserError: If it is none, empty, or of another size than the image.
    """
    if not Path(path).is_file():
        raise MissingFileError(f'--mask {path} is not a file')
    try:
        picture = mmcv.imread(path)  # without an alpha channel
    except Exception:  # of any decoder
        picture = None
    if picture is None:
        raise UserError(f'--mask {path} cannot be read as an image')
    mask = picture.any(2)
    if mask.shape != shape:
        raise UserError(f'--mask {path} is of the size {mask.shape}, its '
                        f'image of {shape}')
    if not mask.any():
        raise UserError(f'--mask {path} has no pixel above zero')
    return mask


def class_index(option: str, name: Optional[str],
                classes: Sequence[str]) -> Optional[int]:
    """Return the index of a class by its name, None without one.

    Raises:
        UserError: If there is no such class.
    """
    if name is None:
        return None
    if name not in classes:
        raise UserError(f'{option} must be one of {", ".join(classes)}, got '
                        f'{name!r}')
    return [*classes].index(name)


def questions(arguments: argparse.Namespace, labels: np.ndarray,
              classes: Sequence[str]) -> Iterator[Question]:
    """Yield what is asked about an image.

    Regions of the class that others are compared with are left out.

    Args:
        arguments: Of the command.
        labels: The prediction, (H, W).
        classes: Names.

    Raises:
        UserError: If a region that is asked for is not in the image.
    """
    index = class_index('--class', arguments.class_name, classes)
    against = class_index('--against', arguments.against, classes)
    if arguments.mask:
        found = [(read_mask(arguments.mask, labels.shape), index)]
    elif arguments.at:
        found = [(region_at(labels, x,
                            y), int(labels[y, x]) if index is None else index)
                 for x, y in arguments.at]
    elif index is not None:
        found = [(largest_region(labels, index), index)]
    else:
        regions = [(largest_region(labels, i), int(i))
                   for i in np.unique(labels)]
        found = [pair for pair in regions if pair[0].mean() >= SMALLEST]
    for region, index in found:
        if against is None or index != against:
            yield Question(region, index, against)


def check_classes(arguments: argparse.Namespace,
                  classes: Sequence[str]) -> None:
    """Check the classes that are asked about, before a model is built.

    Raises:
        UserError: naming the option.
    """
    index = class_index('--class', arguments.class_name, classes)
    against = class_index('--against', arguments.against, classes)
    if index is not None and index == against:
        raise UserError(f'--against must be another class than --class, got '
                        f'{arguments.against!r} for both')
