"""A data set: inputs of any shape with their targets, for training and for testing.

Bytes, as those of images, stay bytes in the order of their files: such a data set lives whole on
the device in a quarter of the memory, and is scaled where a minibatch is fetched. Other numbers are
float32.
"""

import math
import numbers
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np

from eqprop.data.scaling import BRIGHT
from eqprop.data.targets import (
    Real,
    Target,
    as_float32,
    check_told_apart,
    first_not_finite,
    kind_of,
)
from eqprop.errors import EqpropError, suggest
from eqprop.types import Shape

_MISSING = ("None", "<NA>")  # as Python and Pandas say it


@final
@dataclass(frozen=True, eq=False)
class Dataset:
    """Inputs and their targets, for training and for testing.

    Inputs are ``(N, *shape)`` unsigned bytes or float32; targets are as ``target`` stores them.
    ``source`` is a sentence that says where they came from; ``features`` are the names of the
    columns of inputs ``(N, features)`` that have names.

    Raises:
        EqpropError: the arrays do not belong together.
    """

    name: str
    train_x: np.ndarray = field(repr=False)
    train_y: np.ndarray = field(repr=False)
    test_x: np.ndarray = field(repr=False)
    test_y: np.ndarray = field(repr=False)
    target: Target
    source: str
    features: tuple[str, ...] = ()

    # Users bring arrays of their own, so they are checked in every run, not in tests alone.
    def __post_init__(self):
        for part, x, y in self.parts():
            where = f"{_where(self.name, self.source)}, {part} part"
            _check_inputs(x, self.features, where)
            _check_lengths(x, y, where)
            self.target.check(y, where)
        _check_equal(self.train_x, self.test_x, _where(self.name, self.source))

    @property
    def classes(self) -> int:
        """Number of classes, or of outputs for other targets."""
        return self.target.width

    @property
    def shape(self) -> Shape:
        """Of one input."""
        return self.train_x.shape[1:]

    def parts(self) -> tuple[tuple[str, np.ndarray, np.ndarray], ...]:
        """Name, inputs and targets of the training and the test part."""
        return (
            ("training", self.train_x, self.train_y),
            ("test", self.test_x, self.test_y),
        )

    def check_learnable(self) -> None:
        """Raises ``EqpropError`` where the training part lacks a class, or its target is the same
        everywhere.
        """
        where = f"{_where(self.name, self.source)}, training part"
        self.target.check_learnable(self.train_y, where)

    def hold_back(self, size: float, seed: int = 0) -> "Dataset":
        """The training part alone, of which that fraction is drawn and stands as the test part; of
        each class alike. Raises ``EqpropError`` where that cannot be.
        """
        where = f"{_where(self.name, self.source)}, training part"
        strata = self.target.strata(self.train_y, where)
        learnt, held = _split(strata, len(self.train_y), size, seed, where, "validation")
        x, y = self.train_x, self.train_y
        made = replace(self, train_x=x[learnt], train_y=y[learnt], test_x=x[held], test_y=y[held])
        made.check_learnable()
        return made

    @staticmethod
    def from_arrays(  # noqa: PLR0913 (all that may be known of arrays)
        x: Any,
        y: Any,
        *,
        test_size: float | int = 0.2,
        seed: int = 0,
        stratify: bool = True,
        target: type[Target] | None = None,
        name: str = "data",
        source: str = "Arrays.",
        features: Iterable[str | bytes] = (),
        names: Iterable[str | bytes] = (),
    ) -> "Dataset":
        """Inputs ``(n, *shape)`` and targets ``(n,)`` or ``(n, outputs)``, some drawn for testing:
        that fraction, or that number; of each class alike if ``stratify``.

        Unsigned bytes stay, as those of images, unless all are small; other numbers become float32.
        Columns of a table go in the order of ``features``, where these name them. Integers,
        booleans or text ``(n,)`` are classes, ``(n, d)`` of 0 and 1 are labels, other numbers are
        real, unless ``target`` says otherwise. ``names`` are those of the classes, in their order,
        or of the outputs.

        Raises:
            EqpropError: in one line, what is wrong with which of them, and where.
        """
        where = _where(name, source)
        features, names = as_names(features, where), as_names(names, where)
        features, x = _columns_of(x, features, where)
        given, y = _inputs(x, where), _targets(y, where)
        x = as_inputs(given, where, features)
        x = as_float32(x) if _are_counts(x) else x
        _check_lengths(x, y, where)
        kind = (target or kind_of(y, where)).infer(y, names, where)
        _check_told_apart(given, features, y, kind, where)
        y = kind.encode(y, where)
        kind.check(y, where)
        strata = kind.strata(y, where) if stratify else None
        train, test = _split(strata, len(y), test_size, seed, where, "test_size")
        made = Dataset(name, x[train], y[train], x[test], y[test], kind, source, features)
        made.check_learnable()
        return made

    @staticmethod
    def from_splits(  # noqa: PLR0913 (all that may be known of arrays)
        x_train: Any,
        y_train: Any,
        x_test: Any,
        y_test: Any,
        *,
        target: type[Target] | None = None,
        name: str = "data",
        source: str = "Arrays.",
        features: Iterable[str | bytes] = (),
        names: Iterable[str | bytes] = (),
    ) -> "Dataset":
        """Inputs and targets as ``from_arrays`` takes them, in parts that are there already;
        columns of tables are found by name.
        """
        where = _where(name, source)
        places = [f"{where}, {part} part" for part in ("training", "test")]
        features, names = as_names(features, where), as_names(names, where)
        features, x_train = _columns_of(x_train, features, places[0])
        x_test = in_order(x_test, _column_names(x_train) or features, places[1])
        given = _inputs(x_train, places[0]), x_test
        xs = [as_inputs(x, place, features) for x, place in zip(given, places, strict=True)]
        if {x.dtype for x in xs} != {np.dtype(np.uint8)} or _are_counts(xs[0]):
            xs = [as_float32(x) for x in xs]
        y_test = _in_order_of(y_train, y_test)
        ys = [_targets(y, place) for y, place in zip((y_train, y_test), places, strict=True)]
        for x, y, place in zip(xs, ys, places, strict=True):
            _check_lengths(x, y, place)
        if ys[0].shape[1:] != ys[1].shape[1:] or len({y.dtype.kind == "U" for y in ys}) > 1:
            raise EqpropError(
                f"{where}: training targets are {ys[0].dtype} {ys[0].shape}, test targets "
                f"{ys[1].dtype} {ys[1].shape}; make them alike"
            )
        y = np.concatenate(ys)
        kind = (target or kind_of(y, where)).infer(y, names, where)
        _check_told_apart(given[0], features, ys[0], kind, places[0])
        # Whether labels are names or numbers, all of them say together.
        encoded = kind.encode(y, f"{where}, both parts in a row")
        train_y, test_y = np.split(encoded, [len(ys[0])])
        made = Dataset(name, xs[0], train_y, xs[1], test_y, kind, source, features)
        made.check_learnable()
        return made


