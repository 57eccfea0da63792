"""Replicas: seeds that are trained together. Oracle: each seed trained alone."""

import dataclasses
import json
import math
import os
import shutil
import signal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trainings import (
    _compile_once,  # noqa: F401
    checkpoints,
    experiment_of,
    metrics_of,
    one_line,
    save_often,
    signal_in,
    state_of,
    train,
)

from eqprop.cli.main import main
from eqprop.recipes.build import build
from eqprop.recipes.catalogue import recipe
from eqprop.training import session
from eqprop.training.divergence import copy, find, whole
from eqprop.training.experiment import Experiment
from eqprop.training.metrics import show_mean_and_std
from eqprop.training.replicas import Layout
from eqprop.training.runs import read_metrics, read_record
from eqprop.training.trainer import Examples, Trainer, TrainState

IMAGE, CLASSES, N, SEEDS = (6, 5), 4, 30, (3, 8, 0)

TOGETHER = ("--seeds", "3", "--replicas", "together", "--lr", "0.3", "0.2")


def trainers(**changes) -> tuple[Trainer, Trainer, list[TrainState], Examples]:
    """One that trains a network alone, one that trains replicas, a state for each seed, data."""
    fields: dict = {"hidden": (7,), "T": 9, "K": 3, "batch": 5, "lr": (0.3, 0.2)} | changes
    built = build(dataclasses.replace(recipe("ep-1h"), **fields), IMAGE, CLASSES, N // 5)
    alone = Trainer(built.system, built.learner, 5, dropout=built.dropout)
    together = alone.lay_out(Layout(len(SEEDS)))
    states = [alone.start(built.init, seed) for seed in SEEDS]
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(N, *IMAGE), dtype=np.uint8)
    labels = rng.integers(CLASSES, size=N, dtype=np.uint8)
    return alone, together, states, Examples.put(images, labels, states[0].network)


def two_epochs(trainer: Trainer, state: TrainState, examples: Examples) -> TrainState:
    """To the third minibatch of the second epoch, with a cut in the first one."""
    order = trainer.order(state, examples)
    for stop in (2, 6):
        state = trainer.advance(state, examples, order, stop)
    state = trainer.next_epoch(state)
    return trainer.advance(state, examples, trainer.order(state, examples), 3)


CONV = {"channels": (3,), "kernel": 3, "hidden": (), "activation": "hardsigm", "lr": (0.1, 0.05)}


@pytest.mark.parametrize(
    "changes",
    [
        {"nudge": "centered", "optimizer": "adam", "lr": (0.01, 0.01), "schedule": "cosine"},
        {"rule": "c-ep", "nudge": "random-sign", "dropout": 0.3, "input_dropout": 0.2},
        {"rule": "c-ep", "hidden": (70, 60), "lr": (0.1, 0.1, 0.1)},  # of low rank
        {"rule": "vf", "angle": 60.0},
        {"rule": "c-vf", "angle": 60.0, "nudge": "random-sign", "lr": (0.1, 0.05)},
        {"tolerance": 1e-2, "T": 40, "sweeps": True},
        CONV | {"setting": "energy", "rule": "c-ep", "tolerance": 1e-2},
        {"rule": "bptt"},
    ],
    ids=str,
)
@pytest.mark.usefixtures("x64", "quick_compilation")
def test_each_replica_is_the_training_of_its_seed(changes: dict) -> None:
    alone, together, states, examples = trainers(dtype="float64", **changes)
    singles = [two_epochs(alone, copy(state), examples) for state in states]
    stacked = two_epochs(together, together.layout.stack(states), examples)
    for single, replica in zip(singles, together.layout.parts(stacked), strict=True):
        named = jax.tree.leaves_with_path(single)
        for (path, leaf), ours in zip(named, jax.tree.leaves(replica), strict=True):
            np.testing.assert_allclose(
                ours, leaf, rtol=1e-9, atol=1e-11, err_msg=jax.tree_util.keystr(path), strict=True
            )
    # Not for want of learning, nor of a difference between seeds.
    weights = [np.ravel(jax.tree.leaves(s.network)[0]) for s in (*states[:1], *singles)]
    for n, a in enumerate(weights):
        assert all(np.abs(a - b).max() > 1e-3 for b in weights[:n])


@pytest.mark.usefixtures("quick_compilation")
def test_each_replica_is_evaluated() -> None:
    alone, together, states, examples = trainers()
    losses, errors = together.evaluate(together.layout.stack(states).network, examples)
    for state, loss, wrong in zip(states, losses, errors, strict=True):
        expected = alone.evaluate(state.network, examples)
        assert float(loss) == pytest.approx(float(expected[0]))
        assert int(wrong) == int(expected[1])


