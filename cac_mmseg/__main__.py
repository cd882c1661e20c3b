"""``python -m cac_mmseg COMMAND``: see ``--help``.

A command is a module of ``commands`` with ``add_arguments(parser)`` and
``run(arguments)``, imported when it is asked for.
"""
import argparse
import sys
import warnings
from importlib import import_module
from types import ModuleType
from typing import Dict, List, Optional

from .errors import UserError
from .stack.env import require_stack

COMMANDS = {
    'adopt': 'a config with CaCHead from one without',
    'check-data': 'the data sets of a config: what is missing or wrong',
    'cost': 'decode heads of configs: size, arithmetic, memory, time',
    'doctor': 'what is installed, what is missing, how to fix it',
    'explain':
    'where a prediction got its context from (--demo: without data)',
    'export': 'a model as ONNX or as a PyTorch program',
    'init': 'a config for a folder of images and one of label maps',
    'predict': 'classes of images by an exported file, without mmseg',
    'prepare': 'label maps that mmseg reads, from pictures or official files',
    'publish': 'slim, safe weights from a checkpoint',
    'visualize': 'a page per image: prediction, weighting maps, kernels',
}

WITHOUT_STACK = 'doctor', 'predict'


def main(argv: Optional[List[str]] = None,
         program: str = 'cac_mmseg',
         description: str = 'What users of CaC-Net in mmseg need.',
         package: str = 'cac_mmseg.commands',
         summaries: Dict[str, str] = COMMANDS) -> None:
    """Parse the command line and run its command.

    Args:
        argv: Arguments, by default those of this process.
        program: What is run with ``python -m``.
        description: Of the program.
        package: Where the commands are.
        summaries: Of each command, a line for the help.
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog=f'python -m {program}', description=description)
    commands = parser.add_subparsers(
        dest='command', required=True, metavar='COMMAND')
    for name, summary in summaries.items():
        command = commands.add_parser(name, help=summary)
        if name in argv[:1]:
            module = _load(package, name, parser)
            command.description = module.__doc__
            command.formatter_class = argparse.RawDescriptionHelpFormatter
            module.add_arguments(command)
    arguments = parser.parse_args(argv)
    # mmseg's, for each cross entropy of a config that leaves it at its default
    warnings.filterwarnings('ignore', 'Default ``avg_non_ignore``')
    try:
        module.run(arguments)
    except UserError as error:
        commands.choices[arguments.command].error(str(error))
    except Exception:
        print(
            'This is a fault of cac_mmseg, not of yours. Please report it '
            'with the lines below and those of `python -m cac_mmseg doctor`:',
            file=sys.stderr)
        raise


def _load(package: str, name: str,
          parser: argparse.ArgumentParser) -> ModuleType:
    if name not in WITHOUT_STACK:
        try:
            require_stack()
        except ImportError as error:
            parser.error(str(error))
    return import_module(f'{package}.{name.replace("-", "_")}')


if __name__ == '__main__':
    main()
