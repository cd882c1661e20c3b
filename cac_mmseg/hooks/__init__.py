"""Hooks: checks before a run, its log, pictures, a CUDA graph."""
from .compact_log import CompactRunner, FirstIterationLoggerHook
from .cuda_graph import CUDAGraphHook
from .pictures import PredictionPictureHook, WeightingMapsHook
from .preflight import PreflightHook

__all__ = [
    'CUDAGraphHook', 'CompactRunner', 'FirstIterationLoggerHook',
    'PredictionPictureHook', 'PreflightHook', 'WeightingMapsHook'
]
