"""What is written for a config in mmengine's new style, of classes."""
import os
import sys
from keyword import iskeyword
from pathlib import Path
from typing import Any, Dict, List, Optional, Union
from unicodedata import normalize

from mmengine.config import Config, ConfigDict
from mmseg.models import EncoderDecoder

from ...cac_head import CaCHead
from ...errors import UserError
from ...hooks import PreflightHook, ReportHook
from ...stack.config import with_type_names
from .derive import Adoption
from .text import (CASCADE_ONLY, auxiliary_heads, formatted, missing_hooks,
                   source)

Classes = Dict[str, type]  # by the names that they have in the old style

OURS = (CaCHead, EncoderDecoder, PreflightHook, ReportHook)
NAMES: Classes = {found.__name__: found for found in OURS}


def classes_in(value: Any) -> Classes:
    """Return the classes in a part of a config.

    Raises:
        UserError: If two have the same name.
    """
    if isinstance(value, type):
        return {with_type_names(value): value}
    parts = value.values() if isinstance(value, dict) else value
    classes: Classes = {}
    for part in parts if isinstance(value, (dict, list, tuple)) else ():
        for name, found in classes_in(part).items():
            if classes.setdefault(name, found) is not found:
                raise UserError(
                    f'two classes of the model are called {name}, of '
                    f'{classes[name].__module__} and {found.__module__}: '
                    'give one of them another name')
    return classes


def base_module(path: Union[str, Path], folder: Union[str,
                                                      Path]) -> Optional[str]:
    """Return how a config in ``folder`` imports another one, or None.

    mmengine takes a relative import as a path, so any folder can be reached
    of which the names on the way down are Python's.
    """
    try:
        parts = Path(os.path.relpath(path, folder)).with_suffix('').parts
    except ValueError:  # on another drive of Windows
        return None
    down = [part for part in parts if part != os.pardir]
    if not all(part.isidentifier() and not iskeyword(part)
               and part == normalize('NFKC', part) for part in down):
        return None
    return '.' * (len(parts) - len(down) + 1) + '.'.join(down)


def new_style_text(adoption: Adoption,
                   config: Config,
                   classes: Classes,
                   base: Optional[str] = None,
                   find_unused: bool = False,
                   hooks: bool = True) -> str:
    """Return the text of a config that imports ``base``.

    Args:
        adoption: What it says.
        config: That it imports, or is pasted into.
        classes: Those of the model of that, which ``adoption`` names.
        base: Of :func:`base_module`; None returns lines for the end of the
            config itself.
        find_unused: Whether several GPUs have to look for parameters that get
            no gradient.
        hooks: Whether to add those of this package that it does not have.
    """
    classes = {**NAMES, **classes}
    imported: Classes = {}

    def code(value: Any) -> str:
        return source(_with_classes(value, classes, imported))

    lines = [
        f'model.pop({key!r}, None)'
        if value is None else f'model[{key!r}] = {code(value)}'
        for key, value in _changes(adoption, config).items()
    ]
    added = missing_hooks(config) if hooks else {}
    if config.get('default_hooks'):
        lines += [
            f'default_hooks[{name!r}] = {code(hook)}'
            for name, hook in added.items()
        ]
    elif added:
        lines.append(f'default_hooks = {code(added)}')
    if find_unused:
        lines.append('find_unused_parameters = True')
    modules: Dict[str, List[str]] = {}
    for name, found in sorted(imported.items()):
        modules.setdefault(_module_of(found), []).append(name)
    if base is not None:
        modules['mmengine.config'] = ['read_base']
        lines[:0] = ['with read_base():', f'    from {base} import *', '']
    imports = [_import(*item) for item in sorted(modules.items())]
    return formatted('\n'.join([*imports, '', *lines, '']))


def adopted_model(adoption: Adoption, config: Config, classes: Classes,
                  model: ConfigDict) -> Config:
    """Return a config of what such a text makes of a model."""
    changes = _changes(adoption, config)
    model = {**model, **_with_classes(changes, {**NAMES, **classes}, {})}
    return Config(
        dict(model={
            key: value
            for key, value in model.items() if value is not None
        }))


def _changes(adoption: Adoption, config: Config) -> dict:
    """Return what is set in a model; None removes a key."""
    if adoption.auxiliary is None:
        return dict(decode_head=adoption.head)
    return dict(
        type='EncoderDecoder',
        **dict.fromkeys(CASCADE_ONLY),
        decode_head=adoption.head,
        auxiliary_head=auxiliary_heads(adoption, config))


def _with_classes(value: Any, classes: Classes, imported: Classes) -> Any:
    """Return a value with classes in place of names, and note these."""
    if isinstance(value, dict):
        return {
            key: _with_classes(part, classes, imported)
            for key, part in value.items()
        }
    if isinstance(value, (list, tuple)):
        return type(value)(
            _with_classes(part, classes, imported) for part in value)
    found = classes.get(value) if isinstance(value, str) else None
    # what cannot be imported, or has the name of another one, keeps its name
    if found is None or not _module_of(found) or imported.setdefault(
            found.__name__, found) is not found:
        return value
    return found


def _import(module: str, names: List[str]) -> str:
    line = f'from {module} import {", ".join(names)}'
    # yapf breaks between parentheses only
    return line if len(
        line) < 80 else f'{line.replace("import ", "import (")})'


def _module_of(found: type) -> str:
    """Return the outermost module that a class is imported from, or ''."""
    parts = found.__module__.split('.')
    modules = ('.'.join(parts[:i + 1]) for i in range(len(parts)))
    return next(
        (module for module in modules
         if getattr(sys.modules.get(module), found.__name__, None) is found),
        '')
