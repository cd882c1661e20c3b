"""check-data: finds what is broken in data sets that are otherwise sound."""
import random
import re
from types import SimpleNamespace

import cv2
import fake_data
import numpy as np
import pytest
import torch.nn as nn
from conftest import table
from mmengine.config import Config
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from test_reader import of_a_user

from cac_mmseg.commands import check_data
from cac_mmseg.commands.check_data import settings
from cac_mmseg.stack.config import (dataset_without_data, find_config,
                                    load_config)
from cac_mmseg.stack.targets import targets_of


@pytest.fixture
def check(tmp_path, configs, monkeypatch, cli):
    """Check a config on data below tmp_path: exit status and output."""
    monkeypatch.chdir(tmp_path)

    def run(name, *options, code='', draws=False):
        if not draws:  # it takes half of the time
            monkeypatch.setattr(check_data, 'draw', lambda reports: None)
        config = tmp_path / 'config.py'
        config.write_text(f"_base_ = '{configs}/cac_r50_{name}.py'\n{code}")
        line = 'check-data config.py --out report --workers 1'
        return cli(line, *options)

    return run


@pytest.fixture
def camvid(tmp_path):
    fake_data.make(tmp_path, 'camvid')
    return tmp_path / 'data/camvid'


def write_labels(folder, values, dtype=np.uint8):
    """Replace the label maps of a data set."""
    rng = np.random.default_rng(0)
    for path in sorted(folder.glob('**/*.png')):
        label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if label.ndim == 2:
            changed = rng.choice(values, label.shape).astype(dtype)
            cv2.imwrite(str(path), changed)


def rows(out):
    """Cells of the table, by class."""
    lines = [line for line in out.splitlines() if line.startswith('| ')]
    cells = [[cell.strip() for cell in line.split('|')[1:]] for line in lines]
    return {name: more for name, *more in cells}


@pytest.mark.parametrize('name', sorted(fake_data.LAYOUTS))
def test_sound_data_have_no_problems(check, tmp_path, name):
    fake_data.make(tmp_path, name)
    code, out = check(name, draws=True)
    assert code == 0 and ' samples read, 0 problems' in out, out
    assert cv2.imread(str(tmp_path / 'report/samples.png')).shape[1] > 700
    assert (tmp_path / 'report/problems.txt').read_text() == ''


def test_the_histogram_is_that_of_the_files(check, camvid):
    _, out = check('camvid', '--workers', '2')
    paths = camvid.glob('trainannot/*')
    maps = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths]
    counts = np.bincount(np.stack(maps).ravel(), minlength=12)
    share = 100 * counts / counts.sum()
    found = rows(out)
    assert found['3 road'][0] == f'{share[3]:.2f} %'
    assert found['no class'][0] == f'{share[11]:.2f} %'  # unlabelled
    assert found['8 car'][1] == str(sum((m == 8).any() for m in maps))
    write_labels(camvid, [200])  # no class, whatever its value
    assert rows(check('camvid')[1])['no class'][:2] == ['100.00 %', '3']


def paint(*size, value=0):
    return lambda path, label: cv2.imwrite(str(label), np.full(size, value))


# how an image and its label map are broken, and what is said
BREAKS = [
    (lambda path, label: label.unlink(), '{label} is missing'),
    (lambda path, label: path.unlink(), '{label} has no image'),
    (lambda path, label: path.write_bytes(b'no'), '{path} cannot be read: '),
    (paint(9, 9), '{label} is of the size (9, 9), its image of (48, 64)'),
    (paint(48, 64, 3), '{label} is a picture of the shape (48, 64, 3)'),
    (paint(48, 64, value=200), '{label} has the values '),
]


@pytest.mark.parametrize('name, images, labels', [
    ('camvid', '{}/*', '{}annot/*'),
    ('ade20k', '*/images/{}*/*', '*/annotations/{}*/*'),
])
def test_each_broken_file_is_named(check, tmp_path, name, images, labels):
    fake_data.make(tmp_path, name)
    root = tmp_path / 'data' / dict(ade20k='ade').get(name, name)
    pairs = [
        pair for split in ('train', 'val')
        for pair in zip(*(sorted(root.glob(pattern.format(split)))
                          for pattern in (images, labels)))
    ]
    expected = []
    for (path, label), (breaks, words) in zip(pairs, BREAKS, strict=True):
        breaks(path, label)
        expected.append(words.format(path=path.name, label=label.name))
    code, out = check(name)
    assert code == 1 and ', 6 problems:' in out, out
    lines = (tmp_path / 'report/problems.txt').read_text().splitlines()
    assert len(lines) == 6
    for words in expected:
        assert sum(words in line for line in lines) == 1, words


