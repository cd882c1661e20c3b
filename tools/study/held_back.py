"""CaCHead with a pooled branch that is held back in training.

Trials of docs/study.md: do kernels carry more where the branch carries less?
In evaluation the heads are CaCHead.
"""
from mmengine.logging import MessageHub
from mmseg.registry import MODELS
from torch import Tensor

from cac_mmseg import CaCHead

DROPPED = 0.5  # of the images
GRADIENT = 0.1
WITHOUT = 1 / 3  # of the schedule


@MODELS.register_module()
class DroppedBranchHead(CaCHead):
    """Leaves the branch out for half of the images, at random."""

    def _pool(self, features: Tensor) -> Tensor:
        pooled = super()._pool(features)
        if not self.training:
            return pooled
        return pooled * (
            pooled.new_empty(len(pooled), 1, 1, 1).uniform_() > DROPPED)


@MODELS.register_module()
class SlowBranchHead(CaCHead):
    """Scales the gradient of the branch's output."""

    def _pool(self, features: Tensor) -> Tensor:
        pooled = super()._pool(features)
        return pooled.detach().lerp(pooled, GRADIENT)


@MODELS.register_module()
class LateBranchHead(CaCHead):
    """Leaves the branch out for the first third of the schedule."""

    def _pool(self, features: Tensor) -> Tensor:
        pooled = super()._pool(features)
        return pooled * 0 if self.training and self._is_early() else pooled

    @staticmethod
    def _is_early() -> bool:
        hub = MessageHub.get_current_instance()
        done, length = (hub.get_info(key, 0) for key in ('iter', 'max_iters'))
        return done < WITHOUT * length
