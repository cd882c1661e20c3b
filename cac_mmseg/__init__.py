"""CaC-Net for MMSegmentation.

Importing this package registers its classes with mmseg, so a config needs no
more than ``custom_imports = dict(imports=['cac_mmseg'])``.
"""
from ._config_path import config_path
from ._stack import require_stack

require_stack()

from .baselines import (ChannelAttentionModule, FCKernelModule,
                        GAPKernelModule, IdentityModule)
from .cac_head import CaCHead
from .cac_module import CaCModule
from .datasets import CamVidDataset, CheckLabels, ContextShapesDataset
from .hooks import PredictionPictureHook
from .preflight import PreflightHook

__version__ = '0.1.0'
__all__ = [
    'CaCHead', 'CaCModule', 'CamVidDataset', 'ChannelAttentionModule',
    'CheckLabels', 'ContextShapesDataset', 'FCKernelModule', 'GAPKernelModule',
    'IdentityModule', 'PredictionPictureHook', 'PreflightHook', 'config_path'
]
