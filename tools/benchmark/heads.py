"""Decode heads of mmseg and CaCHead, on the same feature map."""
import math
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch
import torch.nn as nn
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import Tensor

from cac_mmseg.errors import UserError
from cac_mmseg.stack.analysis import interleave, multiply_adds, saved_bytes
from cac_mmseg.stack.config import find_config, load_config
from cac_mmseg.stack.decode_heads import Heads, decode_heads
from cac_mmseg.stack.feature_maps import feature_maps
from .report import Report
from .timing import Setting, ratio

CLASSES = 19
STAGES = (1024, 2048)  # channels of the last two stages of a ResNet-50
BARE = 'FCNHead-1'
# Arguments as in mmseg's R50-D8 configs; BN is what SyncBN is on one device.
HEADS: Dict[str, dict] = {
    BARE:
    dict(type='FCNHead', num_convs=1, concat_input=False),
    'CaCHead':
    dict(type='CaCHead'),
    'CaCHead-2':
    dict(type='CaCHead', num_heads=2),
    'CaCHead-4':
    dict(type='CaCHead', num_heads=4),
    'FCNHead':
    dict(type='FCNHead', num_convs=2, concat_input=True),
    'PSPHead':
    dict(type='PSPHead', pool_scales=(1, 2, 3, 6)),
    'ASPPHead':
    dict(type='ASPPHead', dilations=(1, 12, 24, 36)),
    'DMHead':
    dict(type='DMHead', filter_sizes=(1, 3, 5, 7)),
    'DNLHead':
    dict(type='DNLHead', mode='embedded_gaussian'),
    'GCHead':
    dict(type='GCHead', ratio=1 / 4., pooling_type='att'),
    'EncHead':
    dict(type='EncHead', in_channels=STAGES, in_index=(-2, -1)),
    'ANNHead':
    dict(
        type='ANNHead',
        in_channels=STAGES,
        in_index=(-2, -1),
        project_channels=256),
    'OCRHead':
    dict(type='OCRHead', ocr_channels=256),
}
COARSE = dict(
    type='FCNHead',
    in_channels=STAGES[0],
    in_index=-2,
    channels=256,
    num_convs=1,
    concat_input=False,
    num_classes=CLASSES,
    norm_cfg=dict(type='BN'))

Builders = Dict[str, Callable[[], nn.Module]]


class Case(nn.Module):
    """Decode heads on feature maps, or behind a backbone on an image.

    Args:
        heads: Configs, of one head or of a cascade.
        inputs: Feature maps, or an image.
        setting: Where it runs.
        backbone: Config of what comes before the heads, or None.
    """

    def __init__(self,
                 heads: Sequence[dict],
                 inputs: List[Tensor],
                 setting: Setting,
                 backbone: Optional[dict] = None) -> None:
        super().__init__()
        self.heads = Heads(heads)
        self.backbone = backbone and MODELS.build(backbone)
        self.inputs = inputs
        self.to(setting.device, memory_format=setting.memory_format)

    @classmethod
    def of_name(cls, name: str, setting: Setting,
                depth: Optional[int]) -> 'Case':
        """A head of :data:`HEADS`; depth is that of a ResNetV1c-D8 or None."""
        head = {
            'in_channels': STAGES[-1],
            'channels': 512,
            'num_classes': CLASSES,
            'norm_cfg': dict(type='BN'),
            **HEADS[name]
        }
        # OCRHead refines the prediction of a small head, which it comes with
        cascade = [COARSE, head] if name == 'OCRHead' else [head]
        height, width = setting.size
        if depth is None:
            inputs = [
                setting.random(channels, height, width).requires_grad_()
                for channels in STAGES
            ]
            return cls(cascade, inputs, setting)
        backbone = dict(
            type='ResNetV1c',
            depth=depth,
            dilations=(1, 1, 2, 4),
            strides=(1, 2, 1, 1),
            contract_dilation=True,
            norm_cfg=dict(type='BN'))
        image = setting.random(3, height * 8, width * 8)
        return cls(cascade, [image], setting, backbone)

    @classmethod
    def of_config(cls, path: str, setting: Setting) -> 'Case':
        """The head of a config; its image is eight times the setting's size.
        """
        model = load_config(path).model
        inputs = [
            setting.random(
                channels,
                *(math.ceil(8 * side / stride)
                  for side in setting.size)).requires_grad_()
            for channels, stride in feature_maps(model)
        ]
        return cls(decode_heads(model), inputs, setting)

    def forward(self, *maps: Tensor) -> Tuple[Tensor, ...]:
        if self.backbone:
            maps = self.backbone(*maps)
        out = self.heads(*maps)
        return tuple(out) if isinstance(out, (list, tuple)) else (out, )


