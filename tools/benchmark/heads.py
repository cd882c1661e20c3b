"""Decode heads of mmseg and CaCHead, on the same feature map."""
from functools import partial
from typing import Any, Dict, List, Optional

import torch
import torch.nn as nn
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import Tensor

from cac_mmseg.errors import UserError
from cac_mmseg.stack.analysis import multiply_adds, saved_bytes
from cac_mmseg.stack.decode_heads import Heads
from cac_mmseg.stack.timing import Case, build, compare, train
from .report import Report
from .setting import Setting

CLASSES = 19
BARE = 'FCNHead-1'
# Arguments as in mmseg's R50-D8 configs, by a name that starts with the type
HEADS: Dict[str, dict] = {
    BARE: dict(num_convs=1, concat_input=False),
    'CaCHead': dict(),
    'CaCHead-2': dict(num_heads=2),
    'CaCHead-4': dict(num_heads=4),
    'FCNHead': dict(num_convs=2, concat_input=True),
    'PSPHead': dict(pool_scales=(1, 2, 3, 6)),
    'ASPPHead': dict(dilations=(1, 12, 24, 36)),
    'DMHead': dict(filter_sizes=(1, 3, 5, 7)),
    'DNLHead': dict(mode='embedded_gaussian'),
    'GCHead': dict(ratio=1 / 4., pooling_type='att'),
    'EncHead': dict(in_index=(-2, -1)),
    'ANNHead': dict(in_index=(-2, -1), project_channels=256),
    'OCRHead': dict(ocr_channels=256),
}
COARSE = dict(
    type='FCNHead',
    in_index=-2,
    channels=256,
    num_convs=1,
    concat_input=False,
    num_classes=CLASSES,
    norm_cfg=dict(type='BN'))


class Model(nn.Module):
    """A backbone with decode heads."""

    def __init__(self, backbone: dict, heads: Heads) -> None:
        super().__init__()
        self.backbone = MODELS.build(backbone)
        self.heads = heads

    def forward(self, image: Tensor) -> Any:
        return self.heads(*self.backbone(image))


def head_case(name: str, setting: Setting, depth: Optional[int]) -> Case:
    """Build a head of :data:`HEADS`.

    Args:
        name: Its key.
        setting: Where it runs.
        depth: Of the ResNetV1c-D8 before it, or None for feature maps.
    """
    init_default_scope('mmseg')
    stages = 2 * setting.channels, 4 * setting.channels
    head = {
        'type': name.split('-')[0],
        'in_channels': stages if 'in_index' in HEADS[name] else stages[1],
        'channels': setting.channels,
        'num_classes': CLASSES,
        # what SyncBN is on one device
        'norm_cfg': dict(type='BN'),
        **HEADS[name]
    }
    # OCRHead refines the prediction of a small head, which it comes with
    coarse = dict(COARSE, in_channels=stages[0])
    module: nn.Module = Heads([coarse, head] if name == 'OCRHead' else [head])
    height, width = setting.size
    if depth is None:
        inputs = [
            setting.random(channels, height, width).requires_grad_()
            for channels in stages
        ]
    else:
        backbone = dict(
            type='ResNetV1c',
            depth=depth,
            dilations=(1, 1, 2, 4),
            strides=(1, 2, 1, 1),
            contract_dilation=True,
            norm_cfg=dict(type='BN'))
        module = Model(backbone, module)
        inputs = [setting.random(3, height * 8, width * 8)]
    module.to(setting.device, memory_format=setting.memory_format)
    return setting.case(module, inputs)


def measure(names: List[str], depth: Optional[int], setting: Setting,
            report: Report) -> None:
    """Measure heads in turns, beside the bare one; name those that do not run.

    Args:
        names: Of :data:`HEADS`.
        depth: Of the ResNetV1c-D8 before each, or None.
        setting: The conditions.
        report: Gets a row for each.

    Raises:
        UserError: If the bare head does not run.
    """
    cases, errors = build({
        name: partial(head_case, name, setting, depth)
        for name in dict.fromkeys([BARE, *names])
    })
    report.skipped.update(errors)
    if BARE not in cases:
        raise UserError(f'{BARE}, the reference of all ratios, does not run '
                        f'here: {errors[BARE]}')
    if setting.compile:
        cases.update([(f'{name} compiled',
                       setting.case(torch.compile(case.module), case.inputs))
                      for name, case in cases.items()])
    for name, times in compare(cases, setting.rounds).items():
        report.rows.append({
            'name': name,
            **times,
            **_sizes(cases[name], setting)
        })


def _sizes(case: Case, setting: Setting) -> Dict[str, float]:
    sizes: Dict[str, float] = {}
    if setting.device.type == 'cuda':
        before = torch.cuda.memory_allocated(setting.device)
        torch.cuda.reset_peak_memory_stats(setting.device)
        train(case)
        peak = torch.cuda.max_memory_allocated(setting.device)
        sizes['peak_mib'] = (peak - before) / 2**20
    # a compiled module shares its parameters with the one it is made from
    module = getattr(case.module, '_orig_mod', case.module)
    with setting.autocast():
        sizes['saved_mib'] = saved_bytes(module, *case.inputs) / 2**20
    with setting.autocast():  # anew: it has kept casts that require grad
        sizes['multiply_adds'] = multiply_adds(module, *case.inputs)
    sizes['parameters'] = sum(p.numel() for p in module.parameters())
    return sizes
