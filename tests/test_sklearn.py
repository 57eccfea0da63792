"""The estimators against scikit-learn's own checks, and in its tools."""

import io
from typing import Any

import jax
import jax.numpy as jnp
import joblib
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import load_diabetes, load_digits, load_iris, load_wine
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import eqprop as ep
from eqprop.errors import Diverged, EqpropError
from eqprop.sklearn import EPClassifier, EPRegressor
from eqprop.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("quick_compilation")

type Arrays = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def iris() -> Any:
    return load_iris(return_X_y=True)


# scikit-learn skips what needs pandas, and arrays of other libraries, where these are not there.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(
    [EPClassifier(hidden=(16,), epochs=20), EPRegressor(hidden=(16,), epochs=20)]
)
def test_scikit_learns_checks(estimator: BaseEstimator, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize(
    ("load", "least"), [(load_iris, 0.92), (load_wine, 0.94), (load_digits, 0.93)]
)
def test_defaults_learn_classes(load: Any, least: float) -> None:
    data = load(return_X_y=True)
    x, test_x, y, test_y = train_test_split(*data, random_state=0, stratify=data[1])
    assert EPClassifier(epochs=30, random_state=0).fit(x, y).score(test_x, test_y) >= least


@pytest.mark.slow
def test_defaults_learn_a_regression() -> None:
    assert (
        cross_val_score(EPRegressor(random_state=0), *load_diabetes(return_X_y=True)).mean() > 0.4
    )


def test_classes_by_name_in_a_pipeline(iris: Arrays) -> None:
    x, y = iris
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    model = make_pipeline(MinMaxScaler(), EPClassifier(random_state=0)).fit(x, names)
    assert model.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    assert model.score(x, names) > 0.9


def test_a_grid_search_over_layers_and_rules(iris: Arrays) -> None:
    grid = [{"hidden": [(8,), (8, 8)]}, {"rule": ["c-ep"]}]
    search = GridSearchCV(EPClassifier(epochs=2, random_state=0), grid, cv=2).fit(*iris)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.n_iter_ == 2


def test_a_random_state_decides_all(iris: Arrays) -> None:
    model = EPClassifier(epochs=2, random_state=3)
    scores = [clone(model).fit(*iris).decision_function(iris[0]) for _ in range(2)]
    assert np.array_equal(*scores)
    other = clone(model).set_params(random_state=4).fit(*iris).decision_function(iris[0])
    assert not np.allclose(scores[0], other)


@pytest.mark.parametrize("kind", [EPClassifier, EPRegressor])
def test_a_loaded_estimator_predicts_and_learns_on(kind: Any, iris: Arrays) -> None:
    x, y = iris
    model = kind(epochs=2, random_state=0, fields={"optimizer": "momentum"}).fit(x, y)
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    loaded = joblib.load(file)
    assert np.array_equal(loaded.predict(x), model.predict(x))
    assert np.array_equal(*(m.partial_fit(x, y).predict(x) for m in (model, loaded)))


def test_partial_fits_are_the_epochs_of_a_fit(iris: Arrays) -> None:
    x, y = iris
    whole, parts = (EPClassifier(epochs=3, random_state=0) for _ in range(2))
    whole.fit(x, y)
    for _ in range(3):
        parts.partial_fit(x, y, classes=[0, 1, 2])
    assert np.array_equal(whole.predict_proba(x), parts.predict_proba(x))
    assert parts.n_iter_ == 3
    assert whole.loss_curve_ == parts.loss_curve_


def test_classes_are_listed_in_the_first_partial_fit(iris: Arrays) -> None:
    x, y = iris
    model = EPClassifier(random_state=0).partial_fit(x[:100], y[:100], classes=[0, 1, 2])
    assert model.partial_fit(x[100:], y[100:]).predict_proba(x).shape == (150, 3)
    with pytest.raises(EqpropError, match=r"class .*7.* is none of \[0, 1, 2\]"):
        model.partial_fit(x, y + 7)
    regressor = EPRegressor(random_state=0).partial_fit(x, y)
    with pytest.raises(EqpropError, match="as many for each"):
        regressor.partial_fit(x, x)
    # A first call that failed was none.
    model = EPClassifier(random_state=0)
    with pytest.raises(EqpropError, match=r"is none of \[0, 1\]"):
        model.partial_fit(x, y, classes=[0, 1])
    assert model.partial_fit(x, y, classes=[0, 1, 2]).predict_proba(x).shape == (150, 3)


def test_partial_fit_refuses_what_would_learn_nothing(iris: Arrays) -> None:
    x, y = iris
    model = EPClassifier(epochs=1, random_state=0, fields={"schedule": "cosine"})
    with pytest.raises(EqpropError, match="schedule is cosine"):
        model.partial_fit(x, y)
    assert not hasattr(model, "loss_curve_")
    with pytest.raises(EqpropError, match="schedule is cosine"):
        model.fit(x, y).partial_fit(x, y)
    model = EPClassifier(random_state=0)
    with pytest.raises(EqpropError, match="classes is empty"):
        model.partial_fit(x, y, classes=[])
    model.partial_fit(x, y, classes=[2, 1, 0])
    with pytest.raises(EqpropError, match=r"classes are \[0, 1, 2, 3\], but"):
        model.partial_fit(x, y, classes=[0, 1, 2, 3])
    with pytest.raises(EqpropError, match="n_iter_no_change is 0"):
        EPClassifier(early_stopping=True, n_iter_no_change=0).fit(x, y)


def test_early_stopping_keeps_the_best_network(iris: Arrays) -> None:
    x, y = iris
    model = EPClassifier(
        epochs=300, lr=0.3, early_stopping=True, n_iter_no_change=4, random_state=0
    ).fit(x, y)
    losses = model.validation_losses_
    assert len(losses) == model.n_iter_ < 300
    assert model.n_iter_ - 1 - int(np.argmin(losses)) == 4
    # The part held out is drawn first from the random state.
    state = np.random.RandomState(0)
    _, held = train_test_split(np.arange(150), test_size=0.1, random_state=state, stratify=y)
    outputs, targets = model.decision_function(x[held]), np.eye(3)[y[held]]
    loss = 0.5 * ((outputs - targets) ** 2).sum(axis=1).mean()
    assert loss == pytest.approx(min(losses), rel=1e-5)


def test_scores_are_those_of_the_network(iris: Arrays) -> None:
    x, y = iris
    model = EPClassifier(epochs=3, random_state=0).fit(x, y)
    scaled = jnp.asarray((x - x.mean(axis=0)) / x.std(axis=0), jnp.float32)
    system = ep.build(model.recipe_, (4,), 3, 1).system
    (states, _) = system.free(system.clamp(model.network_, scaled), scaled)
    outputs = np.asarray(states[-1])
    assert np.allclose(model.decision_function(x), outputs, atol=1e-5)
    assert np.allclose(model.predict_proba(x), softmax(outputs, axis=1), atol=1e-5)


def test_several_real_numbers_in_double_precision(iris: Arrays) -> None:
    x = iris[0]
    model = EPRegressor(epochs=30, random_state=0, fields={"dtype": "float64"})
    model.fit(x[:, :2], x[:, 2:])
    assert model.predict(x[:, :2]).shape == (150, 2)
    assert model.score(x[:, :2], x[:, 2:]) > 0.8
    assert {leaf.dtype for leaf in jax.tree.leaves(model.network_)} == {np.dtype(np.float64)}


def test_images_as_rows_with_convolutions() -> None:
    x, y = load_digits(return_X_y=True)
    fields = {"channels": (4,), "kernel": 3, "activation": "hardsigm"}
    model = EPClassifier(
        shape=[8, 8], hidden=(), epochs=1, lr=0.05, scaling="unit", fields=fields, random_state=0
    )
    assert model.fit(x[:200], y[:200]).network_.shapes[:2] == ((8, 8, 1), (3, 3, 4))


def test_a_learning_rate_of_numpy(iris: Arrays) -> None:
    model = EPClassifier(epochs=1, lr=np.float32(0.25), random_state=0).fit(*iris)
    assert model.recipe_.lr == (0.25, 0.25)


def test_fewer_examples_than_a_minibatch() -> None:
    x = np.array([[0.0], [1.0], [2.0]])
    assert EPClassifier(epochs=1, random_state=0).fit(x, [0, 1, 1]).n_iter_ == 1


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"recipe": "ep-9h"}, "unknown recipe 'ep-9h': choose one of"),
        ({"fields": {"momentums": 1}}, "'momentums': did you mean momentum"),
        ({"lr": (0.1, 0.1, 0.1)}, "3 learning rate"),
        ({"epochs": 0}, "epochs is 0"),
        ({"shape": (2, 4)}, r"shape is \(2, 4\), of 8 numbers, but a row of X has 4"),
        ({"fields": {"channels": (4,)}}, "convolutions need images"),
    ],
)
def test_parameters_that_cannot_be(parameters: dict[str, Any], message: str, iris: Arrays) -> None:
    with pytest.raises(EqpropError, match=message):
        EPClassifier(**parameters).fit(*iris)