def train(case: Case, setting: Setting) -> None:
    """A forward and a backward pass."""
    case.train().zero_grad()
    for x in case.inputs:
        x.grad = None
    with setting.autocast():
        outputs = case(*case.inputs)
    torch.autograd.backward(outputs, [torch.ones_like(y) for y in outputs])


@torch.no_grad()
def predict(case: Case, setting: Setting) -> None:
    """A forward pass in evaluation."""
    case.eval()
    with setting.autocast():
        case(*case.inputs)


def of_names(names: List[str], backbone: Optional[int],
             setting: Setting) -> Builders:
    """Return what builds the bare head, and those that are named."""
    init_default_scope('mmseg')
    return {
        name: partial(Case.of_name, name, setting, backbone)
        for name in dict.fromkeys([BARE, *names])
    }


def of_configs(names: List[str], setting: Setting) -> Builders:
    """Return what builds the heads of configs, found by name or path."""
    paths = [find_config(name)[0] for name in names]
    return {
        Path(path).stem: partial(Case.of_config, path, setting)
        for path in dict.fromkeys(paths)
    }


def measure(builders: Builders, setting: Setting, report: Report) -> None:
    """Measure heads in turns, beside the first; name those that do not run."""
    reference = next(iter(builders))
    cases: Dict[str, nn.Module] = {}
    for name, build in builders.items():
        try:
            case = build()
            train(case, setting)
        # whatever mmseg or a device raises for a head it cannot run
        except Exception as error:
            report.skip(name, error)
            continue
        cases[name] = case
        if setting.compile:
            cases[f'{name} compiled'] = torch.compile(case)
    if reference not in cases:
        raise UserError(f'{reference}, the reference of all ratios, does not '
                        f'run here: {report.skipped[reference]}')
    functions: Dict[str, Callable[[], Any]] = {}
    for name, case in cases.items():
        functions[f'{name} train'] = partial(train, case, setting)
        functions[f'{name} predict'] = partial(predict, case, setting)
    times = interleave(functions, setting.rounds, setting.device)
    for name, case in cases.items():
        row = {'name': name}
        for what in ('train', 'predict'):
            seconds = times[f'{name} {what}']
            row[f'{what}_ms'] = median(seconds) * 1e3
            row[f'{what}_ratio'] = ratio(seconds, times[f'{reference} {what}'])
        report.add({**row, **_sizes(case, setting)})


def _sizes(case: Case, setting: Setting) -> Dict[str, float]:
    sizes: Dict[str, float] = {}
    if setting.device.type == 'cuda':
        before = torch.cuda.memory_allocated(setting.device)
        torch.cuda.reset_peak_memory_stats(setting.device)
        train(case, setting)
        peak = torch.cuda.max_memory_allocated(setting.device)
        sizes['peak_mib'] = (peak - before) / 2**20
    # a compiled module shares its parameters with the one it is made from
    case = getattr(case, '_orig_mod', case)
    with setting.autocast():
        sizes['saved_mib'] = saved_bytes(case, *case.inputs) / 2**20
    with setting.autocast():  # anew: it has kept casts that require grad
        sizes['multiply_adds'] = multiply_adds(case, *case.inputs)
    sizes['parameters'] = sum(p.numel() for p in case.parameters())
    return sizes
