"""``python -m cac_mmseg prepare DATA``: label maps that mmseg reads.

They are PNGs of one channel whose values are class indices, 255 for pixels
that are ignored. ``prepare labels --help`` and ``prepare pascal-context
--help`` list the options.
"""
import argparse

from ...errors import UserError
from . import labels, pascal_context

DATA = {
    'labels': (labels, 'from pictures in colours or other values, or COCO'),
    'pascal-context': (pascal_context, 'from its official files'),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of each kind of data."""
    kinds = parser.add_subparsers(dest='data', required=True, metavar='DATA')
    for name, (module, summary) in DATA.items():
        kind = kinds.add_parser(
            name,
            help=summary,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter)
        kind.set_defaults(kind=kind)
        module.add_arguments(kind)


def run(arguments: argparse.Namespace) -> None:
    """Prepare, and print what was made; exit with 1 if files failed.

    A :class:`UserError` follows the usage of its kind of data.
    """
    try:
        DATA[arguments.data][0].run(arguments)
    except UserError as error:
        arguments.kind.error(str(error))
