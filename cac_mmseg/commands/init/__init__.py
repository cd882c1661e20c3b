"""``python -m cac_mmseg init``: a config for your own images and labels.

Looks at all images and label maps: sizes, classes and their shares, files that
do not belong together, near-duplicates of training and validation. Writes
NAME.py, a config of a page with comments that trains at once, and
NAME_train.txt and NAME_val.txt, the images of each. Checks the data with it,
measures training steps, and estimates the time of the training. Label maps
that are colours, masks or 16 bits are converted by `prepare labels` first.
"""
import argparse
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

from ...errors import UserError
from ...stack.config import load_config
from ...stack.decode_heads import crop_size
from ...stack.env import command
from ...stack.files import check_writable, make_folder, new_file
from ...stack.words import counted
from ..check_data import examine
from ..doctor.weights import examine_weights
from ..options import add_workers
from .base import choose_base
from .classes import name_classes
from .pairs import SPLITS, find_pairs, split
from .plan import Schedule, class_weights, schedule, sizes
from .survey import Survey, duplicates, survey
from .text import Page, fixed_size, page
from .trial import Times, measure

# of the config that is measured
TRIAL = Schedule(iterations=2, validation=1, log=1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add('name', help='of the config, NAME.py, and of the training')
    add('--images', required=True, metavar='DIR', help='with all its folders')
    add('--labels',
        required=True,
        metavar='DIR',
        help='label maps: class indices, 255 is ignored; named as the images')
    add('--classes',
        metavar='FILE',
        help='names of the classes, or lines `name r g b` (default: '
        'classes.txt in the folder of labels; else numbers are names)')
    add('--lists',
        nargs=2,
        metavar=('TRAIN', 'VAL'),
        help='files that list images (default: the folders train and val; '
        'else a fifth, chosen by hashed names, is for validation)')
    add('--like',
        metavar='CONFIG',
        help='model and learning rate of this config, a file or one of ours '
        "or mmseg's (default: MobileNetV2 on a CPU, ResNet-50 on a GPU)")
    add('--pretrained',
        metavar='FILE',
        help='weights of the backbone, where they cannot be downloaded')
    add_workers(parser)


def run(arguments: argparse.Namespace) -> None:
    """Look, write, check and estimate; exit with 1 if data has problems.

    Raises:
        UserError: naming what does not fit; no config is written then.
    """
    paths = _paths(arguments.name)
    parts, content = _look(arguments, paths)
    with tempfile.TemporaryDirectory() as folder:
        drafts = [Path(folder, path.name) for path in paths]
        for part, draft in zip(SPLITS, drafts[1:]):
            draft.write_text(
                ''.join(f'{name}\n' for name in parts[part]), encoding='utf-8')
        drafts[0].write_text(page(content), encoding='utf-8')
        config = load_config(drafts[0])
        for part, draft in zip((*SPLITS, 'test'), (*drafts[1:], drafts[2])):
            config[f'{part}_dataloader'].dataset.ann_file = str(draft)
        # processes that are forked after a model ran would wait forever
        problems = examine(
            config, make_folder(Path('work_dirs', paths[0].stem, 'data')),
            arguments.workers)
        if arguments.pretrained:
            _check_weights(arguments.pretrained, drafts[0])
        times = measure(config)
        content = content._replace(
            schedule=schedule(
                len(parts['train']), content.base.machine, times.step,
                len(parts['val']) * times.image))
        drafts[0].write_text(page(content), encoding='utf-8')
        for draft, path in zip(drafts, paths):
            with new_file(path) as file:
                file.write_bytes(draft.read_bytes())
    print(f'\n{", ".join(map(str, paths))} are written.')
    print(_estimate(content.schedule, times, len(parts['val'])))
    print(f'  mim train mmsegmentation {shlex.quote(str(paths[0]))}')
    sys.exit(bool(problems))


def _check_weights(path: str, config: Path) -> None:
    finding = examine_weights(path, str(config))
    if finding.level == 'FAIL':
        raise UserError(f'--pretrained: {finding.detail}. {finding.fix}')
    print(f'- {finding.detail}')


def _paths(name: str) -> List[Path]:
    """Return what is written: the config and two lists, none there yet."""
    stem = name.removesuffix('.py')
    paths = [
        Path(f'{stem}{ending}') for ending in ('.py', '_train.txt', '_val.txt')
    ]
    for path in paths:
        check_writable(path)
        if path.exists():
            raise UserError(f'{path} exists: give another NAME, or remove it')
    return paths


def _look(arguments: argparse.Namespace,
          paths: List[Path]) -> Tuple[Dict[str, List[str]], Page]:
    """Return the names of each part and the config, and print what was seen.
    """
    base = choose_base(arguments.like, arguments.pretrained)
    pairs = find_pairs(arguments.images, arguments.labels)
    parts, how = split(pairs, arguments.lists)
    found = survey(pairs, [*parts['train'], *parts['val']], arguments.workers)
    names, palette = name_classes(arguments.classes, found, pairs)
    chosen = sizes(found, base.machine)
    if fixed_size(base.like):
        chosen = chosen._replace(crop=crop_size(base.like))
    train, val = (len(parts[part]) for part in SPLITS)
    for note in (*pairs.notes, chosen.why, f'split {how}: {train} for '
                 f'training, {val} for validation', *_alike(found, parts),
                 *_turned(found), base.note):
        print(f'- {note}')
    return parts, Page(
        comments=(f'{paths[0].stem}: {counted(train, "image")} to train on, '
                  f'{val} to validate, for {base.machine.name}. Written by',
                  command('cac_mmseg')),
        base=base,
        pairs=pairs,
        lists=tuple(map(str, paths[1:])),
        names=names,
        palette=palette,
        loading=found.loading,
        normalisation=found.normalisation() if found.loading else None,
        sizes=chosen,
        workers=min(arguments.workers, 4),
        schedule=TRIAL,
        weights=class_weights(found.counts(parts['train']), len(names)))


def _turned(found: Survey) -> Iterator[str]:
    number = sum(sample.turned for sample in found.samples.values())
    if number:
        yield (
            f'{counted(number, "image")} with an EXIF orientation: they are '
            'turned by it, label maps are not. samples.png shows if both '
            'agree')


def _alike(found: Survey, parts: Dict[str, List[str]]) -> Iterator[str]:
    alike = duplicates(found, parts['train'], parts['val'])
    if alike:
        few = '; '.join(' and '.join(pair) for pair in alike[:3])
        yield (f'{len(alike)} of {len(parts["val"])} images for validation '
               f'look like one for training: {few}{"; ..." * (len(alike) > 3)}'
               '. The mIoU will flatter: keep images of a scene in one part '
               'by --lists')


def _estimate(plan: Schedule, times: Times, images: int) -> str:
    """Say what a training takes."""
    validations = plan.iterations // plan.validation
    seconds = (
        plan.iterations * times.step + validations * images * times.image)
    return (f'{plan.iterations} iterations of {times.step:.2f} s and '
            f'{counted(validations, "validation")} take about '
            f'{counted(max(round(seconds / 60), 1), "minute")} here:')
