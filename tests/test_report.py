"""The page that ends a validation."""
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from conftest import SEED, texts
from matplotlib.text import Text
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.dataset import RepeatDataset
from mmengine.evaluator import Evaluator
from mmengine.logging import MessageHub
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.registry import DATASETS, HOOKS, TRANSFORMS
from mmseg.structures import SegDataSample
from test_draw import META, row, tiles
from torch.utils.data import DataLoader
from toy_runs import ToyMetric

from cac_mmseg import ReportHook, WeightingMapsHook
from cac_mmseg.commands.adopt.text import missing_hooks
from cac_mmseg.drawing.report import Curves, draw_report, wrong_pixels
from cac_mmseg.hooks import history, report
from cac_mmseg.stack.confusion import (Confusion, decode, encode,
                                       worst_and_median)
from cac_mmseg.stack.unpickling import read


def sample(path, truth, prediction):
    """A validated sample, without ground truth where it is None."""
    maps = dict(pred_sem_seg=prediction)
    if truth is not None:
        maps['gt_sem_seg'] = truth
    return SegDataSample(
        metainfo=dict(img_path=path),
        **{
            name: PixelData(data=torch.as_tensor(labels)[None])
            for name, labels in maps.items()
        })


@pytest.mark.parametrize('ignored', [255, 0, -1])
@pytest.mark.parametrize('classes', [2, 19, 300])
def test_numbers_are_those_of_the_metric(rng, classes, ignored):
    """With labels that are ignored, that are no class, and absent classes."""
    metric = IoUMetric(ignore_index=ignored)
    metric.dataset_meta = dict(classes=[f'c{i}' for i in range(classes)])
    counts = 0
    for _ in range(3):
        truth, prediction = rng.integers(-2, classes + 2, (2, 20, 30)) // 2
        truth[:4] = ignored
        metric.process({}, [sample('', truth, prediction).to_dict()])
        codes = encode(truth, prediction, classes, ignored)
        counts = counts + Confusion.of(codes, classes).counts
        known = (truth != ignored) & (truth >= 0)
        maps = decode(codes.tobytes(), codes.shape, classes)
        for found, labels in zip(maps,
                                 (np.where(known, truth, -1), prediction)):
            assert (found == np.where(labels < 0, classes, labels)).all()
    confusion, areas = Confusion(counts), map(sum, zip(*metric.results))
    expected = metric.total_area_to_metrics(*areas)
    np.testing.assert_allclose(confusion.iou, expected['IoU'], rtol=1e-5)
    assert confusion.accuracy == pytest.approx(expected['aAcc'], rel=1e-5)
    np.testing.assert_allclose(
        confusion.rates.diagonal(), expected['Acc'], rtol=1e-5)
    assert 100 * confusion.mean_iou == pytest.approx(
        metric.compute_metrics(metric.results)['mIoU'], abs=0.006)


@pytest.mark.parametrize('scores, number, worst, middle', [
    ([5, 3, 1, 4, 2, 0, 6, 7], 4, [5, 2], [1, 3]),
    ([5, 3, 1, 4, 2], 1, [2], []),
    ([5, 3, 1, 4, 2], 2, [2], [1]),
    ([5, 3, 1], 4, [2, 1], [0]),
    ([3], 4, [0], []),
    ([np.nan, 3, np.nan, 1], 4, [3, 1], []),
    ([np.nan, np.nan], 4, [0, 1], []),
])
def test_the_worst_and_those_around_the_median(scores, number, worst, middle):
    assert worst_and_median(scores, number) == (worst, middle)


@TRANSFORMS.register_module()
class LoadArray(BaseTransform):

    def transform(self, results):
        return dict(results, img=np.load(results['img_path']))


@pytest.fixture
def runner(tmp_path):
    """A validation on six-channel arrays, with 300 classes."""
    for name in 'abc':
        np.save(tmp_path / f'{name}.npy', np.random.rand(8, 9, 6))
    data = DATASETS.build(
        dict(
            type='BaseSegDataset',
            data_root=str(tmp_path),
            img_suffix='.npy',
            metainfo=dict(classes=[f'c{i}' for i in range(300)]),
            pipeline=[dict(type='LoadArray')]))
    loader, said, shown = DataLoader(RepeatDataset(data, 1), 2), [], []
    evaluator = Evaluator([ToyMetric(), IoUMetric(ignore_index=7)])
    evaluator.dataset_meta = data.metainfo
    return SimpleNamespace(
        iter=2,
        work_dir=str(tmp_path),
        logger=SimpleNamespace(warning=said.append, info=said.append),
        said=said,
        shown=shown,
        message_hub=MessageHub(f'{tmp_path}'),
        val_dataloader=loader,
        test_dataloader=loader,
        val_evaluator=evaluator,
        test_evaluator=evaluator,
        visualizer=SimpleNamespace(add_image=lambda *args: shown.append(args)))


