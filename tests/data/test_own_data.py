"""Data of one's own: from arrays and files, against scikit-learn, Pillow and Polars; what is wrong
is said in one line.
"""

import dataclasses
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from sklearn.datasets import load_diabetes, load_iris
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from eqprop.cli.main import main
from eqprop.data import paths
from eqprop.data.dataset import Dataset, check_fits
from eqprop.data.paths import load_inputs, load_path
from eqprop.data.scaling import Scaling
from eqprop.data.targets import Classes, Labels, Real
from eqprop.errors import EqpropError
from tests.data.test_data import STEMS, tiny, write

X = np.arange(60.0).reshape(20, 3)
Y = np.arange(20) % 4
ROWS = "1,a,0.5\n2,b,1.5\n3,a,2.5\n4,b,3.5\n" * 5


def wrong(what: str, make, *args, **kwargs) -> str:
    """The message of the error, which has one line and these words."""
    with pytest.raises(EqpropError) as error:
        make(*args, **kwargs)
    message = str(error.value)
    assert "\n" not in message
    assert what in message
    return message


def put(array: np.ndarray, place: tuple[int, ...], value: object) -> np.ndarray:
    array = array.copy()
    array[place] = value
    return array


# ------------------------------------------------------------------------------------- arrays


def test_split_is_that_of_scikit_learn():
    x, y = load_iris(return_X_y=True)
    dataset = Dataset.from_arrays(x, y, test_size=0.3, seed=4)
    train, test = train_test_split(np.arange(150), test_size=0.3, random_state=4, stratify=y)
    np.testing.assert_array_equal(dataset.train_x, x[np.sort(train)].astype(np.float32))
    np.testing.assert_array_equal(dataset.test_y, y[np.sort(test)])
    assert np.bincount(dataset.test_y).tolist() == [15, 15, 15]
    assert dataset.target == Classes(("0", "1", "2"))
    other = Dataset.from_arrays(x, y, test_size=0.3, seed=4, stratify=False)
    assert not np.array_equal(other.test_y, dataset.test_y)
    assert len(Dataset.from_arrays(x, y, test_size=17).test_y) == 17


@pytest.mark.parametrize(
    ("y", "target", "stored"),
    [
        (Y, Classes.of(4), Y),
        (Y.astype(bool), Classes(("False", "True")), Y > 0),
        (np.array(["d", "a", "c", "b"])[Y], Classes(("a", "b", "c", "d")), [3, 0, 2, 1] * 5),
        (np.array(["b", "a"], object)[Y % 2], Classes(("a", "b")), [1, 0] * 10),
        (np.array([3, 10, 9, 7])[Y], Classes(("3", "7", "9", "10")), [0, 3, 2, 1] * 5),
        (Y[:, None], Classes.of(4), Y),
        (Y / 2, Real(("y",)), Y[:, None] / 2),
        (np.stack([Y, X[:, 0]], 1), Real(("y0", "y1")), np.stack([Y, X[:, 0]], 1)),
        (np.stack([Y < 2, Y % 2], 1), Labels(("y0", "y1")), np.stack([Y < 2, Y % 2], 1)),
    ],
)
def test_kind_of_target_follows_from_values(y, target, stored):
    dataset = Dataset.from_splits(X, y, X[:8], y[:8])
    assert dataset.target == target
    np.testing.assert_array_equal(dataset.train_y, np.asarray(stored))
    np.testing.assert_array_equal(dataset.test_y, np.asarray(stored)[:8])
    assert dataset.train_y.dtype == (np.float32 if isinstance(target, Real) else np.uint8)


def test_kind_of_target_can_be_named():
    one_hot = np.eye(4)[Y]
    assert Dataset.from_arrays(X, one_hot, target=Labels).target.width == 4
    assert Dataset.from_arrays(X, Y, target=Real, names=("level",)).target == Real(("level",))
    assert Dataset.from_arrays(X, Y.astype(float), target=Classes).target == Classes.of(4)
    named = Dataset.from_splits(X, Y, X, Y, names=("a", "b", "c", "d"))
    assert named.target.names == ("a", "b", "c", "d")
    np.testing.assert_array_equal(named.train_y, Y)
    # Text goes by the names, in whichever order they are given.
    texts = np.array(["d", "c", "b", "a"])[Y]
    np.testing.assert_array_equal(
        Dataset.from_splits(X, texts, X, texts, names=("d", "c", "b", "a")).train_y, Y
    )
    many = np.arange(600) % 300
    assert Dataset.from_arrays(np.zeros((600, 1)), many, test_size=300).train_y.dtype == np.int32


@pytest.mark.parametrize("shape", [(3,), (12, 20), (12, 20, 3), (2, 3, 4, 5)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.int64, np.bool_])
def test_inputs_of_any_shape(shape, dtype):
    x = np.random.default_rng(0).integers(0, 200, (20, *shape)).astype(dtype)
    dataset = Dataset.from_arrays(x, Y)
    assert dataset.shape == shape
    assert dataset.train_x.dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    both = np.concatenate([dataset.train_x, dataset.test_x])
    np.testing.assert_array_equal(np.sort(both, axis=None), np.sort(x, axis=None))


def test_names_of_columns_come_from_tables():
    table = pl.DataFrame(X, schema=["a", "b", "c"])
    assert Dataset.from_arrays(table, pl.Series(Y)).features == ("a", "b", "c")
    other = table.select("c", pl.lit("text").alias("d"), "a", "b")
    with pytest.raises(EqpropError, match="inputs are object"):
        Dataset.from_arrays(other, Y)
    moved = Dataset.from_splits(table, Y, table.select("c", "a", "b"), Y)
    np.testing.assert_array_equal(moved.test_x, moved.train_x)
    without = table.drop("b")
    wrong("have no column 'b'", Dataset.from_splits, table, Y, without, Y)
    for train in (X, table):
        named = Dataset.from_splits(train, Y, other.drop("d"), Y, features=("a", "b", "c"))
        np.testing.assert_array_equal(named.test_x, X)


