"""``python -m cac_mmseg COMMAND``: see ``--help``."""
import argparse

from ._checks import check_int
from .cost import table


def main() -> None:
    """Parse the command line and run its command."""
    parser = argparse.ArgumentParser(
        prog='python -m cac_mmseg', description='Tools of CaC-Net for mmseg.')
    commands = parser.add_subparsers(
        dest='command', required=True, metavar='COMMAND')

    cost = commands.add_parser(
        'cost',
        help='parameters, multiply-adds and saved activations',
        description='Print what each re-weighting costs for one image: '
        "parameters, multiply-adds (mmengine's analysis), and activations "
        'saved for backward in float32, beyond the input.')
    cost.add_argument(
        '--channels', type=int, default=512, help='C (default: 512)')
    cost.add_argument(
        '--size',
        type=int,
        nargs=2,
        default=(64, 128),
        metavar=('H', 'W'),
        help='positions of the feature map (default: 64 128)')

    arguments = parser.parse_args()
    try:
        check_int('--channels', arguments.channels)
        for value in arguments.size:
            check_int('--size', value)
    except ValueError as error:
        parser.error(str(error))
    print(table(arguments.channels, *arguments.size))


if __name__ == '__main__':
    main()
