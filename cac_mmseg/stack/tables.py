"""The one form of a table that commands print."""
from typing import Any, Iterable, Sequence

from prettytable import PrettyTable, TableStyle


def markdown_table(headings: Sequence[str],
                   rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table, its first column aligned left, others right."""
    table = PrettyTable()
    # no two headings of a PrettyTable may be alike
    for i, (heading, cells) in enumerate(zip(headings, zip(*rows))):
        table.add_column(heading, cells, align='r' if i else 'l')
    table.set_style(TableStyle.MARKDOWN)
    return table.get_string()