ONE_HOT = np.eye(4)[Y]


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (put(X, (3, 1), np.nan), Y, "x[3, 1] of row 3 is nan"),
        (put(X, (3, 1), -np.inf), Y, "x[3, 1] of row 3 is -inf"),
        (put(X, (3, 1), 1e300), Y, "x[3, 1] of row 3 is inf"),
        (X, put(Y / 2, (5,), np.nan), "target 'y' of row 5 is nan"),
        (X[:19], Y, "19 inputs of (3,) and 20 targets"),
        (X[:0], Y[:0], "none empty"),
        (X[:, :0], Y, "none empty"),
        (X[:, 0], Y, "x.reshape(-1, 1)"),
        (X, Y + 1, "labels are 1 to 4: number classes from 0, y - 1"),
        (X, Y - 1, "label -1 is negative"),
        (X, ONE_HOT, "one-hot: give classes, y.argmax(axis=1), or say target=Labels"),
        (X, Y * 0, "all targets are 0: give examples of another class"),
        (X, Y * 0.5 * 0, "target 'y' is 0.0 in all rows"),
        (X, np.where(np.arange(20) == 7, 9, Y), "class 9 has one example"),
        (put(X.astype(object), (3, 1), "a"), Y, "inputs are object"),
        (put(X.astype(object), (3, 1), None), Y, "x[3, 1] of row 3 is nan"),
        (np.ma.masked_less(X, 2), Y, "2 of the inputs are masked: leave their rows out, or fill"),
        (X, np.ma.masked_less(Y, 1), "5 of the targets are masked"),
        (X, np.array([b"a", b"\xff"] * 10), "targets are bytes, but no UTF-8"),
        (X.astype(str), Y, "give numbers"),
        ([[1, 2], [3]] * 10, Y, "inputs are no array"),
        (X, np.array([None, 1] * 10), "target 0 is missing: leave that row out"),
        (X, np.array(["a", None, *"ab" * 9], object), "target 1 is missing"),
        (X, np.array([object(), 1] * 10), "targets are object"),
        (X, np.zeros((20, 2, 2)), "shape (20, 2, 2)"),
        (X, Y.astype(complex), "targets are complex"),
        (
            X + np.array([0, 2e9, 0]),
            Y,
            "feature 1 varies by 57 about 2000000001, but float32 rounds it by",
        ),
        (X, 2e9 + Y / 2, "target 'y' varies by 1.5 about 2000000000, but float32 rounds it by"),
        (X * 1e-4 + 1.7e9, Y, "feature 0 varies by 0.0057 about 1700000000, but float32 rounds"),
        (X.astype(int) + 2**60, Y, "feature 0 varies by 57 about 1.152921505e+18, but float32"),
        (X * 1e-39, Y, "feature 0 varies by 5.7e-38 about 0, but float32 rounds it by up to 1.18"),
        (X.astype(np.float32) * 1e-40 + 1e-37, Y, "feature 0 varies by"),
    ],
)
def test_wrong_arrays(x, y, said):
    message = wrong(said, Dataset.from_arrays, x, y, name="mine", source="From here.")
    assert message.startswith("data set mine (From here)")


def test_numbers_that_float32_tells_apart():
    # Large ones, one that is the same everywhere but for float64's own rounding, images, integers.
    noise = 0.1 + 1e-17 * np.arange(20)
    x = np.stack([X[:, 0] + 1e4, noise, 1e30 * X[:, 1], 1e-30 * X[:, 2]], axis=1)
    kept = Dataset.from_arrays(x, 1e5 + Y / 2, test_size=5)
    assert len(np.unique(kept.train_x[:, 0])) == 15
    Dataset.from_arrays(np.full((20, 4, 4), 255, np.uint8), Y)
    Dataset.from_arrays(X.astype(np.int64) + 2**23, Y)
    Dataset.from_arrays(np.where(X % 2, -(2**63), 2**63 - 1), Y)


def test_objects_that_are_numbers():
    # As a table of Pandas with truth values beside numbers, or with its own integers.
    mixed = put(X.astype(object), (slice(None), 1), list(X[:, 1] > 5))
    mixed[:, 2] = [10**30 * n for n in range(20)]
    kept = Dataset.from_arrays(mixed, Y).train_x
    np.testing.assert_array_equal(kept, Dataset.from_arrays(mixed.astype(float), Y).train_x)


def test_names_of_any_kind():
    lists = Dataset.from_arrays(X, Y, features=[*"abc"], names=[*"klmn"])
    assert (lists.features, lists.target) == ((*"abc",), Classes((*"klmn",)))
    arrays = {
        "features": np.array([*"abc"], bytes),
        "names": np.char.encode([*"kl\u00e9n"], "utf-8"),
    }
    for dataset in (Dataset.from_arrays(X, Y, **arrays), Dataset.from_splits(X, Y, X, Y, **arrays)):
        assert (dataset.features, dataset.target.names) == ((*"abc",), (*"kl\u00e9n",))


def test_labels_of_both_parts_are_numbers_or_names():
    y = np.arange(6) % 3
    dataset = Dataset.from_splits(X[:6], y, X[6:10], [1, 2, 1, 2], names=("1", "2", "3"))
    np.testing.assert_array_equal(dataset.train_y, y)
    np.testing.assert_array_equal(dataset.test_y, [1, 2, 1, 2])
    said = "both parts in a row: label 3 in row 9; the 3 classes are 0 to 2"
    wrong(said, Dataset.from_splits, X[:6], y, X[6:10], [1, 2, 1, 3], names=("1", "2", "4"))


def test_wrong_feature_and_names():
    features = ("age", "height", "weight")
    bad = put(X, (3, 1), np.nan)
    wrong("feature 'height' of row 3 is nan", Dataset.from_arrays, bad, Y, features=features)
    wrong("2 names of features", Dataset.from_arrays, X, Y, features=features[:2])
    wrong("2 names for 1 targets", Dataset.from_arrays, X, Y / 2, names=("a", "b"))
    wrong("label 3 in row 3; the 3", Dataset.from_arrays, X, Y, names=("a", "b", "c"))
    wrong("no example of class e", Dataset.from_arrays, X, Y, names=(*"abcde",), stratify=False)
    texts = np.array(["a", "b", "c", "d"])[Y]
    wrong("class 'd' in row 3 is none of a, b", Dataset.from_arrays, X, texts, names=(*"abc",))


