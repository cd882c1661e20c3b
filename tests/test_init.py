"""init: what belongs together, the numbers, and a config that trains."""
import re
from collections import Counter
from types import SimpleNamespace

import cv2
import fake_data
import numpy as np
import pytest
from mmengine.config import Config
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS, RUNNERS
from PIL import Image

from cac_mmseg.commands import init
from cac_mmseg.commands.init import base as bases
from cac_mmseg.commands.init import plan
from cac_mmseg.commands.init.pairs import find_pairs, split
from cac_mmseg.commands.init.survey import Look, duplicates, survey
from cac_mmseg.errors import UserError
from cac_mmseg.stack.weights import Source


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Six images with label maps of three classes."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for i in range(6):
        fake_data.write(tmp_path, f'photos/{i}.jpg', f'labels/{i}.png',
                        range(3), rng)
    return tmp_path


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    'images, labels, names, suffixes',
    [
        (['a.jpg', 'b.jpg'], ['a.png', 'b.png'], ['a', 'b'], ('.jpg', '.png')),
        (['a.JPG'], ['a_mask.png'], ['a'], ('.JPG', '_mask.png')),
        # 1_2 is an image, not image 1 with the ending _2
        (['1.jpg', '1_2.jpg'], ['1.png', '1_2.png'], ['1', '1_2'],
         ('.jpg', '.png')),
        (['train/a.tif', 'val/a.tif'], ['train/a.png', 'val/a.png'],
         ['train/a', 'val/a'], ('.tif', '.png')),
    ])
def test_pairs(tmp_path, images, labels, names, suffixes):
    touch(tmp_path / 'i', *images)
    touch(tmp_path / 'l', *labels)
    pairs = find_pairs(str(tmp_path / 'i'), str(tmp_path / 'l'))
    assert pairs.names == names and pairs.suffixes == suffixes
    assert not pairs.notes


def test_what_is_alone_is_named(tmp_path):
    touch(tmp_path, 'a.jpg', 'b.jpg', 'l/a.png', 'l/c.png')
    pairs = find_pairs(str(tmp_path), str(tmp_path / 'l'))
    assert pairs.names == ['a']  # labels below the images are no images
    assert 'image without a label map, left out: b' in pairs.notes[0]
    assert 'label map without an image, left out: c' in pairs.notes[1]


@pytest.mark.parametrize('images, labels, words', [
    (['a.jpg'], ['b.png'], 'no label map in .* is named after'),
    (['a.jpg', 'b.JPG'], ['a.png'], '1 .jpg, 1 .JPG'),
    ([], ['a.png'], 'holds no picture'),
])
def test_pairs_that_cannot_be(tmp_path, images, labels, words):
    touch(tmp_path / 'i', 'readme.txt', *images)
    touch(tmp_path / 'l', *labels)
    with pytest.raises(UserError, match=words):
        find_pairs(str(tmp_path / 'i'), str(tmp_path / 'l'))
    with pytest.raises(UserError, match='are both'):
        find_pairs(str(tmp_path / 'i'), str(tmp_path / 'i'))


def of(*names):
    return SimpleNamespace(
        images='photos', names=[*names], suffixes=('.jpg', '.png'))


def test_a_split_by_hash_stays_when_images_come():
    names = [f'{i:03d}' for i in range(100)]
    parts, _ = split(of(*names))
    assert 10 <= len(parts['val']) <= 30
    assert sorted(parts['val'] + parts['train']) == names
    more, _ = split(of(*names, *'abcdefgh'))
    for part in parts:
        assert {*parts[part]} == {*more[part]} & {*names}
    assert split(of('a', 'b'))[0].keys() == {'train', 'val'}
    with pytest.raises(UserError, match='one pair'):
        split(of('a'))


def test_a_split_by_folders_and_lists(tmp_path):
    parts, how = split(of('x/train/a', 'x/Valid/b', 'x/test/c'))
    assert parts == dict(train=['x/train/a'], val=['x/Valid/b'])
    assert '1 elsewhere' in how
    lists = [tmp_path / 'train.txt', tmp_path / 'val.txt']
    lists[0].write_text('a.jpg\nb\n\n')
    lists[1].write_text('c\n')
    parts, _ = split(of('a', 'b', 'c'), lists)
    assert parts == dict(train=['a', 'b'], val=['c'])
    lists[1].write_text('b\n')
    with pytest.raises(UserError, match='1 name in both'):
        split(of('a', 'b', 'c'), lists)
    lists[1].write_text('d\n')
    with pytest.raises(UserError, match="such as 'd'"):
        split(of('a', 'b', 'c'), lists)


def shaped(*shapes):
    return SimpleNamespace(samples={
        i: SimpleNamespace(size=shape)
        for i, shape in enumerate(shapes)
    })