def as_inputs(x: Any, where: str, features: tuple[str, ...] = ()) -> np.ndarray:
    """Numbers, as an array or a table, as inputs ``(n, *shape)`` of bytes or float32; ``where``
    begins errors.

    Raises:
        EqpropError: they are none, not finite, or not of these features.
    """
    x = _inputs(x, where)
    if x.dtype.kind not in "biuf":
        raise EqpropError(f"{where}: inputs are {x.dtype}: give numbers, or a CSV file with names")
    if x.ndim < 2:
        raise EqpropError(
            f"{where}: inputs have shape {x.shape}: give a row for each example, (n, features); "
            "x.reshape(-1, 1) for one feature"
        )
    x = x if x.dtype == np.uint8 else as_float32(x)
    _check_inputs(x, features, where)
    return x


def in_order(
    x: Any, features: tuple[str, ...], where: str, names: tuple[str, ...] = ()
) -> np.ndarray:
    """Inputs as an array; where their columns have names, as in a table of Pandas or Polars, and
    there are features, these columns alone. Raises ``EqpropError`` where one is not there.
    """
    names = names or _column_names(x)
    if names and features:
        if missing := [feature for feature in features if feature not in names]:
            raise EqpropError(f"{where}: the inputs have no column {suggest(missing[0], names)}")
        table = bool(_column_names(x))
        x = _by_name(x, features) if table else x[:, [names.index(name) for name in features]]
    return _inputs(x, where)


