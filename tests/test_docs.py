"""Every command and example of README and docs is run, here or elsewhere."""
import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import fake_data
import numpy as np
import pytest
import test_prepare
import torch
from conftest import ROOT, build, tool
from mmengine.config import Config

from cac_mmseg.__main__ import main
from cac_mmseg.stack.env import installed

PAGES = [
    ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted(
        (ROOT / 'docs').glob('*.md'))
]
TRANSLATION = ROOT / 'README_zh-CN.md'

# commands that are not run here, and where they are
ELSEWHERE = [
    (r'pytest', '.ci/run'),
    (r'(\w+=\w+ )?pip install', '.ci/original-stack'),
    (r'mim \w+ cacnet-mmseg', 'test_wheel'),
    (r'mim train .*--launcher', 'several GPUs: test_distributed'),
    (r'torchrun ', 'several machines: test_distributed'),
    (r'python -m tools benchmark .*--device cuda',
     'a GPU; on the CPU: test_benchmark'),
    (r'mim train .*CUDAGraphHook', 'a GPU; on the CPU: test_cuda_graph'),
    (r'for seed in', 'hours; each line of it: below'),
    (r'mim (train|test) mmsegmentation configs/cac_r18_camvid.py '
     r'.*--(resume|show-dir|tta)', 'of another config: test_mim'),
    (r'python -m tools study ', 'an hour or more; in short: test_study'),
    (r'python -m tools table ', 'test_study'),
    (r'python -m tools\.checks\.', 'an hour; in short: test_explain_check, '
     'test_permute_context, test_adopt'),
    (r'python -m cac_mmseg cost .*--time', 'test_cost'),
    (r'.* (cac_)?(timm|my_backbone)_config.py', 'test_backbones'),
    (r'mim train mmsegmentation configs/cac_r50_camvid.py '
     r'--cfg-options model.pretrained=', 'test_data_configs, test_preflight'),
]
if installed('mmseg').keys() & {'mmsegmentation'}:
    ELSEWHERE.append((r'mim run mmsegmentation get_flops',
                      'the OneDL stack; it fails for every model in this one'))
# appended to the others so that they end within seconds
LOADERS = [f'{split}_dataloader' for split in ('train', 'val', 'test')]
TINY = [
    'train_cfg.max_iters=2', 'train_cfg.val_interval=2',
    'default_hooks.checkpoint.interval=2', 'train_dataloader.batch_size=2',
    *(f'{loader}.num_workers=0' for loader in LOADERS),
    *(f'{loader}.persistent_workers=False' for loader in LOADERS)
]
FEW = [f'{loader}.dataset.num_images=2' for loader in LOADERS]


def blocks(language, pages=PAGES):
    """Pages and code blocks."""
    return [(page.name, block) for page in pages for block in re.findall(
        rf'```{language}\n(.*?)```', page.read_text(), re.DOTALL)]


def commands(pages=PAGES):
    """One by one; a loop is one."""
    found = []
    for _, block in blocks('shell', pages):
        block = block.replace('\\\n', '')
        found += [block] if block.startswith('for ') else block.splitlines()
    # what installs has installed what runs here
    install = 'pip install -r requirements.txt && '
    return list(dict.fromkeys(line.removeprefix(install) for line in found))


HERE = [
    command for command in commands()
    if not any(re.match(pattern, command) for pattern, _ in ELSEWHERE)
]


def test_every_command_is_known():
    everything = commands()
    assert len(everything) > 25
    for pattern, _ in ELSEWHERE:
        assert any(re.match(pattern, command) for command in everything)
    known = ('mim train', 'mim test', 'mim run', 'mim gridsearch',
             'python -m cac_mmseg ')
    assert all(command.startswith(known) for command in HERE)


