import io
import os
import random
import runpy
import shlex
import shutil
import subprocess
import sys
import venv
from contextlib import redirect_stdout, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

# tensors are small: on a busy machine, threads would wait for each other; read
# when torch is imported, and by the processes that tests start
os.environ.setdefault('OMP_NUM_THREADS', '1')
import numpy as np  # noqa: E402
import torch  # noqa: E402
from hypothesis import core, settings  # noqa: E402

if not torch.cuda.is_available():
    os.environ['TRITON_INTERPRET'] = '1'  # read when Triton is imported
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / 'tests'), str(ROOT)]  # reference.py, tools
# inputs are fresh in every run; CAC_SEED=... repeats one that failed. In the
# environment, as pytest-xdist's workers and other processes read it there.
SEED = int(
    os.environ.setdefault('CAC_SEED',
                          str(random.SystemRandom().getrandbits(31))))
core.global_force_seed = SEED  # as --hypothesis-seed does
settings.register_profile('seeded', database=None, deadline=None)
settings.load_profile('seeded')
with suppress(ImportError):  # of another version of hypothesis
    from hypothesis.internal.conjecture import providers

    # it draws constants of what is imported, which depends on other tests
    providers._get_local_constants = lambda: providers._local_constants


def seed_generators() -> None:
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef) -> None:
    """What several tests share is the same after whichever test."""
    if fixturedef.scope != 'function':
        seed_generators()


@pytest.fixture(autouse=True)
def seed() -> None:
    seed_generators()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(SEED)


@pytest.fixture(scope='session')
def configs() -> Path:
    return ROOT / 'configs'


@pytest.fixture(scope='session')
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter without any package."""
    root = tmp_path_factory.mktemp('bare')
    venv.create(root, with_pip=False)
    return root / ('Scripts' if os.name == 'nt' else 'bin') / 'python'


@pytest.fixture
def cli(capsys):
    """Run a command line here: its exit status, and what it printed."""
    from cac_mmseg.__main__ import main

    def run(line, *words, main=main):
        capsys.readouterr()
        status = 0
        try:
            main([*shlex.split(line), *map(str, words)])
        except SystemExit as end:
            status = int(end.code or 0)
        return status, ''.join(capsys.readouterr())

    return run


@pytest.fixture(scope='session')
def shapes(tmp_path_factory, configs):
    """A config of ContextShapes, and weights in which no branch is trivial."""
    from mmseg.apis import init_model
    folder = tmp_path_factory.mktemp('shapes')
    config, weights = folder / 'config.py', folder / 'weights.pth'
    config.write_text(f"_base_ = '{configs}/cac_r18_contextshapes.py'\n"
                      'model = dict(decode_head=dict(num_heads=2))\n')
    model = init_model(str(config), device='cpu').train()
    model(torch.randn(2, 3, 64, 96))  # statistics of the norms
    torch.save(model.state_dict(), weights)
    return SimpleNamespace(config=config, weights=weights)


def tool(name, *arguments, cwd='.'):
    """Run a tool of mmseg here, as mim does by a process; what it printed."""
    from mmseg.visualization import SegLocalVisualizer

    from cac_mmseg.stack.config import MMSEG_CONFIGS

    # that of a run before would write into its folder
    SegLocalVisualizer._instance_dict.clear()
    script = str(MMSEG_CONFIGS.parent / f'tools/{name}.py')
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.chdir(cwd)
        patch.setattr(sys, 'argv', [script, *map(str, arguments)])
        runpy.run_path(script, run_name='__main__')
    return printed.getvalue()


def start(*words, **options):
    """Run a process to its end; what it prints is text."""
    options = dict(capture_output=True, text=True, timeout=900) | options
    return subprocess.run([*map(str, words)], **options)


def table(text):
    """Rows of a table in words; bars are between the cells."""
    lines = text.strip().splitlines()
    return [[cell.strip() for cell in line.split('|')] for line in lines]


def labelled(labels, **metainfo):
    """A sample of mmseg with a label map, of (H, W)."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample
    data = PixelData(data=torch.as_tensor(labels)[None])
    return SegDataSample(gt_sem_seg=data, metainfo=metainfo)


@pytest.fixture(autouse=True)
def scope():
    """What is built is mmseg's, whatever ran before in this process."""
    from mmengine.registry import init_default_scope
    init_default_scope('mmseg')


def build(cfg):
    """Build a part of mmseg, also in a fixture of a module."""
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS
    init_default_scope('mmseg')
    return MODELS.build(cfg)


def pytest_report_header() -> str:
    count = sum(
        len([*(ROOT / 'configs' / folder).glob('*.py')])
        for folder in ('', 'ablations'))
    return f'configs covered: {count}\nseed: CAC_SEED={SEED}'


@pytest.fixture(scope='session')
def browser():
    """Chromium, driven by Playwright."""
    playwright = pytest.importorskip('playwright.sync_api')
    path = shutil.which('chromium') or shutil.which('google-chrome')
    if path is None:
        pytest.skip('needs Chromium: apt-get install chromium')
    with playwright.sync_playwright() as driver:
        # root has no sandbox
        yield driver.chromium.launch(
            executable_path=path, args=['--no-sandbox'])


@pytest.fixture
def show(browser, tmp_path):
    """Open a page from disk, without a network; it must not complain."""
    complaints, contexts = [], []

    def open_page(content, **options):
        file = tmp_path / 'page.html'
        file.write_text(content, encoding='utf-8')
        context = browser.new_context(offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on('console', lambda message: complaints.append(message.text))
        page.on('pageerror', lambda error: complaints.append(str(error)))
        page.on(
            'request', lambda request: request.url.startswith(
                ('file:', 'data:')) or complaints.append(request.url))
        page.goto(file.as_uri())
        page.wait_for_selector('body[data-ready]')
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


def shown(page):
    """What the page drew last."""
    page.wait_for_timeout(100)  # the next frame
    return {
        key: float(value)
        for key, value in page.locator('#map').evaluate(
            'map => ({...map.dataset})').items()
    }


@pytest.fixture
def figures(monkeypatch):
    """The figures of Matplotlib that are drawn, in order."""
    from matplotlib.figure import Figure
    drawn, draw = [], Figure.draw

    def record(self, renderer):
        draw(self, renderer)
        drawn.append(self)

    monkeypatch.setattr(Figure, 'draw', record)
    return drawn


def texts(figure):
    """What is written in a figure."""
    from matplotlib.text import Text
    return [
        text.get_text() for text in figure.findobj(Text)
        if text.get_text().strip()
    ]
