"""Exhibits as files: a Markdown page, CSV, JSON and a figure of each; and tables within a page."""

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eqprop.errors import EqpropError
from eqprop.paper.items import Exhibit, Shown
from eqprop.reports.charts import new_figure, save
from eqprop.reports.tables import Column, Row, as_csv, field, markdown, percent
from eqprop.training.results import Outcome, label
from eqprop.training.runs import write_whole

FORMAT = 1
"""Version of the layout of the JSON."""


def write(name: str, exhibit: Exhibit, shown: Shown, out: Path, made: Mapping[str, Any]) -> None:
    """Writes ``NAME.md``, ``.csv``, ``.json``, ``.png`` and ``.svg`` into a folder.

    ``made`` says when, where and with what.
    """
    image = ""
    if shown.draw is not None:
        figure = new_figure()
        shown.draw(figure)
        save(figure, out / name)
        image = f"![{exhibit.title}]({name}.png)\n\n"
    page = f"# {exhibit.title}\n\n{image}{body(shown, out)}"
    numbers = {
        "format": FORMAT,
        "name": name,
        "title": exhibit.title,
        "caption": shown.caption,
        "rows": [dict(row) for row in shown.rows],
        "runs": [_source(outcome, out) for outcome in shown.used],
        "made": dict(made),
    }
    write_whole(out / f"{name}.csv", as_csv(shown.rows))
    write_whole(out / f"{name}.json", json.dumps(numbers, indent=2, allow_nan=False) + "\n")
    write_whole(out / f"{name}.md", page)


def body(shown: Shown, folder: Path) -> str:
    """Caption and tables in Markdown, with links as a page in ``folder`` has them."""
    parts = [f"{shown.caption}\n"]
    if shown.rows:
        parts.append(markdown(shown.rows, shown.columns))
    if shown.used:
        parts.append("Each number comes from these runs:\n")
        parts.append(markdown([_source(outcome, folder) for outcome in shown.used], _SOURCES))
    return "\n".join(parts)


def put_into(page: Path, texts: Mapping[str, str]) -> None:
    """Replaces what a page has between ``<!-- eqprop:NAME -->`` and ``<!-- /eqprop:NAME -->``.

    Raises ``EqpropError`` where the page has no such place.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise EqpropError(f"{page} cannot be read ({error.strerror}): name a page") from error
    for name, new in texts.items():
        begin, end = f"<!-- eqprop:{name} -->", f"<!-- /eqprop:{name} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise EqpropError(f"{page} has no place for {name}: put the lines {begin} and {end}")
        text = f"{before}{begin}\n\n{new}\n{end}{after}"
    write_whole(page, text)


def _source(outcome: Outcome, folder: Path) -> Row:
    """Where a number comes from."""
    started = outcome.record.started
    error, epoch = outcome.lowest
    return {
        "recipe": label(outcome.recipe),
        "seed": outcome.seed,
        "epochs": outcome.epochs,
        "test": outcome.test,
        "training": outcome.training,
        "seconds": outcome.seconds,
        "lowest_test": error,
        "lowest_epoch": epoch,
        "run": Path(os.path.relpath(outcome.folder, folder)).as_posix(),
        "command": shlex.join(started.command),
        "commit": started.git["commit"] if started.git else None,
        "changed_checkout": outcome.changed_checkout,
        "time": started.time,
        "device": started.device["kind"],
    }


def _commit(row: Row) -> str:
    if row["commit"] is None:
        return ""
    return row["commit"][:7] + (", changed" if row["changed_checkout"] else "")


_SOURCES: Sequence[Column] = (
    *(field(name, name) for name in ("recipe", "seed", "epochs")),
    field("test %", "test", ".2f"),
    Column(
        "lowest on the way", lambda r: f"{percent(r['lowest_test'], None)} ({r['lowest_epoch']})"
    ),
    field("training %", "training", ".2f"),
    Column("run", lambda row: f"[{Path(row['run']).name}]({row['run']})"),
    Column("command", lambda row: f"`{row['command']}`"),
    Column("commit", _commit),
)
