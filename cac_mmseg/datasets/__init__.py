"""Datasets that mmseg lacks, and a check of labels."""
from .camvid import CamVidDataset
from .context_shapes import ContextShapesDataset, CrossingDataset
from .transforms import CheckLabels, LoadOnce

__all__ = [
    'CamVidDataset', 'CheckLabels', 'ContextShapesDataset', 'CrossingDataset',
    'LoadOnce'
]