@pytest.mark.usefixtures("quick_compilation")
def test_a_settled_replica_takes_no_further_steps() -> None:
    """The relaxation of each ends by itself, at its own number of steps."""
    _, together, states, examples = trainers(tolerance=1e-3, T=300)
    # Without weights between the layers there is nothing to wait for.
    still = jax.tree.map(jnp.zeros_like, states[0].network)
    states[0] = eqx.tree_at(lambda s: s.network, states[0], still)
    start = together.layout.stack(states)
    end = together.advance(start, examples, together.order(start, examples), 1)
    assert end.totals["steps"][0] < end.totals["steps"][1]


def test_a_run_of_replicas(tmp_path, monkeypatch, capsys):
    """Stopped and gone on with, it equals one of seeds in turn.

    In double precision: together, products are of other shapes, and where the last bits
    of single precision decide, an example counts as wrong here and as right there.
    """
    double = (*TOGETHER, "--dtype", "float64")
    turn, run = tmp_path / "turn", tmp_path / "run"
    assert train(turn, "--epochs", "2", *double, "--replicas", "in-turn") == 0
    capsys.readouterr()
    save_often(monkeypatch)
    signal_in(monkeypatch, 3)
    assert train(run, "--epochs", "2", *double) == 130
    assert f"eqprop resume {run}" in one_line(capsys.readouterr().err)
    monkeypatch.undo()
    assert main(["resume", str(run)]) == 0
    output = capsys.readouterr().out
    assert read_record(run).together
    assert "seeds 0, 1, 2 together, from epoch 1, minibatch " in output
    rows = []
    for seed in range(3):
        ours, theirs = run / f"seed-{seed}", turn / f"seed-{seed}"
        assert read_record(ours).seeds == (seed,)
        assert len(read_record(ours).resumed) == 1
        for name, expected in state_of(theirs).items():
            np.testing.assert_allclose(state_of(ours)[name], expected, rtol=1e-9, atol=1e-11)
        for row, expected in zip(metrics_of(ours), metrics_of(theirs), strict=True):
            assert row.pop("angles") == expected.pop("angles") == {}
            assert row == pytest.approx(expected, rel=1e-9, abs=1e-11)
        rows.append(read_metrics(ours)[-1])
    errors = [row["test_error"] for row in rows]
    spread_ = f"{np.mean(errors):.2f} ± {np.std(errors, ddof=1):.2f} %"
    loss = show_mean_and_std([row["train_loss"] for row in rows], ".4f")
    assert f"  loss {loss}  steps 30.0+10" in output
    assert output.count(f"test {spread_}") == 1
    assert f"test error {spread_}" in output
    summary = json.loads((run / "summary.json").read_text())
    assert [row["epoch"] for row in summary] == [1, 2]
    assert summary[-1]["test_error"]["std"] == pytest.approx(np.std(errors, ddof=1))
    # A seed's own folder is a run as any other.
    assert main(["evaluate", str(run / "seed-2")]) == 0
    assert main(["resume", str(run / "seed-2"), "--epochs", "3"]) == 0
    assert len(read_metrics(run / "seed-2")) == 3


def test_resume_is_exact_from_wherever_a_kill_has_left_the_seeds(tmp_path, monkeypatch, capsys):
    oracle, run = tmp_path / "oracle", tmp_path / "run"
    assert train(oracle, "--epochs", "3", *TOGETHER) == 0
    save_often(monkeypatch)
    signal_in(monkeypatch, 4)
    assert train(run, "--epochs", "3", *TOGETHER) == 130
    monkeypatch.undo()
    *_, before, last = checkpoints(run / "seed-0")
    # Killed when seed 0 was saved, and the others were not yet; and on a disk that loses bits.
    (run / "seed-1" / "checkpoints" / last.name).unlink()
    (run / "seed-2" / "checkpoints" / last.name).write_text("{}")
    capsys.readouterr()
    assert main(["resume", str(run)]) == 0
    first = read_record(run / "seed-0").resumed[0]
    assert f"{first.epoch:04}-{first.minibatch:05}" == before.stem
    for seed in range(3):
        ours, theirs = (state_of(r / f"seed-{seed}") for r in (run, oracle))
        for name, expected in theirs.items():
            np.testing.assert_array_equal(ours[name], expected, err_msg=name, strict=True)
        assert metrics_of(run / f"seed-{seed}") == metrics_of(oracle / f"seed-{seed}")


def test_seeds_that_have_gone_apart(tmp_path, capsys):
    run = tmp_path / "run"
    assert train(run, "--epochs", "1", *TOGETHER) == 0
    ends = [state_of(run / f"seed-{seed}") for seed in range(3)]
    # As a first save leaves them that was cut short.
    shutil.rmtree(run / "seed-1" / "checkpoints")
    assert main(["resume", str(run)]) == 0
    for seed, end in enumerate(ends):
        for name, leaf in state_of(run / f"seed-{seed}").items():
            np.testing.assert_array_equal(leaf, end[name], strict=True)
    for epochs in ("2", "3", "4"):
        assert main(["resume", str(run / "seed-1"), "--epochs", epochs]) == 0
    capsys.readouterr()
    assert main(["resume", str(run), "--epochs", "5"]) == 1
    assert "go on with each alone" in one_line(capsys.readouterr().err)
    assert len(read_metrics(run / "seed-1")) == 4