def test_wrong_kind():
    wrong("y.argmax(axis=1)", Dataset.from_arrays, X, ONE_HOT, target=Classes)
    wrong("label 0.5 in row 1", Dataset.from_arrays, X, Y / 2, target=Classes)
    wrong("label 'y' of row 2 is 2", Dataset.from_arrays, X, Y, target=Labels)
    wrong("give numbers", Dataset.from_arrays, X, Y.astype(str), target=Real)


@pytest.mark.parametrize("size", [0, 1.0, 4.5, -1, 20, 30, 0.001, float("nan")])
def test_wrong_test_size(size):
    wrong("give another size", Dataset.from_arrays, X, Y, test_size=size)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ((X, Y, X[:, :2], Y), "training inputs of (3,) float32, test inputs of (2,) float32"),
        ((X, Y, X, Y[:7]), "test part: 20 inputs of (3,) and 7 targets"),
        ((X, Y, put(X, (2, 2), np.nan), Y), "test part: x[2, 2] of row 2 is nan"),
        ((X, Y % 3, X, Y), "training part has no example of class 3"),
        ((X, Y, X, Y.astype(str)), "make them alike"),
        ((X, Y, X, np.stack([Y, Y], 1)), "make them alike"),
        ((X, Y / 2, X, put(Y / 2, (4,), np.inf)), "test part: target 'y' of row 4 is inf"),
    ],
)
def test_wrong_splits(parts, said):
    wrong(said, Dataset.from_splits, *parts)


def test_constructor_takes_what_is_stored_only():
    dataset = Dataset.from_arrays(X, Y / 2)
    for change, said in [
        ({"train_x": X}, "need uint8 or float32"),
        ({"train_y": X[:16]}, "need float32 targets (N, 1)"),
        ({"features": ("a",)}, "1 names of features"),
    ]:
        wrong(said, dataclasses.replace, dataset, **change)
    labels = Dataset.from_arrays(X, ONE_HOT, target=Labels)
    wrong("up to 2: give 0 or 1", dataclasses.replace, labels, train_y=labels.train_y * 2)


def test_fit_of_other_shapes():
    dataset = Dataset.from_arrays(np.zeros((20, 2, 3, 4, 5)), Y / 2)
    check_fits(dataset, (120,), 1)
    check_fits(dataset, (2, 3, 4, 5), 1)
    wrong("make it (120,) or (2, 3, 4, 5)", check_fits, dataset, (2, 3), 1)
    wrong("real numbers: y, the output layer has 2 units", check_fits, dataset, (120,), 2)
    wrong("make it (3,)", check_fits, Dataset.from_arrays(X, Y), (4,), 4)


# ------------------------------------------------------------------------------------ scaling


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(2, 9), st.integers(1, 5)),
        elements=st.integers(-1000, 1000).map(lambda n: n / 8),
    )
)
def test_scaling_is_that_of_scikit_learn(x):
    for how, oracle in (("standard", StandardScaler()), ("unit", MinMaxScaler())):
        theirs = oracle.fit_transform(x.astype(np.float64))
        scaling = Scaling.fit(how, x)
        np.testing.assert_allclose(scaling.apply(x), theirs, atol=1e-5)
        np.testing.assert_allclose(scaling.undo(scaling.apply(x)), x, atol=1e-3)


def test_scaling_chosen():
    x = np.arange(60, dtype=np.uint8).reshape(20, 3)
    assert Scaling.fit("auto", x).apply(x) == pytest.approx(x / 255)
    assert Scaling.fit("auto", x).apply(x).dtype == np.float32
    np.testing.assert_array_equal(Scaling.fit("none", x).apply(x), x)
    floats = x.astype(np.float32)
    for a, b in zip(Scaling.fit("auto", floats), Scaling.fit("standard", floats), strict=True):
        np.testing.assert_array_equal(a, b)
    assert Scaling.fit("unit", x).apply(x).max() == 1


def test_a_feature_that_is_the_same_everywhere_becomes_0():
    x = np.full((7, 1), 0.1, np.float32)
    for how in ("standard", "unit"):
        assert (Scaling.fit(how, x).apply(x) == 0).all()
        assert Scaling.fit(how, x).scale == 1


@pytest.mark.parametrize("mean", [-3, 5])
def test_bytes_are_taken_where_numbers_were_not_from_0_to_1(mean):
    Scaling.fit("auto", np.float32([[mean, 0], [mean + 1, 1]])).check_range(np.uint8([[200, 0]]))
    with pytest.raises(EqpropError, match="were numbers of about 0 to 1"):
        Scaling.fit("auto", np.float32([[0, 0], [1, 1]])).check_range(np.uint8([[200, 0]]))


def test_scaling_keeps_precision():
    x = load_diabetes(return_X_y=True, scaled=False)[0].astype(np.float32)
    scaling = Scaling.fit("standard", x)
    assert scaling.apply(x.astype(np.float64)).dtype == np.float64


# -------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_table_written_and_read_back(tmp_path, suffix):
    x, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])
    table = pl.DataFrame(x, schema=["a", "b", "c", "d"]).insert_column(
        1, pl.Series("Class", names[y])
    )
    path = tmp_path / f"iris{suffix}"
    match suffix:
        case ".csv":
            table.write_csv(path)
        case ".tsv":
            table.write_csv(path, separator="\t")
        case _:
            table.write_parquet(path)
    dataset = load_path(path, test_size=0.3, seed=4)
    oracle = Dataset.from_arrays(x, y, test_size=0.3, seed=4)
    for ours, theirs in zip(dataset.parts(), oracle.parts(), strict=True):
        np.testing.assert_array_equal(ours[1], theirs[1])
        np.testing.assert_array_equal(ours[2], theirs[2])
    assert dataset.target == Classes((*names,))
    assert dataset.features == ("a", "b", "c", "d")
    assert (dataset.name, dataset.source) == ("iris", f"{path}, target Class.")
    np.testing.assert_array_equal(load_inputs(path, dataset.features), x.astype(np.float32))


