"""Every config file: parses, builds, agrees with itself, trains a step."""
import copy
import re
from functools import cache
from urllib.parse import urlsplit

import metafile
import pytest
import torch
from conftest import ROOT, labelled
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS

from cac_mmseg.commands.adopt import derive
from cac_mmseg.stack.config import MMSEG_CONFIGS, load_config

CONFIGS = ROOT / 'configs'
NAMES = metafile.names()
# backbones other than ResNet
MODERN = [
    name for name in NAMES
    if re.match(r'cac_(convnext|hr18|mit|mobilenet|mscan|swin)', name)
]
ABLATIONS = [name for name in NAMES if name.startswith('ablations/')]
# settings that a config takes from one of mmseg's, which its first lines name
TAKEN = re.compile(r"^# .*mmseg's\n# ([\w-]+)")


@cache
def read(name):
    return Config.fromfile(CONFIGS / f'{name}.py')


def load(name):
    init_default_scope('mmseg')
    try:
        return copy.deepcopy(read(name))
    except RuntimeError as error:
        if 'convnext' not in name:
            raise
        assert 'pip install onedl-mmpretrain' in str(error)
        pytest.skip('needs mmpretrain')


def theirs_of(name):
    """The config of mmseg whose settings one of ours takes."""
    text = (CONFIGS / f'{name}.py').read_text()
    path, = MMSEG_CONFIGS.rglob(f'{TAKEN.match(text)[1]}.py')
    return path


def datasets(cfg):
    """All data set configs of a config, those inside a concatenation too."""
    for loader in ('train', 'val', 'test'):
        dataset = cfg[f'{loader}_dataloader'].dataset
        yield from dataset.get('datasets', [dataset])


def heads(cfg):
    parts = (cfg.model.get(key) for key in ('decode_head', 'auxiliary_head'))
    return [part for part in parts if part]


def test_the_metafile_is_up_to_date():
    assert len(NAMES) >= 40
    assert metafile.METAFILE.read_text() == metafile.metafile(), \
        'run python tests/metafile.py'


@pytest.mark.parametrize('name', NAMES)
def test_builds_with_matching_channels(name):
    cfg = load(name)
    # drop-path rates are computed from a tensor
    real = 'drop_path_rate' in cfg.model.backbone
    with torch.device('cpu' if real else 'meta'):
        model = MODELS.build(cfg.model)
        features = model.extract_feat(torch.empty(2, 3, 64, 64))
        logits = model.decode_head(features)
        for head in heads(cfg):
            stages = head.in_index
            if isinstance(stages, int):
                assert head.in_channels == features[stages].shape[1], head
            else:
                assert list(head.in_channels) == [
                    features[stage].shape[1] for stage in stages
                ]
    if isinstance(logits, tuple):  # of EncHead, with what its loss asks for
        logits = logits[0]
    assert logits.shape[1] == cfg.model.decode_head.num_classes
    assert cfg.custom_imports.imports[0] == 'cac_mmseg'


@pytest.mark.parametrize('name', NAMES)
def test_data_heads_and_schedule_agree(name):
    cfg = load(name)
    for dataset in datasets(cfg):
        # PascalContextDataset looks for its folder even when lazy
        type_ = DATASETS.get(dataset.type)
        classes = dataset.get('metainfo', type_.METAINFO)['classes']
        if 'metainfo' not in dataset:
            assert len(classes) == len(type_.METAINFO['palette'])
        for head in heads(cfg):
            assert head.num_classes == len(classes)
        expected = type_.__name__ in ('ADE20KDataset',
                                      'PascalContextDataset59')
        reduce = dataset.get('reduce_zero_label', expected)
        assert reduce == expected
        steps = [*cfg.tta_pipeline[1].transforms[-2]]
        for step in dataset.pipeline:  # those that load once among them
            steps += step.get('transforms', [step])
        for step in steps:
            if step.type == 'LoadAnnotations':
                assert step.get('reduce_zero_label') in (None, reduce)
            if step.type == 'CheckLabels':
                assert step.num_classes == len(classes)
    assert cfg.custom_hooks[0].type == 'PreflightHook'  # checks labels
    iterations, interval = cfg.train_cfg.max_iters, cfg.train_cfg.val_interval
    assert cfg.param_scheduler[-1].end == iterations
    assert iterations % interval == 0
    assert cfg.default_hooks.checkpoint.interval == interval
    assert cfg.tta_model.type == 'SegTTAModel'
    for step in cfg.train_pipeline:
        if step.type == 'RandomCrop':
            size = cfg.model.data_preprocessor.size
            assert tuple(step.crop_size) == tuple(size)


