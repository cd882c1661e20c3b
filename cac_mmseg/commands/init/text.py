"""The page that is written: a config with comments."""
from copy import deepcopy
from textwrap import wrap
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

from mmengine.config import Config

from ..adopt.text import custom_imports, formatted, missing_hooks, source
from .base import Base
from .heads import heads_for
from .pairs import Pairs
from .plan import CPU, Schedule, Sizes

# what tools/study trains MobileNetV2 by, on small data and a CPU
LIGHT = '''
# AdamW learns in few iterations; the new head learns faster than the backbone
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.0003, weight_decay=0.01),
    paramwise_cfg=dict(custom_keys=dict(decode_head=dict(lr_mult=10.))))
'''
# output stride 16
LIGHT_MODEL = '''backbone=dict(
    strides=(1, 2, 2, 2, 1, 1, 1), dilations=(1, 1, 1, 1, 1, 2, 2))'''

# schedulers whose iterations are these; others have milestones, too
SCALED = 'PolyLR', 'LinearLR', 'ConstantLR', 'CosineAnnealingLR'


class Page(NamedTuple):
    """What a config says; ``comments`` are lines at its head."""
    comments: Sequence[str]
    base: Base
    pairs: Pairs
    lists: Tuple[str, str]
    names: Sequence[str]
    palette: Sequence[Sequence[int]]
    loading: dict
    normalisation: Optional[Tuple[float, float]]
    sizes: Sizes
    workers: int
    schedule: Schedule
    weights: Optional[List[float]]

    @property
    def light(self) -> bool:
        """Whether the model is made lighter than the base has it."""
        return self.base.machine is CPU and self.base.by_default


def page(p: Page) -> str:
    """Return the text of a config."""
    code = '\n'.join([
        *(f'# {line}' for text in p.comments for line in wrap(text, 77)),
        f'_base_ = {p.base.source}',
        _data(p),
        _loaders(p),
        _model(p),
        _schedule(p),
    ])
    return formatted(code)


def _dict(like: Config, key: str, rest: str) -> str:
    """Return a dict that takes the place of the base's."""
    replaces = isinstance(like.get(key), dict)
    return f'{key} = dict({"_delete_=True, " * replaces}{rest})'


def _data(p: Page) -> str:
    pairs, sizes = p.pairs, p.sizes
    loading = ''.join(f', {key}={value!r}' for key, value in p.loading.items())
    load = f"dict(type='LoadImageFromFile'{loading})"
    if sizes.scale:
        width, height = sizes.scale[1], sizes.scale[0]
        scale = (f'# width, height: {sizes.why}\n'
                 f'scale = ({width}, {height})')
        resize = ("dict(type='RandomResize', scale=scale, "
                  'ratio_range=(0.5, 2.0), keep_ratio=True)')
        test = "dict(type='Resize', scale=scale, keep_ratio=True), "
        by_ratio = 'scale=tuple(int(side * ratio) for side in scale)'
    else:
        scale = f'# {sizes.why}\nscales = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)'
        resize = ("dict(type='RandomChoice', transforms=[[dict(type='Resize', "
                  'scale_factor=factor, keep_ratio=True)] '
                  'for factor in scales])')
        test, by_ratio = '', 'scale_factor=ratio'
    # it is made for colours of 8 bits
    colours = '' if p.loading else "dict(type='PhotoMetricDistortion'), "
    classes = ', '.join(map(repr, p.names))
    return f'''
# paths are relative to where `mim train` runs
data = dict(
    type='BaseSegDataset',
    data_prefix=dict(
        img_path={str(pairs.images)!r}, seg_map_path={str(pairs.labels)!r}),
    img_suffix={pairs.suffixes[0]!r},
    seg_map_suffix={pairs.suffixes[1]!r},
    metainfo=dict(
        classes=({classes}),
        palette={[[*map(int, colour)] for colour in p.palette]!r}))
{scale}
crop_size = {sizes.crop}  # height, width of what a training step sees
train_pipeline = [
    {load},
    dict(type='LoadAnnotations'),
    {resize},
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    {colours}dict(type='PackSegInputs')
]
# labels are loaded after Resize: a prediction is compared at full size
test_pipeline = [
    {load}, {test}dict(type='LoadAnnotations'), dict(type='PackSegInputs')
]
tta_pipeline = [  # of mim test --tta
    {load},
    dict(type='TestTimeAug', transforms=[
        [dict(type='Resize', {by_ratio}, keep_ratio=True)
         for ratio in (0.75, 1.0, 1.25)],
        [dict(type='RandomFlip', prob=prob) for prob in (0., 1.)],
        [dict(type='LoadAnnotations')],
        [dict(type='PackSegInputs')]])
]
'''


