"""What a config inherits from, and the weights that it starts from."""
import os
from pathlib import Path
from typing import Any, NamedTuple, Optional

import torch
from mmengine.config import Config

from ...errors import UserError
from ...stack.config import find_config, has_class_types, load_config
from ...stack.weights import find_weights
from .plan import CPU, GPU, SCRATCH, Machine


class Base(NamedTuple):
    """What a config inherits from.

    Args:
        machine: That it is for.
        like: The base, as read.
        source: Its path, in Python.
        pretrained: Weights of the backbone: a file or a name; None for none;
            False to leave them as they are.
        note: On these.
        by_default: Whether it was chosen here.
    """
    machine: Machine
    like: Config
    source: str
    pretrained: Any
    note: str
    by_default: bool


def choose_base(like: Optional[str], pretrained: Optional[str]) -> Base:
    """Choose a base for this machine, or take the one that is given.

    Args:
        like: A config's path or name, or None.
        pretrained: A file of weights, or None.

    Raises:
        UserError: If a config cannot inherit from it.
    """
    machine = GPU if torch.cuda.is_available() else CPU
    path, owner = find_config(like or machine.base)
    config = load_config(path)
    if has_class_types(config):
        raise UserError(
            f"--like {like} is in mmengine's new style, from which "
            'no other config inherits: give one in the old style')
    _check_heads(config)
    backbone = config.model.get('backbone') or {}
    name = config.model.get('pretrained') or (backbone.get('init_cfg')
                                              or {}).get('checkpoint')
    source = find_weights(pretrained or name or '')
    weights, note = False, f'the backbone starts from {source.place}'
    if pretrained:
        weights = pretrained  # examined when the data is known
    elif config.get('load_from'):
        note = f'the model starts from {config.load_from}, as in its base'
    elif not name:
        note = 'the backbone starts from scratch, as in its base'
    elif source.error:
        weights, note = None, (
            f'{source.place} {source.error}; so the backbone starts from '
            'scratch, and learns far less: give a file by --pretrained')
        if machine is CPU and not like:
            machine = SCRATCH
            path, owner = find_config(machine.base)
            config = load_config(path)
    stem = Path(path).stem
    python = f"__import__('cac_mmseg').config_path({stem!r})" \
        if owner == 'cac_mmseg' else repr(os.path.abspath(path))
    return Base(machine, config, python, weights, note, like is None)


def _check_heads(like: Config) -> None:
    """Check that a base can learn any number of classes."""
    heads = like.model.get('decode_head')
    for head in heads if isinstance(heads, (list, tuple)) else [heads]:
        if not head or 'num_classes' not in head:
            kind = (head or {}).get('type')
            raise UserError(
                f'--like {like.filename}: its decode_head {kind} has no '
                'num_classes to set. Give a config of an EncoderDecoder, or '
                '`adopt` it first')
