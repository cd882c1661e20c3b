"""check-data: finds what is broken in data sets that are otherwise sound."""
import os
import random
import re
from types import SimpleNamespace

import cv2
import fake_data
import numpy as np
import pytest
import torch.nn as nn
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS, TRANSFORMS

from cac_mmseg.__main__ import main
from cac_mmseg.commands import check_data
from cac_mmseg.commands.check_data import settings
from cac_mmseg.stack.config import (dataset_without_data, find_config,
                                    load_config)
from cac_mmseg.stack.targets import targets_of

ROOTS = dict(
    cityscapes=('data/cityscapes/leftImg8bit', 'data/cityscapes/gtFine'),
    ade20k=('data/ade/ADEChallengeData2016/images',
            'data/ade/ADEChallengeData2016/annotations'),
    camvid=('data/camvid/val', 'data/camvid/valannot'))


@pytest.fixture
def check(tmp_path, configs, monkeypatch, capsys):
    """Check a config on data below tmp_path: exit status and output."""
    monkeypatch.chdir(tmp_path)

    def run(name, *options, code='', workers=1, draws=False):
        if not draws:  # it takes half of the time
            monkeypatch.setattr(check_data, 'draw', lambda reports: None)
        config = tmp_path / 'config.py'
        config.write_text(f"_base_ = '{configs}/cac_r50_{name}.py'\n{code}")
        with pytest.raises(SystemExit) as end:
            main([
                'check-data', 'config.py', '--out', 'report', '--workers',
                str(workers), *options
            ])
        out, err = capsys.readouterr()
        return int(end.value.code), out + err

    return run


@pytest.mark.parametrize('name', sorted(fake_data.LAYOUTS))
def test_sound_data_have_no_problems(check, tmp_path, name):
    fake_data.make(tmp_path, name)
    code, out = check(name, draws=True)
    assert code == 0 and ' samples read, 0 problems' in out, out
    picture = cv2.imread(str(tmp_path / 'report/samples.png'))
    assert picture.shape[1] > 700
    assert (tmp_path / 'report/problems.txt').read_text() == ''


def test_the_histogram_is_that_of_the_files(check, tmp_path):
    fake_data.make(tmp_path, 'camvid')
    code, out = check('camvid', workers=2)
    maps = [
        cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        for path in tmp_path.glob('data/camvid/trainannot/*')
    ]
    counts = np.bincount(np.stack(maps).ravel(), minlength=12)
    rows = {
        row.split('|')[1].strip(): row.split('|')[2:4]
        for row in out.splitlines() if row.startswith('| ')
    }
    share = 100 * counts / counts.sum()
    assert rows['3 road'][0].strip() == f'{share[3]:.2f} %'
    assert rows['no class'][0].strip() == f'{share[11]:.2f} %'  # unlabelled
    assert rows['8 car'][1].strip() == str(sum((m == 8).any() for m in maps))


def pick(tmp_path, folder):
    return sorted(tmp_path.glob(f'{folder}/**/*.*'))[0]


def drop_label(path, label):
    label.unlink()
    return f'{label.name} is missing'


def drop_image(path, label):
    path.unlink()
    return f'{label.name} has no image'


def cut_image(path, label):
    path.write_bytes(b'not an image')
    return f'{path.name} cannot be read: '


def shrink_label(path, label):
    cv2.imwrite(str(label), np.zeros((10, 10), np.uint8))
    return f'{label.name} is of the size (10, 10), its image of (48, 64)'


def colour_label(path, label):
    cv2.imwrite(str(label), np.zeros((48, 64, 3), np.uint8))
    return f'{label.name} is a picture of the shape (48, 64, 3)'


def wrong_value(path, label):
    cv2.imwrite(str(label), np.full((48, 64), 200, np.uint8))
    return ', but labels are 0 to '


@pytest.mark.parametrize('breaks', [
    drop_label, drop_image, cut_image, shrink_label, colour_label, wrong_value
])
@pytest.mark.parametrize('name', ['camvid', 'ade20k'])
def test_a_broken_file_is_named(check, tmp_path, name, breaks):
    fake_data.make(tmp_path, name)
    words = breaks(*(pick(tmp_path, folder) for folder in ROOTS[name]))
    code, out = check(name)
    assert code == 1 and words in out and ', 1 problem:' in out, out
    lines = (tmp_path / 'report/problems.txt').read_text().splitlines()
    assert len(lines) == 1 and words in lines[0]