LOAD = "dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', "
TRAIN = 'train_dataloader = dict(dataset=dict('
NO_TESTS = '''
val_dataloader = val_cfg = val_evaluator = None
test_dataloader = test_cfg = test_evaluator = None
'''
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
FEW = JOINED % "metainfo=dict(classes=('aeroplane', 'sheep'))"


@pytest.mark.parametrize(
    'name, code, status, words',
    [
        ('camvid', NO_TESTS, 0, '3 samples read, 0 problems'),
        # label maps beyond a part are not without an image
        ('camvid', f'{TRAIN}indices=1))', 0, '4 samples read'),
        ('voc12aug', JOINED % '', 0,
         '9 samples read'),  # 2 * 3, 3 of validation
        ('camvid', f"{TRAIN}type='NoDataset'))", 2,
         'train data set cannot be built: KeyError'),
        ('voc12aug', JOINED % "data_root='data/other'", 2,
         "data_root='data/other'"),
        ('voc12aug', FEW, 1,
         'classes of the train data set 1 differs from that of the first'),
        ('voc12aug', FEW, 1,
         'decode_head.num_classes is 21, but the train data set 1 has 2'),
        ('voc12aug', JOINED % f'pipeline=[{LOAD}reduce_zero_label=True)]', 1,
         'but the train data set 1 False'),
        ('ade20k', 'model = dict(decode_head=dict(num_classes=151))', 1,
         'decode_head.num_classes is 151, but the train data set has 150'),
        ('ade20k', f'{TRAIN}pipeline=[{LOAD}reduce_zero_label=False), '
         "dict(type='PackSegInputs')]))", 1,
         'has reduce_zero_label=False, but the train data set True'),
        ('camvid', 'model = dict(auxiliary_head=dict(num_classes=3))', 1,
         'auxiliary_head.num_classes is 3'),
        ('pcontext60', f"{TRAIN}type='PascalContextDataset59'))", 1,
         'has 59 classes'),
    ])
def test_settings_are_read_and_have_to_agree(check, tmp_path, name, code,
                                             status, words):
    """Of each data set that is joined to others, too."""
    fake_data.make(tmp_path, name)
    found, out = check(name, code=code)
    assert found == status and words in out, out


@pytest.mark.parametrize('name, values, hint', [
    ('camvid', [*range(13)], 'has the values 12, but labels are 0 to 10'),
    ('cityscapes', [*range(1, 20)], 'set reduce_zero_label=True'),
    ('pcontext59', [*range(59)], 'reduce_zero_label=True shifts'),
])
def test_labels_that_count_from_elsewhere_give_a_hint(check, tmp_path, name,
                                                      values, hint):
    fake_data.make(tmp_path, name)
    assert hint not in check(name)[1]
    write_labels(tmp_path, values)
    assert hint in check(name)[1]


def classes(count, *changes):
    """Turn a config of CamVid into one of another number of classes."""
    palette = [[i + 1, 2, 3] for i in range(count)]
    data = dict(
        type='BaseSegDataset',
        img_suffix='.png',
        metainfo=dict(classes=tuple('abcdefgh'[:count]), palette=palette))
    lines = [
        f'data, num_classes = dict(dataset={data!r}), {count}',
        'train_dataloader, val_dataloader, test_dataloader = data, data, data',
        'main, aux = dict(num_classes=num_classes), dict(num_classes=2)',
        'aux.update(main)', *(CHANGES[name] for name in changes),
        'model = dict(decode_head=main, auxiliary_head=aux, **more)'
    ]
    return '\n'.join(['more = dict()', *lines, 'del main, aux, data, more'])


CHANGES = dict(
    head='main.update(ignore_index=4), aux.update(ignore_index=4)',
    seven='main.update(ignore_index=7), aux.update(ignore_index=7)',
    auxiliary='aux.update(ignore_index=255)',
    dataset="data['dataset'].update(ignore_index=4)",
    padding='more.update(data_preprocessor=dict(seg_pad_val=4))',
    padding7='more.update(data_preprocessor=dict(seg_pad_val=7))',
    metric='val_evaluator = dict(ignore_index=4)',
    single='main.update(out_channels=1), aux.update(out_channels=1)',
    sigmoid="main.update(loss_decode=dict(type='CrossEntropyLoss', "
    'use_sigmoid=True)); aux.update(main)')


