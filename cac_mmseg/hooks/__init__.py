"""Hooks: checks before a run, its log, a report after it, a CUDA graph."""
from .compact_log import CompactRunner, FirstIterationLoggerHook
from .cuda_graph import CUDAGraphHook
from .pictures import WeightingMapsHook
from .preflight import PreflightHook
from .report import PredictionPictureHook, ReportHook

__all__ = [
    'CUDAGraphHook', 'CompactRunner', 'FirstIterationLoggerHook',
    'PredictionPictureHook', 'PreflightHook', 'ReportHook', 'WeightingMapsHook'
]
