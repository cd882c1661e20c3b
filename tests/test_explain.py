"""explain: which regions it asks about, and its pages."""
import re
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from conftest import texts
from mmseg.apis import init_model

from cac_mmseg.__main__ import main
from cac_mmseg.commands.explain import questions

CLASSES = ['sky', 'road', 'car']
LABELS = np.zeros((20, 30), int)
LABELS[12:] = 1
LABELS[14:18, 2:6] = 2  # a small car,
LABELS[13:19, 15:25] = 2  # and a large one
LABELS[0, 0] = 1  # too small for a page


def ask(**changes):
    arguments = dict(class_name=None, mask=None, at=None) | changes
    return [*questions(SimpleNamespace(**arguments), LABELS, CLASSES)]


def test_by_default_the_largest_region_of_each_class():
    found = {index: region for region, index in ask()}
    assert [*found] == [0, 1, 2]
    assert not found[1][0, 0] and found[1][19, 0]
    assert found[2].sum() == 60 and found[2][15, 20]


def test_a_pixel_asks_about_its_region():
    (region, index), = ask(at=(3, 15))  # x, y
    assert index == 2 and region.sum() == 16 and region[14, 2]
    (region, index), = ask(at=(3, 15), class_name='road')
    assert index == 1 and region.sum() == 16


def test_a_class_asks_about_its_largest_region():
    (region, index), = ask(class_name='car')
    assert index == 2 and region.sum() == 60


def test_a_mask_is_the_region(tmp_path):
    mask = np.zeros((20, 30), np.uint8)
    mask[3:5, 7:9] = 200
    cv2.imwrite(str(tmp_path / 'mask.png'), mask)
    (region, index), = ask(mask=str(tmp_path / 'mask.png'))
    assert index is None and (region == (mask > 0)).all()


@pytest.mark.parametrize('arguments, words', [
    (['--at', '100', '60', '--class', 'waiting car', '--against', 'tree'
      ], 'waiting car over tree: margin'),
    (['--class', 'tree', '--at', '5', '5'], 'tree over '),
])
def test_a_page_with_its_numbers(tmp_path, configs, capsys, figures, arguments,
                                 words):
    config = configs / 'cac_r18_contextshapes.py'
    torch.save(
        init_model(str(config), device='cpu').state_dict(), tmp_path / 'w.pth')
    main([
        'explain',
        str(config),
        str(tmp_path / 'w.pth'), 'contextshapes://image/val/0/000003.png',
        '--out',
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