# labels; number of classes, what a config changes; what is said
@pytest.mark.parametrize(
    'labels, settings, words',
    table("""
    0 255   | 2           | class 1 never occurs. Convert 255 to 1
    1 255   | 2           | class 0 never occurs. Convert 255 to 0
    0       | 2           | all labels are 0: no two classes
    255     | 3           | all labels are 255: no two classes
    0 1     | 1           | num_classes=2 and out_channels=1
    0 255   | 1           | num_classes=2 and out_channels=1
    0 1     | 2 single    | one output channel and the softmax of several: set\
 num_classes=2
    0 1     | 2 single sigmoid |
    0 1     | 2           |
    0 1 255 | 2           |
    0 255   | 2 seven padding7 | have values that are no class (255)
    0 1 2 4 | 3 head padding metric         |
    0 1 2 4 | 3 head dataset padding metric |
    0 1 2 4 | 3 dataset        | train: 3 of 3 label maps have values that are\
 no class (4)
    0 1 2 4 | 3 dataset metric | but labels are 0 to 2, or 255 to ignore a\
 pixel (decode_head.ignore_index)
    0 1 2 4 | 3 head padding   | ignore a pixel (val_evaluator.ignore_index)
    0 1 2 4 | 3 head metric    | data_preprocessor pads labels with 255
    0 1 2 4 | 3 head padding metric auxiliary | (auxiliary_head.ignore_index)
"""))
def test_labels_are_read_as_training_does(check, camvid, labels, settings,
                                          words):
    """What trains nothing, and what ignores a label: heads and metric."""
    count, *changes = settings.split()
    write_labels(camvid, [*map(int, labels.split())])
    status, out = check('camvid', code=classes(int(count), *changes))
    assert 'reduce_zero_label=True' not in out
    assert status == bool(words) and (words or ' 0 problems') in out, out


def test_a_mask_of_validation_is_named(check, camvid):
    """The metric ignores 255 as well: mIoU would be nan."""
    write_labels(camvid, [0, 1])
    for path in camvid.glob('valannot/*.png'):
        cv2.imwrite(str(path), 255 * cv2.imread(str(path), 0))
    status, out = check('camvid', code=classes(2))
    assert status == 1 and 'val: all labels are 0 and 255' in out, out
    assert 'train: all' not in out


def test_values_beyond_a_byte_are_named(check, camvid):
    """mmseg reads them modulo 256: 256 as 0, 257 as 1."""
    write_labels(camvid, [0, 1], np.uint16)
    assert check('camvid', code=classes(2))[0] == 0
    write_labels(camvid, [0, 256, 257], np.uint16)
    status, out = check('camvid', code=classes(2))
    assert status == 1 and '3 of 3 label maps hold values above 255' in out
    assert '(256, 257)' in out and 'holds the values 256, 257' in out


@pytest.mark.parametrize('colours, words', [
    ([[1, 2, 3], [2, 2, 3], [3, 2, 3]], r'are those of the palette\.'),
    ([[3, 2, 1], [0, 0, 0]], r'are not those of the palette'),
    ([[1, 2, 3], [0, 0, 0]], r'are those of the palette but \(0, 0, 0\)\.'),
    ([[0, 0, 0], [1, 1, 1], [2, 2, 2]], 'three channels are equal'),
])
def test_colour_pictures_are_one_line(check, camvid, colours, words):
    rng = np.random.default_rng(0)
    for path in camvid.glob('*annot/*.png'):
        picture = rng.choice(np.array(colours), (48, 64))
        cv2.imwrite(str(path), picture[..., ::-1])  # BGR
    status, out = check('camvid', code=classes(3))
    line, = (line for line in out.splitlines() if 'train: ' in line)
    assert status == 1
    assert line.startswith('train: 3 of 3 label maps are colour pictures')
    assert re.search(words, line), line
    report = (camvid / '../../report/problems.txt').read_text()
    assert report.count('is a picture of the shape (48, 64, 3)') == 6


@of_a_user
def MergeLabels(results):
    """Everything but 3 is 0."""
    labels = results['gt_seg_map']
    return {**results, 'gt_seg_map': np.where(labels == 3, labels, 0)}


@of_a_user
def DrawLots(results):
    """An augmentation, which no marker says to be random."""
    value = random.choice([9, 9])
    labels = np.full_like(results['gt_seg_map'], value)
    return {**results, 'gt_seg_map': labels}


