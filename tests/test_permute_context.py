"""The measurement in docs/study.md of what trained heads use."""

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.apis import init_model

from tools.checks import image_size, permute_context

KERNELS, BRANCH = 'kernel_norm', 'pool_conv.bn'


def run_of(head, configs, folder, constant=(), **head_options):
    """A finished run, in which paths are the same for every image."""
    config = Config.fromfile(configs / 'cac_r18_contextshapes.py')
    config.model.decode_head.update(head_options)
    config.val_dataloader.update(num_workers=0, persistent_workers=False)
    config.val_dataloader.dataset.num_images = 4
    run = folder / f'{head}-seed0'
    (run / 'work_dir').mkdir(parents=True)
    config.dump(run / 'config.py')
    torch.manual_seed(0)  # of some draws no score moves
    model = init_model(config, device='cpu')
    classifier = model.decode_head.conv_seg
    # at the start all margins are near 0
    torch.nn.init.normal_(classifier.weight, std=3)
    for name, parameter in model.decode_head.named_parameters():
        if f'{KERNELS}.weight' in name:  # kernels that move many pixels
            torch.nn.init.constant_(parameter, 5)
        if any(f'{path}.weight' in name for path in constant):
            torch.nn.init.zeros_(parameter)
    with torch.no_grad():  # else some draws predict one class everywhere
        data = next(iter(Runner.build_dataloader(config.val_dataloader)))
        logits = model.test_step(data)[0].seg_logits.data
        classifier.bias -= logits.mean((1, 2))
    torch.save(model.state_dict(), run / 'work_dir/iter_1.pth')
    return str(run)


def rows_of(printed):
    cells = [
        line.strip('|').split('|') for line in printed.splitlines()
        if line.startswith('| `')
    ]
    return {name.strip(' `'): [c.strip() for c in row] for name, *row in cells}


@pytest.mark.parametrize('constant, moved', [
    ((), (True, True, True, True, True)),
    ((KERNELS, ), (False, False, True, True, True)),
    ((BRANCH, ), (True, True, False, False, True)),
    ((KERNELS, BRANCH), (False, ) * 5),
])
def test_only_what_depends_on_the_image_moves_the_score(
        constant, moved, configs, tmp_path, capsys):
    run = run_of('cac', configs, tmp_path, constant)
    permute_context.main([run])
    (_, *changes), = rows_of(capsys.readouterr().out).values()
    assert tuple(text != '0.0 [0.0, 0.0]' for text in changes) == moved


def test_a_path_that_a_head_lacks_is_left_out(configs, tmp_path, capsys):
    runs = [
        run_of('cac-nopool', configs, tmp_path, global_pool=False),
        run_of('cac', configs, tmp_path)
    ]
    permute_context.main([*runs, '--images', '2'])
    rows = rows_of(capsys.readouterr().out)
    assert [*rows] == ['cac-nopool', 'cac']
    assert rows['cac-nopool'][3:] == ['', '', '']
    assert all(rows['cac'])
    with pytest.raises(SystemExit):
        permute_context.main([*runs, '--images', '1'])
    assert 'needs two' in ' '.join(capsys.readouterr().err.split())


def test_a_mean_over_positions_is_a_sum_at_the_size_of_training(
        configs, tmp_path, capsys):
    """At another size their kernels differ, and so do predictions."""
    run = run_of('cac', configs, tmp_path)
    image_size.main([run, '--images', '2'])
    lines = [
        line for line in capsys.readouterr().out.splitlines()
        if line.startswith('| ')
    ]
    *_, mean, total = ([*map(str.strip,
                             line.strip('|').split('|'))] for line in lines)
    assert (mean.pop(0), total.pop(0)) == ('mean', 'sum')
    at = image_size.SCALES.index(1)
    assert mean[at] == total[at]
    assert mean[:at] + mean[at + 1:] != total[:at] + total[at + 1:]
    other = run_of('fixed', configs, tmp_path, reweighting='FixedKernelModule')
    for wrong, words in ((run + 'x', 'no folder HEAD-seedN'),
                         (other, 'predicts no kernels by sums')):
        with pytest.raises(SystemExit):
            image_size.main([wrong])
        assert words in capsys.readouterr().err
