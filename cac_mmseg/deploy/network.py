"""A model as one function from an image to scores."""
from typing import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmseg.models import BaseSegmentor
from torch import Tensor

from .facts import last_head, swaps_channels

OUTPUTS = ('logits', 'probabilities', 'classes')


class Network(nn.Module):
    """Backbone, decode head, and scores at the size of the image.

    Args:
        model: An encoder and decoder of mmseg's.
        output: Of :data:`OUTPUTS`. Probabilities are a softmax, or a sigmoid
            of a single channel; classes its argmax, or where the probability
            is above the head's threshold.
        raw: Whether images are RGB in uint8, normalised here; otherwise they
            are normalised already.
    """

    def __init__(self,
                 model: BaseSegmentor,
                 output: str = 'logits',
                 raw: bool = False) -> None:
        super().__init__()
        self.model = model
        self.output = output
        self.raw = raw

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, K, H, W), or classes (B, H, W)."""
        if self.output == 'classes':
            return self.margins(image).argmax(1)
        logits = self.logits(image)
        if self.output == 'logits':
            return logits
        return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)

    def margins(self, image: Tensor) -> Tensor:
        """Return logits (B, K, H, W), K >= 2, whose argmax is the class."""
        logits = self.logits(image)
        if logits.shape[1] > 1:
            return logits
        threshold = torch.tensor(last_head(self.model).threshold)
        bound = threshold.logit(1e-6).item()  # finite
        return torch.cat([torch.full_like(logits, bound), logits], 1)

    def logits(self, image: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, K, H, W)."""
        if self.raw:
            image = self.normalise(image)
        logits = self.model(image, mode='tensor')
        return F.interpolate(
            logits,
            size=image.shape[2:],
            mode='bilinear',
            align_corners=self.model.align_corners)

    def normalise(self, image: Tensor) -> Tensor:
        """Map RGB in uint8 to what the backbone takes."""
        prepare = self.model.data_preprocessor
        if image.shape[1] == 3 and not swaps_channels(prepare):
            image = torch.cat([image[:, i:i + 1] for i in (2, 1, 0)], 1)
        image = image.float()
        if prepare._enable_normalize:
            image = (image - prepare.mean) / prepare.std
        return image

    def example(self, shape: Sequence[int]) -> Tensor:
        """Return an image of noise, of a shape (B, C, H, W): always one."""
        noise = torch.Generator().manual_seed(0)
        if self.raw:
            return torch.randint(
                256, tuple(shape), dtype=torch.uint8, generator=noise)
        return torch.randn(tuple(shape), generator=noise)


class Reference(Network):
    """The model as mmseg's test runs it, which a file is compared with."""

    def logits(self, image: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, K, H, W)."""
        if self.raw:
            image = self.normalise(image)
        size = dict(img_shape=image.shape[2:])
        return self.model.encode_decode(image, [size] * len(image))
