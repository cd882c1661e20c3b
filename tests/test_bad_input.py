"""Whatever is passed: it is built and runs, or the argument is named.

The tables of what is wrong are where they belong: tensors in test_functional,
test_cac_module and test_cac_head, files in test_publish, test_faults,
test_check_data and test_prepare, command lines in test_commands. Here are the
constructors, by a table and by fuzzing.
"""
import ast

import pytest
import torch
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.logging import HistoryBuffer
from test_publish import Payload

from cac_mmseg import (CaCHead, CaCModule, ChannelAttentionModule, CheckLabels,
                       ContextShapesDataset, FCKernelModule, GAPKernelModule,
                       IdentityModule, PredictionPictureHook,
                       WeightingMapsHook, config_path)
from cac_mmseg.__main__ import main

MODULE = dict(in_channels=4)
HEAD = dict(in_channels=4, channels=4, num_classes=3)


@pytest.mark.parametrize('make, argument, value', [
    (CaCModule, 'in_channels', 0),
    (CaCModule, 'in_channels', -3),
    (CaCModule, 'in_channels', 2.),
    (CaCModule, 'in_channels', '8'),
    (CaCModule, 'in_channels', None),
    (CaCModule, 'in_channels', True),
    (CaCModule, 'kernel_size', 2),
    (CaCModule, 'kernel_size', 0),
    (CaCModule, 'kernel_size', -3),
    (CaCModule, 'kernel_size', 3.),
    (CaCModule, 'kernel_size', True),
    (CaCModule, 'kernel_size', None),
    (CaCModule, 'kernel_size', (3, 3)),
    (CaCModule, 'dilations', 3),
    (CaCModule, 'dilations', None),
    (CaCModule, 'dilations', (True, )),
    (CaCModule, 'dilations', (1, -3)),
    (CaCModule, 'dilations', []),
    (CaCModule, 'dilations', (1, 0)),
    (CaCModule, 'dilations', (1, 2.5)),
    (CaCModule, 'dilations', '135'),
    (CaCModule, 'share_kernels', 1),
    (CaCModule, 'share_kernels', 'no'),
    (CaCModule, 'norm_cfg', None),
    (CaCModule, 'norm_cfg', 'BN'),
    (CaCModule, 'norm_cfg', {}),
    (GAPKernelModule, 'kernel_size', 4),
    (GAPKernelModule, 'in_channels', True),
    (FCKernelModule, 'dilations', (0, )),
    (ChannelAttentionModule, 'in_channels', 0),
    (IdentityModule, 'in_channels', 1.5),
    (CaCHead, 'num_heads', 0),
    (CaCHead, 'num_heads', 1.),
    (CaCHead, 'num_heads', True),
    (CaCHead, 'num_heads', -1),
    (CaCHead, 'num_heads', None),
    (CaCHead, 'global_pool', 'yes'),
    (CaCHead, 'share_kernels', 0),
    (CaCHead, 'global_pool', 1),
    (CaCHead, 'kernel_size', 6),
    (CaCHead, 'pool_norm_cfg', 'BN'),
    (CaCHead, 'pool_norm_cfg', {}),
    (CaCHead, 'dilations', ()),
    (CaCHead, 'reweighting', 'NoModule'),
    (CaCHead, 'reweighting', None),
    (CaCHead, 'reweighting', ''),
    (CaCHead, 'reweighting', 'os.path'),
    (CheckLabels, 'num_classes', 0),
    (CheckLabels, 'num_classes', '19'),
    (CheckLabels, 'num_classes', None),
    (ContextShapesDataset, 'split', 'training'),
    (ContextShapesDataset, 'split', None),
    (ContextShapesDataset, 'num_images', 0),
    (ContextShapesDataset, 'num_images', 1e3),
    (ContextShapesDataset, 'seed', -1),
    (ContextShapesDataset, 'seed', 'a'),
    (PredictionPictureHook, 'num_images', 0),
    (PredictionPictureHook, 'num_images', 2.5),
    (PredictionPictureHook, 'num_images', True),
    (WeightingMapsHook, 'num_images', '1'),
    (WeightingMapsHook, 'num_channels', 0),
])
def test_a_bad_value_is_named(make, argument, value):
    arguments = {CaCHead: HEAD}.get(make, MODULE)
    if make in (CheckLabels, ContextShapesDataset, PredictionPictureHook,
                WeightingMapsHook):
        arguments = {}
    with pytest.raises((ValueError, TypeError)) as error:
        make(**{**arguments, argument: value})
    assert argument in str(error.value)
    wrong = value[-1] if isinstance(value, tuple) and value else value
    assert str(wrong) in str(error.value)


@pytest.mark.parametrize('module', [
    'CaCModule', 'GAPKernelModule', 'ChannelAttentionModule', 'IdentityModule'
])
@pytest.mark.parametrize('argument, value', [
    ('kernel_size', 4),
    ('dilations', (1, 0)),
    ('dilations', 3),
    ('share_kernels', 1),
])
def test_a_head_names_its_bad_values_whatever_the_module_takes(
        module, argument, value):
    with pytest.raises((ValueError, TypeError), match=argument):
        CaCHead(**HEAD, reweighting=module, **{argument: value})


