"""Hooks: checks before a run, what a validation shows, a CUDA graph."""
from .cuda_graph import CUDAGraphHook
from .pictures import WeightingMapsHook
from .preflight import PreflightHook
from .report import PredictionPictureHook, ReportHook

__all__ = [
    'CUDAGraphHook', 'PredictionPictureHook', 'PreflightHook', 'ReportHook',
    'WeightingMapsHook'
]
