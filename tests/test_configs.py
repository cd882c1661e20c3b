"""Every config file: parses, builds, agrees with itself, trains a step."""
import copy

import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, MODELS
from mmseg.structures import SegDataSample

CONFIGS = ROOT / 'configs'
DATA = ('cityscapes', 'ade20k', 'voc12', 'voc12aug', 'pcontext59',
        'pcontext60')
ABLATIONS = ('k1', 'k5', 'k7', 'd1', 'd1-3', 'shared', 'heads2', 'heads4',
             'nopool', 'fc-kernels', 'gap-kernels', 'channel-attention', 'fcn')
STUDY = ('fcn', 'pspnet', 'deeplabv3', 'dmnet', 'gcnet', 'encnet', 'dnlnet',
         'cac', 'cac-heads4', 'cac-nopool', 'cac-shared', 'gap-kernels',
         'channel-attention', 'fixed-kernels', 'global-pool')
FOLDERS = ('', 'ablations', 'study')
EXPECTED = {
    *(f'cac_{r}_{data}' for r in ('r50', 'r101')
      for data in (*DATA, 'cityscapes_769')),
    'cac_r101_cityscapes_amp',
    'cac_r18_camvid',
    'cac_r50_camvid',
    'cac_r18_contextshapes',
    'fcn_r18_contextshapes',
    *(f'ablations/cac_r50_pcontext59_{what}' for what in ABLATIONS),
    *(f'study/{head}' for head in STUDY),
}
# crop, images per GPU, iterations, learning rate, testing: mmseg's R-D8 ones
SETTINGS = dict(
    cityscapes=((512, 1024), 2, 80000, 0.01, 'whole'),
    cityscapes_769=((769, 769), 2, 80000, 0.01, 'slide'),
    ade20k=((512, 512), 4, 160000, 0.01, 'whole'),
    voc12=((512, 512), 4, 20000, 0.01, 'whole'),
    voc12aug=((512, 512), 4, 40000, 0.01, 'whole'),
    pcontext59=((480, 480), 4, 80000, 0.004, 'slide'),
    pcontext60=((480, 480), 4, 80000, 0.004, 'slide'))

NAMES = sorted(
    str(path.relative_to(CONFIGS).with_suffix('')) for folder in FOLDERS
    for path in (CONFIGS / folder).glob('*.py'))


def load(name):
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    init_default_scope('mmseg')
    return cfg


def datasets(cfg):
    """All data set configs of a config, those inside a concatenation too."""
    for loader in ('train', 'val', 'test'):
        dataset = cfg[f'{loader}_dataloader'].dataset
        yield from dataset.get('datasets', [dataset])


def heads(cfg):
    return [
        cfg.model[key] for key in ('decode_head', 'auxiliary_head')
        if key in cfg.model
    ]


def test_exactly_the_promised_configs_exist():
    print(f'{len(NAMES)} configs covered')
    assert set(NAMES) == EXPECTED and len(NAMES) == 47


@pytest.mark.parametrize('name', NAMES)
def test_builds_on_meta_with_matching_channels(name):
    cfg = load(name)
    with torch.device('meta'):
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
    assert cfg.custom_imports.imports == ['cac_mmseg']


@pytest.mark.parametrize('name', NAMES)
def test_data_sets_and_heads_agree(name):
    cfg = load(name)
    for dataset in datasets(cfg):
        # PascalContextDataset looks for its folder even when lazy
        type_ = DATASETS.get(dataset.type)
        classes = type_.METAINFO['classes']
        for head in heads(cfg):
            assert head.num_classes == len(classes) == len(
                type_.METAINFO['palette'])
        expected = type_.__name__ in ('ADE20KDataset',
                                      'PascalContextDataset59')
        reduce = dataset.get('reduce_zero_label', expected)
        assert reduce == expected
        pipelines = [dataset.pipeline, cfg.tta_pipeline[1].transforms[-2]]
        for step in sum(pipelines, []):
            if step.type == 'LoadAnnotations':
                assert step.get('reduce_zero_label') in (None, reduce)
            if step.type == 'CheckLabels':
                assert step.num_classes == len(classes)
    if cfg.train_dataloader.dataset.type != 'ContextShapesDataset':
        for dataset in list(datasets(cfg))[:-2]:  # of training
            assert [step.type for step in dataset.pipeline
                    ][1:3] == ['LoadAnnotations', 'CheckLabels']


