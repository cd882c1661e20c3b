"""The heads of a base config, for other classes."""
from copy import deepcopy
from typing import Any, Dict

from mmengine.config import Config

from ...stack.classes import IGNORED


def heads_for(like: Config, classes: int) -> Dict[str, Any]:
    """Return what changes in the heads of a config, by their key.

    Heads that predict the classes of the base predict ``classes``; others,
    such as of edges, stay. Losses forget weights and choices of classes.
    A list is returned complete, as it takes the place of the base's.
    """
    found = like.model.decode_head
    before = (found if isinstance(found, dict) else found[-1]).num_classes
    changes = {}
    for key in ('decode_head', 'auxiliary_head'):
        heads = like.model.get(key)
        if isinstance(heads, dict):
            changes[key] = _changes(heads, before, classes)
        elif heads:
            changes[key] = [
                _merged(head, _changes(head, before, classes))
                for head in heads
            ]
    return changes


def _changes(head: dict, before: int, classes: int) -> dict:
    changes = {
        key: classes
        for key in ('num_classes', 'out_channels') if head.get(key) == before
    }
    if head.get('ignore_index', IGNORED) != IGNORED:
        changes['ignore_index'] = IGNORED
    loss = head.get('loss_decode')
    if isinstance(loss, dict) and _freed(loss):
        changes['loss_decode'] = _freed(loss)
    elif isinstance(loss, (list, tuple)) and any(map(_freed, loss)):
        changes['loss_decode'] = [_merged(part, _freed(part)) for part in loss]
    return changes


def _freed(loss: dict) -> dict:
    """Return what frees a loss from the classes of the base."""
    freed: Dict[str, Any] = {}
    if loss.get('class_weight'):
        freed['class_weight'] = None
    if isinstance(loss.get('classes'), (list, tuple)):  # LovaszLoss
        freed['classes'] = 'present'
    return freed


def _merged(config: dict, changes: dict) -> dict:
    merged = deepcopy(config)
    for key, value in changes.items():
        if isinstance(value, dict):
            value = _merged(merged[key], value)
        merged[key] = value
    return merged
