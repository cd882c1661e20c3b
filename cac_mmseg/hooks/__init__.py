"""Hooks: checks before a run, pictures after a validation."""
from .pictures import PredictionPictureHook, WeightingMapsHook
from .preflight import PreflightHook

__all__ = ['PredictionPictureHook', 'PreflightHook', 'WeightingMapsHook']
