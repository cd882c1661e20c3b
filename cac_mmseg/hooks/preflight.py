"""Checks of what would fail late, silently or deep inside."""
from contextlib import ExitStack
from copy import copy
from pathlib import Path
from typing import Any, Dict, List, Optional

import torch.nn as nn
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader
from mmseg.registry import HOOKS
from torch import Tensor

from ..stack.checkpoint import check_resumable, load_weights, safe_loading
from ..stack.words import counted
from .label_check import LabelCheck
from .ranks import agree, check_same_file, check_shared_folder
from .resume import named_checkpoint, settle_last_checkpoint


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
        ValueError: Before and in training, at a label map that no head can
            learn from, with its file; if all labels are of one class.
        ValueError: If a checkpoint to resume or to test does not fit the
            model, where mmengine only warns. For training a misfit stays a
            warning: ``load_from`` may leave out a classifier on purpose.
        ValueError: If ranks load different checkpoints, or run in folders that
            they do not share.

    On several ranks, what one finds before training is raised by all.
    """

    def __init__(self) -> None:
        self.misfits: List[str] = []
        self.labels: Optional[LabelCheck] = None
        # open while mmengine loads, so that it runs no code of a file
        self.loading = ExitStack()

    def before_run(self, runner: Runner) -> None:
        agree(lambda: _check_start(runner))
        if get_world_size() > 1:
            check_same_file(_checkpoint(runner))
        self.loading.enter_context(safe_loading())
        # built for training only, and before weights are initialised
        if not isinstance(runner.optim_wrapper,
                          (OptimWrapper, OptimWrapperDict)):
            return
        agree(lambda: check_pretrained(runner.model, (runner.cfg.get(
            'model') or {}).get('pretrained')))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        resumed = bool(runner.cfg.get('resume'))
        self.misfits = _misfits(runner.model.state_dict(),
                                checkpoint.get('state_dict', checkpoint),
                                resumed)
        if resumed and not _loads(runner.model, checkpoint):
            self._refuse_misfits(
                'Resume it with the config that it was trained with, or start '
                'a new training from its weights: resume=False, load_from=FILE'
            )

    def before_train(self, runner: Runner) -> None:
        self.loading.close()
        if get_world_size() > 1:
            check_shared_folder(runner.val_loop)
        self.misfits = []  # training will make it fit
        self.labels = LabelCheck(runner.model, runner.train_dataloader.dataset)
        agree(self.labels.check_dataset, main_only=True)

    def before_train_iter(self,
                          runner: Runner,
                          batch_idx: int,
                          data_batch: Any = None) -> None:
        """Check the labels of a batch, which is still on the CPU."""
        if self.labels is not None:
            self.labels.check_batch(data_batch)

    def after_train(self, runner: Runner) -> None:
        # CheckpointHook, which comes later, reads what it publishes
        self.loading.enter_context(safe_loading())

    def after_run(self, runner: Runner) -> None:
        self.loading.close()

    def before_val(self, runner: Runner) -> None:
        self._before_scores()

    def before_test(self, runner: Runner) -> None:
        if get_world_size() > 1:
            check_shared_folder(runner.test_loop)
        self._before_scores()

    def _before_scores(self) -> None:
        self.loading.close()
        self._refuse_misfits('Test it with the config that it was trained '
                             'with')

    def _refuse_misfits(self, advice: str) -> None:
        if self.misfits:
            raise ValueError(
                'the checkpoint does not fit the model of the config in '
                f'{counted(len(self.misfits), "place")}: '
                f'{"; ".join(self.misfits[:4])}. {advice}')


def _loads(model: nn.Module, checkpoint: dict) -> bool:
    """Return whether a model takes all weights, and needs no more.

    Modules may convert names and shapes of earlier versions themselves.
    """
    model = model.module if is_model_wrapper(model) else model
    weights = copy(checkpoint.get('state_dict', checkpoint))
    for name in [*weights]:
        weights[_unwrapped(name)] = weights.pop(name)
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError:  # other shapes
        return False
    return not missing and not unexpected


def _misfits(ours: Dict[str, Tensor], theirs: Dict[str, Tensor],
             resumed: bool) -> List[str]:
    """Return where a checkpoint's weights do not fit a model's.

    To resume, both must have the same names: the optimizer's state is by
    position. A test uses no auxiliary head.
    """
    shapes = {
        _unwrapped(name): tuple(value.shape)
        for name, value in theirs.items() if isinstance(value, Tensor)
    }
    misfits, names = [], {_unwrapped(name) for name in ours}
    for name, value in ours.items():
        if not isinstance(value, Tensor):
            continue  # extra state
        name, shape = _unwrapped(name), tuple(value.shape)
        if name not in shapes:
            unused = name.startswith('auxiliary_head') or name.endswith(
                'num_batches_tracked')
            if resumed or not unused:
                misfits.append(f'{name} is missing')
        elif shapes[name] != shape:
            misfits.append(f'{name} is {shapes[name]}, not {shape}')
            if name == 'decode_head.conv_seg.weight' and \
                    shapes[name][0] != shape[0]:
                misfits.insert(
                    0, f'it predicts {shapes[name][0]} classes and the '
                    f'config asks for {shape[0]}')
    if resumed:
        misfits += [
            f'{name} is not in the model' for name in shapes
            if name not in names
        ]
    return misfits


def _check_start(runner: Runner) -> None:
    """Check the checkpoint to load, or choose the one to resume from."""
    load_from = runner.cfg.get('load_from')
    if load_from and '://' not in load_from:
        (check_resumable if runner.cfg.get('resume') else load_weights)(
            load_from)
    elif not load_from and runner.cfg.get('resume'):
        if is_main_process():
            settle_last_checkpoint(runner.work_dir)


def _checkpoint(runner: Runner) -> Optional[str]:
    """Return the file that this rank will load."""
    load_from = runner.cfg.get('load_from')
    if not load_from and runner.cfg.get('resume'):
        load_from = named_checkpoint(Path(runner.work_dir))
    # what has a scheme is the same for all machines
    return None if '://' in str(load_from) else load_from and str(load_from)


def check_pretrained(model: nn.Module,
                     pretrained: Optional[str] = None) -> None:
    """Check the weights that modules start from by loading them once.

    Args:
        model: Before its weights are initialised.
        pretrained: What its config says, which goes to the backbone.

    Raises:
        RuntimeError: With the file, the module, and what to do.
    """
    for name, module in model.named_modules():
        init_cfg = getattr(module, 'init_cfg', None)
        if isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained':
            name, checkpoint = _unwrapped(name), init_cfg['checkpoint']
            _check_weights(
                name, checkpoint, 'model.pretrained' if checkpoint
                == pretrained else f'model.{name}.init_cfg.checkpoint')


def _check_weights(name: str, checkpoint: str, key: str) -> None:
    """Load once; mmengine keeps what it downloads. ``key`` set them."""
    message: Optional[str] = None
    try:
        if '://' in checkpoint:
            CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
        else:
            load_weights(checkpoint)
    except Exception as error:  # of urllib, pickle, zipfile, torch, ...
        first = (str(error).splitlines() or [''])[0]
        if 'weights_only' in str(error):  # advice to load it unsafely
            first = 'it names code to be run'
        message = f'{type(error).__name__}: {first}'
    if message is not None:
        raise RuntimeError(
            f'the pretrained weights {checkpoint!r} of {name} cannot be '
            f'loaded ({message}). Without a network give a file, '
            f'--cfg-options {key}=FILE, or train from scratch, '
            f'--cfg-options {key.removesuffix(".checkpoint")}=None')


def _unwrapped(name: str) -> str:
    """Return a name without the prefix of DDP and of SegTTAModel."""
    return name.removeprefix('module.')
