"""Exported models in the runtimes that people deploy with."""
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGES = ('openvino', 'ncnn', 'pnnx', 'executorch')


@pytest.mark.slow
def test_a_model_runs_in_every_runtime(tmp_path):
    """Installed beside what is here, where there are wheels."""
    venv.create(tmp_path / 'venv', with_pip=True)
    python = tmp_path / 'venv/bin/python'
    site, = (tmp_path / 'venv').glob('lib/python*/site-packages')
    here = [path for path in sys.path if Path(path).is_dir()]
    (site / 'here.pth').write_text('\n'.join(here))
    for package in PACKAGES:
        done = subprocess.run([python, '-m', 'pip', 'install', '-q', package])
        if done.returncode:
            pytest.skip(f'there is no wheel of {package}')
    printed = subprocess.run(
        [python, '-m', 'tools.checks.runtimes', '--heads', 'cac'],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True).stdout
    _, _, *rows = [
        line.split('|') for line in printed.splitlines() if line[:1] == '|'
    ]
    cells = {row[1].strip(): row[3].split(',') for row in rows}
    assert len(cells) == 7, printed
    for name, (difference, *rest) in cells.items():
        if name.startswith('Core ML'):
            assert difference.strip() == 'converts', printed
        else:
            assert float(difference) < 1e-3, printed
            assert float(rest[0].strip(' %')) > 99.9, printed
