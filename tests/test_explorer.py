"""The page of explain --html, in a real browser."""
import re
from decimal import Decimal

import numpy as np
import pytest
import torch
from conftest import SEED, shown
from test_attribution import batch, make_model

from cac_mmseg.attribution.pairs import PairShares, attribute_pairs
from cac_mmseg.attribution.paths import record
from cac_mmseg.drawing.explorer import explorer

META = dict(
    classes=['sky', 'road', '</script><b>car', 'tree'],
    palette=[[9, 9, 200], [99, 99, 99], [200, 9, 9], [9, 200, 9]])


@pytest.fixture(scope='module')
def shares():
    model = make_model(num_heads=2)
    return attribute_pairs(record(model, batch(model)))


def write(shares, size=(48, 64), **options):
    rng = np.random.default_rng(SEED)
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    return explorer('a <b>.png', image, image[::-1], shares, META, **options)


def centre(page, cell, shares):
    """Where a cell is on the screen."""
    box = page.locator('#image').bounding_box()
    row, column = divmod(cell, shares.margin.shape[1])
    height, width = shares.cell
    return (box['x'] + (column + 0.5) * width * box['width'],
            box['y'] + (row + 0.5) * height * box['height'])


def test_pointing_shows_the_shares_of_the_place(show, shares):
    page = show(write(shares))
    total, change = shares.total.flatten(2).flatten(
        0, 1), (shares.margin - shares.baseline).flatten()
    assert shown(page)['cell'] == change.abs().argmax()
    for cell in (0, 17, len(change) - 1):
        page.mouse.move(*centre(page, cell, shares))
        found = shown(page)
        assert found['cell'] == cell
        # two terms that are rounded
        assert found['change'] == pytest.approx(change[cell].item(), abs=0.011)
        best = total[cell].abs().argmax()
        assert found['best'] == best
        assert found['share'] == pytest.approx(
            total[cell, best].item(), rel=1e-4)
        # within what a byte keeps
        mass = total[cell].abs().sum().item()
        assert found['sum'] == pytest.approx(
            change[cell].item(), abs=0.01 * mass)
        words = page.locator('#readout').inner_text()
        for index in shares.classes.flatten(0, 1)[cell]:
            assert META['classes'][index] in words


MIDDLES = """(map, [h, w]) => {
  const {width, height} = map;
  const {data} = map.getContext('2d').getImageData(0, 0, width, height);
  return Array.from({length: h * w}, (_, cell) => {
    const x = Math.floor(width * (cell % w + 0.5) / w);
    const y = Math.floor(height * (Math.floor(cell / w) + 0.5) / h);
    return [...data.slice(4 * (y * width + x), 4 * (y * width + x) + 3)];
  });
}"""


def test_the_brightest_place_is_the_largest_share(show, shares):
    page = show(write(shares, at=(40, 30)))
    page.uncheck('#backdrop')
    found = shown(page)
    h, w = shares.margin.shape
    row, column = int(30 / 48 * h), int(40 / 64 * w)
    assert found['cell'] == row * w + column
    # of the pixels in the middle of the cells, the least white
    colours = page.locator('#map').evaluate(MIDDLES, [h, w])
    colours = np.array(colours, float)
    total = shares.total[row, column].flatten().numpy()
    best = int(found['best'])
    assert best == abs(total).argmax()
    # dark is far from white, and equally far is not equally dark in red
    alike = (total > 0) == (total[best] > 0)
    assert colours[best].sum() == colours[alike].sum(1).min()
    red = colours[:, 0] > colours[:, 2]  # positive
    clear = abs(total) > 0.01 * abs(total).max()
    assert (red == (total > 0))[clear].all()


# points at some pixels, by every path, and returns what is printed
READ = """([pixels, width, height]) => {
  const found = {};
  const image = document.getElementById('image');
  for (const path of ['total', 'kernels', 'pooled']) {
    const input = document.querySelector(`[value=${path}]`);
    if (input.disabled) continue;
    input.click();
    found[path] = pixels.map(([x, y]) => {
      const box = image.getBoundingClientRect();
      image.dispatchEvent(new PointerEvent('pointerdown', {
        clientX: box.left + (x + 0.5) / width * box.width,
        clientY: box.top + (y + 0.5) / height * box.height}));
      return [document.getElementById('map').dataset.cell,
        document.getElementById('readout').innerText];
    });
  }
  return found;
}"""
NUMBER = r'[+−]\d+\.\d\d'


def read(page, step, size=(48, 64)):
    """By path: pixels in steps, the cells they are in, what is printed."""
    pixels = [(x, y) for y in range(0, size[0], step)
              for x in range(0, size[1], step)]
    found = page.evaluate(READ, [pixels, *size[::-1]])
    return {
        path: [(*pixel, int(cell), words)
               for pixel, (cell, words) in zip(pixels, places)]
        for path, places in found.items()
    }


def numbers(line):
    """Numbers of a line, exactly as printed."""
    found = re.findall(NUMBER, line)
    return [Decimal(number.replace('−', '-')) for number in found]


NAMES = dict(total='Both paths', kernels='Kernels', pooled='Pooled branch')


