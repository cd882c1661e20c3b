"""What a file of backbone weights is good for."""
import logging
import re
from contextlib import contextmanager
from copy import deepcopy
from typing import Dict, Iterator, List, Optional

import torch.nn as nn
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmseg.registry import MODELS
from torch import Tensor

from ...errors import UserError
from ...stack.checkpoint import load_weights, safe_loading
from ...stack.config import find_config, load_config
from ...stack.feature_maps import load_no_weights
from . import Finding

SHOWN = 3  # names
STYLE = ('model.backbone.style=caffe if the stride of a bottleneck is on its '
         'first convolution')
# of a stage's output, which classifiers have at the last stage only
OUTPUT_NORM = r'norm\d+\.\w+'


def examine_weights(path: str, config: Optional[str] = None) -> Finding:
    """Say what a file is, or whether it fits the backbone of a config.

    Args:
        path: A file of weights.
        config: Path of a config, or the name of one of ours or mmseg's.

    Raises:
        FileNotFoundError, ValueError: If the config cannot be read, or its
            backbone cannot be built.
    """
    # first what a person gave wrongly, whatever the file
    cfg = load_config(find_config(config)[0]) if config else None
    try:
        weights = load_weights(path)['state_dict']
    except UserError as error:
        return Finding('FAIL', 'weights', str(error),
                       'give a file of backbone weights')
    return _recognise(path, weights) if cfg is None else _fit(
        path, weights, cfg)


def _recognise(path: str, weights: Dict[str, Tensor]) -> Finding:
    """Name a ResNet by the tensors of its stem."""
    names = {name.removeprefix('backbone.') for name in weights}
    if names != {*weights}:
        kind = 'ResNetV1c' if 'stem.0.weight' in names else 'model'
        return Finding('note', 'weights',
                       f'{path} is of a {kind} with its decode head',
                       f'to start from its backbone, {_prefixed(path)}')
    if 'stem.0.weight' in names:
        return Finding('ok', 'weights', f'{path} is of a ResNetV1c')
    if 'conv1.weight' in names and 'layer1.0.conv1.weight' in names:
        return Finding(
            'note', 'weights', f'{path} is of a plain ResNet',
            'give mim train --cfg-options model.backbone.type=ResNet, '
            f'and {STYLE}')
    return Finding('note', 'weights',
                   f'{path} is not of a ResNet: {_some(sorted(names))}',
                   'add --config CONFIG to compare it with a backbone')


def _fit(path: str, weights: Dict[str, Tensor], config: Config) -> Finding:
    """Load the file into the backbone, and see what it has set."""
    backbone = _build(path, config)
    name = type(backbone).__name__
    state = {
        key: value
        for key, value in backbone.state_dict(keep_vars=True).items()
        if value.is_floating_point()  # no counters, no indices
    }
    for value in state.values():
        value.data.fill_(float('nan'))
    try:
        # what a training does: some backbones convert names and shapes
        with quiet(), safe_loading():
            backbone.init_weights()
    except Exception as error:  # of any backbone
        return Finding(
            'FAIL', 'weights', f'{path} cannot be loaded into '
            f'{name}: {type(error).__name__}: {error}',
            'give weights of that backbone')
    unset = [key for key, value in state.items() if value.isnan().all()]
    set_ = f'{len(state) - len(unset)} of {len(state)} tensors'
    wrong = [key for key in unset if not re.fullmatch(OUTPUT_NORM, key)]
    if not wrong:
        start = f'; others start as they are: {_some(unset)}' if unset else ''
        return Finding('ok', 'weights', f'{path} fits {set_} of {name}{start}')
    return Finding(
        'FAIL', 'weights', f'{path} fits {set_} of {name}: '
        f'{_some([_wrong(key, state[key], weights) for key in wrong])}',
        _fix(path, weights, state))


def _build(path: str, config: Config) -> nn.Module:
    """Build a config's backbone so that ``init_weights`` loads the file."""
    cfg = config.model.get('backbone')
    if not isinstance(cfg, dict) or 'type' not in cfg:
        raise UserError(f'{config.filename} configures no model.backbone')
    cfg = deepcopy(cfg)
    cfg.pop('pretrained', None)
    load_no_weights(cfg)
    given = cfg.get('init_cfg') or {}
    # without a prefix if there is none, as of model.pretrained=FILE
    own, *_ = *(one for one in (given if isinstance(given, list) else [given])
                if 'checkpoint' in one), {}
    cfg['init_cfg'] = {**own, 'type': 'Pretrained', 'checkpoint': path}
    try:
        return revert_sync_batchnorm(MODELS.build(cfg))
    except Exception as error:  # of any backbone: packages that are missing
        raise UserError(f'the backbone of {config.filename} cannot be built: '
                        f'{type(error).__name__}: {error}') from error


def _wrong(key: str, value: Tensor, weights: Dict[str, Tensor]) -> str:
    there = weights.get(key)
    if there is None:
        return f'no {key}'
    return f'{key} is {tuple(there.shape)}, not {tuple(value.shape)}'


def _fix(path: str, weights: Dict[str, Tensor], state: Dict[str,
                                                            Tensor]) -> str:
    for key in weights:
        prefix = key.partition('.')[0]
        if key.removeprefix(f'{prefix}.') in state:  # of a whole model
            return _prefixed(path, prefix)
    if 'stem.0.weight' in state and 'conv1.weight' in weights:
        return ('give mim train --cfg-options model.backbone.type=ResNet, '
                f'and {STYLE}')
    return 'give weights of that backbone'


def _prefixed(path: str, prefix: str = 'backbone') -> str:
    return ('give mim train --cfg-options model.pretrained=None '
            'model.backbone.init_cfg.type=Pretrained '
            f'model.backbone.init_cfg.checkpoint={path} '
            f'model.backbone.init_cfg.prefix={prefix}.')


def _some(names: List[str]) -> str:
    return ', '.join(names[:SHOWN]) + ', ...' * (len(names) > SHOWN)


@contextmanager
def quiet() -> Iterator[None]:
    """Hide what mmengine logs, such as of tensors: we name what does not fit.
    """
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
