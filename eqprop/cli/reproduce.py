"""``eqprop reproduce``."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn, final

from eqprop.cli.arguments import (
    HELP,
    listing,
    parse,
    require_at_least,
    require_known,
    show_help,
)
from eqprop.errors import UsageError, typed
from eqprop.paper.item import Scope
from eqprop.paper.items import paper_items
from eqprop.recipes.catalogue import RECIPES

ALL = "all"


@final
@dataclass(frozen=True)
class ReproduceOptions:
    """How deep, and where."""

    budget: str | None = None
    """Time to spend in this call, such as 90s, 30m or 8h; the same call again goes on. Epochs and
    seeds may be fewer, as captions then say.
    """
    seeds: int = 5
    """Seeds of each training, at most."""
    epochs: int | None = None
    """Epochs of each training, at most; those of each recipe when left out."""
    fast: bool = False
    """Settings that reach the same error sooner (eqprop train --fast)."""
    recipes: tuple[str, ...] = ()
    """Only these recipes; all that were published when left out."""
    dataset: Literal["mnist", "fashion-mnist", "digits"] = "mnist"
    """Data set; digits, which are small, for a rehearsal."""
    out: Path = Path("runs/reproduce")
    """Directory for the results and all runs."""
    records: tuple[Path, ...] = ()
    """Train nothing: take what lies in these directories, runs within them included."""
    into: Path | None = None
    """With --records: a Markdown page that gets the tables, between <!-- eqprop:NAME --> and
    <!-- /eqprop:NAME -->.
    """


_ABOUT = """Reproduce tables and figures of the paper: runs what has not been run yet in the
directory, and writes each as Markdown, CSV, JSON and an image, beside the published values. Killed
or stopped, the same command goes on where it was; what is finished is never run again."""


def run(args: Sequence[str]) -> None:
    """Reproduces what the arguments name."""
    known = paper_items(Scope())
    names, rest = _split(args)
    if not names and (not rest or rest[0] in HELP):
        _help()
    if not names:
        raise UsageError(f"a table or figure comes first: eqprop reproduce NAME {rest[0]} ...")
    for name in names:
        require_known("table or figure", name, (*known, ALL), "eqprop reproduce --help")
    paper = [name for name, item in known.items() if not item.beyond]
    names = [each for name in names for each in (paper if name == ALL else [name])]
    options = parse(ReproduceOptions, rest, "eqprop reproduce NAME ...", _ABOUT, ReproduceOptions())
    _check(options)
    text = options.budget
    seconds = None if text is None else _seconds(text)

    from eqprop.paper.reproduce import Budget, Reproduction, from_records, reproduce  # loads JAX

    asked = Reproduction(
        names=tuple(dict.fromkeys(names)),
        scope=Scope(options.recipes, options.dataset, options.fast, options.epochs),
        seeds=options.seeds,
        budget=Budget(text, seconds) if text and seconds else None,
        out=options.out,
    )
    command = ["eqprop", "reproduce", *args]
    if options.records:
        with typed():
            from_records(asked, options.records, options.into, command)
    else:
        reproduce(asked, command)


def _split(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names at the beginning, and the rest."""
    first = next((n for n, arg in enumerate(args) if arg.startswith("-")), len(args))
    return list(args[:first]), list(args[first:])


def _seconds(text: str) -> float:
    """``90s``, ``30m`` or ``1.5h`` in seconds. Raises ``UsageError`` for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if not match or not float(match[1]):
        raise UsageError(f"budget is {text!r}: give a time such as 90s, 30m or 8h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def _check(options: ReproduceOptions) -> None:
    require_at_least(1, {"seeds": options.seeds, "epochs": options.epochs})
    for name in options.recipes:
        require_known("recipe", name, RECIPES, "eqprop list")
    if options.into and not options.records:
        raise UsageError("--into needs --records: it fills a page from runs that are there")
    for name in ("budget", "epochs"):
        if options.records and getattr(options, name) is not None:
            raise UsageError(f"--{name} has no place beside --records, which trains nothing")


def _help() -> NoReturn:
    titles = {name: item.title for name, item in paper_items(Scope()).items()}
    about = "\n".join(
        [
            *(_ABOUT, "", "Tables and figures, of which NAME may be several:"),
            *listing({**titles, ALL: "everything of the paper"}),
            *("", "Start with: eqprop reproduce table-mnist --budget 30m"),
        ]
    )
    show_help(ReproduceOptions, "eqprop reproduce NAME ...", about)
