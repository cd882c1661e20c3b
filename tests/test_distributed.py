"""Ranks on the CPU: gradients, training, resuming, and one that dies."""
import os
import re
import signal
import socket
import subprocess
import sys

import pytest
from conftest import ROOT

# a process that exits with gloo's threads running may abort
END = '''
dist.barrier()
dist.destroy_process_group()
'''

# mmengine's pytorch launcher asks for a GPU per rank; a process group that is
# there already is taken as it is
TRAIN = '''
import os, signal, sys
import torch.distributed as dist
from mmengine.hooks import Hook
from mmengine.runner import Runner
from cac_mmseg.drawing import report
from toy_runs import short_run

iterations, resume, dies = map(int, sys.argv[1:])
dist.init_process_group('gloo')
cfg = short_run('work', iterations, resume=bool(resume))
cfg.launcher = 'pytorch'
cfg.model_wrapper_cfg = dict(device_ids=None)
cfg.default_hooks.checkpoint.interval = 2
cfg.val_dataloader.dataset.num_images = 7  # some ranks repeat one
draw = report.draw_report


def draw_report(caption, confusion, *args):
    assert f'mIoU {100 * confusion.mean_iou:.2f}' in caption
    return draw(caption, confusion, *args)


report.draw_report = draw_report


class Die(Hook):

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == dies and dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)


runner = Runner.from_cfg(cfg)
runner.register_hook(Die())
runner.train()
weights = runner.model.module.decode_head.cac_modules[0].key.weight.detach()
ranks = [weights.clone() for _ in range(dist.get_world_size())]
dist.all_gather(ranks, weights)
assert all((other == weights).all() for other in ranks)
# in one write: the ranks share the pipe
sys.stdout.write(f'rank {dist.get_rank()} agrees\\n')
''' + END

# each rank takes its share of a batch; rank 0 takes all of it, too. Then, what
# one rank finds, all raise: none waits until a timeout
TOGETHER = '''
import copy, sys
from datetime import timedelta
import torch
import torch.distributed as dist
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch.nn.parallel import DistributedDataParallel
from cac_mmseg.hooks.preflight import agree
from cac_mmseg.stack.checkpoint import _from_url
from toy_runs import short_run

dist.init_process_group('gloo', timeout=timedelta(seconds=300))
rank, pair = dist.get_rank(), dist.new_subgroups(2)[0]


def loss_of(model, part):
    samples = [
        SegDataSample(
            gt_sem_seg=PixelData(data=label),
            metainfo=dict(img_shape=(64, 96)))
        for label in labels[part]
    ]
    losses = model(images[part], samples, mode='loss')
    return sum(value for key, value in losses.items() if 'loss' in key)


torch.manual_seed(0)
images = torch.randn(8, 3, 64, 96, dtype=torch.float64)
labels = torch.randint(0, 4, (8, 1, 64, 96))
for norm in ('GN', 'frozen BN'):
    cfg = short_run('work', 1).model
    if norm == 'GN':
        cfg.decode_head.norm_cfg = dict(type='GN', num_groups=8)
        cfg.backbone.norm_cfg = dict(type='GN', num_groups=8)
    cfg.decode_head.num_heads = 2
    # a mean weighted by class is another on each rank, as its weights differ
    cfg.decode_head.loss_decode.class_weight = None
    init_default_scope('mmseg')
    model = MODELS.build(cfg).double()
    alone = copy.deepcopy(model)
    for part in (model, alone):
        part.train(norm == 'GN')  # BN in evaluation is frozen
    # two pairs of ranks, and all four
    group = pair if norm == 'GN' else dist.group.WORLD
    parallel = DistributedDataParallel(model, process_group=group)
    size = 8 // dist.get_world_size(group)
    first = dist.get_rank(group) * size
    loss_of(parallel, slice(first, first + size)).backward()
    loss_of(alone, slice(0, 8)).backward()
    for (name, ours), other in zip(model.named_parameters(),
                                   alone.parameters()):
        error = (ours.grad - other.grad).abs().max()
        assert error <= 1e-9 * other.grad.abs().max().clamp(min=1e-3), name


def fail_on(other):
    if rank == other:
        raise KeyError(f'found by rank {other}')


for other, main_only in ((1, False), (0, False), (0, True)):
    try:
        agree(lambda: fail_on(other), main_only)
    except (KeyError, ValueError) as error:
        assert f'found by rank {other}' in str(error)
    else:
        raise AssertionError
agree(lambda: None)
try:
    agree(lambda: _from_url('http://127.0.0.1:9/weights.pth'))
except OSError as error:
    assert 'refused' in str(error)
sys.stdout.write(f'rank {rank} agrees\\n')
''' + END


def torchrun(script, ranks, *arguments, cwd, options=('--standalone', )):
    """Start ranks as a user does."""
    (cwd / 'script.py').write_text(script)
    command = [sys.executable, '-m', 'torch.distributed.run', *options]
    command += ['--nproc-per-node', ranks, 'script.py', *arguments]
    paths = os.pathsep.join(map(str, (ROOT, ROOT / 'tests')))
    return subprocess.Popen([*map(str, command)],
                            cwd=cwd,
                            env=dict(os.environ, PYTHONPATH=paths),
                            text=True,
                            stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT)


def finish(process, *words):
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output[-4000:]
    for word in words:
        assert word in output, output[-4000:]
    return output


@pytest.mark.slow
def test_ranks_have_the_gradients_of_the_joined_batch_and_fail_together(
        tmp_path):
    output = finish(torchrun(TOGETHER, 4, cwd=tmp_path))
    assert all(f'rank {rank} agrees' in output for rank in range(4))


@pytest.mark.slow
def test_a_run_whose_rank_died_goes_on_with_two_machines(tmp_path):
    """With another number of ranks, and the torchrun of the docs."""
    process = torchrun(TRAIN, 2, 6, 0, 3, cwd=tmp_path)
    output = process.communicate(timeout=300)[0]
    assert process.returncode != 0 and 'agrees' not in output
    assert f'Signal {signal.SIGKILL.value}' in output  # torchrun says which
    last = (tmp_path / 'work/last_checkpoint').read_text()
    assert last.endswith('iter_2.pth')
    with socket.create_server(('127.0.0.1', 0)) as server:
        port = server.getsockname()[1]
    address = '--nnodes=2', '--master-addr=127.0.0.1', f'--master-port={port}'
    machines = [
        torchrun(TRAIN, 2, 4, 1, -1, cwd=tmp_path,
                 options=(*address, f'--node-rank={i}')) for i in range(2)
    ]  # yapf: disable
    output = finish(machines[0], 'resumed epoch: 0, iter: 2')
    output += finish(machines[1])
    assert all(f'rank {rank} agrees' in output for rank in range(4))
    # one log and one page, by rank 0
    assert len(re.findall(r'val mIoU [\d.]+, report', output)) == 1
    assert (tmp_path / 'work/val_report.png').is_file()
    assert (tmp_path / 'work/iter_4.pth').is_file()
