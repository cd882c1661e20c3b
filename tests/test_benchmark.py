"""The benchmark command: its tables, files and errors. Never its times."""
import csv
import os
import re
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from test_cost import rows_of

from cac_mmseg.ops import choice, eager
from cac_mmseg.stack.timing import Case, compare, ratio, seconds, train
from tools.__main__ import main
from tools.benchmark import everything, heads, operators
from tools.benchmark.plan import TINY
from tools.benchmark.setting import Setting

CPU = torch.device('cpu')


def test_everything_goes_on_after_what_fails(tmp_path, monkeypatch):

    def fail(*_):
        yield dict(what='eager forward', microseconds=1.)
        raise RuntimeError('no memory left')

    monkeypatch.setattr(operators.Operators, 'of_map', fail)
    monkeypatch.setitem(heads.HEADS, 'OCRHead', dict(ocr_channels=-1))
    main(['benchmark', '--all', '--out', f'{tmp_path}/new'])
    page = (tmp_path / 'new/benchmark.md').read_text()
    assert 'operators failed' in page and 'no memory left' in page
    assert 'OCRHead failed' in page and 'RuntimeError: ' in page
    tables = {}
    for path in (tmp_path / 'new').glob('*.csv'):
        with open(path) as file:
            tables[path.stem] = [*csv.DictReader(file)]
    assert {*tables} == {
        'idle', 'correctness', 'operators', 'heads', 'host', 'models-r50'
    }
    assert [row['dtype']
            for row in tables['host']] == ['float32'] * 3 + ['bfloat16'] * 3
    assert int(tables['host'][0]['parameters']) == 16 * 64 * 9 + 32 + 19 * 17
    assert all(f'## {name}' in page for name in tables)
    # what there was before
    row = dict(what='eager forward', microseconds='1.0')
    assert tables['operators'] == [row]
    bare, cac = tables['heads']
    assert bare['name'] == 'FCNHead-1' and cac['name'] == 'CaCHead'
    assert float(bare['train_ratio']) == 1 < float(cac['train_ms'])
    # reduction, its norm, the classifier
    assert int(bare['parameters']) == 512 * 2048 * 9 + 2 * 512 + 19 * 513
    assert float(cac['saved_mib']) > float(bare['saved_mib']) > 0
    assert int(bare['multiply_adds']) >= 2 * 16 * 512 * (2048 * 9 + 19)
    assert tables['models-r50'][1]['name'] == 'CaCHead'
    assert (tmp_path / 'new/r50-eager.png').stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize('name', heads.HEADS)
def test_every_head_runs(name):
    setting = Setting(CPU, torch.float32, 2, (8, 8), 1)
    case = heads.head_case(name, setting, None)
    train(case)
    assert case.inputs[1].grad.abs().sum() > 0


def test_an_implementation_that_is_wrong_or_fails_is_not_timed():
    failures = {}
    found = operators.Operators(CPU, TINY, failures)
    bad = dict(wrong=lambda x, *_: x, broken=lambda *_: 1 / 0)
    for name, function in bad.items():
        found.implementations[name] = SimpleNamespace(**vars(eager))
        found.implementations[name].reweight = function
    rows = [*found.correctness()]
    right = {(row['implementation'], row['right']) for row in rows}
    assert right == {('eager', True), ('wrong', False), ('broken', False)}
    assert failures == {'broken': 'division by zero'}
    assert len({tuple(row) for row in rows}) == 1  # a csv has one heading
    timed = {row['what'] for row in found.times()}
    assert timed == {f'eager {call}' for call in operators.PASSES}


@pytest.mark.parametrize('name, variable, module', [
    ('eager', '0', 'triton_reweighting'),
    ('triton', '1', 'triton_reweighting'),
    ('rolling', '1', 'triton_rolling'),
])
def test_heads_run_with_each_implementation(name, variable, module):
    before = choice.KERNELS
    with everything._use(name):
        assert os.environ[choice.VARIABLE] == variable
        assert choice.KERNELS['reweight'] == module
    assert choice.KERNELS is before


def test_each_setting_of_the_kernels_is_tried_and_restored():
    triton, seen = SimpleNamespace(**vars(eager), modules={}), []
    for call, file in (('', 'reweighting'), ('pooling ', 'pooling')):
        source = (ROOT / f'cac_mmseg/ops/triton_{file}.py').read_text()
        found = re.findall(r'^([A-Z_]+) = (\(?\d.*?)(?:  #|$)', source, re.M)
        values = {name: eval(value) for name, value in found}
        triton.modules[call] = SimpleNamespace(**values)
    triton.reweight = lambda *inputs: (seen.append(triton.modules[''].LANES),
                                       eager.reweight(*inputs))
    before = [dict(vars(m)) for m in triton.modules.values()]
    found = operators.Operators(CPU, TINY, {})
    found.implementations['triton'] = triton
    rows = [*found.settings()]
    tried = [(name, str(value)) for name, values in operators.SETTINGS.items()
             for value in values]
    assert [(row['setting'], row['value']) for row in rows] == tried
    assert {*seen} == {*operators.SETTINGS['LANES']}
    assert sum(row['default'] for row in rows) == len(operators.SETTINGS)
    assert all(row['backward_us'] > 0 < row['forward_us'] for row in rows)
    assert [vars(m) for m in triton.modules.values()] == before


def test_op_compares_with_a_copy(capsys, tmp_path):
    plot = tmp_path / 'a.png'
    main(f'benchmark --op --size 2 3 --rounds 1 --plot {plot}'.split())
    out = capsys.readouterr().out
    heading, _, *rows = rows_of(out)
    names = [row[0] for row in rows]
    assert names[:-2] == [f'eager {call}' for call in operators.PASSES]
    assert heading[-1] == 'over a copy' and float(rows[0][-1]) > 0
    assert 'device: ' in out and f'torch {torch.__version__}' in out
    assert plot.read_bytes().startswith(b'\x89PNG')
    with pytest.raises(SystemExit):
        main(['benchmark', '--all'])
    assert '--all needs --out DIR' in capsys.readouterr().err


def test_modules_take_turns_and_start_without_gradients():
    x, calls = torch.ones(1, 2, requires_grad=True), []

    def case(name):
        module = torch.nn.Linear(2, 1)

        def forward():
            calls.append((name, module.training, torch.is_grad_enabled()))
            return module(x)

        return Case(module, forward, forward, [x])

    cases = {name: case(name) for name in 'ab'}
    rows = compare(cases, 3)
    steps = [(name, *mode) for name in 'ab'
             for mode in ((True, True), (False, False))]
    assert calls == steps * 4  # the first does not count
    assert rows['a']['train_ratio'] == rows['a']['predict_ratio'] == 1
    assert cases['b'].module.bias.grad.item() == 1
    assert torch.equal(x.grad, cases['b'].module.weight)
    times = seconds({0: lambda: calls.append(0)}, 3, 0.001)
    assert len(calls) > 100 and len(times[0]) == 3  # repeated
    # of each round: not of the medians or the first (9), nor of the means (4)
    assert ratio([9, 2, 49], [1, 1, 13]) == 49 / 13
