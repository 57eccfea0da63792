"""Deep convolutional nets on colour images: recipes that build, verify and train, scaled down."""

import dataclasses
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import known

from eqprop.data.dataset import Dataset
from eqprop.data.targets import Classes
from eqprop.dynamics.activations import tanh
from eqprop.dynamics.costs import SquaredError
from eqprop.dynamics.relaxation import FixedSteps
from eqprop.dynamics.step import EnergyBased
from eqprop.dynamics.system import System
from eqprop.errors import EqpropError
from eqprop.learning.increments import Equilibrium
from eqprop.networks.connections import Dense
from eqprop.networks.normalisation import Normalised
from eqprop.recipes.build import build
from eqprop.recipes.catalogue import recipe
from eqprop.recipes.recipe import Recipe
from eqprop.theorem.curves import Problem
from eqprop.theorem.verification import Plan, verify
from eqprop.training.experiment import Experiment, evaluate, prepare
from eqprop.training.records import from_json

pytestmark = pytest.mark.usefixtures("quick_compilation")

SMALL = {
    "ep-cifar10-conv": {"channels": (6, 6, 6, 6), "padding": (1,)},
    "ep-cifar10-skip": {"channels": (6, 6, 6, 6, 6)},
}
CLASSES = 3
RECORDS = Path(__file__).parents[2] / "docs" / "records"


def small(name: str, **changes) -> Recipe:
    fields = {"batch": 12, "T": 20, "K": 8, "schedule": "constant", "shift": 1, "flip": False}
    return dataclasses.replace(recipe(name), **(SMALL[name] | fields | changes))


@functools.cache
def colours() -> Dataset:
    """Noisy 16x16 images of three classes: a colour each, in stripes of another direction."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, CLASSES, 72).astype(np.uint8)
    row, column = np.mgrid[:16, :16]
    waves = np.stack([np.sin(row), np.sin(column), np.sin(row + column)])
    clean = 128 + 60 * (1 + waves[y][..., None]) * (np.eye(3)[y][:, None, None] - 0.5)
    images = np.clip(clean + rng.normal(0, 20, clean.shape), 0, 255).astype(np.uint8)
    return Dataset(
        "colours", images[:60], y[:60], images[60:], y[60:], Classes.of(CLASSES), "Made here."
    )


@pytest.mark.parametrize(
    ("name", "shapes", "weights"),
    [
        (
            "ep-cifar10-conv",
            [(16, 16, 128), (8, 8, 256), (4, 4, 512), (1, 1, 512), (10,)],
            [(3, 3, 3, 128), (3, 3, 128, 256), (3, 3, 256, 512), (3, 3, 512, 512), (512, 10)],
        ),
        (
            "ep-cifar10-skip",
            [(16, 16, 64), (16, 16, 128), (8, 8, 128), (8, 8, 256), (4, 4, 256), (10,)],
            [
                *[(3, 3, 3, 64), (3, 3, 64, 128), (3, 3, 128, 128), (3, 3, 128, 256)],
                *[(3, 3, 256, 256), (4096, 10), (1, 1, 64, 128), (1, 1, 128, 256)],
            ],
        ),
    ],
)
def test_the_full_size_net_builds_and_takes_a_minibatch(name: str, shapes, weights) -> None:
    """By shapes alone: nothing is computed."""
    full = recipe(name)
    built = build(full, (32, 32, 3), 10, 390)
    network = jax.eval_shape(built.init, jax.random.key(0))
    assert network.shapes == ((32, 32, 3), *shapes)
    found = [leaf.shape for leaf in jax.tree.leaves(network) if leaf.ndim > 1]
    assert found == weights
    x, y = (jax.ShapeDtypeStruct((128, *shape), jnp.float32) for shape in ((32, 32, 3), (10,)))
    step = functools.partial(built.learner.learn, built.system)
    memory = jax.eval_shape(built.learner.init, network)
    moved, _, free = jax.eval_shape(step, network, memory, (x, y), jax.random.key(0))
    assert jax.tree.map(lambda a: a.shape, moved) == jax.tree.map(lambda a: a.shape, network)
    assert [s.shape for s in free.states] == [(128, *shape) for shape in shapes]


@pytest.mark.parametrize("name", SMALL)
def test_theorem_1(name: str, x64: None) -> None:
    """The recipe's own net, with average pooling: max-pooling leaves small nets restless."""
    built = build(small(name, pool="average"), (16, 16, 3), CLASSES, 5)
    network = jax.tree.map(lambda leaf: 0.5 * leaf.astype(float), built.init(jax.random.key(0)))
    images, labels = colours().train_x[:2], colours().train_y[:2]
    batch = jnp.asarray(images / 255), jnp.eye(CLASSES)[labels]
    system = System(EnergyBased(tanh, 0.5), SquaredError(), FixedSteps(600), 8)
    found = verify(Problem(system, network, batch), Equilibrium(), Plan((1e-4, 1e-5)))
    assert found.settling.settled
    for trial in found.beta_trials:
        tensors = {t.name: t for t in trial.comparison.tensors if not t.name.startswith("s")}
        assert ("W1->3" in tensors) == ("skip" in name)
        for tensor in tensors.values():
            floor = trial.floors[tensor.name]
            assert known(tensor.relmse) < 50 * trial.beta + 3 * floor < 1e-2, tensor


