"""Targets: what is to be learnt for each example, a class, real numbers or several labels."""

import abc
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final, override

import numpy as np

from eqprop.errors import EqpropError

_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,17}")  # neither 007 nor 3.0, and within int64


@dataclass(frozen=True)
class Target(abc.ABC):
    """Abstract: the kind of target that a data set has; ``names`` are those of its outputs.

    ``where``, in its methods, is how errors begin: the data set and the part of it.
    """

    names: tuple[str, ...]

    @property
    def width(self) -> int:
        """Number of outputs that a network needs."""
        return len(self.names)

    @property
    @abc.abstractmethod
    def about(self) -> str:
        """What is to be learnt, in a few words."""

    @classmethod
    @abc.abstractmethod
    def infer(cls, y: np.ndarray, names: tuple[str, ...], where: str) -> "Target":
        """The target that all values ``(n,)`` or ``(n, d)`` of a data set have; ``names`` may be
        empty. Raises ``EqpropError`` where they have another.
        """

    @abc.abstractmethod
    def encode(self, y: np.ndarray, where: str) -> np.ndarray:
        """Values as a user has them, in the form in which a data set stores them. Raises
        ``EqpropError`` for a value that is none of this target.
        """

    @abc.abstractmethod
    def check(self, y: np.ndarray, where: str) -> None:
        """Raises ``EqpropError`` for what is not in the form of ``encode``."""

    @abc.abstractmethod
    def check_learnable(self, y: np.ndarray, where: str) -> None:
        """Raises ``EqpropError`` where there is nothing to learn, or not enough, from these stored
        values of the training part.
        """

    @abc.abstractmethod
    def summary(self, train: np.ndarray, test: np.ndarray) -> list[tuple[str, ...]]:
        """A table of the stored values of both parts: the heads of its columns, then a row for each
        name.
        """

    def strata(self, y: np.ndarray, where: str) -> np.ndarray | None:
        """What parts of a data set have equal shares of, for each of these stored values; None
        where there is none. Raises ``EqpropError`` where a share cannot be had by both parts.
        """
        return None


@final
@dataclass(frozen=True)
class Classes(Target):
    """One of several classes: stored as its number ``(n,)``, unsigned bytes or, of more than 256
    classes, int32.
    """

    @staticmethod
    def of(number: int) -> "Classes":
        """That many classes, named by their numbers from 0."""
        return Classes(tuple(map(str, range(number))))

    @property
    def values(self) -> np.ndarray:
        """The classes ``(classes,)`` as predictions give them: by number where the names of all are
        whole numbers, written plainly, else by name.
        """
        names = np.asarray(self.names)
        return names.astype(np.int64) if all(map(_NUMBER.fullmatch, self.names)) else names

    @property
    @override
    def about(self) -> str:
        return f"one of {self.width} classes"

    @classmethod
    @override
    def infer(cls, y: np.ndarray, names: tuple[str, ...], where: str) -> "Classes":
        if y.ndim != 1:
            hint = "; one-hot rows become labels by y.argmax(axis=1)" if is_one_hot(y) else ""
            raise EqpropError(f"{where}: labels have shape {y.shape}: give one a row, (n,){hint}")
        values = np.unique(_whole(y, where))
        if names or not np.issubdtype(values.dtype, np.integer):
            return cls(names or tuple(map(str, values)))
        if values[0] < 0:
            raise EqpropError(
                f"{where}: label {values[0]} is negative: number classes from 0, or give their "
                "names: y.astype(str) (whole numbers are predicted as numbers)"
            )
        if values[0] == 1 and len(values) == values[-1]:
            raise EqpropError(
                f"{where}: labels are 1 to {values[-1]}: number classes from 0, y - 1, or give "
                "their names: y.astype(str)"
            )
        return cls(tuple(map(str, values)))

    @override
    def encode(self, y: np.ndarray, where: str) -> np.ndarray:
        """By name where all of them are names, else by number; of truth values False is 0."""
        y = _whole(y, where)
        if y.dtype.kind == "b" and not {*self.names} <= {"False", "True"}:
            y = y.astype(np.uint8)
        values, place = np.unique(y, return_inverse=True)
        known = {name: number for number, name in enumerate(self.names)}
        codes = values
        if known.keys() >= set(map(str, values)):
            codes = np.array([known[str(value)] for value in values])
        elif not np.issubdtype(y.dtype, np.integer):
            value = next(value for value in values if str(value) not in known)
            raise EqpropError(
                f"{where}: class {str(value)!r} in row {_row(y == value)} is none of "
                f"{_listed(self.names)}"
            )
        elif wrong := [code for code in codes if not 0 <= code < self.width]:
            raise EqpropError(
                f"{where}: label {wrong[0]} in row {_row(y == wrong[0])}; the {self.width} classes "
                f"are 0 to {self.width - 1}"
            )
        return codes.astype(np.uint8 if self.width <= 256 else np.int32)[place.reshape(y.shape)]

    @override
    def check(self, y: np.ndarray, where: str) -> None:
        if y.dtype not in (np.uint8, np.int32) or y.ndim != 1:
            raise EqpropError(
                f"{where}: need uint8 or int32 labels (N,), not {y.dtype} {y.shape}; "
                "Dataset.from_splits converts them"
            )
        for label in (y.min(), y.max()):
            if not 0 <= label < self.width:
                raise EqpropError(
                    f"{where}: label {label}; the {self.width} classes are 0 to {self.width - 1}"
                )

    @override
    def check_learnable(self, y: np.ndarray, where: str) -> None:
        if self.width < 2:
            raise EqpropError(
                f"{where}: all targets are {_listed(self.names)}: give examples of another class"
            )
        counts = np.bincount(y, minlength=self.width)
        if missing := [name for name, n in zip(self.names, counts, strict=True) if not n]:
            raise EqpropError(
                f"{where} has no example of class {_listed(missing)}: add some, or leave the "
                "class out"
            )

    @override
    def summary(self, train: np.ndarray, test: np.ndarray) -> list[tuple[str, ...]]:
        counts = [np.bincount(y, minlength=self.width).astype(str) for y in (train, test)]
        return [("class", "training", "test"), *zip(self.names, *counts, strict=True)]

    @override
    def strata(self, y: np.ndarray, where: str) -> np.ndarray:
        counts = np.bincount(y, minlength=self.width)
        if lone := [name for name, n in zip(self.names, counts, strict=True) if n == 1]:
            raise EqpropError(
                f"{where}: class {_listed(lone)} has one example, which cannot be in both parts: "
                "add some, or leave it out"
            )
        return y


