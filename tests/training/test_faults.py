"""Disks that are full or read-only. Oracle: a training that was not interrupted.

The faults are the system's own: ``/dev/full``, a small tmpfs, a read-only mount, a file in the
place of a folder.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from trainings import (
    _compile_once,  # noqa: F401
    assert_same,
    checkpoints,
    happens_in,
    one_line,
    oracle,  # noqa: F401
    save_often,
    train,
)

from eqprop.cli.main import main

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for the first few checkpoints of a training, of the four that it needs."""
    folder = tmp_path / "disk"
    folder.mkdir()
    _mount("-t", "tmpfs", "-o", "size=36k", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def read_only(oracle: Path, tmp_path: Path) -> Iterator[Path]:
    """A finished run that nobody can write, not even root."""
    run = tmp_path / "run"
    shutil.copytree(oracle, run)
    if os.geteuid():
        folders = [run, *(path for path in run.rglob("*") if path.is_dir())]
        for path in folders:
            path.chmod(0o555)
        (run / ".lock").chmod(0o444)
        yield run
        for path in folders:
            path.chmod(0o755)
        return
    _mount("--bind", str(run), str(run))
    try:
        _mount("-o", "remount,bind,ro", str(run))
        yield run
    finally:
        subprocess.run(["umount", str(run)], check=True)


def test_a_disk_that_fills_up(small_disk, oracle, monkeypatch, capsys):
    run = small_disk / "run"
    save_often(monkeypatch)
    assert train(run, "--epochs", "3") == 1
    line = one_line(capsys.readouterr().err)
    assert str(run) in line
    assert "No space left on device" in line
    assert "eqprop resume" in line
    assert main(["evaluate", str(run)]) == 0
    assert main(["resume", str(run)]) == 1  # there is no more room than there was
    assert "No space left on device" in one_line(capsys.readouterr().err)
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    assert main(["resume", str(run)]) == 0
    assert_same(run, oracle)


@pytest.mark.parametrize("place", ["metrics.jsonl", "events"])
def test_metrics_that_cannot_be_written(place, oracle, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"

    def spoil() -> None:
        (run / place).unlink(missing_ok=True)
        (run / place).symlink_to("/dev/full")

    happens_in(monkeypatch, 1, spoil)
    assert train(run, "--epochs", "3") == 1
    line = one_line(capsys.readouterr().err)
    assert f"{run / place} cannot be written" in line
    assert "eqprop resume" in line
    (run / place).unlink()
    monkeypatch.undo()
    assert main(["resume", str(run)]) == 0
    assert_same(run, oracle)


@pytest.mark.parametrize("stretch", [1, 2, 5])
@pytest.mark.parametrize("replaced", [True, False])
def test_a_directory_that_is_moved(stretch, replaced, oracle, tmp_path, monkeypatch, capsys):
    """What has come in its place is left alone: its metrics were added to, and its checkpoints
    deleted for being from further on.
    """
    run, moved = tmp_path / "run", tmp_path / "moved"

    def move() -> None:
        run.rename(moved)
        if replaced:
            shutil.copytree(oracle, run)

    with monkeypatch.context() as during:
        save_often(during)
        happens_in(during, stretch, move)
        assert train(run, "--epochs", "3") == 1
    line = one_line(capsys.readouterr().err)
    assert f"{run} was moved, deleted or replaced" in line
    assert run.exists() == replaced
    if replaced:
        assert_same(run, oracle)
        assert checkpoints(run) == [run / "checkpoints" / "0003-00000.safetensors"]
    assert main(["resume", str(moved)]) == 0
    assert_same(moved, oracle)


def test_a_record_that_cannot_be_written(oracle, tmp_path, capsys):
    # What a crash left is no reason to refuse the folder, so this is written first.
    (tmp_path / ".run.json.partial").symlink_to("/dev/full")
    assert train(tmp_path, "--epochs", "3") == 2
    line = one_line(capsys.readouterr().err)
    assert f"{tmp_path} cannot be written (No space left on device)" in line
    assert "--out" in line
    run = tmp_path / "run"
    shutil.copytree(oracle, run)
    (run / ".run.json.partial").symlink_to("/dev/full")
    assert main(["resume", str(run), "--epochs", "4"]) == 1
    assert f"{run / 'run.json'} cannot be written" in one_line(capsys.readouterr().err)
    assert_same(run, oracle)


def test_checkpoints_that_cannot_be_written(oracle, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(oracle, run)
    before = checkpoints(run)
    left = ".0004-00000.safetensors.partial"
    (run / "checkpoints" / left).symlink_to("/dev/full")  # is swept away
    (run / "checkpoints" / "keep").touch()  # not ours: stays
    (run / "checkpoints" / ".keep").touch()
    assert main(["resume", str(run), "--epochs", "4"]) == 0
    names = {path.name for path in checkpoints(run)}
    assert names == {".keep", "keep", "0004-00000.safetensors", *(path.name for path in before)}
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").touch()
    capsys.readouterr()
    assert main(["resume", str(run), "--epochs", "4"]) == 1
    assert "could not be written" in one_line(capsys.readouterr().err)


def test_a_directory_that_is_read_only(read_only, capsys):
    before = sorted(read_only.rglob("*"))
    assert main(["resume", str(read_only), "--epochs", "4"]) == 1
    line = one_line(capsys.readouterr().err)
    assert f"{read_only}" in line
    assert "cannot be written" in line
    assert main(["evaluate", str(read_only)]) == 0
    assert train(read_only / "new", "--epochs", "1") == 2
    assert "cannot be written" in one_line(capsys.readouterr().err)
    assert sorted(read_only.rglob("*")) == before


@pytest.mark.parametrize("place", ["/proc/eqprop/run", "{}/file/run"])
def test_no_place_for_a_directory(place, tmp_path, capsys):
    (tmp_path / "file").touch()
    out = Path(place.format(tmp_path))
    assert train(out, "--epochs", "1") == 2
    line = one_line(capsys.readouterr().err)
    assert f"{out} cannot be written" in line
    assert "--out" in line