@pytest.mark.parametrize("name", SMALL)
def test_it_learns_to_tell_colours(name: str) -> None:
    rates = (1e-2,) * recipe(name).connections
    experiment = prepare(small(name, optimizer="adam", weight_decay=0.0, lr=rates), colours())
    state = experiment.start(0)
    # Nets as thin as these pass little on, unless their weights are larger.
    larger = jax.tree.map(lambda leaf: 1.5 * leaf, state.network)
    state = dataclasses.replace(state, network=larger)
    before = evaluate(experiment.trainer, state.network, experiment.train)[0]
    for _ in range(12):
        order = experiment.trainer.order(state, experiment.train)
        state = experiment.trainer.next_epoch(
            experiment.trainer.advance(state, experiment.train, order, experiment.batches)
        )
    after = evaluate(experiment.trainer, state.network, experiment.train)[0]
    assert np.max(after["loss"]) < 0.5 * np.max(before["loss"])
    assert np.max(after["error"]) < 0.6 * np.max(before["error"])


def test_where_an_epoch_is_cut_changes_no_bit() -> None:
    """Altered images follow from the place in the training."""

    def ends(experiment: Experiment, cuts: list[int]) -> list[np.ndarray]:
        state = experiment.start(0)
        order = experiment.trainer.order(state, experiment.train)
        for stop in cuts:
            state = experiment.trainer.advance(state, experiment.train, order, stop)
        return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]

    altered = {"flip": True, "rotate": 10.0, "elastic": 0.5, "erase": 2}
    experiment = prepare(small("ep-cifar10-conv", **altered, T=4, K=2), colours())
    for whole, cut in zip(ends(experiment, [3]), ends(experiment, [1, 3]), strict=True):
        np.testing.assert_array_equal(whole, cut)


# -------------------------------------------------------------------------------------- the input


def test_a_normalised_connection_is_the_connection_of_normalised_rates(x64: None) -> None:
    rng = np.random.default_rng(0)
    r = jnp.asarray(rng.uniform(size=(4, 3, 2)))
    d = jnp.asarray(rng.normal(size=(4, 5)))
    weight, bias = (jnp.asarray(rng.normal(size=shape)) for shape in ((6, 5), (5,)))
    outer = Normalised(Dense(weight, bias), (0.4, 0.6), (0.5, 0.25))
    normal = (np.asarray(r) - [0.4, 0.6]) / [0.5, 0.25]
    flat = normal.reshape(4, 6)
    np.testing.assert_allclose(outer(r), flat @ weight + bias, atol=1e-12)
    statistic = outer.statistic(r, d)
    np.testing.assert_allclose(statistic.connection.weight, flat.T @ d, atol=1e-12)
    np.testing.assert_allclose(statistic.connection.bias, d.sum(axis=0), atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": (0.5, 0.5)}, r"mean \(0.5, 0.5\) and std .* as many of each"),
        ({"std": (1.0, 0.0, 1.0)}, "each std above 0"),
        ({"mean": (0.5, 0.5), "std": (1.0, 1.0)}, "2 means for the 3 channels"),
        ({"skips": ((1, 9),)}, "a link 1->9 in a network whose layers run"),
        ({"lateral": (7,)}, "a link 7->7"),
        ({"skips": ((1, 3),)}, r"5 learning rate.*for 6 sets of weights"),
    ],
)
def test_recipes_that_cannot_be(changes: dict, message: str) -> None:
    with pytest.raises(EqpropError, match=message):
        build(small("ep-cifar10-conv", **changes), (32, 32, 3), 10, 5)


@pytest.mark.parametrize("field", ["padding", "window"])
def test_a_number_for_each_convolution(field: str) -> None:
    with pytest.raises(EqpropError, match=rf"{field} is \(1, 1\): give one .* of 4 conv"):
        small("ep-cifar10-conv", **{field: (1, 1)})


def test_records_from_before_there_was_a_number_for_each() -> None:
    record = json.loads((RECORDS / "ep-1h" / "seed-0" / "run.json").read_text())
    old = record | {"recipe": record["recipe"] | {"padding": 1, "window": 3}}
    assert (from_json(old).recipe.padding, from_json(old).recipe.window) == ((1,), (3,))
    old["recipe"]["window"] = "3"
    with pytest.raises(ValueError, match=r"got `str` - at `\$\.recipe\.window`"):
        from_json(old)
