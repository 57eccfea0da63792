"""Oracle: what was saved, and a training that was not interrupted."""

import hashlib
import json
import os
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
from safetensors import safe_open
from safetensors.numpy import load_file
from trainings import (
    SMALL,
    _compile_once,  # noqa: F401
    assert_same,
    checkpoints,
    digits,
    experiment_of,
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
from eqprop.training import checkpoint, files


@pytest.fixture(scope="module")
def experiment(oracle: Path):
    return experiment_of(oracle)


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


def test_a_state_comes_back_to_the_last_bit(experiment, tmp_path):
    state = experiment.start(7)
    order = experiment.trainer.order(state, experiment.train)
    state = experiment.trainer.advance(state, experiment.train, order, 5)
    path = checkpoint.save(tmp_path, state, {"seconds": 1.5})
    found = checkpoint.newest(tmp_path, jax.eval_shape(lambda: experiment.start(7)))
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
    assert train(tmp_path / "run", "--epochs", "2", *options) == 130
    monkeypatch.undo()
    assert main(["resume", str(tmp_path / "run")]) == 0
    assert_same(tmp_path / "run", tmp_path / "oracle")


def test_the_newest_few_are_kept_and_readable_by_others(saved):
    paths = checkpoints(saved)
    assert len(paths) == checkpoint.KEEP
    assert paths[-1].name == "0002-00000.safetensors"
    arrays = load_file(paths[-1])
    state = state_of(saved)
    for n, part in ((0, "weight"), (0, "bias"), (1, "weight"), (1, "bias")):
        ours, theirs = (
            f".network.edges[{n}].connection.{part}",
            f"network.edges.{n}.connection.{part}",
        )
        np.testing.assert_array_equal(arrays[theirs], state[ours], strict=True)
    with safe_open(paths[-1], "np") as file:
        assert json.loads(file.metadata()["notes"]) == {"seconds": 0.0}


def test_every_damaged_byte_is_noticed(experiment, saved, tmp_path):
    like = jax.eval_shape(lambda: experiment.start(0))
    run = copy(saved, tmp_path)
    *_, before, last = checkpoints(run)
    whole = last.read_bytes()
    chance = random.Random(0)
    # In the header, in the metadata, and all over the arrays.
    places = [*range(0, 400, 7), *(chance.randrange(len(whole)) for _ in range(40))]
    damages = [
        whole[:at] + bytes([whole[at] ^ 1 << chance.randrange(8)]) + whole[at + 1 :]
        for at in places
    ]
    for damage in (*damages, b"", whole[:100], whole[:-1], whole + b"\0"):
        last.write_bytes(damage)
        found = checkpoint.newest(run / "checkpoints", like)
        assert found is not None
        assert found.path == before
        (message,) = found.damaged
        assert message.startswith(f"{last} is damaged (")
    last.write_bytes(whole)
    found = checkpoint.newest(run / "checkpoints", like)
    assert found is not None
    assert not found.damaged


@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_resume_from_the_checkpoint_before_a_damaged_one(damage, saved, oracle, tmp_path, capsys):
    run = copy(saved, tmp_path)
    last = checkpoints(run)[-1]
    content = last.read_bytes()
    half = len(content) // 2
    end = b"" if damage == "truncate" else bytes([content[half] ^ 4]) + content[half + 1 :]
    last.write_bytes(content[:half] + end)
    assert main(["resume", str(run), "--epochs", "3"]) == 0
    output = capsys.readouterr().out
    assert "0002-00000.safetensors is damaged" in output
    assert "the one before it is used" in output
    assert_same(run, oracle)


def test_no_whole_checkpoint(saved, tmp_path, capsys):
    run = copy(saved, tmp_path)
    for path in checkpoints(run):
        path.write_bytes(path.read_bytes()[:-1])
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


def test_a_checkpoint_with_other_layers(experiment, tmp_path):
    checkpoint.save(tmp_path, experiment.start(0), {})
    deeper = prepare(replace(experiment.recipe, hidden=(16, 16), lr=(0.1,) * 3), digits())
    with pytest.raises(
        EqpropError, match=r"edges\.1\.connection\.weight is \(16, 10\) float32 the"
    ):
        checkpoint.newest(tmp_path, jax.eval_shape(lambda: deeper.start(0)))


@pytest.mark.parametrize("earlier", [True, False])
def test_a_disk_that_is_full(earlier, experiment, tmp_path, capfd):
    """What there was before is still there, and the error says whether that is a checkpoint."""
    root = tmp_path / "checkpoints"
    kept = [checkpoint.save(root, experiment.start(0), {})] if earlier else []
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, before[1]))
    try:
        with pytest.raises(EqpropError, match=r"could not be written \(File too large") as caught:
            checkpoint.save(root, experiment.trainer.next_epoch(experiment.start(0)), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert ("earlier checkpoints are intact" in str(caught.value)) == earlier
    assert ("there is no earlier one" in str(caught.value)) != earlier
    assert capfd.readouterr() == ("", "")
    assert list(root.iterdir()) == kept
    like = jax.eval_shape(lambda: experiment.start(0))
    found = checkpoint.newest(root, like)
    assert [found.path] == kept if found else not kept
    second = checkpoint.save(root, experiment.trainer.next_epoch(experiment.start(0)), {})
    assert sorted(root.iterdir()) == [*kept, second]


def as_orbax_wrote(path: Path) -> None:
    """Turns a checkpoint into one of the versions before safetensors."""
    folder = path.with_suffix("")
    arrays = {("batch" if name == "minibatch" else name): a for name, a in load_file(path).items()}
    for name, array in arrays.items():
        place = folder / "arrays" / name
        place.mkdir(parents=True)
        about = {
            "chunks": array.shape,
            "compressor": None,
            "dimension_separator": ".",
            "order": "C",
        }
        about |= {"dtype": array.dtype.str, "fill_value": None, "filters": None, "zarr_format": 2}
        (place / ".zarray").write_text(json.dumps(about | {"shape": array.shape}))
        (place / (".".join("0" * array.ndim) or "0")).write_bytes(array.tobytes())
    (folder / "arrays" / "_METADATA").write_text("{}")
    with safe_open(path, "np") as file:
        (folder / "notes.json").write_text(file.metadata()["notes"])
    seal(folder)
    path.unlink()


def seal(folder: Path) -> None:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "SHA256SUMS")
    lines = (
        f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder).as_posix()}\n"
        for p in files
    )
    (folder / "SHA256SUMS").write_text("".join(lines))