def validate(hook, runner, names='abc', metrics=None, mode='val', truth=True):
    """In the image of name a, one of 9 columns is right, in b two, ..."""
    for i, name in enumerate(names):
        prediction = np.full((9, 8), 299).T  # of any memory layout
        labels = np.zeros((9, 8), int).T
        labels[:, :1 + i] = 299
        labels[0] = 7  # ignored
        getattr(hook, f'after_{mode}_iter')(runner, i, None, [
            sample(f'{runner.work_dir}/{name}.npy', labels if truth else None,
                   prediction)
        ])
    getattr(hook, f'after_{mode}_epoch')(runner, metrics)


@pytest.mark.parametrize('mode, iteration, metrics, caption', [
    ('val', 400, dict(mIoU=91.789, aAcc=96.), 'val after 400 iterations: '
     'mIoU 91.79, aAcc 96.00'),
    ('val', 1, {
        'a/mDice': 1.,
        'a/mIoU': 5.
    }, 'val after 1 iteration: '
     'mIoU 5.00, aAcc 22.22'),
    ('test', 0, None, 'test: mIoU 11.11, aAcc 22.22'),
])
def test_the_page_says_when_and_how_well(runner, figures, mode, iteration,
                                         metrics, caption):
    runner.iter = iteration
    validate(ReportHook(), runner, metrics=metrics, mode=mode)
    found = [*texts(figures[0]), *texts(figures[-1])]
    for words in (caption, 'Never predicted: c0', 'never predicted',
                  'worst, IoU 5.6: a.npy', 'worst, IoU 11.1: b.npy',
                  'median, IoU 16.7: c.npy'):
        assert words in found
    assert any(
        words.startswith('No pixel in the ground truth: c1, c2, ')
        and words.endswith(' more') for words in found)
    assert any('mIoU, best' in words for words in found) == (mode == 'val')
    path = f'{runner.work_dir}/{mode}_report.png'
    (name, picture, step), = runner.shown
    assert (name, step) == (f'{mode}_report', iteration)
    assert (cv2.imread(path)[..., ::-1] == picture).all()
    score = caption.partition(': ')[2].partition(',')[0]
    assert runner.said == [f'{mode} {score}, report: {path}']


def test_without_ground_truth_there_are_images_only(runner, figures):
    hook = ReportHook(2)
    validate(hook, runner, mode='test', truth=False)
    figure, = figures
    assert texts(figure).count('no ground truth') == 2
    assert 'wrong pixels' not in texts(figure) and not hook.records
    assert runner.said == [f'report: {runner.work_dir}/test_report.png']


@pytest.fixture
def drawn(monkeypatch):
    """What pages are drawn of, which takes time."""
    drawn = []
    monkeypatch.setattr(
        'cac_mmseg.drawing.report.draw_report',
        lambda *args: drawn.append(args) or np.zeros((8, 8, 3), np.uint8))
    return drawn


@pytest.mark.parametrize('other', [False, True])
def test_a_resumed_run_continues_the_curves(runner, drawn, tmp_path, other):
    """From a checkpoint that was saved before the validation after it."""
    for i in range(9):
        runner.message_hub.update_scalar('train/loss', np.float32(9 - i))
    for runner.iter, miou in ((3, 10.), (6, 30.), (9, 20.)):
        if runner.iter == 6:
            torch.save(runner.message_hub.state_dict(), tmp_path / 'hub.pth')
        validate(ReportHook(), runner, metrics=dict(mIoU=np.float64(miou)))
    content, refused = read(tmp_path / 'hub.pth')
    assert refused == []  # it runs no code
    runner.message_hub = MessageHub('resumed')
    runner.message_hub.load_state_dict(content)
    if other:  # training has left its file in this folder
        (tmp_path / history.FILE).write_text('[[3, 11.0], [6, 31.0]]')
    runner.iter, hook = 6, ReportHook()
    hook.before_train(runner)
    runner.iter = 9
    validate(hook, runner, metrics=dict(mIoU=25.))
    curves = drawn[-1][-1]
    assert curves.losses.tolist() == [*range(9, 0, -1)]
    assert curves.scores == [[3, 10.]] + [[6, 30.]] * (not other) + [[9, 25.]]