def table(folder: Path, content: str, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def test_decimal_commas(tmp_path):
    path = table(tmp_path, "a;b;y\n" + "1,5;2;0\n-2,25;3;1\n;0,125;0\n3;1;1\n")
    wrong("column 'a' of row 3 is empty", load_path, path)
    path = table(tmp_path, "a;b;y\n" + "1,5;2;0\n-2,25;3;1\n3;0,125;0\n3;1;1\n")
    assert load_path(path, test_size=2).features == ("a", "b")
    found = load_inputs(path, ("a", "b"))
    np.testing.assert_array_equal(found, [[1.5, 2], [-2.25, 3], [3, 0.125], [3, 1]])
    # Between commas they are text, and so are names that begin with a number.
    path = table(tmp_path, 'a,10,20,y\n"1,5",0,1,2\n"2,5",1,0,2\n"x",1,0,3\n"x",0,0,3\n')
    assert load_path(path, test_size=2).features == ("a=1,5", "a=2,5", "a=x", "10", "20")


def test_commas_that_are_no_decimal_ones(tmp_path):
    path = table(tmp_path, 'a,b\n"0,70",1\n"1,25",0\n')
    wrong("column 'a' has numbers with commas, such as '0,70'", load_path, path)
    rows = "".join(f"0,{n};{n % 2}\n" for n in range(10, 60))
    path = table(tmp_path, f"a;y\n{rows}-;1\n")
    wrong("column 'a' of row 51 is '-', but others are numbers", load_path, path)
    # Points of thousands, where other columns have decimal commas.
    path = table(tmp_path, "a;b;y\n200;1,5;0\n982;2,5;1\n1.016;3,5;0\n1.033;4,5;1\n")
    wrong("column 'a' has numbers such as '1.016'", load_path, path)
    path = table(tmp_path, "a;b;y\n200;1,5;0\n982;2,5;1\n1.016;3,5;0\n1.33;4,5;1\n")
    assert load_path(path, test_size=2).features == ("a", "b")
    path = table(tmp_path, "a,b,y\n 1.125,2.125,0\n2.250,2.125,1\n3.375,3.000,0\n4.5,4.5,1\n")
    assert load_path(path, test_size=2).features == ("a", "b")
    # Lists are text.
    path = table(tmp_path, 'a,y\n"1,2",0\n3,1\n"1,2",1\n3,0\n')
    assert load_path(path, test_size=2).features == ("a=1,2", "a=3")


def test_what_spreadsheets_add(tmp_path):
    for mark in ("", "\ufeff"):
        path = table(tmp_path, mark + "sep=;\na;y;;\n1;0;;\n2;1;;\n4;0;;\n5;1;;\n")
        assert load_path(path, test_size=2).features == ("a",)
    path = table(tmp_path, "a;y;\n1;0;\n2;1;3\n4;0;\n5;1;\n")
    wrong("column 3, '', numbers the rows", load_path, path, target="y")


def test_letters_that_look_equal_are(tmp_path):
    rows = "".join(f"{n},{k}\n" for n in range(9) for k in ("K\u00e4fer", "Ka\u0308fer", "Wal"))
    path = table(tmp_path, f"gro\u0308\u00dfe,art\n{rows}")
    dataset = load_path(path, target="art")
    assert dataset.target.names == ("K\u00e4fer", "Wal")
    assert load_path(path, target="gr\u00f6\u00dfe", test_size=9).features[0] == "art=K\u00e4fer"
    # Names of columns are as they are in the file, which other files and tables have, too.
    assert dataset.features == ("gro\u0308\u00dfe",)
    assert load_inputs(path, dataset.features).shape == (27, 1)


def test_columns_that_are_left_out(tmp_path, capsys):
    rows = "".join(f"{n + 7},2020-01-{n + 10},{n % 3},{n % 2}\n" for n in range(20))
    path = table(tmp_path, f"id,day,a,y\n{rows}")
    wrong("leave it out (--without 'day')", load_path, path)
    dataset = load_path(path, without="day")
    assert dataset.features == ("id", "a")
    assert "NOTE: id counts the rows, and is learnt from" in dataset.source
    dataset = load_path(path, without="day, id")
    assert dataset.features == ("a",)
    assert "NOTE" not in dataset.source
    assert load_path(path, without="day, id").features == ("a",)
    strange = table(tmp_path, "code;a;y\n1.016;1,5;0\n1.033;2,5;1\n2.000;3,5;0\n3.4;4;1\n", "s.csv")
    assert load_path(strange, without="code", test_size=2).features == ("a",)
    wrong("has no column 'dat'", load_path, path, without="dat")
    wrong("has no column but", load_path, path, without="id,day,a,y")
    assert main(["data", str(path), "--without", "day"]) == 0
    assert "id counts the rows" in " ".join(capsys.readouterr().out.split())


def test_spaces_about_fields(tmp_path):
    path = table(tmp_path, "a, b , c,y\n1, 2, red ,0\n3, 4.5,blue,1\n5, 6, red,0\n7,8,red,1\n")
    assert load_path(path, test_size=2).features == ("a", "b", "c=blue", "c=red")
    found = load_inputs(path, ("c=blue", "c=red", "b"))
    np.testing.assert_array_equal(found, [[0, 1, 2], [1, 0, 4.5], [0, 1, 6], [0, 1, 8]])
    path = table(tmp_path, "a, b\n1, 2\n3, NA\n4, \n")
    wrong("column 'b' of row 2 is empty", load_path, path)


def test_integers_of_more_than_64_bits(tmp_path):
    path = table(tmp_path, "a,y\n" + f"{10**24},0\n3,{10**24}\n" * 4)
    np.testing.assert_array_equal(load_inputs(path, ("a",))[:2, 0], np.float32([1e24, 3]))
    assert load_path(path).target == Classes(("0.0", "1e+24"))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_few_of_the_texts_that_were_trained_on(tmp_path, suffix):
    features = ("dep=01", "dep=3+", "own==1", "own==x", "flag=true", "flag=unknown", "n")
    path = table(tmp_path, "dep,own=,flag,n,own\n01,1,true,7,2\n3+,1,true,8,2\n01,1,true,9,3\n")
    expected = [[1, 0, 1, 0, 1, 0, 7], [0, 1, 1, 0, 1, 0, 8], [1, 0, 1, 0, 1, 0, 9]]
    if suffix == ".parquet":
        pl.read_csv(path).write_parquet(path := path.with_suffix(suffix))
    np.testing.assert_array_equal(load_inputs(path, features), expected)
    path = table(tmp_path, "dep,own=,flag,n\n01,1,true,7\n")  # numbers and truth values alone
    np.testing.assert_array_equal(load_inputs(path, features), expected[:1])
    wrong("no column 'n': ", load_inputs, table(tmp_path, "dep,own=,flag\n01,1,true\n"), features)


@pytest.mark.parametrize("names", ["2021,2020,y", "400.5,401,402.5,y", "0,1,10,y", "a,2019,y"])
def test_names_that_are_numbers(tmp_path, names):
    rows = "".join(",".join([*"123"[: names.count(",")], str(n % 2)]) + "\n" for n in range(20))
    assert load_path(table(tmp_path, f"{names}\n{rows}")).features == (*names.split(",")[:-1],)


def test_text_is_one_hot_by_name(tmp_path):
    path = table(tmp_path, "\ufeffsize,colour,price\n" + ROWS.replace("a", "red"))
    dataset = load_path(path, target="price", test_size=0.25)
    assert dataset.features == ("size", "colour=b", "colour=red")
    sizes = np.concatenate([dataset.train_x, dataset.test_x])
    np.testing.assert_array_equal(sizes[:, 1], sizes[:, 0] % 2 == 0)
    np.testing.assert_array_equal(sizes[:, 2], sizes[:, 0] % 2 == 1)
    # To predict from: other columns and others orders, and not all texts.
    other = table(tmp_path, "colour;id;size\nred;x;7\nred;y;8\n", "other.csv")
    np.testing.assert_array_equal(load_inputs(other, dataset.features), [[7, 0, 1], [8, 0, 1]])
    np.testing.assert_array_equal(load_inputs(table(tmp_path, "a,b\n1,2\n3,4\n")), [[1, 2], [3, 4]])
    green = table(tmp_path, "colour,size\ngreen,7\n", "green.csv")
    wrong("colour=green is none of the features", load_inputs, green, dataset.features)
    wrong("no column 'size': ", load_inputs, table(tmp_path, "colour\nred\n"), dataset.features)


@pytest.mark.parametrize(
    ("column", "target", "kind"),
    [
        (["no", "yes"], Classes(("no", "yes")), None),
        (["true", "false"], Classes(("False", "True")), None),
        (["1", "10", "2"], Classes(("1", "2", "10")), None),
        (["1.0", "2.0"], Classes(("1", "2")), None),
        (["1.5", "2"], Real(("z",)), None),
        ([str(n) for n in range(30)], Real(("z",)), None),
        (["3", "4", "5"], Real(("z",)), Real),
    ],
)
def test_target_of_a_table(tmp_path, column, target, kind):
    rows = [f"{n},{column[n % len(column)]}" for n in range(60)]
    path = table(tmp_path, "\n".join(["a,z", *rows]))
    assert load_path(path, kind=kind).target == target


def test_codes_that_begin_with_0_are_classes_as_they_stand(tmp_path):
    rows = [f"{n},{code}" for n, code in enumerate(["007", "7", "070"] * 10)]
    path = tmp_path / "codes.csv"
    path.write_text("\n".join(["a,code", *rows]) + "\n")
    target = load_path(path).target
    assert target.names == ("007", "070", "7")
    assert target.values.dtype.kind == "U"
    plain = [row.replace(",00", ",").replace(",0", ",") for row in rows]
    path.write_text("\n".join(["a,code", *plain]) + "\n")
    assert load_path(path).target.values.tolist() == [7, 70]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_header_that_is_not_in_utf_8(tmp_path, encoding):
    path = tmp_path / "table.csv"
    path.write_bytes(("größe,y\n" + "1,a\n2,b\n" * 10).encode(encoding))
    wrong("not in UTF-8", load_path, path)


@pytest.mark.parametrize("target", ["b", "a"])
def test_numbers_too_large_for_float32_are_named_by_row(tmp_path, target):
    path = table(tmp_path, "a,b\n" + "1.5,2.5\n" * 3 + "1e39,2.5\n" + "1.5,3.5\n" * 9)
    said = wrong("column 'a' of row 4 is 1e+39", load_path, path, target=target)
    assert "another unit" in said


def test_several_targets_of_a_table(tmp_path):
    rows = [f"{n},{n % 2},{n % 3},{n % 5 == 0:d}" for n in range(60)]
    path = table(tmp_path, "\n".join(["a,b,c,d", *rows]))
    assert load_path(path, target="b,c").target == Real(("b", "c"))
    assert load_path(path, target="d, b").target == Labels(("d", "b"))
    assert load_path(path, target="b,c").features == ("a", "d")
    one_hot = [f"{n},{n % 2},{1 - n % 2}" for n in range(60)]
    path = table(tmp_path, "\n".join(["a,b,c", *one_hot]))
    wrong("b, c are one-hot", load_path, path, target="b,c")


@pytest.mark.parametrize(
    ("content", "target", "said"),
    [
        ("a,b\n1,2\n,4\n", None, "column 'a' of row 2 is empty"),
        ("a,b\n1,2\n3,NA\n", None, "column 'b' of row 2 is empty"),
        ("a,b\n1,2\n3\n", None, "column 'b' of row 2 is empty"),
        ("a,b\n1.5,2\ninf,4\n", None, "column 'a' of row 2 is inf"),
        ("1,2\n3,4\n", None, "has no header"),
        ("5.1,3.5,1.4,0.2,Iris-setosa\n4.9,3.0,1.4,0.2,Iris-setosa\n", None, "has no header"),
        ("0,3,3,b\n1,4,4,c\n", None, "has no header"),
        (
            "a,b\n" + "".join(f"{n},{n % 2}\n" for n in range(60)) + "-,1\n",
            None,
            "column 'a' of row 61 is '-', but others are numbers",
        ),
        ('a,b\n"1,234",0\n999,1\n', None, "column 'a' has numbers with commas, such as '1,234'"),
        ("a;b\n1,234;0\n999;1\n", None, "column 'a' has numbers with commas"),
        ("a,b\n", None, "has no rows"),
        ("", None, "cannot be read as a table"),
        ("a,b\n1,2,3\n", None, "cannot be read as a table"),
        ("b\n1\n", None, "no column but b"),
        ("a,b\n1,2\n", "c", "no column 'c': choose one of a, b"),
        ("length,b\n1,2\n", "lenght", "did you mean length?"),
        ("a,b,c\n1,x,2\n", "b,c", "column 'b' is text"),
        ("a,b\n" + "".join(f"name{n},{n}\n" for n in range(101)), None, "101 different texts"),
        ("a,b\n1,x\n2,x\n3,x\n4,x\n", None, "all targets are x"),
        (
            "a,time,b\n" + "".join(f"{n},{1700000000 + n},{n % 2}\n" for n in range(60)),
            None,
            "feature 'time' varies by 59 about 1700000000, but float32 rounds it by up to 59",
        ),
        ("a,b\n1,x\n2,x\n3,y\n4,y\n5,z\n", None, "class z has one example"),
    ],
)
def test_wrong_table(tmp_path, content, target, said):
    path = table(tmp_path, content)
    assert str(path) in wrong(said, load_path, path, target=target)


def test_table_that_is_none(tmp_path):
    for name, content in (("a.parquet", b"PAR1 no PAR1"), ("a.csv", b"a,b\n\xff\xfe,3\n")):
        (tmp_path / name).write_bytes(content)
        wrong(f"{tmp_path / name} cannot be read as a table", load_path, tmp_path / name)
    pl.DataFrame({"a": [[1], [2]], "b": [1, 2]}).write_parquet(tmp_path / "a.parquet")
    wrong("column 'a' is List", load_path, tmp_path / "a.parquet")


def test_npz(tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, x=X, y=Y, features=["a", "b", "c"], names=["k", "l", "m", "n"])
    dataset = load_path(path, test_size=0.4, seed=1)
    oracle = Dataset.from_arrays(X, Y, test_size=0.4, seed=1)
    np.testing.assert_array_equal(dataset.test_x, oracle.test_x)
    assert (dataset.features, dataset.target.names) == ((*"abc",), (*"klmn",))
    np.testing.assert_array_equal(load_inputs(path), X)
    np.testing.assert_array_equal(load_inputs(path, ("c", "a")), X[:, [2, 0]])
    wrong("have no column 'd': choose one of a, b, c", load_inputs, path, ("a", "d"))
    np.savez(path, x=put(X, (3, 1), np.nan))
    wrong(f"{path}: x[3, 1] of row 3 is nan", load_inputs, path)
    np.savez_compressed(path, y_test=Y[:5], x_test=X[:5], x_train=X, y_train=Y)
    dataset = load_path(path)
    np.testing.assert_array_equal(dataset.train_x, X)
    np.testing.assert_array_equal(dataset.test_y, Y[:5])
    assert load_path(path, kind=Real).target == Real(("y",))


def test_damaged_npz(tmp_path, monkeypatch):
    path = tmp_path / "own.npz"
    for content in (b"", b"PK\x03\x04 no zip", pickle.dumps({"x": 1})):
        path.write_bytes(content)
        wrong(f"{path} cannot be read as .npz", load_path, path)
    np.savez(path, x=X, y=np.array([None] * 20))
    wrong("cannot be read as .npz (Object arrays", load_path, path)
    np.savez(path, x=X, z=Y)
    wrong("has arrays x, z: save it with x, y or with x_train, y_train,", load_path, path)
    np.savez(path, x=X, y=Y)
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    wrong("cannot be read as .npz", load_path, path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"no array")
        archive.writestr("y.npy", b"no array")
    wrong("cannot be read as .npz", load_path, path)
    np.savez(path, x=X, y=Y)
    monkeypatch.setattr(paths, "MAX_FILE", 500)
    wrong("bytes", load_path, path)
    np.savez_compressed(path, x=X, y=Y)
    monkeypatch.setattr(paths, "MAX_FILE", path.stat().st_size)
    np.savez_compressed(path, x=np.zeros((1000, 3)), y=np.arange(1000) % 4)
    monkeypatch.setattr(paths, "MAX_FILE", path.stat().st_size)
    wrong("x has more than", load_path, path)


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif"])
@pytest.mark.parametrize("colour", [False, True])
def test_images_written_and_read_back(tmp_path, suffix, colour):
    rng = np.random.default_rng(0)
    # The palette that GIF has holds 256 colours; what has one is read in colour.
    images = rng.integers(0, 2, (12, 12, 20, 3)[: 4 if colour else 3], dtype=np.uint8) * 255
    for n, image in enumerate(images):
        folder = tmp_path / ("train" if n < 8 else "test") / ("cat", "dog")[n % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{n:02}.{suffix}")
    (tmp_path / "train" / "cat" / ".hidden").touch()
    if suffix == "gif" and not colour:
        images = np.repeat(images[..., None], 3, axis=3)
    dataset = load_path(tmp_path)
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    np.testing.assert_array_equal(dataset.train_x, images[order])
    assert dataset.train_y.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert dataset.target == Classes(("cat", "dog"))
    assert len(dataset.test_y) == 4
    whole = load_path(tmp_path / "train", test_size=2)
    assert (len(whole.train_y), whole.test_y.tolist()) == (6, [0, 1])
    np.testing.assert_array_equal(load_inputs(tmp_path / "train"), images[order])
    np.testing.assert_array_equal(load_inputs(tmp_path / "test" / "dog"), images[[9, 11]])
    one = tmp_path / "test" / "dog" / f"09.{suffix}"
    np.testing.assert_array_equal(load_inputs(one), images[[9]])


def test_jpeg_is_read(tmp_path):
    for n in range(8):
        folder = tmp_path / str(n % 2)
        folder.mkdir(exist_ok=True)
        Image.new("L", (20, 12), 100 * (n % 2)).save(folder / f"{n}.jpg")
    dataset = load_path(tmp_path, test_size=0.5)
    assert dataset.shape == (12, 20)
    np.testing.assert_array_equal(dataset.train_x[:, 0, 0], 100 * dataset.train_y)


def test_images_beside_folders_and_turned_ones(tmp_path):
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    exif = Image.Exif()
    exif[0x112] = 6  # to be turned clockwise
    for n, name in enumerate(("cat/0", "cat/more/1", "dog/2", "dog/3")):
        file = tmp_path / "Train" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rot90(image) + np.uint8(n)).save(file, exif=exif)
    (tmp_path / "Train" / "notes.txt").touch()
    assert load_path(tmp_path / "Train", test_size=2).target == Classes(("cat", "dog"))
    found = load_inputs(tmp_path / "Train")
    np.testing.assert_array_equal(found, image + np.arange(4, dtype=np.uint8)[:, None, None])
    wrong("has a folder Train, which is no class: call the parts", load_path, tmp_path)
    (tmp_path / "Train").rename(tmp_path / "TEST")
    shutil.copytree(tmp_path / "TEST", tmp_path / "train")
    assert len(load_path(tmp_path).test_y) == 4
    loose = tmp_path / "train" / "4.PNG"
    shutil.copy(tmp_path / "TEST" / "dog" / "2.png", loose)
    wrong(f"{loose} is in the folder of no class: put it into one", load_path, tmp_path)
    assert len(load_inputs(tmp_path / "train")) == 5


def test_wrong_images(tmp_path):
    for n in range(8):
        folder = tmp_path / str(n % 2)
        folder.mkdir(exist_ok=True)
        Image.new("L", (20, 12), n).save(folder / f"{n}.png")
    bad = tmp_path / "1" / "8.png"
    for image, said in (
        (Image.new("L", (12, 20)), "is 20 x 12 in grey, "),
        (Image.new("RGB", (20, 12)), "is 12 x 20 in colour, "),
        (Image.new("RGBA", (20, 12)), "has pixels of RGBA"),
        (Image.new("I;16", (20, 12)), "has pixels of I;16"),
    ):
        image.save(bad)
        assert str(bad) in wrong(said, load_path, tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (12, 20), dtype=np.uint8)
    Image.fromarray(noise).save(bad)
    content = bad.read_bytes()
    for damaged in (b"", b"no image", content[:50], content[:-60]):
        bad.write_bytes(damaged)
        wrong(f"{bad} cannot be read as an image", load_path, tmp_path)
    (tmp_path / "empty").mkdir()
    wrong("has no folders of images", load_path, tmp_path / "empty")
    wrong("has no folders of images", load_path, tmp_path / "0")


def test_idx_folder(tmp_path):
    arrays = tiny()
    arrays[1][:4] = range(4)
    dataset = load_path(write(tmp_path / "letters", arrays, zipped=True))
    np.testing.assert_array_equal(dataset.train_x, arrays[0])
    assert dataset.target == Classes.of(4)
    arrays[1][:] = 3
    wrong("no example of class 0, 1, 2", load_path, write(tmp_path / "lacking", arrays))
    (tmp_path / "lacking" / STEMS[2]).unlink()
    wrong(f"{STEMS[2]} is not a file", load_path, tmp_path / "lacking")


def test_path_that_is_none(tmp_path):
    wrong("is no file and no folder", load_path, tmp_path / "nowhere.csv")
    wrong("is no file and no folder", load_path, "9" * 5000)
    wrong("is empty: put images there", load_inputs, tmp_path)
    wrong("leave out target 'a'", load_path, tmp_path, target="a")
    wrong("leave out without 'a'", load_path, tmp_path, without="a")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(1))
    wrong("a.pkl is no", load_path, tmp_path / "a.pkl")
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.csv")
    Path(odd).write_text("a,y\n1,2\n")
    wrong("is not in UTF-8: rename it", load_path, odd)


