"""Label maps from the annotations of COCO, by pycocotools."""
import json
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from ...errors import MissingFileError, UserError
from ...stack.classes import IGNORED, ClassTable, default_palette
from ...stack.files import read_text
from .masks import Mask, make_mask

BACKGROUND = 'background'
PARTS = ('images', 'annotations', 'categories')

# what paint_coco takes: image, annotations, class of each category, label map
Painting = Tuple[dict, List[dict], Dict[int, int], Path]


def read_coco(
        path: Path,
        out: Path,
        known: Optional[List[str]] = None
) -> Tuple[ClassTable, List[Painting]]:
    """Read classes, and what each image's label map is painted from.

    Class 0 is the background, categories follow in the order of their ids;
    those of one name, or named background, are one class.

    Args:
        path: Of the JSON file.
        out: Folder of the label maps.
        known: Classes of another part of the data set, in their order.

    Raises:
        UserError: If it is no such file, has categories that are not known,
            or pycocotools is missing.
    """
    if not find_spec('pycocotools'):
        raise UserError(f'{path} needs pycocotools: pip install pycocotools '
                        '(the extra "coco")')
    if not path.is_file():
        raise MissingFileError(f'--labels {path} is not a file')
    try:
        data = json.loads(read_text(path))
        images, annotations, categories = (data[part] for part in PARTS)
        named = {c['id']: c['name'] for c in categories}
        of_image: Dict[Any, List[dict]] = {i['id']: [] for i in images}
        for annotation in annotations:
            if annotation['category_id'] not in named:
                raise KeyError(f'category {annotation["category_id"]}')
            of_image[annotation['image_id']].append(annotation)
        names = [
            *dict.fromkeys([BACKGROUND, *(named[i] for i in sorted(named))])
        ]
        if known:
            unknown = [name for name in names if name not in known]
            if unknown:
                raise UserError(
                    f'{path} has categories that {out} does not name: '
                    f'{", ".join(unknown[:8])}. Parts of a data set share '
                    'their names: give another --out, or undo the renaming in '
                    'its classes.txt until all are converted')
            names = known
        classes = {i: names.index(name) for i, name in named.items()}
        sources: Dict[Path, str] = {}
        for image in images:
            name = image['file_name']
            target = (out / name).with_suffix('.png')
            if out.resolve() not in target.resolve().parents:
                raise UserError(f'{path}: the image {name} is not below a '
                                'folder: file_name must be a relative path')
            if target in sources:
                raise UserError(f'{path}: {sources[target]} and {name} would '
                                f'both be written to {target}')
            sources[target] = name
    except json.JSONDecodeError as error:
        raise UserError(f'{path} is no JSON: {error}') from error
    except (KeyError, TypeError) as error:
        raise UserError(
            f'{path} is no file of COCO with {", ".join(PARTS)} that belong '
            f'together: {type(error).__name__}: {error}') from error
    if len(names) > IGNORED:
        raise UserError(f'{path} has {len(names)} classes with the background;'
                        f' labels of 8 bits have {IGNORED}')
    keys = {(i, ): i for i in (*range(len(names)), IGNORED)}
    table = ClassTable(names, default_palette(len(names)), keys)
    return table, [(image, of_image[image['id']], classes, target)
                   for image, target in zip(images, sources)]


def paint_coco(image: dict, annotations: List[dict], classes: Dict[int, int],
               target: Path) -> Mask:
    """Make the label map of an image; a failure is returned, not raised."""
    name = str(image['file_name'])
    try:
        size = int(image['height']), int(image['width'])
    except (KeyError, TypeError, ValueError):
        return Mask(name, failure='it has no height and width')
    return make_mask(name, target, partial(_paint, annotations, classes, size))


def _paint(annotations: List[dict], classes: Dict[int, int],
           size: Tuple[int, int]) -> np.ndarray:
    """Paint large regions first; crowds are ignored."""
    from pycocotools.mask import area, decode
    labels = np.zeros(size, np.uint8)
    regions = [(_region(a, size), a) for a in annotations]
    for region, annotation in sorted(regions, key=lambda r: -int(area(r[0]))):
        crowd = annotation.get('iscrowd')
        index = IGNORED if crowd else classes[annotation['category_id']]
        labels[decode(region).astype(bool)] = index
    return labels


def _region(annotation: dict, size: Tuple[int, int]) -> dict:
    """Return polygons or runs as compressed runs."""
    from pycocotools.mask import encode, frPyObjects, merge
    shape = annotation.get('segmentation')
    if not shape:
        raise UserError(f'annotation {annotation.get("id")} has no region, '
                        'but a box at most')
    if isinstance(shape, list):
        # lines have no area; of four numbers pycocotools would make a box
        polygons = [polygon for polygon in shape if len(polygon) >= 6]
        return merge(frPyObjects(polygons, *size)) if polygons else encode(
            np.zeros(size, np.uint8, order='F'))
    if tuple(shape['size']) != size:
        raise UserError(f'annotation {annotation.get("id")} is of the size '
                        f'{shape["size"]}, its image of {size}')
    return frPyObjects(shape, *size) if isinstance(shape['counts'],
                                                   list) else shape
