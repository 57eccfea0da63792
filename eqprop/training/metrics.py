"""Metrics: what is measured of a training, each in one place.

``METRICS`` lists them. A metric carries its function, and its names and words for files, progress
and reports, so a new one is a function and an entry there. Its class says what it is of: examples,
in training and in testing (``MeanOfExamples``, ``ShareOfExamples``), free phases
(``CountOfFreePhases``, ``LargestOfFreePhases``), or the network and the session at the end of an
epoch (``OfEpoch``).

A *row* is what ``metrics.jsonl`` holds of an epoch: numbers, or objects of numbers, by name.
``flat`` makes of it numbers by *column*, ``test_error`` or ``angles/1-2``, and
``metric.columns(names)`` tells which of these are the metric's, and what a report calls them. Rows
of older versions lack the columns of later metrics. Nothing here loads JAX until it measures.
"""

import abc
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final, override

from eqprop.recipes.recipe import Recipe

type Totals = dict[str, Any]
"""Scalars by name: what an epoch so far has come to, or sums over test examples."""

type Row = Mapping[str, Any]


class Seen(NamedTuple):
    """Examples after a free phase."""

    cost: Any
    """A ``Cost``."""
    scores: Any
    """``(B, classes)``."""
    states: Any
    """Of the layers 1 ... N."""
    y: Any
    """One-hot targets, ``(B, classes)``."""


class Epoch(NamedTuple):
    """An epoch, finished or not."""

    number: int
    """From 1 on."""
    minibatches: int
    """Learnt."""
    examples: int
    """Learnt."""
    totals: Totals
    network: Any
    recipe: Recipe
    tested: Mapping[str, float]
    """Metrics of the test examples, by name; none before the first test."""
    seconds: Mapping[str, float]
    """Of learning and of testing; none before the epoch has finished."""


class Column(NamedTuple):
    """A column of numbers, and what a report calls it."""

    name: str
    label: str
    """Of its curve."""
    head: str | None
    """Of its column in the table of epochs; None: it is not there."""


@dataclass(frozen=True, kw_only=True)
class Metric(abc.ABC):
    """Abstract: something that is measured of each epoch, a number or numbers by name.

    In ``label`` and ``head``, ``{}`` stands for what tells its columns apart: ``test`` and
    ``training``, or the names of the numbers.
    """

    name: str
    """In files."""
    function: Callable[[Any], Any]
    words: Callable[[str], str | None] = lambda _: None
    """What stands in progress before a number, by what tells it apart; None: it is not told."""
    digits: int = 2
    unit: str = ""
    """Both of them in progress."""
    title: str | None = None
    """Of its panel in a report; None: it has none."""
    logarithmic: bool = True
    """Whether that panel may have a logarithmic axis."""
    label: str = "{}"
    """Of a curve in that panel."""
    head: str | None = None
    """In the table of epochs in a report; None: it is not there."""
    largest: float = 1e100
    """Numbers beyond, or below its negative, are damage; larger ones could not be squared."""

    def start(self, dtype: Any) -> Totals:
        """Its total before the first minibatch, for a network of that dtype, if it keeps one."""
        return {}

    def add(self, totals: Totals, seen: Seen, settled: Any) -> Totals:
        """Its total after another minibatch."""
        return {}

    def sums(self, seen: Seen, counts: Any) -> Totals:
        """Its sum over those of the examples that count, ``(B,)`` booleans."""
        return {}

    def scores(self, sums: Mapping[str, Any], n: int) -> dict[str, float]:
        """What a sum over n examples makes."""
        return {}

    @abc.abstractmethod
    def measure(self, epoch: Epoch) -> dict[str, Any]:
        """Its part of an epoch's row."""

    def keys(self, names: Iterable[str]) -> dict[str, str]:
        """Which of these columns are its own, and what tells each apart."""
        own = (name for name in names if name.partition("/")[0] == self.name)
        return {name: name.partition("/")[2] for name in own}

    def columns(self, names: Iterable[str]) -> list[Column]:
        """Its columns among those of these names."""
        return [
            Column(name, self.label.replace("{}", key), self.head and self.head.replace("{}", key))
            for name, key in self.keys(names).items()
        ]

    def show(self, rows: Sequence[Row]) -> str:
        """Its words in a line of progress, for the rows of one seed or of several."""
        flats = [flat(row) for row in rows]
        told = ""
        for name, key in self.keys(flats[0]).items():
            values = [row[name] for row in flats if name in row]
            if words := self.words(key):
                shown = values[:1] if len(set(values)) == 1 else values
                told += words + show_mean_and_std(shown, self.digits) + self.unit
        return told


