"""Runs that are killed, files that are cut off: nothing is lost in silence."""
import os
import re
import sys

import pytest
import torch
from conftest import ROOT, SEED, start, tool
from test_publish import Payload
from toy_runs import runner

from cac_mmseg.hooks import resume
from cac_mmseg.hooks.resume import settle_last_checkpoint
from cac_mmseg.stack.checkpoint import load_weights

ITERATIONS = 24
TRAIN = f'''
import glob, math, os, random, signal, sys, time
import torch
from mmengine.runner import Runner
from toy_runs import short_run


def train():
    """Train to the end, or go on from the last checkpoint."""
    torch.set_num_threads(1)
    cfg = short_run('work', {ITERATIONS}, resume=True)
    cfg.randomness = dict(seed=1, deterministic=True)
    cfg.default_hooks.checkpoint.update(interval=1, max_keep_ckpts=3)
    Runner.from_cfg(cfg).train()


def start():
    child = os.fork()  # without importing everything again
    if child:
        return child
    try:
        train()
    except BaseException as error:
        sys.stdout.write(f'FAILED {{error!r}}\\n')
    sys.stdout.flush()
    os._exit(0)


def new_checkpoint(known):
    return set(glob.glob('work/*.pth')) - known


def ended(child):
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)


random.seed(sys.argv[2])
longest = 0.  # seconds until a run writes a checkpoint: machines differ
for i in range(int(sys.argv[1])):
    known = set(glob.glob('work/*.pth'))
    begin = time.monotonic()
    child = start()
    # while a checkpoint is being written, or at a random moment before
    writing = i % 2 == 0
    end = begin + (math.inf if writing else random.uniform(0, longest))
    while time.monotonic() < end and not ended(child) and not (
            writing and new_checkpoint(known)):
        time.sleep(2e-4)
    if writing:
        longest = max(longest, time.monotonic() - begin)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
os.waitpid(start(), 0)
'''


def run(folder, kills, seed=0):
    folder.mkdir()
    paths = os.pathsep.join(map(str, (folder, ROOT, ROOT / 'tests')))
    done = start(
        *(sys.executable, '-c', TRAIN, kills, seed),
        cwd=folder,
        env=dict(os.environ, PYTHONPATH=paths))
    assert done.returncode == 0 and 'FAILED' not in done.stdout, \
        done.stderr[-4000:]
    return done.stdout, load_weights(folder / f'work/iter_{ITERATIONS}.pth')


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_same_weights(tmp_path):
    _, expected = run(tmp_path / 'whole', 0)
    output, weights = run(tmp_path / 'killed', 10, SEED)
    found = re.findall(r'resumed epoch: 0, iter: (\d+)', output)
    resumed = [*map(int, found)]
    assert len(resumed) > 3 and resumed == sorted(resumed), resumed
    assert weights['meta']['iter'] == expected['meta']['iter'] == ITERATIONS
    for name, value in expected['state_dict'].items():
        assert torch.equal(weights['state_dict'][name], value), name


@pytest.fixture
def work_dir(tmp_path):
    """Three checkpoints of a run, the last one named."""
    folder = tmp_path / 'work'
    folder.mkdir()
    for i in (2, 4, 6):
        content = dict(state_dict=dict(a=torch.rand(1000)), meta=dict(iter=i))
        torch.save(content, folder / f'iter_{i}.pth')
        os.utime(folder / f'iter_{i}.pth', (i, i))
    name(folder, 6)
    return folder


def name(folder, i):
    (folder / 'last_checkpoint').write_text(str(folder / f'iter_{i}.pth'))


def named(folder):
    return (folder / 'last_checkpoint').read_text()


def cut(path):
    path.write_bytes(path.read_bytes()[:-700])


def empty(path):
    path.write_bytes(b'')


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # a single bit of a weight
    path.write_bytes(content)


def remove(path):
    path.unlink()


def poison(path):
    torch.save(dict(state_dict=Payload(path.parent / 'it_ran')), path)


