"""Which class the values of a folder's label pictures mean."""
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np
from scipy.spatial import KDTree

from ...errors import UserError
from ...stack.classes import IGNORE, IGNORED, ClassTable, default_palette
from ...stack.words import counted
from .pictures import COLOUR, GREY, GREYS, PALETTE, Count

LIMIT = 64  # different values that are taken for classes without a table
NO_CLASSES = (
    'this looks like JPEG, or like edges that were smoothed. Give the classes '
    'in a file of lines such as {line!r} by --colours, and --unknown nearest')
FEW = 8  # colours, which may be of rare classes
RARE = 0.01  # share of the pixels

Key = Tuple[int, ...]


class Totals(NamedTuple):
    """What all pictures hold: different keys, ascending, and how often."""
    keys: np.ndarray
    pixels: np.ndarray
    files: np.ndarray
    rest: int  # pixels of keys that are not listed


class Meaning(NamedTuple):
    """The classes of a folder's pictures.

    Args:
        table: That a person gave, or that was found.
        keys: The class of each value, or of each colour.
        colours: Whether keys are colours.
        note: What a person should know of it, or ''.
    """
    table: ClassTable
    keys: Dict[Key, int]
    colours: bool
    note: str = ''

    def classes_of(self, keys: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Return the class of the nearest key, and whether it is the same."""
        distances, nearest = KDTree([*self.keys
                                     ]).query(channels(keys, self.colours))
        return np.array([*self.keys.values()])[nearest], distances == 0


def channels(keys: np.ndarray, colours: bool) -> np.ndarray:
    """Return keys, (N, ), as (N, 3), red, green and blue, or as (N, 1)."""
    shifts = [16, 8, 0] if colours else [0]
    return keys[:, None] >> shifts & (255 if colours else 65535)


def as_keys(keys: np.ndarray, colours: bool) -> List[Key]:
    """Return keys of pictures as those of a table."""
    return [*map(tuple, channels(keys, colours).tolist())]


def total(counts: List[Count], colours: bool) -> Totals:
    """Add up what pictures hold."""
    keys, inverse = np.unique(
        np.concatenate([c.content.keys(colours) for c in counts]),
        return_inverse=True)
    pixels = np.bincount(inverse, np.concatenate([c.pixels for c in counts]))
    return Totals(keys, pixels.astype(np.int64), np.bincount(inverse),
                  sum(c.rest for c in counts))


def find_meaning(counts: List[Count], table: Optional[ClassTable]) -> Meaning:
    """Return what pictures mean by a table, or find it by counting.

    Raises:
        UserError: If the table does not fit the pictures, or they hold no
            classes.
    """
    colourful = next((c for c in counts if c.content.form == COLOUR), None)
    if table and table.keys:
        return _by_table(counts, table, colourful and colourful.path)
    if table and colourful:
        raise UserError(
            f'the table has names without colours, and {colourful.path} is a '
            f"colour picture: lines must be like '{table.names[0]} 128 64 128'"
        )
    colours = _holds_colours(counts, colourful is not None)
    if table and colours:
        raise UserError('the table has names without colours, and palettes of '
                        'the pictures differ: lines must be like '
                        f"'{table.names[0]} 128 64 128'")
    totals = total(counts, colours)
    values = as_keys(totals.keys, colours)
    if table:
        return _by_names(values, table)
    others = [key for key in values if key != (IGNORED, )]
    if not colours and 1 < len(others) < len(values):
        if others != [(i, ) for i in range(len(others))]:
            few = ', '.join(map(_text, others[:8]))
            raise UserError(
                f'the label pictures hold {few}{", ..." * (len(others) > 8)} '
                f'and {IGNORED}, which may be a class or ignored: give lines '
                f"such as 'road 7' by --colours, and '{IGNORE} {IGNORED}' "
                'where it is ignored')
        values = others
    if len(values) > LIMIT or totals.rest:
        line = 'road 128 64 128' if colours else 'road 7'
        held = 'colours' if colours else 'values'
        maps = '' if colours else (' If they are class indices, a file of '
                                   'all names, one a line, is enough')
        raise UserError(
            f'the label pictures hold {len(values)} {held} or more; without a '
            f'table, at most {LIMIT} are taken for classes: '
            f'{NO_CLASSES.format(line=line)}.{maps}')
    if len(values) < 2:
        raise UserError(f'all pixels are {_text(values[0])}: no two classes '
                        'to tell apart')
    if colours:
        _check_edges(totals.pixels)
        # black, then what is frequent
        pixels = dict(zip(values, totals.pixels.tolist()))
        values.sort(key=lambda key: (any(key), -pixels[key], key))
    names = [f'class_{i}' for i in range(len(values))]
    if len(values) == 2 and not any(values[0]):
        names = ['background', 'object']
    palette = [[*key]
               for key in values] if colours else default_palette(len(names))
    keys = {key: i for i, key in enumerate(values)}
    if len(values) < len(totals.keys):
        keys[(IGNORED, )] = IGNORED
    return Meaning(
        ClassTable(names, palette, keys), keys, colours,
        f'{counted(len(names), "class", "classes")} found by counting; '
        'for other folders of this data give --colours with the classes.txt '
        'that is written')


def _check_edges(pixels: np.ndarray) -> None:
    """Refuse colours most of which are hardly seen, without a table."""
    rarest = np.sort(pixels)[:len(pixels) // 2 + 1]
    if len(pixels) > FEW and rarest.sum() < RARE * pixels.sum():
        raise UserError(
            f'{len(rarest)} of {len(pixels)} colours have {100 * RARE:.0f} % '
            'of the pixels together: unless these classes are so rare, '
            f'{NO_CLASSES.format(line="road 128 64 128")}')


def _by_table(counts: List[Count], table: ClassTable,
              colourful: Optional[Path]) -> Meaning:
    if len(next(iter(table.keys))) == 1:
        if colourful:
            raise UserError(f'the table has values, but {colourful} is a '
                            "colour picture: lines must be like "
                            f"'{table.names[0]} 128 64 128'")
        return Meaning(table, table.keys, False)
    if all(c.content.form == GREY for c in counts):
        values = total(counts, False)
        found = {*as_keys(values.keys, False)}
        indices = {(i, ): i for i in (*range(len(table.names)), IGNORED)}
        painted = {*as_keys(values.keys * GREYS, True)}
        # 0 and 255 alone are a mask, whose object is not to be ignored
        if (not values.rest and len(found - {(IGNORED, )}) > 1
                and found <= {*indices} and not painted <= {*table.keys}):
            return Meaning(
                table, indices, False, 'the pictures hold class indices, so '
                "the table's colours are not looked for")
    return Meaning(table, table.keys, True)


def _by_names(values: List[Key], table: ClassTable) -> Meaning:
    """Give names to values in ascending order, or take these for indices."""
    count = len(table.names)
    if len(values) == count:
        keys = {key: i for i, key in enumerate(values)}
    elif all(value < count or value == IGNORED for value, in values):
        keys = {(i, ): i for i in range(count)}
    else:
        raise UserError(
            f'the table has {counted(count, "name")} without values, but the '
            f'pictures hold {counted(len(values), "value")} up to '
            f"{values[-1][0]}: lines must be like '{table.names[0]} "
            f"{values[0][0]}', or 'ignore {values[-1][0]}' for what is no "
            'class')
    keys.setdefault((IGNORED, ), IGNORED)
    return Meaning(table._replace(keys=keys), keys, False)


def _holds_colours(counts: List[Count], colourful: bool) -> bool:
    """Return whether colours count, not indices or values."""
    if colourful:
        return True
    forms = {(c.content.form, c.content.bits): c.path for c in counts}
    if len(forms) > 1:
        first, second, *_ = (f'{path} holds {form} of {bits} bits'
                             for (form, bits), path in forms.items())
        raise UserError(
            f'{first}, but {second}: the same value may mean other classes. '
            "Give colours, such as '--colours FILE' with the lines "
            "'background 0 0 0' and 'object 255 255 255', or convert them in "
            'two calls')
    if (PALETTE, 8) not in forms:
        return False
    # a palette may end with the last colour that its picture uses
    palettes = sorted({c.content.palette.tobytes() for c in counts}, key=len)
    return not all(palettes[-1].startswith(part) for part in palettes)


def _text(key: Key) -> str:
    return ' '.join(map(str, key))
