"""Oracle: what was saved, and a training that was not interrupted."""

import json
import random
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from trainings import (
    SMALL,
    _compile_once,  # noqa: F401
    assert_same,
    checkpoints,
    digits,
    job_of,
    one_line,
    oracle,  # noqa: F401
    prepare,
    save_often,
    signal_in,
    state_of,
    train,
)

from eqprop.cli.main import main
from eqprop.errors import EqpropError
from eqprop.training import checkpoint


@pytest.fixture(scope="module")
def job(oracle: Path):
    return job_of(oracle)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs, with a checkpoint after every stretch."""
    out = tmp_path_factory.mktemp("saved") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        save_often(monkeypatch)
        assert train(out, "--epochs", "2") == 0
    return out


def copy(run: Path, to: Path) -> Path:
    shutil.copytree(run, to / "run")
    return to / "run"


def test_a_state_comes_back_to_the_last_bit(job, tmp_path):
    state = job.start(7)
    order = job.trainer.order(state, job.train)
    state = job.trainer.advance(state, job.train, order, 5)
    path = checkpoint.save(tmp_path, state, {"seconds": 1.5})
    found = checkpoint.newest(tmp_path, jax.eval_shape(lambda: job.start(7)))
    assert found is not None
    assert found.path == path
    assert found.notes == {"seconds": 1.5}
    assert found.damaged == ()
    assert jax.tree.structure(found.state) == jax.tree.structure(state)
    for ours, theirs in zip(jax.tree.leaves(found.state), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs), strict=True)


@pytest.mark.parametrize("recipe", ["c-vf-1h", "eb-1h"])
@pytest.mark.parametrize("options", [(), ("--dtype", "float64")])
def test_other_states(recipe, options, tmp_path):
    assert train(tmp_path / "a", "--epochs", "1", *options, recipe=recipe) == 0
    weights = [a for name, a in state_of(tmp_path / "a").items() if "weight" in name]
    assert {a.dtype.name for a in weights} == {options[-1] if options else "float32"}


def test_optimizer_memory_is_kept(tmp_path, monkeypatch):
    options = ("--optimizer", "adam", "--lr", "0.002", "0.001", "--schedule", "cosine")
    assert train(tmp_path / "oracle", "--epochs", "2", *options) == 0
    signal_in(monkeypatch, 2)
    assert train(tmp_path / "run", "--epochs", "2", *options) == 1
    monkeypatch.undo()
    assert main(["resume", str(tmp_path / "run")]) == 0
    assert_same(tmp_path / "run", tmp_path / "oracle")


def test_the_newest_few_are_kept_and_readable_by_sha256sum(saved):
    paths = checkpoints(saved)
    assert len(paths) == checkpoint.KEEP
    assert paths[-1].name == "0002-00000"
    if shutil.which("sha256sum"):
        check = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
        subprocess.run(check, cwd=paths[-1], check=True)


def test_every_damaged_file_is_noticed(job, saved, tmp_path):
    like = jax.eval_shape(lambda: job.start(0))
    before = checkpoints(saved)[-2]
    names = [p.relative_to(saved) for p in checkpoints(saved)[-1].rglob("*") if p.is_file()]
    assert len(names) > 10
    chance = random.Random(0)
    run = copy(saved, tmp_path)
    for name in names:
        whole = (run / name).read_bytes()
        at = chance.randrange(len(whole))
        flipped = whole[:at] + bytes([whole[at] ^ 1 << chance.randrange(8)]) + whole[at + 1 :]
        for damage in (flipped, whole[:at], whole + b"\0", None):
            (run / name).unlink() if damage is None else (run / name).write_bytes(damage)
            found = checkpoint.newest(run / "checkpoints", like)
            assert found is not None
            assert found.path.name == before.name
            (message,) = found.damaged
            assert str(run / "checkpoints" / "0002-00000") in message
            (run / name).write_bytes(whole)
    found = checkpoint.newest(run / "checkpoints", like)
    assert found is not None
    assert not found.damaged


@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_resume_from_the_checkpoint_before_a_damaged_one(damage, saved, oracle, tmp_path, capsys):
    run = copy(saved, tmp_path)
    (weight,) = checkpoints(run)[-1].glob("arrays/*edges.0.*weight/0.0")
    content = weight.read_bytes()
    half = len(content) // 2
    end = b"" if damage == "truncate" else bytes([content[half] ^ 4]) + content[half + 1 :]
    weight.write_bytes(content[:half] + end)
    assert main(["resume", str(run), "--epochs", "3"]) == 0
    output = capsys.readouterr().out
    assert "0002-00000 is damaged" in output
    assert "the one before it is used" in output
    assert_same(run, oracle)


def test_no_whole_checkpoint(saved, tmp_path, capsys):
    run = copy(saved, tmp_path)
    for path in checkpoints(run):
        (path / "notes.json").unlink()
    before = sorted(run.rglob("*"))
    assert main(["resume", str(run), "--epochs", "3"]) == 1
    assert "no checkpoint is whole" in one_line(capsys.readouterr().err)
    assert sorted(run.rglob("*")) == before


def test_a_checkpoint_of_another_network(saved, tmp_path, capsys):
    run = copy(saved, tmp_path)
    record = json.loads((run / "run.json").read_text())
    record["recipe"]["hidden"] = [17]
    (run / "run.json").write_text(json.dumps(record))
    for command in (["resume", str(run), "--epochs", "3"], ["evaluate", str(run)]):
        assert main(command) == 1
        line = one_line(capsys.readouterr().err)
        assert "another network" in line
        assert "(64, 16) float32" in line
        assert "(64, 17) float32" in line


def test_a_checkpoint_with_other_layers(job, tmp_path):
    checkpoint.save(tmp_path, job.start(0), {})
    deeper = prepare(replace(job.recipe, hidden=(16, 16), lr=(0.1,) * 3), digits())
    with pytest.raises(
        EqpropError, match=r"edges\.1\.connection\.weight is \(16, 10\) float32 the"
    ):
        checkpoint.newest(tmp_path, jax.eval_shape(lambda: deeper.start(0)))


def test_a_failed_save_leaves_the_earlier_ones(job, tmp_path, monkeypatch):
    state = job.start(0)
    first = checkpoint.save(tmp_path, state, {})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_seal", full)
    with pytest.raises(EqpropError, match=r"0001-00000 could not be written .*No space left"):
        checkpoint.save(tmp_path, job.trainer.next_epoch(state), {})
    assert list(tmp_path.iterdir()) == [first]
    found = checkpoint.newest(tmp_path, jax.eval_shape(lambda: job.start(0)))
    assert found is not None
    assert found.path == first


# Orbax leaves the exceptions of its other threads where nobody asks for them.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_disk_that_is_full(job, tmp_path, capfd):
    first = checkpoint.save(tmp_path, job.start(0), {})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, before[1]))
    try:
        with pytest.raises(EqpropError, match=r"0001-00000 could not be written \(File too large"):
            checkpoint.save(tmp_path, job.trainer.next_epoch(job.start(0)), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert capfd.readouterr() == ("", "")
    like = jax.eval_shape(lambda: job.start(0))
    found = checkpoint.newest(tmp_path, like)
    assert found is not None
    assert found.path == first
    # Threads of Orbax may have left something behind; the next save sweeps it away.
    second = checkpoint.save(tmp_path, job.trainer.next_epoch(job.start(0)), {})
    assert sorted(tmp_path.iterdir()) == [first, second]


def test_nothing_in_a_checkpoint_is_unpickled(saved, job, monkeypatch):
    import pickle

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    assert checkpoint.newest(saved / "checkpoints", jax.eval_shape(lambda: job.start(0)))


# A process that saves after every stretch, so that it is often killed while it saves.
_OFTEN = """
import sys
from eqprop.training import session
from eqprop.cli.main import main
session._SAVE_AFTER_EPOCH = session._SAVE_WITHIN_EPOCH = 0
sys.exit(main(sys.argv[1:]))
"""


def _live_and_die(arguments: list[str], run: Path, life: float) -> bool:
    """Runs a command and kills it that many seconds after it begins to learn; whether it had to."""
    with subprocess.Popen(
        [sys.executable, "-c", _OFTEN, *arguments], stdout=subprocess.PIPE
    ) as own:
        assert own.stdout is not None
        for line in own.stdout:
            if line.startswith(b"compiled"):
                break
        try:
            assert own.wait(life) == 0
        except subprocess.TimeoutExpired:
            own.kill()
            return True
    return False


def _kill_until(kills: int, oracle: Path, run: Path, longest: float) -> None:
    chance = random.Random(kills)
    arguments = ["train", "ep-1h", *SMALL, "--epochs", "40", "--out", str(run)]
    done = 0
    while done < kills:
        if _live_and_die(arguments, run, chance.uniform(0, longest)):
            done += 1
            arguments = ["resume", str(run)]
        else:
            # It lived to the end: once more.
            assert_same(run, oracle)
            shutil.rmtree(run)
            arguments = ["train", "ep-1h", *SMALL, "--epochs", "40", "--out", str(run)]
    assert main(["resume", str(run)]) == 0
    assert_same(run, oracle)


@pytest.fixture(scope="module")
def long_oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("long") / "run"
    assert train(out, "--epochs", "40") == 0
    return out


def test_killed_and_resumed(long_oracle, tmp_path):
    _kill_until(2, long_oracle, tmp_path / "run", 1.0)


@pytest.mark.slow
def test_killed_fifty_times_and_resumed(long_oracle, tmp_path):
    _kill_until(50, long_oracle, tmp_path / "run", 1.5)


def test_an_unreadable_sum_is_damage(saved, job, tmp_path):
    run = copy(saved, tmp_path)
    (checkpoints(run)[-1] / "SHA256SUMS").write_bytes(b"\xff\xfe")
    found = checkpoint.newest(run / "checkpoints", jax.eval_shape(lambda: job.start(0)))
    assert found is not None
    assert len(found.damaged) == 1
