"""prepare pascal-context: from files in the official formats."""
import cv2
import numpy as np
import pytest
from conftest import SEED
from mmseg.datasets import PascalContextDataset
from PIL import Image
from scipy.io import savemat

from cac_mmseg.__main__ import main
from cac_mmseg.commands.prepare import pascal_context

NAMES = PascalContextDataset.METAINFO['classes'][1:]
# names and fillers in the official order, that of the alphabet
LABELS = sorted([*NAMES, *(f'thing {i:03d}' for i in range(399)), 'unknown'])
SIZES = [(20, 30), (30, 20), (25, 25)]


def write_official(root):
    """trainval/*.mat, labels.txt and a VOC2010 folder, six images."""
    rng = np.random.default_rng(SEED)
    assert len(LABELS) == 459
    (root / 'labels.txt').write_text(''.join(
        f'{i}: {name}\n' for i, name in enumerate(LABELS, start=1)))
    voc = root / 'data/VOCdevkit/VOC2010'
    for folder in (voc / 'JPEGImages', voc / 'ImageSets/Main',
                   root / 'trainval'):
        folder.mkdir(parents=True)
    for i in range(6):
        size = SIZES[i % 3]
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        cv2.imwrite(str(voc / f'JPEGImages/2008_{i:06d}.jpg'), image)
        labels = rng.integers(0, 460, size).astype(np.uint16)
        savemat(root / f'trainval/2008_{i:06d}.mat', dict(LabelMap=labels))
        np.save(root / f'{i}.npy', labels)
    for split, numbers in (('train', (4, 0, 2)), ('val', (1, 3, 5))):
        (voc / f'ImageSets/Main/{split}.txt').write_text(''.join(
            f'2008_{i:06d}\n' for i in numbers))


@pytest.fixture
def official(tmp_path):
    write_official(tmp_path)
    return tmp_path


def run(root, *options, status=0):
    with pytest.raises(SystemExit) as end:
        main([
            'prepare', 'pascal-context', '--mat', f'{root}/trainval',
            '--labels', f'{root}/labels.txt', '--voc',
            f'{root}/data/VOCdevkit/VOC2010', '--workers', '1', *options
        ])
    assert int(end.value.code) == status


def masks(root):
    return root / 'data/VOCdevkit/VOC2010/SegmentationClassContext'


def lists(root):
    folder = root / 'data/VOCdevkit/VOC2010/ImageSets/SegmentationContext'
    return [(folder / f'{split}.txt').read_text().split()
            for split in ('train', 'val')]


def test_masks_are_the_classes_of_the_names(official, capsys):
    run(official, '--workers', '2')
    pixels, images = np.zeros(60), np.zeros(60)
    for i in range(6):
        labels = np.load(official / f'{i}.npy')
        mask = cv2.imread(
            str(masks(official) / f'2008_{i:06d}.png'), cv2.IMREAD_UNCHANGED)
        assert mask.shape == labels.shape and mask.dtype == np.uint8
        for value, label in zip(mask.ravel(), labels.ravel()):
            name = LABELS[label - 1] if label else None
            assert value == (1 + NAMES.index(name) if name in NAMES else 0)
        pixels += np.bincount(mask.ravel(), minlength=60)
        images += np.isin(range(60), mask)
    assert lists(official) == [['2008_000004', '2008_000000', '2008_000002'],
                               ['2008_000001', '2008_000003', '2008_000005']]
    out = capsys.readouterr().out
    assert '6 masks (0 of them kept)' in out and 'train 3, val 3' in out
    rows = {
        row.split('|')[1].strip():
        [cell.strip() for cell in row.split('|')[2:4]]
        for row in out.splitlines() if row.startswith('| ')
    }
    assert len(rows) == 61  # with the heading and the rule
    share = 100 * pixels[7] / pixels[1:].sum()
    assert rows['6 bird'] == [f'{share:.2f} %', f'{images[7]:.0f}']
    run(official, '--classes', '60')
    share = 100 * pixels[0] / pixels.sum()
    row, = (
        row for row in capsys.readouterr().out.splitlines()
        if '0 background' in row)
    assert f' {share:.2f} % ' in row


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


def repaint(change):
    """Write another image in the place of a mask."""

    def write(path):
        with Image.open(path) as image:
            changed = change(image)
        changed.save(path, 'PNG')

    return write


def set_value(image):
    image.putpixel((0, 0), 60)
    return image


@pytest.mark.parametrize(
    'spoil', [
        lambda path: path.unlink(),
        cut_in_half,
        lambda path: path.write_bytes(path.read_bytes()[:40]),
        lambda path: path.write_bytes(b''),
        lambda path: path.write_bytes(b'no image'),
        repaint(lambda image: image.convert('RGB')),
        repaint(lambda image: image.convert('LA')),
        repaint(lambda image: image.convert('I;16')),
        repaint(lambda image: image.convert('1')),
        repaint(lambda image: image.crop((0, 0, 9, 9))),
        repaint(set_value),
    ],
    ids=[
        'missing', 'half', 'header', 'empty', 'text', 'colour', 'alpha',
        '16 bit', '1 bit', 'size', 'value'
    ])
