"""Whether a part of a model is as it was built: nothing hooked or replaced."""
from abc import ABC

import torch.nn as nn
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch.nn.modules import module as of_all


class _Empty(ABC):
    pass


# what any class holds, and how it is built
HARMLESS = {'__init__', '__annotations__', *vars(_Empty)}


def has_plain_classifier(head: BaseDecodeHead) -> bool:
    """Return whether ``cls_seg`` does no more than dropout and a 1x1 conv.

    Not where someone hooks, parametrizes, replaces or overrides a part of it.
    """
    conv, dropout = head.conv_seg, head.dropout
    return (inherits(head, BaseDecodeHead, 'cls_seg')
            and inherits(conv, nn.Conv2d, 'forward') and not has_hooks(conv)
            and not (dropout is not None and has_hooks(dropout))
            and type(conv) is nn.Conv2d and conv.kernel_size == (1, 1)
            and conv.stride == (1, 1) and conv.padding == (0, 0)
            and conv.groups == 1 and conv.bias is not None
            and (dropout is None or type(dropout) is nn.Dropout2d
                 and inherits(dropout, nn.Dropout2d, 'forward')))


def inherits(module: nn.Module, base: type, *names: str) -> bool:
    """Return whether methods are those of ``base``, overridden nowhere."""
    return all(
        getattr(type(module), name, None) is getattr(base, name)
        and name not in module.__dict__ for name in names)


def has_hooks(module: nn.Module) -> bool:
    """Return whether anything is called before or after this module."""
    return any(
        getattr(module, name) or getattr(of_all, f'_global{name}')
        for name in ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks',
                     '_backward_pre_hooks'))


def adds_nothing(module: nn.Module, base: type) -> bool:
    """Return whether a module computes what ``base`` does.

    A subclass may build it otherwise, but define nothing else, and nobody may
    have replaced a method of the module.
    """
    kinds = type(module).__mro__
    own = {name
           for kind in kinds[:kinds.index(base)]
           for name in vars(kind)} - HARMLESS
    replaced = [
        name for name in vars(module) if callable(getattr(base, name, None))
    ]
    return not own and not replaced
