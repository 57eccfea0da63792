"""Honest selection: a validation part, the best epoch, patience, and one look at the test set.

Oracle: by hand from the rows of the metrics; and a training that was not cut.
"""

import dataclasses
import itertools
import json
import shutil

import numpy as np
import pytest
from safetensors import safe_open
from sklearn.datasets import load_diabetes, load_iris
from trainings import happens_in, metrics_of, one_line, save_often

import eqprop as ep
from eqprop.cli.main import main
from eqprop.recipes.catalogue import RECIPES
from eqprop.training import announcements, launch, session
from eqprop.training.planned import PlannedTraining
from eqprop.training.results import read_run
from eqprop.training.runs import BEST, read_metrics, read_record, read_result
from eqprop.training.selection import best_epoch, is_over

HOW = {"hidden": (8,), "T": 10, "validation": 0.2}


@pytest.fixture(scope="module", autouse=True)
def _no_curves():
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(announcements, "training_curves", lambda folders, out, title: out)
        yield


@pytest.fixture(scope="module")
def iris() -> ep.Dataset:
    return ep.Dataset.from_arrays(*load_iris(return_X_y=True))


@pytest.fixture(scope="module")
def patient(iris, tmp_path_factory) -> ep.TrainedRun:
    """Stopped early, not cut."""
    out = tmp_path_factory.mktemp("patient") / "run"
    return ep.fit("ep-1h", iris, out, epochs=60, patience=3, **HOW)


def test_a_part_is_held_back_of_each_class_alike(iris):
    held = iris.hold_back(0.25)
    assert np.bincount(held.test_y).tolist() == [10, 10, 10]
    both = np.concatenate([held.train_x, held.test_x])
    assert sorted(map(tuple, both)) == sorted(map(tuple, iris.train_x))
    again = iris.hold_back(0.25)
    np.testing.assert_array_equal(held.test_x, again.test_x)
    other = iris.hold_back(0.25, seed=1)
    assert len(other.test_y) == 30
    assert not np.array_equal(other.test_x, held.test_x)
    with pytest.raises(ep.EqpropError, match="training part: cannot be split with validation"):
        iris.hold_back(0.001)


def test_what_a_training_with_a_validation_part_leaves(patient, iris):
    """Against the network of the best epoch, evaluated on parts that are cut out by hand."""
    errors = patient.metrics["validation_error"]
    assert "test_error" not in patient.metrics
    best = int(np.argmin(errors)) + 1
    assert len(errors) == min(best + 3, 60)
    assert len(errors) < 60
    held = iris.hold_back(0.2)
    assert patient.evaluate(held)["error"] == pytest.approx(errors[best - 1])
    result = read_result(patient.folder)
    assert result is not None
    assert result["epoch"] == best
    assert patient.evaluate(iris)["error"] == pytest.approx(result["test_error"])
    assert patient.tested["test_error"] == result["test_error"]
    last = ep.open_run(patient.folder, epoch="last")
    assert last.evaluate(held)["error"] == pytest.approx(errors[-1])
    # The scaling is that of what is learnt from.
    scaling = patient.record.data.input_scaling
    assert scaling is not None
    np.testing.assert_allclose(scaling.shift, held.train_x.mean(axis=0), rtol=1e-6)
    assert (patient.record.data.train, patient.record.data.validation) == (96, 24)
    (seed,) = read_run(patient.folder)
    assert seed.last("test_error") == result["test_error"]
    assert seed.last("validation_error") == errors[best - 1]


