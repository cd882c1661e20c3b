"""The wheel in an environment of its own, used from an empty folder."""
import os
import subprocess
import sys
import venv
import zipfile

import pytest
from conftest import ROOT, start
from test_configs import NAMES
from test_mim import SHORT

import cac_mmseg
from cac_mmseg.__main__ import COMMANDS


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'  # a build leaves files beside the sources
    subprocess.run(['git', 'clone', '-q', ROOT, source], check=True)

    def git(*arguments, **more):
        subprocess.run(['git', *arguments], cwd=source, check=True, **more)

    diff = ['git', 'diff', 'HEAD', '--binary']
    changed = subprocess.check_output(diff, cwd=ROOT)
    if changed:
        git('apply', '--index', input=changed)
        git(*'-c user.name=t -c user.email=t commit -q -m test'.split())
    tag = f'v{cac_mmseg.__version__}'
    git('tag', '-f', tag)
    subprocess.run(
        [sys.executable, '.ci/build', 'https://example.org/a/b/', tag],
        cwd=source,
        check=True)
    return next((source / 'dist').glob('*.whl'))  # built from the sdist


@pytest.mark.slow
def test_holds_every_config_once_as_a_file(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        info = f'cacnet_mmseg-{cac_mmseg.__version__}.dist-info'
        metadata = archive.read(f'{info}/METADATA').decode()
    for name in NAMES:
        assert names.count(f'cac_mmseg/.mim/configs/{name}.py') == 1
    assert 'cac_mmseg/.mim/model-index.yml' in names
    assert 'cac_mmseg/.mim/configs/cac_r18_crossing.pth' in names
    assert wheel.stat().st_size < 2 * 2**20
    assert {name.split('/')[0] for name in names} == {'cac_mmseg', info}
    assert not any('entry_points' in name for name in names)
    page = metadata.split('\n\n', 1)[1]
    assert page.count('https://example.org/a/b/') > 30 and '](docs' not in page
    assert 'Project-URL: Source, https://example.org/a/b\n' in metadata
    # what measures stays beside the package
    assert not any(
        word in name for name in names
        for word in ('study', 'benchmark', 'voc_animals'))


@pytest.fixture(scope='module')
def run(wheel, tmp_path_factory):
    """Run a command of a new environment in an empty folder."""
    root = tmp_path_factory.mktemp('venv')
    venv.create(root, with_pip=True)
    lines = (ROOT / 'requirements.txt').read_text().splitlines()
    pins = [line for line in lines if '==' in line]
    environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    subprocess.run([root / 'bin/pip', 'install', '-q', *pins, wheel],
                   env=environment,
                   check=True)
    cwd = tmp_path_factory.mktemp('empty')

    def run(command, *arguments):
        python = root / 'bin' / command
        done = start(python, *arguments, cwd=cwd, env=environment)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.mark.slow
def test_mim_lists_and_finds_it(run):
    assert f'cacnet-mmseg          {cac_mmseg.__version__}' in run(
        'mim', 'list')
    found = run('mim', 'search', 'cacnet-mmseg')
    for name in NAMES:
        assert f'config id: {name.split("/")[-1]}\n' in found
    found = run('mim', 'search', 'cacnet-mmseg', '--dataset', 'CamVid')
    assert 'cac_r50_camvid' in found and 'cityscapes' not in found


@pytest.mark.slow
def test_trains_and_tests_by_config_name(run):
    name = 'cac_r18_crossing.py'
    output = run('mim', 'train', 'cacnet-mmseg', name, '--cfg-options', *SHORT)
    assert 'Training finished successfully' in output
    output = run('mim', 'test', 'cacnet-mmseg', name, '--checkpoint',
                 'work_dirs/cac_r18_crossing/iter_6.pth', '--cfg-options',
                 *SHORT)
    assert 'Testing finished successfully' in output


@pytest.mark.slow
def test_every_command_runs_on_what_was_trained(run, tmp_path):
    folder = 'work_dirs/cac_r18_crossing'
    config = f'{folder}/cac_r18_crossing.py'
    weights = f'{folder}/iter_6.pth'
    image = 'crossing://image/val/0/000003.png'
    lines = {
        f'explain {config} {weights} {image} --html --out {tmp_path}/pages':
        'pages/000003.html',
        f'visualize {config} {weights} {image} --out {tmp_path}/drawn':
        'drawn/000003.png',
        f'export {config} {weights} --out {tmp_path}/model.pt2 --size 64 64':
        'model.pt2',
        f'predict {tmp_path}/model.pt2 {tmp_path}/drawn/000003.png --out '
        f'{tmp_path}/predicted':
        'predicted/overlays/000003.png',
        f'publish {weights} {tmp_path}/weights':
        'weights-*.pth',
        'adopt fcn_r18-d8_4xb2-80k_cityscapes-512x1024 --out '
        f'{tmp_path}/mine.py':
        'mine.py',
        f'check-data {config} --out {tmp_path}/data':
        'data/samples.png',
        f'cost {config} --time --rounds 1':
        '',
        'doctor':
        '',
        f'explain --demo --out {tmp_path}/demo':
        'demo/000007.html',
        'prepare labels --help':
        '',
        'init --help':
        '',
    }
    assert {line.split()[0] for line in lines} == {*COMMANDS}
    # one process: each would import torch and mmseg again
    run(
        'python', '-c', f"""if True:
        from cac_mmseg.__main__ import main
        for line in {[*lines]}:
            try:
                main(line.split())
            except SystemExit as end:
                assert not end.code, line""")
    for line, file in lines.items():
        assert not file or [*tmp_path.glob(file)], line


@pytest.mark.slow
def test_a_users_config_inherits_from_an_installed_one(run):
    run(
        'python', '-c', """if True:
        from pathlib import Path
        from cac_mmseg import config_path
        base = config_path('cac_r18_crossing')
        Path('mine.py').write_text(f'_base_ = {base!r}\\n'
            'model = dict(decode_head=dict(num_heads=2))')""")
    output = run('python', '-m', 'cac_mmseg', 'cost', 'mine.py',
                 'cac_r18_crossing')
    rows = [line.split('|') for line in output.splitlines() if 'CaC' in line]
    (_, mine, of_two, *_), (_, _, of_one, *_) = rows
    two, one = (int(cell.replace(',', '')) for cell in (of_two, of_one))
    assert 'mine' in mine and two > one  # modules


def test_config_path():
    path = cac_mmseg.config_path('cac_r101_cityscapes')
    assert os.path.samefile(path, ROOT / 'configs/cac_r101_cityscapes.py')
    assert cac_mmseg.config_path(
        'ablations/cac_r50_pcontext59_k5.py').endswith(
            'ablations/cac_r50_pcontext59_k5.py')
    with pytest.raises(ValueError, match='cac_r101_cityscapes') as info:
        cac_mmseg.config_path('cac_r101_cityscape')
    assert 'cac_r101_cityscape' in str(info.value)


def test_the_model_index_names_every_config():
    from mmengine.fileio import load
    index = load(ROOT / 'model-index.yml')
    models = [model for path in index['Import']
              for model in load(ROOT / path)['Models']]  # yapf: disable
    found = sorted(model['Config'] for model in models)
    assert found == sorted(f'configs/{name}.py' for name in NAMES)
    for model in models:
        assert model['Config'].endswith(f'{model["Name"]}.py')
        assert 'Results' not in model, 'not measured'
