"""Tables and figures of the paper. Oracles: runs done one by one, and sums done in NumPy."""

import csv
import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from trainings import (  # noqa: F401
    _compile_once,
    assert_same,
    digits,
    metrics_of,
    one_line,
    signal_in,
    train,
)

from eqprop.cli.main import main
from eqprop.cli.reproduce import _seconds
from eqprop.errors import EqpropError, UsageError
from eqprop.paper import pages
from eqprop.paper import reproduce as running
from eqprop.paper.item import Scope
from eqprop.paper.items import paper_items
from eqprop.paper.results import Results
from eqprop.recipes.catalogue import RECIPES
from eqprop.recipes.fast import fast
from eqprop.recipes.recipe import Recipe
from eqprop.reports import charts
from eqprop.theorem import launch as theorem_launch
from eqprop.theorem.questions import FIGURES
from eqprop.training import launch
from eqprop.training.figures import new_figure
from eqprop.training.planned import PlannedTraining
from eqprop.training.records import DataUsed, Made, Origin, Record
from eqprop.training.results import SeedResult
from eqprop.training.runs import is_run, read_metrics, read_record
from eqprop.training.session import TimeUp

DIGITS = ("--dataset", "digits")
ROOT = Path(__file__).parents[2]


def reproduce(out: Path, *args: str, name: str = "table-mnist") -> int:
    return main(["reproduce", name, *DIGITS, "--out", str(out), *args])


