"""A recipe and what trainings of it have come to, as a row of a table; and its usual columns."""

import statistics
from collections.abc import Sequence
from typing import Any

from eqprop.recipes.catalogue import RECIPES
from eqprop.recipes.recipe import Recipe
from eqprop.reports.tables import Column, Row, percent
from eqprop.training.results import Outcome, label


def summary(recipe: Recipe, outcomes: Sequence[Outcome], dataset: str) -> dict[str, Any]:
    """A row of a table: settings, mean and standard deviation over seeds, and the published values
    if they are of that data set.

    Errors are those of each seed's last epoch, in %.
    """
    base = RECIPES.get(recipe.name, recipe)
    published = base.published if base.dataset == dataset else None
    epochs = [outcome.epochs for outcome in outcomes]
    return {
        "recipe": label(recipe),
        "T": recipe.T,
        "K": recipe.K,
        "beta": None if recipe.rule in {"bptt", "rbp"} else recipe.beta,
        "epochs": base.epochs,
        "least_epochs_done": min(epochs, default=None),
        "most_epochs_done": max(epochs, default=None),
        "seeds": len(outcomes) or None,
        **_mean_and_std("test", [outcome.test for outcome in outcomes]),
        **_mean_and_std("training", [outcome.training for outcome in outcomes]),
        "minutes_a_seed": _mean([outcome.seconds / 60 for outcome in outcomes]),
        "published_test": published and published.test,
        "published_std": published and published.std,
        "published_training": published and published.train,
        "published_seeds": published and published.seeds,
    }


def _mean_and_std(name: str, values: Sequence[float]) -> Row:
    std = statistics.stdev(values) if len(values) > 1 else None
    return {name: _mean(values), f"{name}_std": std}


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _epochs(row: Row) -> str:
    least, most = row["least_epochs_done"], row["most_epochs_done"]
    if most is None:
        return ""
    return f"{_range(least, most)} of {row['epochs']}"


def _range(least: int, most: int) -> str:
    return str(most) if least == most else f"{least} to {most}"


def _seeds(row: Row) -> str:
    if row["seeds"] is None:
        return ""
    published = row["published_seeds"]
    return f"{row['seeds']} of {published}" if published else str(row["seeds"])


def error(head: str, name: str, std: str | None = None) -> Column:
    """A column of errors."""
    return Column(head, lambda row: percent(row[name], row[std] if std else None))


DEPTH = (Column("epochs", _epochs), Column("seeds", _seeds))
TEST = error("test error %", "test", "test_std")
PUBLISHED = error("published %", "published_test", "published_std")


def depth(rows: Sequence[Row]) -> str:
    """How much of the published epochs and seeds was run, in words."""
    run = [row for row in rows if row["most_epochs_done"] is not None]
    if not run:
        return "Nothing was run."

    def span(*names: str) -> str:
        values = [row[name] for row in run for name in names if row[name] is not None]
        return _range(min(values), max(values))

    done, seeds = span("least_epochs_done", "most_epochs_done"), span("seeds")
    text = f"Run: {done} of {span('epochs')} epochs, {seeds} of 5 seeds"
    blank = len(rows) - len(run)
    return f"{text}; {blank} of {len(rows)} rows were not run." if blank else f"{text}."
