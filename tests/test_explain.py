"""explain: which regions it asks about, and its pages."""
import re
from copy import deepcopy
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from conftest import texts
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder
from mmseg.structures import SegDataSample

from cac_mmseg.attribution.paths import Recording, record
from cac_mmseg.commands import explain
from cac_mmseg.commands.explain.regions import questions
from cac_mmseg.drawing.reader import Reader
from cac_mmseg.stack.checkpoint import load_model
from cac_mmseg.stack.config import dataset_without_data

CLASSES = ['sky', 'road', 'car']
LABELS = np.zeros((20, 30), int)
LABELS[12:] = 1
LABELS[14:18, 2:6] = 2  # a small car,
LABELS[13:19, 15:25] = 2  # and a large one
LABELS[0, 0] = 1  # too small for a page


def ask(**changes):
    arguments = dict(
        class_name=None, mask=None, at=None, against=None) | changes
    return [*questions(SimpleNamespace(**arguments), LABELS, CLASSES)]


def test_a_demo_needs_nothing(cli, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr('webbrowser.open', opened.append)
    monkeypatch.delenv('WAYLAND_DISPLAY', raising=False)
    for display in ('', ':0'):
        monkeypatch.setenv('DISPLAY', display)
        code, out = cli('explain', '--demo', '--out', tmp_path)
        assert code == 0 and 'moving over waiting' in out, out
        assert 'waiting over moving' in out  # the same signal
    assert opened == [(tmp_path / '000007.html').as_uri()]
    code, out = cli('explain', '--demo', 'config.py', 'a.pth', 'image.png')
    assert code == 2 and 'leave config.py out' in out
    code, out = cli('explain', 'config.py')
    assert code == 2 and 'required: checkpoint, IMAGE, --out' in out


def test_by_default_the_largest_region_of_each_class():
    found = {question.index: question.region for question in ask()}
    assert [*found] == [0, 1, 2]
    assert not found[1][0, 0] and found[1][19, 0]
    assert found[2].sum() == 60 and found[2][15, 20]


@pytest.mark.parametrize(
    'asked, index, size, inside',
    [
        (dict(at=[(3, 15)]), 2, 16, (14, 2)),  # x, y: its region
        (dict(at=[(3, 15)], class_name='road'), 1, 16, (14, 2)),
        (dict(class_name='car'), 2, 60, (15, 20)),  # its largest region
    ])
def test_a_pixel_or_a_class_asks_about_a_region(asked, index, size, inside):
    question, = ask(**asked)
    assert question.index == index
    assert question.region.sum() == size and question.region[inside]


def test_a_mask_is_the_region(tmp_path):
    mask = np.zeros((20, 30), np.uint8)
    mask[3:5, 7:9] = 200
    cv2.imwrite(str(tmp_path / 'mask.png'), mask)
    (region, index, _), = ask(mask=str(tmp_path / 'mask.png'))
    assert index is None and (region == (mask > 0)).all()


def test_regions_of_the_class_compared_with_are_left_out():
    assert [question.index for question in ask(against='road')] == [0, 2]
    assert {question.against for question in ask(against='road')} == {1}
    assert not ask(against='car', at=[(3, 15)])
    # and in the order in which they are asked about
    two = ask(against='road', at=[(20, 15), (3, 15), (9, 18)])
    assert [question.region.sum() for question in two] == [60, 16]


OUT = re.compile(r': (.+ over .+: margin .+), error of the sum')
IMAGES = [f'contextshapes://image/val/0/{i:06d}.png' for i in range(4)]


@pytest.fixture
def run(shapes, tmp_path, monkeypatch, cli):
    monkeypatch.chdir(tmp_path)
    line = f'explain {shapes.config} {shapes.weights} --out out'
    return lambda *words: cli(line, *words)


def test_an_image_is_read_and_predicted_once(run, monkeypatch):
    """However many regions it has; a class may be in some images only."""
    reads, forwards = [], []
    load, extract = Reader.load, EncoderDecoder.extract_feat
    monkeypatch.setattr(
        Reader, 'load',
        lambda self, info: reads.append(info['img_path']) or load(self, info))
    monkeypatch.setattr(
        EncoderDecoder, 'extract_feat',
        lambda self, inputs: forwards.append(1) or extract(self, inputs))
    predicted = iter([0, 1, 2])

    def predict(self):
        labels = torch.full((1, 128, 192), next(predicted))
        labels[:, 64:] = 3
        return SegDataSample(pred_sem_seg=PixelData(data=labels))

    monkeypatch.setattr(Recording, 'predict', predict)
    _, out = run(*IMAGES[:3], '--against', 'tree', '--html')
    assert reads == IMAGES[:3] and len(forwards) == 3
    assert out.count(': driving car over tree: margin') == 3
    assert '000000.png: background over tree' in out
    assert '000001.png: tree over' not in out
    assert '3 pages in out' in out
    predicted = iter([0, 1, 2])
    _, out = run(*IMAGES[:3], '--class', 'tree')
    assert out.count('no pixel is predicted as it') == 2
    assert '1 page in out' in out


def test_the_prediction_is_that_of_a_test(shapes):
    """Also of a model that tests in windows."""
    model = load_model(shapes.config, shapes.weights)
    reader = Reader(dataset_without_data(model.cfg))
    data = reader.batch(reader.read(IMAGES[3]))
    for test_cfg in (dict(mode='whole'),
                     dict(mode='slide', crop_size=(64, 64), stride=(48, 48))):
        model.test_cfg = ConfigDict(test_cfg)
        expected = model.test_step(deepcopy(data))[0]
        found = record(model, deepcopy(data)).predict()
        for field in ('pred_sem_seg', 'seg_logits'):
            torch.testing.assert_close(
                found.get(field).data,
                expected.get(field).data)


@pytest.mark.parametrize('more', [
    ['--class', 'lorry'],
    ['--against', 'lorry'],
    ['--class', 'tree', '--against', 'tree'],
])
def test_classes_are_checked_before_the_model_is_built(run, monkeypatch, more):
    monkeypatch.setattr(explain, 'load_model', None)
    code, out = run(IMAGES[3], *more)
    assert code == 2 and 'must be ' in out
    assert 'usage: python -m cac_mmseg explain' in out


@pytest.mark.parametrize('words, asked', [
    ('waiting car over tree: margin',
     '--at 100 60 --class=waiting_car --against tree'),
    ('tree over ', '--class tree --at 5 5'),
])
def test_a_page_with_its_numbers(run, tmp_path, figures, words, asked):
    asked = [word.replace('_', ' ') for word in asked.split()]
    _, out = run(IMAGES[3], '--steps', '4', *asked)
    assert words in out and '1 page in out' in out
    page = figures[-1]
    assert cv2.imread(str(tmp_path / 'out/000003.png')).shape[1] == 1600
    # the same numbers on the page
    said = texts(page)
    assert any(text.startswith(OUT.search(out)[1]) for text in said)
    prediction, = (ax for ax in page.axes if ax.get_title() == 'prediction')
    assert prediction.images[0].get_array().shape == (128, 192, 3)
    assert {'for', 'against', 'logits a position'} <= {*said}
