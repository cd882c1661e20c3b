"""Checks of what would fail late, silently or deep inside."""
from contextlib import ExitStack
from typing import Any, List, Optional

import torch.nn as nn
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader
from mmseg.registry import HOOKS

from ..utils.checkpoint import allow_log, load_weights
from ..utils.labels import check_labels
from .resume import settle_last_checkpoint


@HOOKS.register_module()
class PreflightHook(Hook):
    """Check the checkpoints and weights that a run starts from, and labels.

    Checkpoints are read without running code that they name, which mmengine
    may run. A resumed run continues from the newest intact checkpoint
    (:func:`cac_mmseg.hooks.resume.settle_last_checkpoint`).

    Raises:
        RuntimeError: Before training, if the weights that a module starts
            from cannot be loaded; mmengine raises from deep inside.
        FileNotFoundError, ValueError: If a checkpoint to be loaded is missing,
            damaged, or names code to be run.
        ValueError: In training, at a label that is no class, with its file.
        ValueError: Before a test, if the checkpoint does not fit the model,
            where mmengine only warns. In training a misfit stays a warning:
            ``load_from`` may leave out a classifier on purpose.
    """

    def __init__(self) -> None:
        self.misfits: List[str] = []
        # open while mmengine loads, so that it reads its own log safely
        self.loading = ExitStack()

    def before_run(self, runner: Runner) -> None:
        _check_start(runner)
        self.loading.enter_context(allow_log())
        # built for training only, and before weights are initialised
        if not isinstance(runner.optim_wrapper,
                          (OptimWrapper, OptimWrapperDict)):
            return
        check_pretrained(runner.model)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        theirs = {
            _unwrapped(name): tuple(value.shape)
            for name, value in checkpoint.get('state_dict',
                                              checkpoint).items()
        }
        self.misfits = []
        for name, value in runner.model.state_dict().items():
            name, shape = _unwrapped(name), tuple(value.shape)
            if name not in theirs:
                # neither is used in a test
                if not name.startswith('auxiliary_head') and not name.endswith(
                        'num_batches_tracked'):
                    self.misfits.append(f'{name} is missing')
            elif theirs[name] != shape:
                self.misfits.append(f'{name} is {theirs[name]}, not {shape}')
                if name == 'decode_head.conv_seg.weight' and theirs[name][
                        0] != shape[0]:
                    self.misfits.insert(
                        0, f'it predicts {theirs[name][0]} classes and the '
                        f'config asks for {shape[0]}')

    def before_train(self, runner: Runner) -> None:
        self.loading.close()
        self.misfits = []  # training will make it fit

    def before_train_iter(self,
                          runner: Runner,
                          batch_idx: int,
                          data_batch: Any = None) -> None:
        """Check the labels of a batch, which is still on the CPU."""
        head = _head(runner.model)
        if head is None:
            return
        # 255 is what data sets ignore, also where binary losses need no value
        ignored = 255 if head.ignore_index is None else head.ignore_index
        for sample in data_batch['data_samples']:
            if 'gt_sem_seg' in sample:
                check_labels(
                    sample.gt_sem_seg.data.numpy(),
                    head.num_classes,
                    sample.get('seg_map_path'),
                    ignored=ignored,
                    reduced=bool(sample.get('reduce_zero_label')))

    def before_val(self, runner: Runner) -> None:
        self.before_test(runner)

    def before_test(self, runner: Runner) -> None:
        self.loading.close()
        if self.misfits:
            raise ValueError(
                f'checkpoint {runner.cfg.get("load_from")!r} does not fit the '
                f'model of the config in {len(self.misfits)} places: '
                f'{"; ".join(self.misfits[:4])}. Test it with the config that '
                'it was trained with')


def _head(model: nn.Module) -> Optional[nn.Module]:
    """Return the decode head, of a cascade the last one, None without one."""
    if is_model_wrapper(model):
        model = model.module
    head = getattr(model, 'decode_head', None)
    return head[-1] if isinstance(head, nn.ModuleList) else head


def _check_start(runner: Runner) -> None:
    """Check the checkpoint to load, or choose the one to resume from."""
    load_from = runner.cfg.get('load_from')
    if load_from and '://' not in load_from:
        load_weights(load_from)
    elif not load_from and runner.cfg.get('resume'):
        if is_main_process():
            settle_last_checkpoint(runner.work_dir)
        barrier()  # the other ranks read what it wrote


def check_pretrained(model: nn.Module) -> None:
    """Check the weights that modules start from by loading them once.

    Raises:
        RuntimeError: With the file, the module, and what to do.
    """
    for name, module in model.named_modules():
        init_cfg = getattr(module, 'init_cfg', None)
        if isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained':
            _check_weights(_unwrapped(name), init_cfg['checkpoint'])


def _check_weights(name: str, checkpoint: str) -> None:
    """Load once; mmengine keeps what it downloads."""
    message: Optional[str] = None
    try:
        if '://' in checkpoint:
            CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
        else:
            load_weights(checkpoint)
    except Exception as error:  # of urllib, pickle, zipfile, torch, ...
        # the rest is advice on pickles
        first = (str(error).splitlines() or [''])[0]
        message = f'{type(error).__name__}: {first}'
    if message is not None:
        raise RuntimeError(
            f'the pretrained weights {checkpoint!r} of {name} cannot be '
            f'loaded ({message}). Without a network give a file, '
            '--cfg-options model.pretrained=FILE, or train from scratch, '
            '--cfg-options model.pretrained=None')


def _unwrapped(name: str) -> str:
    """Return a name without the prefix of DDP and of SegTTAModel."""
    return name.removeprefix('module.')
