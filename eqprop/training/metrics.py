"""Metrics: what is measured of a training, each in one place.

``METRICS`` lists them. A metric carries its function, and its names and words for files, progress
and reports, so a new one is a function and an entry there. Its class says what it is of: examples,
in training and in testing (``OfExamples``), minibatches and their free phases
(``MeanOfMinibatches``, ``LargestOfMinibatches``), or the network and the session at the end of an
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
from types import MappingProxyType
from typing import Any, NamedTuple, final, override

from eqprop.data.targets import Classes, Labels, Real, Target
from eqprop.recipes.recipe import Recipe

type Row = Mapping[str, Any]

type Totals = dict[str, Any]
"""Scalars by name: what an epoch so far has come to."""


@final
class Seen(NamedTuple):
    """Examples after a free phase: their ``Cost``, scores ``(B, outputs)``, states of the layers
    1 ... N and targets ``(B, outputs)``, one-hot ones of classes; how the phase ended, a
    ``Settled``; the variance of each real target, and what 1 of it is in the user's numbers, as a
    part of the ``unit`` of an ``Epoch``; and what a device has to report of the writing of weights,
    by name.
    """

    cost: Any
    scores: Any
    states: Any
    y: Any
    settled: Any
    variance: Any
    unit: Any
    written: Mapping[str, Any] = MappingProxyType({})


@final
class Epoch(NamedTuple):
    """An epoch, finished or not: its number, from 1 on; how many minibatches and examples have been
    learnt; what a test has found, metrics by name, if there was one, on the validation part where
    the recipe has that; the seconds that learning and testing took, once it has finished; those
    from the start of the command to the first minibatch, if it was the first epoch since then; and
    the unit of real targets, the largest of all outputs, in the user's numbers.
    """

    number: int
    minibatches: int
    examples: int
    totals: Totals
    network: Any
    recipe: Recipe
    tested: Mapping[str, float]
    seconds: Mapping[str, float]
    seconds_to_start: float
    unit: float


@final
class Column(NamedTuple):
    """A column of numbers, and what a report calls its curve, and its head in the table of epochs,
    where it is there.
    """

    name: str
    label: str
    head: str | None


@dataclass(frozen=True, kw_only=True)
class Metric(abc.ABC):
    """Abstract: something that is measured of each epoch, a number or numbers by name.

    A *key* tells its columns apart: ``test`` and ``training``, or the names of the numbers; in
    ``label`` and ``head`` it comes in the place of ``{}``.
    """

    name: str
    """In files."""
    function: Callable[[Any], Any]
    words: Callable[[str], str | None] = lambda _: None
    """What stands in progress before the number of a key; None: it is not told."""
    form: str = ".2f"
    """In which its numbers are written."""
    unit: str = ""
    """In progress."""
    title: str | None = None
    """Of its panel in a report; None: it has none."""
    targets: tuple[type[Target], ...] = (Classes, Real, Labels)
    """For which kinds of target it is measured."""
    of_devices: bool = False
    """Whether it is of weights on a device."""
    logarithmic: bool = True
    """Whether that panel may have a logarithmic axis."""
    label: str = "{}"
    """Of a curve in that panel."""
    head: str | None = None
    """In the table of epochs in a report; None: it is not there."""

    @abc.abstractmethod
    def measure(self, epoch: Epoch) -> dict[str, Any]:
        """Its part of an epoch's row; not a number, where it is not known."""

    def keys(self, names: Iterable[str]) -> dict[str, str]:
        """Which of these columns are its own, with their keys."""
        parts = ((name, *name.partition("/")) for name in names)
        return {name: key for name, first, _, key in parts if first == self.name}

    def columns(self, names: Iterable[str]) -> list[Column]:
        """Its columns among those of these names."""
        return [
            Column(name, self.label.replace("{}", key), self.head and self.head.replace("{}", key))
            for name, key in self.keys(names).items()
        ]

    def show(self, rows: Sequence[Row]) -> str:
        """Its words in a line of progress, for the rows of one seed or of several."""
        flats, told = [flat(row) for row in rows], ""
        for name, key in self.keys(flats[0]).items():
            if words := self.words(key):
                values = [row[name] for row in flats if name in row]
                different = values[:1] if len(set(values)) == 1 else values
                told += words + show_mean_and_std(different, self.form) + self.unit
        return told


