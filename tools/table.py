"""``python -m tools table``: the table of a study, from its results.

RESULTS is the ``results.npz`` of a study, such as those in ``docs/study``, or
the folder ``results`` of one that is not finished. With ``--out`` the csv, the
plots and a file of each run are written, too: a study with the same ``--out``
goes on from them.
"""
import argparse
from pathlib import Path

from cac_mmseg.errors import UserError
from cac_mmseg.stack.files import make_folder
from .study import report
from .study.results import load, run_text, save_run
from .study.statistics import by_head


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add('results', metavar='RESULTS', help='such as docs/study/camvid-700.npz')
    add('--over',
        nargs='+',
        metavar='HEAD',
        default=(),
        help='heads that the others are compared with (default: '
        f'{" ".join(report.REFERENCES)})')
    add('--out', metavar='DIR', help='gets all that a study writes')


def run(arguments: argparse.Namespace) -> None:
    """Print the table, and write the rest where it is asked for.

    Raises:
        UserError: naming the argument that does not fit, or a run in --out
            that is not of these results.
    """
    results = load(arguments.results)
    heads = dict.fromkeys(result['head'] for result in results)
    for name in arguments.over:
        if name not in heads:
            raise UserError(f'--over must be of {", ".join(heads)}, got '
                            f'{name!r}')
    if not arguments.out:
        print(report.summary(by_head(results), arguments.over))
        return
    folder = make_folder(Path(arguments.out, 'results'))
    files = {
        folder / f'{result["head"]}-seed{result["seed"]}.json': result
        for result in results
    }
    for file in sorted(folder.glob('*.json')):
        if file not in files or file.read_text(encoding='utf-8') != run_text(
                files[file]):
            raise UserError(f'{file} is not of {arguments.results}: give '
                            'another --out')
    for file, result in files.items():
        save_run(result, file)
    report.publish(results, [], folder.parent, arguments.over)
