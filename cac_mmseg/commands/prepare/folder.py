"""A folder of label pictures: found, counted, checked, converted."""
import sys
from functools import partial
from pathlib import Path
from typing import Dict, List

import mmengine.fileio as fileio
import numpy as np
from mmengine.utils import track_progress_rich
from PIL import Image

from ...errors import MissingFileError, UserError
from ...stack.classes import IGNORE, IGNORED
from ...stack.words import counted
from .masks import Mask, make_mask
from .meaning import Meaning, as_keys, total
from .pictures import Count, count_picture, read_picture

NAMED = 12  # unknown colours, or files, that a message names


def find_pictures(labels: Path, out: Path) -> Dict[Path, Path]:
    """Return the pictures below a folder, with the label map of each.

    Raises:
        UserError: If there are none, or two would have the same label map.
    """
    Image.init()
    suffixes = {
        suffix
        for suffix, form in Image.EXTENSION.items() if form in Image.OPEN
    }
    targets: Dict[Path, Path] = {}
    others = []
    for name in sorted(
            fileio.list_dir_or_file(labels, list_dir=False, recursive=True)):
        suffix = Path(name).suffix.lower()
        if suffix not in suffixes:
            others.append(suffix)
            continue
        path, target = labels / name, (out / name).with_suffix('.png')
        other = targets.setdefault(target, path)
        if other != path:
            raise UserError(f'{other} and {path} would both be written to '
                            f'{target}: move one of them elsewhere')
    if not targets and others and {*others} == {'.json'}:
        raise UserError(
            f'--labels {labels} holds .json files only. Those of LabelMe are '
            'converted by its own labelme2voc.py or labelme_export_json, whose'
            ' pictures are read here; of COCO give the file')
    if not targets:
        raise MissingFileError(f'--labels {labels} holds no picture that PIL '
                               'reads, such as *.png')
    return {path: target for target, path in targets.items()}


class Converter:
    """Makes the label map of a picture.

    Args:
        meaning: Of the values.
        unknown: 'refuse', 'ignore' or 'nearest'.
    """

    def __init__(self, meaning: Meaning, unknown: str) -> None:
        self.meaning = meaning
        self.unknown = unknown

    def __call__(self, count: Count, target: Path) -> Mask:
        """Convert; a failure is returned, not raised."""
        return make_mask(
            str(count.path), target, partial(self._paint, count.path))

    def _paint(self, path: Path) -> np.ndarray:
        picture = read_picture(path)
        classes, same = self.meaning.classes_of(
            picture.content.keys(self.meaning.colours))
        if self.unknown == 'refuse' and not same.all():
            raise UserError('it has changed since it was counted')
        if self.unknown == 'ignore':
            classes = np.where(same, classes, IGNORED)
        return picture.paint(classes)


def count_pictures(paths: List[Path], workers: int) -> List[Count]:
    """Count what pictures hold.

    Raises:
        UserError: If some cannot be read.
    """
    counts = track_progress_rich(
        count_picture, [(path, ) for path in paths],
        nproc=workers,
        chunksize=4,
        description='count')
    failed = [f'{c.path}: {c.failure}' for c in counts if c.failure]
    if failed:
        more = f'\nand {len(failed) - NAMED} more' * (len(failed) > NAMED)
        raise UserError(
            f'{counted(len(failed), "picture")} cannot be read, and nothing is'
            ' converted: remove or mend\n' + '\n'.join(failed[:NAMED]) + more)
    return counts


def check_unknown(counts: List[Count], meaning: Meaning, unknown: str,
                  source: str) -> None:
    """Say which pixels are of no class; exit with 1 if they are refused."""
    found = total(counts, meaning.colours)
    missing = np.flatnonzero(~meaning.classes_of(found.keys)[1])
    pixels = int(found.pixels[missing].sum()) + found.rest
    if not pixels:
        return
    every = int(found.pixels.sum()) + found.rest
    noun = 'colour' if meaning.colours else 'value'
    share = f'{counted(pixels, "pixel")} ({100 * pixels / every:.2f} %)'
    if unknown != 'refuse':
        become = f'become {IGNORED}' if unknown == 'ignore' else \
            f'get the class of the nearest {noun}'
        print(f'{share} of {counted(len(missing), noun)} that {source} does '
              f'not name {become}')
        return
    lines = [
        f'{IGNORE} {" ".join(map(str, key))}  # '
        f'{counted(int(found.pixels[i]), "pixel")} in '
        f'{counted(int(found.files[i]), "file")}'
        for i in sorted(missing, key=lambda i: -found.pixels[i])[:NAMED]
        for key in as_keys(found.keys[[i]], meaning.colours)
    ]
    if len(missing) > NAMED or found.rest:
        lines.append(f'# and {len(missing) - NAMED} more' +
                     ' at least' * bool(found.rest))
    print(
        f'{share} are of {counted(len(missing), noun)} that {source} does not '
        'name, and nothing is converted:',
        *lines,
        'Add these lines to the table, with the name of a class where it is '
        'one, or give --unknown ignore (they become '
        f'{IGNORED}) or --unknown nearest (they get the class of the nearest '
        f'{noun})',
        sep='\n',
        file=sys.stderr)
    sys.exit(1)
