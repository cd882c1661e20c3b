"""Hooks: checks before a run, pictures after a validation, a CUDA graph."""
from .cuda_graph import CUDAGraphHook
from .pictures import PredictionPictureHook, WeightingMapsHook
from .preflight import PreflightHook

__all__ = [
    'CUDAGraphHook', 'PredictionPictureHook', 'PreflightHook',
    'WeightingMapsHook'
]
