"""The study: its protocols, its runs, its statistics, its command."""
import copy
import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import cv2
import fake_data
import numpy as np
import pytest
import torch
from conftest import ROOT, SEED, texts
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from cac_mmseg.datasets import CamVidDataset
from cac_mmseg.stack.config import build_datasets, load_config
from tools.study import plots, processes, report, results, settings, times
from tools.study.plan import FOLDER, HEADS, PROTOCOLS, Run, plan
from tools.study.processes import execute
from tools.study.worker import PerImageIoU, to_channels_last

# from scratch, and short enough for tests
SMALL = {
    'model.pretrained': None,
    'model.decode_head.channels': 32,
    'train_dataloader.batch_size': 2,
}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """A folder with CamVid in its genuine layout, to run in."""
    root = tmp_path_factory.mktemp('study')
    fake_data.camvid(root / 'data', np.random.default_rng(SEED))
    return root


def areas(rng, seeds=3, images=20, classes=5):
    union = rng.integers(0, 50, (seeds, images, classes)).astype(float)
    return np.floor(union * rng.random(union.shape)), union


def head(name, intersect, union):
    runs = [dict(seed=seed) for seed in range(len(union))]
    return results.HeadResults(name, runs, intersect, union)


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
    heads = [head('a', *areas(rng)), head('b', *areas(rng, seeds=2))]
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
    best = head('best', *areas(rng, seeds=1))
    half = best._replace(name='half', intersect=best.intersect / 2)
    equal = results.gaps([best, best._replace(name='equal')], 'best')['equal']
    worse = results.gaps([best, half], 'best')['half']
    assert equal == (0, 0, 0)
    assert worse.low < worse.mean < worse.high < 0
    assert worse.mean == pytest.approx(-best.scores.mean() / 2)


def test_a_gap_within_the_spread_of_the_seeds_is_none(rng):
    """However sure it is over the images."""
    intersect, union = areas(rng, seeds=1, images=200)

    def scaled(name, *scales):
        scales = np.array(scales)[:, None, None]
        return head(name, intersect * scales, union * np.ones_like(scales))

    bad = scaled('bad', 0.9, 0.89)
    sure = results.gaps([scaled('good', 1, 0.995), bad], 'bad')['good']
    unsure = results.gaps([scaled('wild', 1, 0.8), bad], 'bad')['wild']
    assert sure.low > 0
    assert unsure.low < 0 < unsure.high


def test_heads_are_compared_seed_by_seed(rng):
    """What a seed does to both of them is no difference."""
    intersect, union = areas(rng, seeds=1, images=200)
    luck = np.array([0.7, 0.8, 0.9])[:, None, None]
    union = union * np.ones_like(luck)
    good = head('good', intersect * luck, union)
    bad = head('bad', intersect * (luck - 0.05), union)
    sure = results.gaps([good, bad], 'bad')['good']
    assert sure.low > 0
    assert sure.mean == pytest.approx((good.scores - bad.scores).mean())
    # on the seeds that both have
    part = bad._replace(
        runs=bad.runs[1:2], intersect=bad.intersect[1:2], union=bad.union[1:2])
    some = results.gaps([good, part], 'bad')['good']
    assert some.mean == pytest.approx(good.scores[1] - bad.scores[1])


def test_all_heads_tell_what_a_seed_is_worth(rng):
    """The variance is that of an analysis in blocks, with its freedom."""
    intersect, union = areas(rng, 1, 50)
    factors = rng.uniform(0.5, 1, (4, 3, 1, 1))
    heads = [
        head(name, intersect * factor, union * np.ones_like(factor))
        for name, factor in zip('abcd', factors)
    ]
    scores = np.array([h.scores for h in heads])
    rest = scores - scores.mean(0) - scores.mean(1, keepdims=True) + \
        scores.mean()
    variance, dof = results.seed_variance(heads)
    assert variance == pytest.approx((rest**2).sum() / 6) and dof == 6
    # of two heads it is that of their differences
    variance, dof = results.seed_variance(heads[:2])
    differences = scores[0] - scores[1]
    assert 2 * variance == pytest.approx(differences.var(ddof=1)) and dof == 2
    # one head alone does not tell it from that of the seeds
    assert results.seed_variance(heads[:1]) == (0, 0)


@pytest.mark.parametrize(
    'names, shared, spread', [('ab', 0., 0.), ('ab', 0., 0.05),
                              ('ab', 0.05, 0.02), ('abcd', 0.05, 0.02)],
    ids=['images', 'seeds', 'seeds alike', 'four heads'])