def _columns_of(x: Any, features: tuple[str, ...], where: str) -> tuple[tuple[str, ...], Any]:
    """Features, those of a table where none are given, and the inputs; the columns of a table in
    their order, where that has all of them.
    """
    names = _column_names(x)
    if features and {*features} <= {*names}:
        x = _by_name(x, features)
    return features or names, x


def _in_order_of(y_train: Any, y_test: Any) -> Any:
    """Test targets, whose columns go by name, where both are tables of the same columns."""
    ours, theirs = _column_names(y_train), _column_names(y_test)
    if len(ours) < 2 or sorted(ours) != sorted(theirs):
        return y_test
    return _by_name(y_test, ours)


def _are_counts(x: np.ndarray) -> bool:
    """Whether bytes are no images, but small numbers."""
    return x.dtype == np.uint8 and bool(x.max(initial=0) <= BRIGHT)


def as_names(names: Iterable[Any], where: str) -> tuple[str, ...]:
    """Names of any kind as text; bytes are UTF-8."""
    return tuple(map(str, _decoded(np.asarray([*names]), "names", where)))


def _where(name: str, source: str) -> str:
    return f"data set {name} ({source.rstrip('.')})"


def _by_name(table: Any, names: tuple[str, ...]) -> Any:
    """The columns of a table of Pandas or Polars in the order of their names."""
    there = _column_names(table)
    return table[[table.columns[there.index(name)] for name in names]]


def _column_names(x: Any) -> tuple[str, ...]:
    """Of a table of Pandas or Polars; none of an array."""
    return tuple(map(str, getattr(x, "columns", ())))


def _targets(y: Any, where: str) -> np.ndarray:
    """Numbers or text as an array ``(n,)`` or ``(n, d)``; a column of classes is ``(n,)``."""
    y = _decoded(_array(y, "targets", where), "targets", where)
    if y.dtype.kind == "T":
        y = y.astype(str)
    if y.dtype.kind == "O" and y.ndim:
        missing = [str(v) in _MISSING and not isinstance(v, str) for v in y.flat]
        if any(missing):
            row, *_ = np.unravel_index(missing.index(True), y.shape)
            raise EqpropError(
                f"{where}: target {row} is missing: leave that row out, or fill it in"
            )
        kinds: list[tuple[type | tuple[type, ...], type]] = [
            (str, str),
            ((bool, np.bool), bool),
            (numbers.Integral, np.int64),
            (numbers.Real, np.float64),
        ]
        made = (to for own, to in kinds if all(isinstance(value, own) for value in y.flat))
        y = y.astype(next(made, object))
    if y.dtype.kind not in "biufU" or y.ndim not in (1, 2):
        raise EqpropError(
            f"{where}: targets are {y.dtype} of shape {y.shape}: give numbers or text, (n,) or "
            "(n, outputs)"
        )
    return y[:, 0] if y.shape[1:] == (1,) and y.dtype.kind != "f" else y


def _array(values: Any, what: str, where: str) -> np.ndarray:
    if np.ma.is_masked(values):
        raise EqpropError(
            f"{where}: {np.ma.count_masked(values)} of the {what} are masked: leave their rows "
            "out, or fill them in, x.filled(0)"
        )
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:  # rows of several lengths
        raise EqpropError(f"{where}: {what} are no array ({error}): make rows equal") from error


def _inputs(x: Any, where: str) -> np.ndarray:
    """An array: float64 for objects that are numbers or missing, as in tables of Pandas with
    columns of several types.
    """
    x = _array(x, "inputs", where)
    if x.dtype.kind != "O":
        return x
    known = [np.nan if str(value) in _MISSING else value for value in x.flat]
    if not all(isinstance(value, numbers.Real | np.bool) for value in known):
        return x
    return np.array(known, np.float64).reshape(x.shape)


