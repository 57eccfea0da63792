"""``eqprop report``: the page against the files of its runs, its numbers against NumPy's."""

import itertools
import json
import math
import os
import re
import shutil
import statistics
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trainings
from trainings import digits, one_line, train

from eqprop.cli.main import main
from eqprop.reports.groups import gather
from eqprop.reports.page import _commands
from eqprop.training import metrics as metrics_module
from eqprop.training.runs import read_metrics

_compile_once = trainings._compile_once
pytestmark = pytest.mark.usefixtures("quick_compilation")

RECORDS = Path(__file__).parents[2] / "docs" / "records"
VOID = {"meta", "img", "br", "hr", "input", "link"}


class Table(NamedTuple):
    caption: str
    head: list[str]
    rows: list[list[str]]


class Page(HTMLParser):
    """What a browser would find in a page: elements, tables, texts below headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.tables: list[Table] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append(Table("", [], []))
        elif tag == "tr":
            self._row: list[str] = []
        elif tag in {"td", "th"}:
            self._row.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag == "tr":
            table = self.tables[-1]
            if "thead" in self._open:
                table.head.extend(self._row)
            else:
                table.rows.append(self._row)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if "table" in self._open and {"td", "th"} & set(self._open):
            self._row[-1] += data
        elif "caption" in self._open:
            self.tables[-1] = self.tables[-1]._replace(caption=self.tables[-1].caption + data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())

    def table(self, head: str) -> Table:
        """The table whose second column has that head."""
        (found,) = (table for table in self.tables if table.head[1:2] == [head])
        return found

    def labels(self) -> list[str]:
        return [a["aria-label"] for tag, a in self.elements if tag == "svg"]


def report(out: Path, *typed: str | Path) -> Page:
    assert main(["report", *map(str, typed), "--out", str(out)]) == 0
    return Page(out.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "run"
    assert train(out, "--seeds", "2", "--epochs", "2", "--batch", "5") == 0
    return out


@pytest.fixture(scope="module")
def page(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return report(tmp_path_factory.mktemp("page") / "report.html", run)


def metrics(run: Path) -> list[list[dict[str, Any]]]:
    return [read_metrics(run / f"seed-{seed}") for seed in (0, 1)]


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


# ---------------------------------------------------------------------------------------- contents


def test_results_are_those_of_the_metrics(run: Path, page: Page) -> None:
    last = [rows[-1] for rows in metrics(run)]

    def shown(key: str) -> str:
        values = [row[key] for row in last]
        return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"

    (row,) = page.table("test error").rows
    # Digits are no MNIST: nothing published to compare with.
    assert row[:5] == ["ep-1h", shown("test_error"), "–", shown("train_error"), "–"]
    assert row[5:7] == ["0, 1", "2 of 2"]
    # Not those before the first minibatch.
    spent = [sum(row["seconds"].values()) for rows in metrics(run) for row in rows]
    assert float(row[7]) == pytest.approx(statistics.mean(spent), rel=5e-3)
    assert metrics(run)[0][0]["seconds_to_start"] > 0.01 * spent[0]
    assert "was trained on digits" not in page.text  # it was asked for
    assert "hidden 16, not 512" in page.text


def test_every_epoch_is_there(run: Path, page: Page) -> None:
    table = page.table("test error (%)")
    assert [row[0] for row in table.rows] == ["1", "2"]
    for column, key in enumerate(("test_error", "train_error", "test_loss", "train_loss"), 1):
        for n, row in enumerate(table.rows):
            mean = statistics.mean(rows[n][key] for rows in metrics(run))
            assert float(row[column]) == pytest.approx(mean, rel=1e-3)


def test_curves_tell_first_and_last_values(run: Path, page: Page) -> None:
    (label,) = (label for label in page.labels() if label.startswith("error (%) against epochs"))
    tests = [[row["test_error"] for row in rows] for rows in metrics(run)]
    for at in (0, -1):
        values = [seed[at] for seed in tests]
        mean, std = statistics.mean(values), statistics.stdev(values)
        assert f"{mean:.4g} ± {std:.4g}" in label


def test_configuration_environment_and_commands(run: Path, page: Page) -> None:
    found = {row[0]: row[1:] for row in page.table("value").rows}
    wanted = record(run)["recipe"]
    for name in wanted.keys() - {"name", "about", "published", "device"}:  # an ideal one
        value = wanted[name]
        said = " ".join(map(str, value)) if isinstance(value, list) else str(value)
        assert found[name][0] == ("none" if value is None else said)
    assert found["hidden"][1] == "512"
    assert found["beta"][1] == "the same"
    made = record(run / "seed-1")["started"]
    environment = {row[0]: row[1:] for row in page.table("seed 0").rows}
    assert environment["jax"] == [made["versions"]["jax"]]
    assert environment["run directory"] == [str(run / "seed-0"), str(run / "seed-1")]
    assert made["git"]["commit"] in environment["commit"][0]
    assert f"git checkout {made['git']['commit']}" in page.text
    assert "eqprop train ep-1h --dataset digits --hidden 16" in page.text
    assert f"eqprop report {run}" in page.text


def test_pictures(page: Page) -> None:
    labels = [a["alt"] for tag, a in page.elements if tag == "img"]
    assert sum(label.startswith("unit ") for label in labels) == 16
    assert [label for label in labels if label.startswith("output ")] == [
        f"output {n}" for n in range(10)
    ]
    assert f"Test image of class {digits().test_y[0]}" in labels
    said = " ".join(page.labels())
    for panel in ("layer 1, 16 units", "States of the outputs", "states s1", "weights W2"):
        assert panel in said


def test_what_helps_to_find_ones_way(page: Page) -> None:
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        if tag == "th":
            assert attributes["scope"] in {"row", "col"}
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-label"]
        if tag == "img":
            assert attributes["alt"]
        for name in ("aria-labelledby", "href"):
            if attributes.get(name, "").startswith("#"):
                assert attributes[name][1:] in ids
    assert all(table.caption for table in page.tables)
    assert ("html", {"lang": "en"}) in page.elements
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(below - above <= 1 for above, below in itertools.pairwise(levels))


def test_theorem_1_is_that_of_verify(run: Path, tmp_path: Path) -> None:
    """Before training, on the same five examples, numbers and verdict are the same."""
    bare = copy(run / "seed-0", tmp_path / "bare")
    page = report(tmp_path / "page.html", bare)
    typed = ["verify", "ep-1h", *trainings.SMALL, "--batch", "5", "--out", str(tmp_path / "v")]
    assert main(typed) == 0
    numbers = json.loads((tmp_path / "v" / "verification.json").read_text())
    assert numbers["verdict"] in page.text
    tensors = [*numbers["asked"]["tensors"], numbers["asked"]["together"]]
    rows = {row[0]: row[1:] for row in page.table("RelMSE").rows}
    assert list(rows) == [tensor["name"] for tensor in tensors]
    for tensor in tensors:
        relmse, cosine, angle = map(float, rows[tensor["name"]])
        assert relmse == pytest.approx(tensor["relmse"], rel=1e-2)
        assert cosine == pytest.approx(tensor["cosine"], abs=1e-4)
        assert angle == pytest.approx(tensor["angle"], abs=0.06)
    assert "seed 0, before training" in page.text
    assert not re.search("without the device|states not kept", page.text)


def test_what_theorem_1_is_measured_without_is_told(run: Path, tmp_path: Path) -> None:
    bare = copy(run / "seed-0", tmp_path / "bare")
    change(bare, lambda it: it["recipe"].update(setting="energy", dt=0.5, clip=True))
    change(bare, lambda it: it["recipe"]["device"].update(write_noise=0.01))
    page = report(tmp_path / "page.html", bare)
    assert "β = 0.1, without the device, states not kept in [0, 1]." in page.text


def test_the_guide_falls_as_the_bias_of_the_nudge(run: Path, tmp_path: Path) -> None:
    """arXiv:2209.00530: with N points on a circle of betas the bias falls as beta^N."""
    bare = copy(run / "seed-0", tmp_path / "bare")
    change(bare, lambda it: it["recipe"].update(nudge="holomorphic", points=3))
    page = report(tmp_path / "page.html", bare)
    (label,) = (label for label in page.labels() if label.startswith("error against BPTT"))
    assert "beside a line of order 3" in label


def edit_rows(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        edit(row)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_new_metric_and_runs_that_lack_one(tmp_path: Path, monkeypatch) -> None:
    """One that an old run does not have is left out; one more in the list has panel and column."""
    folder = copy(RECORDS / "ep-1h" / "seed-0", tmp_path / "run")
    edit_rows(folder, lambda row: row.pop("residual"))
    edit_rows(folder, lambda row: row["epoch"] > 2 and row.update(active=row["epoch"] / 8))
    page = report(tmp_path / "page.html", folder, "--no-theorem")
    assert not any("residual" in label or "active" in label for label in page.labels())
    assert "residual" not in page.table("test error (%)").head
    more = metrics_module.OfEpoch(
        name="active", function=lambda _: 0.0, title="active units", label="all", head="active"
    )
    monkeypatch.setattr(metrics_module, "METRICS", (*metrics_module.METRICS, more))
    page = report(tmp_path / "page.html", folder, "--no-theorem")
    (label,) = (label for label in page.labels() if label.startswith("active units"))
    assert "all: unknown at the first epoch, 3.75 at the last" in label
    table = page.table("test error (%)")
    column = [row[table.head.index("active")] for row in table.rows]
    assert column[:4] == ["", "", "0.375", "0.5"]


def test_a_run_without_errors_is_refused(tmp_path: Path, capsys) -> None:
    folder = copy(RECORDS / "ep-1h" / "seed-0", tmp_path / "run")
    edit_rows(folder, lambda row: row.pop("test_error"))
    assert main(["report", str(folder), "--no-theorem"]) == 1
    assert "has no test_error for the last epoch" in one_line(capsys.readouterr().err)


def test_the_published_result_and_the_angles(tmp_path: Path) -> None:
    """Of the records of real runs, without data, checkpoints or JAX programs."""
    ours = [RECORDS / "ep-1h", RECORDS / "c-vf-1h-sweeps"]
    page = report(tmp_path / "page.html", *ours, "--no-theorem")
    tied, untied = page.table("test error").rows
    assert tied[:5] == ["1. ep-1h", "2.02 ± 0.19", "2.00 ± 0.13", "0.21 ± 0.03", "0.20"]
    last = read_metrics(ours[-1])[-1]
    assert untied[1] == f"{last['test_error']:.2f}"
    assert untied[2] == "2.43 ± 0.08"
    assert "T 20, not 40; sweeps True, not False" in page.text
    (angles,) = (label for label in page.labels() if label.startswith("angle of forward"))
    assert f"layers 1-2: {read_metrics(ours[-1])[0]['angles']['1-2']:.4g} at the first" in angles
    assert f"{last['angles']['1-2']:.4g} at the last" in angles
    assert page.text.count("Left out: no checkpoint has been kept with this run.") == 2
    assert page.text.count("Left out, as --no-theorem asked.") == 2
    assert "5 runs of 30 epochs for ep-1h, 5 runs of 100 epochs for c-vf-1h." in page.text
    (both,) = (label for label in page.labels() if "1. ep-1h" in label)
    assert "2. c-vf-1h" in both


def test_a_seed_for_the_second_time_is_a_run_of_its_own(tmp_path: Path) -> None:
    again = copy(RECORDS / "ep-1h" / "seed-0", tmp_path / "again")
    page = report(tmp_path / "page.html", RECORDS / "ep-1h", again, "--no-theorem")
    assert [row[5] for row in page.table("test error").rows] == ["0, 1, 2, 3, 4", "0"]


def test_a_stand_in_for_the_data(tmp_path: Path) -> None:
    folder = copy(RECORDS / "ep-1h" / "seed-0", tmp_path / "run")
    change(folder, lambda it: it["data"].update(name="digits", source="They stand in."))
    page = report(tmp_path / "page.html", folder, "--no-theorem")
    assert page.table("test error").rows[0][2] == "–"
    assert "ep-1h was trained on digits, not on mnist: They stand in." in page.text


# ----------------------------------------------------------------------------- nothing from afar


def copy(run: Path, to: Path) -> Path:
    """A run without its checkpoints."""
    to.mkdir()
    for name in ("run.json", "metrics.jsonl"):
        shutil.copy(run / name, to)
    return to


def change(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    value = record(folder)
    edit(value)
    (folder / "run.json").write_text(json.dumps(value))


def assert_self_contained(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form", "style+"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"src", "href", "xlink:href", "srcset", "data", "action"}:
                assert re.match(r"#|data:image/png;base64,", value), (tag, name, value)
            if "url(" in value:
                assert re.search(r"url\(#", value)
    styles = "".join(page.texts)
    assert "url(" not in styles
    assert "@import" not in styles
    policy = [a for tag, a in page.elements if tag == "meta" and "http-equiv" in a]
    assert policy[0]["content"].startswith("default-src 'none'")


def test_nothing_is_loaded(page: Page) -> None:
    assert_self_contained(page)


def test_nothing_in_the_files_becomes_markup(tmp_path: Path) -> None:
    evil = "</title></style><script>'$x_1$'</script><img src=\"http://e.vil\" onload='x'>&amp;"
    folder = copy(RECORDS / "c-vf-1h-sweeps", tmp_path / "run")

    def edit(it: dict[str, Any]) -> None:
        it["recipe"] |= {"name": evil, "about": evil}
        it["data"] |= {"source": evil, "name": evil, "sha256": evil}
        it["started"] |= {
            **{"command": ["eqprop", evil], "time": evil, "versions": {evil: evil}},
            **{"device": {evil: evil}, "machine": {"platform": evil}},
            "git": {"commit": evil, "dirty": True},
        }
        it["resumed"] = [it["started"]]

    change(folder, edit)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row["angles"] = {evil: row["angles"]["1-2"]}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    other = copy(RECORDS / "ep-1h" / "seed-0", tmp_path / "other")
    page = report(tmp_path / "page.html", folder, other, "--no-theorem")
    assert_self_contained(page)
    assert sum(tag == "img" for tag, _ in page.elements) == 0
    # Whole, as text: names, sources, commands, and in figures.
    assert page.text.count(evil) >= 15
    assert any(f"layers {evil}" in label for label in page.labels())


# ---------------------------------------------------------------------------- what is not there


def test_damaged_checkpoints_are_left_out(run: Path, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run / "seed-0", folder)
    for path in folder.glob("checkpoints/*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    page = report(tmp_path / "page.html", folder, "--no-theorem")
    assert "Left out: no checkpoint is whole" in page.text
    assert "note: no checkpoint is whole" in capsys.readouterr().out


def test_data_that_are_gone(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run / "seed-0", folder)
    change(folder, lambda it: it["data"].update(sha256="0"))
    page = report(tmp_path / "page.html", folder)
    assert page.text.count("Left out: the data set digits is not the one that the run") == 2


def test_rules_without_a_nudged_phase(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run / "seed-0", folder)
    change(folder, lambda it: it["recipe"].update(rule="bptt"))
    page = report(tmp_path / "page.html", folder)
    assert "Left out: rule bptt has no nudged phase" in page.text
    assert "A test example, layer by layer" in page.text


def test_a_seed_that_has_not_begun(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(RECORDS / "ep-1h", folder)
    whole = record(folder / "seed-0") | {"seeds": [0, 1, 2, 3, 4, 5]}
    (folder / "run.json").write_text(json.dumps(whole))
    page = report(tmp_path / "page.html", folder, "--no-theorem")
    assert page.table("test error").rows[0][5] == "0, 1, 2, 3, 4"
    assert "seed-5: seed 5 has not finished an epoch yet" in page.text


def test_runs_at_any_depth(tmp_path: Path) -> None:
    """Seeds within a run of several count once."""
    shutil.copytree(RECORDS / "ep-1h", tmp_path / "a" / "deep" / "run")
    (tmp_path / "b").mkdir()
    copy(RECORDS / "c-vf-1h-sweeps", tmp_path / "b" / "run")
    page = report(tmp_path / "page.html", tmp_path, "--no-theorem")
    assert [row[5] for row in page.table("test error").rows] == ["0, 1, 2, 3, 4", "0"]


def test_commands_stand_under_the_commits_on_which_they_were_typed(tmp_path: Path) -> None:
    folders = [copy(RECORDS / "ep-1h" / f"seed-{n}", tmp_path / f"run-{n}") for n in range(2)]
    for n, folder in enumerate(folders):
        change(
            folder, lambda it, n=n: it["started"].update(git={"commit": "c1"}, command=[f"s{n}"])
        )
    resumed = record(folders[0])["started"] | {"git": {"commit": "c2"}, "command": ["again"]}
    change(folders[0], lambda it: it.update(resumed=[resumed]))
    (group,) = gather(folders)[0]
    assert _commands(group) == [
        *("git checkout c1", "s0", "git checkout c2", "again", "git checkout c1", "s1"),
    ]


def test_seeds_that_have_come_less_far(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(RECORDS / "ep-1h", folder)
    lines = (folder / "seed-1" / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "seed-1" / "metrics.jsonl").write_text("".join(lines[:3]))
    seeds = [folder / f"seed-{n}" for n in range(3)]
    page = report(tmp_path / "page.html", *seeds, "--no-theorem")
    assert page.table("test error").rows[0][6] == "30, 3 of 30"
    errors = [[row["test_error"] for row in read_metrics(seed)] for seed in seeds]
    row = page.table("test error (%)").rows[10]
    assert float(row[1]) == pytest.approx((errors[0][10] + errors[2][10]) / 2, rel=1e-3)


@pytest.mark.parametrize(
    ("typed", "code", "message"),
    [
        ([], 2, "name a run directory"),
        (["{tmp}/nothing"], 2, "is no run directory"),
        (["{run}", "--out", "{tmp}/page.txt"], 2, "give a name that ends with .html"),
        (["{run}", "--example", "-1"], 2, "count from 0"),
        (["{run}", "--example", "10000"], 2, "tested on 10000 examples"),
        (["{run}", "--examples", "1"], 2, "did you mean --example?"),
        (["{run}", "--no-theorem", "--out", "{run}/run.json/x.html"], 2, "cannot be written"),
    ],
)
def test_bad_input(typed, code, message, tmp_path, capsys, monkeypatch) -> None:
    if message == "cannot be written":  # which is said before the work
        monkeypatch.setattr("eqprop.reports.page.compose", None)
    folder = copy(RECORDS / "ep-1h" / "seed-0", tmp_path / "run")
    filled = [part.format(tmp=tmp_path, run=folder) for part in typed]
    assert main(["report", *filled]) == code
    assert message in one_line(capsys.readouterr().err)
    assert sorted(p.name for p in folder.iterdir()) == ["metrics.jsonl", "run.json"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("test_error", "<b>"),
        ("test_error", None),
        ("residual", math.nan),
        ("angles", 3),
        ("seconds", {"train": "x"}),
        ("residual", {"a": 1.0}),
        ("angles", {"2-3": 4.0}),
    ],
)
def test_bad_metrics(key, value, tmp_path, capsys) -> None:
    folder = copy(RECORDS / "c-vf-1h-sweeps", tmp_path / "run")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows[2][key] = value
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["report", str(folder), "--no-theorem"]) == 1
    assert re.search(r"metrics\.jsonl, line 3[:,] ", one_line(capsys.readouterr().err))
    assert not (folder / "report.html").exists()


def test_no_epoch_yet(tmp_path: Path, capsys) -> None:
    folder = copy(RECORDS / "ep-1h" / "seed-0", tmp_path / "run")
    (folder / "metrics.jsonl").unlink()
    assert main(["report", str(folder)]) == 1
    assert "has not finished an epoch yet" in one_line(capsys.readouterr().err)


def test_where_the_page_goes(tmp_path: Path) -> None:
    folder = copy(RECORDS / "ep-1h" / "seed-0", tmp_path / "run")
    assert main(["report", str(folder), "--no-theorem"]) == 0
    first = (folder / "report.html").read_text(encoding="utf-8")
    assert main(["report", str(folder), "--no-theorem"]) == 0
    again = (folder / "report.html").read_text(encoding="utf-8")
    # The same page but for the time, at which it was made.
    time = re.compile(r"on \d{4}-\d\d-\d\dT[\d:]+\+00:00")
    assert time.sub("", first) == time.sub("", again)
    assert sorted(os.listdir(folder)) == ["metrics.jsonl", "report.html", "run.json"]
