"""The results of runs in files: a .json of each run, an .npz of a study.

A result is a dict: what a worker returns, with the head and the seed.
"""
import json
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterator, List, Sequence, Union

import numpy as np
from torch.utils.data import Dataset

from cac_mmseg import CrossingDataset
from cac_mmseg.errors import UserError
from cac_mmseg.stack.files import new_file

# figures of a run that results.csv repeats
FIGURES = ('iterations', 'seconds_per_iteration', 'peak_mib', 'saved_mib',
           'parameters', 'multiply_adds', 'device', 'versions')
AREAS = ('intersect', 'union')  # pixels, (images, classes)
HISTORY = ('loss', 'curve')  # of iterations, of validations
SHARED = ('classes', 'images')  # by all runs of a study
BOUND = 'additive_bound'  # highest mIoU of heads that add their context


def known_bound(dataset: Dataset) -> Dict[str, float]:
    """Return the additive bound of validation images, empty without one.

    Raises:
        ValueError: If the data set has one, but not for these images.
    """
    if isinstance(dataset, CrossingDataset):
        return {BOUND: dataset.additive_bound()}
    return {}


def save_run(result: dict, path: Path) -> None:
    """Write the result of one run, completely or not at all."""
    with new_file(path) as file:
        file.write_text(run_text(result), encoding='utf-8')


def run_text(result: dict) -> str:
    """Return what the file of a run holds."""
    return json.dumps(
        result, separators=(',', ':'), default=np.ndarray.tolist) + '\n'


def load_run(path: Path) -> dict:
    """Read the result of one run, whose head and seed its name tells.

    Raises:
        UserError: If it is something else, or half of it.
    """
    with _reading(path, 'remove it, to run it again'):
        result = json.loads(path.read_text(encoding='utf-8'))
        head, _, seed = path.stem.rpartition('-seed')
        result.update(head=head, seed=int(seed))
        return _checked(result)


def save(results: Sequence[dict], path: Path) -> None:
    """Write the results of runs that share classes and images to an .npz."""
    first = results[0]
    apart = {*AREAS, *HISTORY, *SHARED}
    figures = dict({key: first[key]
                    for key in SHARED},
                   runs=[{
                       key: value
                       for key, value in result.items() if key not in apart
                   } for result in results])
    arrays = dict(figures=np.array(json.dumps(figures)))
    for key in AREAS:
        areas = np.array([result[key] for result in results])
        arrays[key] = areas.astype(np.min_scalar_type(areas.max()))
    for key in HISTORY:  # a head may have a schedule of its own
        parts = [np.float32(result[key]) for result in results]
        arrays[key] = np.concatenate(parts)
        arrays[f'{key}_ends'] = np.cumsum([*map(len, parts)])
    with new_file(path) as file:
        np.savez_compressed(file, **arrays)


def load(path: Union[str, Path]) -> List[dict]:
    """Read the results of a study.

    Args:
        path: An .npz, or the folder with the .json of each run.

    Raises:
        UserError: If it is something else, or half of it.
    """
    path = Path(path)
    fix = 'give the results.npz of a study, or its folder results'
    if not path.exists():
        raise UserError(f'{path} is not there: {fix}')
    with _reading(path, fix):
        if path.is_dir():
            files = sorted(path.glob('*.json'))
            if not files:
                raise ValueError('no *.json')
            return [load_run(file) for file in files]
        with np.load(path) as file:
            arrays = dict(file)
        shared = json.loads(str(arrays['figures']))
        parts = {key: arrays[key] for key in AREAS}
        for key in HISTORY:
            ends = arrays[f'{key}_ends'][:-1]
            parts[key] = [p.tolist() for p in np.split(arrays[key], ends)]
        return [
            _checked({
                **shared,
                **run,
                **{
                    key: part[i]
                    for key, part in parts.items()
                }
            }) for i, run in enumerate(shared.pop('runs'))
        ]


def _checked(result: dict) -> dict:
    """Return the result, its areas as arrays, or raise what is wrong."""
    result.update({key: np.array(result[key]) for key in AREAS})
    shape = tuple(len(result[key]) for key in ('images', 'classes'))
    missing = {*FIGURES, *HISTORY, 'head', 'seed'} - result.keys()
    if (missing or 'model' not in result['settings']
            or any(result[key].shape != shape for key in AREAS)):
        raise ValueError(f'{missing or "its areas"}')
    return result


@contextmanager
def _reading(path: Path, fix: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a foreign file can raise anything
        raise UserError(f'{path} holds no results of a study, or half of '
                        f'them: {fix}') from error
