"""The classes of label maps: their names and colours."""
from pathlib import Path
from typing import List, Optional, Tuple

from ...errors import UserError
from ...stack.classes import (IGNORED, TABLE, ClassTable, default_palette,
                              read_classes)
from ...stack.words import counted
from .pairs import Pairs
from .survey import Survey, convert


def name_classes(given: Optional[str], found: Survey,
                 pairs: Pairs) -> Tuple[List[str], List[List[int]]]:
    """Return names and colours of the classes.

    Args:
        given: A file of classes, or None for that in the folder of labels.
        found, pairs: What label maps hold.

    Raises:
        UserError: If label maps have values that are no class.
    """
    values = sorted(found.counts([*found.samples]))
    there = pairs.labels / TABLE
    path = given or (there if there.is_file() else None)
    if path:
        table = _in_order(read_classes(path), path, there, pairs)
        names, palette = table.names, table.palette
    else:
        names = [f'class {i}' for i in range(len(values))]
        palette = default_palette(len(values))
    wrong = [value for value in values if value >= len(names)]
    if wrong:
        few = ', '.join(map(str, wrong[:8])) + ', ...' * (len(wrong) > 8)
        has = f'{path} has {counted(len(names), "class", "classes")}' if path \
            else f'there are {len(names)} different values'
        name = f'Name all classes in {path}. Or, if these are no classes: ' \
            if path else ''
        raise UserError(f'label maps have the values {few}, and {has}: 0 to '
                        f'{len(names) - 1}. {name}{convert(pairs)}')
    if len(values) < 2:
        raise UserError(
            f'all labels are {"".join(map(str, values)) or "255, ignored"}: '
            'there is nothing to tell apart. A mask of one object has two '
            f'classes, the rest and the object. {convert(pairs)}')
    return names, palette


def _in_order(table: ClassTable, path: str, there: Path,
              pairs: Pairs) -> ClassTable:
    """Return a table whose lines are in the order of the label maps' values.

    The file that `prepare labels` writes names the values of before.
    """
    values = {
        index: key[0]
        for key, index in table.keys.items() if index != IGNORED
    }
    if (Path(path).resolve() == there.resolve() or not values
            or any(len(key) > 1 for key in table.keys)):
        return table
    if sorted(values.values()) != [*range(len(table.names))]:
        raise UserError(f'--classes {path} names other values than 0 to '
                        f'{len(table.names) - 1}. {convert(pairs, path)}')
    order = sorted(values, key=values.get)
    return table._replace(
        names=[table.names[i] for i in order],
        palette=[table.palette[i] for i in order])
