"""The benchmark command: its tables, files and errors. Never its times."""
import csv
import json
import re
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from mmseg.registry import MODELS

from cac_mmseg.ops import eager
from cac_mmseg.stack.analysis import interleave
from cac_mmseg.stack.config import find_config, load_config
from tools.__main__ import main
from tools.benchmark import heads, operators
from tools.benchmark.plan import TINY
from tools.benchmark.timing import Setting, ratio


def run(capsys, *arguments):
    main(['benchmark', '--size', '8', '8', '--rounds', '1', *arguments])
    return capsys.readouterr()


def rows_of(output):
    lines = [line for line in output.splitlines() if line.startswith('|')]
    return [[cell.strip() for cell in line.strip('|').split('|')]
            for line in lines]


def test_heads_are_measured_against_the_bare_convolution(capsys, tmp_path):
    out = run(capsys, '--heads', 'CaCHead-2', 'OCRHead', '--json',
              f'{tmp_path}/a.json', '--plot', f'{tmp_path}/a.png')
    heading, _, *rows = rows_of(out.out)
    assert [row[0] for row in rows] == ['FCNHead-1', 'CaCHead-2', 'OCRHead']
    assert rows[0][heading.index('step over bare')] == '1.00'
    assert 'torch ' + torch.__version__ in out.out and 'device: ' in out.out
    assert 'measuring' in out.err  # progress

    result = json.loads((tmp_path / 'a.json').read_text())
    bare, cac, _ = result['rows']
    # reduction, its norm, the classifier
    assert bare['parameters'] == 512 * 2048 * 9 + 2 * 512 + 19 * 513
    assert cac['saved_mib'] > bare['saved_mib'] > 0
    assert bare['multiply_adds'] >= 2 * 64 * 512 * (2048 * 9 + 19)
    assert cac['train_ms'] > 0 and cac['predict_ms'] > 0
    assert (tmp_path / 'a.png').read_bytes().startswith(b'\x89PNG')


@pytest.mark.slow
def test_every_head_and_a_backbone_run(capsys):
    for name in heads.HEADS:
        case = heads.Case.of_name(name, setting(), None)
        heads.train(case, setting())
        heads.predict(case, setting())
        assert case.inputs[1].grad.abs().sum() > 0
    out = run(capsys, '--heads', 'CaCHead', '--backbone', '50', '--dtype',
              'bfloat16', '--channels-last')
    assert [row[0] for row in rows_of(out.out)[2:]] == ['FCNHead-1', 'CaCHead']


def test_a_head_that_does_not_run_is_named(capsys, monkeypatch):
    monkeypatch.setitem(heads.HEADS, 'Odd', dict(type='FCNHead', num_convs=-1))
    out = run(capsys, '--heads', 'Odd')
    assert 'not measured: Odd: AssertionError' in out.out


def test_heads_of_configs_are_measured_against_the_first(capsys):
    names = ['segformer_mit-b0_8xb2-160k_ade20k-512x512', 'cac_mit-b2_ade20k']
    heading, _, *rows = rows_of(run(capsys, '--configs', *names).out)
    assert [row[0] for row in rows] == names
    assert rows[0][heading.index('step over the first')] == '1.00'
    head = load_config(find_config(names[1])[0]).model.decode_head
    head.norm_cfg.type = 'BN'
    count = sum(p.numel() for p in MODELS.build(head).parameters())
    assert rows[1][heading.index('parameters')] == f'{count:,}'


def test_everything_goes_on_after_a_part_that_fails(capsys, tmp_path,
                                                    monkeypatch):

    def fail(*_):
        yield dict(what='eager forward', microseconds=1.)
        raise RuntimeError('no memory left')

    monkeypatch.setattr(operators.Operators, '_of_map', fail)
    main(['benchmark', '--all', '--out', str(tmp_path / 'new')])
    page = (tmp_path / 'new/benchmark.md').read_text()
    assert 'operators failed' in page and 'no memory left' in page
    # what there was before
    table = (tmp_path / 'new/operators.csv').read_text()
    assert table.splitlines() == ['what,microseconds', 'eager forward,1.0']
    for name in ('correctness', 'heads', 'models-r50'):
        with open(tmp_path / f'new/{name}.csv') as file:
            rows = [*csv.DictReader(file)]
        assert rows and f'## {name}' in page
    assert [row['name'] for row in rows] == ['FCNHead-1', 'CaCHead']
    assert float(rows[0]['images_per_second']) > 0
    assert (tmp_path / 'new/r50-eager.png').stat().st_size