@pytest.mark.parametrize('breaks', ['image', 'path', 'backend', 'rank'])
def test_a_page_never_ends_a_training(runner, drawn, breaks, monkeypatch):
    """One warning, and on: whatever fails, and however often."""
    hook, names, why = ReportHook(), 'abc', ''
    if breaks == 'image':
        for name in 'abc':
            with open(f'{runner.work_dir}/{name}.npy', 'w') as file:
                file.write('no array')
    elif breaks == 'path':
        names = 'xyz'
    elif breaks == 'backend':
        runner.visualizer.add_image = None
    else:
        why = 'KeyError: on another rank'
        monkeypatch.setattr(report, 'all_gather_object',
                            lambda part: [part, (why, False, 0, {})])
    for _ in range(3):
        validate(hook, runner, names)
    warning, = runner.said
    assert f'ReportHook draws no more pictures: {why}' in warning


def test_what_a_sampler_repeats_counts_once(runner, drawn, monkeypatch):
    """The second of two ranks, which share three images."""
    monkeypatch.setattr(report, 'get_world_size', lambda: 2)
    monkeypatch.setattr(report, 'get_rank', lambda: 1)
    sent = []
    monkeypatch.setattr(report, 'all_gather_object',
                        lambda part: sent.append(part) or [part])
    validate(ReportHook(), runner, 'ba')
    _, _, counts, scores = sent[0]
    assert [*scores] == [1] and counts[:-1].sum() == 7 * 9


def test_maps_never_end_a_training(runner):
    hook = WeightingMapsHook()
    for _ in range(3):
        hook.after_val_iter(runner, 0, None, [SimpleNamespace()])
    warning, = runner.said
    assert 'WeightingMapsHook draws no more' in warning


def test_the_earlier_name_is_in_configs():
    hook = HOOKS.build(dict(type='PredictionPictureHook', num_images=2))
    assert type(hook) is ReportHook and hook.num_images == 2
    config = Config(dict(custom_hooks=[dict(type='PredictionPictureHook')]))
    assert [*missing_hooks(config)] == ['preflight']


@pytest.mark.parametrize('count', [1, 30, 150])
def test_any_number_of_classes_fits(figures, count):
    names = [f'a $ class_with a long name, {i}' for i in range(count)]
    meta = dict(classes=names, palette=[[i, 255 - i, 9] for i in range(count)])
    labels = np.random.default_rng(SEED).integers(0, count, (60, 90))
    labels[0] = np.arange(90) % count
    codes = encode(labels, labels[::-1].copy(), count, 255)
    losses = np.array([1, np.nan, 2, np.inf, *[2.] * 96])
    draw_report('val', Confusion.of(codes, count), meta, [row(60, 90, 0, 0)],
                ['a'], Curves(losses, [(10, np.nan), (50, 30.), (100, 20.)]))
    figure = figures[0]
    loss, miou, bars, matrix = figure.axes
    raw, mean = loss.lines
    assert raw.get_xydata()[[0, -1]].tolist() == [[1, 1], [100, 2]]
    assert np.isfinite(mean.get_ydata()).all()
    assert miou.lines[1].get_xydata().tolist() == [[50, 30]]
    occur = len(np.unique(labels))
    assert len(bars.patches) == min(occur, 30)
    assert len(matrix.get_xticks()) == (20 if occur > 30 else occur)
    left_out = f'… {occur - 30} classes between'
    assert (left_out in texts(bars)) == (occur > 30)
    assert len(texts(bars)) > 3 * min(occur, 30)
    for text in [*bars.findobj(Text), *matrix.findobj(Text)]:
        (left, low), (right, high) = text.get_window_extent().get_points()
        assert not text.get_text() or (0 <= left and right <= 1600
                                       and 0 <= low), text


def test_wrong_pixels_are_red(figures):
    image, truth, prediction = row(40, 60, 1, 1)
    truth[:20], prediction[:, 30:] = len(META['classes']), 0
    found = wrong_pixels(image, truth, prediction, len(META['classes']))
    red = (found == [220, 0, 40]).all(2)
    assert red[20:, 30:].all() and red.sum() == 20 * 30
    codes = encode(truth, prediction, len(META['classes']), 5)
    draw_report('', Confusion.of(codes, 5), META, [(image, truth, prediction)],
                [''])
    assert ([*tiles(figures[-1])][3][0] == found).all()
