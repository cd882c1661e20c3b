"""The table of classes: names, colours, and what pixels of a class hold."""
import re
from pathlib import Path
from typing import Dict, List, NamedTuple, Tuple, Union

from ..errors import UserError
from .files import new_file, read_text

IGNORED = 255  # the index of pixels that train nothing
IGNORE = 'ignore'  # its name
TABLE = 'classes.txt'  # in a folder of label maps
MOST = 255  # classes: 0 to 254
# how a line is, by how many numbers it has
KINDS = {0: "'name'", 1: "'name value'", 3: "'name r g b'"}
LARGEST = {1: 65535, 3: 255}
HEADINGS = {
    'name', 'class', 'label', 'r', 'g', 'b', 'red', 'green', 'blue', 'value',
    'index', 'id'
}
NUMBER = re.compile(r'[+-]?\d+(\.\d*)?')


class ClassTable(NamedTuple):
    """Classes in the order of their indices.

    ``palette`` has an RGB for each of ``names``. ``keys`` are what pixels
    hold, ``(r, g, b)`` or ``(value,)``, with the index of their class, 255 for
    what is ignored; it is empty where only names are known.
    """
    names: List[str]
    palette: List[List[int]]
    keys: Dict[Tuple[int, ...], int]


def default_palette(count: int) -> List[List[int]]:
    """Return the colours of PASCAL VOC, for up to 256 classes.

    Bits of the index, three by three, are the high bits of red, green, blue.
    """
    return [[
        sum((i >> 3 * bit + channel & 1) << 7 - bit for bit in range(3))
        for channel in range(3)
    ] for i in range(count)]


def read_classes(path: Union[str, Path]) -> ClassTable:
    """Read a table of lines ``name r g b``, ``name value`` or ``name``.

    Commas, semicolons, tabs or spaces separate; what follows a ``#`` is a
    comment. Several lines of a name are one class. ``ignore`` is no class but
    what becomes 255. CVAT's ``name:r,g,b::`` and CamVid's ``r g b name`` are
    read too.

    Raises:
        UserError: With the line that is different.
    """
    return _parse(read_text(path), str(path))


def write_classes(path: Union[str, Path], table: ClassTable) -> None:
    """Write a table as :func:`read_classes` reads it.

    Raises:
        UserError: If the file exists, or would be read as another table.
    """
    if Path(path).exists():
        raise UserError(f'{path} exists: remove it, or give another path')
    names = dict(enumerate(table.names)) | {IGNORED: IGNORE}
    rows = [(i, key) for key, i in table.keys.items()
            ] or [(i, ()) for i in range(len(table.names))]
    # sorting keeps the order of the colours of a class
    text = ''.join('\t'.join([names[i], *map(str, key)]) + '\n'
                   for i, key in sorted(rows, key=lambda row: row[0]))
    try:
        copy = _parse(text, str(path))
        same = copy.names == table.names and copy.keys == table.keys
    except UserError:
        same = False
    if not same:
        raise UserError(
            f'{path} cannot hold these classes: names must differ, must not '
            f"be {IGNORE!r}, and without colours must not end in a number: "
            f'{", ".join(table.names)}')
    with new_file(path) as file:
        file.write_text(text, encoding='utf-8')


def _parse(text: str, path: str) -> ClassTable:
    names: List[str] = []
    colours: List[List[int]] = []  # the first of each name
    keys: Dict[Tuple[int, ...], int] = {}
    kind = None
    for number, line in enumerate(text.lstrip('\ufeff').split('\n'), start=1):
        line = re.sub(r'(^|\s)#.*', '', line).strip()
        where = f'{path}, line {number}'
        name, key = _split(line, where)
        first = kind is None
        if not line or first and _is_heading(line):
            continue
        kind = len(key) if first else kind
        if len(key) != kind:
            raise UserError(f'{where} must be like {KINDS[kind]}, as the '
                            f'lines above, got {line!r}')
        for value in key:
            if not 0 <= value <= LARGEST[kind]:
                raise UserError(f'{where}: numbers must be 0 to '
                                f'{LARGEST[kind]}, got {value}')
        if name != IGNORE and name not in names:
            names.append(name)
            colours.append([*key])
        elif not key and name != IGNORE:
            raise UserError(f'{where} names {name!r} a second time')
        index = IGNORED if name == IGNORE else names.index(name)
        if key and keys.setdefault(key, index) != index:
            held = [*names, *[IGNORE] * MOST][keys[key]]
            raise UserError(f'{where} gives {" ".join(map(str, key))} to '
                            f'{name!r}, but it is that of {held!r}')
    if not names:
        raise UserError(f'{path} names no class: give lines like '
                        f'{", ".join(KINDS.values())}')
    if len(names) > MOST:
        raise UserError(f'{path} names {len(names)} classes; labels of 8 bits '
                        f'have {MOST}')
    palette = colours if kind == 3 else default_palette(len(names))
    return ClassTable(names, palette, keys)


def _split(line: str, where: str) -> Tuple[str, Tuple[int, ...]]:
    """Return the name and the numbers of a line."""
    line = re.sub(r'^([^:]+):(\d+,\d+,\d+):[^:]*:[^:]*$', r'\1\t\2', line)
    line = re.sub(r'^((\d+[\s,;]+){3})([^\d\s].*)$', r'\3\t\1', line)
    separator = '\t' if '\t' in line else '[,;]'
    name, *rest = (part.strip() for part in re.split(separator, line))
    words = re.split(r'[\s,;]+', ' '.join(rest).strip(' ,;'))
    if not rest or not any(map(NUMBER.fullmatch, words)):
        # names may hold spaces, and commas where no number follows
        words = line.split()
        count = next((i for i, word in enumerate(reversed(words))
                      if not NUMBER.fullmatch(word)), len(words))
        count = min(count, 3)
        name, words = (' '.join(words[:len(words) - count]),
                       words[len(words) - count:])
    if line and not name or len(words) not in KINDS or not all(
            re.fullmatch(r'[+-]?\d+', word) for word in words):
        raise UserError(f'{where} must be like {", ".join(KINDS.values())}, '
                        f'with whole numbers, got {line!r}')
    return name.strip('"'), tuple(map(int, words))


def _is_heading(line: str) -> bool:
    words = {*re.split(r'[\s,;]+', line.lower())}
    return words <= HEADINGS and (len(words) > 1 or words == {'name'})
