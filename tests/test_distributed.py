"""Ranks on the CPU: gradients, training, resuming, and one that dies."""
import os
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from conftest import ROOT
from test_docs import commands
from toy_runs import short_run

# a process that exits with gloo's threads running may abort
END = '''
dist.barrier()
dist.destroy_process_group()
'''

# mmengine's pytorch launcher asks for a GPU per rank; a process group that is
# there already is taken as it is
GLOO = '''
import os
if 'RANK' in os.environ and not os.environ.get('GLOO'):
    os.environ['GLOO'] = 'is there'  # of processes that a rank starts, too
    import torch.distributed as dist
    dist.init_process_group('gloo')
'''

# a machine that dies, and what ranks have at the end
MACHINE = '''
import os, signal, sys
import torch.distributed as dist
from mmengine.hooks import Hook
from mmseg.registry import HOOKS
from cac_mmseg.drawing import report

draw = report.draw_report


def draw_report(caption, confusion, *args):
    assert f'mIoU {100 * confusion.mean_iou:.2f}' in caption
    return draw(caption, confusion, *args)


report.draw_report = draw_report


@HOOKS.register_module()
class Machine(Hook):
    priority = 'LOWEST'

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 3 and os.environ.get('DIES'):
            os.kill(os.getppid(), signal.SIGKILL)  # torchrun
            os.kill(os.getpid(), signal.SIGKILL)

    def after_run(self, runner):
        head = runner.model.module.decode_head
        weights = head.cac_modules[0].key.weight.detach()
        ranks = [weights.clone() for _ in range(dist.get_world_size())]
        dist.all_gather(ranks, weights)
        assert all((other == weights).all() for other in ranks)
        # in one write: the ranks share the pipe
        sys.stdout.write(f'rank {dist.get_rank()} agrees\\n')
        dist.barrier()
        dist.destroy_process_group()
'''

# each rank takes its share of a batch; rank 0 takes all of it, too. Then, what
# one rank finds, all raise: none waits until a timeout
TOGETHER = '''
import copy, os, sys
from datetime import timedelta
import torch
import torch.distributed as dist
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch.nn.parallel import DistributedDataParallel
from cac_mmseg.hooks.ranks import agree
from cac_mmseg.stack.checkpoint import _from_url
import toy_runs
from toy_runs import short_run

mine = f'rank{os.environ["RANK"]}'


def run(**changes):
    name = str(len(runs))
    runs.append(toy_runs.runner(mine, 2, experiment_name=name, **changes))
    return runs[-1]


runs = []
run().train()  # while there is no group: other weights on each rank
if mine == 'rank1':
    os.remove('rank1/last_checkpoint')
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
for part, fails in ((lambda: run(resume=True).train(), True),
                    (lambda: run(load_from=f'{mine}/iter_2.pth').test(), True),
                    (lambda: run(load_from='rank0/iter_2.pth').test(), False)):
    try:
        part()
    except ValueError as error:
        assert fails and 'rank 0 on' in str(error) and 'rank 1' in str(error)
        assert 'iter_2.pth, and' in str(error)
    else:
        assert not fails
# metrics collect in files
here = os.getcwd()
if rank == 2:
    os.mkdir('elsewhere')
    os.chdir('elsewhere')
for part in lambda: run().train(), lambda: run().test():
    try:
        part()
    except ValueError as error:
        assert 'elsewhere, which is not' in str(error) and here in str(error)
    else:
        raise AssertionError
sys.stdout.write(f'rank {rank} agrees\\n')
''' + END


def printed(process, timeout=600):
    process.wait(timeout)
    process.log.seek(0)
    return process.log.read()


def finish(process, *words):
    output = printed(process)
    assert process.returncode == 0, output[-4000:]
    for word in words:
        assert word in output, output[-4000:]
    return output


@pytest.mark.slow
def test_ranks_have_the_gradients_of_the_joined_batch_and_fail_together(
        tmp_path):
    (tmp_path / 'script.py').write_text(TOGETHER)
    output = finish(
        start('torchrun --standalone --nproc-per-node 4 script.py', tmp_path))
    assert all(f'rank {rank} agrees' in output for rank in range(4))


def start(line, cwd, **environment):
    """As a user does, in a shell."""
    bin_ = str(Path(sys.executable).parent)
    paths = os.pathsep.join(map(str, (cwd, ROOT, ROOT / 'tests')))
    environment = dict(
        os.environ,
        PATH=os.pathsep.join((bin_, os.environ['PATH'])),
        PYTHONPATH=paths,
        **environment)
    # no pipe: nobody reads that of a machine while it waits for another
    log = tempfile.TemporaryFile('w+')
    process = subprocess.Popen(['bash', '-c', line],
                               cwd=cwd,
                               env=environment,
                               stdout=log,
                               stderr=subprocess.STDOUT)
    process.log = log
    return process


def command(word):
    """The one of the docs with that word."""
    line, = (line for line in commands() if word in line)
    return line


@pytest.mark.slow
def test_two_machines_go_on_after_one_died(tmp_path):
    """By the line of the docs, and then with more ranks."""
    (tmp_path / 'sitecustomize.py').write_text(GLOO)
    (tmp_path / 'machine.py').write_text(MACHINE)
    cfg = short_run('work', 4)
    cfg.model_wrapper_cfg = dict(device_ids=None)
    cfg.default_hooks.checkpoint.interval = 2
    cfg.val_dataloader.dataset.num_images = 7  # some ranks repeat one
    cfg.custom_imports.imports += ['machine']
    cfg.custom_hooks.append(dict(type='Machine'))
    cfg.dump(tmp_path / 'config.py')
    line = command('torchrun --nnodes').replace(
        'configs/cac_r101_cityscapes.py', 'config.py')

    def machines(ranks, line, dies=()):
        with socket.create_server(('127.0.0.1', 0)) as server:
            port = server.getsockname()[1]
        line = re.sub('--master-port [0-9]+', f'--master-port {port}', line)
        line = re.sub('--nproc-per-node 8', f'--nproc-per-node {ranks}', line)
        return [
            start(
                line,
                tmp_path,
                MASTER='127.0.0.1',
                NODE_RANK=str(i),
                DIES='yes' * (i in dies)) for i in range(2)
        ]

    for process in machines(1, line, dies=[1]):
        output = printed(process, timeout=300)
        assert process.returncode != 0 and 'agrees' not in output
    last = (tmp_path / 'work/last_checkpoint').read_text()
    assert last.endswith('iter_2.pth')
    first, second = machines(2, f'{line} --resume')
    output = finish(first, 'resumed epoch: 0, iter: 2') + finish(second)
    assert all(f'rank {rank} agrees' in output for rank in range(4))
    # one log and one page, by rank 0
    assert len(re.findall(r'val mIoU [\d.]+, report', output)) == 1
    assert (tmp_path / 'work/val_report.png').is_file()
    assert (tmp_path / 'work/iter_4.pth').is_file()


@pytest.mark.slow
def test_slurm_is_asked_for_what_the_docs_say(tmp_path):
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\necho got "$@"\n')
    srun.chmod(0o755)
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    line = command('--launcher slurm')
    output = finish(start(f'PATH=$PWD:$PATH {line}', tmp_path))
    got = re.search('^got (.*)$', output, re.MULTILINE)[1]
    for option in ('-p PARTITION', '--ntasks=16', '--ntasks-per-node=8',
                   '--gres=gpu:8', '--job-name=cac', '--launcher slurm',
                   'tools/train.py configs/cac_r101_cityscapes.py'):
        assert option in got
