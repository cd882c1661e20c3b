"""The mIoU of exported files, beside that of their model."""
import logging
from contextlib import contextmanager
from typing import Dict, Iterator, List

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.structures import PixelData
from mmengine.utils import track_iter_progress
from mmseg.models import BaseSegmentor

from ..drawing.reader import Reader
from ..errors import UserError
from ..stack.config import build_datasets
from ..stack.tables import markdown_table
from .facts import facts_of
from .runtime import Predictor

TEST = 'channels', 'resize', 'pad', 'window', 'align_corners', 'others'


def compare_scores(model: BaseSegmentor, files: Dict[str, Predictor]) -> str:
    """Return a table of the scores of a model and of files on its test data.

    Raises:
        UserError: If the data cannot be read, or a file has other classes.
    """
    own = facts_of(model)
    classes = own['classes']
    for name, file in files.items():
        if file.facts['classes'] != classes:
            raise UserError(
                f'{name} has the classes {", ".join(file.facts["classes"])}, '
                f'and the config {", ".join(classes)}: give the config that '
                'it was exported with')
        other = [key for key in TEST if own[key] != file.facts[key]]
        if other:
            print(f'{name} was exported with another test than this config '
                  f'has: {", ".join(other)}')
    found = scores(model, [*files.values()])
    rows = [[name, *(f'{value:.2f}' for value in score.values())]
            for name, score in zip(('the model', *files), found)]
    return markdown_table(('', *found[0]), rows)


def test_split(config: Config) -> str:
    """Return 'test', or 'val' for a config without a test.

    Raises:
        UserError: If it has neither, with an evaluator and data.
    """
    for split in ('test', 'val'):
        if config.get(f'{split}_evaluator') and config.get(
                f'{split}_dataloader'):
            return split
    raise UserError(f'{config.filename} has no test_evaluator with a '
                    'test_dataloader, which the mIoU is computed with')


def scores(model: BaseSegmentor,
           files: List[Predictor]) -> List[Dict[str, float]]:
    """Return what the config's test_evaluator says: model first, then files.

    The files get the images as loaded, before the pipeline resizes them.
    """
    split = test_split(model.cfg)
    with _quiet():
        evaluators = [
            Evaluator(model.cfg[f'{split}_evaluator']) for _ in (model, *files)
        ]
    count = 0
    for dataset in build_datasets(model.cfg, split):
        reader = Reader(dataset)
        for evaluator in evaluators:
            evaluator.dataset_meta = dataset.metainfo
        for i in track_iter_progress(range(len(dataset))):
            sample = reader.load(dataset.get_data_info(i))
            output, = model.test_step(reader.batch(sample))
            evaluators[0].process([output])
            for file, evaluator in zip(files, evaluators[1:]):
                try:
                    classes = torch.from_numpy(file(sample.image))
                except ValueError as error:
                    raise UserError(f'{sample.path}: {error}') from error
                output.pred_sem_seg = PixelData(data=classes[None])
                evaluator.process([output])
            count += 1
    print()
    with _quiet():
        return [evaluator.evaluate(count) for evaluator in evaluators]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the log of metrics, which print a table for each of them."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def first_images(config: Config, split: str, count: int) -> List[np.ndarray]:
    """Return images of a split, as loaded, at equal distances.

    Raises:
        UserError: If there are fewer.
    """
    if not count:
        return []
    places = [(dataset, i) for dataset in build_datasets(config, split)
              for i in range(len(dataset))]
    if len(places) < count:
        raise UserError(f'--int8 {count}: there are {len(places)} {split} '
                        'images')
    chosen = np.linspace(0, len(places) - 1, count).astype(int)
    return [
        Reader(dataset).load(dataset.get_data_info(i)).image
        for dataset, i in (places[place] for place in chosen)
    ]
