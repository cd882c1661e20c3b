"""``python -m cac_mmseg visualize``: a page per image, to see how it is read.

The image, the prediction, the ground truth where --labels has it, and what the
CaC modules made of the image: for the channels that vary most over it, the
weights W of each dilation, their sum, and the predicted kernels D.
"""
import argparse
import os
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.device import get_device
from mmengine.utils import track_iter_progress
from mmseg.models import BaseSegmentor
from mmseg.structures import SegDataSample

from ._checks import check_device, check_int
from ._config import dataset_without_data
from ._files import make_folder
from .checkpoint import load_model
from .context import choose_channels, context_modules, look
from .draw import classes_of, draw_context, paint, read_image, save_picture

SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')
WEIGHTS = ('.pth', '.pt')


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
        read_image(image)  # or it raises with the name of the file
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
            raise ValueError(
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
                raise FileNotFoundError(
                    f'{path} holds no image ({", ".join(SUFFIXES)})')
            images += found
        elif _is_there(path):
            images.append(path)
        else:
            raise FileNotFoundError(f'{path} is not a file or a folder: give '
                                    'images, or folders of images')
    seen: Dict[str, str] = {}
    for image in images:
        other = seen.setdefault(Path(image).stem, image)
        if other != image:
            raise ValueError(f'{other} and {image} would both be written to '
                             f'{Path(image).stem}.png: give them in two calls')
    return [*seen.values()]


def _is_there(path: str) -> bool:
    # others are served by a backend of mmengine's
    return '://' in path or os.path.isfile(path)


def page(model: BaseSegmentor,
         data: dict,
         output: SegDataSample,
         meta: dict,
         count: int = 4,
         channels: Optional[Sequence[int]] = None) -> np.ndarray:
    """Draw the page of an image.

    Args:
        model: In evaluation mode.
        data: A batch of one image as a data loader gives it.
        output: What the model predicts for it; its ground truth is drawn too
            where there is one.
        meta: ``classes`` and ``palette``.
        count, channels: See :func:`cac_mmseg.context.choose_channels`.

    Returns:
        The picture, (H, W, 3), uint8, RGB.

    Raises:
        ValueError: If a label map is not of the size of its image, or a
            channel is out of range.
    """
    image = read_image(output.img_path)
    tiles, titles, labels = [image], ['image'], []
    fields = dict(pred_sem_seg='prediction', gt_sem_seg='ground truth')
    for field, title in fields.items():
        if field in output:
            label = output.get(field).data[0].cpu().numpy()
            if label.shape != image.shape[:2]:
                raise ValueError(
                    f'the {title} of {output.img_path} is of the size '
                    f'{label.shape}, not {image.shape[:2]}')
            tiles.append(paint(image, label, meta))
            titles.append(title)
            labels.append(label)
    contexts = look(model, data)
    return draw_context(tiles, titles, classes_of(labels, meta), meta,
                        choose_channels(contexts, count, channels))


def _split(files: Sequence[str]) -> Tuple[Optional[str], Sequence[str]]:
    """Return the checkpoint, if the first of the files is one, and the rest.
    """
    if files[0].endswith(WEIGHTS):
        return files[0], files[1:]
    return None, files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add('config', help='such as configs/cac_r18_camvid.py')
    add('files',
        nargs='+',
        metavar='FILE',
        help='a checkpoint (.pth; without one, weights are random), then '
        'images or folders of images')
    add('--out', required=True, metavar='DIR', help='gets IMAGE.png for each')
    add('--labels',
        metavar='DIR',
        help='folder of the ground truth, named as in the data set')
    add('--top',
        type=int,
        default=4,
        metavar='N',
        help='draw the N channels whose weights vary most (default: 4)')
    add('--channels',
        type=int,
        nargs='+',
        metavar='C',
        help='draw these channels of every module instead')
    add('--device', default=get_device(), help='default: %(default)s')


def run(arguments: argparse.Namespace) -> None:
    """Write the pages, and print where.

    Raises:
        FileNotFoundError, ValueError: naming what does not fit; pages that
            were written before remain.
    """
    check_int('--top', arguments.top)
    checkpoint, files = _split(arguments.files)
    if not files:
        raise ValueError(f'no IMAGE is given, only {checkpoint}')
    images = find_images(files)
    device = check_device(arguments.device)
    model = load_model(arguments.config, checkpoint).to(device)
    reader = Reader(model.cfg, arguments.labels)
    missing = [
        reader.label_path(image) for image in images
        if arguments.labels and not _is_there(reader.label_path(image))
    ]
    if missing:
        raise FileNotFoundError(
            f'{len(missing)} label maps are missing: {missing[0]}' + ', ...' *
            (len(missing) > 1))
    if not checkpoint:
        print('no checkpoint is given: the weights are random')
    if not context_modules(model):
        print('the model has no CaCModule: there are no weights to draw')
    out = make_folder(arguments.out)
    for image in track_iter_progress(images):
        data = reader(image)
        picture = page(model, data,
                       model.test_step(data)[0], reader.dataset.metainfo,
                       arguments.top, arguments.channels)
        save_picture(picture, out / f'{Path(image).stem}.png')
    print(f'\n{len(images)} pages in {out}')
