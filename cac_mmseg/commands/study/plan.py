"""The runs of a study: heads x seeds, each with a config and a folder."""
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Sequence, Tuple

from mmengine.config import Config

from ...utils.config import CONFIGS, load_config
from . import features

FOLDER = CONFIGS / 'study'
HEADS = sorted(path.stem for path in FOLDER.glob('*.py'))
FROZEN = FOLDER / '_base_' / 'frozen.py'


@dataclass(frozen=True)
class Run:
    """A head trained from a seed.

    ``full_config`` is the config with the backbone that ``config`` leaves out.
    """
    head: str
    seed: int
    config: Config
    folder: Path
    full_config: Optional[Config] = None

    def __str__(self) -> str:
        return f'{self.head}, seed {self.seed}'

    @property
    def config_file(self) -> Path:
        """The config that the run was started with."""
        return self.folder / 'config.py'

    @property
    def result_file(self) -> Path:
        """Its figures; written at the end of the run."""
        return self.folder / 'result.json'

    @property
    def iterations(self) -> int:
        """How long it trains."""
        return self.config.train_cfg.max_iters


def plan(heads: Sequence[str],
         seeds: int,
         out: Path,
         frozen: bool = False,
         amp: bool = False,
         options: Optional[dict] = None) -> List[Run]:
    """List the runs of a study, one seed of all heads after the other.

    Args:
        heads: Names of configs in ``configs/study``, or paths of configs that
            inherit from one.
        seeds: How many; they count from 0.
        out: Folder of the study.
        frozen: Whether to train the heads alone, on stored features.
        amp: Whether to train in bfloat16, where autocast does.
        options: Changes to every config, such as the backbone's weights.

    Raises:
        FileNotFoundError, ValueError: If a head has no config, or two have the
            same name, or a run that ``out`` holds was made by another config.
    """
    configs = {}
    for head in heads:
        name = Path(head).stem
        if name in configs:
            raise ValueError(f'--heads names {name!r} twice')
        configs[name] = _configs(head, frozen, amp, options or {})
    runs = []
    for seed in range(seeds):
        for head, (config, full_config) in configs.items():
            config = config.copy()
            config.randomness = dict(seed=seed)
            run = Run(head, seed, config, out / head / f'seed{seed}',
                      full_config)
            _check_same(run)
            runs.append(run)
    return runs


def _read(head: str, options: dict) -> Config:
    if not head.endswith('.py') and head not in HEADS:
        raise ValueError(f'--heads must be of {", ".join(HEADS)}, or paths of '
                         f'configs that inherit from one, got {head!r}')
    path = head if head.endswith('.py') else FOLDER / f'{head}.py'
    config = load_config(path)
    config.merge_from_dict(options)
    return config


def _configs(head: str, frozen: bool, amp: bool,
             options: dict) -> Tuple[Config, Optional[Config]]:
    """Of a run, and with the backbone where that one leaves it out."""
    config, full_config = _read(head, options), None
    if frozen:
        full_config = config.copy()
        config.merge_from_dict(Config.fromfile(FROZEN).to_dict())
        # what is not of the backbone holds for what is laid over, too
        config.merge_from_dict({
            key: value
            for key, value in options.items()
            if not key.startswith(('model.backbone', 'model.pretrained'))
        })
        # a head of a user's may import more
        config.custom_imports.imports.append(features.__name__)
        folder = features.folder_name(full_config, config)
        for step in features.loaders(config):
            step.folder = folder
    if amp:
        config.optim_wrapper.update(type='AmpOptimWrapper', dtype='bfloat16')
    config.val_evaluator = dict(type='PerImageIoU', iou_metrics=['mIoU'])
    config.test_evaluator = config.val_evaluator
    # an interrupted run starts again: the weights at its end are enough
    config.default_hooks.checkpoint.update(
        interval=config.train_cfg.max_iters, save_optimizer=False)
    return config, full_config


def _check_same(run: Run) -> None:
    if not run.config_file.is_file():
        if run.folder.exists() and [*run.folder.iterdir()]:
            raise ValueError(f'{run.folder} is not of a study, and would be '
                             'overwritten: give another --out')
        return
    if not run.result_file.is_file():  # interrupted: it starts again
        return
    there, asked = Config.fromfile(run.config_file), run.config
    different = [
        key for key in {
            **there.to_dict(),
            **asked.to_dict()
        } if there.get(key) != asked.get(key)
    ]
    if different:
        raise ValueError(
            f'{run.folder} was made with another {", ".join(different)}: give '
            'another --out, or remove the folder to run it anew')
