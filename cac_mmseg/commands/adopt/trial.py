"""Whether an adopted config works, and what its decode head costs."""
import math
import warnings
from typing import Any, Dict, List, Sequence, Tuple

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from ...errors import UserError
from ...stack.analysis import multiply_adds, saved_bytes
from ...stack.decode_heads import Heads
from ...stack.feature_maps import (SIDE, Maps, Refused, random_images,
                                   small_model)

DEFAULT_CROP = (512, 512)  # of most configs of mmseg


def check(config: Config, original: Config) -> List[str]:
    """Build a model, train a step and predict, on random small images.

    Args:
        config: That was adopted.
        original: That it inherits from.

    Returns:
        Names of parameters that get no gradient, such as those of the norm of
        a feature map that the CaCHead does not read.

    Raises:
        Refused: If the model of the original config cannot be built either.
        ValueError: If the model does not run.
    """
    h = w = SIDE
    try:
        # of batches as small as this one
        warnings.filterwarnings('ignore', '(Sync)?BN normalises')
        model = revert_sync_batchnorm(MODELS.build(small_model(config.model)))
        labels = torch.randint(0, model.decode_head.num_classes, (2, 1, h, w))
        info = dict(img_shape=(h, w), ori_shape=(h, w), pad_shape=(h, w))
        samples = [
            SegDataSample(metainfo=info, gt_sem_seg=PixelData(data=label))
            for label in labels
        ]
        images = random_images(config.model)
        losses = model.train().loss(images, samples)
        model.parse_losses(losses)[0].backward()
        with torch.no_grad():
            result = model.eval().predict(images, samples)[0]
    except Exception as error:  # of any part of any config
        try:
            MODELS.build(small_model(original.model))
        except Exception as cause:
            raise Refused(f'its own model cannot be built: '
                          f'{type(cause).__name__}: {cause}') from error
        raise UserError(f'the adopted model does not run: '
                        f'{type(error).__name__}: {error}') from error
    assert result.pred_sem_seg.data.shape == (1, h, w)
    return [
        name for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    ]


def crop_size(config: Config) -> Tuple[int, int]:
    """Return the size (H, W) of training crops."""
    size = config.get('crop_size') or config.model.get(
        'data_preprocessor', {}).get('size') or DEFAULT_CROP
    return (size, size) if isinstance(size, int) else tuple(size)


def cost(heads: Sequence[dict], maps: Maps,
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
        shapes = [(channels, *(math.ceil(side / stride) for side in size))
                  for channels, stride in maps]
        adds = multiply_adds(module, *(torch.zeros(1, *s) for s in shapes))
        # BN takes no single image in training
        pair = [
            torch.empty(2, *s, device='meta', requires_grad=True)
            for s in shapes
        ]
        saved = saved_bytes(module.to('meta'), *pair) // 2
    except Exception as error:  # of a head whose operators are not there
        return dict(error=f'{type(error).__name__}: {error}')
    return dict(parameters=count, multiply_adds=adds, saved_bytes=saved)