@pytest.mark.parametrize('global_pool', [True, False])
def test_printed_numbers_add_up_to_the_last_digit(show, shares, global_pool):
    if not global_pool:
        shares = shares._replace(pooled=None)
        shares = shares._replace(baseline=shares.margin -
                                 shares.total.sum((2, 3)))
    page = show(write(shares))
    found = read(page, 4)
    assert [*found] == ['total', 'kernels'] + ['pooled'] * global_pool
    if not global_pool:
        assert page.locator('[value=pooled]').is_disabled()
        page.keyboard.press('3')
        assert page.locator('[value=kernels]').is_checked()
    cells = shares.margin.numel()
    for path, places in found.items():
        assert {cell for *_, cell, _ in places} == {*range(cells)}
        maps = getattr(shares, path).flatten(2).flatten(0, 1)
        for *_, cell, words in places:
            lines = {
                line.partition(':')[0]: numbers(line)
                for line in words.split('\n') if ':' in line
            }
            baseline, change, margin = lines['Margin']
            assert baseline + change == margin
            for printed, exact in ((margin, shares.margin), (baseline,
                                                             shares.baseline)):
                assert float(printed) == pytest.approx(
                    exact.flatten()[cell].item(), abs=0.0051)
            expected = change
            if global_pool:
                kernels, pooled, total = lines['Context']
                assert kernels + pooled == total == change
                expected = dict(
                    total=total, kernels=kernels, pooled=pooled)[path]
            name = NAMES[path if global_pool else 'kernels']
            gain, loss, total = lines[name][:3]
            assert gain + loss == total == expected and gain >= 0 >= loss
            row = maps[cell]
            for printed, exact in ((gain, row.clamp_min(0)),
                                   (loss, row.clamp_max(0)), (total, row)):
                # terms are what others leave
                assert float(printed) == pytest.approx(
                    exact.sum().item(), abs=0.0201)


@pytest.mark.parametrize('size', [(48, 64), (45, 61), (97, 130)])
def test_places_are_named_by_their_pixels(show, shares, size):
    page = show(write(shares, size))
    h, w = shares.margin.shape
    places = {}
    for x, y, cell, words in read(page, 5, size)['total']:
        match = re.search(r'at x (\d+)–(\d+), y (\d+)–(\d+)', words)
        left, right, top, bottom = map(int, match.groups())
        assert left <= x <= right and top <= y <= bottom, words
        assert places.setdefault(cell, match[0]) == match[0]
        assert cell == (
            int((y + 0.5) / size[0] * h) * w + int((x + 0.5) / size[1] * w))
    page.mouse.move(*centre(page, 0, shares))
    box = page.locator('#image').bounding_box()
    page.mouse.move(box['x'] + box['width'] * 20.5 / size[1],
                    box['y'] + box['height'] * 30.5 / size[0])
    assert page.locator('#pointer').inner_text() == 'x 20, y 30'
    page.mouse.move(0, 0)
    assert page.locator('#pointer').inner_text() == ''


@pytest.mark.parametrize('gain, loss, words', [
    (0.012, -0.002, 'margin by +0.01 of 0.90: nothing to read here.'),
    (0.51, -0.5, 'margin by +0.01 of 0.90: shares for (+0.51) and against '
     '(−0.50) cancel.'),
    (0.5, -0.1, None),
])
def test_a_hint_where_context_changed_nothing(show, gain, loss, words):
    kernels = torch.zeros(2, 2, 2, 2)
    kernels[..., 0, 1], kernels[..., 1, 0] = gain, loss
    margin, classes = torch.full((2, 2), 0.9), torch.tensor([0, 1])
    pairs = PairShares(kernels, None, classes.expand(2, 2, 2), margin,
                       margin - gain - loss, (0.5, 0.5))
    printed = show(write(pairs)).locator('#readout').inner_text()
    assert f'Context changed this {words}' in printed if words else \
        'changed' not in printed


def test_keys_and_paths(show, shares):
    page = show(write(shares))
    page.mouse.move(*centre(page, 0, shares))
    page.locator('#image').focus()
    w = shares.margin.shape[1]
    for key, cell in (('ArrowRight', 1), ('ArrowDown', w + 1),
                      ('ArrowLeft', w), ('ArrowUp', 0), ('ArrowUp', 0)):
        page.keyboard.press(key)
        assert shown(page)['cell'] == cell
    mass = shares.total[0, 0].abs().sum().item()
    for key, path in (('2', 'kernels'), ('3', 'pooled'), ('1', 'total')):
        page.keyboard.press(key)
        assert shown(page)['sum'] == pytest.approx(
            getattr(shares, path)[0, 0].sum().item(), abs=0.01 * mass)
        assert page.locator(f'[value={path}]').is_checked()
    page.keyboard.press('p')
    assert page.locator('#prediction').is_checked()
    # held: the pointer no longer moves it, until Enter lets go
    page.mouse.move(*centre(page, 5, shares))
    assert shown(page)['cell'] == 0
    page.keyboard.press('Enter')
    page.mouse.move(*centre(page, 6, shares))
    assert shown(page)['cell'] == 6


def test_touch_on_a_phone(show, shares):
    page = show(
        write(shares), has_touch=True, viewport=dict(width=360, height=700))
    page.touchscreen.tap(*centre(page, 9, shares))
    assert shown(page)['cell'] == 9
    assert page.evaluate('document.body.scrollWidth') <= 360


def test_the_command_writes_it(show, tmp_path, shapes, cli):
    image = 'contextshapes://image/val/0/000003.png'
    out = cli(f'explain {shapes.config} {shapes.weights} {image} --html '
              f'--at 100 60 --steps 1 --out {tmp_path}/out')[1]
    assert '384 places to point at' in out
    page = show((tmp_path / 'out/000003.html').read_text(encoding='utf-8'))
    assert shown(page)['cell'] == 60 // 8 * 24 + 100 // 8
    assert page.title().startswith('000003.png')