def test_own_data_never_have_the_name_of_others(tmp_path):
    path = tmp_path / "mnist.npz"
    np.savez(path, x=X, y=Y)
    assert load_path(path).name == "own-mnist"


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_wrong_seed(seed):
    wrong(f"seed of the split is {seed}: give 0", Dataset.from_arrays, X, Y, seed=seed)


# ------------------------------------------------------------------- what is not what it looks like


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (",a,b,y\n0,1,2,u\n1,2,1,v\n", "column 1, '', numbers the rows"),
        ("Unnamed: 0,a,y\n0,1,u\n1,2,v\n", "column 1, 'Unnamed: 0', numbers the rows"),
        ("a,y,__index_level_0__\n1,u,0\n2,v,1\n", "column 3, '__index_level_0__', numbers"),
    ],
)
def test_a_column_that_numbers_the_rows(tmp_path, content, said):
    wrong(said, load_path, table(tmp_path, content))
    # What was trained before goes on with such files.
    assert load_inputs(table(tmp_path, content), ("a",)).tolist() == [[1.0], [2.0]]


def test_texts_of_which_most_rows_have_another(tmp_path):
    dates = "".join(f"2020-01-{n % 28 + 1:02} 0{n % 10}:00,{n % 2}\n" for n in range(40))
    wrong(
        "column 'day' has 40 different texts in 40 rows",
        load_path,
        table(tmp_path, "day,y\n" + dates),
    )
    few = "".join(f"{'abcdefgh'[n % 8]},{n % 2}\n" for n in range(16))
    assert load_path(table(tmp_path, "letter,y\n" + few)).shape == (8,)