def test_the_interval_covers_no_difference_as_often_as_it_says(
        names, shared, spread, rng, monkeypatch):
    """95 % of the time, whether images or seeds make heads differ by chance.

    400 intervals of 94 % cover fewer than 352 once in 1e6 tests, 400 of 80 %
    cover as many once in 1e4.
    """
    monkeypatch.setattr(results, 'DRAWS', 100)
    covered = 0
    for _ in range(400):
        union = rng.integers(1, 50, (1, 60, 2)) * np.ones((3, 1, 1))
        heads = []
        alike = shared * rng.standard_normal((3, 1, 1))
        for name in names:
            luck = alike + spread * rng.standard_normal((3, 1, 1))
            share = 0.5 + luck + rng.uniform(-0.3, 0.3, (1, 60, 2))
            heads.append(head(name, share * union, union))
        gap = results.gaps(heads, 'a')['b']
        covered += gap.low <= 0 <= gap.high
    assert covered >= 352


# ---- which runs


@pytest.mark.parametrize('place', [0, 18, 19, 39])
def test_no_two_heads_look_alike_in_a_plot(place):
    names = [f'head-{i}' for i in range(39)]
    names.insert(place, 'cac')
    heads = [results.HeadResults(name, [], *np.zeros(2)) for name in names]
    looks = [(plots.colour(i, heads), plots.marker(i)) for i in range(40)]
    assert len({*looks}) == 40


def test_every_head_has_a_config():
    assert {'fcn', 'pspnet', 'dmnet', 'channel-attention', 'cac'} <= {*HEADS}
    runs = plan(HEADS, 2, ROOT / 'nowhere')
    assert len({run.result_file for run in runs}) == 2 * len(HEADS)
    assert [run.seed for run in runs] == [0] * len(HEADS) + [1] * len(HEADS)
    assert {run.config.randomness.seed for run in runs} == {0, 1}


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_heads_of_a_protocol_share_everything_else(protocol):
    runs = plan(HEADS, 1, ROOT / 'nowhere', protocol)
    base = load_config(FOLDER / 'protocols' / f'{protocol}.py')
    init_default_scope('mmseg')
    for run in runs:
        head = run.config.model.decode_head
        for key in {*base.model.decode_head} - {'in_channels', 'in_index'}:
            assert head[key] == base.model.decode_head[key]
        shared = copy.deepcopy(base)
        shared.model.decode_head = head
        shared.randomness = run.config.randomness
        assert settings.settings(run.config) == settings.settings(shared)
        with torch.device('meta'):
            model = MODELS.build(run.config.model).eval()
            assert model.encode_decode(
                torch.empty(1, 3, 64, 64),
                [dict(img_shape=(64, 64))]).shape[1] == head.num_classes


@pytest.mark.parametrize('run', plan(HEADS, 1, ROOT, options=SMALL), ids=str)
def test_every_head_trains_in_channels_last(run):
    model = MODELS.build(run.config.model)
    to_channels_last(model)
    label = PixelData(data=torch.randint(0, 7, (1, 64, 64)))
    losses = model.loss(
        torch.randn(2, 3, 64, 64), [SegDataSample(gt_sem_seg=label)] * 2)
    sum(loss for name, loss in losses.items() if 'loss' in name).backward()
    assert all(p.grad is not None for p in model.decode_head.parameters())


def test_the_lists_of_animals_are_disjoint():
    folder = ROOT / 'tools/study/data/voc_animals'
    train, val, tune_train, tune_val = ({
        *(folder / f'{name}.txt').read_text().split()
    } for name in ('train', 'val', 'tune_train', 'tune_val'))
    assert len(train) == 2400 and len(val) == 445 and not train & val
    assert tune_train | tune_val == train and not tune_train & tune_val


def test_animals_are_read_from_the_official_tree(tmp_path, monkeypatch):
    """Images that the lists name, seven classes, all others ignored."""
    fake_data.make(tmp_path, 'voc12aug')
    monkeypatch.chdir(tmp_path)
    ids = tmp_path / 'ids.txt'
    ids.write_text('2007_000006\n2007_000007\n')
    config = plan(['cac'], 1, tmp_path)[0].config
    config.train_dataloader.dataset.ann_file = str(ids)
    dataset, = build_datasets(config, 'train')
    values = [0, 8, 10, 12, 13, 15, 17]  # of VOC
    for _ in range(2):  # the second time from memory
        loaded = dataset.pipeline.transforms[0](dataset.get_data_info(1))
        raw = cv2.imread(loaded['seg_map_path'], cv2.IMREAD_UNCHANGED)
        expected = np.full(256, 255)
        expected[values] = range(7)
        assert (loaded['gt_seg_map'] == expected[raw]).all()
        assert len(loaded['img']) == len(raw)
        loaded['gt_seg_map'][:] = 99  # what a later transform may do
    assert dataset.metainfo['classes'][1] == 'cat'
    assert max(dataset[0]['inputs'].shape[1:]) <= 256  # cropped


