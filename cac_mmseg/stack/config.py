"""Find and read configs, and build the data sets they describe."""
from difflib import get_close_matches
from os.path import commonprefix
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union

import mmseg
from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset
from mmengine.registry import init_default_scope
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, MODELS

from ..errors import MissingFileError, UserError

CONFIGS = Path(__file__).parents[1] / '.mim' / 'configs'
MMSEG_CONFIGS = Path(mmseg.__file__).parent / '.mim' / 'configs'


def config_path(name: str) -> str:
    """Return the path of a config of this package by its name.

    Args:
        name: Such as 'cac_r101_cityscapes'; '.py' and the folder are optional.

    Returns:
        A path for ``mmengine.Config.fromfile``.

    Raises:
        ValueError: If there is none; names those that are close.

    Example:
        >>> config_path('cac_r101_cityscapes').endswith('cityscapes.py')
        True
    """
    stem = Path(str(name)).name.removesuffix('.py')
    return str(_by_name(stem, _configs()))


def find_config(name: str) -> Tuple[str, Optional[str]]:
    """Return the path of a config, and whose it is.

    Args:
        name: Path of a file, or the name of a config that this package or
            mmseg brings along.

    Returns:
        The path, and 'cac_mmseg' or 'mmseg' if it was found by name.

    Raises:
        ValueError: If there is none; names those that are close.
    """
    if Path(name).is_file():
        return name, None
    ours = _configs()
    theirs = {
        path.stem: path
        for path in MMSEG_CONFIGS.glob('*/*.py')
        if path.parent.name != '_base_'
    }
    known, stem = {**theirs, **ours}, name.removesuffix('.py')
    if Path(name).name != name or name != stem and stem not in known:
        hint = ('give a config such as configs/cac_r50_cityscapes.py, or its '
                'name')
        if Path(stem).name in known:
            hint = f'the installed config is called {Path(stem).name}'
        raise MissingFileError(f'{name} is not a file: {hint}')
    return str(_by_name(stem, known)), 'cac_mmseg' if stem in ours else 'mmseg'


def _configs() -> Dict[str, Path]:
    return {
        path.stem: path
        for folder in (CONFIGS, CONFIGS / 'ablations')
        for path in folder.glob('*.py')
    }


def _by_name(stem: str, configs: Dict[str, Path]) -> Path:
    if stem not in configs:
        close = get_close_matches(
            stem, configs, n=3) or sorted(
                configs, key=lambda name: -len(commonprefix([name, stem])))[:3]
        raise UserError(f'no config is named {stem!r}; there is '
                        f'{", ".join(close)}')
    return configs[stem]


def load_config(path: Union[str, Path]) -> Config:
    """Read a config file, and make its scope the default one.

    Args:
        path: Of a file, or a name for :func:`find_config`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, or configures no model.
    """
    path, _ = find_config(str(path))
    try:
        config = Config.fromfile(path)
    except ImportError as error:
        # mmengine's message goes on about sys.path
        cause = str(error.__cause__ or error).splitlines()[0]
        raise UserError(f'{path} cannot be read as a config: {cause}: '
                        'install what its custom_imports name, or set '
                        'PYTHONPATH to the folder of a file') from error
    except Exception as error:  # a config is code: it can raise anything
        raise UserError(f'{path} cannot be read as a config: '
                        f'{type(error).__name__}: {error}') from error
    if 'model' not in config:
        raise UserError(f'{path} configures no model')
    # new-style configs may have none, as their types are classes
    init_default_scope(config.get('default_scope') or 'mmseg')
    return config


def has_class_types(config: Config) -> bool:
    """Return whether a config is in mmengine's new style, of classes."""
    return not isinstance(config.model.get('type', ''), str)


def with_type_names(value: Any) -> Any:
    """Return a copy of a part of a config, with names in place of classes."""
    if isinstance(value, dict):
        return ConfigDict({
            key: with_type_names(part)
            for key, part in value.items()
        })
    if isinstance(value, (list, tuple)):
        return type(value)(with_type_names(part) for part in value)
    if isinstance(value, type):
        known = {**MODELS.parent.module_dict, **MODELS.module_dict}
        # mmcv registers classes of its own under names of PyTorch's
        for same in (lambda found: found is value,
                     lambda found: found.__name__ == value.__name__):
            name = next((name for name, found in known.items() if same(found)),
                        None)
            if name is not None:
                return name
        return value.__name__
    return value


def dataset_configs(config: Config, split: str) -> Iterator[dict]:
    """Yield what configures the 'train', 'val' or 'test' data sets.

    Several if they are concatenated; wrappers are unwrapped.
    """
    # a loader may be None, for a training without validation
    todo = [(config.get(f'{split}_dataloader') or {}).get('dataset')]
    while todo:
        cfg = todo.pop(0)
        if cfg and ('dataset' in cfg or 'datasets' in cfg):
            todo += [cfg['dataset']] if 'dataset' in cfg else cfg['datasets']
        elif cfg:
            yield cfg


def build_datasets(config: Config, split: str,
                   **options: Any) -> List[BaseSegDataset]:
    """Build the 'train', 'val' or 'test' data sets; ``options`` go to each.

    Raises:
        UserError: If one cannot be listed or built.
    """
    return [
        _build_dataset({
            **cfg,
            **options
        }, split) for cfg in dataset_configs(config, split)
    ]


def _build_dataset(cfg: dict, split: str) -> BaseSegDataset:
    try:
        return DATASETS.build(cfg)
    except (AssertionError, OSError) as error:  # mmseg asserts that it exists
        raise MissingFileError(
            f'the {split} data cannot be listed: '
            f'{str(error) or "a file or a folder is missing"}. '
            f'Look at data_root={cfg.get("data_root")!r} and data_prefix='
            f'{dict(cfg.get("data_prefix") or {})}, or give '
            f'--cfg-options {split}_dataloader.dataset.data_root=DIR'
        ) from error
    except Exception as error:  # of any data set and transform
        raise UserError(f'the {split} data set cannot be built: '
                        f'{type(error).__name__}: {error}') from error


def unwrapped(dataset: Any) -> Iterator[BaseSegDataset]:
    """Yield the data sets that a wrapper, or several, repeat or join."""
    inner = getattr(dataset, 'datasets',
                    None) or [getattr(dataset, 'dataset', None)]
    if isinstance(dataset, BaseDataset) or inner[0] is None:
        yield dataset
    else:
        for part in inner:
            yield from unwrapped(part)


def dataset_without_data(config: Config) -> BaseSegDataset:
    """Build the data set that a config tests (or validates) on, unread.

    It knows the classes, their colours, how labels are read, and the pipeline.

    Raises:
        ValueError: If the config names none.
    """
    cfg = next((cfg for split in ('test', 'val')
                for cfg in dataset_configs(config, split)), None)
    if cfg is None:
        raise UserError(f'{config.filename} has no dataset in test_dataloader '
                        'or val_dataloader, which names the classes and the '
                        'pipeline')
    # some of mmseg's data sets assert that these exist: any file will do
    there = dict(
        data_root=None,
        data_prefix=dict(img_path='.', seg_map_path='.'),
        ann_file=config.filename)
    dataset = _build_dataset({**cfg, **there, 'lazy_init': True}, 'test')
    if not dataset.metainfo.get('classes'):
        raise UserError(f'{config.filename}: the data set names no classes: '
                        "set metainfo=dict(classes=('road', ...))")
    return dataset
