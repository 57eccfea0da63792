"""Small trainings through the command line, and what they leave behind, for comparison."""

import functools
import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from eqprop.cli.main import main
from eqprop.data import named as data
from eqprop.data.dataset import Dataset
from eqprop.networks.energy import Own
from eqprop.recipes.recipe import Recipe
from eqprop.training import announcements, experiment, launch, session
from eqprop.training.experiment import Experiment
from eqprop.training.replicas import Layout
from eqprop.training.restore import load
from eqprop.training.run_data import load_again
from eqprop.training.runs import read_metrics, read_record
from eqprop.training.trainer import Trainer

SMALL = ("--dataset", "digits", "--hidden", "16")

digits = functools.cache(functools.partial(data.load, "digits"))


@functools.cache
def _compiled(recipe: Recipe) -> Experiment:
    return _prepare(recipe, digits())


def prepare(recipe: Recipe, dataset: Dataset, own: Own | None = None) -> Experiment:
    """As in eqprop, but with the programs that an earlier test has compiled."""
    if dataset.name != "digits" or own is not None:
        return _prepare(recipe, dataset, own)
    # The name is no part of a program, nor are the epochs unless a schedule ends with them.
    epochs = 1 if recipe.schedule == "constant" else recipe.epochs
    return replace(_compiled(replace(recipe, name="", about="", epochs=epochs)), recipe=recipe)


def lay_out(experiment: Experiment, layout: Layout) -> Experiment:
    """As in eqprop, but compiled once."""
    if layout == experiment.trainer.layout:
        return experiment
    key = experiment.trainer, layout
    if key not in _laid_out:
        _laid_out[key] = _lay_out(experiment, layout)
    return replace(_laid_out[key], recipe=experiment.recipe)


_prepare, _lay_out = experiment.prepare, Experiment.lay_out
_laid_out: dict[tuple[Trainer, Layout], Experiment] = {}


@pytest.fixture(scope="module", autouse=True)
def _compile_once() -> Iterator[None]:
    """Imported by each module of tests that trains a lot."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for module in (launch, experiment):
            monkeypatch.setattr(module, "prepare", prepare)
        monkeypatch.setattr(Experiment, "lay_out", lay_out)
        # It takes longer than these trainings, and has a test of its own.
        monkeypatch.setattr(announcements, "training_curves", lambda folders, out, title: out)
        yield


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three epochs, not interrupted."""
    out = tmp_path_factory.mktemp("oracle") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        # On a slow machine there might be checkpoints on the way.
        monkeypatch.setattr(session, "_SAVE_AFTER_EPOCH", float("inf"))
        assert train(out, "--epochs", "3") == 0
    return out


def train(out: Path, *options: str, recipe: str = "ep-1h") -> int:
    return main(["train", recipe, *SMALL, "--out", str(out), *options])


def experiment_of(run: Path) -> Experiment:
    record = read_record(run)
    own = record.recipe.dataset == "own"
    return prepare(record.recipe, load_again(run, record.data) if own else digits())


def state_of(run: Path) -> dict[str, np.ndarray]:
    """All arrays of the newest checkpoint, by name."""
    record = read_record(run)
    with jax.enable_x64(record.recipe.dtype == "float64"):
        found = load(experiment_of(run), run / "checkpoints", record.seeds[0])
        assert found is not None
        leaves = jax.tree.leaves_with_path(found.state)
        return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def metrics_of(run: Path) -> list[dict[str, Any]]:
    """The metrics but for the time that they took."""
    rows = read_metrics(run)
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in rows]


def assert_same(run: Path, oracle: Path) -> None:
    """Two runs have come to the same weights and metrics, to the last bit."""
    ours, theirs = state_of(run), state_of(oracle)
    assert ours.keys() == theirs.keys()
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name, strict=True)
    assert json.dumps(metrics_of(run)) == json.dumps(metrics_of(oracle))


def assert_close(run: Path, oracle: Path) -> None:
    """Two runs have come to the same but for rounding: with other numbers of threads, sums are made
    in another order.
    """
    ours, theirs = state_of(run), state_of(oracle)
    assert ours.keys() == theirs.keys()
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-5, err_msg=name)
    epochs = [[row["epoch"] for row in metrics_of(place)] for place in (run, oracle)]
    assert epochs[0] == epochs[1]


def checkpoints(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").iterdir())


def save_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes a checkpoint after every stretch."""
    monkeypatch.setattr(session, "_SAVE_AFTER_EPOCH", 0.0)
    monkeypatch.setattr(session, "_SAVE_WITHIN_EPOCH", 0.0)


def happens_in(monkeypatch: pytest.MonkeyPatch, stretch: int, event: Callable[[], object]) -> None:
    """Something happens within a stretch, the first one counted as 1."""
    count = -1  # the compilation, before the first stretch, looks as well
    whole = session.whole

    def look(state: Any) -> bool:
        nonlocal count
        count += 1
        if count == stretch:
            event()
        return whole(state)

    monkeypatch.setattr(session, "whole", look)


def signal_in(
    monkeypatch: pytest.MonkeyPatch, stretch: int, number: signal.Signals = signal.SIGINT
) -> None:
    """Sends this process a signal within a stretch."""
    happens_in(monkeypatch, stretch, lambda: os.kill(os.getpid(), number))


def one_line(text: str) -> str:
    """What was printed, which must be an error of one line, and one that was expected."""
    (line,) = text.splitlines()
    assert line.startswith("eqprop: ")
    assert not line.startswith("eqprop: internal error")
    return line