@pytest.mark.parametrize('name, code, words', [
    ('ade20k', 'model = dict(decode_head=dict(num_classes=151))',
     'decode_head.num_classes is 151, but the train data set has 150'),
    ('camvid', 'model = dict(auxiliary_head=dict(num_classes=3))',
     'auxiliary_head.num_classes is 3'),
    ('ade20k', 'train_dataloader = dict(dataset=dict(pipeline=['
     "dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', "
     "reduce_zero_label=False), dict(type='PackSegInputs')]))",
     'LoadAnnotations has reduce_zero_label=False, but the train data set '
     'True'),
    ('pcontext60', 'train_dataloader = dict(dataset=dict('
     "type='PascalContextDataset59'))", 'has 59 classes'),
])
def test_what_does_not_fit_together_is_named(check, tmp_path, name, code,
                                             words):
    fake_data.make(tmp_path, name)
    status, out = check(name, code=code)
    assert status == 1 and words in out, out


@pytest.mark.parametrize('name, values, hint', [
    ('camvid', [*range(13)], 'has the values 12, but labels are 0 to 10'),
    ('cityscapes', [*range(1, 20)], 'set reduce_zero_label=True'),
    ('pcontext59', [*range(59)], 'reduce_zero_label=True shifts'),
])
def test_labels_that_count_from_elsewhere_give_a_hint(check, tmp_path, name,
                                                      values, hint):
    rng = np.random.default_rng(0)
    fake_data.make(tmp_path, name)
    assert hint not in check(name)[1]
    write_labels(tmp_path, lambda size: rng.choice(values, size))
    assert hint in check(name)[1]


def write_labels(tmp_path, make, dtype=np.uint8):
    """Replace the label maps of a data set."""
    for path in sorted(tmp_path.glob('data/**/*.png')):
        label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if label.ndim == 2:
            cv2.imwrite(str(path), np.array(make(label.shape)).astype(dtype))


def classes(count, **head):
    """Turn a config of CamVid into one of another number of classes."""
    names = tuple('abcdefgh'[:count])
    data = dict(
        dataset=dict(
            type='BaseSegDataset',
            img_suffix='.png',
            metainfo=dict(
                classes=names, palette=[[i + 1, 2, 3] for i in range(count)])))
    head = dict(num_classes=count) | head
    return '\n'.join(f'{key} = {value!r}' for key, value in dict(
        train_dataloader=data,
        val_dataloader=data,
        test_dataloader=data,
        model=dict(decode_head=head, auxiliary_head=head)).items())


@pytest.mark.parametrize(
    'values, code, words', [
        ([0, 255], classes(2), 'class 1 never occurs. Convert 255 to 1'),
        ([1, 255], classes(2), 'class 0 never occurs. Convert 255 to 0'),
        ([0], classes(2), 'all labels are 0: no two classes'),
        ([255], classes(3), 'all labels are 255: no two classes'),
        ([0, 1], classes(1), 'num_classes=2 and out_channels=1'),
        ([0, 255], classes(1), 'num_classes=2 and out_channels=1'),
        ([0, 1], classes(2, out_channels=1),
         'one output channel and the softmax of several: set num_classes=2'),
        ([0, 1],
         classes(
             2,
             out_channels=1,
             loss_decode=dict(type='CrossEntropyLoss',
                              use_sigmoid=True)), None),
        ([0, 1], classes(2), None),
        ([0, 1, 255], classes(2), None),
        ([0, 255], classes(2, ignore_index=7) +
         "\nmodel['data_preprocessor'] = dict(seg_pad_val=7)",
         'have values that are no class (255)'),
    ],
    ids=str)
def test_labels_that_train_nothing_are_named(check, tmp_path, values, code,
                                             words):
    rng = np.random.default_rng(0)
    fake_data.make(tmp_path, 'camvid')
    write_labels(tmp_path, lambda size: rng.choice(values, size))
    status, out = check('camvid', code=code)
    assert 'reduce_zero_label=True' not in out
    if words is None:
        assert status == 0 and ' 0 problems' in out, out
    else:
        assert status == 1 and words in out, out


def test_a_mask_of_validation_is_named(check, tmp_path):
    """The metric ignores 255 as well: mIoU would be nan."""
    rng = np.random.default_rng(0)
    fake_data.make(tmp_path, 'camvid')
    write_labels(tmp_path, lambda size: rng.choice([0, 1], size))
    for path in tmp_path.glob('data/camvid/valannot/*.png'):
        cv2.imwrite(str(path), 255 * cv2.imread(str(path), 0))
    status, out = check('camvid', code=classes(2))
    assert status == 1 and 'val: all labels are 0 and 255' in out, out
    assert 'train: all' not in out


