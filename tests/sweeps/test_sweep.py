"""Sweeps. Oracles: trainings typed one by one, and the distributions that were asked for."""

import contextlib
import csv
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import submitit  # noqa: F401  # here, for loading it closes what logs go to, as a test captures it
from trainings import (  # noqa: F401
    SMALL,
    _compile_once,
    assert_close,
    assert_same,
    metrics_of,
    one_line,
    save_often,
    signal_in,
    train,
)

from eqprop.cli.main import main
from eqprop.cli.sweep import assign
from eqprop.recipes.catalogue import RECIPES
from eqprop.sweeps import cluster
from eqprop.sweeps.space import Sweep, parse_grid, parse_random
from eqprop.training import launch
from eqprop.training.runs import read_metrics, read_record

GRID = ("--grid", "beta=0.1,0.4", "--epochs", "2")


def sweep(out: Path, *args: str) -> int:
    return main(["sweep", "ep-1h", *SMALL, "--out", str(out), *args])


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


BAD = {
    "no recipe": (["--grid", "beta=1"], ["recipe comes first"]),
    "recipe": (["ep-1g", "--grid", "beta=1"], ["'ep-1g'", "ep-1h"]),
    "nothing": (["ep-1h"], ["nothing is swept", "--grid"]),
    "no values": (["ep-1h", "--grid", "beta"], ["'beta'", "beta=0.2,0.5"]),
    "an empty value": (["ep-1h", "--grid", "beta=1,,2"], ["'beta=1,,2'"]),
    "field": (["ep-1h", "--grid", "bata=1,2"], ["'bata'", "beta"]),
    "a fixed field": (["ep-1h", "--grid", "name=a,b"], ["unknown field 'name'"]),
    "part of a number": (["ep-1h", "--grid", "beta.0=1"], ["'beta.0'", "lr.0"]),
    "no such part": (["ep-1h", "--grid", "lr.2=1"], ["lr.2 is not there", "0.08 0.04"]),
    "value": (["ep-1h", "--grid", "beta=much"], ["--beta", "'much'"]),
    "a value that cannot be": (["ep-1h", "--grid", "batch=0"], ["batch is 0"]),
    "twice": (["ep-1h", "--grid", "beta=1", "--random", "beta=int:1,2"], ["beta is swept twice"]),
    "no distribution": (["ep-1h", "--random", "beta=0.1,0.2"], ["loguniform"]),
    "distribution": (["ep-1h", "--random", "beta=normal:0,1"], ["'normal'", "uniform"]),
    "range": (["ep-1h", "--random", "beta=uniform:2,1"], ["uniform:2,1", "smaller"]),
    "range of one": (["ep-1h", "--random", "beta=uniform:2"], ["uniform:2", "two numbers"]),
    "logarithm": (["ep-1h", "--random", "beta=loguniform:0,1"], ["above 0"]),
    "int": (["ep-1h", "--random", "T=int:1.5,3"], ["int:1.5,3", "two numbers"]),
    "samples": (["ep-1h", "--random", "T=int:1,3", "--samples", "0"], ["samples is 0"]),
    "seeds": (["ep-1h", *GRID, "--seeds", "0"], ["seeds is 0"]),
    "gpus": (["ep-1h", *GRID, "--gpus", "-1"], ["gpus is -1"]),
    "what the built objects refuse": (["ep-1h", *GRID, *SMALL, "--T", "0"], ["T is 0"]),
}


@pytest.mark.parametrize(("typed", "named"), BAD.values(), ids=BAD.keys())
def test_bad_usage(typed, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *typed]) == 2
    line = one_line(capsys.readouterr().err)
    for part in named:
        assert part in line


def test_help(capsys):
    assert main(["sweep", "--help"]) == 0
    told = capsys.readouterr().out
    for part in ("loguniform", "Start with: eqprop sweep ep-1h", "Every field of a recipe"):
        assert part in told


