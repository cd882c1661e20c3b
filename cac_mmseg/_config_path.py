"""Where the configs of an installed plugin are."""
from difflib import get_close_matches
from pathlib import Path

CONFIGS = Path(__file__).parent / '.mim' / 'configs'


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
    configs = {
        path.stem: path
        for folder in (CONFIGS, CONFIGS / 'ablations')
        for path in folder.glob('*.py')
    }
    stem = Path(str(name)).name.removesuffix('.py')
    if stem not in configs:
        close = get_close_matches(stem, configs, n=3) or sorted(configs)
        raise ValueError(f'no config is named {name!r}; there is '
                         f'{", ".join(close)}')
    return str(configs[stem])