def test_values_beyond_a_byte_are_named(check, tmp_path):
    """mmseg reads them modulo 256: 256 as 0, 257 as 1."""
    rng = np.random.default_rng(0)
    fake_data.make(tmp_path, 'camvid')
    code = classes(2)
    write_labels(tmp_path, lambda size: rng.choice([0, 1], size), np.uint16)
    assert check('camvid', code=code)[0] == 0
    write_labels(tmp_path, lambda size: rng.choice([0, 256, 257], size),
                 np.uint16)
    status, out = check('camvid', code=code)
    assert status == 1 and '3 of 3 label maps hold values above 255' in out
    assert '(256, 257)' in out and 'holds the values 256, 257' in out


IGNORED = dict(
    head="model['decode_head']['ignore_index'] = 4\n"
    "model['auxiliary_head']['ignore_index'] = 4\n",
    auxiliary="model['auxiliary_head']['ignore_index'] = 255\n",
    dataset="for d in (train_dataloader, val_dataloader, test_dataloader): "
    "d['dataset']['ignore_index'] = 4\n",
    padding="model['data_preprocessor'] = dict(seg_pad_val=4)\n",
    metric="val_evaluator = dict(ignore_index=4)\n")


@pytest.mark.parametrize('settings, words', [
    ('head padding metric', None),
    ('head dataset padding metric', None),
    ('dataset', 'train: 3 of 3 label maps have values that are no class (4)'),
    ('dataset metric', 'but labels are 0 to 2, or 255 to ignore a pixel '
     '(decode_head.ignore_index)'),
    ('head padding', 'ignore a pixel (val_evaluator.ignore_index)'),
    ('head metric', 'data_preprocessor pads labels with 255'),
    ('head padding metric auxiliary', '(auxiliary_head.ignore_index)'),
])
def test_what_ignores_a_label_is_what_acts(check, tmp_path, settings, words):
    """The heads in training, the metric in validation."""
    rng = np.random.default_rng(0)
    fake_data.make(tmp_path, 'camvid')
    write_labels(tmp_path, lambda size: rng.choice([0, 1, 2, 4], size))
    status, out = check(
        'camvid',
        code=classes(3) + '\n' + ''.join(IGNORED[name]
                                         for name in settings.split()))
    if words is None:
        assert status == 0 and ' 0 problems' in out, out
    else:
        assert status == 1 and words in out, out


@pytest.mark.parametrize('paint, words', [
    (lambda index: [index + 1, 2, 3], 'are those of the palette\\.'),
    (lambda index: [[3, 2, 1], [0, 0, 0]][index % 2],
     r'are not those of the palette'),
    (lambda index: [[1, 2, 3], [0, 0, 0]][index % 2],
     r'are those of the palette but \(0, 0, 0\)\.'),
    (lambda index: [index] * 3, 'three channels are equal'),
])
def test_colour_pictures_are_one_line(check, tmp_path, paint, words):
    rng = np.random.default_rng(0)
    fake_data.make(tmp_path, 'camvid')
    colours = np.array([paint(i) for i in range(3)])
    for path in tmp_path.glob('data/camvid/*annot/*.png'):
        picture = colours[rng.integers(0, 3, (48, 64))]
        cv2.imwrite(str(path), picture[..., ::-1])  # BGR
    status, out = check('camvid', code=classes(3))
    line, = [line for line in out.splitlines() if 'train: ' in line]
    assert status == 1
    assert line.startswith('train: 3 of 3 label maps are colour pictures')
    assert re.search(words, line), line
    report = (tmp_path / 'report/problems.txt').read_text()
    assert report.count('is a picture of the shape (48, 64, 3)') == 6


def test_a_part_of_a_data_set_is_checked(check, tmp_path):
    """Label maps beyond it are not without an image."""
    fake_data.make(tmp_path, 'camvid')
    status, out = check(
        'camvid', code='train_dataloader = dict(dataset=dict(indices=1))')
    assert status == 0 and '4 samples read' in out, out


class ReadBands(BaseTransform):
    """A user's loader, of no name that begins with Load: six bands."""

    def transform(self, results):
        image = cv2.imread(results['img_path']).astype(np.float32)
        results['img'] = np.concatenate([image, image / 7 - 3], 2)
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results