@pytest.fixture
def of_old(saved: Path, tmp_path: Path) -> Path:
    """The run of two epochs as an older version has left it."""
    run = copy(saved, tmp_path)
    for path in checkpoints(run):
        as_orbax_wrote(path)
    return run


def test_a_run_of_an_older_version_is_gone_on_with(of_old, oracle):
    *_, last = before = checkpoints(of_old)
    assert last.name == "0002-00000"
    assert main(["resume", str(of_old), "--epochs", "3"]) == 0
    assert_same(of_old, oracle)
    # They make room as any others do.
    assert [p.name for p in checkpoints(of_old)] == [
        *(p.name for p in before[1:]),
        "0003-00000.safetensors",
    ]


def test_every_damaged_file_of_an_older_version_is_noticed(experiment, of_old):
    like = jax.eval_shape(lambda: experiment.start(0))
    *_, before, last = checkpoints(of_old)
    names = [p for p in last.rglob("*") if p.is_file()]
    assert len(names) > 10
    chance = random.Random(0)
    for path in names:
        whole = path.read_bytes()
        at = chance.randrange(len(whole))
        flipped = whole[:at] + bytes([whole[at] ^ 1 << chance.randrange(8)]) + whole[at + 1 :]
        for damage in (flipped, whole[:at], whole + b"\0", b"\xff\xfe", None):
            path.unlink() if damage is None else path.write_bytes(damage)
            found = checkpoint.newest(of_old / "checkpoints", like)
            assert found is not None
            assert found.path == before
            assert f"{last} is damaged" in found.damaged[0]
            path.write_bytes(whole)


@pytest.mark.parametrize(
    ("change", "content"),
    [
        ({"chunks": [2**40, 2**40]}, None),
        ({"chunks": [32, 16]}, None),
        ({"compressor": {"id": "zstd", "level": 1}}, b"\x28\xb5\x2f\xfd\xa4\xff\xff\xff\x7f\x03\0"),
        ({"shape": [2**30, 2**30], "chunks": [2**30, 2**30]}, None),
        ({"filters": [{"id": "delta"}]}, None),
        ({"order": "F"}, None),
        ({"dtype": "|O"}, None),
        ({}, b""),
    ],
)
def test_a_checkpoint_of_old_takes_no_more_memory_than_it_has_bytes(
    change, content, experiment, of_old
):
    last = checkpoints(of_old)[-1]
    weight = last / "arrays" / "network.edges.0.connection.weight"
    record = json.loads((weight / ".zarray").read_text()) | change
    (weight / ".zarray").write_text(json.dumps(record))
    if content is not None:
        (weight / "0.0").write_bytes(content)
    seal(last)
    like = jax.eval_shape(lambda: experiment.start(0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(EqpropError, match=r"cannot be read|another network"):
        checkpoint.newest(of_old / "checkpoints", like)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024  # KiB


def test_nothing_in_a_checkpoint_is_unpickled(saved, experiment, monkeypatch):
    import pickle

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    assert checkpoint.newest(saved / "checkpoints", jax.eval_shape(lambda: experiment.start(0)))


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


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """What a loss of power asks for: all of the content, then the name, then the folder."""
    told, fsync, replace = [], os.fsync, Path.replace

    def sync(number: int) -> None:
        path = Path(f"/proc/self/fd/{number}").resolve()
        told.append(("synced", path, path.read_bytes() if path.is_file() else b""))
        fsync(number)

    def rename(path: Path, target: Path) -> Path:
        told.append(("renamed", path, target.name.encode()))
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", rename)
    path = tmp_path / "file"
    files.write_whole(path, b"content")
    hidden = files.partial(path)
    assert told == [
        ("synced", hidden, b"content"),
        ("renamed", hidden, b"file"),
        ("synced", tmp_path, b""),
    ]
    # And the metrics of an epoch before its checkpoint.
    told.clear()
    assert train(tmp_path / "run", "--epochs", "1") == 0
    metrics = tmp_path / "run" / "metrics.jsonl"
    (row,) = (n for n, it in enumerate(told) if it == ("synced", metrics, metrics.read_bytes()))
    names = [name for _, _, name in told]
    assert row < names.index(b"0001-00000.safetensors")
