"""The study: its protocols, its runs, their results, its command."""
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import fake_data
import numpy as np
import pytest
import torch
from conftest import ROOT, SEED, texts
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from cac_mmseg.datasets import CamVidDataset
from cac_mmseg.stack.config import (build_datasets, dataset_without_data,
                                    load_config)
from tools.__main__ import main
from tools.study import plots, processes, report, results, settings, times
from tools.study.plan import FOLDER, HEADS, PROTOCOLS, compose, plan
from tools.study.statistics import HeadResults, by_head
from tools.study.worker import to_channels_last

# from scratch, and short enough for tests
SMALL = {
    'model.pretrained': None,
    'model.decode_head.channels': 32,
    'train_dataloader.batch_size': 2,
}
DOCS = (ROOT / 'docs/study.md').read_text()
PUBLISHED = sorted((ROOT / 'docs/study').glob('*.npz'))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """A folder with CamVid in its genuine layout, to run in."""
    root = tmp_path_factory.mktemp('study')
    fake_data.camvid(root / 'data', np.random.default_rng(SEED))
    return root


# ---- which runs


def test_a_head_of_ours_is_nothing_but_a_head():
    """So all else is the protocol's, the same for all."""
    shared = {'channels', 'dropout_ratio', 'num_classes', 'norm_cfg'}
    for head in HEADS.values():
        assert not shared & head.keys()


@pytest.mark.parametrize('protocol',
                         ['camvid', 'contextshapes', 'camvid-full'])
def test_every_head_trains_on_the_stages_of_a_backbone(protocol):
    """In channels_last; of a large one, shapes alone."""
    init_default_scope('mmseg')
    large = protocol == 'camvid-full'
    base = load_config(FOLDER / f'protocols/{protocol}.py')
    with torch.device('meta'):
        backbone = MODELS.build(base.model.backbone)
        backbone.eval()
        shapes = [stage.shape for stage in backbone(torch.empty(2, 3, 64, 64))]
    assert [shapes[i][1] for i in base.stage_indices] == [*base.stage_channels]
    for name in HEADS:
        config = compose(base, name).model.decode_head
        if not large:
            config.channels = 32
        with torch.device('meta' if large else 'cpu'):
            head = MODELS.build(config).train(not large)
            to_channels_last(head)
            stages = [torch.randn(shape) for shape in shapes]
            if large:
                assert head.predict(stages, [dict(img_shape=(64, 64))] * 2,
                                    {}).shape == (2, 11, 64, 64)
                continue
        label = torch.randint(head.num_classes, (1, 64, 64))
        samples = [SegDataSample(gt_sem_seg=PixelData(data=label))] * 2
        losses = head.loss(stages, samples, {})
        sum(loss for key, loss in losses.items() if 'loss' in key).backward()
        assert all(p.grad is not None for p in head.parameters()), name


def test_a_branch_is_held_back_in_training_alone():
    """Dropped for some images, of a tenth of the gradient, or late."""
    init_default_scope('mmseg')
    base = load_config(FOLDER / 'protocols/crossing.py')
    stages = [torch.randn(64, c, 2, 3) for c in base.stage_channels]
    plain, *heads = (
        MODELS.build(compose(base, name).model.decode_head)
        for name in ('cac', 'cac-branch-dropped', 'cac-branch-slow',
                     'cac-branch-late'))
    hub = MessageHub.get_current_instance()
    for head in heads:
        head.load_state_dict(plain.state_dict())
        assert torch.equal(head.eval()(stages), plain.eval()(stages))

    def branch(head):
        head.train().zero_grad()
        output = head._pool(stages[1])
        output.sum().backward()
        return output, head.pool_conv.bn.bias.grad

    whole, gradient = branch(plain)
    dropped, slow, late = heads
    kept = branch(dropped)[0].flatten(1).any(1)
    assert 10 < kept.sum() < 54
    assert torch.equal(branch(slow)[0], whole)
    torch.testing.assert_close(branch(slow)[1], gradient / 10)
    hub.update_info('max_iters', 30)
    for iteration, expected in ((9, 0 * whole), (10, whole)):
        hub.update_info('iter', iteration)
        assert torch.equal(branch(late)[0], expected)


