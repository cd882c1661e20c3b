"""What takes label maps as classes: the heads of a model, and metrics."""
from typing import Iterator, List, NamedTuple, Tuple

import numpy as np
import torch.nn as nn
from mmengine.model import is_model_wrapper
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss

LOSS = BaseDecodeHead.loss_by_feat


class Target(NamedTuple):
    """What takes labels as classes, a head or a metric, and which ones.

    Labels are 0 to ``classes - 1``, or ``ignored``. ``setting`` is what to
    change in the config where another value is to be ignored.
    """
    setting: str
    classes: int
    ignored: int

    def __str__(self) -> str:
        return (f'0 to {self.classes - 1}, or {self.ignored} to ignore a '
                f'pixel ({self.setting})')

    def takes(self, labels: np.ndarray) -> np.ndarray:
        """Return where labels are a class or ignored."""
        return (labels >= 0) & (labels < self.classes) | (
            labels == self.ignored)


def targets_of(model: nn.Module) -> List[Target]:
    """Return the heads of a model that take labels as classes."""
    targets = []
    for name, head in _heads_of(model):
        # K-Net's has its settings in the head that starts the iterations
        head = getattr(head, 'kernel_generate_head', head)
        classes = getattr(head, 'num_classes', None)
        loss = getattr(type(head), 'loss_by_feat', LOSS)
        # others make targets of their own, such as the edges of STDCHead
        if isinstance(classes, int) and (name == 'decode_head'
                                         or loss is LOSS):
            ignored = getattr(head, 'ignore_index', None)
            # data sets ignore 255 where a loss needs no such value
            targets.append(
                Target(f'{name}.ignore_index', classes,
                       255 if ignored is None else ignored))
    return [*dict.fromkeys(targets)]


def _heads_of(model: nn.Module) -> Iterator[Tuple[str, nn.Module]]:
    model = model.module if is_model_wrapper(model) else model
    for name in ('decode_head', 'auxiliary_head'):
        heads = getattr(model, name, None)
        for head in heads if isinstance(heads, nn.ModuleList) else [heads]:
            yield name, head


def head_faults(model: nn.Module) -> Iterator[str]:
    """Find heads that learn nothing from their labels, whatever these are."""
    binary = ("num_classes=2 and out_channels=1, with loss_decode=dict(type='"
              "CrossEntropyLoss', use_sigmoid=True)")
    for target in targets_of(model):
        if target.classes == 1:
            yield (f'{target.setting.partition(".")[0]} has one class, and '
                   'nothing to tell it from: name two, such as '
                   f"classes=('background', 'water'), and set {binary}")
    for name, head in _heads_of(model):
        losses = getattr(head, 'loss_decode', None)
        losses = losses if isinstance(losses, nn.ModuleList) else [losses]
        if getattr(head, 'out_channels', None) == 1 and any(
                isinstance(loss, CrossEntropyLoss)
                and not (loss.use_sigmoid or loss.use_mask)
                for loss in losses):
            yield (f'{name} has one output channel and the softmax of several:'
                   f' set {binary}')
