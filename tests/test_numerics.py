"""The same result everywhere: dtypes, batches, sizes, layouts, devices."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.dataset import pseudo_collate
from mmseg.registry import DATASETS, MODELS

from cac_mmseg import CaCHead, CaCModule
from cac_mmseg.stack.config import load_config

LARGE = (256, 512)
# of the largest value; several times the largest error of 40 seeds
RELATIVE = {
    torch.float32: 1e-4,
    torch.float16: 2e-2,
    torch.bfloat16: 0.25,
}


def feature_maps(b, c, h, w):
    """As a decode head makes them: smooth, after a ReLU, means above zero."""
    x = torch.randn(b, c, h // 8 + 1, w // 8 + 1) + torch.rand(1, c, 1, 1)
    return F.interpolate(x, size=(h, w), mode='bilinear').relu()


def trained_module(c=8):
    """With running statistics that are not the initial ones."""
    module = CaCModule(c).train()
    for _ in range(3):
        module(feature_maps(2, c, 32, 64))
    return module.eval()


def make_head():
    return CaCHead(
        in_channels=8,
        channels=8,
        num_classes=5,
        num_heads=2,
        norm_cfg=dict(type='BN'))


def trained_head():
    head = make_head().train()
    for _ in range(3):
        head([feature_maps(2, 8, 32, 64)])
    return head.eval()


def assert_near(actual, expected, relative):
    error = (actual.double() - expected.double()).abs().max()
    assert error <= relative * expected.abs().max(), float(error)


@pytest.mark.parametrize('dtype', list(RELATIVE))
def test_large_maps_do_not_overflow(dtype):
    """A sum over 131,072 positions would pass 65,504, the end of float16."""
    module = trained_module()
    x = feature_maps(1, 8, *LARGE) * 3
    keys = F.conv2d(x, module.key.weight, module.key.bias)
    queries = F.conv2d(x, module.query.weight, module.query.bias)
    sums = queries.flatten(2) @ keys.flatten(2).transpose(1, 2)
    assert sums.abs().max() > torch.finfo(torch.float16).max
    with torch.no_grad():
        expected = module.double()(x.double())
        actual = module.to(dtype)(x.to(dtype))
    assert actual.dtype == dtype and actual.isfinite().all()
    assert_near(actual, expected, RELATIVE[dtype])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_large_maps_do_not_overflow_under_autocast(dtype):
    head, x = trained_head(), feature_maps(1, 8, *LARGE)
    with torch.no_grad():
        expected = head([x])
        with torch.autocast('cpu', dtype=dtype):
            actual = head([x])
    assert actual.isfinite().all()
    assert_near(actual, expected, 0.05)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_an_image_that_is_not_finite_spoils_no_other(value):
    head, x = trained_head(), feature_maps(3, 8, 16, 24)
    clean = head([x])
    x[1, 3, 5, 7] = value
    spoilt = head([x])
    assert not spoilt[1].isfinite().all()
    assert torch.equal(spoilt[[0, 2]], clean[[0, 2]])


def test_a_batch_changes_no_image():
    head, x = trained_head(), feature_maps(4, 8, 16, 24)
    together = head([x])
    torch.testing.assert_close(
        torch.cat([head([image[None]]) for image in x]), together)
    order = torch.randperm(4)
    torch.testing.assert_close(head([x[order]]), together[order])


def test_a_scene_repeated_is_read_the_same():
    """Kernels are of means, so twice the scene is the same context."""
    module, x = trained_module(), feature_maps(2, 8, 40, 48)
    y = module(x)
    tiled = module(x.repeat(1, 1, 2, 2))
    margin = max(module.dilations)  # of a 3 x 3 kernel: what padding touches
    inside = np.s_[..., margin:-margin, margin:-margin]
    for i in range(2):
        for j in range(2):
            tile = tiled[..., 40 * i:40 * (i + 1), 48 * j:48 * (j + 1)]
            torch.testing.assert_close(tile[inside], y[inside])


@pytest.mark.parametrize('train', [True, False])
def test_channels_last_is_kept_and_changes_nothing(train):
    # in float64: a small variance of the kernels magnifies what is rounded
    module = trained_module().double().train(train)
    x = feature_maps(2, 8, 16, 24).double()
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        leaf = x.contiguous(memory_format=layout).requires_grad_()
        y = module(leaf)
        assert y.is_contiguous(memory_format=layout)
        grad = torch.autograd.grad(y.square().sum(), leaf)[0]
        assert grad.is_contiguous(memory_format=layout)
        results.append((y, grad))
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs)


def test_deterministic_training_repeats_bit_by_bit():
    x = feature_maps(2, 8, 16, 24)
    runs = []
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(2):
            torch.manual_seed(1)
            head = make_head()
            optimizer = torch.optim.SGD(head.parameters(), 0.1)
            for _ in range(3):
                optimizer.zero_grad()
                head([x]).square().mean().backward()
                optimizer.step()
            runs.append(head.state_dict())
    finally:
        torch.use_deterministic_algorithms(False)
    for name, value in runs[0].items():
        assert torch.equal(value, runs[1][name]), name


@pytest.mark.slow
def test_bfloat16_autocast_trains_as_float32_does(configs):
    """``--amp`` itself asks for a GPU: this is what it does, on a CPU."""
    config = load_config(configs / 'cac_r18_crossing.py')
    dataset = DATASETS.build(config.train_dataloader.dataset)
    losses = {}
    for enabled in (False, True):
        torch.manual_seed(0)
        model = MODELS.build(config.model)
        model.init_weights()
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
        history = []
        for step in range(60):
            batch = [dataset[(4 * step + i) % 240] for i in range(4)]
            data = model.data_preprocessor(pseudo_collate(batch), True)
            with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
                loss = model.parse_losses(model(**data, mode='loss'))[0]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.append(loss.item())
        assert np.isfinite(history).all()
        losses[enabled] = np.mean(history[-10:])
        assert losses[enabled] < 0.6 * np.mean(history[:5])
    assert losses[True] < 1.3 * losses[False]