@pytest.mark.parametrize(
    'shapes, scale, crop',
    [
        ([(360, 480)] * 2, (360, 480), (256, 256)),
        ([(48, 64)] * 2, (48, 64), (32, 64)),
        ([(20, 20)], (20, 20), (32, 32)),
        ([(500, 600)], (500, 600), (256, 256)),  # not for a few pixels
        ([(3000, 4000)], (384, 512), (256, 256)),
        ([(300, 400), (400, 300)], None, (256, 256)),
        ([(3000, 4000), (4000, 3000), (600, 900)], (512, 512), (256, 256)),
    ])
def test_sizes(shapes, scale, crop):
    found = plan.sizes(shaped(*shapes), plan.CPU)
    assert (found.scale, found.crop) == (scale, crop)
    assert str(max(shapes[0])) in found.why


def test_schedule():
    found = plan.schedule(72, plan.CPU, step=1., validation=4.)
    assert found == (900, 90, 20)
    slow = plan.schedule(72, plan.CPU, step=1., validation=100.)
    assert slow.validation == 900
    for images in (1, 333, 10**6):
        found = plan.schedule(images, plan.GPU, .1, 30.)
        assert plan.LEAST <= found.iterations <= plan.GPU.most
        assert found.iterations % found.validation == 0


def test_weights_are_proposed_for_rare_classes():
    assert plan.class_weights(Counter({0: 90, 1: 10}), 2) is None
    weights = plan.class_weights(Counter({0: 900, 1: 95, 2: 5}), 4)
    assert weights == [.32, 1., 4.36, 1.]


def test_near_duplicates(data):
    image = cv2.imread('photos/0.jpg')
    image = cv2.GaussianBlur(image, (0, 0), 4)
    for name, picture in (('a', image), ('b', image + 9)):
        cv2.imwrite(f'photos/{name}.jpg', picture)
        cv2.imwrite(f'labels/{name}.png', np.zeros(picture.shape[:2]))
    flat = np.full((48, 64, 3), 99, np.uint8)
    for name in 'cd':
        cv2.imwrite(f'photos/{name}.jpg', flat)
        cv2.imwrite(f'labels/{name}.png', flat[..., 0] * 0)
    pairs = find_pairs('photos', 'labels')
    found = survey(pairs, pairs.names, 1)
    alike = duplicates(found, ['0', '1', 'a', 'c'], ['2', 'b', 'd'])
    assert alike == [('b', 'a')]


def test_all_bits_of_an_image_are_read(data):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 4096, (48, 64)).astype(np.uint16)
    (data / 'deep').mkdir()
    for i in range(6):
        Image.fromarray(values + i).save(f'deep/{i}.tif')
    pairs = find_pairs('deep', 'labels')
    found = survey(pairs, pairs.names, 1)
    mean, std = found.normalisation()
    assert abs(mean - values.mean() - 2.5) < 0.1
    assert abs(std - values.std()) < 1
    sample = Look(found.loading).reader.read('deep/5.tif')
    assert (sample.image == (values + 5)[..., None]).all()
    # PIL reads 8 bits of these
    cv2.imwrite('deep/0.tif', np.repeat(values[..., None], 3, 2))
    assert survey(pairs, pairs.names, 1).loading == found.loading
    cv2.imwrite('deep/0.tif', np.zeros((48, 64, 3), np.uint8))
    with pytest.raises(UserError, match='5 images have more than 8 bits'):
        survey(pairs, pairs.names, 1)


def test_images_that_are_turned_are_named(data, cli):
    for path in ('photos/0.jpg', 'photos/1.jpg'):
        image = Image.open(path)
        exif = image.getexif()
        exif[0x0112] = 6  # a quarter turn
        image.save(path, exif=exif)
    code, out = cli('init mine --images photos --labels labels --workers 1 '
                    '--like cac_r18_crossing')
    assert code == 2 and '2 of the images have an EXIF orientation' in out
    assert 'prepare labels' not in out


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr(bases, 'find_weights',
                        lambda name: Source(name, 'does not answer'))


