"""Trained networks out of the library: exported, opened, asked for predictions, started from.

Oracle: the equations of discrete time, written out in NumPy and in PyTorch from the exported file.
"""

import dataclasses
import inspect
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import polars as pl
import pytest
from sklearn.datasets import load_diabetes, load_iris
from trainings import assert_same, happens_in, one_line

import eqprop as ep
from eqprop.cli.main import main
from eqprop.data.targets import Classes
from eqprop.training import announcements
from eqprop.training.runs import START, read_record

T = 40


@pytest.fixture(scope="module", autouse=True)
def _no_curves():
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(announcements, "training_curves", lambda folders, out, title: out)
        yield


@pytest.fixture(scope="module")
def iris() -> ep.Dataset:
    x, y = load_iris(return_X_y=True)
    names = load_iris().target_names
    return ep.Dataset.from_arrays(x, names[y], features=tuple("abcd"))


@pytest.fixture(scope="module")
def diabetes() -> ep.Dataset:
    return ep.Dataset.from_arrays(*load_diabetes(return_X_y=True))


@pytest.fixture(scope="module")
def flowers(iris, tmp_path_factory) -> ep.TrainedRun:
    """A classifier."""
    out = tmp_path_factory.mktemp("flowers") / "run"
    return ep.fit("ep-1h", iris, out, epochs=3, hidden=(16,), T=T, test_tolerance=0.0)


@pytest.fixture(scope="module")
def progression(diabetes, tmp_path_factory) -> ep.TrainedRun:
    """A regression."""
    out = tmp_path_factory.mktemp("progression") / "run"
    return ep.fit("ep-1h", diabetes, out, epochs=2, hidden=(16,), T=T, test_tolerance=0.0)


def sigmoid(a):
    return 1 / (1 + np.exp(-4 * (a - 0.5)))


def relaxed(w, x, linear: bool):
    """The outputs after T steps of the equations, by the arrays of an exported file."""
    x = (x - w["input.shift"]) / w["input.scale"]
    s1, s2 = (np.zeros((len(x), n)) for n in w["W2"].shape)
    for _ in range(T):
        a1 = x @ w["W1"] + w["b1"] + s2 @ w["W2"].T
        a2 = s1 @ w["W2"] + w["b2"]
        s1, s2 = sigmoid(a1), a2 if linear else sigmoid(a2)
    return s2 * w["target.scale"] + w["target.shift"] if linear else s2


@pytest.mark.parametrize("form", ["npz", "safetensors"])
def test_an_exported_network_in_plain_numpy(flowers, progression, iris, diabetes, form, tmp_path):
    for run, data in ((flowers, iris), (progression, diabetes)):
        file = tmp_path / f"w.{form}"
        assert main(["export", str(run.folder), str(file)]) == 0
        if form == "npz":
            arrays = dict(np.load(file))
            recipe = json.loads(str(arrays.pop("recipe")))
            assert json.loads(str(arrays["features"])) == list(data.features)
            arrays = {name: a for name, a in arrays.items() if a.dtype.kind == "f"}
        else:
            from safetensors import safe_open

            with safe_open(file, "np") as opened:
                arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
                recipe = json.loads(opened.metadata()["recipe"])
        assert recipe["hidden"] == [16]
        w = {name: np.asarray(a, float) for name, a in arrays.items()}
        scores = relaxed(w, data.test_x.astype(float), linear=run is progression)
        expected = run.scores(data.test_x)
        spread = np.ptp(expected)
        np.testing.assert_allclose(scores, expected, atol=1e-6 * max(1, spread), rtol=1e-6)


