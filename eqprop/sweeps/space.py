"""Sweeps: the recipes that a grid of values, or random values, make of one. Loads no JAX.

A field is swept as it is typed as an option; ``lr.0`` is the first number of ``lr``.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np

from eqprop.devices.record import Device
from eqprop.errors import UsageError, suggest
from eqprop.recipes.recipe import Recipe, settable

_DIGITS = 4  # of a random number: what is drawn can be typed


@final
@dataclass(frozen=True)
class Grid:
    """A field, and all its values as they are typed."""

    field: str
    values: tuple[str, ...]


type Draw = Callable[[np.random.Generator], str]
"""Draws a value, as it is typed."""


@final
@dataclass(frozen=True)
class Random:
    """A field, and how its values are drawn."""

    field: str
    draw: Draw


@final
class Member(NamedTuple):
    """What is trained for one of the combinations."""

    values: Mapping[str, str]
    """As they are typed, by field."""
    recipe: Recipe


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
                drawn = {r.field: r.draw(generator) for r in self.randoms}
                yield fixed | drawn

    def members(self, assign: Callable[[Mapping[str, str]], Recipe]) -> dict[str, Member]:
        """The members, by a name such as ``beta-0.2``; ``assign`` makes a recipe of the values of
        one, as they are typed.
        """
        return {_name(values): Member(values, assign(values)) for values in self.assignments()}


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


def _distribution(kind: str, parts: Sequence[str]) -> Draw:
    if kind == "choice":
        return lambda generator: parts[int(generator.integers(len(parts)))]
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
        return lambda generator: str(generator.integers(int(low), int(high), endpoint=True))
    if kind == "uniform":
        return lambda generator: f"{generator.uniform(low, high):.{_DIGITS}g}"
    if low <= 0:
        raise UsageError(f"{text} is no range: a logarithm needs numbers above 0")
    ends = math.log(low), math.log(high)
    return lambda generator: f"{math.exp(generator.uniform(*ends)):.{_DIGITS}g}"


def _field(text: str) -> str:
    """The field, if there is one of that name (and it has numbers, if one of those is named)."""
    name, dot, index = text.strip().replace("-", "_").partition(".")
    if name == "device" and dot:
        parts = [field.name for field in dataclasses.fields(Device)]
        if index not in parts:
            raise UsageError(f"unknown field of a device {suggest(index, parts)}")
        return f"device.{index}"
    fields = {field.name: field for field in dataclasses.fields(Recipe)}
    if name not in (known := settable()):
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
