"""What label pictures hold, as PIL reads them: values or colours."""
from pathlib import Path
from typing import NamedTuple, Optional, Tuple

import numpy as np
from PIL import Image, ImageOps

from ...errors import UserError
from ...stack.words import reason

# what a picture stores
COLOUR, PALETTE, GREY = 'colours', 'indices of a palette', 'grey values'
BITS = {'1': 1, '1;I': 1, 'L;2': 2, 'L;4': 4}  # of grey values, by raw mode
GREYS = 0x010101  # times a grey value is its colour
MOST = 1024  # different values that a count keeps


class Content(NamedTuple):
    """The different values of a picture.

    Args:
        form: ``COLOUR``, ``PALETTE`` or ``GREY``.
        bits: Of each grey value; 8 also for 16.
        stored: Ascending; colours are r << 16 | g << 8 | b.
        palette: Colours of the indices.
    """
    form: str
    bits: int
    stored: np.ndarray
    palette: np.ndarray

    def keys(self, colours: bool) -> np.ndarray:
        """Return the values as they are stored, or as colours.

        Raises:
            UserError: If they are no colours, as they are above 255.
        """
        if self.form == COLOUR or not colours:
            return self.stored
        if self.form == PALETTE:
            missing = max(0, 256 - len(self.palette))  # PIL draws them black
            return np.pad(self.palette, (0, missing))[self.stored]
        if self.stored[-1] > 255:
            raise UserError(
                f'pictures hold values up to {self.stored[-1]}, which are no '
                f"colours: give --colours lines like 'road {self.stored[-1]}'")
        return self.stored * (255 // (2**self.bits - 1)) * GREYS


class Picture(NamedTuple):
    """A picture as runs of equal pixels, which label maps have few of.

    Args:
        content: Its different values.
        size: (H, W).
        runs: For each run, the index of its value.
        lengths: Of the runs.
    """
    content: Content
    size: Tuple[int, int]
    runs: np.ndarray
    lengths: np.ndarray

    def paint(self, classes: np.ndarray) -> np.ndarray:
        """Return the label map in which each value has its class."""
        classes = classes.astype(np.uint8)
        return classes[self.runs].repeat(self.lengths).reshape(self.size)


class Count(NamedTuple):
    """How often the values of a picture occur, or why it cannot be read.

    ``rest`` are the pixels of the rarest values, if there are very many.
    """
    path: Path
    size: Tuple[int, int] = (0, 0)
    content: Optional[Content] = None
    pixels: Optional[np.ndarray] = None
    rest: int = 0
    failure: str = ''


def read_picture(path: Path) -> Picture:
    """Read a picture, turned upright as mmcv turns images.

    Raises:
        UserError: If it holds no labels.
        OSError, SyntaxError, ValueError: Of PIL's decoders.
    """
    with Image.open(path) as image:
        if getattr(image, 'n_frames', 1) > 1:
            raise UserError(f'it holds {image.n_frames} pictures: save each '
                            'in a file')
        mode, raw = image.mode, raw_mode(image)
        if mode == 'F':
            raise UserError('it holds fractions: save integers')
        if ';16' in raw and not mode.startswith('I'):
            raise UserError('it has several channels of 16 bits, of which '
                            'PIL reads 8: save it with 8 bits or one channel')
        ImageOps.exif_transpose(image, in_place=True)
        form, bits, palette = GREY, 8, np.zeros(0, np.int64)
        if mode == 'P':
            form = PALETTE
            palette = np.reshape(image.getpalette('RGB'),
                                 (-1, 3)) @ (2**16, 2**8, 1)
        elif mode in ('1', 'L', 'LA', 'I') or mode.startswith('I;16'):
            bits = 1 if mode == '1' else BITS.get(raw, 8)
        else:
            form = COLOUR
            if mode != 'RGB':
                image = image.convert('RGB')  # drops an alpha channel
            image = image.convert('RGBX')
        pixels = np.array(image)
    if form == COLOUR:  # four bytes are a number: faster than a sum of three
        pixels = pixels.view('>u4')[..., 0] >> 8
    elif mode == 'LA':
        pixels = pixels[..., 0]
    size = pixels.shape
    pixels = pixels.ravel()
    starts = np.flatnonzero(np.r_[True, pixels[1:] != pixels[:-1]])
    stored, runs = np.unique(pixels[starts], return_inverse=True)
    stored = stored.astype(np.int64)
    if stored[0] < 0 or form == GREY and stored[-1] > 65535:
        raise UserError(f'it holds {stored[0]} to {stored[-1]}; values must '
                        'be 0 to 65535')
    if form == COLOUR and (stored % 256 * GREYS == stored).all():
        form, stored = GREY, stored % 256
    elif mode != '1':  # PIL scales grey values of 2 and 4 bits
        stored = stored // (255 // (2**bits - 1))
    lengths = np.diff(np.r_[starts, pixels.size])
    return Picture(Content(form, bits, stored, palette), size, runs, lengths)


def count_picture(path: Path) -> Count:
    """Count the values of a picture; a failure is returned, not raised."""
    try:
        content, size, runs, lengths = read_picture(path)
    except Exception as error:  # of PIL's decoders, the disk
        return Count(path, failure=reason(error))
    pixels = np.bincount(runs, lengths).astype(np.int64)
    most = np.sort(np.argsort(-pixels, kind='stable')[:MOST])
    content = content._replace(stored=content.stored[most])
    return Count(path, size, content, pixels[most],
                 int(pixels.sum() - pixels[most].sum()))


def raw_mode(image: Image.Image) -> str:
    """Return how the file stores pixels, '' if the format has no such word."""
    arguments = image.tile[0][3] if image.tile else ''
    if isinstance(arguments, (tuple, list)):
        arguments = arguments[0] if arguments else ''
    return str(arguments)