def test_a_seed_that_has_gone_on_alone_loses_nothing(tmp_path, monkeypatch, capsys):
    """Neither beyond the last epoch of the others, nor to it where these stay behind."""
    run, behind = tmp_path / "run", tmp_path / "behind"
    assert train(run, "--epochs", "2", *TOGETHER) == 0
    assert main(["resume", str(run / "seed-0"), "--epochs", "4"]) == 0
    signal_in(monkeypatch, 3)
    assert train(behind, "--epochs", "3", *TOGETHER) == 130
    monkeypatch.undo()
    save_often(monkeypatch)
    assert main(["resume", str(behind / "seed-0")]) == 0
    monkeypatch.undo()
    capsys.readouterr()
    for folder, rows in ((run, 4), (behind, 3)):
        assert main(["resume", str(folder)]) == 1
        assert "go on with each alone" in one_line(capsys.readouterr().err)
        assert len(read_metrics(folder / "seed-0")) == rows


def test_a_seed_that_diverges_is_named_and_the_others_are_kept(tmp_path, monkeypatch, capsys):
    def lay_out(experiment: Experiment, layout: Layout) -> Experiment:
        trainer = experiment.trainer.lay_out(layout)
        learn = trainer.advance

        def advance(
            state: TrainState, examples: Examples, order: jax.Array, stop: int
        ) -> TrainState:
            """Loses the weights of the second replica in the 24th minibatch."""
            lost = math.nan if state.position[1] <= 23 < stop else 1.0
            state = learn(state, examples, order, stop)
            spoilt = jax.tree.map(lambda leaf: leaf.at[1].multiply(lost), state.network)
            return eqx.tree_at(lambda s: s.network, state, spoilt)

        monkeypatch.setitem(vars(trainer), "advance", advance)
        return dataclasses.replace(experiment, trainer=trainer)

    monkeypatch.setattr(Experiment, "lay_out", lay_out)
    run = tmp_path / "run"
    assert train(run, "--epochs", "2", *TOGETHER) == 1
    monkeypatch.undo()
    line = one_line(capsys.readouterr().err)
    assert "the training of seed 1 has diverged in epoch 1, minibatch 24 of 75" in line
    assert f"alone: eqprop resume {run / 'seed-0'}" in line
    for seed in range(3):
        (path,) = checkpoints(run / f"seed-{seed}")
        assert 0 < int(path.stem[-5:]) <= 23
        assert all(np.isfinite(a).all() for a in state_of(run / f"seed-{seed}").values())
    assert main(["resume", str(run / "seed-0")]) == 0
    assert len(read_metrics(run / "seed-0")) == 2


def test_the_replica_whose_states_diverge_is_found(tmp_path):
    assert train(tmp_path, "--epochs", "1", *TOGETHER) == 0
    experiment = experiment_of(tmp_path).lay_out(Layout(2))
    state = experiment.trainer.layout.stack([experiment.start(seed) for seed in (0, 1)])
    shape = state.network.edges[0].connection.weight.shape
    spoilt = jax.tree.map(
        lambda leaf: leaf.at[1, 0, 0].set(math.nan) if leaf.shape == shape else leaf, state
    )
    assert whole(state)
    assert not whole(spoilt)
    found = find(
        experiment.trainer,
        experiment.train,
        experiment.trainer.order(state, experiment.train),
        spoilt,
        1,
    )
    assert found == (0, "the states of layer 1, in step 1 of the free phase,", 1)


def test_a_record_of_before_there_were_replicas(tmp_path):
    run = tmp_path / "run"
    assert train(run, "--epochs", "1", "--seeds", "2") == 0
    path = run / "run.json"
    record = json.loads(path.read_text())
    assert record.pop("together") is False  # in turn, on a CPU
    path.write_text(json.dumps(record))
    assert main(["resume", str(run), "--epochs", "2"]) == 0
    assert [len(read_metrics(run / f"seed-{seed}")) for seed in (0, 1)] == [2, 2]


def test_sigterm_once_stops_all(tmp_path, monkeypatch):
    whole_ = session.whole
    monkeypatch.setattr(session, "_STRETCH", 0.0)

    def look(state: TrainState) -> bool:
        if state.position == (0, 2):
            os.kill(os.getpid(), signal.SIGTERM)
        return whole_(state)

    monkeypatch.setattr(session, "whole", look)
    assert train(tmp_path / "run", "--epochs", "1", *TOGETHER) == 143
    assert [checkpoints(tmp_path / "run" / f"seed-{n}")[0].name for n in range(3)] == [
        "0000-00002.safetensors"
    ] * 3