def test_values_as_typed():
    base = RECIPES["ep-2h"]
    values = {"lr.1": "0.5", "hidden": "64 32", "sweeps": "true", "beta": "-0.3"}
    recipe = assign(base, values)
    assert (recipe.lr, recipe.hidden) == ((0.2, 0.5, 0.005), (64, 32))
    assert (recipe.sweeps, recipe.beta, recipe.published) == (True, -0.3, base.published)
    # A part of a value that is swept too.
    assert assign(base, {"lr.0": "9", "lr": "1 2 3"}).lr == (9.0, 2.0, 3.0)


def test_a_grid_is_every_combination():
    grids = parse_grid("beta=0.1,0.2"), parse_grid("hidden=16, 16 8")
    members = Sweep(grids).members(lambda values: assign(RECIPES["ep-1h"], values))
    assert list(members) == [
        *("beta-0.1_hidden-16", "beta-0.1_hidden-16-8"),
        *("beta-0.2_hidden-16", "beta-0.2_hidden-16-8"),
    ]
    assert members["beta-0.2_hidden-16-8"].recipe.hidden == (16, 8)


def test_random_values_follow_their_distribution():
    """Quantiles of 2000 samples, within four standard errors of those asked for."""
    texts = "lr.0=loguniform:0.001,10", "beta=uniform:-1,3", "T=int:5,8", "nudge=choice:a,b"
    n = 2000
    drawn = list(Sweep((), tuple(map(parse_random, texts)), n, 3).assignments())
    error = 4 * 0.5 / math.sqrt(n)
    rates = np.array([float(values["lr.0"]) for values in drawn])
    assert rates.min() >= 0.001
    assert rates.max() <= 10
    for rate, quantile in ((0.01, 1 / 4), (0.1, 2 / 4), (1.0, 3 / 4)):
        assert abs(np.mean(rates < rate) - quantile) < error
    betas = np.array([float(values["beta"]) for values in drawn])
    assert abs(np.mean(betas < 1) - 0.5) < error
    counts = [sum(values["T"] == str(T) for values in drawn) / n for T in range(5, 9)]
    assert sum(counts) == pytest.approx(1.0)
    assert max(abs(count - 1 / 4) for count in counts) < error
    assert abs(np.mean([values["nudge"] == "a" for values in drawn]) - 0.5) < error


def test_more_samples_begin_with_the_same():
    random = (parse_random("beta=uniform:0,1"),)
    grid = (parse_grid("T=10,20"),)
    few = list(Sweep(grid, random, 3).assignments())
    many = list(Sweep(grid, random, 5).assignments())
    assert few == [*many[:3], *many[5:8]]
    # Each point of the grid has the same samples.
    assert [v["beta"] for v in few[:3]] == [v["beta"] for v in few[3:]]
    assert few != list(Sweep(grid, random, 3, seed=1).assignments())


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("swept")
    assert sweep(out, *GRID) == 0
    return out


def test_members_are_ordinary_runs(swept, tmp_path):
    for beta in ("0.1", "0.4"):
        assert train(tmp_path / beta, "--epochs", "2", "--beta", beta) == 0
        assert_same(swept / f"beta-{beta}", tmp_path / beta)


def test_the_table(swept):
    rows = rows_of(swept)
    errors = {beta: metrics_of(swept / f"beta-{beta}")[-1]["test_error"] for beta in ("0.1", "0.4")}
    assert {row["beta"]: float(row["test"]) for row in rows} == errors
    assert float(rows[0]["test"]) <= float(rows[1]["test"])
    page = (swept / "sweep.md").read_text()
    assert "2 of 2 members have ended" in page
    assert "](beta-0.4)" in page
    assert json.loads((swept / "sweep.json").read_text())["rows"][0]["run"].startswith("beta-")
    assert (swept / "sweep.png").read_bytes().startswith(b"\x89PNG")
    drawn = (swept / "sweep.svg").read_bytes()
    assert b"<svg" in drawn
    assert sweep(swept, *GRID) == 0
    assert (swept / "sweep.svg").read_bytes() == drawn


