"""What ``adopt`` makes of every config of the installed mmseg.

Prints the tables of docs/configs.md. Models that differ in nothing but the
number of classes are run once.
"""
import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Set

from mmengine.config import ConfigDict

from cac_mmseg.commands.adopt import adopted_config, derive
from cac_mmseg.commands.adopt.trial import check
from cac_mmseg.stack.config import MMSEG_CONFIGS, load_config
from cac_mmseg.stack.env import versions
from cac_mmseg.stack.feature_maps import Maps, Refused, feature_maps
from cac_mmseg.stack.tables import markdown_table

# what does not decide whether a model runs
IRRELEVANT = ('num_classes', 'class_weight', 'pretrained', 'init_cfg',
              'data_preprocessor', 'train_cfg')


class Outcome(NamedTuple):
    """What became of a config: detail is what its CaCHead reads, or why not.
    """
    config: str
    state: str  # adopted, refused or failed
    heads: str  # that it had
    detail: str


def all_configs() -> List[Path]:
    """Return the config files of the installed mmseg."""
    return sorted(
        path for path in MMSEG_CONFIGS.glob('*/*.py')
        if path.parent.name != '_base_')


def survey(paths: List[Path], quick: bool = False) -> Iterator[Outcome]:
    """Adopt configs one by one.

    Args:
        paths: Of the configs.
        quick: Take one config of each combination of types.
    """
    seen: Set[str] = set()
    run: Set[str] = set()
    known: Dict[str, Maps] = {}

    def maps(model: ConfigDict) -> Maps:
        key = _key([model.backbone, model.get('neck')])
        if key not in known:
            known[key] = feature_maps(model)
        return known[key]

    for path in paths:
        try:
            config = load_config(path)
        except ValueError as error:  # a package that mmseg does not need
            yield Outcome(path.stem, 'refused', '', _missing(error))
            continue
        types = json.dumps(_types(config.model))
        if quick and types in seen:
            continue
        seen.add(types)
        heads = config.model.get('decode_head', [])
        heads = heads if isinstance(heads, list) else [heads]
        heads = '+'.join(cfg['type'] for cfg in heads)
        try:
            adoption = derive(config, read_maps=maps)
            adopted = adopted_config(adoption, config)
            key = _key(adopted.model)
            if key not in run:
                run.add(key)
                check(adopted, config)
        except Refused as error:
            yield Outcome(path.stem, 'refused', heads, str(error))
        except Exception as error:
            yield Outcome(path.stem, 'failed', heads,
                          f'{type(error).__name__}: {error}')
        else:
            yield Outcome(
                path.stem, 'adopted', heads, 'several' if isinstance(
                    adoption.head['in_index'], list) else 'one')


def _types(value: Any) -> list:
    """Return the types of a model and of its parts."""
    if isinstance(value, dict):
        parts = (
            value.get(name) for name in ('backbone', 'neck', 'decode_head'))
        return [
            value.get('type'),
            value.get('input_transform'), *map(_types, parts)
        ]
    return [*map(_types, value)] if isinstance(value, (list, tuple)) else []


def _key(value: Any) -> str:
    """Return what models have in common that run alike."""

    def relevant(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: relevant(part)
                for key, part in value.items() if key not in IRRELEVANT
            }
        if isinstance(value, (list, tuple)):
            return [relevant(part) for part in value]
        return value

    return json.dumps(relevant(value), sort_keys=True, default=str)


def _missing(error: ValueError) -> str:
    cause = error.__cause__
    if not isinstance(cause, ImportError):
        raise error
    return str(cause.__cause__ or cause).splitlines()[0]


def tables(outcomes: List[Outcome]) -> str:
    """Return the counts by what was replaced, and by the reason."""
    adopted = [o for o in outcomes if o.state == 'adopted']
    heads = Counter(o.heads for o in adopted)
    several = Counter(o.heads for o in adopted if o.detail == 'several')
    others = Counter(
        (o.state, o.detail) for o in outcomes if o.state != 'adopted')
    return '\n\n'.join([
        markdown_table(
            ('adopted, in place of', 'configs', 'of several feature maps'),
            [(name, n, several[name] or '')
             for name, n in heads.most_common()] +
            [('all', len(adopted), sum(several.values()))]),
        markdown_table(('not adopted: reason', 'state', 'configs'),
                       [(detail, state, n)
                        for (state, detail), n in others.most_common()]),
        f'{len(outcomes)} configs: {len(adopted)} adopted, ' +
        ', '.join(f'{sum(o.state == state for o in outcomes)} {state}'
                  for state in ('refused', 'failed'))
    ])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--quick',
        action='store_true',
        help='take one config of each combination of segmentor, backbone, '
        'neck and heads')
    quick = parser.parse_args().quick
    outcomes = []
    for outcome in survey(all_configs(), quick):
        outcomes.append(outcome)
        print(*outcome, sep=' | ', flush=True)
    print(f'\n{tables(outcomes)}\n\n{versions()}')


if __name__ == '__main__':
    main()