def test_protocols_are_whole():
    for protocol in PROTOCOLS:
        config = plan(['cac'], 1, ROOT / 'nowhere', protocol)[0].config
        classes = dataset_without_data(config).metainfo['classes']
        assert config.model.decode_head.num_classes == len(classes)


def test_the_runs_of_a_study():
    runs = plan(['fcn', 'cac'], 2, ROOT / 'nowhere', 'camvid-full', 2001, True)
    assert [f'{run} {run.config.randomness.seed}' for run in runs] == [
        'fcn, seed 0 0', 'cac, seed 0 0', 'fcn, seed 1 1', 'cac, seed 1 1'
    ]
    assert len({run.result_file for run in runs}) == 4
    config = runs[3].config
    assert config.train_cfg.max_iters == config.param_scheduler[0].end == 2001
    assert config.train_cfg.val_interval == 201  # of 10,000 it is 1,000
    assert config.val_evaluator.type == 'PerImageIoU'
    assert config.optim_wrapper.type == 'AmpOptimWrapper'
    assert config.optim_wrapper.dtype == 'bfloat16'


def test_a_config_of_a_user_is_a_head_of_every_protocol(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text("model = dict(decode_head=dict(type='CaCHead', "
                    "dilations='${atrous_rates}'))\n"
                    'train_cfg = dict(max_iters=3)\n')
    for protocol, classes, rate in ('camvid', 11, 6), ('voc-animals-full', 7,
                                                       12):
        cac, mine = plan(['cac', str(path)], 1, tmp_path, protocol)
        head = mine.config.model.decode_head
        assert (mine.head, mine.iterations, head.type) == ('mine', 3,
                                                           'CaCHead')
        assert (head.dilations[1], head.num_classes) == (rate, classes)
        # and changes no other one
        hooks = cac.config.default_hooks
        assert hooks.checkpoint.interval == cac.iterations > 3
        # with --iterations it is validated as often as the others
        cac, mine = plan(['cac', str(path)], 1, tmp_path, protocol, 200)
        assert cac.config.train_cfg.items() <= mine.config.train_cfg.items()
    with pytest.raises(FileNotFoundError, match='gone.py is not a file'):
        plan(['gone.py'], 1, tmp_path)
    path.write_text("model = dict(type='EncoderDecoder')")
    with pytest.raises(ValueError, match='gives no model.decode_head'):
        plan([str(path)], 1, tmp_path)
    path.write_text("model = dict(decode_head='${rates}')")
    with pytest.raises(ValueError, match="mine.py: .* has no 'rates'"):
        plan([str(path)], 1, tmp_path)


def test_animals_are_read_from_the_official_tree(tmp_path, monkeypatch):
    """Images that the lists name, seven classes, all others ignored."""
    train, val, tune_train, tune_val = ({
        *(FOLDER / f'data/voc_animals/{name}.txt').read_text().split()
    } for name in ('train', 'val', 'tune_train', 'tune_val'))
    assert len(train) == 2400 and len(val) == 445 and not train & val
    assert tune_train | tune_val == train and not tune_train & tune_val
    fake_data.make(tmp_path, 'voc12aug')
    monkeypatch.chdir(tmp_path)
    ids = tmp_path / 'ids.txt'
    ids.write_text('2007_000006\n2007_000007\n')
    config = plan(['cac'], 1, tmp_path)[0].config
    config.train_dataloader.dataset.ann_file = str(ids)
    dataset, = build_datasets(config, 'train')
    for _ in range(2):  # the second time from memory
        loaded = dataset.pipeline.transforms[0](dataset.get_data_info(1))
        raw = cv2.imread(loaded['seg_map_path'], cv2.IMREAD_UNCHANGED)
        expected = np.full(256, 255)
        expected[[0, 8, 10, 12, 13, 15, 17]] = range(7)  # values of VOC
        assert (loaded['gt_seg_map'] == expected[raw]).all()
        assert len(loaded['img']) == len(raw)
        loaded['gt_seg_map'][:] = 99  # what a later transform may do
    assert dataset.metainfo['classes'][1] == 'cat'
    assert max(dataset[0]['inputs'].shape[1:]) <= 256  # cropped


def test_what_a_result_depends_on(tmp_path):

    def of(key, value, protocol='voc-animals'):
        run, = plan(['cac'], 1, tmp_path, protocol, options={key: value})
        return settings.settings(run.config)

    ours = of('work_dir', 'anywhere')
    tune = of('work_dir', 'anywhere', 'voc-animals-tune')
    different = settings.different(ours, tune)
    assert different == ['lists', 'train_dataloader', 'val_dataloader']
    for key in ('train_cfg.max_iters', 'model.decode_head.num_heads',
                'optim_wrapper.optimizer.lr', 'custom_hooks'):
        assert settings.different(ours, of(key, 3)) == [key.split('.')[0]]
    # what a file holds, not where it is
    file, elsewhere = tmp_path / 'file', tmp_path / 'elsewhere'
    start = dict(type='Pretrained', checkpoint=str(file))
    for key, value in {
            'model.pretrained': str(file),
            'load_from': str(file),
            'model.backbone.init_cfg': start,
            'model.decode_head.init_cfg': [start],
            'train_dataloader.dataset.ann_file': str(file)
    }.items():
        digests = []
        for content in 'aba':
            file.write_text(content)
            digests.append(of(key, value))
        part = 'lists' if 'ann_file' in key else 'pretrained'
        assert settings.different(*digests[:2]) == [part]
        assert settings.different(*digests[::2]) == []
    here = of('model.pretrained', str(file))
    file.rename(elsewhere)
    assert here == of('model.pretrained', str(elsewhere)) != of(
        'model.pretrained', str(file))
    # results from before lists were compared are recognised
    del tune['lists']
    assert 'lists' not in settings.different(tune, ours)


def test_what_is_there_is_neither_taken_for_this_study_nor_lost(tmp_path, rng):
    run, = plan(['cac'], 1, tmp_path)
    run.result_file.parent.mkdir()
    there = {**result(rng), 'settings': settings.settings(run.config)}
    results.save_run(there, run.result_file)
    plan(['cac'], 1, tmp_path)
    with pytest.raises(ValueError, match='another model, pretrained: give'):
        plan(['cac'], 1, tmp_path, options={'model.pretrained': None})
    run.result_file.write_text(run.result_file.read_text()[:-9])
    with pytest.raises(ValueError, match='cac-seed0.json .*: remove it'):
        plan(['cac'], 1, tmp_path)
    run.result_file.unlink()
    # killed while it wrote its config, or while the one before was removed
    (run.folder / '.cac_mmseg-x').mkdir(parents=True)
    (run.folder / 'work_dir').mkdir()
    plan(['cac'], 1, tmp_path)
    run.config_file.write_text('')
    (run.folder / 'notes.txt').write_text('mine')
    with pytest.raises(ValueError, match=r'has notes\.txt, not of a run'):
        plan(['cac'], 1, tmp_path)


# ---- results


def result(rng, head='cac', seed=0, images=('a', 'b')):
    """What a worker leaves."""
    union = rng.integers(1, 50, (len(images), 11))
    figures = dict.fromkeys(results.FIGURES, 1)
    return dict(
        figures,
        head=head,
        seed=seed,
        settings=dict(model='0b2d37d66bd6'),
        device='a machine',
        versions='versions',
        loss=[2., 1.5, 1., .75],
        curve=[[5, 10.], [10, 20.]],
        classes=[f'class{i}' for i in range(11)],
        images=[*images],
        intersect=rng.integers(0, union),
        union=union)


def rows(text):
    """Cells of the first Markdown table in a text, by heading."""
    lines = re.search(r'(\|.*\|\n)+', text)[0].splitlines()
    titles, _, *cells = [[*map(str.strip, line[1:-1].split('|'))]
                         for line in lines]
    return [dict(zip(titles, row)) for row in cells]


@pytest.mark.parametrize('path', PUBLISHED, ids=lambda path: path.stem)
def test_published_results_are_of_these_configs_and_print_the_tables(
        path, tmp_path, monkeypatch, capsys):
    """As docs/study.md shows them, to the last digit."""
    weights = re.search(r'SHA-256\s+starts with\s+`(\w{12})`', DOCS)[1]
    digest = settings._digest
    monkeypatch.setattr(
        settings, '_digest', lambda content: weights
        if content == b'mmcls://mobilenet_v2' else digest(content))
    protocol, iterations, batch = re.fullmatch(r'(.+?)-(\d+)(?:-batch(\d+))?',
                                               path.stem).groups()
    options = {'train_dataloader.batch_size': int(batch)} if batch else None
    found = results.load(path)
    heads = sorted({one['head'] for one in found})
    seeds = 1 + max(one['seed'] for one in found)
    runs = plan(heads, seeds, tmp_path, protocol, int(iterations), False,
                options)
    asked = {str(run): settings.settings(run.config) for run in runs}
    if protocol == 'crossing':
        dataset, = build_datasets(runs[0].config, 'val')
        bounds = {one[results.BOUND] for one in found}
        assert bounds == {dataset.additive_bound()}
    assert asked == {
        '{head}, seed {seed}'.format(**one): one['settings']
        for one in found
    }
    assert report.as_csv(
        by_head(found)) == path.with_suffix('.csv').read_text()
    main(['table', str(path)])
    printed = rows(capsys.readouterr().out)
    shown = [
        block for block in DOCS.split('\n\n')
        if ' | '.join([*printed[0].values()][:3]) in block
    ]
    assert bool(shown) == (batch is None)
    for there, here in zip(rows(f'{shown[0]}\n') if shown else (), printed):
        assert there.items() <= here.items()


def test_results_come_back_from_a_file(tmp_path, rng, capsys):
    there = [result(rng), result(rng, seed=1), result(rng, 'fcn')]
    there[2].update(loss=[1.], curve=[[9, 1.]])  # of another schedule
    there[1]['union'][0, 0] = 70000  # beyond 16 bits
    file = tmp_path / 'r.npz'
    results.save(there, file)
    for before, after in zip(there, results.load(file), strict=True):
        assert before.keys() == after.keys()
        for key in before:
            assert np.array_equal(before[key], after[key])
    # unpacked, a study goes on from them; what is there stays
    own = tmp_path / 'results/cac-seed1.json'
    for _ in range(2):
        main(f'table {file} --out {tmp_path}'.split())
    cac, mine, fcn = results.load(own.parent)
    assert (cac['head'], mine['seed']) == ('cac', 1)
    assert (fcn['union'] == there[2]['union']).all()
    for other in (own, own.with_name('new-seed0.json')):
        results.save_run({**there[1], 'device': 'mine'}, other)
        with pytest.raises(SystemExit):
            main(f'table {file} --out {tmp_path}'.split())
        assert f'{other} is not of {file}' in ' '.join(
            capsys.readouterr().err.split())
        other.unlink()
    with pytest.raises(ValueError, match='validated on different images'):
        by_head([mine, result(rng, images='xyz')])
    less = {key: mine[key] for key in mine if key != 'versions'}
    for half in (less, {**mine, 'settings': {}}, {**mine, 'union': [[1]]}):
        results.save_run(half, own)
        with pytest.raises(ValueError, match='cac-seed1.json .*: remove it'):
            results.load_run(own)


@pytest.mark.parametrize('name, content', [('empty.npz', b''),
                                           ('half.npz', None),
                                           ('text.csv', b'a,b'),
                                           ('x-seed0.json', b'{}'),
                                           ('folder/gone.npz', b'')])
def test_half_a_file_and_a_foreign_one_are_named(name, content, tmp_path):
    whole = PUBLISHED[0].read_bytes()
    (tmp_path /
     Path(name).name).write_bytes(whole[:-99] if content is None else content)
    for path, fix in ((tmp_path / name, 'give the results.npz'),
                      (tmp_path, 'remove it' if 'json' in name else 'give')):
        with pytest.raises(ValueError, match=f'{path.name}.*: {fix}'):
            results.load(path)


@pytest.mark.parametrize('line, words', [
    (f'table {PUBLISHED[0]} --over no', 'must be of .*cac.*, got .no.'),
    ('table gone.npz', 'gone.npz'),
    ('study --heads cac', 'required: --out'),
    ('study --protocol crossing --heads fcn --out out --cfg-options '
     'val_dataloader.dataset.num_images=5', 'even num_images.*5 of 5'),
])
def test_an_option_that_does_not_fit_is_named(line, words, tmp_path, capsys,
                                              monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(line.split())
    assert re.search(words, capsys.readouterr().err)


def test_a_study_is_reported_from_what_it_left(data, tmp_path, rng, capsys,
                                               monkeypatch, figures):
    """Of one head and one seed, too."""
    monkeypatch.chdir(data)
    monkeypatch.setattr(times, 'ROUNDS', 1)
    images = sorted(p.stem for p in (data / 'data/camvid/val').iterdir())
    runs = plan(['cac', 'gcnet'], 2, tmp_path, 'camvid', options=SMALL)[:3]
    for run in runs:
        (run.folder / 'masks').mkdir(parents=True)
        for image in images:
            mask = rng.integers(0, 11, fake_data.SIZE, dtype=np.uint8)
            cv2.imwrite(str(run.folder / f'masks/{image}.png'), mask)
    found = [result(rng, run.head, run.seed, images) for run in runs]
    report.publish(found[:1], runs[:1], tmp_path, [])
    assert 'predict, ms' not in capsys.readouterr().out
    figures.clear()
    timed = times.measure(runs)
    found = [{
        **one,
        **timed[one['head']], results.BOUND: 15.
    } for one in found]
    report.publish(found, runs, tmp_path, [])
    assert results.load(tmp_path / 'results.npz')[0]['step_ms'] > 0
    heads = by_head(found)
    for row, one in zip(rows(capsys.readouterr().out), heads):
        assert row['head'] == f'`{one.name}`'
        assert row['of seeds 0, 1'].endswith(' -') == (one.name == 'gcnet')
        assert float(row['predict, ms']) >= 0
        assert {*row['above 15.0 from'].split(', ')} <= {'10', '-'}
    names = ('accuracy_cost', 'learning_curves', 'predictions')
    drawn = dict(zip(names, dict.fromkeys(figures), strict=True))
    assert all((tmp_path / f'{name}.png').is_file() for name in names)
    for i, one in enumerate(heads):
        for ax in drawn['accuracy_cost'].axes:
            point = ax.containers[i].lines[0]
            assert point.get_ydata()[0] == one.scores.mean()
        loss, scores = (ax.lines[i] for ax in drawn['learning_curves'].axes)
        assert loss.get_ydata().tolist() == [2., 1.5, 1., .75]
        assert scores.get_xydata().tolist() == [[5, 10], [10, 20]]
    for ax in drawn['accuracy_cost'].axes + drawn['learning_curves'].axes[1:]:
        assert any({*line.get_ydata()} == {15.} for line in ax.lines)
    for name in names[:2]:
        entries = drawn[name].legends[0].get_texts()
        assert {text.get_text()
                for text in entries} - {'additive bound'} == {'cac', 'gcnet'}
    assert {'image', 'ground truth', 'cac'} <= {*texts(drawn['predictions'])}
    # what the first image's prediction, and not its ground truth, looks like
    mask = cv2.imread(str(runs[0].folder / f'masks/{images[0]}.png'), 0)
    palette = np.array(CamVidDataset.METAINFO['palette'])
    _, truth, shown = (
        ax.images[0].get_array() for ax in drawn['predictions'].axes[:3])
    assert (shown == palette[mask]).all() and (truth != shown).any()


def test_no_two_heads_look_alike_in_a_plot():
    for place in (0, 18, 19, 39):
        names = [f'head-{i}' for i in range(39)]
        names.insert(place, 'cac')
        heads = [HeadResults(name, [], *np.zeros(2)) for name in names]
        looks = {(plots.colour(i, heads), plots.marker(i)) for i in range(40)}
        assert len(looks) == 40


# ---- processes


@pytest.mark.parametrize('gpus, variable, value, given', [
    (0, 'OMP_NUM_THREADS', None, '2222'),
    (0, 'OMP_NUM_THREADS', '1', '1111'),
    (2, 'CUDA_VISIBLE_DEVICES', None, '0011'),
    (2, 'CUDA_VISIBLE_DEVICES', '3,5', '3355'),
])
def test_runs_share_cores_and_gpus(tmp_path, monkeypatch, gpus, variable,
                                   value, given):
    """Of 8 threads, or those that are asked for; or the GPUs there are."""
    found = []
    all_run = threading.Barrier(4)

    def run(run, environment, stopped):
        all_run.wait(60)  # no process gets the slot of another
        found.append(environment)
        yield 1

    monkeypatch.setattr(processes, '_run', run)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: gpus)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 8)
    monkeypatch.delenv(variable, raising=False)
    if value:
        monkeypatch.setenv(variable, value)
    runs = plan(['fcn'], 4, tmp_path, options=SMALL)
    assert processes.execute(runs, 4) == runs  # none has left a result
    assert sorted(map(str, found)) == [str({variable: v}) for v in given]
    assert processes.execute([], 1) == []


