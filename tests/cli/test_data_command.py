"""``eqprop data``: what would be trained on, in lines of 80 columns."""

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_iris
from trainings import one_line

from eqprop.cli.main import main


def write(path, x, names, y, head="kind"):
    rows = (",".join(map(str, (*row, value))) for row, value in zip(x, y, strict=True))
    path.write_text("\n".join([",".join([*names, head]), *rows]))
    return str(path)


def shown(capsys) -> list[list[str]]:
    """The words of each line."""
    out, err = capsys.readouterr()
    assert not err
    assert max(map(len, out.splitlines())) <= 80
    return [line.split() for line in out.splitlines()]


def test_classes_of_a_table(tmp_path, capsys):
    iris = load_iris()
    names = ["a", "b", "c", "a name of more than eighty characters, " * 3]
    names[3] = names[3].replace(",", "")
    path = write(tmp_path / "iris.csv", iris.data, names, iris.target_names[iris.target])
    assert main(["data", path, "--test-size", "0.3", "--split-seed", "4"]) == 0
    lines = shown(capsys)
    assert ["target", "one", "of", "3", "classes"] in lines
    assert ["examples", "105", "for", "training,", "45", "for", "testing"] in lines
    for name in iris.target_names:
        assert [name, "35", "15"] in lines


def test_real_targets_and_another_column(tmp_path, capsys):
    x, y = load_diabetes(return_X_y=True)
    path = write(tmp_path / "d.csv", np.round(x, 4), [*"abcdefghij"], y, "progression")
    assert main(["data", path]) == 0
    assert ["target", "real", "numbers:", "progression"] in shown(capsys)
    assert main(["data", path, "--target", "a,b"]) == 0
    assert ["target", "real", "numbers:", "a,", "b"] in shown(capsys)


def test_arrays_of_many_classes_and_labels(tmp_path, capsys):
    x = np.arange(6000, dtype=np.uint8).reshape(300, 4, 5)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(300) % 30)
    assert main(["data", str(tmp_path / "a.npz"), "--test-size", "60"]) == 0
    lines = shown(capsys)
    assert ["inputs", "4", "x", "5", "bytes"] in lines
    assert ["...", "and", "10", "more"] in lines
    labels = np.stack([np.arange(300) < 30, np.arange(300) % 2], 1)
    np.savez(tmp_path / "b.npz", x_train=x, y_train=labels, x_test=x[:20], y_test=labels[:20])
    assert main(["data", str(tmp_path / "b.npz")]) == 0
    assert ["y0", "30", "20"] in (lines := shown(capsys))
    assert ["y1", "150", "10"] in lines


def test_integers_that_are_real_numbers(tmp_path, capsys):
    path = write(tmp_path / "a.csv", np.arange(40.0).reshape(20, 2), ["a", "b"], np.arange(20) % 4)
    assert main(["data", path]) == 0
    assert ["target", "one", "of", "4", "classes"] in shown(capsys)
    assert main(["data", path, "--target-kind", "real"]) == 0
    assert ["target", "real", "numbers:"] in [line[:3] for line in shown(capsys)]


def test_a_data_set_with_a_name(capsys):
    assert main(["data", "digits"]) == 0
    assert ["examples", "1500", "for", "training,", "297", "for", "testing"] in shown(capsys)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["nowhere.csv"], "nowhere.csv is no file"),
        (["a.csv", "--target", "knd"], "did you mean kind?"),
        (["a.csv", "--test-size", "2"], "class"),
        (["a.csv", "--test-size", "1.5"], "test_size 1.5"),
        (["a.csv", "--split-seed", "-1"], "seed of the split is -1"),
        ([".", "--target-kind", "real"], "is a folder, whose targets are classes"),
        (["b.csv"], "column 'kind' of row 3 is empty"),
        ([], "PATH is missing"),
    ],
)
def test_what_cannot_be(typed, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("a,kind\n1,x\n2,y\n3,z\n4,x\n5,y\n6,z\n")
    (tmp_path / "b.csv").write_text("a,kind\n1,x\n2,y\n3,\n4,x\n")
    assert main(["data", *typed]) == 2
    assert said in one_line(capsys.readouterr().err)
