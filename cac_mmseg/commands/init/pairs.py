"""Which image belongs to which label map, and to training or validation."""
import hashlib
from collections import Counter
from pathlib import Path, PurePath
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from ...errors import MissingFileError, UserError
from ...stack.files import SUFFIXES, read_text
from ...stack.words import counted

# folders of each part
SPLITS = {
    'train': {'train', 'training'},
    'val': {'val', 'valid', 'validation'},
}
ONE_OF = 5  # images is for validation


class Pairs(NamedTuple):
    """Images and their label maps.

    Args:
        images, labels: Folders.
        suffixes: What follows a name: of images, of label maps.
        names: Of pairs, relative to both folders, sorted.
        notes: What was left out, a line each.
    """
    images: Path
    labels: Path
    suffixes: Tuple[str, str]
    names: List[str]
    notes: List[str]

    def files(self, name: str) -> Tuple[str, str]:
        """Return the files of a pair."""
        folders = self.images, self.labels
        return tuple(f'{folder / name}{suffix}'
                     for folder, suffix in zip(folders, self.suffixes))


def find_pairs(images: str, labels: str) -> Pairs:
    """Pair the images of a folder with the label maps of another.

    A label map has the place and name of its image, or that and a constant
    ending, such as ``_mask``.

    Raises:
        UserError: If there are none, or they are not paired in one way.
    """
    folders = Path(images), Path(labels)
    for option, folder in zip(('--images', '--labels'), folders):
        if not folder.is_dir():
            raise MissingFileError(f'{option} {folder} is not a folder')
    if folders[0].resolve() == folders[1].resolve():
        raise UserError(f'--images and --labels are both {images}: put images '
                        'and label maps into a folder each')
    found = _listed('--images', folders[0],
                    folders[1]), _listed('--labels', folders[1], folders[0])
    suffix = _image_suffix(folders[0], found[0])
    stems = {name.removesuffix(suffix) for name in found[0]}
    ending = _label_ending(stems, found[1])
    if ending is None:
        raise UserError(
            f'no label map in {labels} is named after an image of {images}: '
            f'there is {found[0][0]} and {found[1][0]}. Give label maps the '
            'place and the name of their image')
    labelled = {
        name.removesuffix(ending)
        for name in found[1] if name.endswith(ending)
    }
    notes = [
        f'{counted(len(lost), noun)} without {lacks}, left out: '
        f'{", ".join(sorted(lost)[:3])}{", ..." * (len(lost) > 3)}'
        for lost, noun, lacks in ((stems - labelled, 'image', 'a label map'),
                                  (labelled - stems, 'label map', 'an image'))
        if lost
    ]
    return Pairs(*folders, (suffix, ending), sorted(stems & labelled), notes)


def _listed(option: str, folder: Path, other: Path) -> List[str]:
    """Return the pictures below a folder, not those of one inside of it."""
    inner = other.resolve()
    found = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob('*')
        if path.suffix.lower() in SUFFIXES and path.is_file() and (
            inner not in path.resolve().parents
            or inner in folder.resolve().parents))
    if not found:
        raise MissingFileError(f'{option} {folder} holds no picture '
                               f'({", ".join(SUFFIXES)})')
    return found


def _image_suffix(folder: Path, names: Sequence[str]) -> str:
    endings = Counter(PurePath(name).suffix for name in names)
    if len(endings) > 1:
        kinds = ', '.join(f'{n} {s}' for s, n in endings.most_common())
        raise UserError(
            f'--images {folder} has images of several endings ({kinds}), and '
            'data sets of mmseg have one: rename or convert the others '
            '(.JPG to .jpg is a renaming)')
    return [*endings][0]


def _label_ending(stems: set, names: Sequence[str]) -> Optional[str]:
    """Return what most label maps have after the name of an image."""
    endings: Counter = Counter()
    for name in names:
        stem = name
        while stem:  # from the longest name on: 1_2 is not an ending of 1
            stem = stem[:-1]
            if stem in stems:
                endings[name[len(stem):]] += 1
                break
    return endings.most_common(1)[0][0] if endings else None


def split(pairs: Pairs,
          lists: Optional[Sequence[str]] = None) -> Tuple[Dict, str]:
    """Divide pairs into 'train' and 'val', and say by what.

    By lists, or the folders train and val at any level; else about a fifth is
    for validation, chosen by hashed names: the same ones each time.

    Raises:
        UserError: If a list does not fit, or a part would be empty.
    """
    if lists:
        parts = {
            part: _from_list(pairs, path)
            for part, path in zip(SPLITS, lists)
        }
        both = {*parts['train']} & {*parts['val']}
        if both:
            raise UserError(f'--lists: {counted(len(both), "name")} in both '
                            f'lists, such as {sorted(both)[0]}')
        return parts, f'by {lists[0]} and {lists[1]}'
    folders = {
        name: {*PurePath(name.lower()).parts[:-1]}
        for name in pairs.names
    }
    parts = {
        part: [n for n in pairs.names if folders[n] & words]
        for part, words in SPLITS.items()
    }
    if all(parts.values()) and not {*parts['train']} & {*parts['val']}:
        rest = len(pairs.names) - sum(map(len, parts.values()))
        return parts, 'by the folders train and val' + (
            f'; {rest} elsewhere are left out' if rest else '')
    if len(pairs.names) < 2:
        raise UserError(f'--images {pairs.images}: one pair of image and '
                        'label map is not enough to train and validate')
    # of each name by itself: it stays where it is when others come
    chance = {
        name: int(hashlib.sha256(name.encode()).hexdigest(), 16) % ONE_OF
        for name in pairs.names
    }
    val = [name for name in pairs.names if not chance[name]]
    # few images may all be in one part
    val = val if 0 < len(val) < len(chance) else [
        min(chance, key=lambda name: (chance[name], name))
    ]
    train = [name for name in pairs.names if name not in {*val}]
    return dict(train=train, val=val), 'by chance, the same each time'


def _from_list(pairs: Pairs, path: str) -> List[str]:
    suffix, known = pairs.suffixes[0], {*pairs.names}
    names = [line.strip() for line in read_text(path).splitlines()]
    names = [name.removesuffix(suffix) for name in names if name]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise UserError(
            f'--lists {path} must name images of {pairs.images}, one a line, '
            'that have a label map; ' +
            (f'not so: {counted(len(unknown), "line")}, such as {unknown[0]!r}'
             if unknown else 'it is empty'))
    return [*dict.fromkeys(names)]