def test_an_error_of_the_study_ends_all_runs(tmp_path, monkeypatch):

    def run(run, environment, stopped):
        if run.seed == 1:
            raise OSError('disk full')
        assert stopped.wait(60)
        yield 1

    monkeypatch.setattr(processes, '_run', run)
    runs = plan(['fcn'], 4, tmp_path, options=SMALL)
    with pytest.raises(OSError, match='disk full'):
        processes.execute(runs, 2)


def test_a_study_of_which_no_run_succeeds_has_nothing_to_report(
        data, monkeypatch, capsys):
    monkeypatch.chdir(data)
    monkeypatch.setattr(processes, 'execute', lambda runs, jobs: runs)
    options = [f'{key}={value}' for key, value in SMALL.items()]
    line = 'study --protocol camvid --heads fcn --seeds 1 --out none'
    with pytest.raises(SystemExit, match='^1$|True'):
        main([*line.split(), '--cfg-options', *options])
    assert 'fcn, seed 0: failed, see ' in capsys.readouterr().out


@pytest.fixture
def command(data):
    """Start it on CamVid, two runs at a time."""

    def start(*arguments):
        line = (f'{sys.executable} -m tools study --protocol camvid '
                '--iterations 2 --jobs 2 --out out').split()
        options = [f'{key}={value}' for key, value in SMALL.items()]
        return subprocess.Popen([*line, *arguments, '--cfg-options', *options],
                                cwd=data,
                                env={
                                    **os.environ, 'PYTHONPATH': str(ROOT)
                                },
                                text=True,
                                stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT,
                                start_new_session=True)

    return start


