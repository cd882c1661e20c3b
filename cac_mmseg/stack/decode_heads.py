"""The decode heads of a config, apart from its backbone, and their cost."""
import math
from typing import Any, Dict, List, Sequence, Tuple, Union

import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmseg.models import CascadeEncoderDecoder, EncoderDecoder
from mmseg.registry import MODELS
from torch import Tensor

from .analysis import multiply_adds, saved_bytes
from .feature_maps import Maps, Refused
from .words import reason

DEFAULT_CROP = (512, 512)  # of most configs of mmseg
MASKS = ('predicts masks that are matched with segments, not a class for each '
         'position')
REFUSED = {
    'DepthEstimator':
    'estimates depth, not classes',
    'MultimodalEncoderDecoder':
    'compares images with text',
    'MaskFormerHead':
    MASKS,
    'Mask2FormerHead':
    MASKS,
    'PointHead':
    "refines its first head's prediction point by point: adopt a "
    'config without it',
}


def decode_heads(model: dict) -> List[dict]:
    """Return the configs of a model's decode head, or of both in a cascade.

    Raises:
        Refused: If a CaCHead cannot take their place.
    """
    segmentor = MODELS.get(model.get('type', ''))
    heads = model.get('decode_head') or []
    heads = list(heads) if isinstance(heads, (list, tuple)) else [heads]
    for cfg in (model, *heads):
        name = str(cfg.get('type')).rsplit('.', 1)[-1]
        if name in REFUSED:
            raise Refused(f'{name} {REFUSED[name]}')
    if not (isinstance(segmentor, type)
            and issubclass(segmentor, EncoderDecoder)) or not heads:
        raise Refused(f'{model.get("type")} is no EncoderDecoder with a '
                      'decode_head')
    cascade = issubclass(segmentor, CascadeEncoderDecoder)
    if len(heads) > (2 if cascade else 1):
        names = ', '.join(cfg['type'] for cfg in heads)
        raise Refused(f'{model["type"]} has {len(heads)} decode heads, '
                      f'{names}: adopt replaces one, or a cascade of two')
    return heads


class Heads(nn.Module):
    """A decode head, or a cascade of two, on feature maps.

    Args:
        heads: Their configs, or themselves.
    """

    def __init__(self, heads: Sequence[Union[dict, nn.Module]]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            head if isinstance(head, nn.Module) else MODELS.build(head)
            for head in heads)
        revert_sync_batchnorm(self)

    def forward(self, *maps: Tensor) -> Any:
        before: tuple = ()
        for head in self.heads:
            before = (head(maps, *before), )
        return before[0]


def crop_size(config: Config) -> Tuple[int, int]:
    """Return the size (H, W) of training crops."""
    size = config.get('crop_size') or config.model.get(
        'data_preprocessor', {}).get('size') or DEFAULT_CROP
    return (size, size) if isinstance(size, int) else tuple(size)


def map_shapes(maps: Maps, size: Tuple[int, int]) -> List[Tuple[int, ...]]:
    """Return the shape (C, H, W) of each feature map of a crop."""
    return [(channels, *(math.ceil(side / stride) for side in size))
            for channels, stride in maps]


def head_cost(heads: Sequence[dict], maps: Maps,
              size: Tuple[int, int]) -> Dict[str, Any]:
    """Measure decode heads for one training crop.

    Args:
        heads: Configs, of one head or of a cascade.
        maps: Channels and stride of each feature map.
        size: H and W of the crop.

    Returns:
        parameters, multiply_adds, saved_bytes (float32); or error, if a head
        does not run here.
    """
    try:
        module = Heads(heads)
        count = sum(p.numel() for p in module.parameters())
        shapes = map_shapes(maps, size)
        adds = multiply_adds(module, *(torch.zeros(1, *s) for s in shapes))
        # BN takes no single image in training
        pair = [
            torch.empty(2, *s, device='meta', requires_grad=True)
            for s in shapes
        ]
        saved = saved_bytes(module.to('meta'), *pair) // 2
    except Exception as error:  # of a head whose operators are not there
        return dict(error=reason(error))
    return dict(parameters=count, multiply_adds=adds, saved_bytes=saved)