def test_the_size_of_the_validation_part_is_not_what_was_found_on_it(tmp_path):
    assert sweep(tmp_path, "--grid", "validation=0.1,0.4", "--epochs", "1") == 0
    for row in rows_of(tmp_path):
        (metrics,) = read_metrics(tmp_path / row["run"])
        assert row["run"] == f"validation-{row['validation_part']}"
        assert float(row["validation"]) == metrics["validation_error"]
    heads = "| validation_part | epochs | seeds | validation error (%) |"
    assert heads in (tmp_path / "sweep.md").read_text()


def test_equal_samples_fall_together(tmp_path, capsys):
    typed = ("--random", "T=int:5,6", "--samples", "6", "--epochs", "1")
    assert sweep(tmp_path, *typed) == 0
    told = "equal samples fall together, 6 of them into 2 members"
    assert told in capsys.readouterr().out


def test_interrupted_it_goes_on(swept, tmp_path, monkeypatch, capsys):
    """Stopped in the second member; then only what is missing is trained, to the same end."""
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        save_often(patch)
        signal_in(patch, 4)
        assert sweep(out, *GRID) == 130
    line = one_line(capsys.readouterr().err)
    assert "stopped by SIGINT" in line
    assert "or with all of them: eqprop sweep ep-1h" in line
    assert [row["end"] for row in rows_of(out)].count("not ended") >= 1
    ended = [path for path in out.glob("beta-*") if len(read_metrics(path)) == 2]
    before = {path: path.stat().st_mtime_ns for folder in ended for path in folder.rglob("*")}
    assert sweep(out, *GRID) == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}
    for beta in ("0.1", "0.4"):
        assert_same(out / f"beta-{beta}", swept / f"beta-{beta}")
    # Now there is nothing to do.
    monkeypatch.setattr(launch, "train", None)
    assert sweep(out, *GRID) == 0


def test_a_divergence_is_a_result(tmp_path, capsys):
    args = ("--grid", "lr.0=1e30,0.05", "--epochs", "1")
    assert sweep(tmp_path, *args) == 0
    rows = rows_of(tmp_path)
    assert [(row["lr.0"], row["end"]) for row in rows] == [("0.05", ""), ("1e30", "diverged")]
    assert rows[1]["test"] == ""
    capsys.readouterr()
    assert sweep(tmp_path, *args) == 0
    assert "2 members, 2 of them ended" in capsys.readouterr().out
    # One that a full disk has left empty is written again.
    (tmp_path / "lr.0-1e30" / "diverged.txt").write_text("")
    assert sweep(tmp_path, *args) == 0
    assert "2 members, 1 of them ended" in capsys.readouterr().out
    assert [row["end"] for row in rows_of(tmp_path)] == ["", "diverged"]