@final
@dataclass(frozen=True)
class Real(Target):
    """Real numbers, for a regression: stored as float32 ``(n, d)``."""

    @property
    @override
    def about(self) -> str:
        return f"real numbers: {_listed(self.names)}"

    @classmethod
    @override
    def infer(cls, y: np.ndarray, names: tuple[str, ...], where: str) -> "Real":
        return cls(_names(_columns(y, where), names, where))

    @override
    def encode(self, y: np.ndarray, where: str) -> np.ndarray:
        return as_float32(_columns(y, where))

    @override
    def check(self, y: np.ndarray, where: str) -> None:
        _check_columns(y, np.float32, self.names, where)
        if (bad := first_not_finite(y)) is not None:
            row, column = bad
            raise EqpropError(
                f"{where}: target {self.names[column]!r} of row {row} is {y[bad]}: leave that row "
                "out, or fill it in"
            )

    @override
    def check_learnable(self, y: np.ndarray, where: str) -> None:
        _check_varies(y, self.names, where)

    @override
    def summary(self, train: np.ndarray, test: np.ndarray) -> list[tuple[str, ...]]:
        return summary_of("target", self.names, train)


@final
@dataclass(frozen=True)
class Labels(Target):
    """Several labels at once, each of which an example has or has not: stored as 0 and 1, unsigned
    bytes ``(n, d)``.
    """

    @property
    @override
    def about(self) -> str:
        return f"several of {self.width} labels at once: {_listed(self.names)}"

    @classmethod
    @override
    def infer(cls, y: np.ndarray, names: tuple[str, ...], where: str) -> "Labels":
        return cls(_names(_columns(y, where), names, where))

    @override
    def encode(self, y: np.ndarray, where: str) -> np.ndarray:
        y = _columns(y, where)
        wrong = (y != 0) & (y != 1)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise EqpropError(
                f"{where}: label {self.names[column]!r} of row {row} is {y[row, column]}: give 0 "
                "or 1"
            )
        return y.astype(np.uint8)

    @override
    def check(self, y: np.ndarray, where: str) -> None:
        _check_columns(y, np.uint8, self.names, where)
        if y.max() > 1:
            raise EqpropError(f"{where}: labels go up to {y.max()}: give 0 or 1")

    @override
    def check_learnable(self, y: np.ndarray, where: str) -> None:
        _check_varies(y, self.names, where)

    @override
    def summary(self, train: np.ndarray, test: np.ndarray) -> list[tuple[str, ...]]:
        counts = [np.sum(y, axis=0, dtype=np.int64).astype(str) for y in (train, test)]
        return [("label", "training", "test"), *zip(self.names, *counts, strict=True)]


KINDS: dict[Literal["classes", "real", "labels"], type[Target]] = {
    "classes": Classes,
    "real": Real,
    "labels": Labels,
}


def kind_of(y: np.ndarray, where: str) -> type[Target]:
    """The kind of target that values ``(n,)`` or ``(n, d)`` are taken for, where none is named.

    Raises:
        EqpropError: one-hot rows, which may be meant as classes or as labels.
    """
    if y.ndim == 1:
        return Real if y.dtype.kind == "f" else Classes
    if is_one_hot(y):
        raise EqpropError(
            f"{where}: targets are one-hot: give classes, y.argmax(axis=1), or say target=Labels"
        )
    return Labels if y.dtype.kind == "b" or np.isin(y, (0, 1)).all() else Real


