"""Tiny data sets in the genuine on-disk layouts, below ``data/``."""
from pathlib import Path
from typing import Sequence

import cv2
import numpy as np

SIZE = (48, 64)


def write(root: Path, image: str, label: str, values: Sequence[int],
          rng: np.random.Generator) -> None:
    """An image, and a label map in which each of ``values`` may occur."""
    for path in (root / image, root / label):
        path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(
        str(root / image), rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8))
    blocks = rng.choice(np.array(values, np.uint8), (6, 8))
    cv2.imwrite(
        str(root / label),
        np.kron(blocks, np.ones((8, 8), np.uint8)).astype(np.uint8))


def cityscapes(data: Path, rng: np.random.Generator) -> None:
    for split, city in (('train', 'aachen'), ('val', 'frankfurt')):
        for i in range(3):
            name = f'{city}_{i:06d}_000019'
            write(data / 'cityscapes',
                  f'leftImg8bit/{split}/{city}/{name}_leftImg8bit.png',
                  f'gtFine/{split}/{city}/{name}_gtFine_labelTrainIds.png',
                  [*range(19), 255], rng)


def ade20k(data: Path, rng: np.random.Generator) -> None:
    for split, short in (('training', 'train'), ('validation', 'val')):
        for i in range(1, 4):
            name = f'ADE_{short}_{i:08d}'
            write(data / 'ade/ADEChallengeData2016',
                  f'images/{split}/{name}.jpg',
                  f'annotations/{split}/{name}.png', range(151), rng)


def voc12(data: Path, rng: np.random.Generator) -> None:
    """VOC 2012 with the masks of SBD in SegmentationClassAug."""
    root = data / 'VOCdevkit/VOC2012'
    lists = root / 'ImageSets/Segmentation'
    lists.mkdir(parents=True)
    for split, folder, first in (('train', 'SegmentationClass',
                                  0), ('val', 'SegmentationClass', 3),
                                 ('aug', 'SegmentationClassAug', 6)):
        names = [f'2007_{i:06d}' for i in range(first, first + 3)]
        (lists / f'{split}.txt').write_text('\n'.join(names) + '\n')
        for name in names:
            write(root, f'JPEGImages/{name}.jpg', f'{folder}/{name}.png',
                  [*range(21), 255], rng)


def pcontext(data: Path, rng: np.random.Generator) -> None:
    """VOC 2010 with the masks of PASCAL Context: 0 is background."""
    root = data / 'VOCdevkit/VOC2010'
    lists = root / 'ImageSets/SegmentationContext'
    lists.mkdir(parents=True)
    for split, first in (('train', 0), ('val', 3)):
        names = [f'2008_{i:06d}' for i in range(first, first + 3)]
        (lists / f'{split}.txt').write_text('\n'.join(names) + '\n')
        for name in names:
            write(root, f'JPEGImages/{name}.jpg',
                  f'SegmentationClassContext/{name}.png', range(60), rng)


def camvid(data: Path, rng: np.random.Generator) -> None:
    for split in ('train', 'val', 'test'):
        for i in range(3):
            name = f'0001TP_{6690 + 30 * i:06d}.png'
            write(data / 'camvid', f'{split}/{name}', f'{split}annot/{name}',
                  range(12), rng)


LAYOUTS = dict(
    cityscapes=cityscapes,
    ade20k=ade20k,
    voc12=voc12,
    voc12aug=voc12,
    pcontext59=pcontext,
    pcontext60=pcontext,
    camvid=camvid)


def make(root: Path, name: str) -> None:
    """Write data set ``name`` below ``root/data``, as its configs expect."""
    LAYOUTS[name](root / 'data', np.random.default_rng(0))