@pytest.mark.parametrize('name', NAMES)
def test_schedule_agrees_with_itself(name):
    cfg = load(name)
    iterations = cfg.train_cfg.max_iters
    assert cfg.param_scheduler[0].end == iterations
    assert iterations % cfg.train_cfg.val_interval == 0
    assert cfg.default_hooks.checkpoint.interval == cfg.train_cfg.val_interval
    assert cfg.tta_model.type == 'SegTTAModel'
    size = tuple(cfg.model.data_preprocessor.size)
    for step in cfg.train_pipeline:
        if step.type == 'RandomCrop':
            assert tuple(step.crop_size) == size


@pytest.mark.parametrize('data', sorted(SETTINGS))
@pytest.mark.parametrize('backbone', ['r50', 'r101'])
def test_settings_are_those_of_mmseg(backbone, data):
    cfg = load(f'cac_{backbone}_{data}')
    crop, batch, iterations, lr, testing = SETTINGS[data]
    assert tuple(cfg.model.data_preprocessor.size) == crop
    assert cfg.train_dataloader.batch_size == batch
    assert cfg.train_cfg.max_iters == iterations
    assert cfg.optim_wrapper.optimizer.lr == lr
    assert cfg.optim_wrapper.optimizer.weight_decay == (0.0001 if 'pcontext'
                                                        in data else 0.0005)
    assert cfg.model.test_cfg.mode == testing
    assert cfg.model.backbone.depth == int(backbone[1:])
    assert cfg.model.pretrained == f'open-mmlab://resnet{backbone[1:]}_v1c'
    assert cfg.model.decode_head.norm_cfg.type == 'SyncBN'
    assert cfg.model.auxiliary_head.type == 'FCNHead'
    # multi-scale and flip
    scales, flips, *_ = cfg.tta_pipeline[1].transforms
    assert len(scales) == 6 and len(flips) == 2


@pytest.mark.parametrize('what', ABLATIONS)
def test_an_ablation_isolates_one_thing(what):
    path = CONFIGS / f'ablations/cac_r50_pcontext59_{what}.py'
    lines = path.read_text().splitlines()
    assert lines[0].startswith('# Isolates ') and len(lines) <= 10
    ours, base = load(f'ablations/{path.stem}'), load('cac_r50_pcontext59')
    changed = {
        key
        for key in {*ours.model.decode_head, *base.model.decode_head}
        if ours.model.decode_head.get(key) != base.model.decode_head.get(key)
    }
    assert changed and changed <= {
        'kernel_size', 'dilations', 'share_kernels', 'num_heads',
        'global_pool', 'reweighting', 'channels'
    }
    ours.model.decode_head = base.model.decode_head
    assert ours._cfg_dict == base._cfg_dict


@pytest.mark.parametrize('name', STUDY)
def test_heads_of_the_study_share_everything_else(name):
    ours, base = load(f'study/{name}'), load('study/_base_/protocol')
    shared = base.model.decode_head
    for key in set(shared) - {'in_channels', 'in_index'}:
        assert ours.model.decode_head[key] == shared[key]
    ours.model.decode_head = shared
    assert ours._cfg_dict == base._cfg_dict


@pytest.mark.parametrize('name', [n for n in NAMES if 'r101' in n])
def test_a_deep_config_is_a_delta(name):
    assert len((CONFIGS / f'{name}.py').read_text().splitlines()) <= 10


def narrow(cfg):
    """The same model with a thin ResNet-18, where that changes nothing."""
    cfg = copy.deepcopy(cfg)
    model = cfg.model
    model.pretrained = None
    if 'size' in model.data_preprocessor:
        model.data_preprocessor.size = (64, 64)
    if len(model.backbone.out_indices) == 4:
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
        samples = []
        for _ in range(count):
            label = torch.randint(0, classes, (1, height, width))
            if 'class_weight' not in cfg.model.decode_head.loss_decode:
                label[:, :4] = 255  # mmseg 1.2 weighs it by class_weight[255]
            samples.append(
                SegDataSample(
                    gt_sem_seg=PixelData(data=label),
                    metainfo=dict(
                        img_shape=(height, width),
                        ori_shape=(height, width),
                        img_path='none')))
        images = torch.randint(0, 256, (count, 3, height, width))
        return dict(inputs=list(images.byte()), data_samples=samples)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    data = model.data_preprocessor(batch(2, 64, 64), training=True)
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    assert all(p.grad is not None for p in model.parameters()
               if p.requires_grad)

    model.eval()
    sample = model.test_step(batch(1, 72, 104))[0]
    assert sample.pred_sem_seg.data.shape == (1, 72, 104)
    assert sample.seg_logits.data.shape == (classes, 72, 104)
