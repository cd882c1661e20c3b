"""The config that is written: what differs from its base, in Python."""
from typing import Any, Dict

from mmengine.config import Config
from mmseg import registry
from yapf.yapflib.yapf_api import FormatCode

from ...stack.config import with_type_names
from .derive import Adoption

# goes with a cascade: EncoderDecoder does not take it
CASCADE_ONLY = ('num_stages', )
HOOKS = dict(
    preflight=dict(type='PreflightHook'), report=dict(type='ReportHook'))
STYLE = dict(
    based_on_style='pep8', split_before_expression_after_opening_paren=True)


class Reference(str):
    """A value of the base config, such as '_base_.model.backbone'."""


def config_text(adoption: Adoption,
                config: Config,
                base: str,
                comment: str = '',
                find_unused: bool = False,
                hooks: bool = True) -> str:
    """Return the text of a config that inherits from the file ``base``.

    Args:
        adoption: What it says.
        config: That it inherits from.
        base: Path of that.
        comment: First line, or ''.
        find_unused: Whether several GPUs have to look for parameters that get
            no gradient.
        hooks: Whether to add those of this package that it does not have.
    """
    if adoption.auxiliary is None:
        model = dict(decode_head=dict(_delete_=True, **adoption.head))
    else:
        model = _without_cascade(adoption, config)
    values: Dict[str, Any] = dict(
        custom_imports=custom_imports(config), model=model)
    if hooks:
        added = missing_hooks(config)
        if added:
            values['default_hooks'] = added
    if find_unused:
        values['find_unused_parameters'] = True
    body = ''.join(f'{name} = {source(value)}\n'
                   for name, value in values.items())
    heading = f'# {comment}\n' if comment else ''
    return f'{heading}_base_ = {base!r}\n' + formatted(body)


def custom_imports(config: Config) -> dict:
    """Return what a config imports, and this package."""
    imports = (config.get('custom_imports') or {}).get('imports', [])
    imports = [imports] if isinstance(imports, str) else imports
    return dict(
        imports=[*dict.fromkeys([*imports, 'cac_mmseg'])],
        allow_failed_imports=False)


def auxiliary_heads(adoption: Adoption, config: Config) -> list:
    """Return the auxiliary heads, with that which was first in a cascade."""
    heads = config.model.get('auxiliary_head') or []
    heads = [heads] if isinstance(heads, dict) else heads
    return [*heads, adoption.auxiliary]


def missing_hooks(config: Config) -> Dict[str, dict]:
    """Return the hooks of this package that a config does not have."""
    there = [
        *(config.get('custom_hooks') or []),
        *(config.get('default_hooks') or {}).values()
    ]
    # by class: ReportHook has two names
    types = {
        registry.HOOKS.get(with_type_names(hook['type']))
        for hook in there if hook
    }
    return {
        name: hook
        for name, hook in HOOKS.items()
        if registry.HOOKS.get(hook['type']) not in types
    }


def formatted(code: str) -> str:
    """Return code in the style of configs."""
    return FormatCode(code, style_config=STYLE)[0]


def _without_cascade(adoption: Adoption, config: Config) -> dict:
    """Return a complete model: a child cannot remove a key of its base."""
    replaced = ('type', 'decode_head', 'auxiliary_head', *CASCADE_ONLY)
    return dict(
        _delete_=True,
        type='EncoderDecoder',
        **{
            key: Reference(f'_base_.model.{key}')
            for key in config.model if key not in replaced
        },
        decode_head=adoption.head,
        auxiliary_head=auxiliary_heads(adoption, config))


def source(value: Any) -> str:
    """Return Python that a config reads as ``value``."""
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, Reference):
        return f'{{{{{value}}}}}'
    if isinstance(value, dict):
        if all(isinstance(k, str) and k.isidentifier() for k in value):
            pairs = ', '.join(f'{k}={source(v)}' for k, v in value.items())
            return f'dict({pairs})'
        pairs = ', '.join(f'{k!r}: {source(v)}' for k, v in value.items())
        return f'{{{pairs}}}'
    if isinstance(value, list):
        return f'[{", ".join(map(source, value))}]'
    if isinstance(value, tuple):
        return f'({"".join(f"{source(v)}, " for v in value)})'
    return repr(value)
