"""Many hosts: two processes on this machine. Oracle: the training of one process."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from trainings import (
    _compile_once,  # noqa: F401
    experiment_of,
    metrics_of,
    oracle,  # noqa: F401
    state_of,
    train,
)

from eqprop.cli.main import main
from eqprop.training import hosts
from eqprop.training.restore import restore
from eqprop.training.runs import Run, read_record
from eqprop.training.trainer import TrainState

SETTINGS = ["--dataset", "digits", "--hidden", "16", "--batch", "64", "--seeds", "2"]


def start(folder: Path, command: list[str], process: int, port: int) -> subprocess.Popen:
    """One of two processes, each with two simulated devices and all that it says in a file."""
    place = ["--coordinator", f"localhost:{port}", "--processes", "2", "--process", str(process)]
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
    }
    with (folder / f"{process}.txt").open("a") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "eqprop", *command, *place],
            env=environment,
            stdout=said,
            stderr=said,
        )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def wait_for(condition, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
def test_one_of_two_processes_is_killed_and_one_goes_on(tmp_path, capsys):
    run, port = tmp_path / "run", free_port()
    command = ["train", "ep-1h", *SETTINGS, "--epochs", "100000", "--out", str(run)]
    processes = [start(tmp_path, command, n, port) for n in range(2)]
    try:
        # A first checkpoint comes with SIGTERM to one: it stops both.
        wait_for(lambda: metrics_of(run / "seed-1"))
        processes[1].send_signal(signal.SIGTERM)
        assert [process.wait(120) for process in processes] in ([1, 143], [143, 1])
        said = (tmp_path / "0.txt").read_text()
        assert "4 of 4 devices, each with 1 of 2 seeds and 32 of 64 examples" in said
        assert f"to go on: eqprop resume {run}" in said
        assert "epoch" not in (tmp_path / "1.txt").read_text().replace("in epoch", "")
        done = len(metrics_of(run / "seed-0"))

        port = free_port()
        processes = [start(tmp_path, ["resume", str(run)], n, port) for n in range(2)]
        wait_for(lambda: len(metrics_of(run / "seed-1")) > done)
        processes[1].kill()
        assert processes[0].wait(120) != 0
        assert "another process of this training is lost" in (tmp_path / "0.txt").read_text()
    finally:
        for process in processes:
            process.kill()
    # Here there is one device, and a checkpoint knows of no number of them.
    epochs = str(len(metrics_of(run / "seed-0")) + 1)
    capsys.readouterr()
    assert main(["resume", str(run), "--epochs", epochs]) == 0
    assert "the number of devices was 4 and is 1" in capsys.readouterr().out
    oracle = tmp_path / "oracle"
    command = ["train", "ep-1h", *SETTINGS, "--replicas", "together", "--out", str(oracle)]
    assert main([*command, "--epochs", epochs]) == 0
    for seed in ("seed-0", "seed-1"):
        for name, expected in state_of(oracle / seed).items():
            np.testing.assert_allclose(state_of(run / seed)[name], expected, rtol=1e-2, atol=1e-3)
        for ours, theirs in zip(metrics_of(run / seed), metrics_of(oracle / seed), strict=True):
            assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-3)


@pytest.mark.parametrize("epochs", [0, 1])
@pytest.mark.parametrize("begun", [(), ("--from", "{}")])
def test_all_processes_restore_the_same(begun, epochs, oracle, tmp_path, monkeypatch):
    """The first one sends as often as the others listen, wherever a training stands."""
    run = tmp_path / "run"
    assert train(run, *(word.format(oracle) for word in begun), "--epochs", "1") == 0
    if not epochs:
        shutil.rmtree(run / "checkpoints")
    sent = []

    def send(tree):
        sent.append(tree)
        return tree

    def listen(tree):
        assert jax.tree.structure(tree) == jax.tree.structure(sent[0])
        return sent.pop(0)

    def restored(process: int, talk, held: Run) -> TrainState:
        place = SimpleNamespace(process_count=lambda: 2, process_index=lambda: process)
        with held, monkeypatch.context() as alone:
            alone.setattr(hosts, "jax", place)
            alone.setattr(hosts.multihost_utils, "broadcast_one_to_all", talk)
            return restore(experiment_of(run), [held], [0])[0].state

    first = restored(0, send, Run.resume(run))
    assert sent
    other = restored(1, listen, Run.watch(run, read_record(run)))
    assert not sent
    assert first.position == other.position == (epochs, 0)
    for ours, theirs in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_processes_that_do_not_come_together(capsys, tmp_path):
    command = ["train", "ep-1h", *SETTINGS, "--out", str(tmp_path / "run")]
    assert main([*command, "--coordinator", "auto"]) == 1
    line = capsys.readouterr().err
    assert "do not come together" in line
    assert "--coordinator HOST:PORT" in line
    assert not (tmp_path / "run").exists()


def test_a_series_comes_together_before_jax_does_anything(tmp_path):
    """In a process of its own, which alone may begin."""
    fields = ["--dataset", "digits", "--hidden", "8", "--epochs", "1", "--T", "5", "--K", "2"]
    place = ["--coordinator", f"localhost:{free_port()}", "--processes", "1", "--process", "0"]
    command = ["train", "c-vf-1h-angle", *fields, *place, "--out", str(tmp_path / "out")]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-m", "eqprop", *command], env=environment, check=True)
    assert len(list((tmp_path / "out").glob("*/metrics.jsonl"))) > 1