def _decoded(values: np.ndarray, what: str, where: str) -> np.ndarray:
    """Bytes as the text that they are in UTF-8; others themselves."""
    if values.dtype.kind != "S":
        return values
    try:
        return np.char.decode(values, "utf-8")
    except UnicodeDecodeError as error:
        raise EqpropError(
            f"{where}: {what} are bytes, but no UTF-8 ({error}): give them as text, "
            "np.char.decode(values, encoding)"
        ) from error


def _check_inputs(x: np.ndarray, features: tuple[str, ...], where: str) -> None:
    if x.dtype not in (np.uint8, np.float32) or x.ndim < 2:
        raise EqpropError(
            f"{where}: need uint8 or float32 inputs (N, ...), not {x.dtype} {x.shape}; "
            "Dataset.from_splits converts them"
        )
    if features and x.shape[1:] != (len(features),):
        raise EqpropError(
            f"{where}: {len(features)} names of features for inputs of {x.shape[1:]}: give one for "
            "each"
        )
    if (bad := first_not_finite(x)) is not None:
        row, *rest = bad
        place = f"feature {features[rest[0]]!r}" if features else f"x[{', '.join(map(str, bad))}]"
        raise EqpropError(
            f"{where}: {place} of row {row} is {x[bad]}: leave that row out, or fill it in"
        )


def _check_told_apart(
    x: np.ndarray, features: tuple[str, ...], y: np.ndarray, kind: Target, where: str
) -> None:
    """Raises ``EqpropError`` where the rows of inputs, or of real targets, are no longer told apart
    in float32.
    """
    check_told_apart(x, features, "feature", where)
    if isinstance(kind, Real):
        check_told_apart(y, kind.names, "target", where)


def _check_lengths(x: np.ndarray, y: np.ndarray, where: str) -> None:
    if not x.size or not y.size or len(x) != len(y):
        raise EqpropError(
            f"{where}: {len(x)} inputs of {x.shape[1:]} and {len(y)} targets; need as many of "
            "each, and none empty"
        )


def _check_equal(train: np.ndarray, test: np.ndarray, where: str) -> None:
    ours, theirs = (f"{x.shape[1:]} {x.dtype}" for x in (train, test))
    if ours != theirs:
        raise EqpropError(
            f"{where}: training inputs of {ours}, test inputs of {theirs}; make them equal"
        )


def _split(
    strata: np.ndarray | None, number: int, size: float | int, seed: int, where: str, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """The rows for training and for testing, each in the order in which they are; ``what`` is the
    name of the size.
    """
    from sklearn.model_selection import train_test_split  # a slow import

    if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise EqpropError(f"{where}: the seed of the split is {seed}: give 0 to {2**32 - 1}")
    try:
        size = int(size) if size >= 1 and size == int(size) else size
        parts = train_test_split(
            np.arange(number), test_size=size, random_state=seed, stratify=strata
        )
    except (ValueError, OverflowError) as error:
        raise EqpropError(
            f"{where}: cannot be split with {what} {size} ({error}): give another size, or "
            "parts that are split already"
        ) from error
    train, test = map(np.sort, parts)
    return train, test


def check_fits(dataset: Dataset, input_shape: Shape, outputs: int) -> None:
    """Checks that a network with that input layer and that many output units takes the data set.

    The input layer has the shape of an input, or all its numbers in a row; that of images
    ``(H, W)`` may be ``(H, W, 1)``.

    Raises:
        EqpropError: it does not.
    """
    shape = dataset.shape
    flat, maps = (math.prod(shape),), (*shape, 1) if len(shape) == 2 else shape
    if input_shape not in (flat, shape, maps):
        other = f" or {maps}" if maps != flat else ""
        raise EqpropError(
            f"the inputs of {dataset.name} are {'x'.join(map(str, shape))}, the input layer has "
            f"shape {input_shape}; make it {flat}{other}"
        )
    if outputs != dataset.target.width:
        raise EqpropError(
            f"{dataset.name} has {dataset.target.about}, the output layer has {outputs} units; "
            f"make it {dataset.target.width}"
        )
