"""Label maps that are written whole, or kept if they are there."""
from pathlib import Path
from typing import Callable, Mapping, NamedTuple, Tuple

import numpy as np
from PIL import Image

from ...errors import UserError
from ...stack.classes import IGNORED
from ...stack.files import make_folder, new_file
from ...stack.labels import count_values
from ...stack.words import reason


class Mask(NamedTuple):
    """A label map, or why there is none; ``counts`` by value."""
    name: str
    counts: Mapping[int, int] = {}
    kept: bool = False
    failure: str = ''


def make_mask(name: str, target: Path, size: Tuple[int, int], classes: int,
              paint: Callable[[], np.ndarray]) -> Mask:
    """Write a label map, or keep the one that is there.

    Args:
        name: Of what it is made from.
        target: Where to.
        size: (H, W).
        classes: How many.
        paint: Returns the label map.

    Returns:
        A failure, too: it is not raised.
    """
    try:
        kept = target.exists()
        mask = _read(target, size, classes) if kept else paint()
        if not kept:
            with new_file(make_folder(target.parent) / target.name) as file:
                Image.fromarray(mask).save(file)
        return Mask(name, dict(count_values(mask)), kept)
    except Exception as error:  # of decoders, the disk
        return Mask(name, failure=reason(error))


def _read(path: Path, size: Tuple[int, int], classes: int) -> np.ndarray:
    """Read what another run, or a person, has written."""
    try:
        with Image.open(path) as image:
            mask = np.array(image)
        fits = mask.dtype == np.uint8 and mask.shape == size
        sound = fits and not ((mask >= classes) & (mask != IGNORED)).any()
    except Exception:  # of PIL's decoders
        sound = False
    if not sound:
        raise UserError(
            f'{path} is there, but is not a whole picture of {size[1]} x '
            f'{size[0]} pixels of 8 bits, 0 to {classes - 1} or {IGNORED}: '
            'remove it, and run the command again')
    return mask
