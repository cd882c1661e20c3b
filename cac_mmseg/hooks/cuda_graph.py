"""The decode head's training step as a CUDA graph. Never run on a GPU yet."""
from typing import Any, Optional

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from ..errors import UserError
from .capturable import faults
from .graphed_step import GraphedStep

DEVICE = 'cuda'


@HOOKS.register_module()
class CUDAGraphHook(Hook):
    """Replay forward and backward of a ``CaCHead`` from a CUDA graph.

    ``torch.cuda.make_graphed_callables`` captures the head in its first
    forward, which shows feature maps and autocast. Weights, BN statistics,
    gradients and random states are those of a training without the hook.
    Whatever differs from what was captured runs as usual: other shapes, such
    as of a last batch, evaluation, layers frozen or hooked later, a second
    forward before the backward of the first. Numbers that are changed later,
    such as the rate of a dropout, stay as captured.

    It was never run on a GPU: its tests replace the capture. To turn it on:
    ``default_hooks = dict(cuda_graph=dict(type='CUDAGraphHook'))``.

    Raises:
        ValueError: Before training, at what cannot be captured
            (:func:`cac_mmseg.hooks.capturable.faults`), with its setting.
    """
    priority = 'VERY_HIGH'  # others find the head as it was built

    def __init__(self) -> None:
        self.step: Optional[GraphedStep] = None

    def before_train(self, runner: Runner) -> None:
        self._check(runner)
        self.step = GraphedStep(runner.model.decode_head)

    def before_train_iter(self,
                          runner: Runner,
                          batch_idx: int,
                          data_batch: Any = None) -> None:
        step = self.step
        if step.replay is None:
            self._check(runner)  # again: hooks may have come since
        step.waits = False
        step.head.forward = step.forward

    def after_train_iter(self, *_: Any, **__: Any) -> None:
        # copies, checkpoints and validations have nothing to do with it
        vars(self.step.head).pop('forward', None)

    def after_train(self, runner: Runner) -> None:
        self.step = None  # and the memory of the graph

    def _check(self, runner: Runner) -> None:
        for fault in faults(runner, DEVICE):
            raise UserError(f'CUDAGraphHook: {fault}, or remove the hook')