def finished(process):
    output = process.communicate(timeout=900)[0]
    return process.returncode, ' '.join(output.split())


@pytest.mark.slow
def test_the_command_from_an_empty_folder(command, data):
    out = data / 'out'
    (data / 'bad.py').write_text(
        "model = dict(decode_head=dict(type='FCNHead', num_convs=1))\n"
        "custom_hooks = [dict(type='NoHook')]\n")
    both = ('--heads', 'fcn', 'bad.py', '--seeds', '1')
    for number in (signal.SIGKILL, signal.SIGTERM):
        # ended in a run: the processes end with it
        for log in out.glob('*/log.txt'):
            log.unlink()
        process = command(*both)
        while not (out / 'fcn-seed0/log.txt').is_file():
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
        assert not [*(out / 'results').iterdir()]  # nor did one end
    assert status == 1 and 'the same command goes on' in output, output
    # a run that fails takes none along
    status, output = finished(command(*both))
    assert status == 1 and '| `fcn`' in output, output
    assert f'bad, seed 0: failed, see {out}/bad-seed0/log.txt' in output
    assert 'NoHook' in (out / 'bad-seed0/log.txt').read_text()
    # what is missing is carried out
    kept = out / 'results/fcn-seed0.json'
    before = kept.stat().st_mtime_ns
    status, output = finished(command('--heads', 'fcn', '--seeds', '2'))
    assert status == 0 and '2 runs, 1 with a result' in output, output
    assert before == kept.stat().st_mtime_ns
    runs = plan(['fcn'], 2, out, 'camvid', 2, options=SMALL)
    for run, one in zip(runs, results.load(out / 'results.npz'), strict=True):
        assert np.array_equal(
            results.load_run(run.result_file)['union'], one['union'])
        # what mmseg has reported, and what we add up
        score = by_head([one])[0].scores[0]
        assert one['curve'][-1] == [2, pytest.approx(score, abs=0.0051)]
        assert len(one['curve']) == 2 == one['iterations']
        assert one['seconds_per_iteration'] > 0 < one['peak_mib']
        assert len([*(run.folder / 'masks').iterdir()]) == 3
        assert (run.folder / 'work_dir/iter_2.pth').is_file()
        assert processes._iteration(run) == 2
    assert {
        'results.csv', 'summary.md', 'accuracy_cost.png', 'predictions.png'
    } <= {path.name
          for path in out.iterdir()}