def test_an_exported_network_in_pytorch(flowers, iris, tmp_path):
    torch = pytest.importorskip("torch")
    arrays = np.load(flowers.export(tmp_path / "w.npz"))
    w = {name: torch.tensor(a) for name, a in arrays.items() if a.dtype.kind == "f"}
    x = (torch.tensor(iris.test_x) - w["input.shift"]) / w["input.scale"]
    s1, s2 = torch.zeros(len(x), 16), torch.zeros(len(x), 3)
    for _ in range(T):
        a1, a2 = x @ w["W1"] + w["b1"] + s2 @ w["W2"].T, s1 @ w["W2"] + w["b2"]
        s1, s2 = torch.sigmoid(4 * (a1 - 0.5)), torch.sigmoid(4 * (a2 - 0.5))
    np.testing.assert_allclose(s2.numpy(), flowers.scores(iris.test_x), atol=2e-6)


def test_parameters_with_names_that_an_npz_file_needs(tmp_path):
    """They ended in a TypeError."""
    energy = ep.Energy(
        lambda p, x, s: (s[0] ** 2).sum(axis=-1) / 2 - (x @ p["target"] * s[0]).sum(axis=-1),
        layers=(4, 3),
        draw=lambda key: {"target": jax.random.normal(key, (4, 3))},
    )
    rng = np.random.default_rng(0)
    data = ep.Dataset.from_arrays(rng.normal(size=(30, 4)), np.arange(30) % 3)
    run = ep.fit(energy, data, tmp_path / "run", epochs=1, T=5, K=2, beta=0.5)
    with pytest.raises(ep.EqpropError, match=r"parameter target .*export as .safetensors"):
        run.export(tmp_path / "w.npz")
    assert run.export(tmp_path / "w.safetensors").exists()