@pytest.mark.parametrize('heads, words', [
    (['nohead'], "got 'nohead'"),
    (['cac', 'cac'], "names 'cac' twice"),
    (['gone.py'], 'gone.py is not a file'),
])
def test_what_cannot_be_run_is_named(heads, words, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        plan(heads, 1, tmp_path)


def test_a_config_of_a_user_is_a_head_of_every_protocol(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(f"_base_ = '{ROOT}/tools/study/heads/cac.py'\n"
                    'model = dict(decode_head=dict(dilations=(1, )))')
    for protocol, classes in (('voc-animals', 7), ('camvid', 11)):
        run, = plan([str(path)], 1, tmp_path, protocol)
        assert run.head == 'mine'
        assert run.config.model.decode_head.dilations == (1, )
        assert run.config.model.decode_head.num_classes == classes


def test_the_schedule_can_be_lengthened():
    config = plan(['cac'], 1, ROOT / 'nowhere', iterations=2001)[0].config
    assert config.train_cfg.max_iters == config.param_scheduler[0].end == 2001
    assert config.train_cfg.val_interval == 1001


def test_a_result_of_another_config_is_not_taken_for_this_one(tmp_path):
    run, = plan(['cac'], 1, tmp_path)
    run.result_file.parent.mkdir()
    run.result_file.write_text(
        json.dumps(dict(settings=settings.settings(run.config))))
    with pytest.raises(ValueError, match='another model, pretrained:'):
        plan(['cac'], 1, tmp_path, options={'model.pretrained': None})
    with pytest.raises(ValueError, match='train_dataloader, val_dataloader:'):
        plan(['cac'], 1, tmp_path, 'voc-animals-tune')
    for key, value in (('train_cfg.max_iters',
                        3), ('model.decode_head.num_heads', 2),
                       ('optim_wrapper.optimizer.lr', 1.)):
        with pytest.raises(ValueError, match=f'another {key.split(".")[0]}:'):
            plan(['cac'], 1, tmp_path, options={key: value})


@pytest.mark.parametrize('start_from', [
    lambda path: {
        'model.pretrained': path
    },
    lambda path: {
        'load_from': path
    },
    lambda path: {
        'model.backbone.init_cfg': dict(type='Pretrained', checkpoint=path)
    },
    lambda path: {
        'model.decode_head.init_cfg':
        [dict(type='Pretrained', checkpoint=path, prefix='decode_head.')]
    },
])
def test_a_result_from_other_weights_is_not_taken_for_this_one(
        start_from, tmp_path):
    """What a file holds matters, where it is does not."""
    paths = [tmp_path / name for name in ('a.pth', 'b.pth', 'same.pth')]
    for path, content in zip(paths, (b'1', b'2', b'1')):
        path.write_bytes(content)
    first, second, same, url = (
        start_from(str(name)) for name in (*paths, 'https://host/a.pth'))
    run, = plan(['cac'], 1, tmp_path, options=first)
    run.result_file.parent.mkdir()
    run.result_file.write_text(
        json.dumps(dict(settings=settings.settings(run.config))))
    plan(['cac'], 1, tmp_path, options=same)
    for other in (second, url):
        with pytest.raises(ValueError, match='another pretrained:'):
            plan(['cac'], 1, tmp_path, options=other)


SHOWN = sorted(
    path for path in (ROOT / 'docs/study').iterdir() if path.is_dir())


@pytest.mark.parametrize('folder', SHOWN, ids=lambda folder: folder.name)
def test_the_results_in_the_docs_are_of_these_configs(folder, tmp_path,
                                                      monkeypatch):
    protocol, iterations, batch = re.fullmatch(r'(.+?)-(\d+)(?:-batch(\d+))?',
                                               folder.name).groups()
    options = {'train_dataloader.batch_size': int(batch)} if batch else None
    files = {*folder.glob('*.json')}
    heads = sorted({file.name.rsplit('-seed', 1)[0] for file in files})
    weights = re.search(r'SHA-256 starts with\s+`(\w{12})`',
                        (ROOT / 'docs/study.md').read_text())[1]
    monkeypatch.setattr(
        settings, 'pretrained', lambda config: weights
        if config.model.get('pretrained') else None)
    # fails for a result of another config
    runs = plan(
        heads,
        5,
        tmp_path,
        protocol,
        int(iterations),
        options=options,
        results=folder)
    runs = [run for run in runs if run.result_file in files]
    assert len(runs) == len(files) > 0
    table = folder.with_suffix('.csv')
    assert report.as_csv(results.read(runs)) == table.read_text()


def test_a_folder_of_something_else_is_not_overwritten(tmp_path):
    folder = tmp_path / 'cac-seed0'
    folder.mkdir(parents=True)
    plan(['cac'], 1, tmp_path)
    (folder / 'notes.txt').write_text('mine')
    with pytest.raises(ValueError, match='is not of a study'):
        plan(['cac'], 1, tmp_path)


def test_amp_is_bfloat16():
    run, = plan(['cac'], 1, ROOT / 'nowhere', 'camvid-full', amp=True)
    assert run.config.optim_wrapper.type == 'AmpOptimWrapper'
    assert run.config.optim_wrapper.dtype == 'bfloat16'


# ---- the command


@pytest.fixture(scope='module')
def command(data):
    """Start it; by default on CamVid, two seeds, two runs at a time."""

    def start(*arguments, **kwargs):
        line = [sys.executable, '-m', 'tools', 'study']
        line += ['--protocol', 'camvid', '--iterations', '2', '--out', 'out']
        line += ['--seeds', '2', '--jobs', '2', *arguments, '--cfg-options']
        line += [f'{key}={value}' for key, value in SMALL.items()]
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
    for number in (signal.SIGKILL, signal.SIGTERM):
        # ended in a run: the processes end with it
        for log in (data / 'out').glob('*/log.txt'):
            log.unlink()
        process = command(*heads, start_new_session=True)
        while not [*(data / 'out').glob('*/log.txt')]:
            time.sleep(0.2)
            assert process.poll() is None, process.communicate()[0]
        process.send_signal(number)
        status, output = finished(process)
        for _ in range(300):
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                break
            time.sleep(0.2)
        else:
            pytest.fail('a run goes on without its study')
        assert not [*(data / 'out/results').iterdir()]  # nor did one end
    assert status == 1 and 'the same command goes on' in output, output
    status, output = finished(command(*heads))
    assert status == 0 and '4 runs' in output, output
    made = {path.name for path in (data / 'out').iterdir()}
    assert made >= {
        'results.csv', 'summary.md', 'accuracy_cost.png', 'classes.png',
        'learning_curves.png', 'predictions.png', 'results', 'cac-seed0'
    }
    with open(data / 'out/results.csv') as file:
        rows = list(csv.DictReader(file))
    assert sorted((row['head'], row['seed']) for row in rows) == [('cac', '0'),
                                                                  ('cac', '1'),
                                                                  ('fcn', '0'),
                                                                  ('fcn', '1')]
    for row in rows:
        name = f'{row["head"]}-seed{row["seed"]}'
        folder = data / 'out' / name
        result = json.loads((data / f'out/results/{name}.json').read_text())
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
    kept = data / 'out/results/fcn-seed0.json'
    before = kept.stat().st_mtime_ns
    (data / 'out/results/cac-seed1.json').unlink()
    status, output = finished(command(*heads))
    assert status == 0 and '4 runs, 3 with a result' in output, output
    assert before == kept.stat().st_mtime_ns
    assert scores(summary) == scores((data / 'out/summary.md').read_text())


def scores(summary):
    """Heads of the table, scores and differences."""
    return [line.split('|')[1:6] for line in summary.splitlines()[2:4]]


@pytest.mark.slow
def test_a_run_that_fails_takes_none_along(command, data):
    bad = data / 'bad.py'
    bad.write_text(f"_base_ = '{ROOT}/tools/study/heads/fcn.py'\n"
                   "custom_hooks = [dict(type='NoHook')]\n")
    status, output = finished(
        command('--heads', 'bad.py', 'global-pool', '--seeds', '1'))
    assert status == 1
    log = data / 'out/bad-seed0/log.txt'
    assert f'bad, seed 0: failed, see {log}' in output
    assert 'NoHook' in log.read_text()
    assert '| `global-pool`' in output
    # and one alone leaves nothing to report
    status, output = finished(command('--heads', 'bad.py', '--seeds', '1'))
    assert status == 1 and f'failed, see {log}' in output
    assert 'Traceback' not in output


@pytest.mark.parametrize('gpus, set_to, given', [
    (0, {}, [dict(OMP_NUM_THREADS='2')] * 4),
    (0, dict(OMP_NUM_THREADS='1'), [dict(OMP_NUM_THREADS='1')] * 4),
    (2, {}, [dict(CUDA_VISIBLE_DEVICES=name) for name in '0101']),
    (2, dict(CUDA_VISIBLE_DEVICES='3,5'),
     [dict(CUDA_VISIBLE_DEVICES=name) for name in '3535']),
])
def test_runs_share_cores_and_gpus(tmp_path, monkeypatch, gpus, set_to, given):
    """Of 8 cores, or the threads that are asked for; or the GPUs there are."""
    found = []
    all_run = threading.Barrier(4)

    def run(run, environment, stopped):
        all_run.wait(60)  # no process gets the slot of another
        found.append(environment)
        yield 1

    monkeypatch.setattr(processes, '_run', run)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: gpus)
    monkeypatch.setattr(
        os, 'sched_getaffinity', lambda pid: range(8), raising=False)
    for name in ('OMP_NUM_THREADS', 'CUDA_VISIBLE_DEVICES'):
        monkeypatch.delenv(name, raising=False)
    for name, value in set_to.items():
        monkeypatch.setenv(name, value)
    runs = plan(['fcn'], 4, tmp_path, options=SMALL)
    assert execute(runs, 4) == runs  # none has left a result
    assert sorted(map(str, found)) == sorted(map(str, given))


def test_a_study_is_reported_from_what_it_left(data, tmp_path, rng, capsys,
                                               monkeypatch, figures):
    """Of one head and one seed, too."""
    monkeypatch.chdir(data)
    runs = []
    for name, count in (('cac', 2), ('gcnet', 1)):
        for seed in range(count):
            folder = tmp_path / f'{name}-seed{seed}'
            config = plan([name],
                          1,
                          tmp_path / 'none',
                          'camvid',
                          options=SMALL)[0].config
            runs.append(Run(name, seed, config, folder, folder / 'r.json'))
            (folder / 'masks').mkdir(parents=True)
            images = sorted(
                p.stem for p in (data / 'data/camvid/val').iterdir())
            for image in images:
                cv2.imwrite(
                    str(folder / 'masks' / f'{image}.png'),
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
                        saved_mib=3,
                        parameters=10**6,
                        multiply_adds=2 * 10**9,
                        device='a machine',
                        versions='versions')))
    monkeypatch.setattr(times, 'ROUNDS', 1)
    for some, timed in ((runs[:1], False), (runs, True)):
        figures.clear()
        report.publish(some, tmp_path, timed)
        printed = capsys.readouterr().out
        assert '| `cac` ' in printed and 'a machine' in printed
        assert ('predict, ms' in printed) == timed
    heads = results.read(runs)
    assert heads[0].scores.mean() >= heads[1].scores.mean()
    first, second = (line for line in report.table(heads).splitlines()[2:])
    assert f'| {heads[0].scores.mean():.1f} |' in first
    # the other one is compared with CaC
    assert ('[' in second) == (heads[0].name == 'cac') != ('[' in first)
    lines = report.as_csv(heads).splitlines()
    assert len(lines) == 4 and lines[0].startswith('head,seed,mIoU,class0,')
    names = ('accuracy_cost', 'learning_curves', 'classes', 'predictions')
    drawn = dict(zip(names, dict.fromkeys(figures), strict=True))
    for name, figure in drawn.items():
        size = cv2.imread(str(tmp_path / f'{name}.png')).shape
        dpi = 100 if name == 'predictions' else 120
        inches = figure.get_size_inches()
        assert size[1::-1] == pytest.approx(dpi * inches, abs=1.5)
    for i, head in enumerate(heads):
        for ax in drawn['accuracy_cost'].axes:
            point = ax.containers[i].lines[0]
            assert point.get_ydata()[0] == head.scores.mean()
        loss, scores = (ax.lines[i] for ax in drawn['learning_curves'].axes)
        assert loss.get_ydata().tolist() == pytest.approx([2., 1.5, 1., .8])
        assert scores.get_xydata().tolist() == [[5, 10], [10, 20]]
        bars = drawn['classes'].axes[0].containers[2 * i + 1]
        assert [bar.get_height()
                for bar in bars] == pytest.approx(head.class_scores.mean(0))
    for name in names[:3]:
        entries = drawn[name].legends[0].get_texts()
        assert {text.get_text() for text in entries} == {'cac', 'gcnet'}
    assert {'image', 'ground truth', 'cac'} <= {*texts(drawn['predictions'])}
    # what the first image's prediction, and not its ground truth, looks like
    mask = cv2.imread(str(sorted((runs[0].folder / 'masks').iterdir())[0]), 0)
    palette = np.array(CamVidDataset.METAINFO['palette'])
    _, truth, shown = (
        ax.images[0].get_array() for ax in drawn['predictions'].axes[:3])
    assert (shown == palette[mask]).all() and (truth != shown).any()


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