def test_what_has_diverged_is_last_however_good_it_was_before(swept, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(swept, out)
    best = rows_of(out)[0]
    (out / best["run"] / "diverged.txt").write_text("it did\n")
    assert sweep(out, *GRID) == 0
    assert [row["end"] for row in rows_of(out)] == ["", "diverged"]
    assert rows_of(out)[1]["test"] == best["test"]


def test_another_sweep_in_the_place_is_refused(swept, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(swept, out)
    assert sweep(out, *GRID, "--T", "20") == 2
    assert "--out" in one_line(capsys.readouterr().err)


def test_as_processes(swept, tmp_path, monkeypatch):
    """By submitit, to the same end as here; then there is nothing to submit."""
    out = tmp_path / "out"
    args = (*GRID, "--on", "processes", "--at-once", "2", "--cpus", "1")
    assert sweep(out, *args) == 0
    for beta in ("0.1", "0.4"):
        assert_close(out / f"beta-{beta}", swept / f"beta-{beta}")
        assert read_record(out / f"beta-{beta}").started.command[1] == "sweep"
    assert set(json.loads((out / "jobs.json").read_text())) == {"beta-0.1", "beta-0.4"}
    monkeypatch.setattr(cluster, "Job", None)
    assert sweep(out, *args) == 0


def test_jobs_go_on_without_whoever_waits(tmp_path, monkeypatch, capsys):
    """Ctrl-C while two jobs run that never end."""

    class Executor:
        batch = contextlib.nullcontext

        def update_parameters(self, **_: object) -> None: ...

        def submit(self, _: cluster.Job) -> SimpleNamespace:
            return SimpleNamespace(job_id="7", done=lambda: False)

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cluster.Processes, "executor", lambda *_: Executor())
    monkeypatch.setattr(cluster, "time", SimpleNamespace(sleep=interrupt))
    assert sweep(tmp_path, *GRID, "--on", "processes") == 130
    line = one_line(capsys.readouterr().err)
    assert "interrupted while 2 of 2 jobs ran: the same command waits for those that still" in line


def test_a_process_of_an_earlier_call_is_known_by_its_number():
    program = "import sys, time; print(flush=True); time.sleep(60)  # submitit"
    job = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert job.stdout is not None
    job.stdout.readline()
    earlier = cluster.Processes(1, 1, 1, 0).job(Path(), str(job.pid))
    assert not earlier.done()
    assert cluster.Processes(1, 1, 1, 0).job(Path(), str(os.getpid())).done()
    job.kill()
    job.communicate()
    assert earlier.done()


@pytest.mark.parametrize(
    ("before", "at_once", "submitted"),
    [
        ("78", "1", []),
        ("78", "2", ["beta-0.4"]),
        ("78", "3", ["beta-0.4", "beta-0.7"]),
        ("777", "1", []),  # more than may run now
    ],
)
def test_jobs_that_still_run_are_waited_for(before, at_once, submitted, tmp_path, monkeypatch):
    """Called again, it submits the others, and no more at a time than were asked for. Job 7 still
    runs.
    """
    values = ("0.1", "0.4", "0.7", "0.8", "0.9", "1")
    numbers = {f"beta-{value}": job for value, job in zip(values, before, strict=False)}
    (tmp_path / "jobs.json").write_text(json.dumps(numbers))
    begun: list[str] = []

    class Executor:
        batch = contextlib.nullcontext

        def update_parameters(self, **_: object) -> None: ...

        def submit(self, job: cluster.Job) -> SimpleNamespace:
            assert job.planned.folder.is_absolute()
            begun.append(job.planned.folder.name)
            return SimpleNamespace(job_id="9", done=lambda: False)

    def job(_: object, _logs: Path, number: str) -> SimpleNamespace:
        return SimpleNamespace(job_id=number, done=lambda: number == "8")

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cluster.Processes, "executor", lambda *_: Executor())
    monkeypatch.setattr(cluster.Processes, "job", job)
    monkeypatch.setattr(cluster, "time", SimpleNamespace(sleep=interrupt))
    monkeypatch.chdir(tmp_path.parent)
    grid = ("--grid", f"beta={','.join(values)}", "--epochs", "2")
    out = Path(tmp_path.name)
    assert sweep(out, *grid, "--on", "processes", "--at-once", at_once) == 130
    assert begun == submitted
    told = json.loads((tmp_path / "jobs.json").read_text())
    assert told == numbers | dict.fromkeys(submitted, "9")