@pytest.mark.parametrize(
    'page', [*PAGES, TRANSLATION], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text()
    links = re.findall(r'\]\(([^)]+)\)|src="([^"]+)"', text)
    for link in filter(None, sum(links, ())):
        if link.startswith('http'):
            continue
        name, _, anchor = link.partition('#')
        target = (page.parent / name).resolve() if name else page
        assert target.is_file(), link
        if anchor:
            headings = re.findall(r'^#+ (.*)$', target.read_text(), re.M)
            slugs = [
                re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')
                for heading in headings
            ]
            assert anchor in slugs, link


def test_the_translation_has_commands_of_the_original():
    translated = commands([TRANSLATION])
    assert translated and {*translated} <= {*commands()}
    python = [block for _, block in blocks('python', [TRANSLATION])]
    assert {*python} <= {block for _, block in blocks('python')}


@pytest.mark.parametrize('page, block', blocks('python'))
def test_examples_are_python(page, block):
    ast.parse(block.replace('{{', '').replace('}}', ''))


def test_a_re_weighting_of_a_user_trains_from_a_config(tmp_path, monkeypatch):
    """The two files of configs.md, as a user would write them."""
    for page, block in blocks('python'):
        name = re.match(r'# (\w+\.py)\n', block)
        if page == 'configs.md' and name:
            (tmp_path / name[1]).write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    config = Config.fromfile(tmp_path / 'my_config.py')
    head = build(config.model.decode_head)
    assert [type(m).__name__ for m in head.cac_modules] == ['PowerModule']
    assert head.cac_modules[0].exponent == 2.
    head([torch.rand(2, head.in_channels, 6, 7)]).sum().backward()
    assert head.reduction.conv.weight.grad.abs().sum() > 0


@pytest.fixture(scope='module')
def sandbox(tmp_path_factory):
    """A checkout's configs, small data in genuine formats, and weights."""
    root = tmp_path_factory.mktemp('sandbox')
    (root / 'configs').symlink_to(ROOT / 'configs')
    rng = np.random.default_rng(0)
    fake_data.camvid(root / 'data', rng)
    test_prepare.write_official(root)
    for folder in ('val', 'valannot'):
        folder = root / 'data/camvid' / folder
        shutil.copy(min(folder.iterdir()), folder / '0016E5_07959.png')
    page = (ROOT / 'docs/data.md').read_text()
    colours = re.search(r'```\n(# name, red.*?)```', page, re.DOTALL)[1]
    (root / 'colours.txt').write_text(colours)
    (root / 'masks').mkdir()
    picture = np.full((8, 8, 3), (128, 64, 128), np.uint8)
    cv2.imwrite(str(root / 'masks/0.png'), picture[..., ::-1])
    for i in range(6):
        names = f'my_photos/{i}.jpg', f'my_colours/{i}.png'
        fake_data.write(root, *names, (10, 90, 200), rng)
    weights = dict(state_dict={'stem.0.weight': torch.zeros(1)})
    torch.save(weights, root / 'resnet50_v1c.pth')
    backbone = build(dict(type='MobileNetV2'))
    torch.save(backbone.state_dict(), root / 'mobilenet_v2.pth')
    return root


def keep(folder, number):
    """Give the short run's checkpoint the name that the page uses."""
    for made in folder.glob('*iter_2.pth'):
        wanted = made.with_stem(made.stem.replace('_2', f'_{number}'))
        if not wanted.exists():
            wanted.symlink_to(made)


def shortened(command):
    """The command with options that make it short."""
    extra = []
    if command.startswith(('mim train', 'mim test', 'mim gridsearch')):
        extra += TINY
    if 'contextshapes' in command or 'crossing' in command:
        extra += FEW
    if not extra or command.startswith(('python', 'mim run')):
        return command
    # one point of the grid
    command = command.replace('num_heads 1 2',
                              'num_heads 2').replace('kernel_size 1 3',
                                                     'kernel_size 1')
    joint = ' ' if '--cfg-options' in command else ' --cfg-options '
    return command + joint + ' '.join(extra)


def execute(command):
    """In this process, if it need not import torch again, or as a user."""
    command = shortened(command)
    words = shlex.split(command)
    if command.startswith('python -m cac_mmseg'):
        try:
            main(words[3:])
        except SystemExit as end:
            assert not end.code, command
    elif words[:2] in (['mim', 'train'], ['mim', 'test']):
        words = [word for word in words if word != '--checkpoint']
        tool(words[1], *words[3:])
    elif words[:2] == ['mim', 'run']:
        tool(f'analysis_tools/{words[3]}', *words[4:])
    else:
        bin_ = f'{Path(sys.executable).parent}{os.pathsep}'
        environment = dict(os.environ, PATH=bin_ + os.environ['PATH'])
        subprocess.run(words, env=environment, timeout=900, check=True)


@pytest.mark.slow
def test_commands_do_what_the_pages_say(sandbox, monkeypatch):
    monkeypatch.chdir(sandbox)
    # data and trainings first, as the pages do
    first = 'prepare labels', 'cac_mmseg init', 'mim train'
    order = sorted(
        HERE,
        key=lambda command: [part in command for part in first],
        reverse=True)
    for command in order:
        execute(command)
        for name, number in dict(
                cac_r18_camvid=1000, cac_r18_crossing=400, mine=1000).items():
            keep(sandbox / 'work_dirs' / name, number)
        for published in sandbox.glob('cac_r18_camvid-*.pth'):
            target = sandbox / 'cac_r18_camvid-1a2b3c4d.pth'
            if not target.exists():
                target.symlink_to(published)
    made = {path.name for path in sandbox.rglob('*')}
    assert {
        'samples.png', 'weighting_maps_0_2.png', '000007.png',
        'cac_r18_camvid.onnx', 'cac_r18_camvid.pt2',
        'SegmentationClassContext', '0016E5_07959.png'
    } <= made
    script = ['import numpy as np', 'rgb = np.zeros((64, 96, 3), np.uint8)']
    script += [
        block for page, block in blocks('python') if page == 'deployment.md'
    ]
    subprocess.run([sys.executable, '-c', '\n'.join(script)],
                   cwd=sandbox,
                   check=True)
    assert len([*(sandbox / 'predicted').rglob('*.png')]) == 2
