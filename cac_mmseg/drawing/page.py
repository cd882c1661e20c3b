"""A page per image: picture, prediction, weighting maps and kernels."""
from typing import Optional, Sequence

import numpy as np
from mmseg.models import BaseSegmentor
from mmseg.structures import SegDataSample

from ..attribution.context import capture_context, choose_channels
from .canvas import classes_of
from .draw import displayable, paint
from .draw_context import draw_context
from .reader import label_map


def page(model: BaseSegmentor,
         data: dict,
         image: np.ndarray,
         output: SegDataSample,
         meta: dict,
         count: int = 4,
         channels: Optional[Sequence[int]] = None) -> np.ndarray:
    """Draw the page of an image.

    Args:
        model: In evaluation mode.
        data: A batch of one image as a data loader gives it.
        image: Of the sample, see
            :func:`cac_mmseg.drawing.draw.displayable`.
        output: What the model predicts for it; its ground truth is drawn too
            if it has one.
        meta: ``classes`` and ``palette``.
        count, channels: See
            :func:`cac_mmseg.attribution.context.choose_channels`.

    Returns:
        The picture, (H, W, 3), uint8, RGB.

    Raises:
        ValueError: If a channel is out of range.
    """
    tiles, titles, labels = [displayable(image)], ['image'], []
    fields = dict(pred_sem_seg='prediction', gt_sem_seg='ground truth')
    for field, title in fields.items():
        if field in output:
            label = label_map(output.get(field))
            tiles.append(paint(image, label, meta))
            titles.append(title)
            labels.append(label)
    contexts = capture_context(model, data)
    return draw_context(tiles, titles, classes_of(labels, meta), meta,
                        choose_channels(contexts, count, channels))
