"""Seeds as processes. Oracle: the same seeds in turn, and processes that were left alone."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trainings import SMALL, assert_close, assert_same, one_line, train

from eqprop.cli.main import main
from eqprop.errors import EqpropError
from eqprop.training import seed_processes
from eqprop.training.display import Display
from eqprop.training.runs import Run, is_run, read_metrics, read_record
from eqprop.training.session import TimeUp

TWO = ("--seeds", "2", "--replicas", "processes")
LONG = (*TWO, "--epochs", "40")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("processes") / "run"
    assert train(out, *LONG) == 0
    return out


def test_they_come_to_what_seeds_in_turn_come_to(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_turn = tmp_path / "in-turn"
    assert train(in_turn, "--seeds", "2", "--replicas", "in-turn", "--epochs", "40") == 0
    last = capsys.readouterr().out.splitlines()[-2]
    for seed in ("seed-0", "seed-1"):
        assert_close(undisturbed / seed, in_turn / seed)
        assert read_record(undisturbed / seed).seeds == read_record(in_turn / seed).seeds
        assert not read_record(undisturbed / seed).resumed
    assert (undisturbed / "summary.json").exists()
    assert "mean ± std of 2 seeds" in last


def begin(out: Path) -> subprocess.Popen[str]:
    """The command as a process of its own, when both seeds have finished some epochs."""
    command = [sys.executable, "-m", "eqprop", "train", "ep-1h", *SMALL, *LONG, "--out", str(out)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    places = [out / "seed-0", out / "seed-1"]
    wait(lambda: all(is_run(place) and len(read_metrics(place)) >= 3 for place in places))
    return process


def wait(done: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until
        time.sleep(0.05)


def is_free(folder: Path) -> bool:
    """Whether no process holds a run directory."""
    try:
        Run.resume(folder).close()
    except EqpropError:
        return False
    return True


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_or_killed_they_go_on_to_the_same_end(
    how: signal.Signals, undisturbed: Path, tmp_path: Path
) -> None:
    """Killed, the one that started the others leaves none behind."""
    out = tmp_path / "run"
    process = begin(out)
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    expected = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}
    assert process.returncode == expected[how]
    if how != signal.SIGKILL:
        line = one_line(said)
        assert f"stopped by {how.name}" in line
        assert f"eqprop resume {out}" in line
    wait(lambda: is_free(out / "seed-0") and is_free(out / "seed-1"))
    before = [len(read_metrics(out / seed)) for seed in ("seed-0", "seed-1")]
    assert min(before) >= 3
    assert main(["resume", str(out)]) == 0
    for seed in ("seed-0", "seed-1"):
        # The end may have been trained in turn, with as many threads as there are cores.
        assert_close(out / seed, undisturbed / seed)


def test_processes_gone_on_with_are_the_same_to_the_bit(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seed_processes, "_WORTH", 0)
    monkeypatch.setattr(seed_processes, "cores", lambda: 2)
    out = tmp_path / "run"
    process = begin(out)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert main(["resume", str(out)]) == 0
    # Both, but on a machine of one core.
    assert any(read_record(out / seed).resumed for seed in ("seed-0", "seed-1"))
    for seed in ("seed-0", "seed-1"):
        assert_same(out / seed, undisturbed / seed)


def test_a_seed_that_diverges_ends_them_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", *TWO, "--epochs", "3", "--lr", "1e30", "1e30") == 1
    line = one_line(capsys.readouterr().err)
    assert "has diverged in epoch 1" in line
    assert is_free(tmp_path / "run" / "seed-0")
    assert is_free(tmp_path / "run" / "seed-1")


def test_a_seed_that_is_stopped_from_outside_is_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begin_process = seed_processes._Processes.begin

    def begin_and_stop(processes: Any, seed: int) -> None:
        begin_process(processes, seed)
        if seed == 1:
            process, run = processes.running[seed], tmp_path / "run" / "seed-1"

            def stop() -> None:
                wait(lambda: is_run(run) and bool(read_metrics(run)))
                process.terminate()

            threading.Thread(target=stop, daemon=True).start()

    monkeypatch.setattr(seed_processes._Processes, "begin", begin_and_stop)
    assert train(tmp_path / "run", *LONG) == 1
    line = one_line(capsys.readouterr().err)
    assert "the process of seed 1 was stopped; to go on: eqprop resume" in line
    assert len(read_metrics(tmp_path / "run" / "seed-0")) == 40


def test_a_seed_that_cannot_go_on_is_told_of(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    out = tmp_path / "run"
    assert train(out, *TWO, "--epochs", "2") == 0
    for path in (out / "seed-1" / "checkpoints").iterdir():
        path.write_bytes(b"nothing")
    monkeypatch.setattr(seed_processes, "_WORTH", 0)
    monkeypatch.setattr(seed_processes, "cores", lambda: 2)
    assert main(["resume", str(out), "--epochs", "3"]) == 1
    assert "is damaged" in one_line(capsys.readouterr().err)


def test_when_they_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seed_processes, "cores", lambda: 2)
    assert seed_processes.is_worth_it(60_000, 30)
    assert not seed_processes.is_worth_it(1500, 30)
    monkeypatch.setattr(seed_processes, "cores", lambda: 1)
    assert not seed_processes.is_worth_it(60_000, 30)


def test_each_gets_its_share_of_the_cores() -> None:
    one = seed_processes.environment(1, {"XLA_FLAGS": "--mine", "HOME": "here"})
    assert one["OMP_NUM_THREADS"] == one["NPROC"] == "1"
    assert one["XLA_FLAGS"].split() == ["--mine", "--xla_cpu_multi_thread_eigen=false"]
    assert one["HOME"] == "here"
    four = seed_processes.environment(4, {})
    assert four["NPROC"] == "4"
    assert "XLA_FLAGS" not in four


def test_the_number_of_cores_is_that_of_this_process() -> None:
    assert 1 <= seed_processes.cores() <= (os.cpu_count() or 1)


def test_they_heed_their_time(tmp_path: Path) -> None:
    run = tmp_path / "run"
    display = Display()
    with pytest.raises(TimeUp, match=f"time is up; to go on: eqprop resume {run}"):
        seed_processes.train_side_by_side(run, (0, 1), ["eqprop"], display, time.monotonic())
