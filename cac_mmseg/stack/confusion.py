"""Pixels by their class in the ground truth and in the prediction."""
from typing import List, NamedTuple, Sequence, Tuple

import numpy as np


def encode(truth: np.ndarray, prediction: np.ndarray, classes: int,
           ignored: int) -> np.ndarray:
    """Return truth * (classes + 1) + prediction for each pixel.

    Of both, values that are no class become ``classes``. Pixels that are
    ignored have ``classes + 1`` for their ground truth. The type is small, as
    maps are kept.

    Args:
        truth, prediction: Label maps of one shape, int64.
    """
    kind = _kind(classes)
    # as unsigned numbers, negative values are the largest
    codes, columns = (
        np.minimum(labels.view(np.uint64), np.uint64(classes)).astype(kind)
        for labels in (truth, prediction))
    codes[truth == ignored] = classes + 1
    codes *= kind.type(classes + 1)
    codes += columns
    return codes


def decode(codes: bytes, shape: Sequence[int],
           classes: int) -> Tuple[np.ndarray, np.ndarray]:
    """Return the label maps of :func:`encode`, with ``classes`` for no class.

    Args:
        codes: The bytes of what it returned.
        shape: Of that.
    """
    codes = np.frombuffer(codes, _kind(classes)).astype(np.int64)
    truth, prediction = np.divmod(codes.reshape(shape), classes + 1)
    return np.minimum(truth, classes), prediction


class Confusion(NamedTuple):
    """Numbers of pixels, and what mmseg's ``IoUMetric`` makes of them.

    ``counts`` is (classes + 2, classes + 1), by the ground truth and the
    prediction of :func:`encode`.
    """
    counts: np.ndarray

    @classmethod
    def of(cls, codes: np.ndarray, classes: int) -> 'Confusion':
        """Count the pixels of :func:`encode`."""
        size = classes + 2, classes + 1
        counts = np.bincount(codes.ravel(), minlength=size[0] * size[1])
        return cls(counts.reshape(size))

    @property
    def classes(self) -> np.ndarray:
        """Pixels of each class, as rows, by the predicted class or none."""
        return self.counts[:-2]

    @property
    def right(self) -> np.ndarray:
        """Of each class, its pixels that are predicted as it."""
        return self.counts.diagonal()[:-1]

    @property
    def wrong(self) -> np.ndarray:
        """Of each class, pixels missed and pixels wrongly predicted as it."""
        # what is no class, and not ignored, is predicted wrongly
        return (self.counts[:-1, :-1].sum(0) + self.classes.sum(1) -
                2 * self.right)

    @property
    def iou(self) -> np.ndarray:
        """Of each class, NaN where it neither occurs nor is predicted."""
        return _ratio(self.right, self.right + self.wrong)

    @property
    def mean_iou(self) -> float:
        """mIoU, NaN where every pixel is ignored."""
        iou = self.iou[~np.isnan(self.iou)]
        return float(iou.mean()) if iou.size else float('nan')

    @property
    def accuracy(self) -> float:
        """aAcc: of all pixels of a class."""
        return float(_ratio(self.right.sum(), self.classes.sum()))

    @property
    def shares(self) -> np.ndarray:
        """Of each class in the pixels of the ground truth."""
        return _ratio(self.classes.sum(1), self.classes.sum())

    @property
    def rates(self) -> np.ndarray:
        """Of each row, (classes, classes); NaN where a class is absent."""
        return _ratio(self.classes[:, :-1], self.classes.sum(1, keepdims=True))

    @property
    def absent(self) -> np.ndarray:
        """Whether a class has no pixel in the ground truth."""
        return self.classes.sum(1) == 0

    @property
    def missed(self) -> np.ndarray:
        """Whether a class of the ground truth was nowhere predicted."""
        return (self.counts[:, :-1].sum(0) == 0) & ~self.absent


def worst_and_median(scores: Sequence[float],
                     number: int) -> Tuple[List[int], List[int]]:
    """Choose the worst scores, and those around the median; none twice.

    Args:
        scores: NaN is chosen only if all are.
        number: Half of them, rounded up, are the worst.
    """
    order = np.argsort(scores, kind='stable')  # NaN is last
    order = order[:np.isfinite(scores).sum() or None]
    worst, middle = -(-number // 2), number // 2
    start = min((len(order) - middle + 1) // 2, len(order) - middle)
    start = max(worst, start)
    return order[:worst].tolist(), order[start:start + middle].tolist()


def _kind(classes: int) -> np.dtype:
    return np.min_scalar_type((classes + 1) * (classes + 2))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(
        part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
