"""What a trained network takes for what: confusion matrix, errors by class, the worst mistakes.

Of real targets: predicted against true values. Nothing is drawn here, and nothing written.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import jax.numpy as jnp
import numpy as np

from eqprop.data.targets import Classes, Labels, Real, Target
from eqprop.dynamics.costs import Cost
from eqprop.training import run_data
from eqprop.training.metrics import predicted
from eqprop.training.records import DataUsed
from eqprop.training.trainer import Examples
from eqprop.types import Float

MOST = 20
"""Classes and labels of which a table is shown whole; of more, those with the most mistakes."""

_WORST = 16  # mistakes that are shown
_FEATURES = 8  # of an input, beside a mistake


@final
class Table(NamedTuple):
    """Words and numbers, as they are shown."""

    caption: str
    heads: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def lines(self) -> list[str]:
        """Its lines in a terminal: the caption, the heads, the rows."""
        cells = [self.heads, *self.rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        padded = (map(str.rjust, row[1:], widths[1:]) for row in cells)
        rows = zip(cells, padded, strict=True)
        lines = ("  ".join((row[0].ljust(widths[0]), *end)).rstrip() for row, end in rows)
        return [self.caption, *lines]


@final
class Counts(NamedTuple):
    """How many examples of each row came out as each column: ``counts[row, column]``."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: np.ndarray


@final
class Predictions(NamedTuple):
    """True and predicted values of a real target, ``(n,)`` each, in the units of the data."""

    name: str
    true: np.ndarray
    predicted: np.ndarray


@final
@dataclass(frozen=True)
class Mistakes:
    """What was found on some examples."""

    tables: tuple[Table, ...]
    counts: Counts | None
    """The confusion matrix, where there are classes or labels."""
    predictions: tuple[Predictions, ...]
    """Of each output, where targets are real."""
    worst: Table
    """The worst mistakes, the worst first: the example, counted from 0, what it is, what was
    predicted, and its first features."""
    inputs: np.ndarray
    """Of these, as the data have them."""

    @property
    def pictures(self) -> bool:
        """Whether inputs are pictures: ``(H, W)``, or ``(H, W, channels)`` of 1, 3 or 4."""
        return self.inputs.ndim == 3 or (
            self.inputs.ndim == 4 and self.inputs.shape[3] in (1, 3, 4)
        )

    @property
    def captions(self) -> list[str]:
        """A line for each of the worst, to stand below its picture."""
        return [f"{row[0]}: {row[1]}, predicted {row[2]}" for row in self.worst.rows]


@final
class _Found(NamedTuple):
    """What is found of one kind of target; of ``rows``, the worst mistakes first, in words."""

    tables: tuple[Table, ...]
    rows: np.ndarray
    true: list[str]
    predicted: list[str]
    counts: Counts | None = None
    predictions: tuple[Predictions, ...] = ()


def find(
    used: DataUsed, examples: Examples, scores: Float[np.ndarray, "n outputs"], cost: Cost
) -> Mistakes:
    """What a network makes of examples of the data of a run, from its scores for them."""
    target = run_data.target(used)
    y, (_, scaling) = np.asarray(examples.targets), run_data.scalings(used)
    if scaling is not None:
        y, scores = (scaling.undo(values.astype(np.float64)) for values in (y, scores))
    found = _KINDS[type(target)](target.names, y, scores, cost)
    inputs = np.asarray(examples.inputs[found.rows])
    features = used.features or tuple(f"x{n}" for n in range(math.prod(inputs.shape[1:])))
    shown = features[:_FEATURES] if inputs.ndim == 2 else ()
    values = [[f"{value:.4g}" for value in x[: len(shown)].ravel()] for x in inputs]
    said = zip(map(str, found.rows), found.true, found.predicted, values, strict=True)
    worst = Table(
        "the worst, by test example",
        ("example", "true", "predicted", *shown),
        [(row, true, taken, *numbers) for row, true, taken, numbers in said],
    )
    return Mistakes(found.tables, found.counts, found.predictions, worst, inputs)