def test_predictions_need_no_training_data(flowers, iris, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(flowers.folder, run)
    (run / "data.npz").unlink()
    opened = ep.open_run(run)
    np.testing.assert_array_equal(opened.scores(iris.test_x), flowers.scores(iris.test_x))
    predicted = opened.predict(iris.test_x)
    assert set(predicted) <= set(load_iris().target_names)
    shares = opened.evaluate(iris)
    truth = np.array(iris.target.names)[iris.test_y]
    assert shares["error"] == pytest.approx(100 * np.mean(predicted != truth))
    assert shares["error"] == pytest.approx(opened.metrics["test_error"][-1])
    assert shares["error"] == pytest.approx(opened.tested["test_error"])
    states = opened.relax(iris.test_x[:3])
    assert [layer.shape for layer in states] == [(T + 1, 3, 16), (T + 1, 3, 3)]
    np.testing.assert_allclose(states[-1][-1], opened.scores(iris.test_x[:3]), atol=1e-6)
    further = opened.relax(iris.test_x[:3], steps=T + 7)
    assert [layer.shape for layer in further] == [(T + 8, 3, 16), (T + 8, 3, 3)]
    np.testing.assert_array_equal(further[0][: T + 1], states[0])
    with pytest.raises(ep.EqpropError, match="steps T is 0"):
        opened.relax(iris.test_x[:3], steps=0)


def test_columns_of_a_table_are_found_by_name(tmp_path):
    x, y = np.arange(60.0).reshape(20, 3) % 7, np.arange(20) % 2
    table = pl.DataFrame(x, schema=["a", "b", "c"])
    data, out = ep.Dataset.from_arrays(table, y), tmp_path / "run"
    run = ep.fit("ep-1h", data, out, hidden=(8,), epochs=1, batch=8)
    other = table.select("c", pl.lit("text").alias("d"), "b", "a")
    np.testing.assert_array_equal(run.scores(other), run.scores(table))
    np.testing.assert_array_equal(run.scores(x.astype(object)), run.scores(x))
    with pytest.raises(ep.EqpropError, match="run: 3 of the inputs are masked"):
        run.predict(np.ma.masked_equal(x[:7], 3))
    with pytest.raises(ep.EqpropError, match="no column 'b'"):
        run.predict(table.drop("b"))
    moved = ep.Dataset.from_arrays(table.select("c", "a", "b"), y)
    with pytest.raises(ep.EqpropError, match="learnt from a, b, c"):
        run.evaluate(moved)


def test_fit_goes_on_with_its_run_and_with_no_other(iris, tmp_path):
    how = {"hidden": (8,), "T": 10}
    ep.fit("ep-1h", iris, tmp_path / "a", epochs=2, **how)
    ep.fit("ep-1h", iris, tmp_path / "a", epochs=4, **how)
    ep.fit("ep-1h", iris, tmp_path / "b", epochs=4, **how)
    first, second = (ep.open_run(tmp_path / name).network for name in "ab")
    for ours, theirs in zip(*map(jax.tree.leaves, (first, second)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    other = ep.Dataset.from_arrays(iris.train_x, iris.train_y)
    for args in ((iris, {**how, "beta": 0.3}), (iris, {**how, "seed": 1}), (other, how)):
        with pytest.raises(ep.EqpropError, match="give another directory"):
            ep.fit("ep-1h", args[0], tmp_path / "a", epochs=4, **args[1])
    with pytest.raises(ep.EqpropError, match="betta is no field"):
        ep.fit("ep-1h", iris, tmp_path / "c", betta=1)
    with pytest.raises(ep.EqpropError, match=r"batch of 1000 does not fit 120 .*at most 120"):
        ep.fit("ep-1h", iris, tmp_path / "c", batch=1000)


def test_a_training_starts_from_another_one(flowers, iris, tmp_path, monkeypatch, capsys):
    how = {"epochs": 3, "hidden": (16,), "T": 10}
    warm = ep.fit("ep-1h", iris, tmp_path / "whole", start=flowers, **how)
    assert warm.record.origin is not None
    assert warm.record.origin.epoch == 3
    # Lower from the first epoch on than from drawn weights.
    cold = ep.fit("ep-1h", iris, tmp_path / "cold", **how)
    assert warm.metrics["train_loss"][0] < cold.metrics["train_loss"][0]

    # Killed before its first checkpoint, it begins with the same weights again, without that run.
    def die():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        happens_in(patch, 1, die)
        with pytest.raises(KeyboardInterrupt):
            ep.fit("ep-1h", iris, tmp_path / "cut", start=flowers, **how)
    assert not (tmp_path / "cut" / "checkpoints").exists()
    assert main(["resume", str(tmp_path / "cut")]) == 0
    for name, column in warm.metrics.items():
        if not name.startswith("seconds"):
            np.testing.assert_array_equal(ep.open_run(tmp_path / "cut").metrics[name], column)
    # It goes on, but not as one from other weights.
    ep.fit("ep-1h", iris, tmp_path / "whole", start=flowers, **how | {"epochs": 4})
    with pytest.raises(ep.EqpropError, match="from another start"):
        ep.fit("ep-1h", iris, tmp_path / "whole", **how | {"epochs": 4})
    (tmp_path / "gone").mkdir()
    shutil.copy(tmp_path / "cut" / "run.json", tmp_path / "gone")
    shutil.copy(tmp_path / "cut" / "data.npz", tmp_path / "gone")
    capsys.readouterr()
    assert main(["resume", str(tmp_path / "gone")]) == 1
    assert f"{START} is missing" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("data", ["mnist", (np.zeros((4, 2)), np.arange(4))], ids=["name", "x, y"])
def test_data_are_a_dataset(data, tmp_path):
    unchecked = inspect.unwrap(ep.fit)  # by jaxtyping, which only tests have
    with pytest.raises(ep.EqpropError, match=r"the data are .*: give a Dataset, as ep\.load"):
        unchecked("ep-1h", data, tmp_path / "run")


def test_seeds_start_from_the_same_weights(flowers, iris, tmp_path):
    np.savez(data := tmp_path / "iris.npz", x=iris.train_x, y=iris.train_y)
    options = ["--data", str(data), "--hidden", "16", "--epochs", "1", "--T", "10"]
    start = ["--from", str(flowers.folder), "--seeds", "2"]
    for name, how in (("turn", "in-turn"), ("both", "together")):
        out = ["--out", str(tmp_path / name), "--replicas", how]
        assert main(["train", "ep-1h", *options, *start, *out]) == 0
    for seed in ("seed-0", "seed-1"):
        one, other = (ep.open_run(tmp_path / name / seed) for name in ("turn", "both"))
        assert one.record.origin == other.record.origin
        np.testing.assert_allclose(
            one.scores(iris.test_x), other.scores(iris.test_x), rtol=1e-3, atol=1e-5
        )
    with pytest.raises(ep.EqpropError, match=r"has 2 seeds: open one of them, as .*seed-0"):
        ep.open_run(tmp_path / "turn")


def test_classes_come_back_as_they_were_given(iris, tmp_path):
    numbers = np.array([3, 7, 40])[iris.test_y]
    data = ep.Dataset.from_arrays(iris.test_x, numbers)
    run = ep.fit("ep-1h", data, tmp_path / "run", hidden=(8,), epochs=1, batch=8)
    predicted = run.predict(data.test_x)
    wrong = np.array([3, 7, 40])[data.test_y] != predicted
    assert run.evaluate(data)["error"] == pytest.approx(100 * wrong.mean())
    for names in (("007", "1"), ("1.0", "2.0"), ("one", "1"), ("9" * 19, "1"), ("\u0663", "1")):
        assert Classes(names).values.tolist() == [*names]


def test_predictions_from_the_command_line(flowers, progression, iris, diabetes, tmp_path, capsys):
    table = tmp_path / "x.csv"
    lines = (",".join(map(str, ("note", *row[::-1]))) for row in iris.test_x)
    table.write_text("\n".join(["remark,d,c,b,a", *lines]))
    out = tmp_path / "p.csv"
    assert main(["predict", str(flowers.folder), "--data", str(table), "--out", str(out)]) == 0
    head, *rows = (line.split(",") for line in out.read_text().splitlines())
    assert head == ["row", "class", *(f"score {name}" for name in iris.target.names)]
    assert [row[0] for row in rows] == [str(n + 1) for n in range(len(iris.test_x))]
    assert [row[1] for row in rows] == flowers.predict(iris.test_x).tolist()
    scores = np.array([row[2:] for row in rows], np.float32)
    np.testing.assert_array_equal(scores, flowers.scores(iris.test_x))
    np.savez(arrays := tmp_path / "x.npz", x=diabetes.test_x)
    assert main(["predict", str(progression.folder), "--data", str(arrays)]) == 0
    head, *rows = (progression.folder / "predictions.csv").read_text().splitlines()
    assert head == "row,y"
    found = np.array([row.split(",")[1] for row in rows], np.float32)
    np.testing.assert_array_equal(found, progression.predict(diabetes.test_x))


def test_predictions_of_labels_and_of_images(tmp_path):
    from PIL import Image

    key = np.random.default_rng(0)
    x = key.integers(0, 256, (40, 3, 4), np.uint8)
    labels = np.stack([x[:, 0, 0] > 127, x[:, 1, 1] > 127], axis=1)
    data = ep.Dataset.from_arrays(x, labels, names=("bright", "middle"))
    run = ep.fit("ep-1h", data, tmp_path / "run", hidden=(8,), epochs=1, batch=8)
    (images := tmp_path / "images").mkdir()
    for name, pixels in zip(("b.png", "a.png"), x, strict=False):
        Image.fromarray(pixels).save(images / name)
    assert main(["predict", str(run.folder), "--data", str(images)]) == 0
    head, *rows = (run.folder / "predictions.csv").read_text().splitlines()
    assert head == "file,bright,middle,score bright,score middle"
    assert [row.split(",")[0] for row in rows] == ["a.png", "b.png"]
    found = [[int(n) for n in row.split(",")[1:3]] for row in rows]
    assert found == run.predict(x[[1, 0]]).tolist()

    # Bytes are scaled by the run itself; as other numbers they are the same, but not from 0 to 1.
    np.testing.assert_array_equal(run.predict(x.astype(float)), run.predict(x))
    scaled = ep.Dataset.from_arrays(x / 255, labels, names=("bright", "middle"))
    for wrong in (lambda: run.predict(x / 255), lambda: run.evaluate(scaled)):
        with pytest.raises(ep.EqpropError, match=r"go up to \S+, but what was learnt were bytes"):
            wrong()
    run.predict(np.zeros_like(x, float))
    own = ep.fit("ep-1h", scaled, tmp_path / "own", hidden=(8,), epochs=1, batch=8)
    own.predict(x / 255)
    with pytest.raises(ep.EqpropError, match="were numbers of about 0 to 1"):
        own.predict(x)


def test_inputs_too_large_for_float32(flowers, iris):
    x = iris.test_x[:3].astype(float)
    x[1, 2] = 1e39
    with pytest.raises(ep.EqpropError, match="input 1 has a number that is NaN, infinite, or too"):
        flowers.predict(x)


def test_equal_real_targets_have_no_r2(tmp_path):
    """The mean of equal numbers is not always that number."""
    x, y = np.random.default_rng(0).normal(size=(60, 2)), np.full(30, 0.1)
    data = ep.Dataset.from_splits(x[:30], x[:30, 0], x[30:], y)
    run = ep.fit("ep-1h", data, tmp_path / "run", epochs=1, hidden=(4,), T=5, K=2, batch=5)
    assert "test_r2" not in run.metrics
    assert not np.isfinite(run.evaluate(data)["r2"])


def test_channels_first_are_not_altered(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (40, 3, 6, 6)).astype(np.uint8)
    data = ep.Dataset.from_arrays(x, np.arange(40) % 2)
    with pytest.raises(ep.EqpropError, match="with their channels first"):
        ep.fit("ep-1h", data, tmp_path / "run", epochs=1, hidden=(4,), shift=1)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["predict", "RUN", "--data", "other.csv"], "has no column 'b'"),
        (["predict", "RUN", "--data", "wide.npz"], r"shape (2, 5): give numbers of shape (n, 4)"),
        (["predict", "RUN", "--data", "none.csv"], "none.csv is no file"),
        (["predict", "RUN", "--data", "nan.npz"], "is nan"),
        (["predict", "RUN", "--data", "other.csv", "--out", "other.csv"], "which is the data"),
        (["predict", "RUN", "--data", "other.csv", "--out", "p.txt"], "ends with .csv"),
        (["predict", "nowhere", "--data", "other.csv"], "nowhere is no run directory"),
        (["predict", "RUN"], "--data PATH is missing"),
        (["export", "RUN", "w.pt"], "w.pt is neither .safetensors nor .npz"),
        (["export", "RUN", "no/w.npz"], "no/w.npz cannot be written"),
        (["export", "RUN"], "FILE is missing"),
        (["export", "young", "w.npz"], "has no checkpoint yet"),
        (["train", "ep-1h", "--data", "iris.csv", "--target", "kin"], "did you mean kind?"),
        (["train", "ep-1h", "--data", "iris.csv", "--from", "nowhere"], "no run directory"),
        (["train", "ep-1h", "--data", "iris.csv", "--dataset", "digits"], "name two data sets"),
        (
            ["train", "ep-1h", "--data=iris.csv", "--from=RUN", "--hidden", "9", "--batch", "4"],
            "W1 is (4, 16) there, (4, 9) in this recipe",
        ),
        (["train", "ep-1h", "--data", "iris.csv", "--batch", "99"], "batch at most 8"),
        (["train", "ep-1h", "--target", "kind"], "--data PATH"),
        (["train", "ep-1h", "--dataset", "own"], "--data PATH"),
        (["train", "ep-1h", "--dat", "iris.csv"], "--data"),
        (["train", "ep-1h", "--form", "RUN"], "did you mean --from"),
    ],
)
def test_what_cannot_be(typed, said, flowers, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.csv").write_text("a,c,d\n1,2,3\n")
    rows = "".join(f"{n},{n % 3},1,{n},{'xy'[n % 2]}\n" for n in range(10))
    (tmp_path / "iris.csv").write_text("a,b,c,d,kind\n" + rows)
    np.savez("wide.npz", x=np.zeros((2, 5)))
    np.savez("nan.npz", x=np.full((2, 4), np.nan))
    (tmp_path / "young").mkdir()
    shutil.copy(flowers.folder / "run.json", tmp_path / "young")
    there = sorted(tmp_path.rglob("*"))
    typed = [word.replace("RUN", str(flowers.folder)) for word in typed]
    assert main(typed) == 2
    assert said in one_line(capsys.readouterr().err)
    assert sorted(tmp_path.rglob("*")) == there


def test_data_by_name_and_where_they_belong(tmp_path):
    out = ["--hidden", "8", "--epochs", "1", "--out", str(tmp_path / "run")]
    assert main(["train", "ep-1h", "--data", "digits", *out]) == 0
    record = read_record(tmp_path / "run")
    assert (record.recipe.dataset, record.data.name) == ("digits", "digits")
    assert not (tmp_path / "run" / "data.npz").exists()
    assert main(["train", "ep-1h", "--dataset", "digits", *out[:-1], str(tmp_path / "b")]) == 0
    assert_same(tmp_path / "run", tmp_path / "b")


def test_data_that_only_have_the_name_of_a_data_set_are_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), rng.integers(2, size=40)
    ours = ep.Dataset.from_arrays(x, y, name="digits")
    run = ep.fit("ep-1h", ours, tmp_path / "ours", hidden=(4,), epochs=1)
    assert (run.folder / "data.npz").is_file()
    again = ep.fit("ep-1h", ours, tmp_path / "ours", hidden=(4,), epochs=2)
    assert len(again.metrics["test_error"]) == 2
    theirs = ep.fit("ep-1h", ep.load("digits"), tmp_path / "theirs", hidden=(4,), epochs=1)
    assert not (theirs.folder / "data.npz").exists()


