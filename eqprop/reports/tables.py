"""Tables as files: rows of numbers, and how a reader sees them."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

type Row = Mapping[str, Any]
"""Numbers and words by name; None where there is nothing."""


class Column(NamedTuple):
    """A column for readers: its head, and what stands in it for a row."""

    head: str
    show: Callable[[Row], str]


def field(head: str, name: str, form: str = "") -> Column:
    """A column of one value of each row, in a format; blank where there is none."""

    def show(row: Row) -> str:
        value = row.get(name)
        return "" if value is None else format(value, form)

    return Column(head, show)


def markdown(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """The table in Markdown."""
    lines = [
        [column.head for column in columns],
        ["---"] * len(columns),
        *([column.show(row).replace("|", "\\|") for column in columns] for row in rows),
    ]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def as_csv(rows: Sequence[Row]) -> str:
    """The rows, with every name that any of them has as a column."""
    names = dict.fromkeys(name for row in rows for name in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)  # None is written as nothing
    return text.getvalue()


def percent(mean: float | None, std: float | None) -> str:
    """An error in %, with its standard deviation where there is one."""
    if mean is None:
        return ""
    return f"{mean:.2f}" if std is None else f"{mean:.2f} ± {std:.2f}"
