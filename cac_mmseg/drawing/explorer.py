"""A page to point at any place and see where its context came from."""
import base64
import json
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import cv2
import mmcv
import numpy as np
import torch
from torch import Tensor

from ..attribution.pairs import PairShares
from .draw import displayable
from .draw_shares import NEGLIGIBLE

TEMPLATE = Path(__file__).with_name('explorer.html')
MAX_WIDTH = 1280  # pixels, of the pictures


def explorer(title: str,
             image: np.ndarray,
             prediction: np.ndarray,
             shares: PairShares,
             meta: dict,
             at: Optional[Tuple[int, int]] = None) -> str:
    """Return a page of HTML that needs nothing but itself.

    A share is stored as a byte: its square root, in 127 steps. What the page
    prints is computed of the exact ones.

    Args:
        title: Of the page.
        image: See :func:`cac_mmseg.drawing.draw.displayable`.
        prediction: The image with the predicted classes laid over.
        shares: Of the image.
        meta: ``classes`` and ``palette``.
        at: The pixel, x and y, whose place is shown first; by default the one
            that context changed most.
    """
    h, w = shares.margin.shape
    start = (shares.margin - shares.baseline).abs().argmax().item()
    if at:
        row, column = (
            int((pixel + 0.5) / size / part + 1e-9)
            for pixel, size, part in zip(at[::-1], image.shape, shares.cell))
        start = row * w + column
    top = shares.classes.flatten(0, 1)
    data = dict(
        title=title,
        grid=(h, w),
        size=image.shape[:2],
        cell=shares.cell,
        start=start,
        image=_picture(displayable(image)),
        prediction=_picture(prediction),
        classes=[
            dict(
                name=name,
                colour='rgb({}, {}, {})'.format(*colour),
                shown=bool((top == i).any()))
            for i, (
                name,
                colour) in enumerate(zip(meta['classes'], meta['palette']))
        ],
        top=top.tolist(),
        negligible=NEGLIGIBLE,
        numbers=printed(shares),
        kernels=_encoded(shares.kernels.flatten(2).flatten(0, 1)))
    if shares.pooled is not None:
        # a place has the same as any other of its two classes
        pairs, index = top.unique(dim=0, return_inverse=True)
        example = torch.stack([(index == i).nonzero()[0, 0]
                               for i in range(len(pairs))])
        pooled = shares.pooled.flatten(2).flatten(0, 1)[example]
        data.update(pairs=index.tolist(), pooled=_encoded(pooled))
    # nothing in it may end the script element
    content = json.dumps(data, separators=(',', ':')).replace('<', '\\u003c')
    return TEMPLATE.read_text(encoding='utf-8').replace('{{DATA}}', content)


def printed(shares: PairShares) -> Dict[str, Dict[str, List[int]]]:
    """Return the numbers that the page prints, which add up as printed.

    Terms that are rounded one by one may miss their sum by a digit, so one
    term of each sum is the rest.

    Returns:
        For each place, in hundredths of a logit: ``margin`` and its
        ``baseline``; of ``total``, ``kernels`` and ``pooled`` (where there is
        such a branch) the ``sum`` of the shares, and of those ``for`` the
        class. Baseline and the sum of ``total`` make the margin, kernels and
        pooled make the total. ``largest`` is the index of the share of the
        largest size, and ``share`` its value, in logits.
    """
    margin, baseline = (
        _hundredths(value.flatten())
        for value in (shares.margin, shares.baseline))
    sums = dict(total=margin - baseline)
    maps = dict(total=shares.total)
    if shares.pooled is not None:
        sums['kernels'] = _hundredths(shares.kernels.sum((2, 3)).flatten())
        sums['pooled'] = sums['total'] - sums['kernels']
        maps.update(kernels=shares.kernels, pooled=shares.pooled)
    numbers = dict(margin=margin.tolist(), baseline=baseline.tolist())
    for name, total in sums.items():
        rows = maps[name].flatten(2).flatten(0, 1)
        gain = _hundredths(rows.clamp_min(0).sum(1))
        loss = _hundredths(rows.clamp_max(0).sum(1))
        # so that none has the sign of the other
        gain = torch.where(total < 0, gain, total - loss)
        largest = rows.abs().argmax(1)
        share = rows.gather(1, largest[:, None])[:, 0]
        numbers[name] = {
            'sum': total.tolist(),
            'for': gain.tolist(),
            'largest': largest.tolist(),
            'share': _rounded(share)
        }
    return numbers


def _hundredths(values: Tensor) -> Tensor:
    return (100 * values.double()).round().long()


def _encoded(shares: Tensor) -> Dict[str, object]:
    """Encode rows (rows, cells) as int8, with a scale of each.

    Of the roots, as rounding the many small values of a row to 0 would lose a
    part of its sum.
    """
    scales = shares.abs().amax(1).clamp_min(1e-12) / 127**2
    roots = (shares.abs() / scales[:, None]).sqrt() * shares.sign()
    content = roots.round().to(torch.int8).numpy().tobytes()
    return dict(
        roots=base64.b64encode(content).decode(), scales=_rounded(scales))


def _rounded(values: Tensor) -> List[float]:
    return [float(f'{value:.6g}') for value in values.tolist()]


def _picture(image: np.ndarray) -> str:
    """Return an image as a data URL."""
    if image.shape[1] > MAX_WIDTH:
        image = mmcv.imrescale(image, MAX_WIDTH / image.shape[1])
    content = cv2.imencode('.jpg', mmcv.rgb2bgr(image),
                           [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    return 'data:image/jpeg;base64,' + base64.b64encode(content).decode()
