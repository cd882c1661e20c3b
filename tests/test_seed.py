"""CAC_SEED repeats what a run of the tests drew."""
import os
import re
import sys

import pytest
from conftest import ROOT, start

# more than one test, so that each of two workers gets one
TESTS = '''
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()


@pytest.fixture(scope='module')
def shared():
    return draw()


@pytest.mark.parametrize('name', ['a', 'b'])
def test_generators(name, shared, rng):
    Path(name).write_text(f'{shared} {draw()} {rng.random()}')


@settings(max_examples=5)
@given(strategies.integers(), strategies.text())
def test_hypothesis(number, text):
    with open('c', 'a', encoding='utf-8') as file:
        file.write(f'{number} {text!a} {torch.rand(1)}')
'''


def run(folder, *options, **variables):
    """Return the seed of the header, and what the tests drew."""
    folder.mkdir()
    (folder / 'test_draws.py').write_text(TESTS)
    paths = os.pathsep.join(map(str, (ROOT, ROOT / 'tests')))
    environment = {**os.environ, 'PYTHONPATH': paths}
    del environment['CAC_SEED']
    words = f'-m pytest -c {os.devnull} --rootdir . -p conftest test_draws.py'
    done = start(
        sys.executable,
        *words.split(),
        *options,
        cwd=folder,
        env=environment | variables)
    assert done.returncode == 0, done.stdout + done.stderr
    drawn = [(folder / name).read_text() for name in 'abc']
    assert drawn[0] == drawn[1]
    return re.search(r'CAC_SEED=(\d+)', done.stdout)[1], drawn


@pytest.mark.slow  # pytest, three times
def test_the_seed_of_the_header_repeats_a_run(tmp_path):
    seed, drawn = run(tmp_path / 'first', '-n', '2')
    assert run(tmp_path / 'again', CAC_SEED=seed) == (seed, drawn)
    other, different = run(tmp_path / 'other')
    assert other != seed
    assert all(ours != theirs for ours, theirs in zip(drawn, different))
