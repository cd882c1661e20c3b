"""What ``import cac_mmseg`` says where the mmseg stack is not sound."""
import os
import sys

import pytest
from conftest import ROOT, start

import cac_mmseg


def import_error(python, *folders):
    path = os.pathsep.join(map(str, (*folders, ROOT)))
    environment = dict(os.environ, PYTHONPATH=path)
    run = start(python, '-c', 'import cac_mmseg', env=environment)
    assert run.returncode != 0
    message = run.stderr.strip().splitlines()[-1]
    assert message.startswith('ImportError: cac_mmseg'), run.stderr
    return message


def describe(root, name, version='1.0'):
    """Write the metadata of a distribution."""
    info = root / f'{name.replace("-", "_")}-{version}.dist-info'
    info.mkdir()
    info.joinpath('METADATA').write_text(
        f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')


def fake(root, **modules):
    """Modules (name=code) with the metadata of their distributions."""
    for module, code in modules.items():
        (root / module).mkdir()
        (root / module / '__init__.py').write_text(code)
        module = module.replace('mmseg', 'mmsegmentation')
        describe(root, f'onedl-{module}')


def test_no_stack_says_what_to_install(bare_python):
    message = import_error(bare_python)
    assert 'mmengine and mmcv and mmseg cannot be found' in message
    for extra in 'onedl', 'openmmlab':
        assert f'pip install "cacnet-mmseg[{extra}]"' in message


def test_a_missing_module_is_named(bare_python, tmp_path):
    fake(tmp_path, mmengine='', mmseg='')
    assert 'and mmcv cannot be found' in import_error(bare_python, tmp_path)


@pytest.mark.parametrize('code, words', [
    ('import pkg_resources', 'setuptools<81'),
    ('import ftfy', 'pip install ftfy'),
    ("assert False, 'MMCV==2.2.0 is used but incompatible'",
     'MMCV==2.2.0 is used'),
    ("raise ModuleNotFoundError('no ops', name='mmcv._ext')",
     'compiled operators'),
    ("raise RuntimeError('operator torchvision::nms does not exist')",
     'pip uninstall -y timm'),
])
def test_a_stack_that_does_not_import_says_how_to_mend_it(
        bare_python, tmp_path, code, words):
    fake(tmp_path, mmengine='', mmcv='', mmseg=code)
    message = import_error(bare_python, tmp_path)
    assert 'mmseg is installed but cannot be imported' in message
    assert words in message


def test_both_stacks_at_once_are_refused(tmp_path):
    """In this environment, with the other stack's metadata beside it."""
    for name in ('mmsegmentation', 'onedl-mmsegmentation'):
        describe(tmp_path, name, '1.2.2')
    message = import_error(sys.executable, tmp_path)
    assert 'mmseg is installed twice' in message
    assert 'mmsegmentation 1.2.2' in message and 'pip uninstall -y' in message


def test_an_import_keeps_to_itself():
    """No plotting, no entry in PyTorch's list of safe classes, no output."""
    code = """
import sys
import torch
import cac_mmseg
print(cac_mmseg.__version__)
assert not [name for name in sys.modules if name.startswith('matplotlib')]
names = [str(entry) for entry in torch.serialization.get_safe_globals()]
assert not [name for name in names if 'getattr' in name], names
"""
    run = start(sys.executable, '-W', 'default', '-c', code)
    assert run.returncode == 0, run.stderr
    assert run.stdout == cac_mmseg.__version__ + '\n'
    assert os.path.dirname(
        cac_mmseg.__file__) not in run.stderr  # a warning of ours
    assert 'Fail to import' not in run.stderr
