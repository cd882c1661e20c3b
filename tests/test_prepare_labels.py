"""prepare labels: pictures of every kind become class indices."""
import json
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmseg.datasets import BaseSegDataset
from PIL import Image

from cac_mmseg.stack.classes import read_classes

COLOURS = np.array([[0, 0, 0], [128, 64, 128], [200, 10, 10], [0, 128, 0]],
                   np.uint8)
TABLE = ''.join(f'{name} {r} {g} {b}\n'
                for name, (r, g, b) in zip('abcd', COLOURS.tolist()))


@pytest.fixture
def maps(rng):
    """Two label maps of four classes; 0 is seen most, 3 least."""
    maps = rng.choice(4, (2, 12, 20), p=[.6, .2, .15, .05]).astype(np.uint8)
    maps[:, 0] = np.repeat([0, 1, 2, 3], 5)
    maps[:, 1:6] = np.array([0, 0, 1, 1, 2])[:, None]
    return maps


@pytest.fixture
def run(tmp_path, monkeypatch, cli):
    """What the command prints, which ends with a status."""
    monkeypatch.chdir(tmp_path)

    def run(*options, status=0, labels='in', out='out'):
        found, text = cli(
            f'prepare labels --labels {labels} --out {out} --workers 1',
            *options)
        assert found == status, text
        return ' '.join(text.split())

    return run


def write(pictures, name='{}.png', **options):
    for i, picture in enumerate(pictures):
        if not isinstance(picture, Image.Image):
            picture = Image.fromarray(picture)
        path = Path('in', name.format(i))
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, **options)


def made(count=2, name='{}.png'):
    found = []
    for i in range(count):
        with Image.open(Path('out', name.format(i))) as image:
            assert image.mode == 'L'
            found.append(np.array(image))
    return np.array(found)


def table(text):
    Path('table.txt').write_text(text)
    return '--colours', 'table.txt'


def paletted(labels, palette=COLOURS):
    image = Image.fromarray(labels)
    image.putpalette(palette.tobytes())
    return image


@st.composite
def paintings(draw):
    """Distinct colours, or values, a label map of them, and names."""
    if draw(st.booleans()):
        key = st.tuples(st.integers(0, 65535))
    else:
        key = st.tuples(*[st.integers(0, 255)] * 3)
    keys = draw(st.lists(key, min_size=1, max_size=30, unique=True))
    seed = draw(st.integers(0, 2**32 - 1))
    labels = np.random.default_rng(seed).integers(0, len(keys), (7, 9))
    return keys, labels


@given(paintings())
@settings(
    max_examples=10,
    suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_painted_map_comes_back(run, painting):
    keys, labels = painting
    for folder in ('in', 'out'):
        for path in Path(folder).glob('*'):
            path.unlink()
    painted = np.array(keys)[labels].squeeze(2 if len(keys[0]) == 1 else ())
    write([painted.astype(np.uint16 if painted.ndim == 2 else np.uint8)])
    run(*table(''.join(f'class {i}x {" ".join(map(str, key))}\n'
                       for i, key in enumerate(keys))))
    assert (made(1)[0] == labels).all()


KINDS = {
    'rgb': (lambda m: COLOURS[m], '{}.png', None),
    'rgba':
    (lambda m: Image.fromarray(COLOURS[m]).convert('RGBA'), '{}.tif', None),
    'webp': (lambda m: COLOURS[m], '{}.webp', dict(lossless=True)),
    'palette': (paletted, '{}.png', None),
    'gif': (paletted, 'deep/er/{}.GIF', None),
    'grey': (lambda m: m, '{}.bmp', None),
    'equal channels': (lambda m: m[..., None].repeat(3, 2), '{}.png', None),
    'grey and alpha':
    (lambda m: Image.fromarray(m).convert('LA'), '{}.png', None),
    'values':
    (lambda m: np.array([0, 7, 70, 200], np.uint8)[m], '{}.png', None),
    '16 bits':
    (lambda m: np.array([0, 7, 300, 65535], np.uint16)[m], '{}.png', None),
    'integers': (lambda m: m.astype(np.int32), '{}.tif', None),
}


@pytest.mark.parametrize('kind', KINDS)
def test_classes_are_found_by_counting(run, maps, kind):
    paint, name, options = KINDS[kind]
    write([paint(m) for m in maps], name, **options or {})
    text = run()
    name = str(Path(name).with_suffix('.png'))
    assert (made(name=name) == maps).all()
    assert '2 label maps (0 of them kept)' in text and 'init NAME' in text
    there = read_classes('out/classes.txt')
    assert there.names == [f'class_{i}' for i in range(4)]
    if kind in ('rgb', 'rgba', 'webp'):
        assert there.palette == COLOURS.tolist()
    else:
        assert {len(key) for key in there.keys} == {1}
    share = f'{100 * (maps == 1).sum() / maps.size:.2f} %'
    assert f'| 1 class_1 | {share} | 2 |' in text
    # a table gives the same, and what is there is kept
    assert '(2 of them kept)' in run('--colours', 'out/classes.txt')


def test_grey_values_of_2_bits_are_not_scaled(run, maps):
    """As PIL does, which does not write such files either."""

    def chunk(name, data):
        check = zlib.crc32(name + data)
        return struct.pack('>I', len(data)) + name + data + struct.pack(
            '>I', check)

    Path('in').mkdir()
    height, width = maps[0].shape
    for i, labels in enumerate(maps):
        quads = labels.reshape(height, -1, 4) << [6, 4, 2, 0]
        rows = quads.sum(2).astype(np.uint8)
        lines = np.pad(rows, ((0, 0), (1, 0)))  # no filter
        header = struct.pack('>IIBBBBB', width, height, 2, 0, 0, 0, 0)
        Path(f'in/{i}.png').write_bytes(
            b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) +
            chunk(b'IDAT', zlib.compress(lines.tobytes())) +
            chunk(b'IEND', b''))
    run()
    assert (made() == maps).all()


