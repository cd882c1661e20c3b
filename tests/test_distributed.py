"""Two ranks on the CPU: train, validate, save."""
import re
import subprocess
import sys

import pytest

# mmengine's pytorch launcher asks for a GPU per rank; a process group that is
# there already is taken as it is
SCRIPT = '''
import sys

import torch.distributed as dist
from mmengine.config import Config
from mmengine.runner import Runner

dist.init_process_group('gloo')
cfg = Config.fromfile(sys.argv[1])
cfg.launcher = 'pytorch'
cfg.model_wrapper_cfg = dict(device_ids=None)
cfg.work_dir = 'work'
cfg.train_cfg.update(max_iters=4, val_interval=4)
cfg.default_hooks.checkpoint.interval = 4
cfg.default_hooks.logger.interval = 1
cfg.train_dataloader.batch_size = 2
cfg.val_dataloader.dataset.num_images = 20
runner = Runner.from_cfg(cfg)
runner.train()
weights = runner.model.module.decode_head.cac_modules[0].key.weight.detach()
both = [weights.clone() for _ in range(2)]
dist.all_gather(both, weights)
assert (both[0] == both[1]).all()
# in one write: the ranks share the pipe
sys.stdout.write(f'rank {dist.get_rank()} agrees\\n')
'''


@pytest.mark.slow
def test_two_ranks_train_one_model(tmp_path, configs):
    (tmp_path / 'train.py').write_text(SCRIPT)
    run = subprocess.run([
        sys.executable, '-m', 'torch.distributed.run', '--standalone',
        '--nproc-per-node', '2', 'train.py',
        configs / 'cac_r18_contextshapes.py'
    ],
                         cwd=tmp_path,
                         text=True,
                         stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT,
                         timeout=600)
    assert run.returncode == 0, run.stdout[-4000:]
    assert 'rank 0 agrees' in run.stdout and 'rank 1 agrees' in run.stdout
    # one log and one picture, by rank 0
    assert len(re.findall(r'val mIoU [\d.]+, picture', run.stdout)) == 1
    assert (tmp_path / 'work/val_prediction.png').is_file()
    assert (tmp_path / 'work/iter_4.pth').is_file()
