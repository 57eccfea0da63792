"""Metrics: what each is, and that a new one needs nothing but an entry in the list."""

import json
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from trainings import checkpoints, metrics_of, signal_in, train

from eqprop.cli.main import main
from eqprop.training import metrics
from eqprop.training.runs import Run, read_metrics


def outside_best_two(seen: metrics.Seen) -> jnp.ndarray:
    best = jnp.argsort(seen.scores, axis=-1)[:, -2:]
    return jnp.all(best != jnp.argmax(seen.y, axis=-1)[:, None], axis=-1)


NEW = (
    metrics.OfExamples(
        name="best_two",
        function=outside_best_two,
        total="best_two",
        counts=True,
        words="  best two {} ".format,
        unit=" %",
        title="outside the best two (%)",
        head="{} outside the best two (%)",
    ),
    metrics.OfExamples(
        name="activity",
        function=lambda seen: seen.states[0].mean(axis=-1),
        total="activity",
        words="  activity {} ".format,
        title="activity of layer 1",
    ),
    metrics.LargestOfMinibatches(
        name="moved", function=lambda seen: seen.settled.residual, total="moved"
    ),
    metrics.OfEpoch(
        name="norms",
        function=lambda epoch: {
            f"W{n}": float(jnp.linalg.norm(edge.connection.weight))
            for n, edge in enumerate(epoch.network.edges, 1)
        },
        words="  |{}| ".format,
        form=".3f",
        title="norms of weights",
        label="of {}",
    ),
)


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was stopped in its second epoch, before there were the new metrics."""
    run = tmp_path / "run"
    assert train(run, "--epochs", "1") == 0
    with monkeypatch.context() as patch:
        signal_in(patch, 1)
        assert main(["resume", str(run), "--epochs", "3"]) == 130
    return run


def test_a_new_metric_is_an_entry_in_the_list(begun, monkeypatch, capsys) -> None:
    assert "totals.activity" not in load_file(checkpoints(begun)[-1])
    before = metrics_of(begun)
    monkeypatch.setattr(metrics, "METRICS", (*metrics.METRICS, *NEW))
    capsys.readouterr()
    assert main(["resume", str(begun)]) == 0
    first, second, third = metrics_of(begun)
    assert [first] == before
    # Of the second epoch a part was learnt before it was measured: unknown, and not wrong.
    measured = {"train_best_two", "test_best_two", "train_activity", "test_activity", "moved"}
    assert measured | {"norms"} <= third.keys()
    assert measured & second.keys() == {"test_best_two", "test_activity"}
    assert 0 < third["train_activity"] < 1
    assert 0 <= third["test_best_two"] < third["test_error"]
    assert third["moved"] == third["residual"]
    assert sorted(third["norms"]) == ["W1", "W2"]
    line = next(line for line in capsys.readouterr().out.splitlines() if "epoch 3/3" in line)
    shown = f"  best two test {third['test_best_two']:.2f} %  best two training "
    assert shown in line
    assert line.endswith(f"  |W1| {third['norms']['W1']:.3f}  |W2| {third['norms']['W2']:.3f}")
    (events,) = [p for p in (begun / "events").iterdir() if b"norms/W1" in p.read_bytes()]
    assert b"test_best_two" in events.read_bytes()
    # Without them, in a version that does not know them, it is a run as any other.
    monkeypatch.undo()
    assert main(["resume", str(begun), "--epochs", "4"]) == 0
    assert len(read_metrics(begun)) == 4


def test_a_report_draws_a_new_metric_where_a_run_has_it(begun, monkeypatch) -> None:
    monkeypatch.setattr(metrics, "METRICS", (*metrics.METRICS, *NEW))
    assert main(["report", str(begun), "--no-theorem"]) == 0
    assert "activity of layer 1" not in (begun / "report.html").read_text()
    assert main(["resume", str(begun)]) == 0
    assert main(["report", str(begun), "--no-theorem"]) == 0
    page = (begun / "report.html").read_text()
    for text in ("activity of layer 1", "norms of weights", "test outside the best two (%)"):
        assert text in page


ROW = {
    "epoch": 1,
    "train_error": 3.0,
    "test_error": 2.5,
    "residual": 0.25,
    "nudged_steps": 10,
    "angles": {"1-2": 40.0},
    "seconds": {"train": 3.0, "test": 1.0},
}


def test_columns() -> None:
    columns = [column for m in metrics.METRICS for column in m.columns(metrics.flat(ROW))]
    assert {column.name for column in columns} == {
        *("train_error", "test_error", "residual", "nudged_steps"),
        *("angles/1-2", "seconds/train", "seconds/test"),
    }
    named = {column.name: column for column in columns}
    assert named["test_error"] == ("test_error", "test", "test error (%)")
    assert named["angles/1-2"] == ("angles/1-2", "layers 1-2", "angle 1-2 (°)")


def test_a_line_of_progress() -> None:
    other = ROW | {"test_error": 3.5, "angles": {"1-2": 42.0}}
    assert metrics.show([ROW]) == (
        "test 2.50 %  train 3.00 %+10  angle 1-2 40.0  learnt in 3.0 s, tested in 1.0 s"
    )
    assert "test 3.00 ± 0.71 %  train 3.00 %+10  angle 1-2 41.0 ± 1.4" in metrics.show([ROW, other])


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": 2},
        {"test_error": -1.0},
        {"train_error": 100.1},
        {"residual": math.nan},
        {"residual": "1"},
        {"residual": True},
        {"angles": {"1-2": math.inf}},
        {"angles": {"1-2": {}}},
        {"angles": None},
        {"unheard_of": [1.0]},
    ],
)
def test_what_is_no_row(change) -> None:
    assert metrics.is_row(ROW, 1)
    assert metrics.is_row(ROW | {"unheard_of": {"a": 1.0}}, 1)
    assert not metrics.is_row(ROW | change, 1)


def test_a_summary_is_of_what_all_seeds_have(begun) -> None:
    with Run.resume(begun) as run:
        run.summarise([[ROW], [ROW | {"test_error": 3.5, "more": 1.0}]])
    (row,) = json.loads((begun / "summary.json").read_text())
    assert row["seeds"] == 2
    assert row["test_error"] == {"mean": 3.0, "std": pytest.approx(np.std([2.5, 3.5], ddof=1))}
    assert row["angles/1-2"] == {"mean": 40.0, "std": 0.0}
    assert "more" not in row


def test_mean_and_std() -> None:
    assert metrics.mean_and_std([3]) == (3.0, None)
    assert metrics.mean_and_std([1.0, 3.0]) == (2.0, pytest.approx(math.sqrt(2)))
    assert metrics.show_mean_and_std([2.0]) == "2.00"
    assert metrics.show([{"epoch": 1, "test_rmse": 2.34567e-6}]) == "RMSE test 2.346e-06"
    assert metrics.show_mean_and_std([1.0, 3.0], ".1f") == "2.0 ± 1.4"
