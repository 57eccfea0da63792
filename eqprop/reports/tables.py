"""Tables: what trainings of a recipe have come to as a row of numbers, and how a reader sees it."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, final

from eqprop.recipes.catalogue import published_for
from eqprop.recipes.recipe import Recipe
from eqprop.training.metrics import mean_and_std, shown
from eqprop.training.results import SeedResult, catalogued, label, scores_of

type Row = Mapping[str, Any]
"""Numbers and words by name; None where there is nothing."""


@final
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


def summary(recipe: Recipe, results: Sequence[SeedResult], dataset: str) -> dict[str, Any]:
    """A row of a table: settings, mean and standard deviation over seeds, and the published values
    if they are of that data set; says where a program was not committed.

    Errors in %, or what else the target is measured by, are those of each seed's last epoch, or of
    its best one where there is a validation part.
    """
    published = published_for(recipe, dataset)
    epochs = [result.epochs for result in results]
    changed = any(result.changed_checkout for result in results)
    return {
        "recipe": label(recipe) + (", uncommitted changes" if changed else ""),
        "T": recipe.T,
        "K": recipe.K,
        "beta": recipe.beta if recipe.is_nudged else None,
        "epochs": (catalogued(recipe) or recipe).epochs,
        "least_epochs_done": min(epochs, default=None),
        "most_epochs_done": max(epochs, default=None),
        "seeds": len(results) or None,
        **averaged("test", scores_of(results, "test")),
        **averaged("validation", scores_of(results, "validation")),
        **averaged("training", scores_of(results, "train")),
        "minutes_a_seed": averaged("", [result.seconds / 60 for result in results])[""],
        "accelerator": ", ".join(sorted({a for it in results if (a := it.accelerator)})) or None,
        "published_test": published and published.test,
        "published_std": published and published.std,
        "published_training": published and published.train,
        "published_seeds": published and published.seeds,
    }


def averaged(name: str, values: Sequence[float]) -> dict[str, float | None]:
    """Mean and standard deviation of numbers, for a row, as ``name`` and ``name_std``."""
    mean, std = mean_and_std(values) if values else (None, None)
    return {name: mean, f"{name}_std": std}


def _minutes(row: Row) -> str:
    minutes, accelerator = row["minutes_a_seed"], row["accelerator"]
    if minutes is None:
        return ""
    return f"{minutes:.3g} ({accelerator})" if accelerator else f"{minutes:.3g}"


def epochs_done(row: Row) -> str:
    """From the least that a seed has done to the most; blank where nothing was run."""
    least, most = row["least_epochs_done"], row["most_epochs_done"]
    if most is None:
        return ""
    return f"{_range(least, most)} of {row['epochs']}"


def _range(least: int, most: int) -> str:
    return str(most) if least == most else f"{least} to {most}"


def _seeds(row: Row) -> str:
    if row["seeds"] is None:
        return ""
    return f"{row['seeds']}{_of(row['seeds'], row['published_seeds'])}"


def _of(seeds: int, published: int | None) -> str:
    """Of how many seeds these are a part, if of any."""
    return f" of {published}" if published and seeds <= published else ""


def score(head: str, name: str, std: str | None = None, form: str = ".2f") -> Column:
    """A column of errors in %, or of another metric."""
    return Column(head, lambda row: shown(row[name], row[std] if std else None, form))


DONE = (Column("epochs", epochs_done), Column("seeds", _seeds))
TEST = score("test error %", "test", "test_std")
TRAINING = score("training error %", "training", "training_std")
MINUTES = Column("minutes", _minutes)
PUBLISHED = score("published %", "published_test", "published_std")


def what_was_run(rows: Sequence[Row]) -> str:
    """How much of the published epochs and seeds was run, in words."""
    run = [row for row in rows if row["most_epochs_done"] is not None]
    if not run:
        return "Nothing was run."

    def span(*names: str) -> str:
        values = [row[name] for row in run for name in names if row[name] is not None]
        return _range(min(values), max(values))

    done, seeds = span("least_epochs_done", "most_epochs_done"), span("seeds")
    most = max(row["seeds"] for row in run)
    # Of those published, where that is as many for all.
    published = {row["published_seeds"] for row in run}
    of = _of(most, published.pop()) if len(published) == 1 else ""
    text = f"Run: {done} of {span('epochs')} epochs, {seeds}{of} seed{'s' * bool(of or most > 1)}"
    blank = len(rows) - len(run)
    return f"{text}; {blank} of {len(rows)} rows were not run." if blank else f"{text}."
