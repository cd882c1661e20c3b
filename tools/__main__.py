"""``python -m tools COMMAND``, in a checkout: see ``--help``."""
from typing import List, Optional

from cac_mmseg.__main__ import main as run_command

COMMANDS = {
    'benchmark': 'time and memory of decode heads, and of the re-weighting',
    'study': 'decode heads side by side, trained under one protocol',
    'table': 'the table of a study, from its results',
}


def main(argv: Optional[List[str]] = None) -> None:
    """Parse the command line and run its command."""
    run_command(
        argv,
        program='tools',
        description='What measures CaC-Net and compares it with other heads. '
        'Checks of single claims: python -m tools.checks.NAME --help',
        package='tools',
        summaries=COMMANDS)


if __name__ == '__main__':
    main()
