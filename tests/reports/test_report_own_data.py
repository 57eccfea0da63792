"""Reports of data of one's own: regressions, labels, rows of numbers, pictures of any shape."""

from pathlib import Path

import numpy as np
import pytest
from test_report import Page, assert_self_contained, report

import eqprop as ep
from eqprop.reports.inspection import Relaxed, Trace, relax
from eqprop.reports.page_figures import _outputs
from eqprop.training.display import Display
from eqprop.training.experiment import prepare_again

pytestmark = pytest.mark.usefixtures("quick_compilation")

X = np.random.default_rng(0).normal(5, 3, (80, 4))
CLASSES = ep.Dataset.from_arrays(
    X, np.where(X[:, 0] > 5, "<oak>", "elm"), name="trees", features=("a", "b", "c", "<d>")
)
REAL = ep.Dataset.from_arrays(X, 100 + X[:, :2], name="hills", names=("height", "slope"))
LABELS = ep.Dataset.from_arrays(X, X[:, :2] > 5, name="tags", names=("warm", "wet"))
PICTURES = ep.Dataset.from_arrays(
    np.random.default_rng(1).integers(0, 256, (80, 6, 9)).astype(np.uint8),
    np.arange(80) % 2,
    name="noise",
)


def trained(dataset: ep.Dataset, folder: Path) -> ep.TrainedRun:
    return ep.fit("ep-1h", dataset, folder / dataset.name, epochs=1, hidden=(5,), T=12, K=4)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ep.TrainedRun]:
    folder = tmp_path_factory.mktemp("own")
    return {d.name: trained(d, folder) for d in (CLASSES, REAL, LABELS, PICTURES)}


@pytest.mark.slow
def test_each_kind_of_target_has_a_whole_page(runs, tmp_path) -> None:
    folders = [run.folder for run in runs.values()]
    page = report(tmp_path / "page.html", *folders, "--no-theorem")
    assert_self_contained(page)
    assert "Left out: no" not in page.text
    results = page.tables[0]
    for run, row in zip(runs.values(), results.rows, strict=True):
        cells = dict(zip(results.head, row, strict=True))
        for head, name in (
            ("test error", "error"),
            ("test wrong labels", "label_error"),
            ("test RMSE", "rmse"),
            ("test R²", "r2"),
        ):
            values = run.metrics.get(f"test_{name}")
            if values is None:
                assert cells[head] == "–"
            else:
                assert float(cells[head]) == pytest.approx(values[-1], abs=0.006)
    captions = [table.caption for table in page.tables]
    assert captions.count("Confusion matrix: true classes in rows, predicted ones in columns.") == 2
    assert "Errors by label." in captions
    assert "Errors by target." in captions
    assert any(
        label.startswith("Predicted against true values of slope") for label in page.labels()
    )
    assert "was trained on data of one's own, hills" in page.text
    images = [a["alt"] for tag, a in page.elements if tag == "img"]
    assert any(alt.startswith("Test image of class") for alt in images)
    assert any(alt.startswith("Test example of class") for alt in images)
    assert any(", predicted " in alt for alt in images)


def test_mistakes_can_be_left_out(runs, tmp_path) -> None:
    page = report(tmp_path / "page.html", runs["hills"].folder, "--no-theorem", "--no-mistakes")
    assert "Mistakes" not in page.text


@pytest.mark.slow
def test_theorem_1_is_measured_on_scaled_inputs_and_linear_outputs(runs, tmp_path) -> None:
    for name in ("trees", "hills"):
        page: Page = report(tmp_path / f"{name}.html", runs[name].folder, "--no-mistakes")
        assert page.table("RelMSE").rows


def test_units_that_a_readout_reads_are_no_outputs(tmp_path) -> None:
    fields = {"hidden": (5,), "T": 12, "K": 4, "cost": "cross-entropy", "lr": (0.1, 0.1)}
    run = ep.fit("ep-1h", CLASSES, tmp_path / "run", epochs=1, **fields)
    page = report(tmp_path / "page.html", run.folder, "--no-theorem")
    assert any(label.startswith("States of layer 1") for label in page.labels())
    assert "outputs" not in page.text


def test_a_target_has_the_colour_of_its_output() -> None:
    """Of eight outputs six are told apart."""
    states = np.zeros((3, 8))
    layer = Trace((8,), states, np.zeros(2), states[-1])
    marked, levels = {n: f"y{n}" for n in range(8)}, tuple(n / 8 for n in range(8))
    relaxed = Relaxed(np.zeros((1, 4)), "", "", marked, levels, [layer], outputs=True)
    figure = str(_outputs(layer, relaxed, "out"))
    # An output, that in the legend, a target; of the first, that in the legend.
    assert [figure.count(f"var(--c{n})") for n in range(6)] == [4, 3, 3, 3, 3, 3]


@pytest.mark.parametrize("name", ["trees", "hills"])
def test_the_free_phase_shown_is_that_of_the_run(runs, name) -> None:
    run = runs[name]
    experiment = prepare_again(run.folder, run.record, run.recipe, Display())
    scaling = None if run.record.data.target_scaling is None else run._scalings[1]
    found = relax(experiment, run.network, 3, run.target, scaling)
    dataset = {"trees": CLASSES, "hills": REAL}[name]
    expected = run.relax(dataset.test_x[3:4])
    for layer, states in zip(found.layers, expected, strict=True):
        np.testing.assert_allclose(layer.states, states[:, 0], atol=1e-5)
    if name == "hills":
        values = [float(word) for word in found.label.split()]
        np.testing.assert_allclose(values, dataset.test_y[3], rtol=1e-3)


def test_the_best_epoch_stands_for_a_run_with_a_validation_part(tmp_path) -> None:
    fields = {"hidden": (5,), "T": 12, "K": 4, "validation": 0.2}
    run = ep.fit("ep-1h", REAL, tmp_path / "run", epochs=3, **fields)
    page = report(tmp_path / "page.html", run.folder, "--no-theorem")
    cells = dict(zip(page.tables[0].head, page.tables[0].rows[0], strict=True))
    assert float(cells["test RMSE"]) == pytest.approx(run.evaluate(REAL)["rmse"], abs=1e-3)
    (run.folder / "result.json").unlink()  # as while it is trained
    page = report(tmp_path / "page.html", run.folder, "--no-theorem")
    assert dict(zip(page.tables[0].head, page.tables[0].rows[0], strict=True))["test RMSE"] == "–"
