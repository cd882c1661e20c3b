"""The study: its runs, its stored features, its statistics, its command."""
import csv
import json
import os
import signal
import subprocess
import sys
import time

import cv2
import fake_data
import numpy as np
import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.registry import DATASETS, MODELS
from mmseg.structures import SegDataSample

from cac_mmseg.commands.study import features, processes, report, results
from cac_mmseg.commands.study.plan import HEADS, Run, plan
from cac_mmseg.commands.study.processes import execute
from cac_mmseg.commands.study.worker import PerImageIoU
from cac_mmseg.utils.checkpoint import load_weights

# a backbone from scratch that is fast enough for tests
SMALL = {
    'model.pretrained': None,
    'model.backbone.depth': 18,
    'model.decode_head.in_channels': 512,
    'model.decode_head.channels': 8,
    'train_cfg.max_iters': 2,
    'train_cfg.val_interval': 1,
    'train_dataloader.batch_size': 2,
}


@pytest.fixture
def rng():
    return np.random.default_rng()


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """A folder with CamVid in its genuine layout, to run in."""
    root = tmp_path_factory.mktemp('study')
    fake_data.camvid(root / 'data', np.random.default_rng())
    return root


def areas(rng, seeds=3, images=20, classes=5):
    union = rng.integers(0, 50, (seeds, images, classes)).astype(float)
    return np.floor(union * rng.random(union.shape)), union


def head(name, rng, **sizes):
    return results.HeadResults(name, [], *areas(rng, **sizes))


# ---- what is measured


def test_areas_of_images_are_those_of_mmseg(rng):
    """Their sums give the mIoU that mmseg reports."""
    metric = PerImageIoU(iou_metrics=['mIoU'])
    metric.dataset_meta = dict(classes=list('abcd'))
    single = []
    for _ in range(5):
        truth = torch.from_numpy(rng.choice([0, 1, 2, 255], (1, 8, 9)))
        guess = torch.from_numpy(rng.integers(0, 3, (1, 8, 9)))
        metric.process(
            {},
            [dict(gt_sem_seg=dict(data=truth), pred_sem_seg=dict(data=guess))])
        single.append(IoUMetric.intersect_and_union(guess, truth, 4, 255))
    reported = metric.compute_metrics(metric.results)['mIoU']
    intersect, union = (
        np.array(metric.areas[key]) for key in ('intersect', 'union'))
    for i, (one_intersect, one_union, *_) in enumerate(single):
        assert one_intersect.tolist() == intersect[i].tolist()
        assert one_union.tolist() == union[i].tolist()
    # the fourth class is nowhere, and does not count
    ours = results.mean_iou(intersect.sum(0), union.sum(0))
    assert ours == pytest.approx(reported, abs=0.0051)


# ---- what is said from it


def test_bootstrap_draws_the_same_images_for_all_heads(rng, monkeypatch):
    monkeypatch.setattr(results, 'DRAWS', 50)
    heads = [head('a', rng), head('b', rng, seeds=2)]
    drawn = results.bootstrap(heads, np.random.default_rng(7))
    counts = np.random.default_rng(7).multinomial(20, [1 / 20] * 20, size=50)
    for results_of, draws in zip(heads, drawn):
        assert draws.shape == (50, len(results_of.union))
        for count, scores in zip(counts, draws):
            picked = np.repeat(np.arange(20), count)
            for seed, score in enumerate(scores):
                intersect = results_of.intersect[seed][picked].sum(0)
                union = results_of.union[seed][picked].sum(0)
                expected = [100 * i / u for i, u in zip(intersect, union) if u]
                assert score == pytest.approx(np.mean(expected))


def test_a_head_is_not_behind_its_equal_and_is_behind_a_better_one(rng):
    best = head('best', rng, seeds=1)
    half = best._replace(name='half', intersect=best.intersect / 2)
    equal, worse = results.gaps([best, best, half])
    assert equal == (0, 0, 0, 1)
    assert 0 < worse.low < worse.mean < worse.high and worse.p < 1e-6
    assert worse.mean == pytest.approx(best.scores.mean() / 2)


