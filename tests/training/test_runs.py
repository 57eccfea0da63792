"""Run directories, signals, seeds, divergence. Oracle: a training that was not interrupted."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trainings import (
    SMALL,
    _compile_once,  # noqa: F401
    assert_same,
    checkpoints,
    digits,
    experiment_of,
    metrics_of,
    one_line,
    oracle,  # noqa: F401
    save_often,
    signal_in,
    state_of,
    train,
)

from eqprop.cli.main import main
from eqprop.data import named as data
from eqprop.errors import EqpropError
from eqprop.training import announcements, checkpoint, launch, records, session
from eqprop.training.experiment import evaluate
from eqprop.training.figures import training_curves
from eqprop.training.runs import Run, check_new, read_metrics, read_record


def test_what_a_run_leaves_behind(oracle):
    record = json.loads((oracle / "run.json").read_text())
    assert record["recipe"]["hidden"] == [16]
    assert record["recipe"]["published"]["test"] == 2.0
    assert record["seeds"] == [0]
    assert record["data"] | {"sha256": "", "sha256_test": "", "source": ""} == {
        **{"name": "digits", "train": 1500, "test": 297, "image": [8, 8]},
        **{
            "sha256": "",
            "sha256_test": "",
            "source": "",
            "target": "classes",
            "names": list("0123456789"),
        },
        **{"features": [], "input_scaling": {"shift": [0.0], "scale": [255.0]}},
        **{"target_scaling": None, "validation": 0},
    }
    assert record["origin"] is None
    started = record["started"]
    assert started["versions"]["jax"] == jax.__version__
    assert started["versions"]["python"] == sys.version.split()[0]
    assert started["device"]["platform"] == jax.default_backend()
    assert started["command"][:3] == ["eqprop", "train", "ep-1h"]
    assert {"time", "machine", "git"} <= started.keys()
    (events,) = (oracle / "events").iterdir()
    assert b"test_error" in events.read_bytes()
    assert [path.name for path in checkpoints(oracle)] == ["0003-00000.safetensors"]


def test_the_curves_are_drawn(oracle, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(oracle, run)
    monkeypatch.setattr(announcements, "training_curves", training_curves)
    assert main(["resume", str(run)]) == 0
    assert (run / "training.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is full")
def test_curves_that_there_is_no_room_for(oracle, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    shutil.copytree(oracle, run)
    monkeypatch.setattr(announcements, "training_curves", training_curves)
    (run / ".training.png.partial").symlink_to("/dev/full")
    assert main(["resume", str(run)]) == 1
    line = one_line(capsys.readouterr().err)
    assert f"No space left on device: {run / 'training.png'}; make room" in line


def test_a_backend_of_matplotlib_that_is_none(tmp_path):
    """Figures go to files, so it has no say; it was an internal error, after the training."""
    command = ("train", "ep-1h", *SMALL, "--epochs", "1")
    done = subprocess.run(
        [sys.executable, "-m", "eqprop", *command, "--out", str(tmp_path / "run")],
        env=os.environ | {"MPLBACKEND": "nonsense"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run" / "training.png").exists()


def test_the_commit_is_that_of_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert records.made([]).git is None
    for command in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "-m", "one"]):
        author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *author, *command], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert records.made([]).git == {"commit": head.stdout.strip(), "dirty": False}
    Path("new").touch()
    assert records.made([]).git == {"commit": head.stdout.strip(), "dirty": True}


def test_the_metrics_are_right(oracle):
    """Against counting by hand in the final state."""
    experiment, rows = experiment_of(oracle), metrics_of(oracle)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["free_steps"] for row in rows] == [30.0] * 3
    arrays = state_of(oracle)
    first, second = (
        {k: jnp.asarray(arrays[f".network.edges[{n}].connection.{k}"]) for k in ("weight", "bias")}
        for n in (0, 1)
    )
    x = jnp.asarray(digits().test_x.reshape(297, 64) / 255, jnp.float32)
    h, y = jnp.zeros((297, 16)), jnp.zeros((297, 10))
    for _ in range(30):
        into_h = x @ first["weight"] + first["bias"] + y @ second["weight"].T
        into_y = h @ second["weight"] + second["bias"]
        h, y = (1 / (1 + jnp.exp(-4 * (v - 0.5))) for v in (into_h, into_y))
    errors = int(jnp.sum(jnp.argmax(y, axis=1) != digits().test_y))
    assert rows[-1]["test_error"] == pytest.approx(100 * errors / 297)
    target = jax.nn.one_hot(digits().test_y, 10)
    loss = float(jnp.mean(jnp.sum((target - y) ** 2, axis=1)) / 2)
    assert rows[-1]["test_loss"] == pytest.approx(loss, rel=1e-4)
    assert rows[-1]["nudged_steps"] == experiment.recipe.K


def test_settings_of_jax_have_no_effect(oracle, tmp_path):
    """As a user's program or environment may have them for its own sake."""
    with (
        jax.default_prng_impl("rbg"),
        jax.threefry_partitionable(False),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
        jax.transfer_guard("disallow"),
    ):
        assert train(tmp_path / "run", "--epochs", "1") == 0
        assert main(["resume", str(tmp_path / "run"), "--epochs", "3"]) == 0
    assert_same(tmp_path / "run", oracle)


