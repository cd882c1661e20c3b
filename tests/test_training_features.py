"""What people turn on in a config works with ours, through mmengine."""
import pytest
import torch
from mmengine.runner import Runner
from toy_runs import short_run

from cac_mmseg.stack.checkpoint import load_weights

pytestmark = pytest.mark.slow
ITERATIONS = 4


@pytest.fixture(scope='module')
def train(tmp_path_factory):
    """Train a little, the same way for the same changes."""

    def run(**changes):
        folder = tmp_path_factory.mktemp('run')
        cfg = short_run(folder, ITERATIONS, **changes)
        cfg.randomness = dict(seed=3, deterministic=True)
        cfg.experiment_name = folder.name
        runner = Runner.from_cfg(cfg)
        runner.train()
        losses, _ = runner.message_hub.get_scalar('train/loss').data
        return runner, torch.tensor(losses), load_weights(
            folder / f'iter_{ITERATIONS}.pth')

    yield run
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope='module')
def plain(train):
    return train()


QUERY = 'decode_head.cac_modules.0.query.weight'


def test_accumulation_moving_average_and_rates_by_layer(train):
    """All at once. Validation and the checkpoint use the average."""
    keys = {
        'decode_head': dict(lr_mult=10.),
        'decode_head.cac_modules': dict(lr_mult=0.1, decay_mult=0.),
    }
    runner, losses, _ = train(
        custom_hooks=[dict(type='EMAHook', momentum=0.5)],
        optim_wrapper=dict(
            accumulative_counts=2, paramwise_cfg=dict(custom_keys=keys)))
    assert losses.isfinite().all()
    optimizer = runner.optim_wrapper.optimizer
    steps = {int(state['step']) for state in optimizer.state.values()}
    assert steps == {ITERATIONS // 2}

    path = f'{runner.work_dir}/iter_{ITERATIONS}.pth'
    saved = torch.load(path, weights_only=False)
    average = saved['state_dict'][QUERY]
    own = saved['ema_state_dict'][f'module.{QUERY}']
    assert own.shape == average.shape and not torch.equal(own, average)

    names = {id(p): name for name, p in runner.model.named_parameters()}
    rates = {
        names[id(parameter)]: group['initial_lr']
        for group in optimizer.param_groups
        for parameter in group['params']
    }
    base = rates['backbone.conv1.weight']
    assert rates['decode_head.conv_seg.weight'] == pytest.approx(10 * base)
    assert rates[QUERY] == pytest.approx(0.1 * base)


@pytest.mark.parametrize('changes', [
    dict(compile=dict(backend='aot_eager')),
    dict(model=dict(backbone=dict(with_cp=True))),
])
def test_what_changes_no_result(train, plain, changes):
    _, losses, _ = train(**changes)
    torch.testing.assert_close(losses, plain[1], rtol=1e-3, atol=1e-4)


def test_freezing(train):
    """Stages of the backbone by mmseg, parts of the head by lr_mult=0.

    Both keep what the seed started them with, whatever the learning rate. A
    scheduler's eta_min would lift a rate of 0.
    """
    keys = {'cac_modules': dict(lr_mult=0., decay_mult=0.)}
    first, second = (
        train(
            **{'param_scheduler.0.eta_min': 0.},
            model=dict(backbone=dict(frozen_stages=1)),
            optim_wrapper=dict(
                optimizer=dict(lr=rate),
                paramwise_cfg=dict(custom_keys=keys)))[2]['state_dict']
        for rate in (0.01, 0.001))
    for name in ('backbone.layer1.0.conv1.weight', QUERY,
                 'decode_head.cac_modules.0.key.bias'):
        assert torch.equal(first[name], second[name])
    for name in ('backbone.layer2.0.conv1.weight',
                 'decode_head.conv_seg.weight'):
        assert not torch.equal(first[name], second[name])


def test_float16_inference(plain):
    model, x = plain[0].model.eval(), torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = model(x, mode='tensor')
        logits = model.half()(x.half(), mode='tensor')
    assert logits.dtype == torch.float16
    torch.testing.assert_close(logits.float(), expected, rtol=0.05, atol=0.05)
