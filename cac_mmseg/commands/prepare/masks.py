"""Label maps that are written whole, or kept if they are the same."""
from pathlib import Path
from typing import Callable, Mapping, NamedTuple

import numpy as np
from PIL import Image

from ...errors import UserError
from ...stack.files import make_folder, new_file
from ...stack.labels import count_values
from ...stack.words import reason


class Mask(NamedTuple):
    """A label map, or why there is none; ``counts`` by value."""
    name: str
    counts: Mapping[int, int] = {}
    kept: bool = False
    failure: str = ''


def make_mask(name: str, target: Path, paint: Callable[[],
                                                       np.ndarray]) -> Mask:
    """Write a label map, or keep the same one that is there.

    Args:
        name: Of what it is made from.
        target: Where to.
        paint: Returns the label map.

    Returns:
        A failure, too: it is not raised.
    """
    try:
        mask, kept = paint(), target.exists()
        if kept:
            _check_same(target, mask)
        else:
            with new_file(make_folder(target.parent) / target.name) as file:
                Image.fromarray(mask).save(file)
        return Mask(name, dict(count_values(mask)), kept)
    except Exception as error:  # of decoders, the disk
        return Mask(name, failure=reason(error))


def _check_same(path: Path, mask: np.ndarray) -> None:
    """Check what another run, or a person, has written."""
    try:
        with Image.open(path) as image:
            same = np.array_equal(np.array(image), mask)
    except Exception:  # of PIL's decoders
        same = False
    if not same:
        raise UserError(
            f'{path} is there, and is not what would be written: it is '
            'edited, broken, or of other pictures or options: remove it and '
            'run the command again, or give another --out')
