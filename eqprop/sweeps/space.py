"""Sweeps: the recipes that a grid of values, or random values, make of one. Loads no JAX.

A field is swept as it is typed as an option; ``lr.0`` is the first number of ``lr``.
"""

import abc
import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final, override

import numpy as np

from eqprop.cli.recipe_options import changed
from eqprop.errors import UsageError, suggest
from eqprop.recipes.recipe import Recipe

_DIGITS = 4  # of a random number: what is drawn can be typed


@final
@dataclass(frozen=True)
class Grid:
    """A field, and all its values as they are typed."""

    field: str
    values: tuple[str, ...]


class Distribution(abc.ABC):
    """What random values are drawn from."""

    @abc.abstractmethod
    def draw(self, generator: np.random.Generator) -> str:
        """A value, as it is typed."""


@final
@dataclass(frozen=True)
class Uniform(Distribution):
    """Numbers between two."""

    low: float
    high: float

    @override
    def draw(self, generator: np.random.Generator) -> str:
        return f"{generator.uniform(self.low, self.high):.{_DIGITS}g}"


@final
@dataclass(frozen=True)
class LogUniform(Distribution):
    """Positive numbers between two, with a logarithm that is uniform."""

    low: float
    high: float

    @override
    def draw(self, generator: np.random.Generator) -> str:
        low, high = math.log(self.low), math.log(self.high)
        return f"{math.exp(generator.uniform(low, high)):.{_DIGITS}g}"


@final
@dataclass(frozen=True)
class Integers(Distribution):
    """Whole numbers from one to another, both included."""

    low: int
    high: int

    @override
    def draw(self, generator: np.random.Generator) -> str:
        return str(generator.integers(self.low, self.high, endpoint=True))


@final
@dataclass(frozen=True)
class Choice(Distribution):
    """Any of some values."""

    values: tuple[str, ...]

    @override
    def draw(self, generator: np.random.Generator) -> str:
        return self.values[generator.integers(len(self.values))]


@final
@dataclass(frozen=True)
class Random:
    """A field, and what its values are drawn from."""

    field: str
    distribution: Distribution


@final
@dataclass(frozen=True)
class Sweep:
    """Every combination of the grids' values, each with the same random samples."""

    grids: tuple[Grid, ...] = ()
    randoms: tuple[Random, ...] = ()
    samples: int = 1
    seed: int = 0

    @property
    def fields(self) -> list[str]:
        """What is swept."""
        return [axis.field for axis in (*self.grids, *self.randoms)]

    def assignments(self) -> Iterator[dict[str, str]]:
        """The values of each member, by field; a sample is the same however many there are."""
        for values in itertools.product(*(grid.values for grid in self.grids)):
            fixed = dict(zip((grid.field for grid in self.grids), values, strict=True))
            for sample in range(self.samples if self.randoms else 1):
                generator = np.random.default_rng([self.seed, sample])
                drawn = {r.field: r.distribution.draw(generator) for r in self.randoms}
                yield fixed | drawn

    def members(self, recipe: Recipe) -> dict[str, tuple[dict[str, str], Recipe]]:
        """The values and the recipe of each member, by a name such as ``beta-0.2``.

        Raises ``UsageError`` for a value that does not fit its field.
        """
        return {_name(values): (values, assign(recipe, values)) for values in self.assignments()}


def parse_grid(text: str) -> Grid:
    """``beta=0.2,0.5``; a value of several words as ``"hidden=512,512 512"``.

    Raises ``UsageError`` for anything else.
    """
    field, equals, values = text.partition("=")
    parts = tuple(value.strip() for value in values.split(","))
    if not equals or not all(parts):
        raise UsageError(f"grid is {text!r}: give a field and its values, such as beta=0.2,0.5")
    return Grid(_field(field), tuple(dict.fromkeys(parts)))


def parse_random(text: str) -> Random:
    """``lr.0=loguniform:0.01,0.2``; or ``uniform``, ``int``, ``choice``.

    Raises ``UsageError`` for anything else.
    """
    field, equals, rest = text.partition("=")
    kind, colon, values = rest.partition(":")
    parts = [value.strip() for value in values.split(",")]
    if not equals or not colon or not all(parts):
        raise UsageError(
            f"random is {text!r}: give a field and a distribution, such as "
            "lr.0=loguniform:0.01,0.2, beta=uniform:0.1,0.5, T=int:20,40 or nudge=choice:a,b"
        )
    return Random(_field(field), _distribution(kind, parts))


def assign(recipe: Recipe, values: Mapping[str, str]) -> Recipe:
    """The recipe with some fields as typed. Raises ``UsageError`` for a value that does not fit."""
    typed = {field: value for field, value in values.items() if "." not in field}
    for field, value in values.items():
        name, dot, index = field.partition(".")
        if dot:
            words = typed[name].split() if name in typed else [*map(str, getattr(recipe, name))]
            if int(index) >= len(words):
                raise UsageError(f"{field} is not there: {name} is {' '.join(words)}")
            words[int(index)] = value
            typed[name] = " ".join(words)
    options = [
        word
        for name, value in typed.items()
        for word in ("--" + name.replace("_", "-"), *value.split())
    ]
    return changed(recipe, options, "eqprop sweep")


def _distribution(kind: str, parts: Sequence[str]) -> Distribution:
    if kind == "choice":
        return Choice(tuple(parts))
    if kind not in {"uniform", "loguniform", "int"}:
        known = ("uniform", "loguniform", "int", "choice")
        raise UsageError(f"unknown distribution {suggest(kind, known)}")
    text = f"{kind}:{','.join(parts)}"
    try:
        low, high = (int(part) if kind == "int" else float(part) for part in parts)
    except ValueError:
        raise UsageError(f"{text} is no range: give two numbers") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"{text} is no range: give a smaller number, then a larger one")
    if kind == "int":
        return Integers(int(low), int(high))
    if kind == "uniform":
        return Uniform(low, high)
    if low <= 0:
        raise UsageError(f"{text} is no range: a logarithm needs numbers above 0")
    return LogUniform(low, high)


def _field(text: str) -> str:
    """The field, if there is one of that name (and it has numbers, if one of those is named)."""
    name, dot, index = text.strip().replace("-", "_").partition(".")
    fields = {field.name: field for field in dataclasses.fields(Recipe)}
    fixed = ("name", "about", "published")
    if name not in fields or name in fixed:
        known = [field for field in fields if field not in fixed]
        raise UsageError(f"unknown field {suggest(name, known)} (see eqprop train RECIPE --help)")
    if not dot:
        return name
    if not isinstance(fields[name].default, tuple) or not re.fullmatch(r"\d{1,3}", index):
        raise UsageError(
            f"field {text!r} is none: numbers within lr, hidden and channels are lr.0, lr.1, ..."
        )
    return f"{name}.{int(index)}"


def _name(values: Mapping[str, str]) -> str:
    """A name for a directory."""
    text = "_".join(f"{field}-{value}" for field, value in values.items())
    return re.sub(r"[^\w.+-]+", "-", text)
