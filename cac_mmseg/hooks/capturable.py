"""What keeps the decode head of a training from a CUDA graph."""
from typing import Any, Iterator

import torch
import torch.nn as nn
from mmengine.dist import get_world_size
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch.nn.modules.batchnorm import _BatchNorm

from ..cac_head import CaCHead
from ..intact import has_hooks

REPLACED = 'activation_checkpointing', 'efficient_conv_bn_eval'  # forwards


def faults(runner: Runner, device: str = 'cuda') -> Iterator[str]:
    """Yield each setting that cannot be captured, its value and a way out.

    Args:
        runner: About to train.
        device: What graphs run on.
    """
    model, cfg = runner.model, runner.cfg
    if is_model_wrapper(model) or get_world_size() > 1:
        yield (f'launcher={runner.launcher!r}, with {get_world_size()} '
               f'rank(s) and {type(model).__name__}, exchanges gradients and '
               "statistics outside of a graph: train with launcher='none'")
        return
    if cfg.get('compile') not in (None, False):
        yield (f'compile={cfg.compile} replaces what is captured: set '
               'compile=False')
    if 'Apex' in type(runner.optim_wrapper).__name__:
        yield (f'optim_wrapper.type={type(runner.optim_wrapper).__name__!r} '
               "replaces functions: set 'AmpOptimWrapper'")
    if getattr(runner.train_dataloader, 'pin_memory', False):
        yield ('train_dataloader.pin_memory=True allocates in a thread while '
               'the graph is captured: set it to False')
    if torch.is_anomaly_enabled():
        yield ('torch.autograd.set_detect_anomaly(True) waits for the GPU: '
               'set it to False')
    head = getattr(model, 'decode_head', None)
    if not isinstance(head, CaCHead):
        yield (f'model.decode_head.type={type(head).__name__!r} was not '
               "checked for what a capture forbids: set 'CaCHead'")
        return
    for name, parameter in head.named_parameters(prefix='decode_head'):
        if parameter.device.type != device:
            yield ('it needs a CUDA GPU, and the model is on '
                   f'{parameter.device}: train on one')
            return
        if parameter._backward_hooks:
            yield (f'{name} has a hook on its gradient, which would be '
                   'captured and called: remove that')
    for name, module in head.named_modules(prefix='decode_head'):
        yield from _module_faults(name, module, cfg)


def _module_faults(name: str, module: nn.Module, cfg: Any) -> Iterator[str]:
    if getattr(module, 'with_cp', False):
        yield (f'{name}.with_cp=True restores random states in backward: set '
               'it to False')
    if 'forward' in vars(module):
        set_by = [f'{key}={cfg[key]}' for key in REPLACED if cfg.get(key)]
        yield (f'{name}.forward was replaced'
               f'{"".join(f" by {setting}" for setting in set_by)}: leave '
               'the decode head out of that')
    if hasattr(module, '_orig_mod') or module._compiled_call_impl:
        yield f'{name} was given to torch.compile: leave it as it is'
    if has_hooks(module):
        yield f'{name} has hooks, which a replay does not call: remove them'
    if (isinstance(module, _BatchNorm) and module.track_running_stats
            and module.momentum is None):
        yield (f'{name}.momentum=None reads a count from the GPU: set '
               'norm_cfg.momentum=0.1')