def test_a_gap_within_the_spread_of_the_seeds_is_none(rng):
    """However sure it is over the images."""
    intersect, union = areas(rng, seeds=1, images=200)

    def scaled(*scales):
        scales = np.array(scales)[:, None, None]
        return results.HeadResults('', [], intersect * scales,
                                   union * np.ones_like(scales))

    sure, = results.gaps([scaled(1, 0.99), scaled(0.9, 0.89)])
    unsure, = results.gaps([scaled(1, 0.8), scaled(0.98, 0.78)])
    assert sure.low > 0 and sure.p < 0.05
    assert unsure.low < 0 < unsure.high and unsure.p > 0.5


@pytest.mark.parametrize('spread', [0., 0.05], ids=['images', 'seeds'])
def test_the_interval_covers_no_difference_as_often_as_it_says(
        spread, rng, monkeypatch):
    """95 % of the time, whether images or seeds make heads differ by chance.

    400 intervals of 94 % cover fewer than 352 once in 1e6 tests, 400 of 80 %
    cover as many once in 1e4.
    """
    monkeypatch.setattr(results, 'DRAWS', 100)
    covered = 0
    for _ in range(400):
        union = rng.integers(1, 50, (1, 60, 2)) * np.ones((3, 1, 1))
        pair = []
        for name in 'ab':
            luck = spread * rng.standard_normal((3, 1, 1))
            share = 0.5 + luck + rng.uniform(-0.3, 0.3, (1, 60, 2))
            pair.append(results.HeadResults(name, [], share * union, union))
        gap, = results.gaps(pair)
        covered += gap.low <= 0 <= gap.high
    assert covered >= 352


# ---- which runs


def test_every_head_has_a_config():
    assert {'fcn', 'pspnet', 'dmnet', 'channel-attention', 'cac'} <= {*HEADS}
    runs = plan(HEADS, 2, ROOT / 'nowhere')
    assert len({run.folder for run in runs}) == 2 * len(HEADS)
    # seed by seed: an interrupted study has something of every head
    assert [run.seed for run in runs] == [0] * len(HEADS) + [1] * len(HEADS)
    assert {run.config.randomness.seed for run in runs} == {0, 1}
    for run in runs:
        assert run.iterations == 1000 and run.full_config is None


