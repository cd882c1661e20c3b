"""What the result of a run depends on, to tell it from another one's."""
import json
from hashlib import sha256
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Optional

from mmengine.config import Config

from cac_mmseg.stack.config import dataset_configs

# the parts of a config that the result depends on
SETTINGS = ('model', 'train_dataloader', 'val_dataloader', 'optim_wrapper',
            'param_scheduler', 'train_cfg', 'custom_hooks', 'randomness')
# what of their values it does not depend on: where files are, names
LOCATIONS = dict(
    data_root=lambda path: None,
    ann_file=lambda path: Path(path).name,
    # what they hold: see settings
    pretrained=lambda path: path is not None,
    checkpoint=lambda path: path is not None,
    # a hook that draws, by its name in published results
    type=lambda name: 'PredictionPictureHook'
    if name == 'ReportHook' else name)


def settings(config: Config) -> Dict[str, Optional[str]]:
    """Return a digest of each part of a config that the result depends on.

    Of ``lists``, the data sets' ``ann_file``, it is that of their content; of
    ``pretrained``, the weights that a run starts from, that of the content of
    a file, or of the text of a URL. None where there are none.
    """
    digests = {
        key: _digest(json.dumps(_without_folders(config.get(key))).encode())
        for key in SETTINGS
    }
    lists = [
        Path(data.get('data_root') or '', data['ann_file'])
        for split in ('train', 'val')
        for data in dataset_configs(config, split) if data.get('ann_file')
    ]
    lists = filter(Path.is_file, lists)
    weights = {*_checkpoints(config.model), config.get('load_from')}
    return dict(
        digests,
        lists='+'.join(_contents(lists)) or None,
        pretrained='+'.join(sorted({*_contents(filter(None, weights))}))
        or None)


def different(there: Dict[str, Optional[str]],
              asked: Dict[str, Optional[str]]) -> List[str]:
    """Name the settings that differ, but those that an older result lacks."""
    return sorted(key for key in there
                  if key not in asked or there[key] != asked[key])


def _contents(names: Iterable[Any]) -> List[str]:
    return [
        _digest(
            Path(name).read_bytes() if Path(name).is_file() else name.encode())
        for name in map(str, names)
    ]


def _digest(content: bytes) -> str:
    return sha256(content).hexdigest()[:12]


def _checkpoints(part: Any) -> Iterator[Any]:
    """Yield what a model's config gives as pretrained weights."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key in ('pretrained', 'checkpoint'):
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
