"""The command line: what it says, and its exit codes, 0 done, 1 failed, 2 bad usage."""

import dataclasses
import gzip
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from trainings import (
    SMALL,
    _compile_once,  # noqa: F401
    digits,
    metrics_of,
    one_line,
    signal_in,
    train,
)

from eqprop.cli import main as cli
from eqprop.cli.main import COMMANDS, main
from eqprop.data.files import DATA_DIR
from eqprop.data.idx import header
from eqprop.errors import EqpropError
from eqprop.recipes.catalogue import RECIPES
from eqprop.recipes.fast import fast
from eqprop.recipes.recipe import Recipe
from eqprop.recipes.series import SERIES
from eqprop.training.display import clock
from eqprop.training.runs import read_record

# What is typed after `eqprop train`, and what its error must name: the value, and the remedy.
BAD = {
    "a hidden layer of no unit": (["ep-1h", "--hidden", "0"], ["(0,)", ">= 1"]),
    "a negative layer": (["ep-2h", "--hidden", "16", "-3"], ["(-3,)", ">= 1"]),
    "beta 0": (["ep-1h", "--beta", "0"], ["beta is 0", "not 0"]),
    "beta not a number": (["ep-1h", "--beta", "nan"], ["beta is nan", "finite"]),
    "T": (["ep-1h", "--T", "0"], ["T is 0", "at least 1"]),
    "T with a tolerance": (["ep-1h", "--T", "-1", "--tolerance", "0.1"], ["T is -1", "at least 1"]),
    "K": (["ep-1h", "--K", "0"], ["K is 0", "at least 1"]),
    "negative dt": (["eb-1h", "--dt", "-0.1"], ["dt is -0.1", "above 0"]),
    "too few rates": (["ep-2h", "--hidden", "9", "8", "--lr", "0.1"], ["1 learning", "one for"]),
    "too many rates": (["ep-1h", "--lr", "1", "2", "3"], ["3 learning", "(1.0, 2.0, 3.0)"]),
    "a negative rate": (["ep-1h", "--lr", "0.1", "-1"], ["-1.0", "at least 0"]),
    "recipe": (["ep-1g"], ["'ep-1g'", "did you mean ep-1h"]),
    "recipe like no other": (["xyz"], ["'xyz'", "choose one of ep-1h, ep-2h"]),
    "field": (["ep-1h", "--bata", "3"], ["'--bata'", "--beta"]),
    "field with =": (["ep-1h", "--hiden=3"], ["'--hiden'", "did you mean --hidden"]),
    "field like no other": (
        ["ep-1h", "--zzzzzz", "3"],
        ["'--zzzzzz'", "--seeds, --seed, --replicas"],
    ),
    "published": (["ep-1h", "--published", "1"], ["unknown option '--published'"]),
    "learning rate": (["ep-1h", "--learning-rate", "1"], ["did you mean --lr?"]),
    "learning rates": (["ep-1h", "--learning_rates=1"], ["did you mean --lr?"]),
    "hidden size": (["ep-1h", "--hidden-size", "9"], ["did you mean --hidden?"]),
    "batch size": (["ep-1h", "--batch-size", "9"], ["did you mean --batch?"]),
    "a pair of one": (["ep-1h", "--skips", "1"], ["--skips", "INT INT", "'1'"]),
    "a number that may be left out": (["ep-1h", "--devices", "x"], ["--devices takes INT:", "'x'"]),
    "a flag with a value": (["ep-1h", "--sweeps=maybe"], ["'maybe'"]),
    "a word too many": (["ep-1h", "5"], ["'5'"]),
    "an option first": (["--beta", "0.1", "ep-1h"], ["recipe comes first", "--beta"]),
    "not a float": (["ep-1h", "--beta", "much"], ["--beta", "'much'"]),
    "not an integer": (["ep-1h", "--T", "3.5"], ["--T", "'3.5'"]),
    "no value": (["ep-1h", "--beta"], ["--beta"]),
    "a choice": (["ep-1h", "--rule", "hebb"], ["'hebb'", "c-ep"]),
    "activation": (["ep-1h", "--activation", "relu"], ["'relu'", "sigm"]),
    "data set": (["ep-1h", "--dataset", "cifar"], ["'cifar'", "mnist"]),
    "batch": (["ep-1h", "--batch", "0"], ["batch is 0"]),
    "batch larger than the data": (["ep-1h", "--batch", "5000"], ["5000", "1500"]),
    "epochs": (["ep-1h", "--epochs", "0"], ["epochs is 0"]),
    "seeds": (["ep-1h", "--seeds", "0"], ["seeds is 0"]),
    "seed": (["ep-1h", "--seed", "-1"], ["seed is -1", "from 0"]),
    "a large seed": (["ep-1h", "--seed", "2147483648"], ["seed is 2147483648", "2147483647"]),
    "angle": (["c-vf-1h", "--angle", "270"], ["270", "0 to 180"]),
    "angle of a tied rule": (["ep-1h", "--angle", "30"], ["angle is 30", "vf"]),
    "continual and centered": (["c-ep-1h", "--nudge", "centered"], ["Centered", "one-sided"]),
}