def is_one_hot(y: np.ndarray) -> bool:
    """Whether each row has one 1 and else 0."""
    if y.ndim != 2 or y.shape[1] < 2 or y.dtype.kind not in "biuf":
        return False
    return bool(np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all())


def summary_of(what: str, names: Sequence[str], columns: np.ndarray) -> list[tuple[str, ...]]:
    """A table of numbers ``(n, d)``: heads, then name, least, mean and greatest of each column."""
    figures = columns.min(axis=0), columns.mean(axis=0, dtype=np.float64), columns.max(axis=0)
    shown = ([f"{number:.4g}" for number in row] for row in figures)
    return [(what, "min", "mean", "max"), *zip(names, *shown, strict=True)]


def as_float32(values: np.ndarray) -> np.ndarray:
    """Numbers in float32, where those too large for it are infinite."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def check_told_apart(values: np.ndarray, names: Sequence[str], what: str, where: str) -> None:
    """Raises ``EqpropError`` where float32, which numbers ``(n, ...)`` become, rounds away how the
    rows differ in one of them, as in seconds since 1970, or in numbers below 1e-38.
    """
    if values.dtype != np.float32 and np.can_cast(values.dtype, np.float32):
        return  # as bytes, which may be many
    rows = values.reshape(len(values), -1)
    single, least, most = as_float32(rows), rows.min(axis=0), rows.max(axis=0)
    if rows.dtype.kind == "f":
        spread, change = most.astype(np.float64) - least, single - rows
        # What is the same everywhere but for the rounding of float64 may be lost.
        noise = 16 * np.finfo(np.float64).eps * np.maximum(-least, most)
    else:  # their differences are exact in uint64, but neither in int64 nor in float64
        above = (rows.astype(np.uint64) - least.astype(np.uint64)).astype(np.float64)
        spread, change = above.max(axis=0), single.astype(np.float64) - as_float32(least) - above
        noise = 0
    # Smaller numbers are 0 on most devices.
    lost = np.maximum(np.abs(change).max(axis=0), np.finfo(np.float32).tiny)
    if (bad := (spread > noise) & (lost > 1e-2 * spread)).any():
        column = _row(bad)
        name = repr(names[column]) if names else column
        raise EqpropError(
            f"{where}: {what} {name} varies by {spread[column]:.3g} about {rows[0, column]:.10g}, "
            f"but float32 rounds it by up to {lost[column]:.3g}: take off a number like that, or "
            "give it in another unit"
        )


def first_not_finite(values: np.ndarray) -> tuple[int, ...] | None:
    """Where the first number is that is NaN or infinite, if there is one."""
    finite = np.isfinite(values)
    if finite.all():
        return None
    return tuple(map(int, np.unravel_index(np.argmin(finite), values.shape)))


def _whole(y: np.ndarray, where: str) -> np.ndarray:
    """Labels: text, or whole numbers as integers."""
    if y.dtype.kind != "f":
        return y
    # Not NaN nor infinite, either.
    if (wrong := ~(np.isfinite(y) & (y == np.rint(y)))).any():
        raise EqpropError(
            f"{where}: label {y[_row(wrong)]} in row {_row(wrong)}: classes are whole numbers or "
            "text; for a regression say target=Real"
        )
    return y.astype(np.int64)


def _columns(y: np.ndarray, where: str) -> np.ndarray:
    """Numbers ``(n, d)``."""
    if y.ndim not in (1, 2) or y.dtype.kind not in "biuf":
        raise EqpropError(
            f"{where}: targets are {y.dtype} of shape {y.shape}: give numbers, (n,) or (n, outputs)"
        )
    return y.reshape(len(y), -1)


def _names(y: np.ndarray, names: tuple[str, ...], where: str) -> tuple[str, ...]:
    """The names of the columns, those given if any."""
    width = y.shape[1]
    if names and len(names) != width:
        raise EqpropError(f"{where}: {len(names)} names for {width} targets: give one for each")
    return names or (("y",) if width == 1 else tuple(f"y{n}" for n in range(width)))


def _check_columns(y: np.ndarray, dtype: type, names: tuple[str, ...], where: str) -> None:
    if y.dtype != dtype or y.ndim != 2 or y.shape[1] != len(names):
        raise EqpropError(
            f"{where}: need {np.dtype(dtype)} targets (N, {len(names)}), not {y.dtype} {y.shape}; "
            "Dataset.from_splits converts them"
        )


def _check_varies(y: np.ndarray, names: tuple[str, ...], where: str) -> None:
    for name, column in zip(names, y.T, strict=True):
        if (column == column[0]).all():
            raise EqpropError(
                f"{where}: target {name!r} is {column[0]} in all rows: leave it out, or add others"
            )


def _row(mask: np.ndarray) -> int:
    return int(np.argmax(mask))


def _listed(names: Sequence[str], most: int = 6) -> str:
    """Names in a line, the first few of many."""
    return ", ".join(names[:most]) + (f", ... ({len(names)})" if len(names) > most else "")
