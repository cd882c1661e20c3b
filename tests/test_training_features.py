"""What people turn on in a config works with ours, through mmengine."""
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from cac_mmseg.stack.checkpoint import load_weights

pytestmark = pytest.mark.slow
ITERATIONS = 4


@pytest.fixture
def train(tmp_path, configs):
    """Train a little, the same way for the same changes."""

    def run(**changes):
        cfg = Config.fromfile(configs / 'cac_r18_contextshapes.py')
        loader = dict(batch_size=2, num_workers=0, persistent_workers=False)
        cfg.merge_from_dict(
            dict(
                train_cfg=dict(max_iters=ITERATIONS, val_interval=ITERATIONS),
                train_dataloader=loader,
                val_dataloader=loader | dict(dataset=dict(num_images=2)),
                default_hooks=dict(
                    checkpoint=dict(interval=ITERATIONS),
                    logger=dict(interval=1)),
                randomness=dict(seed=3, deterministic=True)))
        cfg.merge_from_dict(changes)
        folder = tmp_path / f'run{len([*tmp_path.iterdir()])}'
        cfg.work_dir = str(folder)
        cfg.experiment_name = f'{tmp_path.name}-{folder.name}'
        runner = Runner.from_cfg(cfg)
        runner.train()
        losses, _ = runner.message_hub.get_scalar('train/loss').data
        return runner, torch.tensor(losses), load_weights(
            folder / f'iter_{ITERATIONS}.pth')

    yield run
    torch.use_deterministic_algorithms(False)


def test_gradient_accumulation(train):
    runner, losses, _ = train(optim_wrapper=dict(accumulative_counts=2))
    assert losses.isfinite().all()
    steps = {
        int(state['step'])
        for state in runner.optim_wrapper.optimizer.state.values()
    }
    assert steps == {ITERATIONS // 2}


def test_moving_average_of_the_weights(train):
    """Validation and the checkpoint use it; the run's own are kept beside."""
    runner, losses, _ = train(
        custom_hooks=[dict(type='EMAHook', momentum=0.5)])
    saved = torch.load(
        f'{runner.work_dir}/iter_{ITERATIONS}.pth', weights_only=False)
    assert losses.isfinite().all()
    name = 'decode_head.cac_modules.0.query.weight'
    average, own = (saved[key] for key in ('state_dict', 'ema_state_dict'))
    own = own[f'module.{name}']
    assert own.shape == average[name].shape
    assert not torch.equal(own, average[name])


@pytest.mark.parametrize(
    'changes', [
        dict(compile=dict(backend='aot_eager')),
        dict(model=dict(backbone=dict(with_cp=True))),
    ],
    ids=['compile', 'with_cp'])
def test_what_changes_no_result(train, changes):
    _, expected, _ = train()
    _, losses, _ = train(**changes)
    torch.testing.assert_close(losses, expected, rtol=1e-3, atol=1e-4)


def test_freezing(train):
    """Stages of the backbone by mmseg, parts of the head by lr_mult=0.

    Both keep what the seed started them with, whatever the learning rate. A
    scheduler's eta_min would lift a rate of 0.
    """
    keys = {'cac_modules': dict(lr_mult=0., decay_mult=0.)}
    weights = [
        train(
            **{'param_scheduler.0.eta_min': 0.},
            model=dict(backbone=dict(frozen_stages=1)),
            optim_wrapper=dict(
                optimizer=dict(lr=rate),
                paramwise_cfg=dict(custom_keys=keys)))[2]['state_dict']
        for rate in (0.01, 0.001)
    ]
    for name in ('backbone.layer1.0.conv1.weight',
                 'decode_head.cac_modules.0.query.weight',
                 'decode_head.cac_modules.0.key.bias'):
        assert torch.equal(*(state[name] for state in weights))
    for name in ('backbone.layer2.0.conv1.weight',
                 'decode_head.conv_seg.weight'):
        assert not torch.equal(*(state[name] for state in weights))


def test_learning_rates_by_layer(train):
    keys = {
        'decode_head': dict(lr_mult=10.),
        'decode_head.cac_modules': dict(lr_mult=0.1, decay_mult=0.),
    }
    runner, losses, _ = train(
        optim_wrapper=dict(paramwise_cfg=dict(custom_keys=keys)))
    assert losses.isfinite().all()
    rates = {}
    names = {id(p): name for name, p in runner.model.named_parameters()}
    for group in runner.optim_wrapper.optimizer.param_groups:
        for parameter in group['params']:
            rates[names[id(parameter)]] = group['initial_lr']
    base = rates['backbone.conv1.weight']
    assert rates['decode_head.conv_seg.weight'] == pytest.approx(10 * base)
    assert rates['decode_head.cac_modules.0.query.weight'] == pytest.approx(
        0.1 * base)


def test_float16_inference(train):
    runner, *_ = train()
    model = runner.model.eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = model(x, mode='tensor')
        logits = model.half()(x.half(), mode='tensor')
    assert logits.dtype == torch.float16
    torch.testing.assert_close(logits.float(), expected, rtol=0.05, atol=0.05)
