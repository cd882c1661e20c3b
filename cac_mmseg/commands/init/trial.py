"""Training steps and a prediction of a config, and what they take."""
from typing import Callable, NamedTuple, Tuple

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmseg.registry import MODELS
from torch.utils.benchmark import timer

from ...errors import UserError
from ...stack.config import build_datasets
from ...stack.feature_maps import load_no_weights
from ...stack.words import reason
from ..doctor.weights import quiet
from .pairs import SPLITS


class Times(NamedTuple):
    """Seconds of an iteration, and of a validation image."""
    step: float
    image: float


def measure(config: Config) -> Times:
    """Train as a training does, and predict one image.

    The faster of two counts, after one which allocates.

    Args:
        config: As read from a file.

    Raises:
        UserError: If the model does not run.
    """
    train, val = (build_datasets(config, split)[0] for split in SPLITS)
    loader, cfg = config.train_dataloader, config.model.copy()
    load_no_weights(cfg.backbone)  # a training does
    try:
        with quiet():
            model = revert_sync_batchnorm(MODELS.build(cfg)).to(get_device())
            optimizer = build_optim_wrapper(model, config.optim_wrapper)
        seconds = []
        for _ in range(3):
            batch, loading = _timed(lambda: pseudo_collate(
                [train[i % len(train)] for i in range(loader.batch_size)]))
            _, step = _timed(
                lambda: model.train().train_step(batch, optimizer))
            seconds.append(step)
        batch, reading = _timed(lambda: pseudo_collate([val[0]]))
        with torch.no_grad():
            _, image = _timed(lambda: model.eval().val_step(batch))
    except Exception as error:  # of any model
        raise UserError(f'the model of the config does not run: '
                        f'{reason(error)}') from error
    workers = max(loader.num_workers, 1)
    return Times(
        max(min(seconds[1:]), loading / workers), max(image,
                                                      reading / workers))


def _timed(function: Callable) -> Tuple:
    """Call a function; return its result and seconds, of the device too."""
    start = timer()
    result = function()
    return result, timer() - start
