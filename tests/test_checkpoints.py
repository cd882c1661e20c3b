"""Whatever mmengine saves by itself is resumed, published and tested safely.

The members of each kind are taken from mmengine's registries, so that a new
one is not missed.
"""
import mmengine.hooks
import mmseg.datasets
import pytest
import torch
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.registry import HOOKS, OPTIMIZERS, PARAM_SCHEDULERS
from mmseg.registry import DATASETS
from toy_runs import METAINFO, runner

from cac_mmseg.commands.publish import publish
from cac_mmseg.stack.checkpoint import read_checkpoint

OPTIONS = dict(
    Step=dict(step_size=1),
    MultiStep=dict(milestones=[1]),
    Exponential=dict(gamma=0.9),
    CosineAnnealing=dict(eta_min=0.),
    CosineRestart=dict(periods=[2], eta_min=0.),
    OneCycle=dict(total_steps=9, eta_max=0.2),
    ReduceOnPlateau=dict(monitor='toy/score'))
# these ask for a closure, matrices, sparse gradients or several processes
OTHER_OPTIMIZERS = {
    'LBFGS', 'Muon', 'SparseAdam', 'ZeroRedundancyOptimizer', 'Optimizer'
}
KEPT_HOOKS = [
    dict(type='EMAHook'),
    dict(type='EarlyStoppingHook', monitor='toy/score', rule='greater',
         patience=9),
    dict(type='SyncBuffersHook'),
    dict(type='EmptyCacheHook')
]  # yapf: disable
# of each run, or without a state: a profile, pictures, another model's layers
OTHER_HOOKS = {
    'CheckpointHook', 'DistSamplerSeedHook', 'IterTimerHook', 'LoggerHook',
    'ParamSchedulerHook', 'RuntimeInfoHook', 'NPUProfilerHook', 'ProfilerHook',
    'NaiveVisualizationHook', 'PrepareTTAHook', 'RFSearchHook'
}


@pytest.fixture
def round_trip(tmp_path, monkeypatch):
    """Train, then resume, publish and test what was saved."""
    load = torch.load

    def checked(*args, weights_only=None, **options):
        assert weights_only is not False, 'an unsafe load'
        return load(*args, weights_only=True, **options)

    monkeypatch.setattr(torch, 'load', checked)

    def run(**changes):
        runner(tmp_path / 'work', **changes).train()
        name = 'epoch' if changes.get('by_epoch') else 'iter'
        path = tmp_path / f'work/{name}_2.pth'
        assert read_checkpoint(path)[1] == []
        resumed = runner(tmp_path / 'work', 4, resume=True, **changes)
        resumed.train()
        assert getattr(resumed, name) == 4
        tested = runner(tmp_path / 'test', load_from=str(path), **changes)
        assert tested.test()['toy/score'] == 0.5
        published = publish(path, tmp_path / 'out')
        return load(
            path, weights_only=False), load(
                published, weights_only=True)

    return run


def scheduler(name, **changes):
    kind = name
    for suffix in ('LR', 'Momentum', 'ParamScheduler'):
        kind = kind.removesuffix(suffix)
    options = dict(type=name, by_epoch=False, **OPTIONS.get(kind, {}))
    if name.endswith('ParamScheduler'):
        options['param_name'] = 'lr'
    if kind == 'ReduceOnPlateau':
        options['by_epoch'] = True
    return options | changes


@pytest.mark.parametrize('strategy', ['cos', 'linear'])
def test_the_function_of_one_cycle(round_trip, strategy):
    saved, _ = round_trip(
        param_scheduler=[scheduler('OneCycleLR', anneal_strategy=strategy)])
    state, = saved['param_schedulers']
    assert state['anneal_func'].__name__ == f'_annealing_{strategy}'


def test_what_a_data_set_says_of_itself(round_trip):
    saved, published = round_trip()
    assert {*saved['meta']['dataset_meta']} == {*METAINFO}
    kept = published['meta']['dataset_meta']
    assert kept['config'] == METAINFO['config']
    assert kept['nested'] == METAINFO['nested']
    assert type(kept['config']['a']) is dict  # what weights_only can read


def test_data_sets_of_mmseg():
    """Their own descriptions hold builtin types only."""

    def types(value):
        if isinstance(value, dict):
            value = [*value, *value.values()]
        if isinstance(value, (list, tuple)):
            return {type(value)}.union(*map(types, value))
        return {type(value)}

    found = [
        types(cls.METAINFO) for cls in DATASETS.module_dict.values()
        if hasattr(cls, 'METAINFO')
    ]
    assert len(found) > 20 and mmseg.datasets
    assert set().union(*found) <= {dict, list, tuple, str, int, type(None)}


@pytest.mark.slow
@pytest.mark.parametrize('by_epoch', [True, False])
def test_every_scheduler(round_trip, by_epoch):
    """Those of one unit in one run."""
    found = [scheduler(name) for name in sorted(PARAM_SCHEDULERS.module_dict)]
    assert len(found) > 20
    found = [options for options in found if options['by_epoch'] == by_epoch]
    saved, _ = round_trip(param_scheduler=found, by_epoch=by_epoch)
    assert len(saved['param_schedulers']) == len(found) > 0


@pytest.mark.slow
@pytest.mark.parametrize('name',
                         sorted({*OPTIMIZERS.module_dict} - OTHER_OPTIMIZERS))
def test_every_optimizer(round_trip, name):
    saved, _ = round_trip(
        optim_wrapper=dict(optimizer=dict(type=name, lr=0.1)))
    assert 'state' in saved['optimizer']


@pytest.mark.slow
@pytest.mark.parametrize('options', [
    dict(type='AmpOptimWrapper', dtype='bfloat16'),
    dict(type='AmpOptimWrapper', loss_scale=dict(init_scale=8.)),
    dict(type='OptimWrapper', accumulative_counts=2),
    dict(constructor='OnePerLayer'),
])
def test_every_optimizer_wrapper(round_trip, options, monkeypatch):
    # mmengine asks for a GPU although autocast has a CPU's
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available',
                        lambda: True)
    saved, _ = round_trip(
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1), **options),
        param_scheduler=[scheduler('OneCycleLR')])
    assert ('first' in saved['optimizer']) == ('constructor' in options)
    assert ('loss_scaler'
            in saved['optimizer']) == ('type' in options
                                       and 'Amp' in options['type'])


def test_every_hook_is_known():
    kept = {hook['type'] for hook in KEPT_HOOKS}
    assert {*HOOKS.module_dict} == kept | OTHER_HOOKS
    assert mmengine.hooks


@pytest.mark.slow
def test_hooks_that_change_a_checkpoint(round_trip, tmp_path):
    """All of them, and the best and the published checkpoint."""
    saving = dict(
        type='CheckpointHook',
        interval=1,
        by_epoch=False,
        save_best='toy/score',
        rule='greater',
        max_keep_ckpts=3,
        published_keys=['meta', 'state_dict'])
    saved, _ = round_trip(
        custom_hooks=KEPT_HOOKS, default_hooks=dict(checkpoint=saving))
    assert 'ema_state_dict' in saved
    assert 'best_score' in saved['message_hub']['runtime_info']
    paths = [*(tmp_path / 'work').glob('*.pth')]
    assert any('best' in path.name for path in paths)
    for path in paths:
        assert read_checkpoint(path)[1] == []