def settings(cfg):
    """What the result of a config depends on, but for the head."""
    backbone = copy.deepcopy(cfg.model.backbone)
    if 'init_cfg' in backbone:  # each stack has its own host
        url = urlsplit(backbone.init_cfg.checkpoint)
        backbone.init_cfg.checkpoint = url.path
    return dict(
        crop=tuple(cfg.crop_size),
        batch=cfg.train_dataloader.batch_size,
        iterations=cfg.train_cfg.max_iters,
        optimizer={
            k: v
            for k, v in cfg.optim_wrapper.items() if v is not None
        },
        schedule=cfg.param_scheduler,
        testing=cfg.model.test_cfg,
        preprocessor=cfg.model.data_preprocessor,
        pretrained=cfg.model.pretrained,
        backbone=backbone,
        auxiliary_head=cfg.model.get('auxiliary_head'),
        # how labels are read and images padded does not show in the result
        augmentations=[
            step for step in cfg.train_pipeline
            if step.type.startswith(('Random', 'PhotoMetric'))
        ])


@pytest.mark.parametrize('name', [
    name for name in NAMES if TAKEN.match((CONFIGS / f'{name}.py').read_text())
])
def test_settings_are_those_of_mmseg(name):
    ours = settings(load(name))
    theirs = settings(Config.fromfile(theirs_of(name)))
    for key, value in ours.items():
        assert value == theirs[key], key


@pytest.mark.parametrize('name', MODERN)
def test_heads_are_those_that_adopt_writes(name):
    ours = load(name).model.decode_head
    head = derive(load_config(theirs_of(name))).head
    # LightHamHead has GN, as its matrices are of one image
    head.pop('norm_cfg')
    for key, value in head.items():
        found = ours[key]
        assert value == (list(found)
                         if isinstance(value, list) else found), key


@pytest.mark.parametrize('name', ABLATIONS)
def test_an_ablation_isolates_one_thing(name):
    text = (CONFIGS / f'{name}.py').read_text()
    assert text.startswith('# Isolates ')
    ours, base = load(name), load('cac_r50_pcontext59')
    heads = ours.model.decode_head, base.model.decode_head
    changed = {key for key in {*heads[0], *heads[1]}
               if heads[0].get(key) != heads[1].get(key)}  # yapf: disable
    assert changed and changed <= {
        'kernel_size', 'dilations', 'share_kernels', 'num_heads',
        'global_pool', 'reweighting', 'channels'
    }
    ours.model.decode_head = base.model.decode_head
    assert ours._cfg_dict == base._cfg_dict


@pytest.mark.parametrize('name', [n for n in NAMES if 'cac_r101' in n])
def test_a_deep_config_differs_in_depth_alone(name):
    shallow = name.replace('r101', 'r50').removesuffix('_amp')
    ours, base = load(name), load(shallow)
    assert ours.model.backbone.depth == 101
    ours.model.backbone.depth = base.model.backbone.depth
    ours.model.pretrained = ours.model.pretrained.replace('101', '50')
    if name.endswith('_amp'):
        assert ours.optim_wrapper.pop('loss_scale') == 512.
        ours.optim_wrapper.type = base.optim_wrapper.type
    assert ours._cfg_dict == base._cfg_dict


def narrow(cfg):
    """The same model with a thin ResNet-18, or a thin head, untrained."""
    model = cfg.model
    model.pretrained = None
    if 'size' in model.data_preprocessor:
        model.data_preprocessor.size = (64, 64)
    model.backbone.init_cfg = None
    if 'ResNet' not in model.backbone.type:
        model.decode_head.channels = 64  # GN needs two channels a group
    elif len(model.backbone.out_indices) == 4:
        model.backbone.update(depth=18, base_channels=8, stem_channels=8)
        model.decode_head.update(in_channels=64, channels=16)
        if model.decode_head.type == 'EncHead':
            model.decode_head.in_channels = [16, 32, 64]
        model.auxiliary_head.update(in_channels=32, channels=8)
    if model.test_cfg.mode == 'slide':
        model.test_cfg.update(crop_size=(64, 64), stride=(48, 48))
    return cfg


@pytest.mark.parametrize('name', NAMES)
def test_trains_a_step_and_predicts(name):
    cfg = narrow(load(name))
    model = MODELS.build(cfg.model)
    model.init_weights()
    classes = cfg.model.decode_head.num_classes

    def batch(count, height, width):
        size, samples = (height, width), []
        for _ in range(count):
            label = torch.randint(0, classes, size)
            if 'class_weight' not in cfg.model.decode_head.loss_decode:
                label[:4] = 255  # mmseg 1.2 weighs it by class_weight[255]
            samples.append(labelled(label, img_shape=size, ori_shape=size,
                                    img_path='none'))  # yapf: disable
        images = torch.randint(0, 256, (count, 3, *size)).byte()
        return dict(inputs=[*images], data_samples=samples)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    data = model.data_preprocessor(batch(2, 64, 64), training=True)
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    unused = [name for name, p in model.named_parameters()
              if p.requires_grad and p.grad is None]  # yapf: disable
    assert bool(unused) == cfg.get('find_unused_parameters', False), unused

    model.eval()
    sample = model.test_step(batch(1, 72, 104))[0]
    assert sample.pred_sem_seg.data.shape == (1, 72, 104)
    assert sample.seg_logits.data.shape == (classes, 72, 104)