def test_a_config_that_trains(data, cli, no_network):
    (data / 'labels/classes.txt').write_text('a 1 2 3\nthe b 4 5 6\nc 7 8 9\n')
    code, out = cli('init mine --images photos --labels labels --workers 1')
    assert code == 0, out
    assert 'starts from scratch' in out and '0 problems' in out
    assert '400 iterations of' in out and 'train mmsegmentation mine.py' in out
    config = Config.fromfile('mine.py')
    assert config.val_dataloader.dataset.metainfo == dict(
        classes=('a', 'the b', 'c'), palette=[[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    assert config.param_scheduler[0].end == config.max_iters == 400
    assert config.model.decode_head.num_classes == 3
    names = {
        part: (data / f'mine_{part}.txt').read_text().split()
        for part in ('train', 'val')
    }
    assert sorted(sum(names.values(), [])) == [*'012345']
    config.update(work_dir='work')
    config.train_cfg.update(max_iters=1, val_interval=1)
    config.default_hooks.checkpoint.interval = 1
    for part in ('train', 'val', 'test'):
        config[f'{part}_dataloader'].update(
            num_workers=0, persistent_workers=False)
    RUNNERS.build(config).train()
    assert (data / 'work/val_report.png').is_file()
    assert [*(data / 'work').glob('best_mIoU_iter_1.pth')]
    code, out = cli('init mine --images photos --labels labels')
    assert code == 2 and 'mine.py exists' in out


@pytest.mark.parametrize('like', [
    'pspnet_r18-d8_4xb2-80k_cityscapes-512x1024', 'upernet_r18_4xb4-80k_ade20k'
    '-512x512', 'ocrnet_hr18s_4xb2-40k_cityscapes-512x1024',
    'vit_deit-s16_upernet_8xb2-80k_ade20k-512x512',
    'segformer_mit-b0_8xb2-160k_ade20k-512x512', 'cac_mit-b2_ade20k',
    'ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024'
])
def test_like_any_config(data, cli, monkeypatch, no_network, like):
    monkeypatch.setattr(init, 'measure',
                        lambda config: init.Times(step=1., image=1.))
    code, out = cli('init mine --images photos --labels labels --workers 1 '
                    f'--like {like}')
    assert code == 0, out
    config = Config.fromfile('mine.py')
    model = MODELS.build(config.model)
    for module in model.modules():
        assert getattr(module, 'class_weight', None) is None, like
        if isinstance(module, BaseDecodeHead):
            assert module.num_classes == module.conv_seg.out_channels == 3
    assert max(s.end for s in config.param_scheduler) == config.max_iters
    assert 'cac_mmseg' in config.custom_imports.imports
    types = {hook.type for hook in config.default_hooks.values()}
    types |= {hook.type for hook in config.get('custom_hooks', [])}
    assert {'ReportHook', 'PreflightHook'} <= types


def test_like_a_file_and_its_imports(data, cli, monkeypatch, no_network):
    """What it imports, its losses and its schedule fit the new config."""
    monkeypatch.setattr(init, 'measure',
                        lambda config: init.Times(step=1., image=1.))
    (data / 'my_part.py').write_text('')
    monkeypatch.syspath_prepend(data)
    base = bases.find_config('fcn_hr18s_4xb2-40k_cityscapes-512x1024')[0]
    (data / 'base.py').write_text(f"""
_base_ = {base!r}
custom_imports = dict(imports='my_part')
model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='x')),
    pretrained=None, decode_head=dict(ignore_index=0, loss_decode=[
        dict(type='CrossEntropyLoss', class_weight=[1.] * 19),
        dict(type='LovaszLoss', per_image=True, classes=[1, 17])]))
param_scheduler = [dict(type='MultiStepLR', milestones=[9], by_epoch=False)]
""")
    code, out = cli('init there/mine --images photos --labels labels '
                    '--workers 1 --like base.py')
    assert code == 2 and 'there' in out
    code, out = cli('init mine --images photos --labels labels '
                    '--workers 1 --like base.py')
    assert code == 0 and 'x does not answer' in out, out
    config = Config.fromfile('mine.py')
    assert config.custom_imports.imports == ['my_part', 'cac_mmseg']
    head = config.model.decode_head
    assert head.ignore_index == 255 and head.num_classes == 3
    assert head.loss_decode[0].class_weight is None
    assert head.loss_decode[1].classes == 'present'
    assert config.model.backbone.init_cfg is None
    assert config.param_scheduler[0].type == 'PolyLR'


def test_classes_are_named_by_the_values_of_the_labels(data, cli, no_network,
                                                       monkeypatch):
    monkeypatch.setattr(init, 'measure',
                        lambda config: init.Times(step=1., image=1.))
    command = ('init mine --images photos --labels labels --workers 1 '
               '--classes names.txt')
    (data / 'names.txt').write_text('sky 2\nroad 0\ntree 7\n')
    code, out = cli(command)
    assert code == 2 and '--out labels_indices --colours names.txt' in out
    (data / 'names.txt').write_text('sky 2\nroad 0\ntree 1\n')
    assert not cli(command)[0]
    config = Config.fromfile('mine.py')
    assert config.data.metainfo.classes == ('road', 'tree', 'sky')


@pytest.mark.parametrize('values, words', [
    ((0, 255), 'all labels are 0'),
    ((0, 7), 'values 7, and there are 2 different values'),
    ((0, 300), 'above 255|holds the values'),
])
def test_labels_of_other_values_are_to_be_converted(data, cli, values, words):
    for i in range(6):
        label = np.random.default_rng(i).choice(values, (48, 64))
        kind = np.uint8 if max(values) < 256 else np.uint16
        cv2.imwrite(f'labels/{i}.png', label.astype(kind))
    code, out = cli('init mine --images photos --labels labels --workers 1')
    assert code == 2 and 'prepare labels --labels labels' in out
    assert re.search(words, out), out
    assert not (data / 'mine.py').exists()