anything = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 9), st.floats(-3, 9),
    st.text(max_size=3), st.lists(st.integers(-1, 5), max_size=3),
    st.tuples(st.integers(-1, 5), st.integers(-1, 5)),
    st.dictionaries(
        st.sampled_from(['type', 'num_groups']), st.sampled_from(['BN', 2])))


def draw_arguments(names):
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, anything))


def builds_and_runs_or_names(make, arguments, run):
    try:
        module = make()
    except (ValueError, TypeError) as error:
        assert any(name in str(error) for name in arguments), error
        return
    except KeyError as error:  # of mmengine's registry, which names it
        assert 'norm' in str(arguments) and 'not in the' in str(error)
        return
    y = run(module.eval())
    assert y.isfinite().all()


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow])
@given(
    draw_arguments(
        ['in_channels', 'kernel_size', 'dilations', 'share_kernels']))
def test_fuzzed_modules(arguments):
    arguments = {**MODULE, **arguments}
    builds_and_runs_or_names(
        lambda: CaCModule(**arguments), arguments,
        lambda module: module(torch.rand(2, module.in_channels, 6, 7)))


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow])
@given(
    draw_arguments([
        'kernel_size', 'dilations', 'share_kernels', 'num_heads',
        'global_pool', 'reweighting'
    ]))
def test_fuzzed_heads(arguments):
    arguments = {**HEAD, **arguments}
    builds_and_runs_or_names(lambda: CaCHead(**arguments), arguments,
                             lambda head: head([torch.rand(2, 4, 6, 7)]))


@pytest.mark.parametrize(
    'name', ['', 'cac', '../../etc/passwd', None, 3, 'metafile.yml'])
def test_configs_that_do_not_exist_are_named(name):
    with pytest.raises(ValueError, match='no config is named'):
        config_path(name)


def test_our_code_reads_no_pickle_unsafely():
    """Every torch.load of the package, and of its examples."""
    calls = []
    for path in sorted((ROOT / 'cac_mmseg').rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in ('pickle.load', 'pickle.loads', 'eval',
                                    'exec', 'joblib.load'), path
                if name == 'torch.load':
                    calls.append(node)
                if name == 'loadmat':  # classes of a .mat are not made
                    assert 'LabelMap' in path.read_text()
    assert calls
    for call in calls:
        given = {
            keyword.arg: ast.unparse(keyword.value)
            for keyword in call.keywords
        }
        # with the stand-in for pickle, nothing that is named is imported
        assert given['weights_only'] == 'True' or given[
            'pickle_module'] == '_inert_pickle(names)'


@pytest.mark.parametrize('command', [
    'publish evil.pth out.pth',
    'export {config} evil.pth --out out.pt2',
    'visualize {config} evil.pth image.png --out out',
    'doctor --weights evil.pth',
])
def test_commands_run_nothing_of_a_checkpoint(tmp_path, configs, command,
                                              monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save(
        dict(state_dict=Payload(tmp_path / 'it_ran')), tmp_path / 'evil.pth')
    (tmp_path / 'image.png').touch()
    config = configs / 'cac_r18_contextshapes.py'
    with pytest.raises(SystemExit) as end:
        main(command.format(config=config).split())
    assert int(end.value.code) in (1, 2)
    out, err = capsys.readouterr()
    assert 'refusing to load evil.pth: its weights are not' in out + err
    assert {path.name
            for path in tmp_path.iterdir()} == {'evil.pth', 'image.png'}


def test_a_checkpoint_cannot_reach_attributes(tmp_path, capsys):
    """getattr is in mmengine's own checkpoints, but only of its log."""

    class Reach:

        def __reduce__(self):
            return getattr, (HistoryBuffer, '__init__')

    torch.save(dict(state_dict=Reach()), tmp_path / 'evil.pth')
    with pytest.raises(SystemExit):
        main(['publish', f'{tmp_path}/evil.pth', f'{tmp_path}/out.pth'])
    assert 'evil.pth: its weights are not all tensors; reading it would ' \
        'import builtins.getattr' in capsys.readouterr().err


def test_pages_stay_in_their_folder(tmp_path, configs, monkeypatch):
    """The name of an image is all that is taken of its path."""
    import mmengine.fileio as fileio
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a/x.png').write_bytes(
        fileio.get('contextshapes://image/val/0/000000.png'))
    (tmp_path / 'b').mkdir()
    monkeypatch.chdir(tmp_path / 'b')
    main([
        'visualize', f'{configs}/cac_r18_contextshapes.py', '../a/../a/x.png',
        '--out', 'out', '--device', 'cpu'
    ])
    assert [
        str(path.relative_to(tmp_path))
        for path in sorted(tmp_path.rglob('*.png'))
    ] == ['a/x.png', 'b/out/x.png']
