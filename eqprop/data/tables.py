"""Tables with a header: CSV and Parquet files, whose columns are features and targets by name.

A column of text is a feature for each of its values, ``colour=red``: 1 where it has that value.
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, final

import numpy as np

from eqprop.data.targets import Classes, Labels, Real, Target, as_float32, is_one_hot
from eqprop.errors import EqpropError, suggest

if TYPE_CHECKING:
    import polars as pl

SUFFIXES = (".csv", ".tsv", ".parquet")
"""Of the files that are read."""

_TARGETS = ("target", "label", "class", "y")
_EMPTY = ["NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "null", "NULL", "None", "?"]
# What the index of a table of Pandas, and the row names of R, are called in files.
_NUMBERING = re.compile(r"|_duplicated_\d+|Unnamed: \d+|__index_level_\d+__")
_MOST_CLASSES = 20  # of whole numbers; more of them are a quantity
_MOST_VALUES = 100  # of a column of text; more of them are names
_FEW = 10  # columns of a table whose first row may fall by chance


@final
class Columns(NamedTuple):
    """What a table holds: inputs ``(n, features)``, float64, targets ``(n,)`` or ``(n, outputs)``,
    and which columns the targets are.
    """

    x: np.ndarray
    y: np.ndarray
    features: tuple[str, ...]
    kind: type[Target]
    names: tuple[str, ...]
    """Of classes or outputs."""
    targets: tuple[str, ...]
    counting: tuple[str, ...]
    """Inputs that rise by 1 from row to row, as numbers of rows do, under another name."""


def read_table(
    path: Path, target: str | None, kind: type[Target] | None = None, without: str | None = None
) -> Columns:
    """The columns of a table; ``target`` names that of the targets, or several with commas between.

    Without it, that is a column called target, label, class or y, else the last one. ``kind`` is
    that of the targets, where their values do not say it. ``without`` names columns, with commas
    between, that are left out.

    Raises:
        EqpropError: no such column, an empty field, a column that numbers the rows or has another
            text in most of them, or a file that cannot be read.
    """
    table = _read(path, without=without)
    for number, name in enumerate(table.columns, 1):
        if _NUMBERING.fullmatch(name):
            raise EqpropError(
                f"{path}: column {number}, {name!r}, numbers the rows, and would be learnt from: "
                "save the table without it, to_csv(..., index=False), or give it a name"
            )
    targets = _targets(table.columns, target, path)
    inputs = [name for name in table.columns if name not in targets]
    if not inputs:
        raise EqpropError(f"{path} has no column but {', '.join(targets)}: add features")
    x, features = zip(*(f for name in inputs for f in _features(table[name], path)), strict=True)
    for name in inputs:
        _check_categories(table[name], path)
    y, kind, names = _target([table[name] for name in targets], kind, path)
    counting = tuple(name for name in inputs if _counts_rows(table[name]))
    return Columns(np.stack(x, axis=1), y, features, kind, names, targets, counting)


def _counts_rows(column: pl.Series) -> bool:
    rises = column.dtype.is_integer() and len(column) > _FEW
    return rises and bool((column.diff().drop_nulls() == 1).all())


def _check_categories(column: pl.Series, path: Path) -> None:
    """Raises ``EqpropError`` where a column has another text in most rows: dates, say, or numbers
    that are none.
    """
    import polars as pl

    if column.dtype == pl.String and (many := column.n_unique()) > max(_FEW, len(column) / 2):
        raise EqpropError(
            f"{path}: column {column.name!r} has {many} different texts in {len(column)} rows, "
            f"such as {column[0]!r}: leave it out (--without {column.name!r}), or write them as "
            "numbers"
        )


def read_features(path: Path, features: tuple[str, ...]) -> np.ndarray:
    """Inputs ``(n, features)``, float32, from a table with these features, whatever else it has;
    from all of its columns, where no features are named.

    Raises:
        EqpropError: a column is not there, a field is empty or has a text that none of the features
            has, or the file cannot be read.
    """
    table = _read(path, features)
    if not features:
        columns = [x for name in table.columns for x, _ in _features(table[name], path)]
        return as_float32(np.stack(columns, axis=1))
    found: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(_column_of(feature, table.columns, path) for feature in features):
        own = {feature: column for column, feature in _features(table[name], path)}
        if other := [f for f in own if f not in features]:
            raise EqpropError(f"{path}: {other[0]} is none of the features that were trained on")
        found |= own
    none = np.zeros(len(table))
    return as_float32(np.stack([found.get(feature, none) for feature in features], axis=1))


def _column_of(feature: str, columns: list[str], path: Path) -> str:
    """The column of that name, or that which has the text of the feature."""
    own = [name for name in columns if name == feature or feature.startswith(f"{name}=")]
    if not own:
        name = feature.partition("=")[0]
        raise EqpropError(f"{path} has no column {suggest(name, columns)}")
    return max(own, key=len)


def _read(path: Path, features: tuple[str, ...] = (), without: str | None = None) -> pl.DataFrame:
    """The table, without the columns of these names; those that were text where these features
    come from are text here, too.
    """
    import polars as pl

    try:
        if path.suffix.lower() == ".parquet":
            table = _dropped(pl.read_parquet(path, use_pyarrow=False), without, path)
            table = table.with_columns(pl.col(pl.String).str.strip_chars())
            table = table.cast(dict.fromkeys(_texts(table.columns, features), pl.String))
        else:
            table = _read_csv(path, features, without)
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = str(error).partition("\n")[0]
        raise EqpropError(
            f"{path} cannot be read as a table ({reason}): save it again, a CSV file "
            "in UTF-8 with a header"
        ) from error
    if not len(table):
        raise EqpropError(f"{path} has no rows: give a header and a row for each example")
    table = table.with_columns(pl.col(pl.String).str.normalize("NFC"))
    # What a spreadsheet saves of columns that were once used.
    table = table.drop(
        column.name
        for column in table
        if column.null_count() == len(table) and re.fullmatch(r"|_duplicated_\d+", column.name)
    )
    if _are_values(table.columns) or (not features and _have_their_names(table)):
        raise EqpropError(f"{path} has no header: put the names of the columns into its first line")
    return table


def _have_their_names(table: pl.DataFrame) -> bool:
    """Whether there are columns of text, all of which have their own name among their values: that
    of the first row, where there is no header.
    """
    import polars as pl

    texts = [column for column in table if column.dtype == pl.String]
    names = [column.name.partition("_duplicated_")[0] for column in texts]
    return bool(texts) and all((c == n).any() for c, n in zip(texts, names, strict=True))


def _texts(columns: list[str], features: tuple[str, ...]) -> list[str]:
    """The columns that are no feature, but whose texts are."""
    return [
        name
        for name in columns
        if name not in features and any(feature.startswith(f"{name}=") for feature in features)
    ]


def _dropped(table: pl.DataFrame, without: str | None, path: Path) -> pl.DataFrame:
    """The table without the columns of these names, with commas between."""
    table = table.drop(() if without is None else _named(without, table.columns, path))
    if not table.columns:
        raise EqpropError(f"{path} has no column but {without}: leave fewer out")
    return table


def _read_csv(path: Path, features: tuple[str, ...], without: str | None) -> pl.DataFrame:
    """Without the spaces about names and fields."""
    import polars as pl

    separator, read, names = _reader(path)
    texts = _texts(names, features)
    table = read(
        infer_schema_length=None,
        new_columns=names,
        schema_overrides=dict.fromkeys(texts, pl.String),
    )
    table = _dropped(table, without, path).with_columns(
        pl.col(pl.String).str.strip_chars().replace(dict.fromkeys(["", *_EMPTY]))
    )
    plain = [
        _numbers(table[name], separator, path)
        for name, kind in table.schema.items()
        if kind == pl.String and name not in texts and (not features or name in features)
    ]
    if any(column.dtype == pl.Float64 and _has_commas(table[column.name]) for column in plain):
        # Then points may be those of thousands.
        raw = read(new_columns=names, infer_schema=False)
        for name, kind in table.schema.items():
            if kind.is_float() and (not features or name in features):
                _check_points(raw[name].str.strip_chars(), path)
    return table.with_columns(plain)


def _reader(path: Path) -> tuple[str, Callable[..., pl.DataFrame], list[str]]:
    """What separates the columns, what reads them, and their names without spaces."""
    import polars as pl

    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = file.readline()
        says = first.lower().startswith("sep=")  # to Excel
        header = file.readline() if says else first
    if "\ufffd" in first + header:
        raise EqpropError(f"{path} is not in UTF-8: save it again, as CSV in UTF-8")
    separator = max(",;\t|", key=header.count)
    read = functools.partial(
        pl.read_csv, path, separator=separator, skip_rows=int(says), null_values=_EMPTY
    )
    return separator, read, [name.strip() for name in read(n_rows=0).columns]


def _codes(name: str, path: Path) -> np.ndarray | None:
    """The text of a column of whole numbers in a CSV file, where some begin with 0, as 007: these
    are codes, and as numbers 007 and 7 would be one.
    """
    if path.suffix.lower() == ".parquet":
        return None
    _, read, names = _reader(path)
    text = read(infer_schema=False, columns=[names.index(name)]).to_series().str.strip_chars()
    return text.to_numpy().astype(str) if text.str.contains(r"^[+-]?0\d").any() else None


def _has_commas(column: pl.Series) -> bool:
    return column.str.contains(",", literal=True).any()


def _check_points(column: pl.Series, path: Path) -> None:
    """Raises ``EqpropError`` where points stand before each three digits, and nowhere else."""
    grouped = column.str.contains(r"^[+-]?[1-9]\d{0,2}(\.\d{3})+$").fill_null(value=False)
    pointed = column.str.contains(".", literal=True).fill_null(value=False)
    if grouped.any() and (grouped == pointed).all():
        raise EqpropError(
            f"{path}: column {column.name!r} has numbers such as "
            f"{column[grouped.arg_max() or 0]!r} beside others with decimal commas: write "
            "thousands without points, and fractions with commas"
        )


def _numbers(column: pl.Series, separator: str, path: Path) -> pl.Series:
    """A column of text as numbers, if it is numbers, with decimal commas or not; else itself.

    Raises ``EqpropError`` where the commas may be separators of thousands.
    """
    import polars as pl

    numbers = column.cast(pl.Float64, strict=False)
    if numbers.null_count() == column.null_count():
        return numbers
    plain, decimal, grouped = (
        column.str.contains(rf"^[+-]?{form}$").fill_null(value=False)
        for form in (
            r"\d+([eE][+-]?\d+)?",
            r"\d*,\d+([eE][+-]?\d+)?",
            r"[1-9]\d{0,2}(,\d{3})+",
        )
    )
    with_comma = decimal | grouped
    if not with_comma.any() or not (plain | with_comma | column.is_null()).all():
        return column
    # Where commas separate the columns, 1,2 may be a list, and stays text; but 0,2 is none.
    lists = separator == ","
    if (grouped == with_comma).all() or (lists and column.str.contains(r"^[+-]?0?,\d").any()):
        raise EqpropError(
            f"{path}: column {column.name!r} has numbers with commas, such as "
            f"{column[with_comma.arg_max() or 0]!r}: write them without, and with a decimal point"
        )
    return column if lists else column.str.replace(",", ".").cast(pl.Float64)


def _are_values(header: list[str]) -> bool:
    """Whether the names of columns look like a row of values: all of them numbers; or several in no
    order, with fractions or equal ones among them, as years and wavelengths have not.
    """
    # A name that is there before has this added when it is read.
    names = [n for h in header if _is_number(n := h.partition("_duplicated_")[0])]
    if len(names) == len(header):
        return True
    numbers = [float(name) for name in names]
    rise, fall = (
        all(a < b for a, b in itertools.pairwise(ordered)) for ordered in (numbers, numbers[::-1])
    )
    in_order = rise or (fall and len(numbers) > _FEW)
    known = len(set(numbers)) == len(numbers) and all(name.isdigit() for name in names)
    return not (in_order or known)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _targets(columns: list[str], asked: str | None, path: Path) -> tuple[str, ...]:
    if asked is None:
        called = (name for name in columns if name.lower() in _TARGETS)
        return (next(called, columns[-1]),)
    names = _named(asked, columns, path)
    for name in names:
        if names.count(name) > 1:
            raise EqpropError(f"the target {name!r} is named more than once: name it once")
    return names


def _named(asked: str, columns: list[str], path: Path) -> tuple[str, ...]:
    """The columns of these names, with commas between. Raises ``EqpropError`` for one that is not
    there.
    """
    known = {unicodedata.normalize("NFC", name): name for name in columns}  # as they look
    asked = unicodedata.normalize("NFC", asked)
    names = (asked,) if asked in known else tuple(name.strip() for name in asked.split(","))
    for name in names:
        if name not in known:
            raise EqpropError(f"{path} has no column {suggest(name, columns)}")
    return tuple(known[name] for name in names)


def _features(column: pl.Series, path: Path) -> list[tuple[np.ndarray, str]]:
    """The features of a column, float64 ``(n,)``, with their names."""
    values = _values(column, path)
    if values.dtype.kind != "U":
        return [(values.astype(np.float64), column.name)]
    names = np.unique(values)
    if len(names) > _MOST_VALUES:
        raise EqpropError(
            f"{path}: column {column.name!r} has {len(names)} different texts, more than "
            f"{_MOST_VALUES}: leave it out, or put numbers there"
        )
    return [((values == name).astype(np.float64), f"{column.name}={name}") for name in names]


def _target(
    columns: list[pl.Series], kind: type[Target] | None, path: Path
) -> tuple[np.ndarray, type[Target], tuple[str, ...]]:
    """Targets, their kind, and the names of classes or outputs."""
    values = [_values(column, path) for column in columns]
    names = tuple(column.name for column in columns)
    if len(values) > 1:
        if text := [n for n, each in zip(names, values, strict=True) if each.dtype.kind == "U"]:
            raise EqpropError(f"{path}: column {text[0]!r} is text: several targets are numbers")
        y = np.stack(values, axis=1)
        if kind is None and is_one_hot(y):
            raise EqpropError(
                f"{path}: {', '.join(names)} are one-hot: make them one column with the class"
            )
        return y, kind or (Labels if np.isin(y, (0, 1)).all() else Real), names
    (y,) = values
    kind = kind or (Classes if _are_classes(y) else Real)
    if kind is not Classes:
        return y, kind, names
    if y.dtype.kind in "iu" and (codes := _codes(names[0], path)) is not None:
        y = codes
    if y.dtype.kind == "f" and (y == np.rint(y)).all() and np.abs(y).max() < 2**63:
        y = y.astype(np.int64)
    # By name, but in the order of the numbers.
    return y.astype(str), Classes, tuple(map(str, np.unique(y)))


def _are_classes(y: np.ndarray) -> bool:
    """Whether values are text, truth values or a few whole numbers, most of which come often."""
    if y.dtype.kind in "Ub":
        return True
    found = np.unique(y)
    return len(found) <= min(_MOST_CLASSES, len(y) / 2) and bool((found == np.rint(found)).all())


def _values(column: pl.Series, path: Path) -> np.ndarray:
    """A whole column as numbers, truth values or text."""
    import polars as pl

    kind = column.dtype
    if kind in (pl.Categorical, pl.Enum):
        column = column.cast(pl.String)
    elif kind.is_decimal() or kind == pl.Int128:  # neither is NumPy's
        column = column.cast(pl.Float64)
    elif not (kind.is_numeric() or kind in (pl.String, pl.Boolean, pl.Null)):
        raise EqpropError(
            f"{path}: column {column.name!r} is {kind}: leave it out, or put numbers or text there"
        )
    empty = column.is_null()
    if column.dtype.is_float():
        empty |= ~column.is_finite().fill_null(value=False)
    if empty.any():
        row = empty.arg_max() or 0
        value = "empty" if column[row] is None else column[row]
        raise EqpropError(
            f"{path}: column {column.name!r} of row {row + 1} is {value}: leave that row out, or "
            "fill it in"
        )
    if column.dtype != pl.String:
        values = column.to_numpy()
        if (large := np.isinf(as_float32(values))).any():
            row = int(np.argmax(large))
            raise EqpropError(
                f"{path}: column {column.name!r} of row {row + 1} is {values[row]:g}, too large "
                "for float32: give it in another unit"
            )
        return values
    numbers = column.str.replace(",", ".").cast(pl.Float64, strict=False)
    if numbers.is_null().any() and numbers.drop_nulls().n_unique() > _MOST_CLASSES:
        row = numbers.is_null().arg_max() or 0
        raise EqpropError(
            f"{path}: column {column.name!r} of row {row + 1} is {column[row]!r}, but others are "
            "numbers: put one there, or leave that row out"
        )
    return column.to_numpy().astype(str)