@pytest.mark.parametrize('paint', [
    lambda m: m * 255, lambda m: (m * 255)[..., None].repeat(3, 2),
    lambda m: Image.fromarray(m * 255).convert('1'), lambda m: m,
    lambda m: m[..., None] * np.array([255, 0, 0], np.uint8)
])
def test_masks_of_two_values_have_an_object(run, maps, paint):
    write([paint(m) for m in maps // 2])
    run()
    assert (made() == maps // 2).all()
    assert read_classes('out/classes.txt').names == ['background', 'object']


def test_255_of_index_maps_stays_ignored_and_a_picture_can_be_black(run, maps):
    maps[0, :3] = 255
    write(maps)
    assert '| 255 ignored | ' in run()
    assert (made() == maps).all()
    assert read_classes('out/classes.txt').keys[(255, )] == 255


def test_a_black_picture_among_colour_pictures_is_black(run, maps):
    maps[1] = 0
    write([COLOURS[maps[0]], maps[1]])
    run()
    assert (made() == maps).all()


def test_palettes_that_differ_are_colours(run, maps):
    order = [0, 3, 1, 2]
    write([
        paletted(maps[0]),
        paletted(np.argsort(order)[maps[1]].astype(np.uint8), COLOURS[order])
    ])
    run()
    assert (made() == maps).all()
    assert read_classes('out/classes.txt').palette == COLOURS.tolist()


def test_a_table_counts_more_than_a_palette(run, maps):
    write([paletted(m, COLOURS[::-1]) for m in maps])
    run(*table(TABLE))
    assert (made() == 3 - maps).all()


def test_grey_colours_of_a_table_are_no_indices(run, maps):
    write(maps // 2)
    run(*table('a 1 1 1\nb 0 0 0\n'))
    assert (made() == 1 - maps // 2).all()
    write(maps // 2 * 255)  # nor is a mask's object what is ignored
    text = run(*table('a 0 0 0\nb 0 0 255\n'), out='b', status=1)
    assert 'ignore 255 255 255 # ' in text
    write([COLOURS[maps[0]], maps[1].astype(np.uint16) + 256])
    assert 'values up to 259, which are no' in run(out='b', status=2)


def test_a_turned_picture_is_upright_as_its_image(run, maps):
    exif = Image.Exif()
    exif[274] = 6
    write(maps, exif=exif)
    run()
    assert (made() == np.rot90(maps, -1, (1, 2))).all()


def test_names_alone_go_to_values_in_order_or_to_indices(run, maps):
    write(np.array([5, 7, 9, 11], np.uint8)[maps])
    run(*table('a\nb\nc\nd\n'))
    assert (made() == maps).all()
    assert read_classes('out/classes.txt').keys[(11, )] == 3
    text = run(*table('a\nb\n'), out='b', status=2)
    assert "lines must be like 'a 5'" in text
    write(maps)  # not all indices occur
    run(*table('a\nb\nc\nd\ne'), out='c')
    assert read_classes('c/classes.txt').names == [*'abcde']
    write(COLOURS[maps])
    text = run(*table('a\nb\nc\nd\n'), out='b', status=2)
    assert "lines must be like 'a 128 64 128'" in text


def test_a_config_names_the_classes(run, maps, configs):
    config = f'{configs}/cac_r18_camvid.py'
    write(maps)
    text = run('--config', config)
    assert 'class indices' in text and '| 3 road | ' in text
    assert (made() == maps).all()
    palette = np.array(read_classes('out/classes.txt').palette, np.uint8)
    write(palette[maps])
    assert '(2 of them kept)' in run('--config', config)
    text = run('--config', f'{configs}/cac_r50_ade20k.py', status=2, out='b')
    assert 'reduce_zero_label' in text


def test_unknown_colours_are_named_and_converted_only_when_asked(run, maps):
    write(COLOURS[maps])
    options = table(TABLE.replace('d 0 128 0', 'd 0 120 0'))
    pixels = (maps == 3).sum()
    text = run(*options, status=1)
    assert f'ignore 0 128 0 # {pixels} pixels in 2 files' in text
    assert '--unknown ignore' in text and '--unknown nearest' in text
    assert not Path('out').exists()
    share = f'{pixels} pixels ({100 * pixels / maps.size:.2f} %) of 1 colour'
    assert share in run(*options, '--unknown', 'nearest')
    assert (made() == maps).all()
    for path in Path('out').iterdir():
        path.unlink()
    assert share in run(*options, '--unknown', 'ignore')
    assert (made() == np.where(maps == 3, 255, maps)).all()


def test_a_photograph_is_no_label_map(run, rng):
    image = rng.integers(0, 256, (1, 40, 50, 3), np.uint8)
    write(image)
    assert 'looks like JPEG' in run(status=2)
    text = run(*table(TABLE), status=1)
    assert text.count('ignore ') == 12 + 1 and 'more at least' in text
    run(*table(TABLE), '--unknown', 'nearest')
    distances = ((image[0, ..., None, :].astype(int) - COLOURS)**2).sum(-1)
    chosen = np.take_along_axis(distances,
                                made(1)[0][..., None].astype(int), -1)[..., 0]
    assert (chosen == distances.min(-1)).all()


@pytest.mark.parametrize('spoil', [
    lambda path: path.write_bytes(path.read_bytes()[:60]),
    lambda path: Image.new('L', (9, 9)).save(path),
    lambda path: Image.new('L', (20, 12), 4).save(path),
    lambda path: Image.new('RGB', (20, 12)).save(path)
])
def test_what_is_there_and_broken_is_named_and_left(run, maps, spoil):
    write(maps)
    run()
    path = Path('out/1.png')
    before = Path('out/0.png').stat().st_mtime_ns
    spoil(path)
    broken = path.read_bytes()
    text = run(status=1)
    assert '1 label map (1 of them kept)' in text and 'out/1.png is' in text
    assert 'remove it' in text and path.read_bytes() == broken
    path.unlink()
    assert '2 label maps (1 of them kept)' in run()
    assert (made() == maps).all()
    assert Path('out/0.png').stat().st_mtime_ns == before


def test_classes_that_are_there_are_renamed_but_not_others(run, maps):
    write(COLOURS[maps])
    run()
    classes = Path('out/classes.txt')
    classes.write_text(classes.read_text().replace('class_1', 'road'))
    assert '| 1 road | ' in run()
    write(np.roll(COLOURS, 1, 0)[maps])
    assert 'out/classes.txt has other classes' in run(status=2)
    classes.write_text(TABLE.replace('d ', 'a '))
    assert 'out/classes.txt has other classes (3)' in run(status=2)
    assert (made() == maps).all()


def test_what_does_not_fit_is_refused_before_anything_is_written(run, maps):
    write(COLOURS[maps])
    for labels, out in (('in', 'in'), ('in', 'in/out'), ('in', '.')):
        assert 'must be neither' in run(labels=labels, out=out, status=2)
    assert 'is not a folder' in run(labels='gone', status=2)
    assert 'needs --colours' in run('--unknown', 'ignore', status=2)
    text = run(*table('a 1\nb 2\n'), status=2)
    assert 'the table has values' in text
    Path('in/0.txt').write_text('skipped')
    write(COLOURS[maps], '{}.bmp')
    assert 'would both be written to out/0.png' in run(status=2)
    for name, content in (('json', '{}'), ('txt', '')):
        for path in Path('in').iterdir():
            path.unlink()
        Path(f'in/a.{name}').write_text(content)
        words = 'labelme2voc' if name == 'json' else 'no picture that PIL'
        assert words in run(status=2)
    write([maps[0], Image.fromarray(maps[1] * 85).convert('1')])
    assert 'grey values of 1 bit' in run(status=2)
    write([maps[0], maps[1].astype(np.float32)], '{}.tif')
    for name in ('0.png', '1.png'):
        Path('in', name).unlink()
    assert 'in/1.tif: it holds fractions' in run(status=2)
    assert not Path('out').exists()


def coco(**changes):
    """Two images; a crowd, a large region and a small one in it."""
    square = [[0, 0, 8, 0, 8, 8, 0, 8], [8, 8, 1, 1]]  # and a line
    small = dict(counts=[42, 2, 8, 2, 46], size=[10, 10])
    parts = dict(
        images=[
            dict(id=7, file_name='sub/a.jpg', height=10, width=10),
            dict(id=8, file_name='b.jpg', height=4, width=6)
        ],
        categories=[dict(id=9, name='cup 2'),
                    dict(id=4, name='table')],
        annotations=[
            dict(id=1, image_id=7, category_id=9, segmentation=small),
            dict(id=2, image_id=7, category_id=4, segmentation=square),
            dict(
                id=3,
                image_id=7,
                category_id=9,
                iscrowd=1,
                segmentation=dict(counts=[90, 10], size=[10, 10])),
            dict(id=4, image_id=7, category_id=9, segmentation=[[0, 0, 9, 9]])
        ])
    Path('c.json').write_text(json.dumps(parts | changes))


def test_coco_is_painted_small_over_large(run):
    coco()
    text = run(labels='c.json')
    expected = np.zeros((10, 10), np.uint8)
    expected[:8, :8] = 1
    expected[2:4, 4:6] = 2
    expected[:, 9] = 255
    assert (np.array(Image.open('out/sub/a.png')) == expected).all()
    assert np.array(Image.open('out/b.png')).shape == (4, 6)
    assert not np.array(Image.open('out/b.png')).any()
    names = read_classes('out/classes.txt').names
    assert names == ['background', 'table', 'cup 2']
    assert '| 2 cup 2 | ' in text and '(0 of them kept)' in text
    assert '(2 of them kept)' in run(labels='c.json')
    assert 'are for pictures' in run(
        '--colours', 'a', labels='c.json', status=2)


def test_parts_of_coco_share_their_classes(run):
    """By name: each file may number them in its own way."""
    coco()
    run(labels='c.json')
    before = np.array(Image.open('out/sub/a.png'))
    shutil.rmtree('out/sub')
    data = json.loads(Path('c.json').read_text())
    numbers = {c['id']: 100 - c['id'] for c in data['categories']}
    for part, key in (('categories', 'id'), ('annotations', 'category_id')):
        for item in data[part]:
            item[key] = numbers[item[key]]
    Path('c.json').write_text(json.dumps(data))
    run(labels='c.json')
    assert (np.array(Image.open('out/sub/a.png')) == before).all()
    data['categories'][0]['name'] = 'renamed'
    Path('c.json').write_text(json.dumps(data))
    assert 'renamed' in run(labels='c.json', status=2)


def test_smoothed_edges_are_no_classes(run):
    """Nor where they are so few that they could be."""
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[50:] = 200
    picture[50, :9] = np.arange(1, 10)[:, None] * [20, 21, 22]
    write([picture])
    assert 'have 1 % of the pixels together' in run(status=2)
    picture[:10, :90] = np.repeat(picture[50, :9], 10, 0)  # or are classes
    write([picture])
    assert 'class_10' in run()


def test_255_is_a_class_or_not(run):
    """Beside indices it is ignored; beside other values it is open."""
    write([np.repeat([[0, 128, 255]], 3, 0).astype(np.uint8)])
    assert "'ignore 255'" in run(status=2)
    Path('names.txt').write_text('a 0\nb 128\nignore 255\n')
    run('--colours', 'names.txt')
    assert np.array(Image.open('out/0.png'))[0].tolist() == [0, 1, 255]
    Path('names.txt').write_text('a 0\nb 128\nc 255\n')
    text = run('--colours', 'names.txt', status=2)
    assert 'has other classes' in text
    Path('out/classes.txt').unlink()
    # another table would write another map
    assert 'is not what would be written' in run(
        '--colours', 'names.txt', status=1)


@pytest.mark.parametrize('changes, status, words', [
    (dict(categories=[]), 2, 'is no file of COCO'),
    (dict(images=[]), 2, 'is no file of COCO'),
    (dict(images=[dict(id=7, file_name='../a.jpg')]), 2, 'is no'),
    (dict(images=[dict(id=7, file_name='../a.jpg')], annotations=[]), 2,
     'must be a relative path'),
    (dict(images=[dict(id=7, file_name='a.jpg')]), 1, 'no height and width'),
    (dict(annotations=[dict(id=5, image_id=7, category_id=9, bbox=[1])]), 1,
     'sub/a.jpg failed: annotation 5 has no region'),
])  # yapf: disable
def test_what_is_wrong_with_coco_is_named(run, changes, status, words):
    coco(**changes)
    assert words in run(labels='c.json', status=status)


def test_mmseg_reads_what_was_made(run, maps):
    write(COLOURS[maps])
    run()
    dataset = BaseSegDataset(
        data_root='.',
        data_prefix=dict(img_path='in', seg_map_path='out'),
        img_suffix='.png',
        metainfo=dict(classes=read_classes('out/classes.txt').names),
        pipeline=[dict(type='mmseg.LoadAnnotations')])
    for i in range(2):
        assert (dataset[i]['gt_seg_map'] == maps[i]).all()
