"""Time the heads of a study in turns.

Runs at a time slow one another down: the seconds that they log do not compare.
"""
from copy import deepcopy
from functools import partial
from typing import Dict, List, Sequence

import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.models import BaseSegmentor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from cac_mmseg.stack.env import device_name
from cac_mmseg.stack.timing import Case, compare
from .plan import Run
from .worker import to_channels_last

ROUNDS = 10


def measure(runs: Sequence[Run]) -> Dict[str, dict]:
    """Time a training step and a prediction of each head.

    Args:
        runs: Of the heads; those of a head count once.

    Returns:
        Of each head medians in ms: ``step_ms``, of a forward and a backward
        pass of a random batch of crops, and ``predict_ms``, of the logits of
        one crop; and ``timed_on``, the name of the device.
    """
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    init_default_scope('mmseg')
    cases: Dict[str, Case] = {}
    configs = {run.head: run.config for run in runs}
    for head, config in configs.items():
        model = revert_sync_batchnorm(MODELS.build(deepcopy(config.model)))
        to_channels_last(model.to(device))
        images = torch.randn(
            config.train_dataloader.batch_size,
            3,
            *config.model.data_preprocessor.size,
            device=device)
        labels = torch.randint_like(
            images[:, :1], model.decode_head.num_classes, dtype=torch.long)
        samples = [
            SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels
        ]
        amp = config.optim_wrapper.type == 'AmpOptimWrapper'
        cases[head] = Case(model, partial(_loss, model, images, samples, amp),
                           partial(model, images[:1], mode='tensor'))
    return {
        head:
        dict(
            step_ms=row['train_ms'],
            predict_ms=row['predict_ms'],
            timed_on=device_name(device))
        for head, row in compare(cases, ROUNDS).items()
    }


def _loss(model: BaseSegmentor, images: Tensor, samples: List[SegDataSample],
          amp: bool) -> Tensor:
    # as AmpOptimWrapper does with --amp
    with torch.autocast(images.device.type, torch.bfloat16, amp):
        return model.parse_losses(model.loss(images, samples))[0]
