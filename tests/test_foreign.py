"""Objects in a checkpoint that are not mmengine's: never run, but said."""
import http.server
import os
import random
import threading
from functools import partial

import pytest
import torch
import torch.nn as nn
from conftest import SEED
from mmengine.runner.checkpoint import CheckpointLoader
from test_publish import Payload
from toy_runs import ToyModel, runner

from cac_mmseg.commands.publish import publish
from cac_mmseg.hooks.resume import settle_last_checkpoint
from cac_mmseg.stack import checkpoint as checkpoint_module
from cac_mmseg.stack.checkpoint import load_weights, safe_loading


class ExecPayload(Payload):
    """PyTorch blocks functions of os by itself, but not these."""

    def __reduce__(self):
        return exec, (f'import os; os.mkdir({str(self.path)!r})', )


class Rows(list):
    """A list that is restored with a state, and tells who reads it."""

    def __setstate__(self, state):
        os.mkdir(state['path'])


class Table(dict):
    pass


class Custom:

    class Inner:
        pass

    def method(self):
        pass


def rows(path):
    result = Rows([1, 2])
    result.path = str(path)
    return result


FOREIGN = [
    ('posix.mkdir', Payload),
    ('builtins.exec', ExecPayload),
    ('test_foreign.Rows', rows),
    ('test_foreign.Table', lambda path: Table(a=1)),
    ('test_foreign.Custom', lambda path: Custom()),
    ('test_foreign.Custom', lambda path: [Custom.Inner(), Custom.method]),
    ('torch.nn.modules.linear.Linear', lambda path: {(nn.Linear(2, 2), )}),
]
PARTS = ['meta', 'optimizer', 'message_hub', 'another']


@pytest.fixture
def poison(tmp_path):
    """Put an object into a training checkpoint, or into all of them."""
    weights = ToyModel().state_dict()

    def write(part, make, name='iter_2.pth', **options):
        content = dict(
            meta=dict(epoch=0, iter=2), message_hub={}, state_dict=weights)
        content.setdefault(part, {})['x'] = make(tmp_path / 'it_ran')
        (tmp_path / 'work').mkdir(exist_ok=True)
        torch.save(content, tmp_path / 'work' / name, **options)
        return tmp_path / 'work' / name

    yield write
    assert not (tmp_path / 'it_ran').exists()


@pytest.fixture
def warnings(monkeypatch):
    messages = []
    monkeypatch.setattr(checkpoint_module, 'print_log',
                        lambda message, **_: messages.append(message))
    return messages


# each object once, in other parts in every run, and each part
BESIDE = [
    *((name, make, random.Random(SEED).choice(PARTS))
      for name, make in FOREIGN), *((*FOREIGN[1], part) for part in PARTS)
]


@pytest.mark.parametrize('name, make, part', BESIDE)
def test_weights_are_taken_from_beside_it(poison, part, name, make, tmp_path,
                                          warnings):
    path = poison(part, make)
    target = publish(path, tmp_path / 'out')
    message, = warnings
    assert str(path) in message and name in message
    content = torch.load(target, weights_only=True)
    assert content['meta'].get('iter') == 2
    torch.testing.assert_close(content['state_dict'],
                               load_weights(path)['state_dict'])


@pytest.mark.parametrize('options', [
    dict(_use_new_zipfile_serialization=False),
    dict(pickle_protocol=4),
])
def test_of_any_format(poison, options, warnings):
    load_weights(poison('meta', ExecPayload, **options))
    assert 'builtins.exec' in warnings[0]


@pytest.mark.parametrize('name, make', FOREIGN[:3])
def test_in_a_test_of_mmengine(poison, name, make, warnings, tmp_path):
    path = poison('optimizer', make)
    tested = runner(tmp_path / 'test', load_from=str(path))
    assert tested.test()['toy/score'] == 0.5
    assert name in warnings[0] and len(warnings) == 1
    torch.testing.assert_close(tested.model.state_dict(),
                               load_weights(path)['state_dict'])


@pytest.mark.parametrize('name, make', FOREIGN)
def test_in_the_weights_it_is_an_error(poison, name, make, tmp_path):
    path = poison('state_dict', make)
    for read in (load_weights, partial(publish, out=tmp_path / 'out'),
                 lambda path: runner(tmp_path, load_from=str(path)).test()):
        with pytest.raises(ValueError, match='iter_2.pth') as error:
            read(path)
        assert name in str(error.value)
        assert 'weights_only' not in str(error.value)
    torch.save(make(tmp_path / 'it_ran'), path)  # and nothing else
    with pytest.raises(ValueError, match='iter_2.pth'):
        load_weights(path)


@pytest.mark.parametrize('chosen', [True, False])
@pytest.mark.parametrize('name, make, part', [
    *((*FOREIGN[1], part) for part in [*PARTS, 'state_dict']),
    (*FOREIGN[0], 'meta'),
    (*FOREIGN[2], 'optimizer'),
])
def test_resuming_is_refused(poison, name, part, make, chosen, tmp_path):
    path = poison(part, make)
    load_from = str(path) if chosen else None
    run = runner(tmp_path / 'work', 4, resume=True, load_from=load_from)
    with pytest.raises(ValueError, match='cannot be resumed') as error:
        run.train()
    for words in (f'load_from={path} and resume=False', name,
                  'add_safe_globals'):
        assert words in str(error.value)
    assert 'emove' not in str(error.value)
    assert path.exists() and not (tmp_path / 'work/last_checkpoint').exists()


def test_a_class_that_the_user_trusts_is_resumed(poison, tmp_path):
    path = poison('meta', lambda path: Custom())
    with torch.serialization.safe_globals([Custom]):
        assert settle_last_checkpoint(tmp_path / 'work') == path


@pytest.fixture
def address(tmp_path, monkeypatch):
    """Serve a folder, and download to another one."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    handler = partial(
        http.server.SimpleHTTPRequestHandler, directory=tmp_path / 'work')
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()
        thread.join()


def test_downloads_are_read_alike(poison, address):
    path = poison('meta', ExecPayload)
    with safe_loading():
        content = CheckpointLoader.load_checkpoint(f'{address}/iter_2.pth')
    torch.testing.assert_close(content['state_dict'],
                               load_weights(path)['state_dict'])
    poison('state_dict', ExecPayload, 'other.pth')
    with safe_loading(), pytest.raises(ValueError, match='builtins.exec'):
        CheckpointLoader.load_checkpoint(f'{address}/other.pth')


def test_an_archive_of_another_kind_is_named(tmp_path):
    path = tmp_path / 'script.pth'
    torch.jit.script(nn.ReLU()).save(path)
    with pytest.raises(ValueError, match='script.pth') as error:
        load_weights(path)
    assert 'archive of another kind' in str(error.value)
    assert 'weights_only' not in str(error.value)
