"""The feature maps that the backbone of a config has, by running it."""
from copy import deepcopy
from typing import Any, List, Tuple

import torch
import torch.nn as nn
from mmengine.config import ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmseg.registry import MODELS
from torch import Tensor

from ..errors import UserError

SIDE = 128  # of random images, in pixels

Maps = List[Tuple[int, int]]  # channels and stride of each feature map


class Refused(UserError):
    """A model that cannot have a CaCHead, and why."""


def feature_maps(model: ConfigDict) -> Maps:
    """Run backbone and neck on small images: channels and stride of each map.

    Raises:
        Refused: If they give a head no list of maps (B, C, H, W), or other
            ones in training than in evaluation.
        ValueError: If they do not run.
    """
    name = _type_name(model.backbone)
    seen = []
    try:
        extractor = Extractor(small_model(model))
        images = random_images(model)
        for training in (True, False):
            with torch.no_grad():
                seen.append(_shapes(extractor.train(training)(images)))
    except Exception as error:  # of any backbone: packages that are missing
        # such as timm's "Input height (128) doesn't match model (224)"
        fix = (': give a backbone for one size its img_size=(H, W)'
               if str(SIDE) in str(error) else '')
        raise UserError(
            f'the {name} of the config does not run on images of {SIDE} x '
            f'{SIDE}: {type(error).__name__}: {error}{fix}') from error
    if seen[0] != seen[1]:
        raise Refused(f'{name} has other feature maps in training than in '
                      'evaluation, so only its own head can read them')
    if not seen[0]:
        raise Refused(f'{name} returns no list of feature maps (B, C, H, W)')
    # images are square
    if any(height != width for *_, height, width in seen[0]):
        shapes = ', '.join(map(str, seen[0]))
        raise Refused(f'{name} returns feature maps {shapes}, which are not '
                      '(B, C, H, W): no decode head of mmseg reads them. '
                      "timm's are with the argument feature_cls='getter'")
    return [(shape[1], round(SIDE / shape[2])) for shape in seen[0]]


def _shapes(maps: Any) -> List[Tuple[int, ...]]:
    """Return the shapes of feature maps, none if they are something else."""
    if isinstance(maps, (list, tuple)) and all(
            isinstance(x, Tensor) and x.dim() == 4 for x in maps):
        return [tuple(x.shape) for x in maps]
    return []


class Extractor(nn.Module):
    """Backbone and neck of a model, without their pretrained weights."""

    def __init__(self, model: dict) -> None:
        super().__init__()
        self.parts = nn.ModuleList(
            revert_sync_batchnorm(MODELS.build(model[name]))
            for name in ('backbone', 'neck') if model.get(name))

    def forward(self, x: Tensor) -> Any:
        for part in self.parts:
            x = part(x)
        return x


def small_model(model: ConfigDict) -> ConfigDict:
    """Return the model's config for images of ``SIDE`` x ``SIDE``.

    Backbones with position embeddings have a size of their own, ``img_size``.
    """
    model = deepcopy(model)
    model.pretrained = None
    load_no_weights(model.backbone)
    if 'img_size' in model.backbone:
        model.backbone.img_size = (SIDE, SIDE)
    return model


def load_no_weights(backbone: dict) -> None:
    """Change the config of a backbone that loads weights when it is built."""
    if _type_name(backbone).rsplit('.', 1)[-1] == 'TIMMBackbone':
        # mmseg's downloads them unless it is told not to
        backbone.update(pretrained=False, checkpoint_path='')
    elif backbone.get('pretrained') is True:
        backbone['pretrained'] = False


def _type_name(cfg: dict) -> str:
    kind = cfg.get('type')
    return kind.__name__ if isinstance(kind, type) else str(kind)


def random_images(model: dict) -> Tensor:
    """Return two images that the backbone takes, (2, C, SIDE, SIDE)."""
    return torch.randn(2, model['backbone'].get('in_channels', 3), SIDE, SIDE)
