"""The measurements of docs/explain.md: what they call signal, and a run."""
import re

import cv2
import pytest
import torch
from mmseg.apis import init_model

from cac_mmseg.datasets.scene import GREEN, RED, draw_scene
from tools.checks import explain_check


@pytest.fixture(scope='module')
def model_files(tmp_path_factory, configs):
    config = str(configs / 'cac_r18_contextshapes.py')
    model = init_model(config, device='cpu')
    # margins, and what changes them, are small at the start
    torch.nn.init.normal_(model.decode_head.conv_seg.weight, std=3)
    weights = str(tmp_path_factory.mktemp('model') / 'w.pth')
    torch.save(model.state_dict(), weights)
    return config, weights


def test_the_cells_of_the_signal_hold_its_lamps():
    for index in range(20):
        image, _ = draw_scene('val', 0, index)
        cells = explain_check.signal_cells(image)
        assert 0.04 < cells.float().mean() < 0.08
        # at that border, only a lamp has such colours
        lamp = ((abs(image.astype(int) - RED).max(2) < 40) |
                (abs(image.astype(int) - GREEN).max(2) < 40))
        left = cells[:, 0].any()
        lamp[:, 26:] &= not left
        lamp[:, :-26] &= bool(left)
        held = torch.from_numpy(lamp).view(16, 8, 24, 8).sum((1, 3)).bool()
        assert held.any() and not (held & ~cells).any()


def test_maps_are_compared(model_files, capsys):
    explain_check.main(
        ['signal', *model_files, model_files[1], '--images', '2'])
    rows = re.findall(r'^\| ([\w -]+) \| ([\d.]+) \(([\d.]+) to ([\d.]+)\) \|',
                      capsys.readouterr().out, re.M)
    assert [name for name, *_ in rows] == [
        'shares', 'Grad-CAM', 'gradient x input', 'occlusion', 'random'
    ]
    mass = {name: float(mean) for name, mean, *_ in rows}
    assert 3 < mass['random'] < 10  # the area of the signal
    low, high = rows[0][2:]
    assert low == high  # of the same seed twice


def test_positions_are_deleted(model_files, tmp_path, capsys, figures):
    picture = tmp_path / 'plot.png'
    explain_check.main(
        ['delete', *model_files, '--images', '2', '--plot',
         str(picture)])
    rows = re.findall(
        r'^\| ([a-z ]+) \| (\d+)% \| ([+-][\d.]+) ± [\d.]+ \| ([+-][\d.]+)',
        capsys.readouterr().out, re.M)
    falls = {
        (order, int(part)): (float(fall), float(by_map))
        for order, part, fall, by_map in rows
    }
    assert len(falls) == 1 + 3 * len(explain_check.PARTS)
    assert falls['none', 0] == (0, 0)
    assert cv2.imread(str(picture)).shape[2] == 3
    ax = figures[-1].axes[0]
    for drawn, order in zip(
            ax.containers, ('largest shares', 'random', 'smallest shares'),
            strict=True):
        assert drawn.get_label() == order
        assert drawn.lines[0].get_ydata()[-1] == pytest.approx(
            falls[order, 50][0], abs=0.0006)
    largest, smallest = (
        falls[f'{name} shares', 50] for name in ('largest', 'smallest'))
    assert largest[0] > falls['random', 50][0] > smallest[0]
    for fall, by_map in (largest, smallest):
        assert fall == pytest.approx(by_map, rel=0.5)


def test_costs_are_printed(configs, capsys):
    explain_check.main([
        'cost',
        str(configs / 'cac_r18_contextshapes.py'), '--size', '64', '96'
    ])
    out = capsys.readouterr().out
    assert all(f'| {name} | ' in out for name in ('forward', 'region', 'page'))
    assert '96 places in steps of 1/8 and 1/12' in out
