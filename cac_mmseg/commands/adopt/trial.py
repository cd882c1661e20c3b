"""Whether an adopted config works."""
import warnings
from typing import List

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from ...errors import UserError
from ...stack.feature_maps import SIDE, Refused, random_images, small_model


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
