"""CaC-Net for MMSegmentation.

Importing this package registers its classes with mmseg, so a config needs no
more than ``custom_imports = dict(imports=['cac_mmseg'])``.
"""
import sys

from .stack.env import require_stack

try:
    # `python -m cac_mmseg predict` starts at once, and without the stack
    started_by = sys.orig_argv[-len(sys.argv) - 1:]
    if (started_by[:3] == ['-m', 'cac_mmseg', 'predict']
            and '--against' not in started_by):
        raise ImportError
    require_stack()
except ImportError:
    # `python -m cac_mmseg` imports this before __main__, which raises the
    # error again, unless the command is doctor, which explains it. Meanwhile
    # sys.argv[0] is '-m', as Python's manual of that option says.
    if sys.argv[0] != '-m':
        raise
else:
    from .baselines import (ChannelAttentionModule, FCKernelModule,
                            FixedKernelModule, GAPKernelModule, IdentityModule)
    from .cac_head import CaCHead
    from .cac_module import CaCModule
    from .datasets import (CamVidDataset, CheckLabels, ContextShapesDataset,
                           CrossingDataset)
    from .hooks import (CompactRunner, CUDAGraphHook, FirstIterationLoggerHook,
                        PredictionPictureHook, PreflightHook, ReportHook,
                        WeightingMapsHook)
    from .stack.config import config_path

__version__ = '0.2.0'
__all__ = [
    'CUDAGraphHook', 'CaCHead', 'CaCModule', 'CamVidDataset',
    'ChannelAttentionModule', 'CheckLabels', 'CompactRunner',
    'ContextShapesDataset', 'CrossingDataset', 'FCKernelModule',
    'FirstIterationLoggerHook', 'FixedKernelModule', 'GAPKernelModule',
    'IdentityModule', 'PredictionPictureHook', 'PreflightHook',
    'ReportHook', 'WeightingMapsHook', 'config_path'
]
