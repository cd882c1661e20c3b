"""Modules that a config names, and the arguments they take."""
from importlib import import_module
from inspect import Parameter, signature
from typing import Any, Optional, Tuple, Type, Union

import torch.nn as nn
from mmseg.registry import MODELS


def resolve_module(argument: str, value: Union[str, dict],
                   **offered: Any) -> Tuple[Type[nn.Module], dict]:
    """Return the class that a config names, and the arguments to call it with.

    Args:
        argument: Name of the argument that ``value`` is given for.
        value: A name in mmseg's registry, or a config with ``type``.
        **offered: Arguments that the module gets if its signature has them.
            Those of the config come on top, and must be in its signature.

    Raises:
        ValueError: If there is no such module, or it does not take an argument
            of the config.
    """
    if isinstance(value, dict):
        options = dict(value)
        name = options.pop('type', None)
    else:
        name, options = value, {}
    module: Any = None
    cause: Optional[Exception] = None
    if isinstance(name, str) and name:
        try:
            module = MODELS.get(name)
            if module is None:
                _import_scope(name)
        except Exception as error:  # importing runs code: it can raise any
            cause = error
    if not isinstance(module, type):  # a dotted name can find anything
        reason = f' ({type(cause).__name__}: {cause})' if cause else ''
        raise ValueError(
            f"{argument} must name a module of mmseg's registry such as "
            "'CaCModule' or 'GAPKernelModule', or be a config of one, "
            f"dict(type='CaCModule'), got {value!r}{reason}") from cause
    if 'in_channels' in options:
        raise ValueError(f"{argument} must not give in_channels, which is the "
                         f"head's argument channels, got {value!r}")
    known = signature(module).parameters
    if any(p.kind == Parameter.VAR_KEYWORD for p in known.values()):
        return module, {**offered, **options}
    unknown = [key for key in options if key not in known]
    if unknown:
        raise ValueError(f'{argument}: {module.__name__} takes no '
                         f'{", ".join(unknown)}; it takes {", ".join(known)}')
    wanted = {key: value for key, value in offered.items() if key in known}
    return module, {**wanted, **options}


def _import_scope(name: str) -> None:
    """Import what a dotted name is in: mmengine hides why it could not.

    Raises:
        ImportError: If a part of it cannot be imported.
    """
    parts = name.split('.')[:-1]
    for i in range(len(parts)):
        import_module('.'.join(parts[:i + 1]))
    if parts:
        registry = f'{parts[0]}.registry'
        try:
            import_module(registry)
        except ModuleNotFoundError as error:
            if error.name != registry:  # not every package is a scope
                raise
