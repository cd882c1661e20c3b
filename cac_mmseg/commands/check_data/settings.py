"""Settings of a config that contradict each other or the data."""
from copy import deepcopy
from inspect import signature
from typing import Iterator, List, Sequence

import numpy as np
import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmseg.registry import METRICS, MODELS

from ...stack.targets import Target, head_faults, targets_of
from ...stack.words import counted

EVALUATED = ('val', 'test')


def build_heads(config: Config) -> nn.Module:
    """Build the heads of a config, without memory.

    What a config does not set depends on the class of the head.
    """
    model = nn.Module()
    for name in ('decode_head', 'auxiliary_head'):
        cfgs = config.model.get(name) or []
        heads = nn.ModuleList()
        for cfg in cfgs if isinstance(cfgs, (list, tuple)) else [cfgs]:
            try:
                with torch.device('meta'):
                    heads.append(MODELS.build(deepcopy(cfg)))
            except Exception:  # of any head: training will say what is wrong
                continue
        setattr(model, name, heads)
    return model


def metric_targets(config: Config, split: str,
                   dataset: BaseDataset) -> List[Target]:
    """Return the metrics of a split that take labels as classes."""
    classes = len(dataset.metainfo.get('classes') or ())
    cfgs = config.get(f'{split}_evaluator') or []
    targets = []
    for cfg in cfgs if isinstance(cfgs, (list, tuple)) else [cfgs]:
        # not built: CityscapesMetric empties its folder of results
        metric = cfg.get('type')
        metric = METRICS.get(metric) if isinstance(metric, str) else metric
        known = [
            signature(base.__init__).parameters['ignore_index']
            for base in getattr(metric, '__mro__', ())
            if 'ignore_index' in signature(base.__init__).parameters
        ]
        if not known:
            continue  # such as that of depth
        ignored = cfg.get('ignore_index', known[0].default)
        targets.append(
            Target(f'{split}_evaluator.ignore_index', classes, ignored))
    return targets


def contradictions(config: Config, split: str, datasets: Sequence[BaseDataset],
                   model: nn.Module) -> Iterator[str]:
    """Find settings that contradict each other or a data set of the split.

    Args:
        config: As read from a file.
        split: 'train', 'val' or 'test'.
        datasets: Of the split.
        model: See :func:`build_heads`.
    """
    heads = targets_of(model)
    if split == 'train':
        yield from head_faults(model)
    first = datasets[0].metainfo
    for i, dataset in enumerate(datasets):
        name = f'{split} data set' + f' {i}' * (len(datasets) > 1)
        classes = dataset.metainfo.get('classes')
        if not classes:
            yield (f'the {name} names no classes: set '
                   "metainfo=dict(classes=('road', ...), palette=[...])")
            continue
        for key in {**first, **dataset.metainfo}:
            if not _same(dataset.metainfo.get(key), first.get(key)):
                yield (f'{key} of the {name} differs from that of the first: '
                       'mmengine joins only data sets of the same metainfo')
        for head in heads:
            if head.classes != len(classes):
                yield (f'{head.setting.partition(".")[0]}.num_classes is '
                       f'{head.classes}, but the {name} has '
                       f'{counted(len(classes), "class", "classes")}')
        for transform in dataset.pipeline.transforms:
            asked = getattr(transform, 'reduce_zero_label', None)
            # None means that of the data set
            if asked is not None and asked != dataset.reduce_zero_label:
                yield (f'{type(transform).__name__} has reduce_zero_label='
                       f'{asked}, but the {name} {dataset.reduce_zero_label}')
            if split == 'train':
                yield from _wrong_padding(
                    type(transform).__name__, _padding(transform), heads)
    if split == 'train':
        preprocessor = config.model.get('data_preprocessor') or {}
        if preprocessor.get('size') or preprocessor.get('size_divisor'):
            yield from _wrong_padding('data_preprocessor',
                                      preprocessor.get('seg_pad_val', 255),
                                      heads)


def _same(value: object, other: object) -> bool:
    if isinstance(value, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(value, other)
    return value == other


def _padding(transform: object) -> object:
    """Return the label that a transform fills new pixels with, or None."""
    value = getattr(transform, 'seg_pad_val', None)
    pad_val = getattr(transform, 'pad_val', None)
    return pad_val.get('seg', 255) if isinstance(pad_val, dict) else value


def _wrong_padding(name: str, value: object,
                   heads: Sequence[Target]) -> Iterator[str]:
    for head in heads:
        if value is not None and not head.takes(np.array(value)):
            yield (f'{name} pads labels with {value}, but labels are {head}: '
                   f'set its seg_pad_val to {head.ignored}')