def test_decimal_commas_with_exponents_and_missing_classes(tmp_path):
    rows = "".join(f"{n},5;{n % 2}\n" for n in range(19))
    dataset = load_path(table(tmp_path, f"a;y\n{rows}1,5E-05;1\n"))
    assert dataset.features == ("a",)
    assert np.concatenate([dataset.train_x, dataset.test_x]).min() == np.float32(1.5e-5)
    for missing in ("None", "NULL", "n/a", "#N/A", "<NA>"):
        lines = "".join(f"{n},{n % 2}\n" for n in range(19))
        wrong(
            "column 'y' of row 20 is empty",
            load_path,
            table(tmp_path, f"a,y\n{lines}1,{missing}\n"),
        )


@pytest.mark.parametrize(
    "content", ["x,z,pos\nz,x,neg\nx,x,pos\nz,z,neg\n" * 5, "66,112,yes\n60,100,no\n66,112,yes\n"]
)
def test_words_without_a_header(tmp_path, content):
    wrong("has no header", load_path, table(tmp_path, content))


def test_a_column_that_is_not_needed_may_hold_anything(tmp_path):
    path = table(tmp_path, 'a,salary\n1,"1,234"\n2,"2,345"\n')
    assert load_inputs(path, ("a",)).tolist() == [[1.0], [2.0]]
    wrong("named more than once", load_path, table(tmp_path, "a,y\n1,2\n2,3\n"), target="y,y")