def test_the_test_part_of_a_data_set_may_be_another(tmp_path: Path) -> None:
    """A published name alone does not tell: what was changed in the test part stays changed."""
    digits = ep.load("digits")
    ours = dataclasses.replace(digits, test_y=(digits.test_y + 1) % 10)
    fields = {"hidden": (8,), "epochs": 1}
    ep.fit("ep-1h", ours, tmp_path / "run", **fields)
    again = ep.fit("ep-1h", ours, tmp_path / "run", **fields | {"epochs": 2})
    whole = ep.fit("ep-1h", ours, tmp_path / "whole", **fields | {"epochs": 2})
    np.testing.assert_array_equal(again.metrics["test_error"], whole.metrics["test_error"])
    with pytest.raises(ep.EqpropError, match="on other data"):
        ep.fit("ep-1h", digits, tmp_path / "run", **fields)


@pytest.mark.parametrize(
    "change", [{"names": ("minus", "plus")}, {"features": ("a", "b", "d")}], ids=str
)
def test_other_names_are_other_data(change, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(20, 3))
    named = {"names": ("neg", "pos"), "features": ("a", "b", "c")}
    made = [
        ep.Dataset.from_arrays(x, np.arange(20) % 2, **fields) for fields in (named, named | change)
    ]
    ep.fit("ep-1h", made[0], tmp_path / "run", hidden=(4,), epochs=1, batch=5)
    with pytest.raises(ep.EqpropError, match="on other data"):
        ep.fit("ep-1h", made[1], tmp_path / "run", hidden=(4,), epochs=1, batch=5)


