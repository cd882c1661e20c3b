"""prepare pascal-context: from files in the official formats."""
import cv2
import numpy as np
import pytest
from conftest import SEED
from mmseg.datasets import PascalContextDataset
from PIL import Image
from scipy.io import savemat

from cac_mmseg.commands.prepare import pascal_masks

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


@pytest.fixture
def run(official, cli):
    """What the command prints, which ends with a status."""
    line = (f'prepare pascal-context --mat {official}/trainval --labels '
            f'{official}/labels.txt --voc {official}/data/VOCdevkit/VOC2010 '
            '--workers 1')

    def run(*options, status=0):
        found, out = cli(line, *options)
        assert found == status, out
        return out

    return run


def masks(root):
    return root / 'data/VOCdevkit/VOC2010/SegmentationClassContext'


def lists(root):
    folder = root / 'data/VOCdevkit/VOC2010/ImageSets/SegmentationContext'
    return [(folder / f'{split}.txt').read_text().split()
            for split in ('train', 'val')]


def test_masks_are_the_classes_of_the_names(official, run):
    out = run('--workers', '2')
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
    assert '6 masks (0 of them kept)' in out and 'train 3, val 3' in out
    lines = [line for line in out.splitlines() if line.startswith('| ')]
    assert len(lines) == 61  # with the heading
    share = 100 * pixels[7] / pixels[1:].sum()
    row, = (line for line in lines if line.startswith('| 6 bird '))
    assert [cell.strip() for cell in row.split('|')[2:4]
            ] == [f'{share:.2f} %', f'{images[7]:.0f}']
    share = 100 * pixels[0] / pixels.sum()
    row, = (
        line for line in run('--classes', '60').splitlines()
        if '0 background' in line)
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


SPOIL = dict(
    missing=lambda path: path.unlink(),
    half=cut_in_half,
    header=lambda path: path.write_bytes(path.read_bytes()[:40]),
    empty=lambda path: path.write_bytes(b''),
    text=lambda path: path.write_bytes(b'no image'),
    colour=repaint(lambda image: image.convert('RGB')),
    alpha=repaint(lambda image: image.convert('LA')),
    bits16=repaint(lambda image: image.convert('I;16')),
    bits1=repaint(lambda image: image.convert('1')),
    size=repaint(lambda image: image.crop((0, 0, 9, 9))),
    value=repaint(set_value))


@pytest.mark.parametrize('name', SPOIL)
def test_what_is_there_is_kept_and_what_is_broken_made_again(
        name, official, run):
    """By an interrupted run of another tool, say."""
    run()
    made = sorted(masks(official).iterdir())
    assert len(made) == 6
    before = [path.read_bytes() for path in made]
    SPOIL[name](made[0])
    times = [path.stat().st_mtime_ns for path in made[1:]]
    assert '6 masks (5 of them kept)' in run()
    assert [path.read_bytes() for path in made] == before
    assert [path.stat().st_mtime_ns for path in made[1:]] == times


def break_value(root, path):
    labels = np.load(root / '1.npy')
    labels[0, 0] = 460
    savemat(path, dict(LabelMap=labels))


@pytest.mark.parametrize('breaks, words', [
    (lambda root, path: path.write_bytes(path.read_bytes()[:150]), ''),
    (lambda root, path: savemat(path, dict(Other=np.zeros(
        (3, 3)))), 'it holds no LabelMap'),
    (lambda root, path: savemat(path, dict(LabelMap=np.zeros(
        (3, 3), 'H'))), 'is of the size (3, 3), the image of'),
    (break_value, 'it has the labels [460]'),
    (lambda root, path: next(root.rglob(f'{path.stem}.jpg')).unlink(),
     '2008_000001.jpg is missing'),
])
def test_a_file_that_fails_is_named_and_in_no_list(official, run, breaks,
                                                   words):
    breaks(official, official / 'trainval/2008_000001.mat')
    out = run(status=1)
    assert '2008_000001.mat failed: ' in out and words in out
    assert '5 masks' in out
    assert lists(official)[1] == ['2008_000003', '2008_000005']
    assert not (masks(official) / '2008_000001.png').exists()


def test_what_is_listed_nowhere_is_told(official, run):
    (official / 'trainval/2008_000000.mat').unlink()
    next(official.rglob('Main/val.txt')).write_text('2008_000001\n')
    out = run()
    assert '1 image without a label map: 2008_000000' in out
    assert '2 label maps in no split: 2008_000003, 2008_000005' in out


def test_what_does_not_fit_is_named(official, run):
    labels, listed = official / 'labels.txt', next(
        official.rglob('Main/val.txt'))
    text = labels.read_text().encode()
    renamed = text.replace(b': bedclothes\n', b': bed clothes\n')
    cases = [
        (labels, renamed, "no label 'bedclothes'"),
        (labels, renamed, 'bed clothes'),
        (labels, b'accordion\n' + text, "line 1 must be like '12: name'"),
        (labels, text + b'70000: too\n', "line 460 must be like '12: name'"),
        (labels, b'\xff\xfe', 'labels.txt is no text in UTF-8'),
        (labels, None, 'labels.txt is not a file'),
        (listed, b'\xff\xfe', 'val.txt is no text in UTF-8'),
        (listed, None, 'ImageSets/Main/val.txt'),
    ]
    for path, content, words in cases:
        labels.write_bytes(text)
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        assert words in run(status=2)
    for path in official.glob('trainval/*'):
        path.unlink()
    assert 'trainval holds no *.mat' in run(status=2)
    assert not masks(official).exists()


def test_a_full_disk_leaves_no_half_mask(official, monkeypatch, run):

    def fill(self, file, *args, **kwargs):
        file.write_bytes(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(pascal_masks.Image.Image, 'save', fill)
    assert 'No space left' in run(status=1)
    assert not [*masks(official).iterdir()]


@pytest.mark.parametrize('classes', [59, 60])
def test_mmseg_reads_what_was_made(official, run, configs, classes,
                                   monkeypatch, cli):
    run()
    monkeypatch.chdir(official)
    config = f'{configs}/cac_r50_pcontext{classes}.py'
    code, out = cli(f'check-data {config} --workers 1')
    assert code == 0 and '6 samples read, 0 problems' in out
