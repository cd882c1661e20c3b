"""ContextShapes and Crossing: drawn, and not to be solved locally."""
from functools import lru_cache
from typing import List

import cv2
import numpy as np
from mmengine.fileio import BaseStorageBackend, register_backend
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from ..checks import check_int
from .scene import BACKGROUND, MOVING, SPLITS, WAITING, draw_scene

# an image and its label map are asked for one after the other
_scene = lru_cache(maxsize=4)(draw_scene)


@DATASETS.register_module()
class ContextShapesDataset(BaseSegDataset):
    """Cars and trees seen from above: a far-off signal says if cars wait.

    Images are 128 x 192. A tree looks like a tree, so it can be labelled
    from its surroundings. A car is 'waiting' if the traffic signal at the
    far border shows red and 'driving' if it shows green, and nothing near the
    car gives it away: cars keep a distance from the signal that the receptive
    field of a truncated ResNet-18 does not bridge. Whatever its training, a
    head without global context can only guess; one with context can know.

    Images are drawn on request, reproducibly, and never stored: paths are
    ``contextshapes://image/<split>/<seed>/<index>.png``, and
    ``contextshapes://label/...``, served by :class:`ContextShapesBackend` to
    whatever reads through mmengine, so mmseg's own pipelines, hooks and tools
    apply unchanged.

    Args:
        split: 'train', 'val' or 'test': disjoint random streams.
        num_images: Length of the data set.
        seed: Non-negative; another seed gives other images.
        **kwargs: Of :class:`mmseg.datasets.BaseSegDataset`.

    Raises:
        TypeError, ValueError: naming the argument that does not fit.
    """
    METAINFO = dict(
        classes=('background', 'tree', 'waiting car', 'driving car'),
        palette=[[128, 128, 128], [107, 142, 35], [220, 20, 60], [0, 130,
                                                                  180]])
    prefix = 'contextshapes'

    def __init__(self,
                 split: str = 'train',
                 num_images: int = 1000,
                 seed: int = 0,
                 **kwargs) -> None:
        if split not in SPLITS:
            raise ValueError(f'split must be one of {SPLITS}, got {split!r}')
        self.split = split
        self.num_images = check_int('num_images', num_images)
        self.seed = check_int('seed', seed, minimum=0)
        super().__init__(**kwargs)

    def load_data_list(self) -> List[dict]:
        """Name the images; nothing is drawn yet."""
        return [
            dict(
                img_path=f'{self.prefix}://image/{name}',
                seg_map_path=f'{self.prefix}://label/{name}',
                label_map=self.label_map,
                reduce_zero_label=self.reduce_zero_label,
                seg_fields=[])
            for name in (f'{self.split}/{self.seed}/{index:06d}.png'
                         for index in range(self.num_images))
        ]


@DATASETS.register_module()
class CrossingDataset(ContextShapesDataset):
    """A crossing: pedestrians wait while cars drive, and the reverse.

    As ContextShapes, with two cars and two pedestrians. At green cars are
    'moving' and pedestrians 'waiting', at red cars are 'waiting' and
    pedestrians 'moving', so context cannot speak for a class at all positions
    alike. In 'val' and 'test' images 2k and 2k + 1 differ in the signal alone.
    In 'train' two thirds of the signals are green.

    Paths are ``crossing://image/<split>/<seed>/<index>.png``, and
    ``crossing://label/...``.
    """
    METAINFO = dict(
        classes=('background', 'tree', 'waiting', 'moving'),
        palette=ContextShapesDataset.METAINFO['palette'])
    prefix = 'crossing'

    def additive_bound(self) -> float:
        r"""Return the highest mIoU, in percent, of a head that adds context.

        Let a head's margin of 'moving' over 'waiting' be f + g, with f of what
        is seen at the position without the signal, and g of the whole image.
        A pixel of a car that is right under both signals needs f + g(green)
        > 0 > f + g(red), so g(green) > g(red); one of a pedestrian needs
        g(green) < g(red). So in each pair of images that differ in the signal
        alone all pixels of cars are wrong under one signal or the other, or
        all of pedestrians: at least as many as the smaller of the two covers,
        M in all pairs.

        With T pixels of each of the two classes and B of background, the best
        is to call the M pixels background:

        .. math:: \frac{1}{4} (1 + 2 - \frac{M}{T} + \frac{B}{B + M})

        To call them another class costs as much where they are missing, and
        more where they are found, as no class is larger than the background.

        Raises:
            ValueError: If images have no pair: those to train on, an odd
                number, or a part of the data set.
        """
        if (self.split == 'train' or self.num_images % 2
                or len(self) != self.num_images):
            raise ValueError(
                "the bound needs pairs of images: split='val' or 'test' and "
                f'an even num_images, all of them, got {self.split!r} and '
                f'{len(self)} of {self.num_images}')
        background = of_class = wrong = 0
        for index in range(0, self.num_images, 2):
            label = draw_scene(self.split, self.seed, index, True)[1]
            found = np.bincount(label.ravel(), minlength=4)
            kinds = found[[WAITING, MOVING]]  # reversed in the other image
            background += 2 * found[BACKGROUND]
            of_class += kinds.sum()
            wrong += kinds.min()
        iou = background / (background + wrong)
        return 100 * (3 - wrong / of_class + iou) / 4


PREFIXES = (ContextShapesDataset.prefix, CrossingDataset.prefix)


@register_backend(name='contextshapes', prefixes=PREFIXES)
class ContextShapesBackend(BaseStorageBackend):
    """Serve ``PREFIX://{image,label}/<split>/<seed>/<index>.png``."""

    def get(self, filepath: str) -> bytes:
        """Return the PNG of an image (BGR to OpenCV) or label map."""
        prefix, _, path = str(filepath).partition('://')
        try:
            kind, split, seed, name = path.split('/')
            # mmengine allows a name in front: s3:crossing://
            crossing = PREFIXES.index(prefix.split(':')[-1]) == 1
            scene = _scene(split, int(seed), int(name.split('.')[0]), crossing)
            picture = dict(image=scene[0], label=scene[1])[kind]
        except (KeyError, ValueError):
            raise FileNotFoundError(
                f'{filepath} does not exist: there are '
                f'{prefix}://{{image,label}}/{{{",".join(SPLITS)}}}/<seed>/'
                '<index>.png') from None
        return cv2.imencode('.png', picture)[1].tobytes()

    def get_text(self, filepath: str, encoding: str = 'utf-8') -> str:
        """Raise: there is no text here."""
        raise ValueError(f'{filepath} is a picture, not a text')