def test_a_job_that_fails_is_named(swept, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(swept / "beta-0.1", out / "beta-0.1")
    (out / "beta-0.1" / "metrics.jsonl").write_text("nothing\n")
    assert sweep(out, "--grid", "beta=0.1", "--epochs", "2", "--on", "processes") == 1
    assert "metrics.jsonl" in one_line(capsys.readouterr().err)


def test_without_slurm(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sweep(tmp_path / "out", *GRID, "--on", "slurm") == 1
    line = one_line(capsys.readouterr().err)
    assert "cannot be submitted" in line
    assert "--on processes" in line


_SBATCH = """#!{python}
import os, re, subprocess, sys
script = open(sys.argv[1]).read()
open("{folder}/script", "w").write(script)
count = int(re.search(r"--array=0-(\\d+)", script)[1]) + 1
for task in range(count):
    env = dict(os.environ, SLURM_JOB_ID=str(71 + task), SLURM_ARRAY_JOB_ID="70",
        SLURM_ARRAY_TASK_ID=str(task), SLURM_NTASKS="1", SLURM_JOB_NUM_NODES="1",
        SLURM_NODEID="0", SLURM_JOB_NODELIST="here", SLURM_PROCID="0", SLURM_LOCALID="0")
    nowhere = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
    subprocess.Popen(["bash", sys.argv[1]], env=env, start_new_session=True, **nowhere)
print("Submitted batch job 70")
"""
_SRUN = """#!{python}
import os, sys
first = sys.argv.index("-u") - 1  # the Python that is to run
os.execvp(sys.argv[first], sys.argv[first:])
"""
_SACCT = """#!{python}
print("JobID|State|NodeList")
for task in range(2):
    print(f"70_{{task}}|RUNNING|here")
"""


def test_as_jobs_of_slurm(swept, tmp_path, monkeypatch):
    """With programs in the place of Slurm's that run an array of jobs at once, on this machine."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in (("sbatch", _SBATCH), ("srun", _SRUN), ("sacct", _SACCT)):
        (tools / name).write_text(text.format(python=sys.executable, folder=tmp_path))
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    out = tmp_path / "out"
    limits = ("--minutes", "7", "--cpus", "3", "--gpus", "1", "--partition", "night")
    assert sweep(out, *GRID, "--on", "slurm", *limits) == 0
    for beta in ("0.1", "0.4"):
        assert_close(out / f"beta-{beta}", swept / f"beta-{beta}")
    assert json.loads((out / "jobs.json").read_text()) == {"beta-0.1": "70_0", "beta-0.4": "70_1"}
    script = (tmp_path / "script").read_text()
    for line in ("array=0-1%2", "time=7", "cpus-per-task=3", "gpus-per-node=1", "partition=night"):
        assert f"#SBATCH --{line}\n" in script


# ---------------------------------------------------------------------------- data of one's own

OWN = ("--hidden", "8", "--batch", "10", "--epochs", "3", "--T", "10", "--validation", "0.2")
RATES = "0.02", "0.3"


def write_table(path: Path, noise: float = 0.1) -> Path:
    """Real targets of two features, the one more than the other."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 2))
    y = 100 + 30 * x[:, 0] - 5 * x[:, 1] + noise * rng.normal(size=120)
    lines = [",".join(map(repr, map(float, row))) for row in np.column_stack([x, y])]
    path.write_text("\n".join(["a,b,yield", *lines]) + "\n")
    return path


def sweep_own(path: Path, out: Path, *args: str) -> int:
    named = ("--data", str(path), "--target", "yield", "--split-seed", "3")
    rates = ("--grid", f"lr.0={','.join(RATES)}")
    return main(["sweep", "ep-1h", *named, *OWN, *rates, "--out", str(out), *args])


@pytest.fixture(scope="module")
def swept_own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("own")
    assert sweep_own(write_table(out / "plants.csv"), out / "sweep") == 0
    return out


def test_members_on_own_data_are_ordinary_runs(swept_own, tmp_path):
    for rate in RATES:
        named = ("--data", str(swept_own / "plants.csv"), "--target", "yield", "--split-seed", "3")
        place = ("--lr", rate, "0.04", "--out", str(tmp_path / rate))
        assert main(["train", "ep-1h", *named, *OWN, *place]) == 0
        assert_same(swept_own / "sweep" / f"lr.0-{rate}", tmp_path / rate)


def test_they_are_compared_by_their_own_metric_on_the_part_held_back(swept_own):
    out = swept_own / "sweep"
    found = {}
    for rate in RATES:
        best = min(row["validation_rmse"] for row in read_metrics(out / f"lr.0-{rate}"))
        test = json.loads((out / f"lr.0-{rate}" / "result.json").read_text())["test_rmse"]
        found[rate] = best, test
    assert abs(found["0.02"][0] - found["0.3"][0]) > 1e-3
    rows = rows_of(out)
    for row in rows:
        assert (float(row["validation"]), float(row["test"])) == found[row["lr.0"]]
    assert float(rows[0]["score"]) == min(best for best, _ in found.values())
    page = (out / "sweep.md").read_text()
    assert "| validation RMSE | test RMSE | training RMSE |" in page
    assert "%" not in page
    assert f"| {float(rows[0]['validation']):.4g} |" in page


def test_own_data_in_processes(swept_own, tmp_path):
    """To the same end, from the data as the sweep keeps them."""
    out = tmp_path / "out"
    args = ("--on", "processes", "--at-once", "2", "--cpus", "1")
    assert sweep_own(swept_own / "plants.csv", out, *args) == 0
    for rate in RATES:
        assert_close(out / f"lr.0-{rate}", swept_own / "sweep" / f"lr.0-{rate}")


def test_interrupted_it_goes_on_with_own_data(swept_own, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        save_often(patch)
        signal_in(patch, 4)
        assert sweep_own(swept_own / "plants.csv", out) == 130
    assert {row["test"] for row in rows_of(out)} == {"", rows_of(out)[0]["test"]}
    assert sweep_own(swept_own / "plants.csv", out) == 0
    for rate in RATES:
        assert_same(out / f"lr.0-{rate}", swept_own / "sweep" / f"lr.0-{rate}")


def test_data_that_have_changed_are_refused(swept_own, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(swept_own / "sweep", out)
    other = write_table(tmp_path / "plants.csv", noise=0.2)
    assert sweep_own(other, out) == 2
    line = one_line(capsys.readouterr().err)
    assert "was begun with other data" in line
    assert "--out" in line


def test_a_file_of_the_user_stays(tmp_path, capsys):
    rng = np.random.default_rng(0)
    out = tmp_path / "own"
    out.mkdir()
    path = out / "data.npz"
    np.savez(path, x=rng.normal(size=(40, 2)), y=rng.normal(size=40), notes=np.arange(3))
    before = path.read_bytes()
    args = ["--data", str(path), *OWN, "--grid", "beta=0.1", "--out", str(out)]
    assert main(["sweep", "ep-1h", *args]) != 0
    assert "is there already, and was not put there by eqprop" in one_line(capsys.readouterr().err)
    assert path.read_bytes() == before


@pytest.mark.parametrize("data", [(), ("--data",)])
def test_nothing_is_trained_where_a_member_cannot_be(data, tmp_path, capsys):
    if data:
        data = ("--data", str(write_table(tmp_path / "plants.csv")))
    out = tmp_path / "out"
    args = ("--grid", "hidden=8,8 8", "--epochs", "1", "--out", str(out))
    assert main(["sweep", "ep-1h", *(data or ("--dataset", "digits")), *args]) == 2
    line = one_line(capsys.readouterr().err)
    assert "hidden-8-8: 2 learning rate(s) (0.08, 0.04) for 3 sets of weights" in line
    assert not list(out.glob("hidden-*"))


def test_numbers_of_jobs_that_are_none(tmp_path, capsys):
    (tmp_path / "jobs.json").write_text("[]")
    assert sweep(tmp_path, *GRID, "--on", "processes") == 1
    assert "jobs.json is damaged" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        (["--target", "yield"], ["--data PATH"]),
        (["--data", "nowhere.csv"], ["nowhere.csv"]),
        (["--data", "mnist", "--grid", "dataset=mnist,digits"], ["dataset is swept", "mnist"]),
        (["--dataset", "own"], ["--data PATH"]),
    ],
)
def test_data_that_cannot_be_swept_on(typed, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "ep-1h", *GRID, *typed]) == 2
    line = one_line(capsys.readouterr().err)
    for part in named:
        assert part in line