def test_an_evaluation_takes_inputs_of_the_same_shape(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((20, 4, 6)), rng.integers(2, size=20)
    run = ep.fit("ep-1h", ep.Dataset.from_arrays(x, y), tmp_path, hidden=(4,), epochs=1, batch=5)
    with pytest.raises(ep.EqpropError, match=r"have shape \(6, 4\), but .* of shape \(4, 6\)"):
        run.evaluate(ep.Dataset.from_arrays(x.reshape(-1, 6, 4), y))


@pytest.mark.parametrize("unit", [1e-21, 1e20])
def test_an_rmse_is_in_the_unit_of_the_targets(unit: float, tmp_path: Path) -> None:
    """However small or large their squares are in single precision."""
    x = np.random.default_rng(0).normal(size=(40, 3))
    found = [
        ep.fit(
            *("ep-1h", ep.Dataset.from_arrays(x, of * x[:, :2] * [1, 0.01]), tmp_path / str(of)),
            **{"hidden": (4,), "epochs": 2, "batch": 5, "validation": 0.2},
        )
        for of in (1.0, unit)
    ]
    for name in ("train_rmse", "validation_rmse"):
        one, other = (run.metrics[name] for run in found)
        np.testing.assert_allclose(other, unit * one, rtol=1e-4)
    assert found[1].tested["test_rmse"] == pytest.approx(unit * found[0].tested["test_rmse"])


@pytest.mark.parametrize("validation", [0.0, 0.2])
def test_what_is_undefined_is_left_out(validation: float, tmp_path: Path) -> None:
    """One test row has no R²."""
    x = np.random.default_rng(0).normal(size=(41, 3))
    data = ep.Dataset.from_splits(x[:40], x[:40, 0], x[40:], x[40:, 0])
    fields = {"hidden": (4,), "epochs": 1, "batch": 5, "validation": validation}
    tested = ep.fit("ep-1h", data, tmp_path / "run", **fields).tested
    assert "test_r2" not in tested
    assert tested["test_rmse"] > 0
    assert main(["report", str(tmp_path / "run")]) == 0


def test_a_start_goes_by_the_names_of_features_and_classes(tmp_path: Path, capsys) -> None:
    x, y = np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) % 2
    how = {"hidden": (4,), "epochs": 1, "batch": 10}

    def data(features: str, names: str) -> ep.Dataset:
        return ep.Dataset.from_arrays(x, y, features=features.split(), names=names.split())

    start = ep.fit("ep-1h", data("a b", "no yes"), tmp_path / "start", **how)
    for features, names, what in (("b a", "no yes", "features"), ("a b", "yes no", "targets")):
        with pytest.raises(ep.EqpropError, match=f"{what} of data are .*give them in that order"):
            ep.fit("ep-1h", data(features, names), tmp_path / "other", start=start, **how)
    assert not (tmp_path / "other").exists()
    capsys.readouterr()
    ep.fit("ep-1h", data("a b", "in out"), tmp_path / "other", start=start, **how)
    assert "NOTE: targets are others than those that were learnt" in capsys.readouterr().out


