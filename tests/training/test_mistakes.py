"""What a network takes for what, against NumPy's counts of its predictions."""

from pathlib import Path

import numpy as np
import pytest
from trainings import one_line

import eqprop as ep
from eqprop.cli.main import main
from eqprop.training.display import Display
from eqprop.training.experiment import prepare_again
from eqprop.training.figures import training_curves
from eqprop.training.mistakes import Mistakes, find
from eqprop.training.settled import settle
from eqprop.training.trained_run import TrainedRun

pytestmark = pytest.mark.usefixtures("quick_compilation")


def blobs(rows: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Numbers around three places, with the place."""
    generator = np.random.default_rng(0)
    place = generator.integers(0, 3, rows)
    return generator.normal(size=(rows, 4)) + np.eye(4)[place], place


def bars() -> ep.Dataset:
    """Pictures of 6 x 9 with an upright or a level bar."""
    generator = np.random.default_rng(0)
    x, y = generator.integers(0, 60, (90, 6, 9)).astype(np.uint8), generator.integers(0, 2, 90)
    x[y == 0, :, 4] += 120
    x[y == 1, 3, :] += 120
    return ep.Dataset.from_arrays(x, y, name="bars", names=("upright", "level"))


def run_on(dataset: ep.Dataset, out: Path) -> TrainedRun:
    return ep.fit("ep-1h", dataset, out, epochs=2, hidden=(8,), T=10, K=4)


def mistakes(run: TrainedRun) -> Mistakes:
    experiment = prepare_again(run.folder, run.record, run.recipe, Display())
    scores = settle(experiment, run.network, experiment.test).scores
    return find(run.record.data, experiment.test, scores, experiment.trainer.system.cost)


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainedRun, ep.Dataset]:
    x, place = blobs()
    dataset = ep.Dataset.from_arrays(
        x, np.array(["ash", "beech", "cedar"])[place], name="trees", features=tuple("abcd")
    )
    return run_on(dataset, tmp_path_factory.mktemp("mistakes") / "trees"), dataset


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainedRun, ep.Dataset]:
    x, _ = blobs()
    y = np.stack([100 + 10 * x[:, 0], x[:, 1] - x[:, 2]], axis=1)
    dataset = ep.Dataset.from_arrays(x, y, name="hills", names=("height", "slope"))
    return run_on(dataset, tmp_path_factory.mktemp("mistakes") / "hills"), dataset


def test_a_network_without_mistakes_has_a_page_and_a_figure(tmp_path: Path) -> None:
    y = np.arange(60) % 2
    x = 3.0 * np.eye(2)[y] + np.random.default_rng(0).normal(scale=0.1, size=(60, 2))
    dataset = ep.Dataset.from_arrays(x, y, name="apart")
    run = ep.fit("ep-1h", dataset, tmp_path / "run", epochs=5, hidden=(8,), batch=5)
    assert run.tested["test_error"] == 0
    assert mistakes(run).worst.rows == []
    figure = tmp_path / "figure.png"
    assert main(["evaluate", str(run.folder), "--figure", str(figure)]) == 0
    assert figure.stat().st_size > 1000
    assert main(["report", str(run.folder), "--out", str(tmp_path / "page.html")]) == 0


def test_the_confusion_matrix_is_that_of_the_predictions(classes) -> None:
    run, dataset = classes
    found, names = mistakes(run), ("ash", "beech", "cedar")
    taken = run.predict(dataset.test_x)
    true = np.array(names)[dataset.test_y]
    expected = [[int(((true == a) & (taken == b)).sum()) for b in names] for a in names]
    assert found.counts is not None
    np.testing.assert_array_equal(found.counts.counts, expected)
    confusion, by_class = found.tables
    assert confusion.rows == [(a, *map(str, row)) for a, row in zip(names, expected, strict=True)]
    for n, row in enumerate(by_class.rows):
        wrong = sum(expected[n]) - expected[n][n]
        assert row[:3] == (names[n], str(sum(expected[n])), str(wrong))
        assert row[3] == f"{100 * wrong / sum(expected[n]):.2f}"
    error = 100 - 100 * np.trace(expected) / np.sum(expected)
    assert run.metrics["test_error"][-1] == pytest.approx(error)


def test_the_worst_mistake_is_the_surest(classes) -> None:
    run, dataset = classes
    found, scores = mistakes(run), run.scores(dataset.test_x)
    y = dataset.test_y
    margin = scores.max(axis=1) - scores[np.arange(len(y)), y]
    (wrong,) = np.nonzero(scores.argmax(axis=1) != y)
    order = wrong[np.argsort(-margin[wrong], kind="stable")][:16]
    assert [int(row[0]) for row in found.worst.rows] == order.tolist()
    assert found.worst.heads == ("example", "true", "predicted", *"abcd")
    np.testing.assert_array_equal(found.inputs, dataset.test_x[order])
    assert found.worst.rows[0][3] == f"{dataset.test_x[order[0], 0]:.4g}"
    assert not found.pictures


def test_a_regression_is_judged_in_the_units_of_the_data(real) -> None:
    run, dataset = real
    found, y = mistakes(run), dataset.test_y
    taken = run.predict(dataset.test_x)
    (table,) = found.tables
    for n, (name, rmse, r2) in enumerate(table.rows):
        squares = np.mean((y[:, n] - taken[:, n]) ** 2)
        assert name == ("height", "slope")[n]
        assert float(rmse) == pytest.approx(np.sqrt(squares), rel=1e-3)
        assert float(r2) == pytest.approx(1 - squares / y[:, n].var(), abs=1e-3)
        np.testing.assert_allclose(found.predictions[n].true, y[:, n], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(
            found.predictions[n].predicted, taken[:, n], rtol=1e-4, atol=1e-4
        )
    far = (np.abs(y - taken) / y.std(axis=0)).max(axis=1)
    assert int(found.worst.rows[0][0]) == far.argmax()


def test_labels_are_counted_one_by_one(tmp_path) -> None:
    x, _ = blobs()
    dataset = ep.Dataset.from_arrays(x, x[:, :2] > 0.3, name="tags", names=("warm", "wet"))
    run = run_on(dataset, tmp_path / "run")
    found, taken, there = mistakes(run), run.predict(dataset.test_x), dataset.test_y
    assert found.counts is not None
    for n, row in enumerate(found.counts.counts):
        both = list(zip(there[:, n], taken[:, n], strict=True))
        assert row.tolist() == [both.count(pair) for pair in ((0, 0), (0, 1), (1, 0), (1, 1))]


def test_evaluate_tells_and_draws_them(classes, real, tmp_path, capsys) -> None:
    for run, told in ((classes[0], "confusion matrix"), (real[0], "errors by target")):
        before = sorted(run.folder.rglob("*"))
        assert main(["evaluate", str(run.folder), "--figure", str(tmp_path / "it.png")]) == 0
        assert told in capsys.readouterr().out
        assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")
        assert sorted(run.folder.rglob("*")) == before
    assert main(["evaluate", str(classes[0].folder), "--figure", "it.pdf"]) == 2
    assert "ends with .png or .svg" in one_line(capsys.readouterr().err)
    nowhere = tmp_path / "no" / "it.svg"
    assert main(["evaluate", str(classes[0].folder), "--figure", str(nowhere)]) == 1
    assert "cannot be written" in one_line(capsys.readouterr().err)


def test_pictures_are_drawn(tmp_path) -> None:
    found = mistakes(run_on(bars(), tmp_path / "run"))
    assert found.pictures
    assert len(found.captions) == len(found.inputs)


def test_curves_of_a_regression_are_of_what_it_measures(real, tmp_path) -> None:
    text = training_curves([real[0].folder], tmp_path / "it.svg", "hills").read_text()
    for title in ("RMSE", "R²", "training", "hills"):
        assert f"<!-- {title} -->" in text
    assert "<!-- error (%) -->" not in text
