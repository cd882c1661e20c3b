"""Whatever is passed: it is built and runs, or the argument is named.

The tables of what is wrong are where they belong: tensors in test_functional,
test_cac_module and test_cac_head, files in test_publish, test_faults,
test_check_data and test_prepare, command lines in test_commands. Here are the
constructors, by a table and by fuzzing.
"""
import ast

import mmengine.fileio as fileio
import pytest
import torch
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.logging import HistoryBuffer
from test_publish import Payload

from cac_mmseg import (CaCHead, CaCModule, ChannelAttentionModule, CheckLabels,
                       ContextShapesDataset, FCKernelModule, GAPKernelModule,
                       IdentityModule, ReportHook, WeightingMapsHook,
                       config_path)

MODULE = dict(in_channels=4)
HEAD = dict(in_channels=4, channels=4, num_classes=3)
# what a constructor takes, and wrong values of its arguments
WRONG = [
    (CaCModule, {}, dict(in_channels=[0, -3, 2., '8', None, True])),
    (CaCModule, MODULE, dict(
        kernel_size=[2, 0, -3, 3., True, None, (3, 3)],
        dilations=[3, None, (True, ), (1, -3), [], (1, 0), (1, 2.5), '135'],
        share_kernels=[1, 'no'],
        norm_cfg=[None, 'BN', {}])),
    (GAPKernelModule, {}, dict(in_channels=[True])),
    (GAPKernelModule, MODULE, dict(kernel_size=[2, 4])),
    (FCKernelModule, MODULE, dict(kernel_size=[2], dilations=[(0, )])),
    (ChannelAttentionModule, {}, dict(in_channels=[0])),
    (IdentityModule, {}, dict(in_channels=[1.5])),
    (CaCHead, HEAD, dict(
        num_heads=[0, 1., True, -1, None],
        global_pool=['yes', 1],
        share_kernels=[0],
        kernel_size=[6],
        pool_norm_cfg=['BN', {}],
        dilations=[()],
        reweighting=['NoModule', None, '', 'os.path', 3, CaCModule])),
    (CheckLabels, {}, dict(num_classes=[0, '19', None])),
    (ContextShapesDataset, {}, dict(
        split=['training', None],
        num_images=[0, 1e3],
        seed=[-1, 'a'])),
    (ReportHook, {}, dict(num_images=[0, 2.5, True])),
    (WeightingMapsHook, {}, dict(num_images=[0, '1'], num_channels=[0])),
]  # yapf: disable


@pytest.mark.parametrize('make, arguments, argument, value',
                         [(make, arguments, argument, value)
                          for make, arguments, wrong in WRONG
                          for argument, values in wrong.items()
                          for value in values])
def test_a_bad_value_is_named(make, arguments, argument, value):
    with pytest.raises((ValueError, TypeError)) as error:
        make(**arguments, **{argument: value})
    assert argument in str(error.value)
    wrong = value[-1] if isinstance(value, tuple) and value else value
    assert str(wrong) in str(error.value)


@pytest.mark.parametrize('module', [
    'CaCModule', 'GAPKernelModule', 'ChannelAttentionModule', 'IdentityModule'
])
def test_a_head_names_its_bad_values_whatever_the_module_takes(module):
    for argument, value in (('kernel_size', 4), ('dilations', (1, 0)),
                            ('dilations', 3), ('share_kernels', 1)):
        with pytest.raises((ValueError, TypeError), match=argument):
            CaCHead(**HEAD, reweighting=module, **{argument: value})


anything = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 9), st.floats(-3, 9),
    st.text(max_size=3), st.lists(st.integers(-1, 5), max_size=3),
    st.tuples(st.integers(-1, 5), st.integers(-1, 5)),
    st.dictionaries(
        st.sampled_from(['type', 'num_groups']), st.sampled_from(['BN', 2])))


def draw_arguments(*names):
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


fuzzed = settings(
    max_examples=100, suppress_health_check=[HealthCheck.too_slow])


@fuzzed
@given(
    draw_arguments('in_channels', 'kernel_size', 'dilations', 'share_kernels'))
def test_fuzzed_modules(arguments):
    arguments = {**MODULE, **arguments}
    builds_and_runs_or_names(
        lambda: CaCModule(**arguments), arguments,
        lambda module: module(torch.rand(2, module.in_channels, 6, 7)))


@fuzzed
@given(
    draw_arguments('kernel_size', 'dilations', 'share_kernels', 'num_heads',
                   'global_pool', 'reweighting'))
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
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            assert name not in ('pickle.load', 'pickle.loads', 'eval', 'exec',
                                'joblib.load'), path
            # classes of a .mat are not made
            assert name != 'loadmat' or 'LabelMap' in path.read_text()
            if name == 'torch.load':
                calls.append(
                    {k.arg: ast.unparse(k.value)
                     for k in node.keywords})
    assert calls
    for given_ in calls:
        # with the stand-in for pickle, nothing that is named is imported
        assert given_['weights_only'] == 'True' or given_[
            'pickle_module'] == '_inert_pickle(names)'


@pytest.mark.parametrize('command', [
    'publish evil.pth out.pth',
    'export {config} evil.pth --out out.pt2',
    'visualize {config} evil.pth image.png --out out',
    'doctor --weights evil.pth',
])
def test_commands_run_nothing_of_a_checkpoint(tmp_path, shapes, command,
                                              monkeypatch, cli):
    monkeypatch.chdir(tmp_path)
    evil = dict(state_dict=Payload(tmp_path / 'it_ran'))
    torch.save(evil, tmp_path / 'evil.pth')
    (tmp_path / 'image.png').touch()
    code, out = cli(command.format(config=shapes.config))
    assert code in (1, 2)
    assert 'refusing to load evil.pth: its weights are not' in out
    assert {path.name for path in tmp_path.iterdir()} == {
        'evil.pth', 'image.png'}  # yapf: disable


def test_a_checkpoint_cannot_reach_attributes(tmp_path, cli):
    """getattr is in mmengine's own checkpoints, but only of its log."""

    class Reach:

        def __reduce__(self):
            return getattr, (HistoryBuffer, '__init__')

    torch.save(dict(state_dict=Reach()), tmp_path / 'evil.pth')
    code, out = cli(f'publish {tmp_path}/evil.pth {tmp_path}/out.pth')
    assert code == 2 and 'evil.pth: its weights are not all tensors; ' \
        'reading it would import builtins.getattr' in out


def test_pages_stay_in_their_folder(tmp_path, shapes, monkeypatch, cli):
    """The name of an image is all that is taken of its path."""
    image = fileio.get('contextshapes://image/val/0/000000.png')
    for folder in 'ab':
        (tmp_path / folder).mkdir()
    (tmp_path / 'a/x.png').write_bytes(image)
    monkeypatch.chdir(tmp_path / 'b')
    cli(f'visualize {shapes.config} ../a/../a/x.png --out out --device cpu')
    found = sorted(tmp_path.rglob('*.png'))
    assert found == [tmp_path / 'a/x.png', tmp_path / 'b/out/x.png']