def _loaders(p: Page) -> str:
    workers = (f'num_workers={p.workers}, '
               f'persistent_workers=True, ')
    train = _dict(
        p.base.like, 'train_dataloader',
        f'batch_size={p.base.machine.batch}, {workers}'
        "sampler=dict(type='InfiniteSampler', shuffle=True), "
        f'dataset=dict(ann_file={p.lists[0]!r}, pipeline=train_pipeline, '
        '**data)')
    val = _dict(
        p.base.like, 'val_dataloader', f'batch_size=1, {workers}'
        "sampler=dict(type='DefaultSampler', shuffle=False), "
        f'dataset=dict(ann_file={p.lists[1]!r}, pipeline=test_pipeline, '
        '**data)')
    metric = _dict(p.base.like, 'val_evaluator',
                   "type='IoUMetric', iou_metrics=['mIoU']")
    return (f'{train}\n{val}\ntest_dataloader = val_dataloader\n{metric}\n'
            'test_evaluator = val_evaluator\n')


def _model(p: Page) -> str:
    lines = ['data_preprocessor=dict(size=crop_size']
    if p.normalisation:
        mean, std = (round(value, 2) for value in p.normalisation)
        lines[0] += f', mean={[mean] * 3}, std={[std] * 3}'
    if (p.base.like.model.get('data_preprocessor') or {}).get('size_divisor'):
        lines[0] += ', size_divisor=None'
    lines[0] += ')'
    if p.base.pretrained is not False:
        lines.insert(0, _pretrained(p.base))
    heads = heads_for(p.base.like, len(p.names))
    if p.light:
        lines.append(LIGHT_MODEL)
        heads['decode_head']['channels'] = 128
    lines += [f'{key}={source(value)}' for key, value in heads.items()]
    test = p.base.like.model.get('test_cfg') or {}
    if test.get('mode', 'whole') != 'whole' and not fixed_size(p.base.like):
        lines.append("test_cfg=dict(_delete_=True, mode='whole')")
    text = f'model = dict({", ".join(lines)})\n'
    if p.weights:
        text += ('# classes below 1 % of the pixels may be learned better with'
                 '\n# model.decode_head.loss_decode.class_weight = '
                 f'{p.weights}\n')
    return text


def _pretrained(base: Base) -> str:
    """Return what the backbone starts from."""
    weights = base.pretrained
    if (base.like.model.get('backbone') or {}).get('init_cfg'):
        # mmengine refuses both
        value = (f"dict(_delete_=True, type='Pretrained', checkpoint="
                 f'{weights!r})' if weights else None)
        return f'backbone=dict(init_cfg={value})'
    return f'pretrained={weights!r}'


def fixed_size(like: Config) -> bool:
    """Return whether a backbone takes images of one size only."""
    return 'img_size' in (like.model.get('backbone') or {})


def _schedule(p: Page) -> str:
    iterations, validation, log = p.schedule
    train = _dict(
        p.base.like, 'train_cfg', "type='IterBasedTrainLoop', "
        'max_iters=max_iters, '
        f'val_interval={validation}')
    schedulers = ',\n'.join(
        'dict(' + ', '.join(f'{key}={_iteration(value, iterations)}'
                            for key, value in scheduler.items()) + ')'
        for scheduler in _schedulers(p, iterations))
    hooks = ''.join(f', {name}={hook!r}'
                    for name, hook in missing_hooks(p.base.like).items())
    return f'''{LIGHT if p.light else ''}
max_iters = {iterations}
{train}
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
# the learning rate falls until the end: it ends with max_iters
param_scheduler = [
    {schedulers}
]
default_hooks = dict(
    logger=dict(type='FirstIterationLoggerHook', interval={log},
        log_metric_by_epoch=False),
    # the best one, and the last two, are kept
    checkpoint=dict(type='CheckpointHook', by_epoch=False,
        interval={validation}, save_best='mIoU', max_keep_ckpts=2){hooks})
log_processor = dict(by_epoch=False)
runner_type = 'CompactRunner'
custom_imports = {source(custom_imports(p.base.like))}
randomness = dict(seed=0)
'''


def _iteration(value: Any, iterations: int) -> str:
    return 'max_iters' if value == iterations else repr(value)


def _schedulers(p: Page, iterations: int) -> List[dict]:
    """Return the schedulers of the base, over as many iterations."""
    like = p.base.like
    found = deepcopy(like.get('param_scheduler') or [])
    found = [found] if isinstance(found, dict) else found
    before = (like.get('train_cfg') or {}).get('max_iters')
    if p.light or not found or not before or any(
            s.get('by_epoch', True) or s.type not in SCALED for s in found):
        return [
            dict(
                type='PolyLR',
                eta_min=0.,
                power=0.9,
                begin=0,
                end=iterations,
                by_epoch=False)
        ]
    for scheduler in found:
        for key in ('begin', 'end', 'T_max'):
            if key in scheduler:
                scheduler[key] = round(scheduler[key] * iterations / before)
    return found