def test_numbers_that_float32_does_not_tell_apart(iris: Arrays) -> None:
    x, y = iris
    with pytest.raises(EqpropError, match=r"EPClassifier: feature 0 varies by 3\.6 about"):
        EPClassifier().fit(x + 1e9, y)
    with pytest.raises(EqpropError, match="EPRegressor: target 0 varies by"):
        EPRegressor().fit(x, 1e9 + x[:, 0])


def test_bytes_are_not_taken_for_numbers_from_0_to_1() -> None:
    x, y = load_digits(return_X_y=True)
    pixels = (x[:100] * 15).astype(np.uint8)
    model = EPClassifier(epochs=1, random_state=0).fit(pixels, y[:100])
    assert np.array_equal(*(model.predict(of) for of in (pixels, pixels.astype(float))))
    for wrong in (model.predict, lambda x: model.partial_fit(x, y[:100])):
        with pytest.raises(EqpropError, match="what was learnt were bytes"):
            wrong(pixels / 255)
    model.fit(pixels / 255, y[:100])
    with pytest.raises(EqpropError, match="scale them as you did then"):
        model.predict(pixels)


def test_one_class_and_divergence(iris: Arrays) -> None:
    with pytest.raises(EqpropError, match=r"one class, .*'a'"):
        EPClassifier().fit(iris[0], ["a"] * 150)
    with pytest.raises(Diverged, match="lower lr"):
        EPRegressor(lr=1e6, random_state=0).fit(*iris)


