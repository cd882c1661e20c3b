"""The decode heads of a config, apart from its backbone."""
from typing import Any, List, Sequence

import torch.nn as nn
from mmengine.model import revert_sync_batchnorm
from mmseg.models import CascadeEncoderDecoder, EncoderDecoder
from mmseg.registry import MODELS
from torch import Tensor

from .feature_maps import Refused

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
    """A decode head, or a cascade of two, on feature maps."""

    def __init__(self, heads: Sequence[dict]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(MODELS.build(cfg) for cfg in heads)
        revert_sync_batchnorm(self)

    def forward(self, *maps: Tensor) -> Any:
        before: tuple = ()
        for head in self.heads:
            before = (head(maps, *before), )
        return before[0]
