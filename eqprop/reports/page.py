"""``eqprop report``: what some runs have come to, as one HTML page that needs nothing else.

The page is ``templates/report.html``, filled in by Jinja, which escapes all text that it is given.
"""

import math
import shlex
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from eqprop.errors import UsageError
from eqprop.reports import page_figures as draw
from eqprop.reports.groups import Group, gather
from eqprop.reports.inspection import Inspection, Relaxed, Tiles, inspect
from eqprop.reports.svg import image
from eqprop.training import metrics
from eqprop.training.display import Display
from eqprop.training.files import partial, write_whole, writing
from eqprop.training.mistakes import Mistakes
from eqprop.training.records import Made
from eqprop.training.results import SeedResult

_ANOTHER = "give another file with --out"
_CHANNELS = 16  # of a convolutional layer whose states are shown


def compose(
    folders: Sequence[Path],
    command: Sequence[str],
    display: Display,
    *,
    example: int,
    theorem: bool,
    mistakes: bool,
) -> str:
    """The page on the runs in some folders, written by ``command``.

    ``example`` is a row of the test set, from 0, whose relaxation is shown; ``theorem`` measures
    Theorem 1 on each network, which takes seconds; ``mistakes`` tests it again.

    Raises ``EqpropError`` where a folder is no run, is damaged or has no finished epoch.
    """
    groups, notes = gather(folders)
    for group in groups:
        if example >= (count := group.members[0].record.data.test):
            raise UsageError(
                f"example is {example}, but {group.recipe.name} was tested on {count} examples, "
                "counted from 0"
            )
    for note in notes:
        display.say(f"note: {note}")
    sections = []
    for number, group in enumerate(groups, 1):
        where = ", ".join(str(member.folder) for member in group.members)
        display.say(f"{group.recipe.name}: {where}")
        inspection = inspect(group, example, theorem, mistakes, display)
        for reason in inspection.missing.values():
            display.say(f"note: {reason}")
        with display.doing("drawing"):
            title = f"{number}. {group.recipe.name}" if len(groups) > 1 else group.recipe.name
            sections.append(_section(group, title, inspection, f"g{number}"))
    return _fill(sections, notes, command)


def make_place(out: Path) -> None:
    """Sees that a page can be written, before the work on it. Raises ``EqpropError`` where not."""
    with writing(out, _ANOTHER):
        out.parent.mkdir(parents=True, exist_ok=True)
        partial(out).touch()
        partial(out).unlink()


def write(page: str, out: Path) -> None:
    """Writes the page, whole or not at all. Raises ``EqpropError`` where that cannot be done."""
    with writing(out, _ANOTHER):
        write_whole(out, page)


def _section(group: Group, title: str, inspection: Inspection, name: str) -> dict[str, Any]:
    """All that the page tells of a group of runs, under the names that its template uses.

    ``title`` tells the group from others of the page, ``name`` its figures from theirs.
    """
    relaxed, theorem, mistakes = inspection.relaxed, inspection.theorem, inspection.mistakes
    heads, epochs = _numbers(group)
    return {
        "group": group,
        "title": title,
        "inspection": inspection,
        "curves": draw.training(group, name),
        "heads": heads,
        "epochs": epochs,
        "theorem": draw.theorem(theorem, f"{name}-theorem") if theorem else (),
        "relaxation": draw.relaxation(relaxed, f"{name}-relaxation") if relaxed else (),
        "maps": _maps(relaxed) if relaxed else (),
        "predictions": draw.predictions(mistakes, f"{name}-agreement") if mistakes else (),
        "worst": _worst(mistakes) if mistakes else (),
        "environment": _environment(group),
        "commands": _commands(group),
    }


def _maps(relaxed: Relaxed) -> list[Tiles]:
    """Channels of the convolutional layers, at the end of the free phase."""
    maps = [(n, layer.end) for n, layer in enumerate(relaxed.layers, 1) if len(layer.shape) == 3]
    return [
        Tiles(
            f"layer {n}, the maps of its first channels at the end",
            [f"channel {c}" for c in range(end.shape[-1])[:_CHANNELS]],
            np.moveaxis(end, -1, 0)[:_CHANNELS],
        )
        for n, end in maps
    ]