class MergeLabels(BaseTransform):
    """A user's transform: everything but 3 is 0."""

    def transform(self, results):
        labels = results['gt_seg_map']
        results['gt_seg_map'] = np.where(labels == 3, labels, 0)
        return results


class DrawLots(BaseTransform):
    """A user's augmentation, which no marker says to be random."""

    def transform(self, results):
        if random.random() < 2:
            results['gt_seg_map'] = np.full_like(results['gt_seg_map'], 9)
        return results


def pipeline(*names):
    for cls in (ReadBands, MergeLabels, DrawLots):
        TRANSFORMS.register_module(module=cls, force=True)
    steps = [dict(type=name) for name in (*names, 'PackSegInputs')]
    return '\n'.join(f'{split}_dataloader = dict(dataset=dict(pipeline='
                     f'{steps!r}))' for split in ('train', 'val'))


def test_the_labels_are_those_that_training_sees(check, tmp_path):
    fake_data.make(tmp_path, 'camvid')
    before = check('camvid', draws=True)[1]
    status, out = check(
        'camvid',
        code=pipeline('ReadBands', 'LoadAnnotations', 'MergeLabels',
                      'DrawLots'),
        draws=True)

    def shares(text):
        return {
            row.split('|')[1].strip(): float(row.split('|')[2].strip(' %'))
            for row in text.splitlines() if row.startswith('| ') and '%' in row
        }

    assert status == 0, out
    merged, whole = shares(out), shares(before)
    assert merged['3 road'] == whole['3 road'] > 0
    assert merged['0 sky'] == pytest.approx(100 - whole['3 road'], abs=0.02)
    assert merged['9 pedestrian'] == 0
    assert (tmp_path / 'report/samples.png').exists()


def test_findings_come_before_the_picture(check, tmp_path, monkeypatch):
    fake_data.make(tmp_path, 'camvid')
    drop_label(*(pick(tmp_path, folder) for folder in ROOTS['camvid']))

    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(check_data, 'draw_rows', fail)
    with pytest.raises(MemoryError):
        check('camvid', draws=True)
    assert 'is missing' in (tmp_path / 'report/problems.txt').read_text()


def test_metrics_are_asked_and_not_built():
    """CityscapesMetric empties its folder of results when it is gone."""

    @METRICS.register_module(force=True)
    class OutputMetric(IoUMetric):

        def __init__(self, ignore_index=7, **kwargs):
            raise AssertionError

    for cfg, ignored in ((dict(type='OutputMetric'),
                          [7]), (dict(type='OutputMetric', ignore_index=4),
                                 [4]), (dict(type='DepthMetric'), []),
                         ([dict(type='IoUMetric')], [255])):
        dataset = SimpleNamespace(metainfo=dict(classes='ab'))
        targets = settings.metric_targets(
            Config(dict(val_evaluator=cfg)), 'val', dataset)
        assert [target.ignored for target in targets] == ignored
        assert all(target.classes == 2 for target in targets)


@pytest.mark.parametrize('name', ['ade20k', 'voc12', 'pcontext60'])
def test_labels_of_validation_are_read_behind_a_resize(check, tmp_path, name):
    fake_data.make(tmp_path, name)
    write_labels(tmp_path, lambda size: np.full(size, 200))
    status, out = check(name)
    assert status == 1 and 'val: 3 of 3 label maps have values that' in out
    assert re.search(r'val: hint|\| no class .* 100.00 % .* 100.00 %',
                     out), out


def test_a_palette_may_be_an_array(check, tmp_path):
    fake_data.make(tmp_path, 'camvid')
    dataset = SimpleNamespace(
        metainfo=dict(classes='ab', palette=np.zeros((2, 3))),
        pipeline=SimpleNamespace(transforms=[]))
    config = Config(dict(model=dict()))
    assert not [
        *settings.contradictions(config, 'val', [dataset] * 2, nn.Module())
    ]
    other = SimpleNamespace(**vars(dataset))
    other.metainfo = dict(classes='ab', palette=np.ones((2, 3)))
    assert 'palette' in [
        *settings.contradictions(config, 'val', [dataset, other], nn.Module())
    ][0]