@dataclass(frozen=True, kw_only=True)
class OfExamples(Metric):
    """Abstract: of each example after its free phase, before each update and in testing.

    ``function`` gives the values of the examples ``Seen``, ``(B,)``; ``total`` is the name of
    their sum in checkpoints, as everywhere below.
    """

    total: str

    @abc.abstractmethod
    def sum(self, values: Any) -> Any:
        """The sum over examples."""

    @abc.abstractmethod
    def value(self, total: Any, n: int) -> float:
        """What a sum over n examples makes."""

    @override
    def add(self, totals: Totals, seen: Seen, settled: Any) -> Totals:
        return {self.total: totals[self.total] + self.sum(self.function(seen))}

    @override
    def sums(self, seen: Seen, counts: Any) -> Totals:
        return {self.name: self.sum(self.function(seen) * counts)}

    @override
    def scores(self, sums: Mapping[str, Any], n: int) -> dict[str, float]:
        return {self.name: self.value(sums[self.name], n)}

    @override
    def measure(self, epoch: Epoch) -> dict[str, Any]:
        train = self.value(epoch.totals[self.total], epoch.examples)
        return {f"train_{self.name}": train, f"test_{self.name}": epoch.tested.get(self.name)}

    @override
    def keys(self, names: Iterable[str]) -> dict[str, str]:
        own = {f"test_{self.name}": "test", f"train_{self.name}": "training"}
        return {name: key for name, key in own.items() if name in names}


@final
@dataclass(frozen=True, kw_only=True)
class MeanOfExamples(OfExamples):
    """The mean over examples."""

    @override
    def start(self, dtype: Any) -> Totals:
        return _zero(self.total, dtype)

    @override
    def sum(self, values: Any) -> Any:
        return values.sum()

    @override
    def value(self, total: Any, n: int) -> float:
        return float(total) / n


@final
@dataclass(frozen=True, kw_only=True)
class ShareOfExamples(OfExamples):
    """The share of examples that the function is true of, in %."""

    largest: float = 100.0

    @override
    def start(self, dtype: Any) -> Totals:
        return _zero(self.total, "int32")

    @override
    def sum(self, values: Any) -> Any:
        return values.sum(dtype="int32")

    @override
    def value(self, total: Any, n: int) -> float:
        return 100 * _count(total) / n


@final
@dataclass(frozen=True, kw_only=True)
class CountOfFreePhases(Metric):
    """The mean over minibatches of a count, from 0 on, that a ``Settled`` tells."""

    total: str

    @override
    def start(self, dtype: Any) -> Totals:
        return _zero(self.total, "int32")

    @override
    def add(self, totals: Totals, seen: Seen, settled: Any) -> Totals:
        return {self.total: totals[self.total] + self.function(settled).astype("int32")}

    @override
    def measure(self, epoch: Epoch) -> dict[str, Any]:
        return {self.name: _count(epoch.totals[self.total]) / epoch.minibatches}


@final
@dataclass(frozen=True, kw_only=True)
class LargestOfFreePhases(Metric):
    """The largest, over minibatches, of a number from 0 on that a ``Settled`` tells."""

    total: str

    @override
    def start(self, dtype: Any) -> Totals:
        return _zero(self.total, dtype)

    @override
    def add(self, totals: Totals, seen: Seen, settled: Any) -> Totals:
        import jax.numpy as jnp

        return {self.total: jnp.maximum(totals[self.total], self.function(settled))}

    @override
    def measure(self, epoch: Epoch) -> dict[str, Any]:
        return {self.name: float(epoch.totals[self.total])}


@final
@dataclass(frozen=True, kw_only=True)
class OfEpoch(Metric):
    """A number, or numbers by name, of edges say, that follow from an ``Epoch``."""

    @override
    def measure(self, epoch: Epoch) -> dict[str, Any]:
        return {self.name: self.function(epoch)}


def predicted(cost: Any, scores: Any) -> Any:
    """The class that each row of scores, ``(B, classes)``, predicts: ``(B,)`` integers."""
    import jax.numpy as jnp

    return jnp.argmax(cost.predict(scores), axis=-1)


def _wrong(seen: Seen) -> Any:
    return predicted(seen.cost, seen.scores) != seen.y.argmax(axis=-1)


def angles(network: Any) -> dict[str, float]:
    """Realised angle in degrees between forward and feedback weights, of each untied edge."""
    from eqprop.networks.edges import Untied, realised_angle

    return {
        f"{e.pre}-{e.post}": float(realised_angle(e))
        for e in network.edges
        if isinstance(e, Untied)
    }


