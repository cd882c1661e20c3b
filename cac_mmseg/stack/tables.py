"""The one form of a table that commands print."""
from typing import Any, Dict, Iterable, Sequence, Tuple

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


def figures_table(columns: Dict[str, Tuple[str, str, Any]],
                  rows: Sequence[Dict[str, Any]]) -> str:
    """Return a Markdown table of those columns that any row has.

    Args:
        columns: Heading, format, and a factor for the unit, by key.
        rows: Figures by key. What a row lacks is left empty.
    """
    keys = [key for key in columns if any(key in row for row in rows)]
    headings, formats, factors = zip(*(columns[key] for key in keys))
    return markdown_table(headings, [[
        form.format(row[key] * factor) if key in row else ''
        for key, form, factor in zip(keys, formats, factors)
    ] for row in rows])


def class_table(names: Sequence[str], pixels: Sequence[int],
                images: Sequence[int]) -> str:
    """Return how often classes occur, as a Markdown table.

    Args:
        names: With their indices.
        pixels: Of each class.
        images: In which it occurs.
    """
    total = max(sum(pixels), 1)
    return markdown_table(
        ('class', 'pixels', 'images'),
        [(name, f'{100 * count / total:.2f} %', found)
         for name, count, found in zip(names, pixels, images)])