def test_parquet_has_no_spaces_about_texts_either(tmp_path):
    path = tmp_path / "T.PARQUET"
    pl.DataFrame({"a": [1.0, 2.0] * 10, "y": ["u", "v "] * 10}).write_parquet(path)
    assert load_path(path).target.names == ("u", "v")


def test_npz_with_both_kinds_of_parts(tmp_path):
    np.savez(path := tmp_path / "both.npz", x=X, y=Y, x_test=X, y_test=Y)
    wrong("has x, y, but x_test, y_test, too", load_path, path)


def test_bytes_that_are_no_images():
    """They were taken for images, and divided by 255."""
    counts = np.random.default_rng(0).integers(0, 10, (40, 3)).astype(np.uint8)
    y = np.arange(40) % 2
    same = Dataset.from_arrays(counts.astype(float), y)
    for dataset in (
        Dataset.from_arrays(counts, y),
        Dataset.from_splits(counts[:30], y[:30], counts[30:], y[30:]),
    ):
        assert dataset.train_x.dtype == np.float32
    np.testing.assert_array_equal(Dataset.from_arrays(counts, y).train_x, same.train_x)
    # A dark test part is of bright images all the same.
    bright = counts * 20
    assert Dataset.from_splits(bright, y, counts, y).test_x.dtype == np.uint8