@pytest.mark.parametrize('heads, words', [
    (['nohead'], "got 'nohead'"),
    (['cac', 'cac'], "names 'cac' twice"),
    (['gone.py'], 'gone.py is not a file'),
])
def test_what_cannot_be_run_is_named(heads, words, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        plan(heads, 1, tmp_path)


def test_a_config_of_ones_own_is_a_head(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(f"_base_ = '{ROOT}/configs/study/cac.py'\n"
                    "custom_imports = dict(imports=['cac_mmseg', 'json'])\n"
                    'model = dict(decode_head=dict(dilations=(1, )))')
    for frozen in (False, True):
        run, = plan([str(path)], 1, tmp_path, frozen)
        assert run.head == 'mine'
        assert run.config.model.decode_head.dilations == (1, )
        imports = ['cac_mmseg', 'json', 'cac_mmseg.commands.study.features']
        assert run.config.custom_imports.imports == imports[:2 + frozen]


@pytest.mark.parametrize('frozen', [False, True])
def test_a_run_of_another_config_is_not_taken_for_this_one(frozen, tmp_path):
    run, = plan(['cac'], 1, tmp_path, frozen)
    run.folder.mkdir(parents=True)
    run.config.dump(run.config_file)
    run.result_file.write_text('{}')
    plan(['cac'], 1, tmp_path, frozen)
    for options in ({
            'train_cfg.max_iters': 3
    }, {
            'model.pretrained': 'other.pth'
    }):
        with pytest.raises(ValueError, match='was made with another'):
            plan(['cac'], 1, tmp_path, frozen, options=options)
    with pytest.raises(ValueError, match='was made with another'):
        plan(['cac'], 1, tmp_path, not frozen)


def test_a_folder_of_something_else_is_not_overwritten(tmp_path):
    folder = tmp_path / 'cac/seed0'
    folder.mkdir(parents=True)
    plan(['cac'], 1, tmp_path)
    (folder / 'notes.txt').write_text('mine')
    with pytest.raises(ValueError, match='is not of a study'):
        plan(['cac'], 1, tmp_path)


def test_amp_is_bfloat16():
    run, = plan(['cac'], 1, ROOT / 'nowhere', amp=True)
    assert run.config.optim_wrapper.type == 'AmpOptimWrapper'
    assert run.config.optim_wrapper.dtype == 'bfloat16'
    assert run.config.optim_wrapper.optimizer.type == 'SGD'


# ---- stored features


@pytest.fixture(scope='module')
def stored(data):
    """A run on stored features, and the folder they are in."""
    before = os.getcwd()
    os.chdir(data)
    run, = plan(['cac'], 1, data / 'stored', frozen=True, options=SMALL)
    features.store_features(run.full_config, run.config, data / 'stored')
    folder = data / 'stored' / features.folder_name(run.full_config,
                                                    run.config)
    for step in features.loaders(run.config):
        step.folder = str(folder)
    yield run, folder
    os.chdir(before)


@torch.no_grad()
def predict(model, inputs, sample):
    """Logits."""
    out, = model.test_step(dict(inputs=[inputs], data_samples=[sample]))
    return out.seg_logits.data


def test_heads_on_stored_features_are_heads_on_the_backbone(stored):
    """The same weights predict the same, of an image and of its mirror."""
    run, _ = stored
    backbone = features._Backbone(run.full_config)
    whole = backbone.model.eval()
    with torch.no_grad():  # random ones hardly tell classes apart
        torch.nn.init.normal_(whole.decode_head.conv_seg.weight)
    alone = MODELS.build(run.config.model).eval()
    # the reduced scale has fewer channels, which SMALL sets for both
    alone.decode_head.load_state_dict(whole.decode_head.state_dict())
    dataset = DATASETS.build(run.config.val_dataloader.dataset)
    sample = dataset[0]
    assert sample['inputs'].dtype == torch.float16
    assert sample['data_samples'].img_shape == (180, 240)
    ours = predict(alone, sample['inputs'], sample['data_samples'])
    image = cv2.imread(sample['data_samples'].img_path)
    resized = cv2.resize(image, (240, 180))
    inputs = torch.from_numpy(resized.transpose(2, 0, 1).copy())
    theirs = predict(
        whole, inputs,
        SegDataSample(
            metainfo=dict(img_shape=(180, 240), ori_shape=image.shape[:2])))
    assert ours.shape == theirs.shape == (11, *image.shape[:2])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0.02 * theirs.std())


def test_features_of_the_mirror_go_with_the_mirrored_labels(stored):
    run, _ = stored
    dataset = DATASETS.build(run.config.train_dataloader.dataset)
    info = dataset.get_data_info(0)
    image = cv2.resize(cv2.imread(info['img_path']), (240, 180))
    label = cv2.resize(
        cv2.imread(info['seg_map_path'], cv2.IMREAD_UNCHANGED), (240, 180),
        interpolation=cv2.INTER_NEAREST)
    label[label == 11] = 255
    pair = features._Backbone(run.full_config)([image, image[:, ::-1]])
    seen = set()
    while len(seen) < 2:
        sample = dataset[0]
        own = sample['data_samples'].gt_sem_seg.data.numpy()[0]
        mirrored = int((own != label).any())
        seen.add(mirrored)
        assert (own == (label, label[:, ::-1])[mirrored]).all()
        far = [(sample['inputs'].float() - one).abs().mean() for one in pair]
        assert far[mirrored] < 1e-3 < far[1 - mirrored]


def test_features_are_computed_once(stored, data, monkeypatch):
    run, folder = stored
    files = sorted(folder.rglob('*.npy'))
    assert len(files) == 6
    assert {np.load(file).shape[0] for file in files} == {1, 2}

    def never(config):
        raise AssertionError('the backbone is not needed')

    monkeypatch.setattr(features, '_Backbone', never)
    features.store_features(run.full_config, run.config, data / 'stored')
    files[0].unlink()
    with pytest.raises(AssertionError, match='not needed'):
        features.store_features(run.full_config, run.config, data / 'stored')


def test_features_of_other_weights_have_another_folder():
    names = set()
    for options in ({}, {
            'model.pretrained': 'other.pth'
    }, {
            'model.backbone.style': 'caffe'
    }, {
            'val_dataloader.dataset.data_root': 'elsewhere'
    }, {
            'train_dataloader.batch_size': 8
    }):
        run, = plan(['fcn'], 1, ROOT, frozen=True, options=options)
        names.add(features.folder_name(run.full_config, run.config))
    assert len(names) == 4  # the batch does not matter


@pytest.mark.parametrize('name', HEADS)
def test_heads_train_on_stored_features(name):
    run, = plan([name], 1, ROOT, frozen=True)
    init_default_scope('mmseg')
    model = MODELS.build(run.config.model)
    labels = torch.randint(0, 11, (1, 32, 48))
    data = dict(
        inputs=[torch.rand(2048, 4, 6).half() for _ in range(2)],
        data_samples=[
            SegDataSample(gt_sem_seg=PixelData(data=labels)) for _ in range(2)
        ])
    model.train()
    loss, _ = model.parse_losses(
        model(**model.data_preprocessor(data, training=True), mode='loss'))
    loss.backward()
    assert torch.isfinite(loss)
    assert model.decode_head.channels == 128
    assert not hasattr(model, 'auxiliary_head')


# ---- the command


@pytest.fixture(scope='module')
def command(data):
    """Start it; by default on two seeds, two runs at a time."""

    def start(*arguments, frozen=True, **kwargs):
        options = SMALL if frozen else {
            **SMALL, 'model.auxiliary_head.in_channels': 256
        }
        line = [sys.executable, '-m', 'cac_mmseg', 'study']
        line += ['--frozen'] * frozen
        line += ['--out', 'out', '--seeds', '2', '--jobs', '2', *arguments]
        line += ['--cfg-options']
        line += [f'{key}={value}' for key, value in options.items()]
        return subprocess.Popen(
            line,
            cwd=data,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **kwargs)

    return start


def finished(process):
    output = process.communicate(timeout=600)[0]
    return process.returncode, ' '.join(output.split())


@pytest.mark.slow
def test_the_command_from_an_empty_folder(command, data):
    heads = ('--heads', 'fcn', 'cac')
    # killed in a run: the processes end with it
    process = command(*heads, start_new_session=True)
    while not [*(data / 'out').glob('*/seed*/log.txt')]:
        time.sleep(0.2)
        assert process.poll() is None, process.communicate()[0]
    process.terminate()
    status, output = finished(process)
    assert status == 1 and 'the same command goes on' in output, output
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    status, output = finished(command(*heads))
    assert status == 0 and '4 runs' in output, output
    made = {path.name for path in (data / 'out').iterdir()}
    assert made >= {
        'results.csv', 'summary.md', 'accuracy_cost.png', 'classes.png',
        'learning_curves.png', 'predictions.png', 'fcn', 'cac'
    }
    with open(data / 'out/results.csv') as file:
        rows = list(csv.DictReader(file))
    assert sorted((row['head'], row['seed']) for row in rows) == [('cac', '0'),
                                                                  ('cac', '1'),
                                                                  ('fcn', '0'),
                                                                  ('fcn', '1')]
    for row in rows:
        folder = data / 'out' / row['head'] / f'seed{row["seed"]}'
        result = json.loads((folder / 'result.json').read_text())
        # what mmseg has reported, and what we add up
        assert result['curve'][-1] == [
            2, pytest.approx(float(row['mIoU']), abs=0.0051)
        ]
        assert len(result['curve']) == 2 == result['iterations']
        assert result['seconds_per_iteration'] > 0 < result['peak_mib']
        assert len([*(folder / 'masks').iterdir()]) == 3
        assert (folder / 'work_dir/iter_2.pth').is_file()
    # it carries out what is missing, and that comes to the same
    summary = (data / 'out/summary.md').read_text()
    before = (data / 'out/fcn/seed0/result.json').stat().st_mtime_ns
    (data / 'out/cac/seed1/result.json').unlink()
    status, output = finished(command(*heads))
    assert status == 0 and '4 runs, 3 are there' in output, output
    assert before == (data / 'out/fcn/seed0/result.json').stat().st_mtime_ns
    assert scores(summary) == scores((data / 'out/summary.md').read_text())


def scores(summary):
    """Head, mIoU and std of the table."""
    return [line.split('|')[1:4] for line in summary.splitlines()[2:4]]


@pytest.mark.slow
def test_the_command_trains_the_backbone_where_it_is_not_frozen(command, data):
    status, output = finished(
        command(
            '--heads', 'cac', '--seeds', '1', '--out', 'whole', frozen=False))
    assert status == 0 and '| cac ' in output, output
    weights = load_weights(data /
                           'whole/cac/seed0/work_dir/iter_2.pth')['state_dict']
    assert 'backbone.conv1.weight' in weights or any(
        key.startswith('backbone.stem') for key in weights)
    assert 'auxiliary_head.conv_seg.weight' in weights


@pytest.mark.slow
def test_a_run_that_fails_takes_none_along(command, data):
    bad = data / 'bad.py'
    bad.write_text(f"_base_ = '{ROOT}/configs/study/fcn.py'\n"
                   "custom_hooks = [dict(type='NoHook')]\n")
    status, output = finished(
        command('--heads', 'bad.py', 'global-pool', '--seeds', '1'))
    assert status == 1
    log = data / 'out/bad/seed0/log.txt'
    assert f'bad, seed 0: failed, see {log}' in output
    assert 'NoHook' in log.read_text()
    assert '| global-pool' in output
    # and one alone leaves nothing to report
    status, output = finished(command('--heads', 'bad.py', '--seeds', '1'))
    assert status == 1 and f'failed, see {log}' in output
    assert 'Traceback' not in output


def test_a_study_is_reported_from_what_it_left(data, tmp_path, rng, capsys,
                                               monkeypatch):
    """Of one head and one seed, too."""
    monkeypatch.chdir(data)
    runs = []
    for name, count in (('cac', 2), ('gcnet', 1)):
        for seed in range(count):
            folder = tmp_path / name / f'seed{seed}'
            config = Config.fromfile(ROOT / f'configs/study/{name}.py')
            runs.append(Run(name, seed, config, folder))
            (folder / 'masks').mkdir(parents=True)
            images = sorted(map(str, (data / 'data/camvid/val').iterdir()))
            for image in images:
                cv2.imwrite(
                    str(folder / 'masks' / os.path.basename(image)),
                    rng.integers(0, 11, fake_data.SIZE, dtype=np.uint8))
            intersect, union = areas(rng, 1, len(images), 11)
            runs[-1].result_file.write_text(
                json.dumps(
                    dict(
                        classes=[f'class{i}' for i in range(11)],
                        images=images,
                        intersect=intersect[0].tolist(),
                        union=union[0].tolist(),
                        curve=[[5, 10.], [10, 20.]],
                        loss=[2., 1.5, 1., .8],
                        iterations=10,
                        seconds_per_iteration=0.1 + seed,
                        peak_mib=100,
                        parameters=10**6,
                        multiply_adds=2 * 10**9,
                        device='a machine',
                        versions='versions')))
    for some in (runs, runs[:1]):
        report.publish(some, tmp_path)
        printed = capsys.readouterr().out
        assert '| cac ' in printed and 'a machine' in printed
    heads = results.read(runs)
    assert heads[0].scores.mean() >= heads[1].scores.mean()
    first, second = (line for line in report.table(heads).splitlines()[2:])
    assert f'| {heads[0].scores.mean():.2f} |' in first
    assert '[' in second and '[' not in first
    lines = report.as_csv(heads).splitlines()
    assert len(lines) == 4 and lines[0].startswith('head,seed,mIoU,class0,')
    for name in ('accuracy_cost', 'learning_curves', 'classes', 'predictions'):
        assert cv2.imread(str(tmp_path / f'{name}.png')).std() > 1


def test_no_run_is_carried_out_where_none_is_missing():
    assert execute([], 1) == []


@pytest.mark.parametrize('deaf', [False, True])
def test_a_process_that_ignores_being_asked_to_end_is_killed(
        deaf, monkeypatch):
    monkeypatch.setattr(processes, 'GRACE', 0.5)
    code = ('import signal, time\n' +
            'signal.signal(signal.SIGTERM, signal.SIG_IGN)\n' * deaf +
            'print("up", flush=True)\ntime.sleep(60)')
    process = subprocess.Popen([sys.executable, '-c', code],
                               stdout=subprocess.PIPE)
    process.stdout.readline()
    processes.end(process)
    expected = signal.SIGKILL if deaf else signal.SIGTERM
    assert process.returncode == -expected
