"""check-data: finds what is broken in data sets that are otherwise sound."""
import os

import cv2
import fake_data
import numpy as np
import pytest

from cac_mmseg.__main__ import main

ROOTS = dict(
    cityscapes=('data/cityscapes/leftImg8bit', 'data/cityscapes/gtFine'),
    ade20k=('data/ade/ADEChallengeData2016/images',
            'data/ade/ADEChallengeData2016/annotations'),
    camvid=('data/camvid/val', 'data/camvid/valannot'))


@pytest.fixture
def check(tmp_path, configs, monkeypatch, capsys):
    """Check a config on data below tmp_path: exit status and output."""
    monkeypatch.chdir(tmp_path)

    def run(name, *options, code='', workers=1):
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
    code, out = check(name)
    assert code == 0 and ' samples read, 0 problems' in out, out
    picture = cv2.imread(str(tmp_path / 'report/samples.png'))
    assert picture.shape[1] == 800
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
    return f'{path.name} or '


def shrink_label(path, label):
    cv2.imwrite(str(label), np.zeros((10, 10), np.uint8))
    return f'{label.name} is of the size (10, 10), its image of (48, 64)'


def colour_label(path, label):
    cv2.imwrite(str(label), np.zeros((48, 64, 3), np.uint8))
    return f'{label.name} is of the size (48, 64, 3)'


def wrong_value(path, label):
    cv2.imwrite(str(label), np.full((48, 64), 200, np.uint8))
    return 'has the values ['


@pytest.mark.parametrize('breaks', [
    drop_label, drop_image, cut_image, shrink_label, colour_label, wrong_value
])
@pytest.mark.parametrize('name', ['camvid', 'ade20k'])
def test_a_broken_file_is_named(check, tmp_path, name, breaks):
    fake_data.make(tmp_path, name)
    words = breaks(*(pick(tmp_path, folder) for folder in ROOTS[name]))
    code, out = check(name)
    assert code == 1 and words in out and ', 1 problems' in out, out
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
    ('camvid', [*range(13)], ''),
    ('cityscapes', [*range(1, 20)], 'set reduce_zero_label=True'),
    ('pcontext59', [*range(59)], 'reduce_zero_label=True shifts'),
])
def test_labels_that_count_from_elsewhere_give_a_hint(check, tmp_path, name,
                                                      values, hint):
    rng = np.random.default_rng(0)
    fake_data.make(tmp_path, name)
    for path in tmp_path.glob('data/**/*.png'):
        label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if label.ndim == 2:
            cv2.imwrite(
                str(path), rng.choice(np.array(values, np.uint8), label.shape))
    assert hint in check(name)[1]


def test_concatenated_and_repeated_data_are_read(check, tmp_path):
    fake_data.make(tmp_path, 'voc12aug')
    code, out = check(
        'voc12aug',
        code='''
part = dict(
    type='PascalVOCDataset',
    data_root='data/VOCdevkit/VOC2012',
    data_prefix=dict(
        img_path='JPEGImages', seg_map_path='SegmentationClass'),
    ann_file='ImageSets/Segmentation/train.txt',
    pipeline={{_base_.train_pipeline}})
train_dataloader = dict(dataset=dict(
    _delete_=True, type='RepeatDataset', times=3,
    dataset=dict(type='ConcatDataset', datasets=[part, part])))
''')
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
