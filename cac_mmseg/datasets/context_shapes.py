"""ContextShapes and Crossing: drawn, and not to be solved locally."""
from functools import lru_cache
from typing import List

import cv2
from mmengine.fileio import BaseStorageBackend, register_backend
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from ..checks import check_int
from .scene import SPLITS, draw_scene

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

    As ContextShapes, with pedestrians beside the cars, who cover as many
    pixels. At green cars are 'moving' and pedestrians 'waiting', at red cars
    are 'waiting' and pedestrians 'moving'. So context cannot speak for a
    class at all positions alike: a head whose logits are f(position) +
    g(context) gets at least one of the four combinations wrong.

    Paths are ``crossing://image/<split>/<seed>/<index>.png``, and
    ``crossing://label/...``.
    """
    METAINFO = dict(
        classes=('background', 'tree', 'waiting', 'moving'),
        palette=ContextShapesDataset.METAINFO['palette'])
    prefix = 'crossing'


PREFIXES = (ContextShapesDataset.prefix, CrossingDataset.prefix)


@register_backend(name='contextshapes', prefixes=PREFIXES)
class ContextShapesBackend(BaseStorageBackend):
    """Serve ``PREFIX://{image,label}/<split>/<seed>/<index>.png``."""

    def get(self, filepath: str) -> bytes:
        """Return the PNG of an image (BGR to OpenCV) or label map."""
        prefix, _, path = str(filepath).partition('://')
        try:
            kind, split, seed, name = path.split('/')
            scene = _scene(split, int(seed), int(name.split('.')[0]),
                           prefix == CrossingDataset.prefix)
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