METRICS: tuple[Metric, ...] = (
    ShareOfExamples(
        name="error",
        function=_wrong,
        total="errors",
        words={"training": "  train ", "test": "  test "}.get,
        unit=" %",
        title="error (%)",
        head="{} error (%)",
    ),
    MeanOfExamples(
        name="loss",
        function=lambda seen: seen.cost.loss(seen.scores, seen.y),
        total="loss",
        words={"training": "  loss "}.get,
        digits=4,
        title="loss",
        head="{} loss",
    ),
    LargestOfFreePhases(
        name="residual",
        function=lambda settled: settled.residual,
        total="residual",
        title="largest residual of a free phase",
        label="residual",
        head="residual",
    ),
    CountOfFreePhases(
        name="free_steps",
        function=lambda settled: settled.steps,
        total="steps",
        words="  steps {}".format,
        digits=1,
        head="free steps",
    ),
    OfEpoch(
        name="nudged_steps",
        function=lambda epoch: epoch.recipe.K,
        words="+{}".format,
        digits=0,
    ),
    OfEpoch(
        name="angles",
        function=lambda epoch: angles(epoch.network),
        words="  angle {} ".format,
        digits=1,
        title="angle of forward to feedback weights (°)",
        logarithmic=False,
        label="layers {}",
        head="angle {} (°)",
    ),
    OfEpoch(
        name="seconds",
        function=lambda epoch: dict(epoch.seconds),
        words={"train": "  learnt in ", "test": ", tested in "}.get,
        digits=1,
        unit=" s",
    ),
)
"""In the order in which they are told of."""


def start(dtype: Any) -> Totals:
    """All totals before the first minibatch, for a network of that dtype."""
    return _merged(metric.start(dtype) for metric in METRICS)


def add(totals: Totals, seen: Seen, settled: Any) -> Totals:
    """All totals after another minibatch, whose free phase has ended as ``settled``."""
    return _merged(metric.add(totals, seen, settled) for metric in METRICS)


def sums(seen: Seen, counts: Any) -> Totals:
    """All sums over those of the examples that count, ``(B,)`` booleans."""
    return _merged(metric.sums(seen, counts) for metric in METRICS)


def scores(sums: Mapping[str, Any], n: int) -> dict[str, float]:
    """What sums over n examples make: means, and shares in %, by name."""
    return _merged(metric.scores(sums, n) for metric in METRICS)


def measure(epoch: Epoch) -> dict[str, Any]:
    """The row of an epoch; what is unknown, or no finite number, is left out."""
    parts = _merged(metric.measure(epoch) for metric in METRICS)
    return {"epoch": epoch.number} | {k: v for k, v in parts.items() if _is_whole({k: v})}


def show(rows: Sequence[Row]) -> str:
    """All that progress tells of the rows of one seed or of several."""
    return "".join(metric.show(rows) for metric in METRICS).lstrip()


def flat(row: Row) -> dict[str, Any]:
    """The numbers of a row by column, its epoch left out."""
    numbers: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            numbers |= {f"{name}/{key}": number for key, number in value.items()}
        elif name != "epoch":
            numbers[name] = value
    return numbers


def is_row(row: Any, epoch: int) -> bool:
    """Whether that is the row of an epoch: finite numbers, and objects of them, by name."""
    if not isinstance(row, Mapping) or row.get("epoch") != epoch or not _is_whole(row):
        return False
    numbers = flat(row)
    return all(
        abs(numbers[name]) <= metric.largest for metric in METRICS for name in metric.keys(numbers)
    )


def _is_whole(row: Row) -> bool:
    return all(
        type(number) in (int, float) and abs(number) <= 1e100 for number in flat(row).values()
    )


def unknown(dtype: Any) -> Any:
    """What stands for a total that a checkpoint does not hold: it stays so, whatever is added."""
    import numpy as np

    if np.issubdtype(dtype, np.integer):
        return np.asarray(np.iinfo(dtype).min, dtype)
    return np.asarray(math.nan, dtype)


def _merged(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: value for part in parts for name, value in part.items()}


def _count(total: Any) -> float:
    """A count, or NaN where it is unknown."""
    return float(total) if total >= 0 else math.nan


def _zero(name: str, dtype: Any) -> Totals:
    import jax.numpy as jnp

    return {name: jnp.zeros((), dtype)}


def mean_and_std(values: Sequence[int | float]) -> tuple[float, float | None]:
    """The mean, and the sample standard deviation; None for a single value."""
    std = float(statistics.stdev(values)) if len(values) > 1 else None
    return float(statistics.mean(values)), std


def show_mean_and_std(values: Sequence[int | float], digits: int = 2) -> str:
    """``2.01 ± 0.10``; a single value as it is."""
    mean, std = mean_and_std(values)
    shown = f"{mean:.{digits}f}"
    return shown if std is None else f"{shown} ± {std:.{digits}f}"
