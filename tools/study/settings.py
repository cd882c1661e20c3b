"""What the result of a run depends on, to tell it from another one's."""
import json
from hashlib import sha256
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

from mmengine.config import Config

# the parts of a config that the result depends on
SETTINGS = ('model', 'train_dataloader', 'val_dataloader', 'optim_wrapper',
            'param_scheduler', 'train_cfg', 'randomness')
# what of their values it does not depend on: where files are
LOCATIONS = dict(
    data_root=lambda path: None,
    ann_file=lambda path: Path(path).name,
    # what they hold: see pretrained
    pretrained=lambda path: path is not None,
    checkpoint=lambda path: path is not None)


def settings(config: Config) -> Dict[str, Optional[str]]:
    """Return a digest of each part of a config that the result depends on."""
    parts = {key: _without_folders(config[key]) for key in SETTINGS}
    digests = {
        key: _digest(json.dumps(part).encode())
        for key, part in parts.items()
    }
    return {**digests, 'pretrained': pretrained(config)}


def pretrained(config: Config) -> Optional[str]:
    """Return a digest of the weights that a run starts from, None of none.

    Of a file it is that of its content, of a URL that of its text.
    """
    names = {*_checkpoints(config.model), config.get('load_from')}
    digests = {
        _digest(
            Path(name).read_bytes() if Path(name).is_file() else name.encode())
        for name in map(str, filter(None, names))
    }
    return '+'.join(sorted(digests)) or None


def _digest(content: bytes) -> str:
    return sha256(content).hexdigest()[:12]


def _checkpoints(part: Any) -> Iterator[Any]:
    """Yield what a model's config gives as pretrained weights."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key == 'pretrained' or (key == 'checkpoint'
                                       and part.get('type') == 'Pretrained'):
                yield value
            else:
                yield from _checkpoints(value)
    elif isinstance(part, (list, tuple)):
        for value in part:
            yield from _checkpoints(value)


def _without_folders(part: Any) -> Any:
    """Replace what :data:`LOCATIONS` names by what the result depends on."""
    if isinstance(part, dict):
        return {
            key: LOCATIONS.get(key, _without_folders)(value)
            for key, value in sorted(part.items())
        }
    if isinstance(part, (list, tuple)):
        return [_without_folders(value) for value in part]
    return part
