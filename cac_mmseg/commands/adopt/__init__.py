"""``python -m cac_mmseg adopt``: CaCHead in a config that has another head.

Writes a config of a few lines, which inherits from CONFIG and replaces its
decode head by a CaCHead of the same classes. It reads the feature map, or the
concatenated ones, that the old head read. Of several that this used one by
one, it concatenates those of output stride 8 and above (of SegFormer's four,
three), and of several of one size it reads the deepest. Losses and norm stay
where CaCHead has them; each change is printed. Two hooks come with it: one
checks weights and labels before training, one draws predictions after
validation. For a config in mmengine's new style it writes a file of that
style, or prints lines to paste if CONFIG or its folder has no name that Python
can import. The model is built, trained for a step and tested on small random
images first. Prints what the decode head costs, before and after.
"""
import argparse
import os
import shlex
import tempfile
from pathlib import Path

from mmengine.config import Config

from ...errors import UserError
from ...stack.config import (find_config, has_class_types, load_config,
                             with_type_names)
from ...stack.decode_heads import crop_size, head_cost
from ...stack.feature_maps import feature_maps
from ...stack.files import check_writable, new_file
from ..cost import head_table
from ..options import at_least
from .derive import Adoption, derive
from .new_style import adopted_model, base_module, classes_in, new_style_text
from .text import config_text, missing_hooks
from .trial import check


def adopted_config(adoption: Adoption, config: Config) -> Config:
    """Return the config that is written, as mmengine reads it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'adopted.py')
        file.write_text(
            config_text(adoption, config, os.path.abspath(config.filename)),
            encoding='utf-8')
        return load_config(file)


def costs(adoption: Adoption, config: Config) -> str:
    """Return a table of what the decode heads cost, before and after."""
    size = crop_size(config)
    before = '+'.join(cfg['type'] for cfg in adoption.replaced)
    return head_table([
        dict(name=name, **head_cost(heads, adoption.maps, size))
        for name, heads in ((before, adoption.replaced),
                            ('CaCHead', [adoption.head]))
    ], size)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        'config',
        help="a file, or the name of one of mmseg's or this package's "
        'configs, such as pspnet_r50-d8_4xb2-40k_cityscapes-512x1024')
    parser.add_argument(
        '--out',
        metavar='FILE',
        help='config to write (default: cac_NAME.py, here)')
    parser.add_argument(
        '--channels',
        type=at_least(1),
        metavar='C',
        help='of the CaCHead (default: those of the old head)')
    parser.add_argument(
        '--heads',
        type=at_least(1),
        metavar='M',
        help='CaC modules (default: 1)')
    parser.add_argument(
        '--no-hooks',
        dest='hooks',
        action='store_false',
        help='leave PreflightHook and ReportHook out')
    parser.add_argument(
        '--dry-run', action='store_true', help='print the config only')


def run(arguments: argparse.Namespace) -> None:
    """Adopt a config, write the new one, and print what changed.

    Raises:
        FileNotFoundError, ValueError: If CONFIG cannot be found or read, its
            model cannot have a CaCHead or does not run with one, or FILE
            exists or cannot be written.
    """
    path, owner = find_config(arguments.config)
    config = load_config(path)
    out = Path(arguments.out or f'cac_{Path(path).stem}.py')
    new_style = has_class_types(config)
    module = base_module(path, out.resolve().parent) if new_style else ''
    model = config.model
    classes = classes_in(model)
    if new_style:
        config.model = with_type_names(model)
    if module is not None and not arguments.dry_run:
        if out.suffix != '.py':
            raise UserError(f'--out must end on .py, got {out}')
        check_writable(out)
        if out.exists():
            raise UserError(f'{out} exists: give another --out, or remove it')
    adoption = derive(config, arguments.channels, arguments.heads,
                      lambda _: feature_maps(model))
    unused = check(
        adopted_model(adoption, config, classes, model)
        if new_style else adopted_config(adoption, config),
        Config(dict(model=model)))
    find_unused = bool(unused) and not config.get('find_unused_parameters')
    if find_unused:
        adoption.notes.append(
            'find_unused_parameters is True, for several GPUs: no gradient '
            f'reaches {", ".join(unused[:4])}{", ..." * (len(unused) > 4)}')
    added = missing_hooks(config) if arguments.hooks else {}
    if added:
        adoption.notes.append(
            f'{" and ".join(hook["type"] for hook in added.values())} come '
            'with it: checks before training, pictures after validation '
            '(--no-hooks leaves them out)')
    print(''.join(f'- {note}\n' for note in adoption.notes))
    print(f'{costs(adoption, config)}\n')
    if new_style:
        text = new_style_text(adoption, config, classes, module, find_unused,
                              arguments.hooks)
    else:
        # a file of a package is not moved along with the config
        base = os.path.abspath(path) if owner else os.path.relpath(
            path,
            out.resolve().parent)
        text = config_text(
            adoption, config, base,
            f"{owner}'s {Path(path).stem}, where it is installed here"
            if owner else '', find_unused, arguments.hooks)
    if module is None:
        print(f"{path} is in mmengine's new style, and Python cannot import a "
              f'file of this name from {out.parent}, so none is written. Add '
              'to its end:\n')
    if module is None or arguments.dry_run:
        print(text)
        return
    with new_file(out) as file:
        file.write_text(text, encoding='utf-8')
    print(f'{out} is written, for: mim train mmsegmentation '
          f'{shlex.quote(str(out))}')