@final
@dataclass(frozen=True, kw_only=True)
class OfEpoch(Metric):
    """A number, or numbers by name, of edges say, that follow from an ``Epoch``."""

    @override
    def measure(self, epoch: Epoch) -> dict[str, Any]:
        return {self.name: self.function(epoch)}


@dataclass(frozen=True, kw_only=True)
class Accumulated(Metric):
    """Abstract: what is summed up over the minibatches of an epoch, from ``Seen``.

    ``total`` is its name in checkpoints. What counts is kept in 32-bit integers from 0 on.
    """

    total: str
    counts: bool = False

    @abc.abstractmethod
    def add(self, total: Any, seen: Seen) -> Any:
        """The total after another minibatch."""

    def number(self, total: Any) -> float:
        """A total as a number; not a number, where it is unknown."""
        return math.nan if self.counts and total < 0 else float(total)


@final
@dataclass(frozen=True, kw_only=True)
class OfExamples(Accumulated):
    """The mean over examples, each after its free phase, in training and in testing; the share in
    %, where it ``counts`` examples. ``function`` returns numbers, or booleans, ``(B,)``;
    ``finish`` makes of their mean, and of the unit of the targets, what is told.
    """

    finish: Callable[[float, float], float] = lambda mean, _: mean

    @override
    def add(self, total: Any, seen: Seen) -> Any:
        return total + self.function(seen).sum(dtype=total.dtype)

    def mean(self, total: Any, n: int, unit: float) -> float:
        """What a total over n examples makes."""
        mean = (100 if self.counts else 1) * self.number(total) / n
        return mean if math.isnan(mean) else self.finish(mean, unit)

    @override
    def measure(self, epoch: Epoch) -> dict[str, Any]:
        train = self.mean(epoch.totals[self.total], epoch.examples, epoch.unit)
        part = epoch.recipe.measured_part
        tested = epoch.tested.get(self.name, math.nan)
        return {f"train_{self.name}": train, f"{part}_{self.name}": tested}

    @override
    def keys(self, names: Iterable[str]) -> dict[str, str]:
        parts = {"test": "test", "validation": "validation", "train": "training"}
        own = {f"{part}_{self.name}": key for part, key in parts.items()}
        return {name: key for name, key in own.items() if name in names}


@final
@dataclass(frozen=True, kw_only=True)
class MeanOfMinibatches(Accumulated):
    """The mean over minibatches of a number."""

    @override
    def add(self, total: Any, seen: Seen) -> Any:
        return total + self.function(seen).astype(total.dtype)

    @override
    def measure(self, epoch: Epoch) -> dict[str, Any]:
        return {self.name: self.number(epoch.totals[self.total]) / epoch.minibatches}


@final
@dataclass(frozen=True, kw_only=True)
class LargestOfMinibatches(Accumulated):
    """The largest, over minibatches, of a number from 0 on."""

    @override
    def add(self, total: Any, seen: Seen) -> Any:
        import jax.numpy as jnp

        return jnp.maximum(total, self.function(seen))

    @override
    def measure(self, epoch: Epoch) -> dict[str, Any]:
        return {self.name: self.number(epoch.totals[self.total])}


def predicted(cost: Any, scores: Any) -> Any:
    """The class that each row of scores, ``(B, classes)``, predicts: ``(B,)`` integers."""
    return cost.predict(scores).argmax(axis=-1)


