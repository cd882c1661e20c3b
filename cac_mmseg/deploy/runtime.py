"""Predict with an exported file.

Needs numpy, OpenCV, and onnxruntime (for .onnx) or torch (for .pt2), and
imports nothing else: this module may be copied to where no more is installed.
What it does to an image is what mmseg's test does, as the file says.
"""
import json
import logging
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Tuple, Union

import cv2
import numpy as np

METADATA = 'cac_mmseg'  # name of what a file says of itself, as JSON
FORMAT = 1  # of that: another number says that this module cannot read it
KEYS = {
    'classes', 'palette', 'channels', 'channel_order', 'mean', 'std', 'resize',
    'pad', 'window', 'others', 'threshold', 'align_corners', 'output', 'raw',
    'size', 'batch'
}
RESIZED = np.uint8, np.uint16, np.int16, np.float32, np.float64  # by OpenCV


class Predictor:
    """A function from an image to the class of each pixel.

    Args:
        network: Maps (B, C, H, W) to the scores or classes of an export.
        facts: What the export says of itself.
    """

    def __init__(self, network: Callable[[np.ndarray], np.ndarray],
                 facts: Dict[str, Any]) -> None:
        self.network = network
        self.facts = facts
        if facts['others']:
            warnings.warn('the test of this model also has '
                          f'{", ".join(facts["others"])}, which is not '
                          'repeated: its results may differ')

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Map (H, W, 3) in uint8, BGR as OpenCV reads it, to (H, W) classes.

        Of other data, (H, W, C) in the order of training.

        Raises:
            ValueError: If this is no such image, or the file takes others.
        """
        facts = self.facts
        image = self.checked(image)
        x = self.prepare(image)
        h, w = x.shape[2:]
        x = self.pad(x)
        scores = self.slide(x) if facts['window'] else self.run(x)
        return self.classify(scores[..., :h, :w], image.shape[:2])

    def checked(self, image: np.ndarray) -> np.ndarray:
        """Return an image as (H, W, C), or say why it is none."""
        if image is None:
            raise ValueError('an image must be an array, got None, which '
                             'cv2.imread gives for what it cannot read')
        facts, array = self.facts, np.asarray(image)
        shape = array.shape
        if array.ndim == 2:
            array = array[..., None]
        if (array.ndim != 3 or array.shape[2] != facts['channels']
                or not array.size):
            raise ValueError('an image must have shape (H, W, '
                             f'{facts["channels"]}), got {shape}')
        kind = array.dtype.kind
        if kind not in 'uif' or facts['raw'] and array.dtype != np.uint8:
            raise ValueError(
                f'an image must be in uint8{"" if facts["raw"] else ", "}'
                f'{"" if facts["raw"] else "or other real numbers"}, got '
                f'{array.dtype}')
        if kind == 'f' and not np.isfinite(array).all():
            raise ValueError('an image must not have NaN or infinite values')
        colours = facts['channel_order'] and max(facts['mean'] or [0]) > 1
        if colours and array.dtype != np.uint8 and (array.min() < 0
                                                    or array.max() > 255
                                                    or 0 < array.max() <= 1):
            raise ValueError(
                'colours must be from 0 to 255, as in training, got '
                f'{array.min():.3g} to {array.max():.3g} in {array.dtype}')
        return array

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Resize and normalise an image (H, W, C): (1, C, H, W)."""
        facts = self.facts
        size = self.resized(image.shape[:2])
        if not min(size):
            raise ValueError(
                f'an image of {image.shape[0]} x {image.shape[1]} pixels has '
                f'{size[0]} x {size[1]} when it is resized to '
                f'{facts["resize"]["scale"]}')
        if facts['resize']:
            if image.dtype not in RESIZED:
                image = image.astype(np.float32)
            image = cv2.resize(image, size[::-1]).reshape(*size, -1)
        if facts['channel_order'] == 'RGB':
            image = image[..., ::-1]
        if not facts['raw']:
            image = image.astype(np.float32)
        if facts['mean']:
            image = (image - np.float32(facts['mean'])) / np.float32(
                facts['std'])
        return np.ascontiguousarray(image.transpose(2, 0, 1)[None])

    def pad(self, x: np.ndarray) -> np.ndarray:
        """Pad below and to the right, to the size that the model asks for."""
        below, right = np.subtract(self.padded(x.shape[2:]), x.shape[2:])
        return np.pad(
            x, ((0, 0), (0, 0), (0, below), (0, right)),
            constant_values=self.facts['pad'].get('value', 0))

    def resized(self, shape: Tuple[int, int]) -> Tuple[int, int]:
        """Return H and W of an image after the test's Resize."""
        resize = self.facts['resize']
        return resized_shape(shape, **resize) if resize else tuple(shape)

    def padded(self, shape: Tuple[int, int]) -> Tuple[int, int]:
        """Return H and W of a resized image after padding."""
        divisor = self.facts['pad'].get('size_divisor') or 1
        h, w = (max(least, -(-side // divisor) * divisor)
                for least, side in zip(self.facts['pad'].get('size') or (
                    1, 1), shape))
        return h, w

    def slide(self, x: np.ndarray) -> np.ndarray:
        """Average the logits of overlapping windows, each of full size."""
        total, count = 0, np.zeros(x.shape[2:], np.float32)
        for rows, columns in windows(x.shape[2:], **self.facts['window']):
            scores = self.run(x[..., rows, columns])
            if not count.any():
                total = np.zeros((*scores.shape[:2], *x.shape[2:]), np.float32)
            total[..., rows, columns] += scores
            count[rows, columns] += 1
        return total / count

    def run(self, x: np.ndarray) -> np.ndarray:
        """Run the network on (1, C, H, W): what the file gives for it."""
        size, batch = self.facts['size'], self.facts['batch'] or 1
        if size and tuple(size) != x.shape[2:]:
            changes = [
                word
                for word, fact in (('resized', 'resize'), ('padded', 'pad'))
                if self.facts[fact]
            ]
            raise ValueError(
                f'the file takes {"windows of " * bool(self.facts["window"])}'
                f'{size[0]} x {size[1]} pixels, and this image has '
                f'{x.shape[2]} x {x.shape[3]}'
                f'{" when it is " * bool(changes)}{" and ".join(changes)}: '
                'export without --static')
        try:
            return self.network(np.repeat(x, batch, 0))[:1]
        except Exception as error:  # of either runtime
            raise ValueError(
                f'the file fails on {x.shape[2]} x {x.shape[3]} pixels: '
                f'{" ".join(str(error).split())[:200]}') from error

    def classify(self, scores: np.ndarray, shape: Tuple[int,
                                                        int]) -> np.ndarray:
        """Resize to the image, and decide: (H, W)."""
        facts = self.facts
        if facts['output'] == 'classes':
            return scores[0]  # of images that are not resized
        scores = resize(scores[0], shape, facts['align_corners'])
        if len(scores) > 1:
            return scores.argmax(0)
        if facts['output'] == 'logits':
            scores = 1 / (1 + np.exp(-scores))
        return (scores[0] > facts['threshold']).astype(int)


def resized_shape(shape: Tuple[int, int], scale: Tuple[int, int],
                  keep_ratio: bool) -> Tuple[int, int]:
    """Return H and W after mmcv's Resize to a scale (width, height)."""
    if not keep_ratio:
        return scale[1], scale[0]
    factor = min(max(scale) / max(shape), min(scale) / min(shape))
    return int(shape[0] * factor + 0.5), int(shape[1] * factor + 0.5)


def windows(shape: Tuple[int, int], size: Tuple[int, int],
            stride: Tuple[int, int]) -> Iterator[Tuple[slice, slice]]:
    """Yield rows and columns of mmseg's sliding windows.

    The last ones end at the edge, and an image smaller than one is one.
    """
    ranges = []
    for length, side, step in zip(shape, size, stride):
        count = max(length - side + step - 1, 0) // step + 1
        ends = [min(i * step + side, length) for i in range(count)]
        ranges.append([slice(max(end - side, 0), end) for end in ends])
    for rows in ranges[0]:
        for columns in ranges[1]:
            yield rows, columns


def resize(maps: np.ndarray, shape: Tuple[int, int],
           align_corners: bool) -> np.ndarray:
    """Interpolate (K, H, W) linearly, as PyTorch's ``interpolate``."""
    for axis, new in enumerate(shape, 1):
        old = maps.shape[axis]
        if old == new:
            continue
        if align_corners:
            at = np.linspace(0, old - 1, new)
        else:
            at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = at.astype(int)
        part = np.float32(at - low).reshape(-1, *[1] * (2 - axis))
        upper = maps.take(np.minimum(low + 1, old - 1), axis)
        maps = maps.take(low, axis) * (1 - part) + upper * part
    return maps


def load(path: Union[str, Path]) -> Predictor:
    """Read FILE.onnx or FILE.pt2 of ``python -m cac_mmseg export``.

    Raises:
        ValueError: If it is another file, or its runtime is not installed.
    """
    path = Path(path)
    readers = {'.onnx': _load_onnx, '.pt2': _load_program}
    if not path.is_file():
        raise ValueError(f'{path} is not a file')
    if path.suffix not in readers:
        raise ValueError(f'{path} must end on {" or ".join(readers)}')
    try:
        network, text = readers[path.suffix](str(path))
    except ImportError as error:
        raise ValueError(f'{path} needs {error.name}: pip install '
                         f'{error.name}') from error
    except Exception as error:  # of either runtime
        raise ValueError(f'{path} cannot be read: {type(error).__name__}: '
                         f'{" ".join(str(error).split())[:200]}') from error
    try:
        facts = json.loads(text)
    except ValueError:
        facts = None
    if (not isinstance(facts, dict) or facts.get('format') != FORMAT
            or not facts.keys() >= KEYS):
        raise ValueError(
            f'{path} does not say, in a form that this version reads, what '
            'model it holds: write it by `python -m cac_mmseg export`')
    return Predictor(network, facts)


def _load_onnx(path: str) -> Tuple[Callable, str]:
    import onnxruntime

    # others, of phones and accelerators, may compute in lower precision
    providers = [
        name for name in ('CUDAExecutionProvider', 'CPUExecutionProvider')
        if name in onnxruntime.get_available_providers()
    ]
    session = onnxruntime.InferenceSession(path, providers=providers)
    name = session.get_inputs()[0].name
    metadata = session.get_modelmeta().custom_metadata_map
    return (lambda x: session.run(None, {name: x})[0],
            metadata.get(METADATA, ''))


def _load_program(path: str) -> Tuple[Callable, str]:
    import torch
    extra = {METADATA: ''}
    disabled = logging.root.manager.disable
    logging.disable()  # of what is no program, torch logs before it raises
    try:
        program = torch.export.load(path, extra_files=extra).module()
    finally:
        logging.disable(disabled)

    def network(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return program(torch.from_numpy(x)).numpy()

    return network, extra[METADATA]
