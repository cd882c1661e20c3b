"""Read images and label maps as the test pipeline of a config does."""
import os
from pathlib import Path
from typing import Dict, List, Optional, Sequence

import cv2
import mmengine.fileio as fileio
import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose

from ..utils.config import dataset_without_data
from ..utils.errors import MissingFileError, UserError

SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')


def read_image(path: str) -> np.ndarray:
    """Read an image from wherever mmengine reads.

    Raises:
        ValueError: If it is none.
    """
    content = np.frombuffer(fileio.get(path), np.uint8)
    image = cv2.imdecode(content, cv2.IMREAD_COLOR) if len(content) else None
    if image is None:
        raise UserError(f'{path} cannot be read as an image')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


class Reader:
    """Reads images, and their label maps, as the test pipeline of a config.

    Args:
        config: Whose data set says how.
        labels: Folder of the label maps, named as the data set names them.
    """

    def __init__(self, config: Config, labels: Optional[str]) -> None:
        self.dataset = dataset_without_data(config)
        self.labels = labels
        self.pipeline = Compose([
            transform for transform in self.dataset.pipeline.transforms
            if labels or 'Annotation' not in type(transform).__name__
        ])

    def __call__(self, image: str) -> dict:
        """Return a batch of one image, as a data loader gives it.

        Raises:
            ValueError: If a file is not what its name says.
        """
        read_image(image)  # raises an error that names the file
        info = dict(
            img_path=image,
            label_map=self.dataset.label_map,
            reduce_zero_label=self.dataset.reduce_zero_label,
            seg_fields=[])
        if self.labels:
            info['seg_map_path'] = self.label_path(image)
        try:
            sample = self.pipeline(info)
        except Exception as error:  # of any transform and decoder
            raise UserError(
                f'{image}{" or its label map" * bool(self.labels)} cannot be '
                f'read: {type(error).__name__}: {error}') from error
        return {key: [value] for key, value in sample.items()}

    def label_path(self, image: str) -> str:
        """Return where the label map of an image should be."""
        name, suffix = os.path.basename(image), self.dataset.img_suffix
        # which may be more than an ending, such as _leftImg8bit.png
        stem = name.removesuffix(suffix) if name.endswith(suffix) else Path(
            name).stem
        return os.path.join(self.labels,
                            f'{stem}{self.dataset.seg_map_suffix}')


def find_images(paths: Sequence[str]) -> List[str]:
    """Return the images that are named, or in the folders that are named.

    Raises:
        FileNotFoundError: If there is no such file, or none in a folder.
        ValueError: If pages would have the same name.
    """
    images: List[str] = []
    for path in paths:
        if os.path.isdir(path):
            found = sorted(
                os.path.join(path, name) for name in os.listdir(path)
                if name.lower().endswith(SUFFIXES))
            if not found:
                raise MissingFileError(
                    f'{path} holds no image ({", ".join(SUFFIXES)})')
            images += found
        elif is_there(path):
            images.append(path)
        else:
            raise MissingFileError(f'{path} is not a file or a folder: give '
                                   'images, or folders of images')
    seen: Dict[str, str] = {}
    for image in images:
        other = seen.setdefault(Path(image).stem, image)
        if other != image:
            raise UserError(f'{other} and {image} would both be written to '
                            f'{Path(image).stem}.png: give them in two calls')
    return [*seen.values()]


def is_there(path: str) -> bool:
    # others are served by a backend of mmengine's
    return '://' in path or os.path.isfile(path)