def test_other_data_beside_a_run_are_not_its_own(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros((3, 2)), y=np.arange(3))
    fields = ["--dataset", "digits", "--hidden", "4", "--epochs", "1"]
    assert main(["train", "ep-1h", *fields, "--out", str(tmp_path / "run")]) == 0
    assert main(["evaluate", str(tmp_path / "run")]) == 0


def test_metrics_of_several_targets_are_those_of_their_numbers(tmp_path: Path) -> None:
    """Against what is predicted; one target varies a hundred times as much as the other."""
    x = np.random.default_rng(0).normal(size=(60, 3))
    data = ep.Dataset.from_arrays(x, x[:, :2] ** 2 * [1, 0.01] + [5, 0])
    run = ep.fit("ep-1h", data, tmp_path / "run", hidden=(8,), epochs=3, batch=5)
    y, found = data.test_y, run.predict(data.test_x)
    squares = (y - found) ** 2
    assert run.tested["test_rmse"] == pytest.approx(np.sqrt(squares.mean()), rel=1e-3)
    r2 = 1 - (squares.mean(axis=0) / y.var(axis=0)).mean()
    assert run.tested["test_r2"] == pytest.approx(r2, rel=1e-3, abs=1e-3)


def test_a_test_part_that_was_changed_is_noticed(flowers, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(flowers.folder, run)
    with np.load(run / "data.npz") as arrays:
        parts = dict(arrays)
    np.savez(run / "data.npz", **parts | {"test_y": parts["test_y"][::-1]})
    assert main(["evaluate", str(run)]) == 1
    assert "is not the one that the run was trained on" in one_line(capsys.readouterr().err)