def test_blocks_have_no_effect_on_an_evaluation(oracle, monkeypatch):
    experiment = experiment_of(oracle)
    network = experiment.start(0).network
    (whole_score,) = evaluate(experiment.trainer, network, experiment.train)
    monkeypatch.setattr("eqprop.training.experiment._EVALUATE", 400)
    (score,) = evaluate(experiment.trainer, network, experiment.train)
    assert score["error"] == whole_score["error"]
    assert score["loss"] == pytest.approx(whole_score["loss"], rel=1e-5)
    told = []
    evaluate(experiment.trainer, network, experiment.train, told.append)
    assert told == [0, 400, 800, 1200]


# Stretches of 1, 4, 16 and 54 minibatches make an epoch, in the first at least.
@pytest.mark.parametrize(
    ("stretch", "number"), [(n, signal.SIGINT) for n in (1, 2, 4, 5)] + [(3, signal.SIGTERM)]
)
def test_a_signal_stops_and_resume_goes_on(stretch, number, oracle, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    before = signal.getsignal(number)
    signal_in(monkeypatch, stretch, number)
    assert train(run, "--epochs", "3") == 128 + number
    monkeypatch.undo()
    assert signal.getsignal(number) is before
    line = one_line(capsys.readouterr().err)
    assert number.name in line
    assert line.endswith(f"eqprop resume {run}")
    (path,) = checkpoints(run)
    assert path.stem != "0003-00000"
    assert main(["resume", str(run)]) == 0
    assert "to the last" not in capsys.readouterr().err
    assert_same(run, oracle)
    resumed = read_record(run).resumed
    assert len(resumed) == 1
    assert f"{resumed[0].epoch:04}-{resumed[0].minibatch:05}" == path.stem


def test_a_signal_while_testing(oracle, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("eqprop.training.experiment._EVALUATE", 100)
    signal_in(monkeypatch, 4)  # the end of the first epoch
    assert train(tmp_path / "run", "--epochs", "3") == 130
    assert "with 75 of 75 minibatches" in one_line(capsys.readouterr().err)
    assert read_metrics(tmp_path / "run") == []
    monkeypatch.undo()
    assert main(["resume", str(tmp_path / "run")]) == 0
    assert_same(tmp_path / "run", oracle)


def test_a_signal_in_the_last_save(oracle, tmp_path, monkeypatch, capsys):
    """Nothing is left to learn, but no other seed begins."""

    def save(*args: object) -> Path:
        os.kill(os.getpid(), signal.SIGINT)
        return whole(*args)

    whole = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", save)
    run = tmp_path / "run"
    options = ("--epochs", "3", "--seeds", "2", "--replicas", "in-turn")
    assert train(run, *options) == 130
    assert "after its last epoch; to go on: eqprop resume" in one_line(capsys.readouterr().err)
    assert not (run / "seed-1").exists()
    monkeypatch.undo()
    assert main(["resume", str(run)]) == 0
    assert_same(run / "seed-0", oracle)
    assert len(read_metrics(run / "seed-1")) == 3


def test_cutting_everywhere_changes_nothing(oracle, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "_STRETCH", 0.0)
    run = tmp_path / "run"
    assert train(run, "--epochs", "1") == 0
    assert metrics_of(run) == metrics_of(oracle)[:1]
    monkeypatch.undo()
    assert main(["resume", str(run), "--epochs", "3"]) == 0
    assert_same(run, oracle)


def test_metrics_of_epochs_after_the_checkpoint_are_measured_again(oracle, tmp_path):
    run = tmp_path / "run"
    assert train(run, "--epochs", "1") == 0
    written = (run / "metrics.jsonl").read_text()
    # What a crash leaves: an epoch without its checkpoint, and half a line.
    (run / "metrics.jsonl").write_text(written + written.replace(": 1,", ": 2,", 1) + '{"epo')
    assert main(["resume", str(run), "--epochs", "3"]) == 0
    assert_same(run, oracle)


def test_lost_or_damaged_metrics(oracle, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(oracle, run)
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text(lines[0])
    assert main(["resume", str(run), "--epochs", "4"]) == 1
    assert "end at epoch 1" in one_line(capsys.readouterr().err)
    (run / "metrics.jsonl").write_text(lines[0] + "nonsense\n" + lines[2])
    assert main(["resume", str(run), "--epochs", "4"]) == 1
    assert "metrics.jsonl, line 2" in one_line(capsys.readouterr().err)


def test_a_run_without_a_checkpoint_starts_again(oracle, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(oracle, run)
    shutil.rmtree(run / "checkpoints")
    assert main(["resume", str(run)]) == 0
    assert_same(run, oracle)


def test_a_finished_run_stays_as_it_is(oracle, capsys):
    before = (oracle / "run.json").read_bytes(), (oracle / "metrics.jsonl").read_bytes()
    assert main(["resume", str(oracle)]) == 0
    assert "3 epochs are done" in capsys.readouterr().out
    assert ((oracle / "run.json").read_bytes(), (oracle / "metrics.jsonl").read_bytes()) == before


def test_several_seeds(oracle, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    save_often(monkeypatch)
    signal_in(monkeypatch, 6)
    assert train(run, "--epochs", "3", "--seeds", "2") == 130
    assert f"eqprop resume {run}" in one_line(capsys.readouterr().err)
    monkeypatch.undo()
    assert main(["resume", str(run)]) == 0
    output = capsys.readouterr().out
    assert_same(run / "seed-0", oracle)
    errors = [metrics_of(run / f"seed-{n}")[-1]["test_error"] for n in (0, 1)]
    assert errors[0] != errors[1]
    mean, std = np.mean(errors), np.std(errors, ddof=1)
    assert f"test error {mean:.2f} ± {std:.2f} %" in output
    assert main(["evaluate", str(run)]) == 0
    output = capsys.readouterr().out
    assert all(f"seed {n}, after 3 epochs: test error {errors[n]:.2f} %" in output for n in (0, 1))


def test_the_first_seed(tmp_path):
    assert train(tmp_path / "a", "--epochs", "1", "--seed", "5") == 0
    assert train(tmp_path / "b", "--epochs", "1", "--seed", "4", "--seeds", "2") == 0
    assert_same(tmp_path / "a", tmp_path / "b" / "seed-5")


def test_two_processes_on_one_run(oracle, capsys):
    with Run.resume(oracle):
        assert main(["resume", str(oracle)]) == 1
        line = one_line(capsys.readouterr().err)
        assert "another eqprop process" in line
        assert str(oracle) in line
        assert main(["evaluate", str(oracle)]) == 0  # reads only
    assert main(["resume", str(oracle)]) == 0


def test_the_lock_goes_with_its_process(oracle):
    program = (
        "import sys, time; from pathlib import Path; from eqprop.training.runs import Run;"
        "run = Run.resume(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", program, str(oracle)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(EqpropError, match=f"number {other.pid}"):
            Run.resume(oracle)
        other.kill()
        other.wait()
        Run.resume(oracle).close()


def test_directories_that_exist(oracle, tmp_path):
    with pytest.raises(EqpropError, match=r"not empty.*--out.*eqprop resume"):
        check_new(oracle)
    check_new(tmp_path)
    check_new(tmp_path / "not" / "there")
    # What a crash leaves that came before the first run.json was complete.
    (tmp_path / ".lock").touch()
    (tmp_path / ".run.json.partial").touch()
    check_new(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(EqpropError, match=r"not empty: give another with --out$"):
        check_new(tmp_path)
    with pytest.raises(EqpropError, match="is a file"):
        check_new(tmp_path / "file")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(format=99), "format"),
        (lambda r: r.pop("seeds"), "missing required field `seeds`"),
        (lambda r: r.update(seeds=["0"]), r"got `str` - at `\$\.seeds\[0\]`"),
        (lambda r: r["recipe"].update(beta="much"), r"got `str` - at `\$\.recipe\.beta`"),
        (lambda r: r["recipe"].update(rule="hebb"), r"value \'hebb\' - at `\$\.recipe\.rule`"),
        (lambda r: r["recipe"].update(hidden=16), r"got `int` - at `\$\.recipe\.hidden`"),
        (lambda r: r["recipe"].update(skips=[[1]]), r"got 1 - at `\$\.recipe\.skips\[0\]`"),
        (lambda r: r["recipe"].update(batch=0), "batch is 0"),
        (lambda r: r["recipe"].update(lambda_=1), "recipe.lambda_ is unknown"),
    ],
)
def test_a_damaged_record(change, message, oracle, tmp_path):
    record = json.loads((oracle / "run.json").read_text())
    change(record)
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(EqpropError, match=message):
        read_record(tmp_path)


def test_a_record_comes_back_as_it_was(oracle):
    record = read_record(oracle)
    assert records.from_json(json.loads(json.dumps(records.to_json(record)))) == record


def test_other_data_than_before(oracle, monkeypatch, capsys):
    other = replace(digits(), train_y=digits().train_y[::-1].copy())
    monkeypatch.setattr(data, "load", lambda *_, **__: other)
    assert main(["evaluate", str(oracle)]) == 1
    assert "not the one that the run was trained on" in one_line(capsys.readouterr().err)


def test_digits_stand_in_for_mnist(tmp_path, monkeypatch, capsys):
    asked = []

    def load(name: str, *, fallback: bool = False) -> data.Dataset:
        asked.append((name, fallback))
        return replace(digits(), source="The digits, standing in for MNIST.")

    monkeypatch.setattr(launch.data, "load", load)
    options = ["--hidden", "16", "--epochs", "1", "--out", str(tmp_path / "run")]
    assert main(["train", "ep-1h", *options]) == 0
    assert asked == [("mnist", True)]
    output = capsys.readouterr().out
    assert "standing in for MNIST" in output
    assert "published" not in output
    assert read_record(tmp_path / "run").data.name == "digits"
    assert main(["resume", str(tmp_path / "run")]) == 0
    assert asked[1] == ("digits", False)


@pytest.mark.parametrize(
    ("recipe", "options", "where"),
    [
        ("ep-1h", ("--lr", "1e30", "1e30"), "the weights from layer 0 to layer 1"),
        ("ep-1h", ("--lr", "0.08", "3e38"), "the weights from layer 1 to layer 2"),
        (
            "eb-1h",
            ("--no-clip", "--activation", "hardsigm", "--dt", "1", "--lr", "0.1", "5e7"),
            "train with a smaller --dt than 1, or lower learning rates than --lr 0.1 5",
        ),
        ("ep-1h", ("--beta", "1e6"), "train with a --beta nearer to 0 than 1e+06, or lower"),
        ("ep-1h", ("--beta=-1e6",), "train with a --beta nearer to 0 than -1e+06, or lower"),
    ],
)
def test_divergence(recipe, options, where, tmp_path, monkeypatch, capsys):
    save_often(monkeypatch)
    assert train(tmp_path / "run", "--epochs", "2", *options, recipe=recipe) == 1
    line = one_line(capsys.readouterr().err)
    assert "diverged in epoch 1, minibatch " in line
    assert where in line
    assert "--lr" in line
    last = checkpoints(tmp_path / "run")[-1] if (tmp_path / "run/checkpoints").exists() else "none"
    assert f"Last good checkpoint: {last}" in line
    if last != "none":
        assert all(np.isfinite(a).all() for a in state_of(tmp_path / "run").values())