def _of_classes(names: tuple[str, ...], y: np.ndarray, scores: np.ndarray, cost: Cost) -> _Found:
    every, taken = np.arange(len(y)), np.asarray(predicted(cost, jnp.asarray(scores)))
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (y, taken), 1)
    wrong = counts.sum(axis=1) - counts.diagonal()
    others = np.where(np.eye(len(names), dtype=bool), 0, counts)
    rows = [
        (
            names[c],
            str(counts[c].sum()),
            str(wrong[c]),
            _percent(wrong[c], counts[c].sum()),
            names[others[c].argmax()] if wrong[c] else "",
        )
        for c in _some(wrong)
    ]
    by_class = Table(
        "errors by class" if len(rows) == len(names) else f"the {MOST} classes of most errors",
        ("class", "examples", "wrong", "error %", "most often taken for"),
        rows,
    )
    worst = _first(scores[every, taken] - scores[every, y])
    true, wrongly = ([names[c] for c in numbers[worst]] for numbers in (y, taken))
    caption = "confusion matrix: true classes in rows, predicted ones in columns"
    whole = [(name, *map(str, row)) for name, row in zip(names, counts, strict=True)]
    confusion = Table(caption, ("true", *names), whole)
    tables = (confusion, by_class) if len(names) <= MOST else (by_class,)
    return _Found(tables, worst, true, wrongly, Counts(names, names, counts))


def _of_labels(names: tuple[str, ...], y: np.ndarray, scores: np.ndarray, _: Cost) -> _Found:
    there, taken = y > 0.5, scores > 0.5
    kinds = [~there & ~taken, ~there & taken, there & ~taken, there & taken]
    counts = np.stack([kind.sum(axis=0) for kind in kinds], axis=1)
    columns = ("rightly absent", "wrongly given", "missed", "rightly given")
    wrong = counts[:, 1] + counts[:, 2]
    rows = [(names[n], *map(str, counts[n]), _percent(wrong[n], len(y))) for n in _some(wrong)]
    table = Table("errors by label", ("label", *columns, "error %"), rows)
    worst = _first(np.where(there != taken, np.abs(scores - 0.5), 0).sum(axis=1))
    true, given = (
        [" + ".join(np.asarray(names)[own]) or "none" for own in which[worst]]
        for which in (there, taken)
    )
    return _Found((table,), worst, true, given, Counts(names, columns, counts))


def _of_real(names: tuple[str, ...], y: np.ndarray, scores: np.ndarray, _: Cost) -> _Found:
    squares = ((y - scores) ** 2).mean(axis=0)
    spread = np.where(np.ptp(y, axis=0) > 0, y.var(axis=0), 0)
    rows = [
        (name, f"{np.sqrt(square):.4g}", f"{1 - square / variance:.3f}" if variance else "")
        for name, square, variance in zip(names, squares, spread, strict=True)
    ]
    table = Table("errors by target", ("target", "RMSE", "R²"), rows)
    # Each in parts of its own spread, for they may be of several units.
    worst = _first((np.abs(y - scores) / np.sqrt(spread + (spread == 0))).max(axis=1))
    true, taken = (
        [" ".join(f"{v:.4g}" for v in row) for row in part[worst]] for part in (y, scores)
    )
    pairs = zip(names, y.T, scores.T, strict=True)
    return _Found(
        (table,), worst, true, taken, predictions=tuple(Predictions(*pair) for pair in pairs)
    )


_KINDS: dict[type[Target], Callable[[tuple[str, ...], np.ndarray, np.ndarray, Cost], _Found]] = {
    Classes: _of_classes,
    Labels: _of_labels,
    Real: _of_real,
}


def _first(badness: np.ndarray) -> np.ndarray:
    """The rows of the largest of these numbers, among those above 0."""
    order = np.argsort(-badness, kind="stable")[:_WORST]
    return order[badness[order] > 0]


def _some(wrong: np.ndarray) -> Sequence[int]:
    """All in order, or those with the most mistakes."""
    every = range(len(wrong))
    return every if len(wrong) <= MOST else np.argsort(-wrong, kind="stable")[:MOST].tolist()


def _percent(part: int | np.integer, whole: int | np.integer) -> str:
    return f"{100 * part / whole:.2f}" if whole else ""