@pytest.mark.parametrize('name', [
    'knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512',
    'stdc1_4xb12-80k_cityscapes-512x1024', 'pointrend_r50_4xb4-160k_ade20k-'
    '512x512', 'ocrnet_hr18_4xb4-80k_ade20k-512x512'
])
def test_heads_of_mmseg_take_the_labels_of_their_data(name):
    """Of K-Net the settings are nested; edges of STDC are no classes."""
    config = load_config(find_config(name)[0])
    dataset = dataset_without_data(config)
    model = settings.build_heads(config)
    assert targets_of(model)
    assert not [*settings.contradictions(config, 'val', [dataset], model)]


JOINED = '''
part = dict(
    type='PascalVOCDataset',
    data_root='data/VOCdevkit/VOC2012',
    data_prefix=dict(
        img_path='JPEGImages', seg_map_path='SegmentationClass'),
    ann_file='ImageSets/Segmentation/train.txt',
    pipeline={{_base_.train_pipeline}})
other = dict(part, %s)
train_dataloader = dict(dataset=dict(
    _delete_=True, type='RepeatDataset', times=3,
    dataset=dict(type='ConcatDataset', datasets=[part, other])))
'''


@pytest.mark.parametrize('change, status, words', [
    ("data_root='data/other'", 2, "data_root='data/other'"),
    ("metainfo=dict(classes=('aeroplane', 'sheep'))", 1,
     'classes of the train data set 1 differs from that of the first'),
    ("metainfo=dict(classes=('aeroplane', 'sheep'))", 1,
     'decode_head.num_classes is 21, but the train data set 1 has 2'),
    ("pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations',"
     " reduce_zero_label=True)]", 1, 'but the train data set 1 False'),
])
def test_every_data_set_that_is_joined_is_checked(check, tmp_path, change,
                                                  status, words):
    fake_data.make(tmp_path, 'voc12aug')
    code, out = check('voc12aug', code=JOINED % change)
    assert code == status and words in out, out


def test_no_class_is_counted_in_pixels_and_images(check, tmp_path):
    """Whatever its value."""
    fake_data.make(tmp_path, 'camvid')
    write_labels(tmp_path, lambda size: np.full(size, 200))
    row, = [
        row for row in check('camvid')[1].splitlines()
        if row.startswith('| no class')
    ]
    assert [cell.strip() for cell in row.split('|')[2:4]] == ['100.00 %', '3']


def test_a_config_may_have_no_validation(check, tmp_path):
    fake_data.make(tmp_path, 'camvid')
    code, out = check(
        'camvid',
        code='val_dataloader = val_cfg = val_evaluator = None\n'
        'test_dataloader = test_cfg = test_evaluator = None')
    assert code == 0 and '3 samples read, 0 problems' in out


def test_concatenated_and_repeated_data_are_read(check, tmp_path):
    fake_data.make(tmp_path, 'voc12aug')
    code, out = check('voc12aug', code=JOINED % '')
    assert code == 0 and '9 samples read' in out, out  # 2 * 3, and 3 of val


def test_data_that_are_not_there_are_named(check, tmp_path):
    code, out = check('cityscapes')
    assert code == 2 and 'train data cannot be listed' in out
    assert "data_root='data/cityscapes/'" in out and '--cfg-options' in out
    for folder in ('train', 'trainannot', 'val', 'valannot'):
        (tmp_path / 'data/camvid' / folder).mkdir(parents=True)
    code, out = check('camvid')
    assert code == 1 and 'the train data set is empty' in out
    assert not (tmp_path / 'report/samples.png').exists()


def test_a_data_set_that_is_none_is_named(check, tmp_path):
    fake_data.make(tmp_path, 'camvid')
    code, out = check(
        'camvid',
        code="train_dataloader = dict(dataset=dict(type='NoDataset'))")
    assert code == 2 and 'train data set cannot be built: KeyError' in out


def test_an_option_points_elsewhere(check, tmp_path):
    fake_data.make(tmp_path, 'camvid')
    os.rename('data/camvid', 'elsewhere')
    code, out = check('camvid', '--cfg-options',
                      'train_dataloader.dataset.data_root='
                      'elsewhere',
                      'val_dataloader.dataset.data_root=elsewhere',
                      'test_dataloader.dataset.data_root=elsewhere')
    assert code == 0 and '6 samples read' in out


def test_a_config_without_data_is_named(check, tmp_path, capsys):
    (tmp_path / 'none.py').write_text("model = dict(type='EncoderDecoder')")
    with pytest.raises(SystemExit):
        main(['check-data', 'none.py'])
    assert 'none.py has no data set' in capsys.readouterr().err
