"""Tables and figures as files: Markdown, CSV, JSON and an image of each; and tables in a page."""

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eqprop.errors import EqpropError
from eqprop.paper.item import PaperItem, Rendered
from eqprop.reports.tables import Column, Row, as_csv, field, markdown
from eqprop.training.figures import new_figure, save
from eqprop.training.files import write_whole
from eqprop.training.metrics import shown
from eqprop.training.results import SeedResult, label

FORMAT = 1
"""Version of the layout of the JSON."""


def write(
    name: str, item: PaperItem, rendered: Rendered, out: Path, made: Mapping[str, Any]
) -> None:
    """Writes ``NAME.md``, ``.csv``, ``.json``, ``.png`` and ``.svg`` into a folder.

    ``made`` says when, where and with what.
    """
    if rendered.draw is not None and rendered.rows:
        figure = new_figure()
        rendered.draw(figure)
        save(figure, out / f"{name}.png", out / f"{name}.svg")
    numbers = {
        "format": FORMAT,
        "name": name,
        "title": item.title,
        "caption": rendered.caption,
        "rows": [dict(row) for row in rendered.rows],
        "runs": [_source(result, out) for result in rendered.used],
        "made": dict(made),
    }
    write_whole(out / f"{name}.csv", as_csv(rendered.rows))
    write_whole(out / f"{name}.json", json.dumps(numbers, indent=2, allow_nan=False) + "\n")
    write_whole(out / f"{name}.md", f"# {_section(name, item, rendered)}{_sources(rendered, out)}")


def write_together(
    items: Mapping[str, PaperItem], written: Mapping[str, Rendered], out: Path
) -> None:
    """Writes ``all.md``: several tables and figures on one page, which begins with what there is
    nothing of; the runs behind them stand on the pages of each.
    """
    blank = [name for name, rendered in written.items() if not (rendered.used or rendered.rows)]
    parts = ["# Reproduced, beside what was published\n"]
    if blank:
        parts.append(f"Nothing was run for {', '.join(blank)}.\n")
    parts += [
        f"## {_section(name, items[name], rendered)}\n[Files and runs]({name}.md)\n"
        for name, rendered in written.items()
        if name not in blank
    ]
    write_whole(out / "all.md", "\n".join(parts))


def _section(name: str, item: PaperItem, rendered: Rendered) -> str:
    """Title, image, caption and table in Markdown."""
    image = f"![{item.title}]({name}.png)\n\n" if rendered.draw and rendered.rows else ""
    return f"{item.title}\n\n{image}{_table(rendered)}"


def put_into(page: Path, written: Mapping[str, Rendered]) -> None:
    """Replaces what a page has between ``<!-- eqprop:NAME -->`` and ``<!-- /eqprop:NAME -->`` by
    caption and table; the runs behind it follow, or go to the place ``NAME-runs`` where the page
    has that.

    Its line ends stay as they are. Raises ``EqpropError`` where the page cannot be read, or has no
    place for NAME.
    """
    try:
        text = page.read_bytes().decode("utf-8")
    except OSError as error:
        raise EqpropError(f"{page} cannot be read ({error.strerror}): name a page") from error
    except UnicodeDecodeError as error:
        raise EqpropError(f"{page} is not in UTF-8 ({error}): save it as that") from error
    for name, rendered in written.items():
        table, runs = _table(rendered), _sources(rendered, page.parent)
        if _marks(f"{name}-runs")[0] in text:
            text = _replaced(page, text, f"{name}-runs", runs)
        else:
            table += runs
        text = _replaced(page, text, name, table)
    write_whole(page, text)


def _replaced(page: Path, text: str, name: str, new: str) -> str:
    """The text of a page with ``new`` in a place."""
    begin, end = _marks(name)
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise EqpropError(f"{page} has no place for {name}: put the lines {begin} and {end}")
    line_end = "\r\n" if "\r\n" in text else "\n"
    return f"{before}{begin}{f'\n\n{new}\n'.replace('\n', line_end)}{end}{after}"


def _marks(name: str) -> tuple[str, str]:
    """The lines around a place."""
    return f"<!-- eqprop:{name} -->", f"<!-- /eqprop:{name} -->"


def _table(rendered: Rendered) -> str:
    """Caption and table in Markdown."""
    table = markdown(rendered.rows, rendered.columns) if rendered.rows else ""
    return f"{rendered.caption}\n\n{table}" if table else f"{rendered.caption}\n"


def _sources(rendered: Rendered, folder: Path) -> str:
    """The runs behind a table, with links as a page in ``folder`` has them."""
    if not rendered.used:
        return ""
    runs = markdown([_source(result, folder) for result in rendered.used], _SOURCES)
    return f"\nEach number comes from these runs:\n\n{runs}"


def _source(result: SeedResult, folder: Path) -> Row:
    """Where a number comes from."""
    started = result.record.started
    # An error on what was held back is no test error.
    error, epoch = result.lowest if result.recipe.measured_part == "test" else (None, None)
    return {
        "recipe": label(result.recipe),
        "seed": result.seed,
        "epochs": result.epochs,
        "test": result.score("test"),
        "training": result.score("train"),
        "seconds": result.seconds,
        "lowest_test": error,
        "lowest_epoch": epoch,
        "run": Path(os.path.relpath(result.folder, folder)).as_posix(),
        "command": shlex.join(started.command),
        "commit": started.git["commit"] if started.git else None,
        "changed_checkout": result.changed_checkout,
        "time": started.time,
        "device": started.device["kind"],
    }


def _lowest(row: Row) -> str:
    lowest = row["lowest_test"]
    return "" if lowest is None else f"{shown(lowest, None)} ({row['lowest_epoch']})"


def _commit(row: Row) -> str:
    if row["commit"] is None:
        return ""
    return row["commit"][:7] + (", changed" if row["changed_checkout"] else "")


_SOURCES: Sequence[Column] = (
    *(field(name, name) for name in ("recipe", "seed", "epochs")),
    field("test %", "test", ".2f"),
    Column("lowest on the way", _lowest),
    field("training %", "training", ".2f"),
    Column("run", lambda row: f"[{Path(row['run']).name}]({row['run']})"),
    Column("command", lambda row: f"`{row['command']}`"),
    Column("commit", _commit),
)