def test_columns_of_tables_go_by_name():
    frame = pl.DataFrame({"a": X[:, 0], "b": X[:, 1]})
    given = Dataset.from_arrays(frame, Y, features=("b", "a"))
    plain = Dataset.from_arrays(X[:, [1, 0]], Y)
    np.testing.assert_array_equal(given.train_x, plain.train_x)
    renamed = Dataset.from_arrays(frame, Y, features=("c", "d"))
    np.testing.assert_array_equal(renamed.train_x, Dataset.from_arrays(X[:, :2], Y).train_x)
    parts = Dataset.from_splits(frame, Y, frame, Y, features=("b", "a"))
    np.testing.assert_array_equal(parts.train_x, parts.test_x)
    np.testing.assert_array_equal(parts.train_x[:, 0], X[:, 1].astype(np.float32))
    targets = pl.DataFrame({"u": X[:, 0], "v": X[:, 1]})
    both = Dataset.from_splits(X, targets, X, targets[["v", "u"]])
    np.testing.assert_array_equal(both.train_y, both.test_y)


def test_objects_and_truth_values_as_targets():
    truth = np.arange(20) % 3 == 0
    named = Dataset.from_arrays(X, truth, names=("no", "yes"))
    assert named.target.names == ("no", "yes")
    assert np.concatenate([named.train_y, named.test_y]).sum() == truth.sum()
    for values, kind in ((truth, Classes), (np.arange(20) % 3, Classes), (X[:, 0], Real)):
        ours = Dataset.from_arrays(X, values.astype(object))
        assert type(ours.target) is kind
        np.testing.assert_array_equal(ours.train_y, Dataset.from_arrays(X, values).train_y)


def test_as_many_classes_as_a_byte_counts_and_one_more():
    for classes, dtype in ((256, np.uint8), (257, np.int32)):
        y = np.arange(2 * classes) % classes
        dataset = Dataset.from_splits(np.zeros((len(y), 1)), y, np.zeros((len(y), 1)), y)
        assert dataset.train_y.dtype == dtype
        np.testing.assert_array_equal(dataset.train_y, y)


def test_examples_of_a_label_are_counted_beyond_a_byte():
    y = np.stack([np.arange(600) > 0, np.arange(600) < 300], axis=1)
    rows = Labels(("often", "half")).summary(y.astype(np.uint8), y[:301].astype(np.uint8))
    assert rows[1:] == [("often", "599", "300"), ("half", "300", "300")]


def test_scaling_of_many_rows():
    """A mean that is summed up in single precision would be off by more than the deviation."""
    x = np.tile(np.float32([[3000.0, -1.0], [3001.0, 1.0]]), (200_000, 1))
    shift, scale = Scaling.fit("standard", x)
    np.testing.assert_allclose(shift, [3000.5, 0], atol=1e-3)
    np.testing.assert_allclose(scale, [0.5, 1], rtol=1e-4)


def test_images_as_bright_as_1_are_told_from_bytes_as_bright_as_255():
    scaling = Scaling.fit("auto", np.uint8([[0, 255], [255, 0]]))
    with pytest.raises(EqpropError, match="inputs go up to 1, but what was learnt were bytes"):
        scaling.check_range(np.float64([[0, 1.0]]))
    scaling.check_range(np.float64([[0, 255.0]]))


@pytest.mark.parametrize("columns", [("size", "size=2"), ("size=2", "size")])
def test_a_feature_belongs_to_the_column_with_the_longest_name(tmp_path, columns):
    """``size=2=a`` is the text ``a`` of the column ``size=2``."""
    path = tmp_path / "table.csv"
    pl.DataFrame({name: [7, 8] if name == "size" else ["a", "b"] for name in columns}).write_csv(
        path
    )
    found = load_inputs(path, ("size=2=a", "size=2=b", "size"))
    np.testing.assert_array_equal(found, [[1, 0, 7], [0, 1, 8]])


def test_parts_that_float32_does_not_tell_apart():
    far = X + 2e9
    wrong("training part: feature 0 varies by 57", Dataset.from_splits, far, Y, far, Y)
    wrong("target 'y' varies by 1.5", Dataset.from_splits, X, 2e9 + Y / 2, X, 2e9 + Y / 2)