def rows_of(out: Path, name: str = "table-mnist") -> list[dict[str, str]]:
    with (out / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def caption_of(out: Path, name: str = "table-mnist") -> str:
    return json.loads((out / f"{name}.json").read_text())["caption"]


BAD = {
    "a name": (["table-cifar"], ["'table-cifar'", "table-mnist"]),
    "no name": (["--budget", "3m"], ["comes first", "--budget"]),
    "budget": (["all", "--budget", "soon"], ["'soon'", "30m"]),
    "no budget at all": (["all", "--budget", "0s"], ["'0s'", "30m"]),
    "an empty budget": (["all", "--budget", ""], ["''", "30m"]),
    "seeds": (["all", "--seeds", "0"], ["seeds is 0", "at least 1"]),
    "epochs": (["all", "--epochs", "-1"], ["epochs is -1", "at least 1"]),
    "recipe": (["table-mnist", "--recipes", "ep-1g"], ["'ep-1g'", "did you mean ep-1h"]),
    "records": (["table-mnist", "--records", "nowhere"], ["nowhere", "no folder"]),
    "into": (["table-mnist", "--into", "page.md"], ["--into needs --records"]),
    "budget of records": (["all", "--records", ".", "--budget", "3m"], ["--budget", "--records"]),
    "epochs of records": (["all", "--records", ".", "--epochs", "3"], ["--epochs", "--records"]),
    "option": (["all", "--buget", "3m"], ["'--buget'", "--budget"]),
}


@pytest.mark.parametrize(("typed", "named"), BAD.values(), ids=BAD.keys())
def test_bad_usage(typed, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", *typed]) == 2
    line = one_line(capsys.readouterr().err)
    for part in named:
        assert part in line


def test_help(capsys):
    assert main(["reproduce"]) == 0
    text = capsys.readouterr().out
    assert "figure-theorem-c-vf-45" in text
    assert "--budget" in text


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One epoch of two seeds, reproduced."""
    out = tmp_path_factory.mktemp("reproduced")
    assert reproduce(out, "--recipes", "ep-1h", "--epochs", "1", "--seeds", "2") == 0
    return out


def test_a_row_is_what_the_runs_say(two_seeds):
    (row,) = rows_of(two_seeds)
    places = sorted((two_seeds / "trainings").glob("*/seeds-*"))
    last = [read_metrics(place)[-1] for place in places]
    assert len(last) == 2
    for name, key in (("test", "test_error"), ("training", "train_error")):
        errors = np.array([metrics[key] for metrics in last])
        assert float(row[name]) == pytest.approx(errors.mean())
        assert float(row[f"{name}_std"]) == pytest.approx(errors.std(ddof=1))
    assert (row["least_epochs_done"], row["epochs"], row["seeds"]) == ("1", "30", "2")
    assert row["published_test"] == ""  # of other data
    assert "1 of 30 epochs, 2 seeds" in caption_of(two_seeds)
    assert "NOT MNIST" in caption_of(two_seeds)
    assert (two_seeds / "table-mnist.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (two_seeds / "table-mnist.svg").read_text()
    page = (two_seeds / "table-mnist.md").read_text()
    assert page.count("](trainings/") == 2
    for line in page.splitlines():
        if "](trainings/" in line:
            link = line.partition("](")[2].partition(")")[0]
            assert (two_seeds / link / "metrics.jsonl").exists()


def test_a_seed_that_has_diverged_is_told_of(two_seeds, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(two_seeds, out)
    (lost,) = (out / "trainings").glob("*/seeds-1")
    (lost / "diverged.txt").write_text("it did\n")
    assert reproduce(out, "--recipes", "ep-1h", "--epochs", "1", "--seeds", "2") == 0
    assert "Diverged, and shown as far as they came: ep-1h" in caption_of(out)
    assert ", seed 1." in caption_of(out)
    assert ", seed 0" not in caption_of(out)


def test_more_epochs_and_seeds_go_on_with_what_is_there(two_seeds, tmp_path, monkeypatch):
    """As in one go, and what is finished is left alone."""
    out = tmp_path / "out"
    shutil.copytree(two_seeds, out)
    args = ("--recipes", "ep-1h", "--epochs", "2", "--seeds", "3")
    assert reproduce(out, *args) == 0
    oracle = tmp_path / "oracle"
    options = (*DIGITS, "--epochs", "2", "--seeds", "3", "--out", str(oracle))
    assert main(["train", "ep-1h", *options]) == 0
    (folder,) = (out / "trainings").iterdir()
    places = "seeds-0", "seeds-1", "seeds-2"
    for seed, place in enumerate(places):
        assert_same(folder / place, oracle / f"seed-{seed}")

    monkeypatch.setattr(launch, "train", None)
    monkeypatch.setattr(launch, "resume", None)
    assert reproduce(out, *args) == 0
    assert reproduce(out, "--recipes", "ep-1h", "--epochs", "1", "--seeds", "1") == 0
    (row,) = rows_of(out)
    assert (row["least_epochs_done"], row["seeds"]) == ("2", "3")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), (" 2h ", 7200)]
)
def test_a_time_is_read(text, seconds):
    assert _seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "-3m", "0s", "30 min", "1e3s", "nans", "3d"])
def test_what_is_no_time(text):
    with pytest.raises(UsageError, match=r"budget is .*30m"):
        _seconds(text)


def test_fewer_epochs_of_a_cosine_schedule_fill_the_table(tmp_path):
    """They are another training, which does not stand in the way of the whole one."""
    args = ("--recipes", "ep-1h-few", "--seeds", "1")
    for epochs in ("1", "2"):
        assert reproduce(tmp_path, *args, "--epochs", epochs, name="table-time") == 0
        (row,) = rows_of(tmp_path, "table-time")
        assert (row["most_epochs_done"], row["seeds"]) == (epochs, "1")
    assert len(list((tmp_path / "trainings").iterdir())) == 2


def test_a_budget_is_shared_out(tmp_path, monkeypatch):
    """A seed of ep-1h takes 10 s, one of c-ep-1h 100 s. By hand: the first needs 10 of its 30 s,
    the other has the 50 that are left, and 50 more in a second call, whose last 10 s buy another
    seed of the first.
    """
    now, spent, asked = [0.0], dict[Path, float](), list[tuple[str, float]]()

    def needs(planned: PlannedTraining) -> float:
        return 10.0 if planned.recipe.name == "ep-1h" else 100.0

    def work(planned: PlannedTraining, _command: object, until: float) -> None:
        asked.append((f"{planned.recipe.name} {planned.seeds[0]}", until - now[0]))
        before = spent.get(planned.folder, 0.0)
        spent[planned.folder] = min(needs(planned), before + until - now[0])
        now[0] += spent[planned.folder] - before
        if not planned.ended:
            raise TimeUp("its time is up")

    def ended(planned: PlannedTraining) -> bool:
        return spent.get(planned.folder) == needs(planned)

    def epochs(planned: PlannedTraining) -> int:
        return round(planned.recipe.epochs * spent.get(planned.folder, 0.0) / needs(planned))

    monkeypatch.setattr(running, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(running, "read_run", lambda f: [SimpleNamespace(seconds=spent[f])])
    monkeypatch.setattr(PlannedTraining, "work", work)
    monkeypatch.setattr(PlannedTraining, "ended", property(ended))
    monkeypatch.setattr(PlannedTraining, "epochs_done", epochs)
    args = ("--recipes", "ep-1h", "c-ep-1h", "--budget", "60s", "--seeds", "3")
    assert reproduce(tmp_path, *args) == 0
    assert (asked, now) == ([("ep-1h 0", 30.0), ("c-ep-1h 0", 50.0)], [60.0])
    assert "budget of 60s" in caption_of(tmp_path)
    asked.clear()
    assert reproduce(tmp_path, *args) == 0
    assert (asked, now) == ([("c-ep-1h 0", 60.0), ("ep-1h 1", 10.0)], [120.0])


def test_a_budget_that_is_spent_leaves_a_run_to_go_on_with(tmp_path, monkeypatch):
    """Its time is up after the first stretch; the next call ends as if there had been no budget."""
    out, oracle = tmp_path / "out", tmp_path / "oracle"
    args = ("--recipes", "ep-1h", "--epochs", "2", "--seeds", "1", "--budget", "9m")
    with monkeypatch.context() as patch:
        patch.setattr(running._Work, "_left", lambda _work, _share=1.0: 1e-9)
        assert reproduce(out, *args) == 0
    (folder,) = (out / "trainings").iterdir()
    assert is_run(folder / "seeds-0")
    assert read_metrics(folder / "seeds-0") == []
    assert [row["most_epochs_done"] for row in rows_of(out)] == [""]
    assert "Not run: ep-1h, dataset digits (not within the budget of 9m)" in caption_of(out)
    assert "that a budget of 9m allowed" in caption_of(out)
    assert reproduce(out, *args) == 0
    assert main(["train", "ep-1h", *DIGITS, "--epochs", "2", "--out", str(oracle)]) == 0
    assert_same(folder / "seeds-0", oracle)
    assert "Not run" not in caption_of(out)
    assert "budget" not in caption_of(out)  # the options alone said how much that is


def test_what_does_not_fit_is_said(tmp_path):
    """The convolutional net needs larger images than the digits."""
    args = ("--recipes", "ep-conv", "--epochs", "1", "--seeds", "1")
    assert reproduce(tmp_path, *args) == 0
    (row,) = rows_of(tmp_path)
    assert row["test"] == ""
    assert "cannot be trained: a kernel 5x5" in caption_of(tmp_path)


def test_interrupted(tmp_path, monkeypatch, capsys):
    signal_in(monkeypatch, 1)
    assert reproduce(tmp_path, "--recipes", "ep-1h", "--epochs", "2", "--seeds", "1") == 130
    line = one_line(capsys.readouterr().err)
    assert "stopped by SIGINT" in line
    assert "or with everything: eqprop reproduce" in line
    assert "Stopped before the end." in caption_of(tmp_path)


@pytest.mark.slow
def test_killed_and_started_again(tmp_path):
    """SIGKILL within the second recipe: it ends as if nothing had been, the first is left alone."""
    out, oracle = tmp_path / "out", tmp_path / "oracle"
    args = ("--recipes", "ep-1h", "c-ep-1h", "--epochs", "12", "--seeds", "1")
    command = [sys.executable, "-m", "eqprop", "reproduce", "table-mnist", *DIGITS, *args]
    process = subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.DEVNULL)
    finished, current = (out / "trainings" / f"{n}-dataset-digits" for n in ("ep-1h", "c-ep-1h"))
    end = time.monotonic() + 120
    while len(read_metrics(current / "seeds-0")) < 2:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "table-mnist.md").exists()
    assert len(read_metrics(current / "seeds-0")) < 12
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}

    assert reproduce(out, *args) == 0
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before
    assert main(["train", "c-ep-1h", *DIGITS, "--epochs", "12", "--out", str(oracle)]) == 0
    assert_same(current / "seeds-0", oracle)
    assert [row["least_epochs_done"] for row in rows_of(out)] == ["12", "12"]


def test_a_divergence_is_an_end(tmp_path, monkeypatch, capsys):
    """It is not begun again, and neither the error nor the training is lost."""
    recipe = dataclasses.replace(RECIPES["ep-1h"], dataset="digits", hidden=(16,), lr=(1e30, 1e30))
    part = PlannedTraining(recipe, (0,), tmp_path / "run")
    part.work(["eqprop"])
    assert "diverged in epoch 1" in (part.diverged or "")
    assert "NOTE: the training has diverged" in capsys.readouterr().out
    assert part.ended
    monkeypatch.setattr(launch, "resume", None)
    part.work(["eqprop"])


def test_another_training_in_the_place_is_refused(tmp_path):
    assert train(tmp_path / "run", "--epochs", "1") == 0
    other = dataclasses.replace(RECIPES["ep-1h"], dataset="digits", hidden=(17,))
    with pytest.raises(EqpropError, match=r"another recipe.*--out"):
        PlannedTraining(other, (0,), tmp_path / "run").work([])
    same = dataclasses.replace(other, hidden=(16,), epochs=1, about="by another name")
    assert PlannedTraining(same, (0,), tmp_path / "run").ended


def test_another_start_in_the_place_is_refused(tmp_path):
    assert train(tmp_path / "run", "--epochs", "1") == 0
    recipe = read_record(tmp_path / "run").recipe
    PlannedTraining(recipe, (0,), tmp_path / "run").check()
    origin = Origin("elsewhere", 3, 0, "0" * 64)
    with pytest.raises(EqpropError, match=r"from another start.*--out"):
        PlannedTraining(recipe, (0,), tmp_path / "run").check(origin)


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_what_is_gone_on_with_heeds_its_time_too(seeds, tmp_path):
    run = tmp_path / "run"
    how = ("--seeds", str(len(seeds)), "--replicas", "in-turn")
    assert train(run, "--epochs", "1", *how) == 0
    longer = dataclasses.replace(read_record(run).recipe, epochs=3)
    planned = PlannedTraining(longer, seeds, run)
    with pytest.raises(TimeUp, match="time is up"):
        planned.work(["eqprop"], until=time.monotonic())
    assert planned.epochs_done() == 1


def test_all_and_more(tmp_path, monkeypatch):
    """`all` stands for what is of the paper; others beside it are not lost."""
    asked = []
    monkeypatch.setattr(running, "reproduce", lambda it, _: asked.append(it.names))
    assert main(["reproduce", "table-time", "all", "figure-contrastive", "table-mnist"]) == 0
    paper = [name for name, item in paper_items(Scope()).items() if not item.beyond]
    assert asked == [("table-time", *paper, "figure-contrastive")]


def test_tables_from_records(tmp_path, capsys):
    """The published row, blank; beside it one row for each other training, seeds together."""
    records = tmp_path / "records"
    for seed in ("0", "1"):
        assert train(records / seed, "--epochs", "1", "--seed", seed) == 0
    assert train(records / "more", "--epochs", "1", "--beta", "0.3") == 0
    foreign = records / "more" / "run.json"  # of a recipe that is not in the catalogue
    foreign.write_text(foreign.read_text().replace('"name": "ep-1h"', '"name": "mine"'))
    page = tmp_path / "page.md"
    places = [
        f"<!-- eqprop:{name} -->\nSTALE\n<!-- /eqprop:{name} -->\n"
        for name in ("table-others", "table-others-runs")
    ]
    page.write_text(f"before\n{places[0]}between\n{places[1]}after\n")
    args = ("--records", str(records))
    assert reproduce(tmp_path / "out", *args, "--recipes", "ep-1h") == 0
    assert [row["seeds"] for row in rows_of(tmp_path / "out")] == [""]
    into = (*args, "--into", str(page))
    assert reproduce(tmp_path / "out", *into, name="table-others") == 0
    rows = rows_of(tmp_path / "out", "table-others")
    assert [row["seeds"] for row in rows] == ["2", "1"]
    assert "hidden 16" in rows[0]["recipe"]
    assert "mine" in rows[1]["recipe"]
    assert rows[1]["beta"] == "0.3"
    errors = [metrics_of(records / seed)[-1]["test_error"] for seed in ("0", "1")]
    assert float(rows[0]["test"]) == pytest.approx(np.mean(errors))
    only = tmp_path / "only"
    assert reproduce(only, *args, "--recipes", "ep-1h", name="table-others") == 0
    assert rows_of(only, "table-others") == rows[:1]
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("<!-- /eqprop:table-others-runs -->\nafter\n")
    assert "STALE" not in text
    table, runs = text.split("between")
    assert "hidden 16" in table
    assert "](records/0)" not in table
    assert "](records/0)" in runs

    names = ("table-mnist", "table-others", "figure-theorem-toy")
    assert main(["reproduce", *names, *DIGITS, "--out", str(tmp_path / "out"), *args]) == 0
    whole = (tmp_path / "out" / "all.md").read_text()
    assert "Nothing was run for figure-theorem-toy." in whole
    assert [line[3:] for line in whole.splitlines() if line.startswith("## ")] == [
        "Test errors",
        "Our own recipes, and published ones with other settings",
    ]
    assert table.split("-->")[1].split("<!--")[0].strip() in whole

    page.write_text("<!-- eqprop:table-others -->\n<!-- /eqprop:table-others -->\n")
    assert reproduce(tmp_path / "out", *into, name="table-others") == 0
    assert "](records/0)" in page.read_text()  # without a place of their own, after the table
    page.write_text("nothing")
    assert reproduce(tmp_path / "out", *into, name="table-others") == 2
    assert "<!-- eqprop:table-others -->" in capsys.readouterr().err


def test_the_angle_is_that_of_a_verification(tmp_path):
    records, out = tmp_path / "records", tmp_path / "out"
    assert main(["verify", "ep-1h", *DIGITS, "--betas", "0.1", "--out", str(records / "v")]) == 0
    args = ("--records", str(records), "--recipes", "ep-1h", "c-ep-1h")
    verified = json.loads((records / "v" / "verification.json").read_text())
    # Whatever they are called, the last one counts.
    shutil.copytree(records / "v", records / "z")
    earlier = json.loads((records / "z" / "verification.json").read_text())
    earlier["made"]["time"] = "2000-01-01T00:00:00+00:00"
    earlier["asked"]["together"]["angle"] = 77.0
    (records / "z" / "verification.json").write_text(json.dumps(earlier))
    assert reproduce(out, *args, name="figure-gradient-angle") == 0
    first, second = rows_of(out, "figure-gradient-angle")
    assert float(first["gradient_angle"]) == verified["asked"]["together"]["angle"]
    assert second["gradient_angle"] == ""


ANGLES = {"1-2": 50.0, "2-3": 60.0}  # of forward to feedback weights, at the end


def made_up(folder: Path, runs: list[tuple[Recipe, int, float]]) -> Results:
    """Results on MNIST of three epochs: recipe, seed, test error."""
    data = DataUsed("mnist", "", 1, 1, (28, 28), "")
    started = Made("", ("eqprop",), {}, {"kind": "cpu"}, {}, None)
    seeds = [
        SeedResult(
            folder,
            seed,
            Record(recipe, (seed,), data, started),
            3,
            {
                "test_error": (9.0, 2.0, test),
                "train_error": (9.0, 9.0, 1.0),
                **{f"angles/{edge}": (80.0, 60.0, after) for edge, after in ANGLES.items()},
            },
        )
        for recipe, seed, test in runs
    ]
    return Results("mnist", seeds, [])


def test_a_row_that_was_not_run_as_published_is_that_of_fast(tmp_path):
    """And says so; with a run as published, unless it is shorter, the other is one of other
    settings.
    """
    published = RECIPES["c-ep-2h"]
    items = paper_items(Scope(("c-ep-2h",)))
    both = [(fast(published), 0, 2.5), (published, 0, 2.4)]
    whole = made_up(tmp_path, both)
    shorter = dataclasses.replace(whole, seeds=[whole.seeds[0], whole.seeds[1].until(2)])
    for results, row, others in (
        (made_up(tmp_path, both[:1]), ("c-ep-2h, K 10", 2.5), []),
        (whole, ("c-ep-2h", 2.4), [2.5]),
        (shorter, ("c-ep-2h, K 10", 2.5), [2.0]),
    ):
        for name in ("table-mnist", "table-short"):
            (shown,) = items[name].show(results).rows
            assert shown["recipe"].startswith(row[0])
            assert ("nudged-sweeps" in shown["recipe"]) == (row[1] == 2.5)
            assert (shown["test"], shown["published_test"]) == (row[1], 2.44)
        assert [other["test"] for other in items["table-others"].show(results).rows] == others


def test_a_row_has_the_phases_in_which_it_was_trained_for_longest(tmp_path):
    """Not other rates, or another beta."""
    recipe = RECIPES["ep-3h"]
    phases = dataclasses.replace(recipe, sweeps=True, T=20, nudge="centered")
    others = [dataclasses.replace(recipe, beta=0.1), dataclasses.replace(phases, lr=(0.1,) * 4)]
    runs = [(recipe, 0, 2.1), (phases, 0, 2.2), *((other, 0, 2.3) for other in others)]
    results = made_up(tmp_path, runs)
    shorter = [results.seeds[0].until(2), *results.seeds[1:]]
    item = paper_items(Scope(("ep-3h",)))["table-mnist"]
    for seeds, test in ((results.seeds, 2.1), (shorter, 2.2), (results.seeds[2:], None)):
        (row,) = item.show(dataclasses.replace(results, seeds=seeds)).rows
        assert row["test"] == test
        assert ("T 20" in row["recipe"]) == (test == 2.2)
    (row,) = item.show(made_up(tmp_path, [(phases, 0, 2.2), (fast(recipe), 0, 2.4)])).rows
    assert row["test"] == 2.4


def test_means_are_over_trainings_of_equal_length(tmp_path):
    """Not one that has not come as far yet, but one that was begun for fewer epochs is another."""
    recipe = dataclasses.replace(RECIPES["ep-3h"], epochs=3)
    results = made_up(tmp_path, [(recipe, seed, 2.0 + seed) for seed in range(3)])
    whole, begun, other = results.seeds
    record = dataclasses.replace(other.record, recipe=dataclasses.replace(recipe, epochs=2))
    shorter = dataclasses.replace(other, record=record).until(2)
    seeds = dataclasses.replace(results, seeds=[whole, begun.until(1), shorter])
    items = paper_items(Scope(("ep-3h",)))
    (row,) = items["table-mnist"].show(seeds).rows
    assert (row["seeds"], row["least_epochs_done"], row["most_epochs_done"]) == (2, 1, 3)
    (left,) = items["table-others"].show(seeds).rows
    assert (left["seeds"], left["most_epochs_done"]) == (1, 2)


def test_no_test_error_of_some_seeds_only(tmp_path):
    """Where a part is held back, the test waits for the end, and one seed has not come to it."""
    held_back = dataclasses.replace(RECIPES["ep-1h"], validation=0.2)
    results = made_up(tmp_path, [(held_back, 0, 2.4), (held_back, 1, 2.6)])
    columns = {"validation_error": (3.0, 2.0, 2.5), "train_error": (1.0, 1.0, 1.0)}
    tested = {"validation_error": 2.0, "train_error": 1.0, "test_error": 2.2}
    seeds = [
        dataclasses.replace(seed, columns=columns, chosen=chosen)
        for seed, chosen in zip(
            results.seeds, (tested, {"validation_error": 2.0, "train_error": 1.0}), strict=True
        )
    ]
    item = paper_items(Scope())["table-others"]
    for shown, test, count in ((seeds, None, 2), (seeds[:1], 2.2, 1)):
        rendered = item.show(dataclasses.replace(results, seeds=shown))
        (row,) = rendered.rows
        assert (row["test"], row["validation"], row["seeds"]) == (test, 2.0, count)
    pages.write("table-others", item, rendered, tmp_path, {})
    (run,) = json.loads((tmp_path / "table-others.json").read_text())["runs"]
    assert (run["test"], run["lowest_test"]) == (2.2, None)  # 2.0 was not of the test set


def test_a_program_that_was_not_committed_is_told_and_gives_way_to_one_that_was(tmp_path):
    recipe = RECIPES["c-ep-2h"]
    results = made_up(tmp_path, [(recipe, 0, 2.4), (recipe, 1, 2.6)])
    first, second = results.seeds
    record = second.record
    started = dataclasses.replace(record.started, git={"commit": "0" * 40, "dirty": True})
    changed = dataclasses.replace(second, record=dataclasses.replace(record, started=started))
    items = paper_items(Scope(("c-ep-2h",)))
    for seeds, test, others in (
        ([first, changed], 2.4, [2.6]),
        ([changed], 2.6, []),
        ([first, second], 2.5, []),
    ):
        shown = dataclasses.replace(results, seeds=seeds)
        (row,) = items["table-mnist"].show(shown).rows
        assert row["test"] == pytest.approx(test)
        left = items["table-others"].show(shown).rows
        assert [other["test"] for other in left] == others
        for of, is_changed in ((row, seeds == [changed]), *((other, True) for other in left)):
            assert of["recipe"].endswith(", uncommitted changes") == is_changed


_2H = RECIPES["c-vf-2h"]


def test_the_figure_of_c_vf_against_the_angle(tmp_path):
    """Results that are made up: two seeds at 45 degrees, one at 0, which the table shares."""
    scope = Scope(("c-vf-1h",))
    item = paper_items(scope)["figure-angle"]
    published, members = item.trainings()[:9], item.trainings()[9:]
    assert published[0] == paper_items(scope)["table-mnist"].trainings()[0]
    for recipes, sweeps in ((published, False), (members, True)):
        assert [recipe.angle for recipe in recipes] == [22.5 * n for n in range(9)]
        assert {recipe.sweeps for recipe in recipes} == {sweeps}
    # With --fast there is one form.
    quick = paper_items(Scope(("c-vf-2h",), fast=True))["figure-angle"]
    assert quick.trainings() == [fast(dataclasses.replace(_2H, angle=22.5 * n)) for n in range(9)]
    rows = quick.show(Results("mnist", [], [])).rows
    assert {row["rule"] for row in rows} == {"as with --fast"}
    assert [row["published_test"] for row in rows] == [2.97, *[None] * 8]
    runs = [(members[2], 0, 5.0), (members[2], 1, 8.0), (members[0], 0, 2.5)]
    rendered = item.show(made_up(tmp_path, runs))
    assert [row["test"] for row in rendered.rows] == [*[None] * 9, 2.5, None, 6.5, *[None] * 6]
    assert rendered.rows[11]["test_std"] == pytest.approx(np.std([5.0, 8.0], ddof=1))
    assert rendered.rows[11]["after"] == pytest.approx(55.0)
    assert [row["published_test"] for row in rendered.rows] == [2.43, *[None] * 17]
    assert "3 of 100 epochs, 1 to 2 seeds; 16 of 18 rows were not run" in rendered.caption
    pages.write("figure-angle", item, rendered, tmp_path, {})
    assert (tmp_path / "figure-angle.png").read_bytes().startswith(b"\x89PNG")


def test_a_rule_has_one_colour_in_all_panels(tmp_path):
    """Of one hidden layer both forms were trained, of two the second alone."""
    item = paper_items(Scope(("c-vf-1h", "c-vf-2h")))["figure-angle"]
    of_one, settled, settled_2h = (item.trainings()[n] for n in (0, 9, 27))
    rendered = item.show(made_up(tmp_path, [(it, 0, 2.5) for it in (of_one, settled, settled_2h)]))
    figure = new_figure()
    charts.angles_in_training(
        figure,
        [row for row in rendered.rows if row["test"] is not None],
        [[[50.0]], [[50.0]], [[60.0]]],
    )
    above, below, above_2h, below_2h = figure.axes
    colours = [[line.get_color() for line in axes.lines] for axes in (below, below_2h)]
    assert colours == [["C0", "C1"], ["C1"]]
    for axes, (*_, last) in zip((above, above_2h), colours, strict=True):
        (sweeps,) = (it for it in axes.containers if it.get_label() == "sweeps")
        assert sweeps[0].get_color() == last


def test_the_figure_against_the_gradient_angle_takes_what_was_trained(tmp_path):
    """With ``--fast``, and C-VF where its free phases settle, at each angle."""
    item = paper_items(Scope(("ep-2h", "c-vf-1h")))["figure-gradient-angle"]
    wanted = item.trainings()
    assert [recipe.angle for recipe in wanted] == [None, *(22.5 * n for n in range(9))]
    assert [question.recipe.sweeps for question in item.verifications()] == [False] * 10
    # What is verified is what was published, whatever is trained.
    quick = paper_items(Scope(("ep-2h", "c-vf-1h"), fast=True))["figure-gradient-angle"]
    assert quick.verifications() == item.verifications()
    assert quick.trainings() == [fast(recipe) for recipe in wanted]
    runs = [(fast(wanted[0]), 0, 2.1), (wanted[2], 0, 2.4), (RECIPES["c-vf-1h"], 0, 88.0)]
    rendered = item.show(made_up(tmp_path, runs))
    assert [row["test"] for row in rendered.rows] == [2.1, 88.0, 2.4, *[None] * 7]
    assert [row["point"] for row in rendered.rows[:3]] == ["ep-2h", "c-vf-1h", "c-vf-1h, 22.5°"]
    assert [row["published_test"] for row in rendered.rows] == [1.95, 2.43, *[None] * 8]
    assert "sweeps" in rendered.rows[0]["recipe"]


def test_the_tables_in_the_docs_are_those_of_the_records(tmp_path):
    docs = tmp_path / "docs"
    shutil.copytree(ROOT / "docs" / "records", docs / "records")
    out = ("--out", str(tmp_path / "out"))
    for page, names in {
        "docs/results.md": [
            *("table-mnist", "table-others", "table-time", "figure-asymmetric"),
            *("figure-angle", "figure-contrastive"),
        ],
        "README.md": ["table-short"],
        "docs/fashion.md": [
            *("table-short", "table-others", "figure-contrastive"),
            *("--dataset", "fashion-mnist"),
        ],
    }.items():
        shutil.copy(ROOT / page, tmp_path / page)
        command = ["reproduce", *names, "--records", str(docs / "records"), "--into"]
        assert main([*command, str(tmp_path / page), *out]) == 0
        assert (tmp_path / page).read_text() == (ROOT / page).read_text(), (
            f"run eqprop reproduce {' '.join(names)} --records docs/records --into {page}"
        )


def test_seeds_are_of_those_published_where_they_are_no_more(tmp_path):
    item = paper_items(Scope(("ep-1h",)))["table-mnist"]
    for n, row, words in ((1, "1 of 5", "1 of 5 seeds."), (6, "6", "6 seeds.")):
        runs = [(RECIPES["ep-1h"], seed, 2.0) for seed in range(n)]
        rendered = item.show(made_up(tmp_path, runs))
        assert f"of 30 epochs, {words}" in rendered.caption
        pages.write("table", item, rendered, tmp_path, {})
        assert f"| 3 of 30 | {row} |" in (tmp_path / "table.md").read_text()


def test_nothing_is_drawn_where_there_are_no_rows(tmp_path):
    """All of the paper, of recipes that some figures have no member of."""
    (tmp_path / "records").mkdir()
    args = ("--records", str(tmp_path / "records"), "--recipes", "eb-1h")
    names = ("all", "figure-asymmetric", "figure-contrastive")
    assert main(["reproduce", *names, *args, "--out", str(tmp_path / "out")]) == 0
    for name in ("figure-angle", *names[1:]):
        assert rows_of(tmp_path / "out", name) == []
        assert "![" not in (tmp_path / "out" / f"{name}.md").read_text()
        assert not (tmp_path / "out" / f"{name}.png").exists()
    assert (tmp_path / "out" / "table-mnist.png").exists()


def test_a_page_that_is_not_there_or_no_text(tmp_path):
    page = tmp_path / "page.md"
    with pytest.raises(EqpropError, match=r"page\.md cannot be read"):
        pages.put_into(page, {})
    page.write_bytes("Straße".encode("latin-1"))
    with pytest.raises(EqpropError, match=r"page\.md is not in UTF-8"):
        pages.put_into(page, {})


def test_the_line_ends_of_a_page_stay(tmp_path):
    item, page = paper_items(Scope(("ep-1h",)))["table-mnist"], tmp_path / "page.md"
    rendered = item.show(made_up(tmp_path, [(RECIPES["ep-1h"], 0, 2.0)]))
    texts = []
    for end in ("\n", "\r\n"):
        page.write_text(f"a\n{'\n'.join(pages._marks('t'))}\nb\n", encoding="utf-8", newline=end)
        pages.put_into(page, {"t": rendered})
        texts.append(page.read_bytes())
    assert b"ep-1h" in texts[0]
    assert texts[1] == texts[0].replace(b"\n", b"\r\n")


def test_figures_of_theorem_1_on_two_data_sets(tmp_path, monkeypatch):
    """Each in a folder of its own; one that is cut short while it is made again is not whole."""
    question = FIGURES["fig-ep-1h"]
    quick = dataclasses.replace(question.recipe, hidden=(8,), K=3)
    monkeypatch.setitem(FIGURES, "fig-ep-1h", dataclasses.replace(question, recipe=quick))
    found = {"digits": digits(), "mnist": dataclasses.replace(digits(), name="mnist")}
    monkeypatch.setattr(running.data, "load", lambda name, **_: found[name])
    out, name = tmp_path / "out", "figure-theorem-ep-1h"
    for typed in ((), DIGITS):
        assert main(["reproduce", name, *typed, "--out", str(out)]) == 0
    whole = sorted((out / "verifications").iterdir())
    assert [folder.name for folder in whole] == ["fig-ep-1h", "fig-ep-1h-on-digits"]
    assert caption_of(out, name).startswith("Updates of the rule, dashed, over BPTT gradients.")

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    (whole[1] / "verification.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(theorem_launch.np, "savez_compressed", interrupt)
        assert reproduce(out, name=name) == 130
    assert not list(whole[1].glob("*.[np]*"))  # no curves, no image
    records = ("--records", str(whole[1]))
    assert reproduce(tmp_path / "again", *records, name=name) == 0
    caption = caption_of(tmp_path / "again", name)
    assert "dashed" not in caption
    assert "the curves were not kept: `eqprop verify fig-ep-1h --dataset digits` draws" in caption


def test_the_seven_contrastive_algorithms(tmp_path, capsys):
    """Trained on digits; each with the settings of its recipe but for the nudge."""
    item = paper_items(Scope(("ep-1h",), "digits"))["figure-contrastive"]
    members = item.trainings()
    assert {(m.hold, m.nudge, m.beta) for m in members} == {
        (True, "positive", 1.0),
        *((hold, n, 0.1) for hold in (0, 1) for n in ("positive", "negative", "centered")),
    }
    plain = dataclasses.replace(members[0], hold=False, nudge="one-sided", beta=0.1)
    assert plain == dataclasses.replace(RECIPES["ep-1h"], dataset="digits")
    out = tmp_path / "out"
    args = ("--dataset", "digits", "--recipes", "ep-1h", "--epochs", "1", "--seeds", "1")
    assert main(["reproduce", "figure-contrastive", *args, "--out", str(out)]) == 0
    rows = rows_of(out, "figure-contrastive")
    assert len(rows) == 7
    assert all(0 < float(row["test"]) <= 100 and row["published_test"] == "" for row in rows)
    assert (out / "figure-contrastive.png").read_bytes().startswith(b"\x89PNG")
    # It is no part of the paper.
    assert main(["reproduce", "--help"]) == 0
    assert "figure-contrastive" in capsys.readouterr().out


def test_the_table_of_times(tmp_path):
    """Made-up results: what tells how long it took to begin counts, from its start to its end."""
    item = paper_items(Scope(("ep-1h-few", "ep-conv-best")))["table-time"]
    assert [recipe.name for recipe in item.trainings()] == ["ep-1h-few", "ep-conv-best"]
    data = DataUsed("mnist", "", 1, 1, (28, 28), "")
    started = Made("", ("eqprop",), {}, {"kind": "cpu"}, {}, None)

    def seed(number: int, **to_start: tuple[float, ...]) -> SeedResult:
        took = {"seconds/train": (2.0, 2.0), "seconds/test": (0.5, 0.25)} | to_start
        columns = {"test_error": (3.0, 1.5 + number), "train_error": (1.0, 1.0)} | took
        record = Record(item.trainings()[0], (number,), data, started)
        return SeedResult(tmp_path, number, record, 2, columns)

    # Gone on with once, so begun twice.
    seeds = [seed(0, seconds_to_start=(5.0, 3.25)), seed(1, seconds_to_start=(7.0, math.nan))]
    untold = [seed(2), seed(3, seconds_to_start=(math.nan, 1.0))]
    # What was trained with others has no seconds of its own; what tells none does not hide others.
    together = dataclasses.replace(seed(4, seconds_to_start=(9.0, 9.0)), sharing=2)
    longer = dataclasses.replace(untold[0], seed=0, epochs=5)
    rendered = item.show(Results("mnist", [longer, *seeds, *untold, together], []))
    first, second = rendered.rows
    assert (first["test"], first["goal"], first["goal_seconds"]) == (2.0, 2.0, 30)
    assert (first["seconds"], first["to_start"]) == ((13.0 + 11.75) / 2, 6.0)
    assert (second["test"], second["seconds"], second["goal"]) == (None, None, 0.5)
    pages.write("table-time", item, rendered, tmp_path, {})
    assert "| ep-1h-few | 2 of 8 | 2 | 2.00 ± 0.71 | 2 | 12 ± 1 | 30 | 6.0 |" in (
        tmp_path / "table-time.md"
    ).read_text(encoding="utf-8")


def test_the_figure_of_rules_on_asymmetric_networks(tmp_path):
    """Results that are made up: a training that went on for longer is shown as it was before."""
    item = paper_items(Scope(("c-vf-1h", "bptt-1h")))["figure-asymmetric"]
    members = item.trainings()
    assert [(m.rule, m.angle, m.feedback, m.epochs) for m in members] == [
        *(("c-vf", angle, "trained", 20) for angle in (0, 45, 90, 135, 180)),
        ("bptt", 90, "frozen", 20),
    ]
    networks = dict.fromkeys(row["network"] for row in item.show(Results("mnist", [], [])).rows)
    assert list(networks) == ["one hidden layer"]
    data = DataUsed("mnist", "", 1, 1, (28, 28), "")
    started = Made("", ("eqprop",), {}, {"kind": "cpu"}, {}, None)
    test = tuple(float(n) for n in range(100, 70, -1))
    columns = {"test_error": test, "train_error": test, "angles/1-2": test}
    long = SeedResult(tmp_path, 0, Record(members[1], (0,), data, started), 30, columns)
    rendered = item.show(Results("mnist", [long], []))
    assert [row["test"] for row in rendered.rows] == [None, 81, None, None, None, None]
    assert rendered.rows[1]["after"] == 81
    assert rendered.rows[1]["most_epochs_done"] == 20
    assert [row["published_test"] for row in rendered.rows] == [None] * 6
    # The table of other trainings has what went on for longer, and nothing twice: 30 epochs of C-VF
    # are in the figure over its angles.
    others = paper_items(Scope(("c-vf-1h", "bptt-1h")))["table-others"]
    frozen = dataclasses.replace(long, record=Record(members[-1], (0,), data, started))
    short = dataclasses.replace(frozen.until(20), folder=tmp_path / "short")
    (row,) = others.show(Results("mnist", [long, frozen, short], [])).rows
    assert (row["recipe"], row["most_epochs_done"]) == (
        "bptt-1h, angle 90, feedback frozen",
        30,
    )
    assert others.show(Results("mnist", [short], [])).rows == []
    pages.write("figure-asymmetric", item, rendered, tmp_path, {})
    assert (tmp_path / "figure-asymmetric.png").read_bytes().startswith(b"\x89PNG")


def _drawn(axes: Any) -> dict[str, list[list[float]]]:
    """Of each set of points in a panel: x, y, and half the lengths of their bars."""
    found: dict[str, list[list[float]]] = {}
    for drawn in axes.containers:
        points, _, (bars,) = drawn
        # A point without one has a bar without ends.
        lengths = [
            float(np.ptp(ends, axis=0).sum()) / 2 if len(ends) else 0.0
            for ends in bars.get_segments()
        ]
        found[drawn.get_label()] = [*(list(map(float, xy)) for xy in points.get_data()), lengths]
    return found


def test_charts_show_each_number_where_it_belongs():
    nothing = {"most_epochs_done": None, "recipe": "a recipe"}
    rows = [
        {**nothing, "network": network, "rule": rule, "angle": angle, "test": test, "test_std": std}
        | {"published_test": published, "published_std": published_std}
        for network, rule, angle, test, std, published, published_std in (
            ("one", "ep", 0.0, 2.0, 0.5, 3.0, 0.25),
            ("one", "ep", 45.0, 4.0, None, None, None),
            ("one", "vf", 45.0, 5.0, 0.125, 6.0, None),
            ("two", "vf", 90.0, 7.0, 1.0, 7.5, 0.75),
        )
    ]
    figure = new_figure()
    charts.errors(figure, rows)
    drawn = _drawn(figure.axes[0])
    assert drawn["here"][0] == [2, 4, 5, 7]
    assert drawn["here"][2] == [0.5, 0, 0.125, 1]
    np.testing.assert_array_equal(drawn["published"][0], [3, np.nan, 6, 7.5])
    assert (drawn["published"][2][0], drawn["published"][2][-1]) == (0.25, 0.75)
    for part in ("here", "published"):
        np.testing.assert_array_equal(np.round(drawn[part][1]), range(4))
    figure = new_figure()
    charts.against_angle(figure, rows)
    one, two = map(_drawn, figure.axes)
    assert one == {
        "ep": [[0, 45], [2, 4], [0.5, 0]],
        "ep, published": [[0], [3], [0.25]],
        "vf": [[45], [5], [0.125]],
        "vf, published": [[45], [6], [0]],
    }
    assert two == {"vf": [[90], [7], [1]], "vf, published": [[90], [7.5], [0.75]]}
