"""``python -m cac_mmseg predict``: segment images with an exported file.

Needs no config, and only numpy, OpenCV and onnxruntime (for model.pt2: torch).
Resizes, normalises, pads and slides as the file says, as mmseg's test does.
OUT/NAME.png gets the index of each pixel's class, OUT/overlays/NAME.png the
classes in colour over the image.
"""
import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from ..deploy.runtime import load
from ..errors import UserError
from ..stack.env import require_stack
from ..stack.files import check_folder, find_images, make_folder
from ..stack.words import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add('file', metavar='FILE', help='of export: model.onnx or model.pt2')
    add('images', nargs='*', metavar='IMAGE', help='or folder of images')
    add('--out', metavar='DIR', help='gets the predictions')
    add('--against',
        nargs=2,
        metavar=('CONFIG', 'CHECKPOINT'),
        help="print the mIoU on this config's test data, of the file and of "
        'the model (needs mmseg)')


def run(arguments: argparse.Namespace) -> None:
    """Predict, and print where; or print the scores.

    Raises:
        UserError: naming what cannot be read, or does not fit the file.
    """
    if bool(arguments.images) == bool(arguments.against):
        raise UserError('give either IMAGE ... with --out, or --against')
    if arguments.images and not arguments.out:
        raise UserError('--out DIR is missing: it gets the predictions')
    for image in arguments.images:
        if '://' in image:
            raise UserError(f'{image}: predict reads files of this machine')
    try:
        predict = load(arguments.file)
    except ValueError as error:
        raise UserError(str(error)) from error
    if arguments.against:
        # predicting does without the stack
        try:
            require_stack()
        except ImportError as error:
            raise UserError(str(error)) from error
        from ..deploy.score import compare_scores
        from ..stack.checkpoint import load_model
        model = load_model(*arguments.against)
        print(compare_scores(model, {arguments.file: predict}))
        return
    images = find_images(arguments.images)
    check_folder(arguments.out)
    out = Path(arguments.out)
    overlays = out / 'overlays'
    for image in images:
        name = f'{Path(image).stem}.png'
        if Path(image).resolve() in [(folder / name).resolve()
                                     for folder in (out, overlays)]:
            raise UserError(f'{image} would be overwritten by its prediction: '
                            'give another --out')
    make_folder(out)
    make_folder(overlays)
    refused = []
    for path in images:
        try:
            image = read_image(path, predict.facts['channels'])
            classes = predict(image)
        except ValueError as error:  # the other images are not lost
            refused.append(f'{path}: {error}')
            continue
        name = f'{Path(path).stem}.png'
        write_image(out / name, classes)
        write_image(overlays / name, overlay(image, classes, predict.facts))
    print(f'{counted(len(images) - len(refused), "prediction")} in {out}')
    if refused:
        print(
            f'{counted(len(refused), "image")} not predicted:',
            *refused,
            sep='\n',
            file=sys.stderr)
        raise SystemExit(2)


def read_image(path: str, channels: int) -> np.ndarray:
    """Read an image as mmseg's loader does: BGR in uint8 if it has colours.

    Raises:
        ValueError: If OpenCV cannot.
    """
    image = cv2.imread(
        path, cv2.IMREAD_COLOR if channels == 3 else cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError('OpenCV cannot read this as an image')
    return image


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image, or an index of 8 bits, or of 16 where it is larger.

    Raises:
        UserError: If it cannot be written.
    """
    if image.ndim == 2:
        image = image.astype(np.uint16 if image.max() > 255 else np.uint8)
    if not cv2.imwrite(str(path), image):
        raise UserError(f'{path} cannot be written')


def overlay(image: np.ndarray, classes: np.ndarray, facts: dict) -> np.ndarray:
    """Return the image, half covered by the colours of its classes."""
    colours = np.array(facts['palette'], np.uint8)[..., ::-1]
    colours = np.resize(colours, (len(facts['classes']), 3))[classes]
    if image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8:
        return cv2.addWeighted(image, 0.5, colours, 0.5, 0)
    return colours  # over bands that are no colours