def test_verbose_tells_each_epoch(iris: Arrays, capsys: pytest.CaptureFixture[str]) -> None:
    EPClassifier(epochs=2, random_state=0, verbose=True).fit(*iris)
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "epoch 1",
        "epoch 2",
    ]


def test_bytes_that_are_no_images_and_fields_without_a_place(iris: Arrays) -> None:
    x = np.random.default_rng(0).integers(0, 2, (80, 6))
    y = x[:, 0]
    ours, plain = (
        EPClassifier(hidden=(8,), epochs=5, batch=10, random_state=0).fit(x.astype(kind), y)
        for kind in (np.uint8, np.float64)
    )
    assert np.array_equal(ours.predict(x.astype(np.uint8)), plain.predict(x.astype(float)))
    with pytest.raises(EqpropError, match="use early_stopping"):
        EPClassifier(fields={"patience": 1}).fit(*iris)
    with pytest.raises(EqpropError, match="fields has hidden: leave it out, give hidden="):
        EPClassifier(fields={"hidden": (3,)}).fit(*iris)
    with pytest.raises(EqpropError, match="the data are those of fit"):
        EPClassifier(fields={"dataset": "mnist"}).fit(*iris)
    with pytest.raises(EqpropError, match=r"targets are <U\S+: give numbers"):
        EPRegressor().fit(iris[0], iris[1].astype(str))
    with pytest.raises(EqpropError, match=r"of one class, 0: give"):
        EPClassifier().fit(iris[0], np.zeros(len(iris[0]), int))
    with pytest.raises(EqpropError, match="too large for float32"):
        plain.predict(np.full((1, 6), 1e39))


def test_each_epoch_has_an_order_of_its_own(iris: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    orders, advance = [], Trainer.advance

    def note(trainer: Trainer, state: Any, examples: Any, order: Any, stop: int) -> Any:
        orders.append(np.ravel(order[:stop]).tolist())
        return advance(trainer, state, examples, order, stop)

    monkeypatch.setattr(Trainer, "advance", note)
    EPClassifier(epochs=3, batch=50, random_state=0).fit(*iris)
    assert [sorted(order) for order in orders] == [list(range(150))] * 3
    assert len(set(map(tuple, orders))) == 3


def test_the_loss_of_an_epoch_is_the_mean_over_what_was_learnt(iris: Arrays) -> None:
    """Without learning: of 20 of 39 examples, the others being less than a minibatch."""
    x, y = iris[0][:39], np.arange(39) % 2
    model = EPClassifier(epochs=1, lr=0.0, batch=20, random_state=0).fit(x, y)
    losses = 0.5 * ((model._scores(x) - np.eye(2)[y]) ** 2).sum(axis=1)
    assert model.loss_curve_[0] == pytest.approx(losses.mean(), rel=0.2)


def test_a_regression_learns_at_a_quarter_of_the_rates(iris: Arrays) -> None:
    model = EPRegressor(epochs=1, random_state=0).fit(iris[0], iris[1])
    assert model.recipe_.lr == tuple(rate / 4 for rate in ep.recipe("ep-1h").lr)
    assert EPRegressor(epochs=1, lr=0.08).fit(*iris).recipe_.lr == (0.08, 0.08)


def test_a_schedule_spans_all_epochs(iris: Arrays) -> None:
    """Of 7 minibatches each: the rate is 0 after the last."""
    fields = {"schedule": "cosine"}
    model = EPClassifier(epochs=2, batch=20, random_state=0, fields=fields).fit(*iris)
    schedule = model._program(150).trainer.learner.schedule
    factors = [float(schedule(jnp.asarray(n))) for n in (0, 7, 14)]
    assert factors == pytest.approx([1, 0.5, 0], abs=1e-6)


def test_a_network_of_another_depth_learns_at_the_least_of_the_rates(iris: Arrays) -> None:
    model = EPClassifier(hidden=(8, 8), epochs=1, random_state=0).fit(*iris)
    assert model.recipe_.lr == (min(ep.recipe("ep-1h").lr),) * 3