@pytest.fixture
def warnings(monkeypatch):
    """What is logged."""
    messages = []
    monkeypatch.setattr(resume, 'print_log',
                        lambda message, **_: messages.append(message))
    return messages


BREAKS = [cut, empty, damage, remove, poison]


@pytest.mark.parametrize('breaks', BREAKS)
def test_a_broken_checkpoint_gives_way_to_the_one_before(
        work_dir, breaks, warnings):
    breaks(work_dir / 'iter_6.pth')
    assert settle_last_checkpoint(work_dir) == work_dir / 'iter_4.pth'
    assert named(work_dir).endswith('iter_4.pth')
    message, = warnings
    assert 'iter_6.pth' in message and 'resuming from' in message
    assert not (work_dir / 'it_ran').exists()


def garbage(path):
    path.write_bytes(bytes(range(256)))


def too_long(path):
    path.write_text('a' * 5000)


@pytest.mark.parametrize('lose', [remove, empty, garbage, too_long])
def test_what_names_the_checkpoint_may_be_lost(work_dir, lose):
    for path in work_dir.glob('*.pth'):
        os.utime(path, (9, 9))  # of a coarse clock
    lose(work_dir / 'last_checkpoint')
    settle_last_checkpoint(work_dir)
    assert named(work_dir).endswith('iter_6.pth')


def test_a_sound_checkpoint_that_is_named_stays(work_dir, warnings):
    name(work_dir, 4)  # of a run that was started again
    assert settle_last_checkpoint(work_dir) == work_dir / 'iter_4.pth'
    assert named(work_dir).endswith('iter_4.pth') and not warnings


def test_killed_in_its_first_checkpoint_it_starts_again(work_dir, warnings):
    remove(work_dir / 'last_checkpoint')
    for i in (2, 4):
        remove(work_dir / f'iter_{i}.pth')
    cut(work_dir / 'iter_6.pth')
    assert settle_last_checkpoint(work_dir) is None
    message, = warnings
    assert 'iter_6.pth' in message and 'training from the start' in message
    remove(work_dir / 'iter_6.pth')
    assert settle_last_checkpoint(work_dir) is None


def test_if_none_is_whole_it_says_so(work_dir):
    for path in work_dir.glob('*.pth'):
        cut(path)
    with pytest.raises(ValueError) as error:
        settle_last_checkpoint(work_dir)
    assert all(f'iter_{i}.pth' in str(error.value) for i in (2, 4, 6))
    assert 'Another work_dir starts from the beginning' in str(error.value)
    assert 'emove' not in str(error.value)


@pytest.mark.parametrize('lose', [empty, garbage, too_long])
def test_a_name_without_any_checkpoint_is_an_error(tmp_path, lose):
    """On which mmengine fails deep inside."""
    lose(tmp_path / 'last_checkpoint')
    with pytest.raises(ValueError, match='none of the checkpoints'):
        settle_last_checkpoint(tmp_path)


@pytest.mark.parametrize('breaks', BREAKS)
@pytest.mark.parametrize('goes_on', [True, False])
def test_a_broken_checkpoint_that_is_asked_for_is_an_error(
        work_dir, breaks, goes_on):
    path = work_dir / 'iter_6.pth'
    breaks(path)
    run = runner(work_dir / 'other', load_from=str(path), resume=goes_on)
    with pytest.raises((ValueError, FileNotFoundError), match='iter_6.pth'):
        run.test()
    assert not (work_dir / 'it_ran').exists()


def test_a_poisoned_checkpoint_is_not_run_by_mmseg(tmp_path, configs):
    """mmengine would run it: our hook reads it first."""
    poison(tmp_path / 'evil.pth')
    config = configs / 'cac_r18_crossing.py'
    for arguments in (('test', config, 'evil.pth'),
                      ('train', config, '--cfg-options',
                       'model.pretrained=evil.pth')):
        with pytest.raises((ValueError, RuntimeError),
                           match='refusing to load evil.pth'):
            tool(*arguments, cwd=tmp_path)
        assert not (tmp_path / 'it_ran').exists()
