"""Label maps, and values in them that are no class."""
from typing import List, Optional

import numpy as np


def wrong_labels(labels: np.ndarray,
                 num_classes: int,
                 ignored: int = 255) -> List[int]:
    """Return the values that are neither 0 .. num_classes - 1 nor ignored."""
    wrong = (labels < 0) | (labels >= num_classes)
    wrong &= labels != ignored
    return np.unique(labels[wrong]).tolist() if wrong.any() else []


def check_labels(labels: np.ndarray,
                 num_classes: int,
                 path: Optional[str],
                 *,
                 ignored: int = 255,
                 reduced: bool = False) -> None:
    """Refuse a label map with values that are no class, naming its file.

    The loss would fail without naming the file, on a GPU with a device-side
    assertion that ends the process.

    Args:
        labels: Integers; classes are 0 .. num_classes - 1.
        num_classes: Number of classes.
        path: Of the label map's file.
        ignored: Value of pixels that do not count.
        reduced: Whether reduce_zero_label has shifted the values.

    Raises:
        ValueError: With the file and the values.
    """
    wrong = wrong_labels(labels, num_classes, ignored)
    if not wrong:
        return
    shift = ' (after reduce_zero_label)' * reduced
    raise ValueError(
        f'label map {path} has the values {wrong}{shift}, but labels are 0 to '
        f'{num_classes - 1}, or {ignored} to ignore a pixel. Convert the '
        'labels, or change num_classes of the heads or reduce_zero_label; '
        'python -m cac_mmseg check-data CONFIG lists all such files')