def angles(network: Any) -> dict[str, float]:
    """Realised angle in degrees between forward and feedback weights, of each untied edge."""
    from eqprop.networks.edges import Untied, realised_angle

    return {
        f"{e.pre}-{e.post}": float(realised_angle(e))
        for e in getattr(network, "edges", ())  # other models have none
        if isinstance(e, Untied)
    }


def _told(what: str = "") -> Callable[[str], str | None]:
    """Words for the parts of the data."""
    parts = {"training": "train", "test": "test", "validation": "validation"}
    return {key: f"  {what}{part} " for key, part in parts.items()}.get


METRICS: tuple[Metric, ...] = (
    OfExamples(
        name="error",
        function=lambda seen: predicted(seen.cost, seen.scores) != seen.y.argmax(axis=-1),
        total="errors",
        counts=True,
        targets=(Classes,),
        words=_told(),
        unit=" %",
        title="error (%)",
        head="{} error (%)",
    ),
    OfExamples(
        name="label_error",
        function=lambda seen: 100 * ((seen.scores > 0.5) != (seen.y > 0.5)).mean(axis=-1),
        total="label_errors",
        targets=(Labels,),
        words=_told(),
        unit=" % of labels",
        title="wrong labels (%)",
        head="{} wrong labels (%)",
    ),
    OfExamples(
        name="rmse",
        function=lambda seen: ((seen.unit * (seen.y - seen.scores)) ** 2).mean(axis=-1),
        finish=lambda mean, unit: unit * math.sqrt(mean),
        total="relative_squares",
        targets=(Real,),
        words=_told("RMSE "),
        form=".4g",  # in the unit of the data, which may be small
        title="RMSE",
        head="{} RMSE",
    ),
    OfExamples(
        name="r2",
        function=lambda seen: ((seen.y - seen.scores) ** 2 / seen.variance).mean(axis=-1),
        finish=lambda unexplained, _: 1 - unexplained,
        total="unexplained",
        targets=(Real,),
        words=_told("R² "),
        form=".3f",
        title="R²",
        logarithmic=False,
        head="{} R²",
    ),
    OfExamples(
        name="loss",
        function=lambda seen: seen.cost.loss(seen.scores, seen.y),
        total="loss",
        words={"training": "  loss "}.get,
        form=".4f",
        title="loss",
        head="{} loss",
    ),
    LargestOfMinibatches(
        name="residual",
        function=lambda seen: seen.settled.residual,
        total="residual",
        title="largest residual of a free phase",
        label="residual",
        head="residual",
    ),
    MeanOfMinibatches(
        name="free_steps",
        function=lambda seen: seen.settled.steps,
        total="steps",
        counts=True,
        words="  steps {}".format,
        form=".1f",
        head="free steps",
    ),
    OfEpoch(
        name="nudged_steps",
        function=lambda epoch: epoch.recipe.K,
        words="+{}".format,
        form=".0f",
    ),
    OfEpoch(
        name="angles",
        function=lambda epoch: angles(epoch.network),
        words="  angle {} ".format,
        form=".1f",
        title="angle of forward to feedback weights (°)",
        logarithmic=False,
        label="layers {}",
        head="angle {} (°)",
    ),
    MeanOfMinibatches(
        name="pulses",
        function=lambda seen: seen.written["pulses"],
        total="pulses",
        of_devices=True,
        words="  pulses {}".format,
        form=".3f",
        title="pulses a weight and minibatch",
        label="pulses",
        head="pulses",
    ),
    MeanOfMinibatches(
        name="at_bounds",
        function=lambda seen: 100 * seen.written["at_bounds"],
        total="at_bounds",
        of_devices=True,
        words="  at bounds {}".format,
        unit=" %",
        title="weights at a bound (%)",
        label="at a bound",
        head="at a bound (%)",
    ),
    OfEpoch(
        name="seconds",
        function=lambda epoch: dict(epoch.seconds),
        words={"train": "  learnt in ", "test": ", tested in "}.get,
        form=".1f",
        unit=" s",
    ),
    OfEpoch(
        name="seconds_to_start",
        function=lambda epoch: epoch.seconds_to_start,
    ),
)
"""In the order in which they are told of."""