def test_what_is_there_is_kept_and_what_is_broken_made_again(
        spoil, official, capsys):
    """By an interrupted run of another tool, say."""
    run(official)
    made = sorted(masks(official).iterdir())
    assert len(made) == 6
    before = [path.read_bytes() for path in made]
    spoil(made[0])
    times = [path.stat().st_mtime_ns for path in made[1:]]
    capsys.readouterr()
    run(official)
    assert '6 masks (5 of them kept)' in capsys.readouterr().out
    assert [path.read_bytes() for path in made] == before
    assert [path.stat().st_mtime_ns for path in made[1:]] == times


def break_cut(root, path):
    path.write_bytes(path.read_bytes()[:150])
    return ''


def break_key(root, path):
    savemat(path, dict(Other=np.zeros((3, 3))))
    return 'it holds no LabelMap'


def break_size(root, path):
    savemat(path, dict(LabelMap=np.zeros((3, 3), np.uint16)))
    return 'is of the size (3, 3), the image of'


def break_value(root, path):
    labels = np.load(root / '1.npy')
    labels[0, 0] = 460
    savemat(path, dict(LabelMap=labels))
    return 'it has the labels [460]'


def break_image(root, path):
    (root / f'data/VOCdevkit/VOC2010/JPEGImages/{path.stem}.jpg').unlink()
    return '2008_000001.jpg is missing'


@pytest.mark.parametrize(
    'breaks', [break_cut, break_key, break_size, break_value, break_image])
def test_a_file_that_fails_is_named_and_in_no_list(official, breaks, capsys):
    words = breaks(official, official / 'trainval/2008_000001.mat')
    run(official, status=1)
    out, err = capsys.readouterr()
    assert '2008_000001.mat failed: ' in err and words in err
    assert '5 masks' in out
    assert lists(official)[1] == ['2008_000003', '2008_000005']
    assert not (masks(official) / '2008_000001.png').exists()


def test_what_is_listed_nowhere_is_told(official, capsys):
    (official / 'trainval/2008_000000.mat').unlink()
    main_lists = official / 'data/VOCdevkit/VOC2010/ImageSets/Main'
    (main_lists / 'val.txt').write_text('2008_000001\n')
    run(official)
    out = capsys.readouterr().out
    assert '1 image without a label map: 2008_000000' in out
    assert '2 label maps in no split: 2008_000003, 2008_000005' in out


def refuse(root, capsys):
    run(root, status=2)
    voc = root / 'data/VOCdevkit/VOC2010'
    assert not (voc / 'SegmentationClassContext').exists()
    return capsys.readouterr().err


def test_what_does_not_fit_is_named(official, capsys):
    labels = official / 'labels.txt'
    text = labels.read_text()
    labels.write_text(text.replace(': bedclothes\n', ': bed clothes\n'))
    message = refuse(official, capsys)
    assert "no label 'bedclothes'" in message and 'bed clothes' in message
    labels.write_text('accordion\n' + text)
    assert "line 1 must be like '12: name'" in refuse(official, capsys)
    labels.write_text(text + '70000: too many\n')
    assert "line 460 must be like '12: name'" in refuse(official, capsys)
    labels.write_bytes(text.encode('utf-16'))
    assert 'labels.txt is no text in UTF-8' in refuse(official, capsys)
    labels.unlink()
    assert 'labels.txt is not a file' in refuse(official, capsys)
    labels.write_text(text)
    listed = official / 'data/VOCdevkit/VOC2010/ImageSets/Main/val.txt'
    listed.write_bytes(b'\xff\xfe')
    assert 'val.txt is no text in UTF-8' in refuse(official, capsys)
    listed.unlink()
    assert 'ImageSets/Main/val.txt' in refuse(official, capsys)
    for path in official.glob('trainval/*'):
        path.unlink()
    assert 'trainval holds no *.mat' in refuse(official, capsys)


def test_a_full_disk_leaves_no_half_mask(official, monkeypatch, capsys):

    def fill(self, file, *args, **kwargs):
        file.write_bytes(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(pascal_context.Image.Image, 'save', fill)
    run(official, status=1)
    assert 'No space left' in capsys.readouterr().err
    assert not [*masks(official).iterdir()]


@pytest.mark.parametrize('classes', [59, 60])
def test_mmseg_reads_what_was_made(official, configs, classes, monkeypatch,
                                   capsys):
    run(official)
    monkeypatch.chdir(official)
    with pytest.raises(SystemExit) as end:
        main([
            'check-data', f'{configs}/cac_r50_pcontext{classes}.py',
            '--workers', '1'
        ])
    out = capsys.readouterr().out
    assert int(end.value.code) == 0 and '6 samples read, 0 problems' in out
