"""The runs of a study: heads x seeds, each with a config and two places."""
import re
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from mmengine.config import Config

from cac_mmseg.errors import UserError
from cac_mmseg.stack.config import load_config
from cac_mmseg.stack.files import UNFINISHED
from .heads import HEADS
from .results import load_run
from .settings import different, settings

FOLDER = Path(__file__).parent
PROTOCOLS = sorted(path.stem for path in (FOLDER / 'protocols').glob('*.py'))
DEFAULT = 'voc-animals'
RUN = ('config.py', 'log.txt', 'masks', 'work_dir')  # in the folder of a run


@dataclass(frozen=True)
class Run:
    """A head trained from a seed.

    ``folder`` gets what the run needs and logs, ``result_file`` its figures,
    at its end.
    """
    head: str
    seed: int
    config: Config
    folder: Path
    result_file: Path

    def __str__(self) -> str:
        return f'{self.head}, seed {self.seed}'

    @property
    def config_file(self) -> Path:
        """The config that the run was started with."""
        return self.folder / 'config.py'

    @property
    def iterations(self) -> int:
        """Length of the schedule."""
        return self.config.train_cfg.max_iters


def plan(heads: Sequence[str],
         seeds: int,
         out: Path,
         protocol: str = DEFAULT,
         iterations: Optional[int] = None,
         amp: bool = False,
         options: Optional[dict] = None) -> List[Run]:
    """List the runs of a study, one seed of all heads after the other.

    Args:
        heads: Names in :data:`tools.study.heads.HEADS`, or paths of configs
            that give a ``model.decode_head``.
        seeds: How many; they count from 0.
        out: Gets a folder for each run, and ``results``.
        protocol: Of :data:`PROTOCOLS`.
        iterations: Length of the schedule in place of the protocol's.
        amp: Whether to train in bfloat16, where autocast does.
        options: Changes to every config, such as the backbone's weights.

    Raises:
        FileNotFoundError, ValueError: If a head has no config, or two have the
            same name, or a result was obtained with another config.
    """
    base = load_config(FOLDER / 'protocols' / f'{protocol}.py')
    configs: Dict[str, Config] = {}
    for head in heads:
        name = Path(head).stem
        if name in configs:
            raise UserError(f'--heads names {name!r} twice')
        configs[name] = config = compose(base, head)
        if iterations:
            _set_length(config, iterations, base.train_cfg)
        _adapt(config, amp, options or {})
    runs = []
    for seed in range(seeds):
        for head, config in configs.items():
            config = config.copy()
            config.randomness = dict(seed=seed)
            name = f'{head}-seed{seed}'
            run = Run(head, seed, config, out / name,
                      out / 'results' / f'{name}.json')
            _check_same(run)
            runs.append(run)
    return runs


def compose(protocol: Config, head: str) -> Config:
    """Return the config of a head under a protocol.

    What a head gives, or all of a config of one's own, is merged into the
    protocol's, as by inheritance; a value ``'${name}'`` stands for the
    protocol's variable.

    Raises:
        FileNotFoundError, ValueError: If there is no such head, or variable.
    """
    if head.endswith('.py'):
        given = load_config(head)._cfg_dict
        if 'decode_head' not in given.model:
            raise UserError(f'{head} gives no model.decode_head')
    elif head in HEADS:
        given = dict(model=dict(decode_head=HEADS[head]))
    else:
        raise UserError(f'--heads must be of {", ".join(HEADS)}, or paths of '
                        f'configs with a model.decode_head, got {head!r}')

    def resolved(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: resolved(value) for key, value in part.items()}
        if isinstance(part, (list, tuple)):
            return type(part)(map(resolved, part))
        name = re.fullmatch(r'\$\{(\w+)\}', str(part))
        if name and name[1] not in protocol:
            raise UserError(f'{head}: the protocol has no {name[1]!r}')
        return protocol[name[1]] if name else part

    config = deepcopy(protocol)  # each is changed by itself
    config.merge_from_dict(resolved(given))
    return config


def _set_length(config: Config, iterations: int, schedule: dict) -> None:
    """Set the iterations, with as many validations as a schedule has."""
    interval = -(-iterations * schedule.val_interval // schedule.max_iters)
    config.train_cfg.update(max_iters=iterations, val_interval=interval)
    config.param_scheduler[0].end = iterations


def _adapt(config: Config, amp: bool, options: dict) -> None:
    """Set what the command line asks for, and what a study needs."""
    config.merge_from_dict(options)
    if amp:
        config.optim_wrapper.update(type='AmpOptimWrapper', dtype='bfloat16')
    config.val_evaluator = dict(type='PerImageIoU', iou_metrics=['mIoU'])
    config.test_evaluator = config.val_evaluator
    # an interrupted run starts again: the weights at its end are enough
    config.default_hooks.checkpoint.update(
        interval=config.train_cfg.max_iters, save_optimizer=False)


def _check_same(run: Run) -> None:
    if not run.result_file.is_file():
        # a killed run leaves any part of these, and perhaps a half file
        foreign = sorted(
            path.name for path in run.folder.glob('*')
            if path.name not in RUN and not path.name.startswith(UNFINISHED))
        if foreign:
            raise UserError(f'{run.folder} has {", ".join(foreign)}, not of '
                            'a run, which would be removed: give another '
                            '--out')
        return
    found = different(
        load_run(run.result_file)['settings'], settings(run.config))
    if found:
        raise UserError(f'{run.result_file} was obtained with another '
                        f'{", ".join(found)}: give another --out, or remove '
                        'the file to run it again')