def _kept() -> list[Accumulated]:
    return [metric for metric in METRICS if isinstance(metric, Accumulated)]


def of_examples(*targets: type[Target]) -> list[OfExamples]:
    """Those that a test measures, for some kinds of target, or all."""
    wanted = set(targets or (Classes, Real, Labels))
    return [m for m in METRICS if isinstance(m, OfExamples) and wanted & set(m.targets)]


def primary(target: type[Target]) -> OfExamples:
    """What tells how good a network is at a kind of target, the lower the better: the error, the
    share of wrong labels, or the RMSE.
    """
    return of_examples(target)[0]


def start(dtype: Any, target: type[Target], *, written: bool) -> Totals:
    """All totals before the first minibatch, for a network of that dtype and a kind of target;
    whether its weights are ``written`` on a device.
    """
    import jax.numpy as jnp

    kept = [m for m in _kept() if target in m.targets and written >= m.of_devices]
    return {m.total: jnp.zeros((), "int32" if m.counts else dtype) for m in kept}


def add(totals: Totals, seen: Seen) -> Totals:
    """All totals after another minibatch."""
    kept = [metric for metric in _kept() if metric.total in totals]
    return {metric.total: metric.add(totals[metric.total], seen) for metric in kept}


def sums(seen: Seen, those: Any, target: type[Target]) -> Totals:
    """Sums over some of the test examples, ``(B,)`` booleans, by the names of metrics."""
    return {m.name: (m.function(seen) * those).sum() for m in of_examples(target)}


def of_sums(sums: Mapping[str, Any], n: int, unit: float) -> dict[str, float]:
    """What the sums over n test examples make: means, and shares in %; ``unit`` as of an
    ``Epoch``.
    """
    return {m.name: m.mean(sums[m.name], n, unit) for m in of_examples() if m.name in sums}


def unknown(dtype: Any) -> Any:
    """What stands for a total that a checkpoint does not hold: it stays so, whatever is added."""
    import numpy as np

    return np.asarray(np.iinfo(dtype).min if np.issubdtype(dtype, np.integer) else math.nan, dtype)


def measure(epoch: Epoch) -> dict[str, Any]:
    """The row of an epoch; what is not known is left out."""
    own = [m for m in METRICS if not isinstance(m, Accumulated) or m.total in epoch.totals]
    parts = {k: v for metric in own for k, v in metric.measure(epoch).items()}
    return {"epoch": epoch.number} | {k: v for k, v in parts.items() if _is_finite({k: v})}


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
    if not isinstance(row, Mapping) or row.get("epoch") != epoch or not _is_finite(row):
        return False
    shares = [m.keys(flat(row)) for m in of_examples() if m.counts]
    return all(0 <= row[name] <= 100 for share in shares for name in share)


def _is_finite(row: Row) -> bool:
    """Whether all numbers are finite, and of a size that can be squared."""
    return all(type(v) in (int, float) and abs(v) <= 1e100 for v in flat(row).values())


def mean_and_std(values: Sequence[int | float]) -> tuple[float, float | None]:
    """The mean, and the sample standard deviation; None for a single value."""
    std = float(statistics.stdev(values)) if len(values) > 1 else None
    return float(statistics.mean(values)), std


def shown(mean: float | None, std: float | None, form: str = ".2f") -> str:
    """A mean, with its standard deviation where there is one; blank where there is no mean."""
    if mean is None:
        return ""
    return f"{mean:{form}}" if std is None else f"{mean:{form}} ± {std:{form}}"


def show_mean_and_std(values: Sequence[int | float], form: str = ".2f") -> str:
    """``2.01 ± 0.10``; a single value as it is."""
    return shown(*mean_and_std(values), form)
