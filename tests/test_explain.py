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
from mmseg.apis import init_model
from mmseg.models import EncoderDecoder
from mmseg.structures import SegDataSample

from cac_mmseg.__main__ import main
from cac_mmseg.attribution.paths import Recording, record
from cac_mmseg.commands import explain
from cac_mmseg.commands.explain import questions
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


def test_by_default_the_largest_region_of_each_class():
    found = {question.index: question.region for question in ask()}
    assert [*found] == [0, 1, 2]
    assert not found[1][0, 0] and found[1][19, 0]
    assert found[2].sum() == 60 and found[2][15, 20]


def test_a_pixel_asks_about_its_region():
    (region, index, _), = ask(at=(3, 15))  # x, y
    assert index == 2 and region.sum() == 16 and region[14, 2]
    (region, index, _), = ask(at=(3, 15), class_name='road')
    assert index == 1 and region.sum() == 16


def test_a_class_asks_about_its_largest_region():
    (region, index, _), = ask(class_name='car')
    assert index == 2 and region.sum() == 60


def test_a_mask_is_the_region(tmp_path):
    mask = np.zeros((20, 30), np.uint8)
    mask[3:5, 7:9] = 200
    cv2.imwrite(str(tmp_path / 'mask.png'), mask)
    (region, index, _), = ask(mask=str(tmp_path / 'mask.png'))
    assert index is None and (region == (mask > 0)).all()


def test_regions_of_the_class_compared_with_are_left_out():
    assert [question.index for question in ask(against='road')] == [0, 2]
    assert {question.against for question in ask(against='road')} == {1}
    assert not ask(against='car', at=(3, 15))


@pytest.fixture
def weights(tmp_path, configs):
    config = str(configs / 'cac_r18_contextshapes.py')
    file = tmp_path / 'w.pth'
    torch.save(init_model(config, device='cpu').state_dict(), file)
    return [config, str(file)]


def test_an_image_is_read_and_predicted_once(weights, tmp_path, capsys,
                                             monkeypatch):
    """However many regions it has; a class may be in some images only."""
    reads, forwards = [], []
    load, run = Reader.load, EncoderDecoder.extract_feat
    monkeypatch.setattr(
        Reader, 'load',
        lambda self, info: reads.append(info['img_path']) or load(self, info))
    monkeypatch.setattr(
        EncoderDecoder, 'extract_feat',
        lambda self, inputs: forwards.append(1) or run(self, inputs))
    predicted = iter([0, 1, 2])

    def predict(self):
        labels = torch.full((1, 128, 192), next(predicted))
        labels[:, 64:] = 3
        return SegDataSample(pred_sem_seg=PixelData(data=labels))

    monkeypatch.setattr(Recording, 'predict', predict)
    images = [f'contextshapes://image/val/0/{i:06d}.png' for i in range(3)]
    main([
        'explain', *weights, *images, '--out',
        str(tmp_path / 'out'), '--against', 'tree', '--html'
    ])
    out = capsys.readouterr().out
    assert reads == images and len(forwards) == 3
    assert out.count(': driving car over tree: margin') == 3
    assert '000000.png: background over tree' in out
    assert '000001.png: tree over' not in out
    assert f'3 pages in {tmp_path}/out' in out
    predicted = iter([0, 1, 2])
    main([
        'explain', *weights, *images, '--out',
        str(tmp_path / 'out'), '--class', 'tree'
    ])
    out = capsys.readouterr().out
    assert out.count('no pixel is predicted as it') == 2
    assert f'1 page in {tmp_path}/out' in out


def test_the_prediction_is_that_of_a_test(weights, configs):
    """Also of a model that tests in windows."""
    model = load_model(*weights)
    reader = Reader(dataset_without_data(model.cfg))
    data = reader.batch(reader.read('contextshapes://image/val/0/000003.png'))
    for test_cfg in (dict(mode='whole'),
                     dict(mode='slide', crop_size=(64, 64), stride=(48, 48))):
        model.test_cfg = ConfigDict(test_cfg)
        expected = model.test_step(deepcopy(data))[0]
        found = record(model, deepcopy(data)).predict()
        for field in ('pred_sem_seg', 'seg_logits'):
            torch.testing.assert_close(
                found.get(field).data,
                expected.get(field).data)


@pytest.mark.parametrize('more, words', [
    (['--class', 'lorry'], '--class must be one of background'),
    (['--against', 'lorry'], '--against must be one of background'),
    (['--class', 'tree', '--against', 'tree'], 'another class than --class'),
    (['--at', '500', '5'], '--at must be within the image'),
])
def test_classes_are_checked_before_the_model_is_built(weights, tmp_path,
                                                       capsys, monkeypatch,
                                                       more, words):
    if '--at' not in more:
        monkeypatch.setattr(explain, 'load_model', None)
    with pytest.raises(SystemExit):
        main([
            'explain', *weights, 'contextshapes://image/val/0/000003.png',
            '--out',
            str(tmp_path / 'out'), *more
        ])
    err = capsys.readouterr().err
    assert words in err and 'usage: python -m cac_mmseg explain' in err


@pytest.mark.parametrize('arguments, words', [
    (['--at', '100', '60', '--class', 'waiting car', '--against', 'tree'
      ], 'waiting car over tree: margin'),
    (['--class', 'tree', '--at', '5', '5'], 'tree over '),
])
def test_a_page_with_its_numbers(tmp_path, weights, capsys, figures, arguments,
                                 words):
    main([
        'explain', *weights, 'contextshapes://image/val/0/000003.png', '--out',
        str(tmp_path / 'out'), '--steps', '4', *arguments
    ])
    out = capsys.readouterr().out
    assert words in out and 'error of the sum' in out
    assert f'1 page in {tmp_path}/out' in out
    page = figures[-1]
    assert cv2.imread(str(tmp_path / 'out/000003.png')).shape[1] == 1600
    # the same numbers on the page
    line = re.search(r': (.+ over .+: margin .+), error of the sum', out)[1]
    said = texts(page)
    assert any(text.startswith(line) for text in said)
    prediction, = (ax for ax in page.axes if ax.get_title() == 'prediction')
    assert prediction.images[0].get_array().shape == (128, 192, 3)
    assert {'for', 'against', 'logits a position'} <= {*said}