def _worst(mistakes: Mistakes) -> list[Tiles]:
    """The worst mistakes, where inputs are pictures; these in the mean over their colours."""
    if not mistakes.pictures or not mistakes.worst.rows:
        return []
    x = mistakes.inputs.astype(np.float64)
    grey = x.reshape(*x.shape[:3], -1).mean(axis=-1)
    return [Tiles(mistakes.worst.caption, mistakes.captions, grey)]


def _numbers(group: Group) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table of epochs; the mean over the seeds that have come so far."""
    columns = {
        column.head: [member.columns.get(column.name, ()) for member in group.members]
        for metric in metrics.METRICS
        for column in metric.columns(group.columns)
        if column.head is not None
    }
    last = max(member.epochs for member in group.members)

    def mean(seeds: Sequence[Sequence[float]], epoch: int) -> str:
        values = [s[epoch] for s in seeds if len(s) > epoch and not math.isnan(s[epoch])]
        return f"{statistics.mean(values):.4g}" if values else ""

    rows = [[str(n + 1), *(mean(seeds, n) for seeds in columns.values())] for n in range(last)]
    return ["epoch", *columns], rows


def _environment(group: Group) -> list[tuple[str, list[str]]]:
    """What each seed ran on; one column where that is the same for all."""
    columns = [_describe(member) for member in group.members]
    names = dict.fromkeys(name for column in columns for name in column)
    seconds = [f"{member.seconds:.0f} s" for member in group.members]
    rows = [(name, [column.get(name, "") for column in columns]) for name in names]
    same = [(name, values[:1] if len(set(values)) == 1 else values) for name, values in rows]
    return [("time taken", seconds), *same]


def _describe(member: SeedResult) -> dict[str, str]:
    record, made = member.record, member.record.started
    data = record.data
    resumed = [f"{again.time} in epoch {again.epoch + 1}" for again in record.resumed]
    described = {
        "run directory": str(member.folder),
        "started": made.time,
        "resumed": "; ".join(resumed) or "never",
        "commit": _commit(made),
        "device": ", ".join(f"{key} {value}" for key, value in made.device.items()),
        "machine": ", ".join(f"{key} {value}" for key, value in made.machine.items()),
        "data": f"{data.source} {data.train} training and {data.test} test examples of "
        f"{' x '.join(map(str, data.image))}",
        "data, SHA-256": data.sha256,
    }
    return described | {name: str(number) for name, number in made.versions.items()}


def _commit(made: Made) -> str:
    if not made.git:
        return "not recorded"
    changed = ", with changes that were not committed" if made.git.get("dirty") else ""
    return f"{made.git.get('commit')}{changed}"


def _commands(group: Group) -> list[str]:
    """What was typed, in order, each with the commit on which it was."""
    once = dict.fromkeys(  # seeds share a command
        (str(made.git.get("commit")) if made.git else "", shlex.join(made.command))
        for member in group.members
        for made in (member.record.started, *member.record.resumed)
    )
    lines: list[str] = []
    at = ""
    for commit, command in once:
        if commit and commit != at:
            lines.append(f"git checkout {shlex.quote(commit)}")
            at = commit
        lines.append(command)
    return lines


def _fill(
    sections: Sequence[Mapping[str, Any]], notes: Sequence[str], command: Sequence[str]
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("eqprop.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["picture"] = image
    template = environment.get_template("report.html")
    titles = [section["title"] for section in sections]
    groups = [section["group"] for section in sections]
    return template.render(
        sections=sections,
        notes=notes,
        names=list(dict.fromkeys(group.recipe.name for group in groups)),
        comparison=draw.comparison(titles, groups) if len(groups) > 1 else (),
        measured=[m for m in metrics.of_examples() if any(m in g.headline for g in groups)],
        command=shlex.join(command),
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        version=version("eqprop"),
        zip=zip,
    )