def test_the_test_set_is_looked_at_once(patient, iris, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    shutil.copytree(patient.folder, run)
    looked: list[int] = []
    of_launch, of_session = launch.evaluate, session.evaluate

    def look(where):
        def evaluate(trainer, networks, examples, *rest):
            looked.append(len(examples))
            return where(trainer, networks, examples, *rest)

        return evaluate

    monkeypatch.setattr(launch, "evaluate", look(of_launch))
    monkeypatch.setattr(session, "evaluate", look(of_session))
    ep.fit("ep-1h", iris, tmp_path / "new", epochs=4, **HOW)
    assert looked == [24, 24, 24, 24, 30]
    looked.clear()
    assert main(["resume", str(run)]) == 0
    assert not looked
    assert "stopped after" in capsys.readouterr().out
    # Killed before it had looked, it does when it goes on.
    (run / "result.json").unlink()
    assert main(["resume", str(run)]) == 0
    assert looked == [30]
    assert (run / "result.json").read_text() == (patient.folder / "result.json").read_text()
    assert "test error" in capsys.readouterr().out


def test_cut_before_the_last_epoch_is_kept_as_the_best(patient, iris, tmp_path):
    """The last epoch was the best: it is tested, whatever an earlier best one has left."""
    best = best_epoch(read_metrics(patient.folder))
    whole = ep.fit("ep-1h", iris, tmp_path / "whole", epochs=best, **HOW).folder
    earlier = ep.fit("ep-1h", iris, tmp_path / "earlier", epochs=1, **HOW).folder
    for left in (None, earlier):
        cut = tmp_path / f"cut-{left is None}"
        shutil.copytree(whole, cut)
        for name in (BEST, "result.json"):
            (cut / name).unlink() if left is None else shutil.copy(left / name, cut / name)
        assert not PlannedTraining(read_record(cut).recipe, (0,), cut).ended
        assert main(["resume", str(cut)]) == 0
        assert read_result(cut) == read_result(whole)
        assert_same_best(cut, whole)


def test_another_network_is_not_tested_for_the_best(patient, iris, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(patient.folder, run)
    earlier = ep.fit("ep-1h", iris, tmp_path / "earlier", epochs=1, **HOW).folder
    shutil.copy(earlier / BEST, run / BEST)
    (run / "result.json").unlink()
    assert main(["resume", str(run)]) == 1
    assert "is of epoch 1, but the best one was" in one_line(capsys.readouterr().err)
    assert not (run / "result.json").exists()


@pytest.mark.parametrize("place", ["between", "within", "at the best", "often"])
def test_cut_and_resumed_it_is_the_one_that_was_not(patient, iris, tmp_path, monkeypatch, place):
    out = tmp_path / "run"

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    def fit():
        return ep.fit("ep-1h", iris, out, epochs=60, patience=3, **HOW)

    with monkeypatch.context() as patch:
        if place == "at the best":  # between the checkpoint and the best one
            patch.setattr(launch.Run, "keep_best", die)
        elif place == "between":
            patch.setattr(launch.Run, "append", after(launch.Run.append, 2, die))
        elif place == "within":
            happens_in(patch, 6, die)
        else:
            patch.setattr(session, "_STRETCH", 0.0)
            save_often(patch)
            happens_in(patch, 9, die)
        with pytest.raises(KeyboardInterrupt):
            fit()
    fit()
    assert json.dumps(metrics_of(out)) == json.dumps(metrics_of(patient.folder))
    assert read_result(out) == read_result(patient.folder)
    assert_same_best(out, patient.folder)


def assert_same_best(run, oracle):
    with safe_open(run / BEST, "np") as ours, safe_open(oracle / BEST, "np") as theirs:
        # The sum of all names, types, shapes, values and notes among them.
        assert ours.metadata() == theirs.metadata()


def after(function, times, action):
    """The function, which from so many calls on does something else before."""
    count = itertools.count(1)

    def call(*args):
        if next(count) > times:
            action()
        return function(*args)

    return call


def test_regressions_and_seeds_side_by_side(tmp_path):
    x, y = load_diabetes(return_X_y=True)
    np.savez(data := tmp_path / "d.npz", x=x[:200], y=y[:200])
    options = ["--data", str(data), "--hidden", "8", "--T", "10", "--epochs", "3"]
    options += ["--validation", "0.2", "--seeds", "2"]
    for how in ("together", "in-turn"):
        assert (
            main(["train", "ep-1h", *options, "--replicas", how, "--out", str(tmp_path / how)]) == 0
        )
    for seed in ("seed-0", "seed-1"):
        one, other = (ep.open_run(tmp_path / how / seed) for how in ("together", "in-turn"))
        assert one.tested.keys() == other.tested.keys() == {"test_rmse", "test_r2", "test_loss"}
        for name, number in one.tested.items():
            assert number == pytest.approx(other.tested[name], rel=1e-3)
        assert best_epoch(read_metrics(one.folder)) == np.argmin(one.metrics["validation_rmse"]) + 1


def test_a_planned_training_ends_with_its_patience(patient, tmp_path):
    record = read_record(patient.folder)
    planned = PlannedTraining(record.recipe, record.seeds, patient.folder)
    assert planned.ended
    assert is_over(record.recipe, read_metrics(patient.folder))
    calm = dataclasses.replace(record.recipe, patience=0)
    assert not is_over(calm, read_metrics(patient.folder))
    shutil.copytree(patient.folder, tmp_path / "run")
    cut = PlannedTraining(record.recipe, record.seeds, tmp_path / "run")
    assert cut.ended
    result = tmp_path / "run" / "result.json"
    told = json.loads(result.read_text())
    result.write_text(json.dumps(told | {"epoch": told["epoch"] - 1}))  # of a shorter training
    assert not cut.ended
    result.unlink()
    assert not cut.ended
    result.write_text(json.dumps(told))
    # Killed between its last metrics and the checkpoint; where there is none, all were deleted.
    *before, last = (tmp_path / "run" / "checkpoints").iterdir()
    assert last == max([*before, last])
    last.unlink()
    assert cut.ended != bool(before)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert cut.ended


def test_rows_by_hand():
    rows = [{"validation_error": e, "validation_loss": 1.0} for e in (5.0, 3.0, 4.0, 3.0, 3.0)]
    assert best_epoch(rows) == 2
    assert best_epoch([{"test_error": 1.0}]) == best_epoch([]) == 0
    recipe = dataclasses.replace(RECIPES["ep-1h"], validation=0.1, patience=3)
    assert [is_over(recipe, rows[:n]) for n in range(1, 6)] == [False] * 4 + [True]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--patience", "2"], "patience is 2 with validation 0.0"),
        (["--validation", "1"], "validation is 1.0"),
        (["--validation", "-0.1"], "validation is -0.1"),
        (["--validation", "0.1", "--patience", "-1"], "patience is -1"),
        (["--validation", "0.00001"], "cannot be split with validation 1e-05"),
        (
            ["--validation", "0.1", "--patience", "2", "--seeds", "2", "--replicas", "together"],
            "leave out --replicas together",
        ),
    ],
)
def test_what_cannot_be(typed, said, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", "ep-1h", "--dataset", "digits", *typed, "--out", str(out)]) == 2
    assert said in one_line(capsys.readouterr().err)
    assert not out.exists()


def test_a_best_epoch_that_is_damaged(patient, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(patient.folder, run)
    content = bytearray((run / BEST).read_bytes())
    content[-1] ^= 1
    (run / BEST).write_bytes(content)
    assert main(["export", str(run), str(tmp_path / "w.npz")]) == 2
    assert f"{BEST} is damaged" in one_line(capsys.readouterr().err)
    (run / BEST).unlink()
    assert main(["evaluate", str(run)]) == 1
    line = one_line(capsys.readouterr().err)
    assert f"{BEST} is not there" in line
    assert line.endswith(f"go on with eqprop resume {run}")
    (run / "result.json").write_text("{")
    assert main(["resume", str(run)]) == 1
    assert "result.json is damaged: delete it" in one_line(capsys.readouterr().err)


def test_a_run_without_validation_has_none_of_it(iris, tmp_path):
    run = ep.fit("ep-1h", iris, tmp_path / "run", epochs=1, hidden=(8,), T=10)
    assert not (run.folder / BEST).exists()
    assert not (run.folder / "result.json").exists()
    again = ep.fit("ep-1h", iris, tmp_path / "b", epochs=1, hidden=(8,), T=10)
    assert run.metrics["test_error"] == again.metrics["test_error"]