def test_an_implementation_that_is_wrong_is_not_timed():

    found = operators.Operators(torch.device('cpu'), TINY, {})
    found.implementations['wrong'] = SimpleNamespace(
        **{
            **vars(eager), 'reweight': lambda x, *_: x
        })
    rows = [*found.correctness()]
    assert {row['right']
            for row in rows if row['implementation'] == 'eager'} == {True}
    assert {row['right']
            for row in rows if row['implementation'] == 'wrong'} == {False}
    measured = {row['what'] for row in found.times()}
    assert measured == {
        'eager forward', 'eager backward', 'eager pooling forward',
        'eager pooling backward'
    }


def test_an_implementation_that_fails_is_named_and_not_timed():

    def fail(*_):
        raise RuntimeError('out of shared memory')

    failures = {}
    found = operators.Operators(torch.device('cpu'), TINY, failures)
    found.implementations['broken'] = SimpleNamespace(
        **{
            **vars(eager), 'reweight': fail
        })
    rows = [*found.correctness()]
    assert failures == {'broken': 'out of shared memory'}
    assert [*found.implementations] == ['eager']
    assert len({tuple(row) for row in rows}) == 1  # a csv has one heading


def test_each_setting_is_tried_and_restored():
    modules = [
        SimpleNamespace(**{
            name: values[1]
            for name, values in settings.items()
        }) for settings in operators.SETTINGS.values()
    ]
    before = [dict(vars(module)) for module in modules]
    seen = []

    def reweight(*inputs):
        seen.append(modules[0].LANES)
        return eager.reweight(*inputs)

    found = operators.Operators(torch.device('cpu'), TINY, {})
    found.implementations['triton'] = SimpleNamespace(
        **{
            **vars(eager), 'reweight': reweight
        }, modules=modules)
    rows = [*found.settings()]
    tried = [(name, str(value)) for settings in operators.SETTINGS.values()
             for name, values in settings.items() for value in values]
    assert [(row['setting'], row['value']) for row in rows] == tried
    assert set(seen) == set(operators.SETTINGS['reweight']['LANES'])
    assert sum(row['default']
               for row in rows) == sum(map(len, operators.SETTINGS.values()))
    assert all(row['backward_us'] > 0 < row['forward_us'] for row in rows)
    assert [vars(module) for module in modules] == before


@pytest.mark.parametrize('operation, file',
                         [('reweight', 'triton_reweighting.py'),
                          ('pool_queries', 'triton_pooling.py')])
def test_settings_are_those_of_the_kernels(operation, file):
    source = (ROOT / 'cac_mmseg/ops' / file).read_text()
    for name, values in operators.SETTINGS[operation].items():
        default = re.search(rf'^{name} = (.*?)(  #|$)', source, re.M)[1]
        assert eval(default) in values


def test_op_compares_with_the_floor(capsys):
    out = run(capsys, '--op').out
    names = [row[0] for row in rows_of(out)]
    assert names[2:4] == ['eager forward', 'eager backward']
    assert 'copy bandwidth: ' in out and 'step, 4 N over N: ' in out


@pytest.mark.parametrize('arguments, words', [
    (['--heads', 'CaCHad'], ['--heads', 'CaCHad', 'CaCHead-4']),
    (['--rounds', '0'], ['--rounds: must be >= 1']),
    (['--batch', '-1'], ['--batch: must be >= 1']),
    (['--device', 'tpu0'], ['--device: tpu0', '--device cpu']),
    (['--device', 'cuda:99'], ['--device: cuda:99', '--device cpu']),
    (['--dtype', 'int8'], ['--dtype']),
    (['--json', '/nowhere/a.json'], ['/nowhere/a.json', 'folder']),
    (['--backbone', '18'], ['--backbone']),
    (['--all'], ['--all needs --out DIR']),
    (['--configs', 'gone'], ["no config is named 'gone'"]),
    (['--configs', 'pidnet-s_2xb6-120k_1024x1024-cityscapes'
      ], ['does not run here', 'PIDNet has other feature maps']),
])
def test_bad_options_are_named(capsys, arguments, words):
    with pytest.raises(SystemExit) as error:
        main(['benchmark', *arguments])
    message = capsys.readouterr().err
    assert error.value.code == 2
    for word in words:
        assert word in message


def setting(**changes):
    return Setting(
        **{
            **dict(
                device=torch.device('cpu'),
                dtype=torch.float32,
                batch=2,
                size=(8, 8),
                rounds=1,
                channels_last=False,
                compile=False),
            **changes
        })


def test_functions_take_turns():
    calls = []
    functions = {name: lambda n=name: calls.append(n) for name in 'ab'}
    times = interleave(functions, 3, torch.device('cpu'))
    assert calls == ['a', 'b'] * 5  # the first two do not count
    assert len(times['a']) == len(times['b']) == 3
    # of each round: not of the medians or the first (9), nor of the means (4)
    assert ratio([9, 2, 49], [1, 1, 13]) == 49 / 13
    assert ratio([1, 8, 4], [1, 2, 4]) == 1