def test_the_labels_are_those_that_training_sees(check, camvid):
    names = 'Both MergeLabels DrawLots PackSegInputs'
    steps = [dict(type=name) for name in names.split()]
    code = '\n'.join(
        f'{split}_dataloader = dict(dataset=dict(pipeline={steps!r}))'
        for split in ('train', 'val'))
    status, out = check('camvid', code=code, draws=True)
    assert status == 0, out
    merged, whole = ({
        name: float(cells[0].strip(' %'))
        for name, cells in rows(text).items() if '%' in cells[0]
    } for text in (out, check('camvid')[1]))
    assert merged['3 road'] == whole['3 road'] > 0
    assert merged['0 sky'] == pytest.approx(100 - whole['3 road'], abs=0.02)
    assert merged['9 pedestrian'] == 0
    assert (camvid / '../../report/samples.png').exists()


def test_findings_come_before_the_picture(check, camvid, monkeypatch):
    min(camvid.glob('valannot/*')).unlink()
    assert ', 1 problem: ' in check('camvid')[1]
    (camvid / '../../report/problems.txt').unlink()

    def fail(*_, **__):
        raise MemoryError

    monkeypatch.undo()
    monkeypatch.chdir(camvid.parents[1])
    monkeypatch.setattr(check_data, 'draw_rows', fail)
    with pytest.raises(MemoryError):
        check('camvid', draws=True)
    assert 'is missing' in (camvid / '../../report/problems.txt').read_text()


@METRICS.register_module(force=True)
class OutputMetric(IoUMetric):
    """As CityscapesMetric, which empties its folder when it is gone."""

    def __init__(self, ignore_index=7, **kwargs):
        raise AssertionError


@pytest.mark.parametrize('cfg, ignored', [
    (dict(type='OutputMetric'), [7]),
    (dict(type='OutputMetric', ignore_index=4), [4]),
    (dict(type='DepthMetric'), []),
    ([dict(type='IoUMetric')], [255]),
])
def test_metrics_are_asked_and_not_built(cfg, ignored):
    dataset = SimpleNamespace(metainfo=dict(classes='ab'))
    targets = settings.metric_targets(
        Config(dict(val_evaluator=cfg)), 'val', dataset)
    assert [target.ignored for target in targets] == ignored
    assert all(target.classes == 2 for target in targets)


@pytest.mark.parametrize('name', ['ade20k', 'voc12', 'pcontext60'])
def test_labels_of_validation_are_read_behind_a_resize(check, tmp_path, name):
    fake_data.make(tmp_path, name)
    write_labels(tmp_path, [200])
    status, out = check(name)
    assert status == 1 and 'val: 3 of 3 label maps have values that' in out
    assert re.search(r'val: hint|\| no class .* 100.00 % .* 100.00 %', out)


def test_a_palette_may_be_an_array():
    first, other = (
        SimpleNamespace(
            metainfo=dict(classes='ab', palette=palette),
            pipeline=SimpleNamespace(transforms=[]))
        for palette in (np.zeros((2, 3)), np.ones((2, 3))))

    def found(*datasets):
        config = Config(dict(model=dict()))
        return [*settings.contradictions(config, 'val', datasets, nn.Module())]

    assert not found(first, first)
    assert 'palette' in found(first, other)[0]


@pytest.mark.parametrize('name', [
    'knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512',
    'stdc1_4xb12-80k_cityscapes-512x1024',
    'pointrend_r50_4xb4-160k_ade20k-512x512',
    'ocrnet_hr18_4xb4-80k_ade20k-512x512',
])
def test_heads_of_mmseg_take_the_labels_of_their_data(name):
    """Of K-Net the settings are nested; edges of STDC are no classes."""
    config = load_config(find_config(name)[0])
    dataset = dataset_without_data(config)
    model = settings.build_heads(config)
    assert targets_of(model)
    assert not [*settings.contradictions(config, 'val', [dataset], model)]


def test_an_option_points_elsewhere(check, camvid):
    camvid.rename('elsewhere')
    options = [f'{split}_dataloader.dataset.data_root=elsewhere'
               for split in ('train', 'val', 'test')]  # yapf: disable
    code, out = check('camvid', '--cfg-options', *options)
    assert code == 0 and '6 samples read' in out


def test_data_that_are_not_there_are_named(check, tmp_path, cli):
    code, out = check('cityscapes')
    assert code == 2 and 'train data cannot be listed' in out
    assert "data_root='data/cityscapes/'" in out and '--cfg-options' in out
    for folder in ('train', 'trainannot', 'val', 'valannot'):
        (tmp_path / 'data/camvid' / folder).mkdir(parents=True)
    code, out = check('camvid')
    assert code == 1 and 'the train data set is empty: no *.png in' in out
    assert not (tmp_path / 'report/samples.png').exists()
    (tmp_path / 'none.py').write_text("model = dict(type='EncoderDecoder')")
    code, out = cli('check-data none.py')
    assert code == 2 and 'none.py has no data set' in out