@pytest.mark.parametrize(("typed", "named"), BAD.values(), ids=BAD.keys())
def test_bad_input(typed, named, tmp_path, capsys):
    out = tmp_path / "run"
    dataset = [] if "--dataset" in typed else ["--dataset", "digits"]
    assert main(["train", *typed, *dataset, "--out", str(out)]) == 2
    line = one_line(capsys.readouterr().err)
    for part in named:
        assert part in line
    assert not out.exists()


def test_a_run_directory_that_exists(tmp_path, capsys):
    (tmp_path / "precious").touch()
    assert train(tmp_path) == 2
    line = one_line(capsys.readouterr().err)
    assert str(tmp_path) in line
    assert "--out" in line
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    assert train(tmp_path / "precious") == 2
    assert "is a file" in one_line(capsys.readouterr().err)


def test_a_run_that_exists(tmp_path, capsys):
    assert train(tmp_path / "run", "--epochs", "1") == 0
    capsys.readouterr()
    assert train(tmp_path / "run", "--epochs", "1") == 2
    assert f"eqprop resume {tmp_path / 'run'}" in one_line(capsys.readouterr().err)


def test_data_of_the_wrong_shape(tmp_path, monkeypatch, capsys):
    """Files in the place of MNIST, with images of 10x10."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    for part, n in (("train", 30), ("t10k", 20)):
        for kind, shape in (("images-idx3", (n, 10, 10)), ("labels-idx1", (n,))):
            content = header(shape) + np.zeros(shape, np.uint8).tobytes()
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(content))
    monkeypatch.setenv(DATA_DIR, str(tmp_path))
    assert main(["train", "ep-1h", "--out", str(tmp_path / "run")]) == 1
    line = one_line(capsys.readouterr().err)
    assert "train-images" in line
    assert str(folder) in line


@pytest.mark.parametrize("command", ["resume", "evaluate"])
def test_a_name_that_is_too_long(command, capsys):
    assert main([command, "9" * 5000]) == 2
    assert "run.json" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("command", ["resume", "evaluate"])
def test_what_is_no_run(command, tmp_path, capsys):
    assert main([command, str(tmp_path)]) == 2
    line = one_line(capsys.readouterr().err)
    assert str(tmp_path) in line
    assert "run.json" in line
    assert main([command]) == 2
    assert "RUN" in one_line(capsys.readouterr().err)
    assert main([command, str(tmp_path), "more"]) == 2
    assert "'more'" in one_line(capsys.readouterr().err)
    assert main([command, str(tmp_path), "--lr", "1"]) == 2  # not --run, which is no option
    line = one_line(capsys.readouterr().err)
    assert "'--lr'" in line
    assert "--run" not in line


def test_a_run_without_a_checkpoint_cannot_be_evaluated(tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    assert train(run, "--epochs", "1") == 0
    capsys.readouterr()
    for path in (run / "checkpoints").iterdir():
        path.rename(tmp_path / "away")
    assert main(["evaluate", str(run)]) == 1
    assert "no checkpoint yet" in one_line(capsys.readouterr().err)


def test_fewer_epochs_than_done(tmp_path, capsys):
    run = tmp_path / "run"
    assert train(run, "--epochs", "2") == 0
    assert main(["resume", str(run), "--epochs", "1"]) == 2
    assert "epochs is 1, but 2 are done" in one_line(capsys.readouterr().err)
    assert read_record(run).recipe.epochs == 2
    assert main(["resume", str(run), "--epochs", "0"]) == 2
    assert "epochs is 0" in one_line(capsys.readouterr().err)


def test_fewer_epochs_than_what_is_learnt(tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    signal_in(monkeypatch, 5)  # in the second epoch
    assert train(run, "--epochs", "2") == 130
    monkeypatch.undo()
    capsys.readouterr()
    assert main(["resume", str(run), "--epochs", "1"]) == 2
    line = one_line(capsys.readouterr().err)
    assert re.search(r"epochs is 1, but 1 and \d+ minibatches are done: give more", line)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_mistake_is_one_line_on_every_terminal(encoding, tmp_path):
    command = [sys.executable, "-m", "eqprop", "train", "ep-1h", "--rule", "hebb"]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    line = one_line(done.stderr.decode())
    rules = (
        "choose one of ep, c-ep, vf, c-vf, aep, c-aep, bptt, rbp (see eqprop train ep-1h --help)"
    )
    assert line == f"eqprop: --rule is 'hebb': {rules}"
    listed = subprocess.run(
        [*command[:3], "list"], capture_output=True, env=environment, check=False
    )
    assert listed.returncode == 0


def test_help(capsys):
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    assert all(f"eqprop {command.usage}" in output for command in COMMANDS.values())
    assert main([]) == 2
    assert main(["trian"]) == 2
    assert "did you mean train?" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    assert main([command, "--help"]) == 0
    assert f"usage: eqprop {command}" in capsys.readouterr().out


def test_help_of_a_recipe_lists_every_field(capsys):
    assert main(["train", "--help"]) == 0
    output = capsys.readouterr().out
    assert all(f"  {name} " in output for name in RECIPES)
    assert main(["train", "ep-2h", "--help"]) == 0
    output = capsys.readouterr().out
    for field in dataclasses.fields(Recipe):
        shown = f"--{field.name.replace('_', '-')}" in output
        assert shown == (field.name not in {"model", "published"})
    assert "0.2 0.05 0.005" in output
    assert "Nudging strength." in output


def test_list(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, recipe in RECIPES.items():
        (line,) = (line for line in lines if line.startswith(f"{name} "))
        if recipe.published:
            assert f"{recipe.published.test:.2f} ± {recipe.published.std:.2f} %" in line


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_list_fits_the_terminal(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert columns < 80 or max(map(len, lines)) <= columns
    shown = " ".join(" ".join(lines).split())
    for name, recipe in (*RECIPES.items(), *SERIES.items()):
        assert f"{name} " in shown
        assert recipe.about in shown


def test_fields_reach_the_recipe(tmp_path):
    options = {
        "--lr": "0.1 0.05", "--beta": "-0.2", "--sweeps": "true", "--tolerance": "1e-2",
        "--weight_decay": "0.001", "--optimizer": "momentum", "--clip": "False",
    }  # fmt: skip
    typed = [part for name, value in options.items() for part in (name, *value.split())]
    assert train(tmp_path / "run", "--epochs", "1", "--inside", *typed) == 0
    recipe = read_record(tmp_path / "run").recipe
    assert recipe == dataclasses.replace(
        RECIPES["ep-1h"],
        **{"dataset": "digits", "hidden": (16,), "lr": (0.1, 0.05), "beta": -0.2, "sweeps": True},
        **{"tolerance": 0.01, "weight_decay": 0.001, "optimizer": "momentum", "clip": False},
        **{"epochs": 1, "inside": True},
    )


def test_fast(tmp_path, capsys):
    assert train(tmp_path / "a", "--epochs", "1", "--fast") == 0
    shown = capsys.readouterr().out
    assert "tolerance 0.001, was 0.0" in shown
    assert "sweeps True, was False" in shown
    recipe = read_record(tmp_path / "a").recipe
    assert recipe.sweeps
    assert recipe.tolerance == 1e-3
    own = fast(dataclasses.replace(RECIPES["c-ep-2h"], tolerance=1e-4))
    assert (own.tolerance, own.nudged_sweeps, own.K) == (1e-4, True, 10)
    again = fast(own)
    assert again == own
    bptt = fast(RECIPES["bptt-1h"])
    assert (bptt.tolerance, bptt.K) == (1e-3, RECIPES["bptt-1h"].K)
    deep_bptt = fast(RECIPES["bptt-3h"])
    assert (deep_bptt.sweeps, deep_bptt.nudged_sweeps) == (True, False)
    assert (deep_bptt.T, deep_bptt.K, deep_bptt.tolerance) == (180, 20, 0.05)
    for name, few in {
        **dict.fromkeys(("ep-2h", "ep-3h", "ep-conv"), (4, 0.2, 0.05)),
        "eb-1h": (8, 0.5, 0.05),
        "eb-2h": (12, 0.3, 0.02),
        "ep-conv-few": (3, 0.2, 0.05),
    }.items():
        swept = fast(RECIPES[name])
        assert (swept.sweeps, swept.nudged_sweeps, swept.nudge) == (True, True, "centered")
        assert (swept.K, swept.dt, swept.tolerance) == few
        assert swept.T == RECIPES[name].T
        assert fast(swept) == swept
    settled = fast(dataclasses.replace(RECIPES["ep-2h"], tolerance=1e-4))
    assert (settled.T, settled.tolerance, settled.nudge) == (100, 1e-4, "one-sided")
    asked = dataclasses.replace(RECIPES["ep-2h"], T=40, nudge="positive", hidden=(8, 8))
    kept = fast(asked, RECIPES["ep-2h"])
    assert (kept.T, kept.nudge, kept.hidden) == (40, "positive", (8, 8))
    assert (kept.K, kept.sweeps) == (4, True)
    c_eb = dataclasses.replace(RECIPES["eb-1h"], rule="c-ep")
    assert fast(c_eb) == c_eb
    assert fast(RECIPES["resistive-1h"]) == RECIPES["resistive-1h"]


def test_the_published_result_is_shown_as_such(tmp_path, capsys, monkeypatch):
    # As if the digits were MNIST.
    monkeypatch.setattr(
        "eqprop.training.launch.data.load",
        lambda *_, **__: dataclasses.replace(digits(), name="mnist"),
    )
    options = ["--hidden", "16", "--epochs", "1", "--out", str(tmp_path / "run")]
    assert main(["train", "ep-1h", *options]) == 0
    output = capsys.readouterr().out
    assert "published, as reported: test error 2.00 ± 0.13 %, training error 0.20 %" in output
    assert "this run has hidden (16,), not (512,), epochs 1, not 30" in output


def test_errors_without_tracebacks_unless_asked(tmp_path, capsys, monkeypatch):
    with pytest.raises(EqpropError, match="beta is 0"):
        main(["train", "--debug", "ep-1h", *SMALL, "--beta", "0", "--out", str(tmp_path / "run")])

    def fail(_: object) -> None:
        raise ZeroDivisionError("all is lost\nsecond line")

    monkeypatch.setattr("eqprop.cli.list.run", fail)
    assert main(["list"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("eqprop: internal error, ZeroDivisionError: all is lost (--debug")
    with pytest.raises(ZeroDivisionError):
        main(["list", "--debug"])


def test_interrupted_before_it_has_begun(monkeypatch, capsys):
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("eqprop.cli.list.run", interrupt)
    assert main(["list"]) == 130
    assert one_line(capsys.readouterr().err) == "eqprop: interrupted"


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_help_is_coloured_in_a_terminal_unless_told_otherwise(variables, coloured):
    ours, theirs = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    environment |= {"TERM": "xterm"} | variables
    command = [sys.executable, "-m", "eqprop", "evaluate", "--help"]
    subprocess.run(command, stdout=theirs, env=environment, check=True)
    os.close(theirs)
    shown = os.read(ours, 2**16)
    os.close(ours)
    assert b"usage" in shown
    assert (b"\x1b[" in shown) == coloured


def test_help_in_a_terminal_of_one_column_and_where_nothing_is_shown():
    command = [sys.executable, "-m", "eqprop", "train", "ep-1h", "--help"]
    narrow = os.environ | {"COLUMNS": "1"}
    done = subprocess.run(command, capture_output=True, env=narrow, timeout=60, check=True)
    assert b"--beta" in done.stdout
    shell = 'exec "$0" -m eqprop evaluate --help >&-'
    done = subprocess.run(["sh", "-c", shell, sys.executable], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_device_that_is_not_there(tmp_path):
    words = ["train", "ep-1h", "--dataset", "digits", "--out", str(tmp_path / "run")]
    environment = os.environ | {"JAX_PLATFORMS": "abacus"}
    command = [sys.executable, "-m", "eqprop", *words]
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 1
    line = one_line(done.stderr.decode())
    assert line == (
        "eqprop: JAX_PLATFORMS is 'abacus', and JAX finds no such device: correct or unset it"
    )
    assert not (tmp_path / "run").exists()


def test_as_a_process(tmp_path):
    """List and help load no JAX; the code is that of the process; a closed pipe is no error."""
    program = (
        "import sys; from eqprop.cli.main import main; code = main();"
        "assert not {'jax', 'numpy', 'matplotlib'} & set(sys.modules); sys.exit(code)"
    )

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, *args]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    for args in (["list"], ["--help"], ["train", "--help"], ["train", "ep-1h", "--help"]):
        done = run(*args)
        assert (done.returncode, done.stderr) == (0, "")
    assert run("train", "ep-1h", "--beta", "x").returncode == 2
    command = [sys.executable, "-m", "eqprop", "list"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert done.stderr == b""


def test_compilations_are_cached_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "mine")
    monkeypatch.setattr(sys, "argv", ["eqprop", "list"])
    assert main() == 0
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "mine"
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cli._prepare_process()
    cache = Path(os.environ.pop("JAX_COMPILATION_CACHE_DIR"))
    assert cache.name == "xla"
    assert "eqprop" in str(cache)


def test_clock():
    assert clock(3723.4) == "1:02:03"
    assert clock(59.6) == "0:01:00"


def test_a_series_trains_a_recipe_at_each_value_and_goes_on(tmp_path, capsys, monkeypatch):
    series = dataclasses.replace(SERIES["c-vf-1h-angle"], values=(0.0, 45.0))
    monkeypatch.setitem(SERIES, "c-vf-1h-angle", series)
    out = tmp_path / "series"
    for epochs in ("1", "2"):
        assert train(out, "--epochs", epochs, recipe="c-vf-1h-angle") == 0
    for angle in series.values:
        run = out / f"angle-{angle:g}"
        assert read_record(run).recipe.angle == angle
        assert [row["epoch"] for row in metrics_of(run)] == [1, 2]
    capsys.readouterr()
    for other in (["--T", "7"], ["--seeds", "2"], ["--from", str(out / "angle-0")]):
        assert train(out, "--epochs", "2", *other, recipe="c-vf-1h-angle") == 2
        assert "give another directory with --out" in capsys.readouterr().err


def test_a_member_of_a_series_that_diverges_does_not_end_the_others(tmp_path, capsys, monkeypatch):
    series = dataclasses.replace(SERIES["c-vf-1h-angle"], values=(0.0, 45.0))
    monkeypatch.setitem(SERIES, "c-vf-1h-angle", series)
    lr = ("--lr", "1e30", "1e30")
    assert train(tmp_path / "out", "--epochs", "1", *lr, recipe="c-vf-1h-angle") == 1
    found = capsys.readouterr()
    for name in ("angle-0", "angle-45"):
        assert f"NOTE: {name}: the training has diverged" in found.out
    assert "has diverged" in one_line(found.err)


def test_the_angles_of_the_series_are_those_of_the_paper():
    members = SERIES["c-vf-2h-angle"].members(RECIPES["c-vf-2h"])
    assert [recipe.angle for recipe in members.values()] == [22.5 * n for n in range(9)]
    assert list(members)[:2] == ["angle-0", "angle-22.5"]
