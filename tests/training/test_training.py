"""Training: what a state says does not depend on where the training was cut, and figures are
counts.
"""

import dataclasses
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest

from eqprop.devices.record import Device
from eqprop.dynamics.activations import ACTIVATIONS
from eqprop.dynamics.costs import SquaredError
from eqprop.dynamics.nudges import OneSided
from eqprop.dynamics.relaxation import FixedSteps, ToTolerance
from eqprop.dynamics.step import EnergyBased
from eqprop.dynamics.system import System
from eqprop.errors import EqpropError
from eqprop.learning.increments import Equilibrium
from eqprop.learning.learners import WithOptimizer
from eqprop.learning.rules import AfterPhase
from eqprop.networks.graphs import chain
from eqprop.recipes.build import build
from eqprop.recipes.catalogue import recipe
from eqprop.recipes.recipe import Recipe
from eqprop.training.trainer import Examples, Trainer, TrainState, fetch

IMAGE, CLASSES, N = (4, 3), 5, 46


def small(**changes) -> Recipe:
    fields = {"hidden": (7,), "T": 8, "K": 4, "batch": 4, "epochs": 2} | changes
    return dataclasses.replace(recipe("ep-1h"), **fields)


def setup(seed: int = 0, **changes) -> tuple[Trainer, TrainState, Examples]:
    built = build(small(**changes), IMAGE, CLASSES, N // 4)
    trainer = Trainer(built.system, built.learner, 4, built.augmentations, dropout=built.dropout)
    state = trainer.start(built.init, seed)
    return trainer, state, Examples.put(*data(), state.network)


def data(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = rng.integers(256, size=(N, *IMAGE), dtype=np.uint8)
    return images, rng.integers(CLASSES, size=N, dtype=np.uint8)


def leaves(state: TrainState) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


@pytest.mark.parametrize("rule", ["ep", "c-ep"])
def test_where_an_epoch_is_cut_changes_no_bit(rule: str) -> None:
    """Neither the order of examples, nor random nudges, shifts and silences depend on it."""
    random = {"nudge": "random-sign", "shift": 1, "dropout": 0.3, "input_dropout": 0.2}
    ends = []
    for cuts in ([11], [1, 2, 7, 11]):
        trainer, state, examples = setup(rule=rule, **random)
        order = trainer.order(state, examples)
        for stop in cuts:
            state = trainer.advance(state, examples, order, stop)
        ends.append(leaves(trainer.next_epoch(state)))
    for whole, cut in zip(*ends, strict=True):
        np.testing.assert_array_equal(whole, cut)


def test_an_order_is_a_permutation_of_seed_and_epoch() -> None:
    trainer, state, examples = setup()
    first = np.asarray(trainer.order(state, examples))
    assert first.shape == (N // 4, 4)
    assert len(set(first.ravel())) == first.size
    np.testing.assert_array_equal(first, trainer.order(state, examples))
    second = trainer.order(trainer.next_epoch(state), examples)
    _, other, _ = setup(seed=1)
    for different in (second, trainer.order(other, examples)):
        assert np.any(first != np.asarray(different))


def test_random_numbers_differ_with_seed_epoch_and_minibatch() -> None:
    """The same rows, shifted at random: each time by others."""
    trainer, state, examples = setup(shift=3)
    rows = jnp.arange(4)
    seen = set()
    for place in itertools.product(range(3), repeat=3):
        at = (jnp.asarray(n, jnp.int32) for n in place)
        here = eqx.tree_at(lambda s: (s.seed, s.epoch, s.minibatch), state, tuple(at))
        seen.add(np.asarray(trainer.fetch(here, examples, rows)[0]).tobytes())
    assert len(seen) == 27


def test_totals_count_loss_and_errors_of_the_free_phase_before_each_update() -> None:
    """The transcription trains the same minibatches in float64 and keeps the same books."""
    trainer, state, examples = setup()
    images, labels = data()
    order = np.asarray(trainer.order(state, examples))
    weights = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(state.network)]
    net = oracle.make_net([12, 7, 5], weights[::2], weights[1::2])
    dynamics = oracle.Dynamics()
    loss, errors = 0.0, 0
    for rows in order:
        x, y = images[rows].reshape(4, -1) / 255, np.eye(CLASSES)[labels[rows]]
        output = oracle.free_phase(net, dynamics, x, 8)[-1]
        loss += 0.5 * np.sum((y - output) ** 2)
        errors += np.sum(output.argmax(1) != labels[rows])
        net = oracle.minibatch("ep", net, dynamics, x, y, 8, 4, 0.1, (0.08, 0.04))

    state = trainer.advance(state, examples, jnp.asarray(order), len(order))
    assert float(state.totals["loss"]) == pytest.approx(loss, rel=1e-5)
    assert int(state.totals["errors"]) == errors
    assert int(state.totals["steps"]) == 8 * len(order)
    for ours, theirs in zip(state.network.edges, net.params.W, strict=True):
        np.testing.assert_allclose(ours.connection.weight, theirs, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 7, 46, 500])
def test_evaluation_counts_every_example_once(rows: int) -> None:
    trainer, state, examples = setup()
    images, labels = data()
    weights = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(state.network)]
    net = oracle.make_net([12, 7, 5], weights[::2], weights[1::2])
    output = oracle.free_phase(net, oracle.Dynamics(), images.reshape(N, -1) / 255, 8)[-1]
    loss, errors = trainer.evaluate(state.network, examples, rows)
    assert errors == np.sum(output.argmax(1) != labels)
    expected = np.mean(0.5 * np.sum((np.eye(5)[labels] - output) ** 2, 1))
    assert loss == pytest.approx(expected, rel=1e-5)


def test_a_cosine_schedule_ends_at_0() -> None:
    built = build(small(schedule="cosine"), IMAGE, CLASSES, 10)
    factors = [float(built.learner.schedule(jnp.asarray(n))) for n in (0, 10, 20)]
    assert factors == pytest.approx([1, 0.5, 0], abs=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "momentum"},
        {"optimizer": "adam", "lr": (0.003, 0.003), "weight_decay": 0.01},
        {"nudge": "centered", "inside": True},
        {"nudge": "holomorphic", "points": 3, "inside": True},
        {"nudge": "holomorphic", "rule": "vf"},
        {"setting": "energy", "activation": "hardsigm", "T": 100},
        {"rule": "vf", "angle": 45.0},
        {"rule": "c-vf", "angle": 45.0, "nudge": "random-sign", "lr": (0.1, 0.05)},
        {"rule": "vf"},
        {"rule": "aep", "angle": 90.0, "nudge": "random-sign"},
        {"rule": "c-aep", "angle": 90.0, "feedback": "frozen", "lr": (0.05, 0.025)},
        {"sweeps": True, "tolerance": 1e-3},
        {"nudged_sweeps": True, "nudge": "centered"},
        {"rule": "c-ep", "nudged_sweeps": True, "lr": (0.05, 0.025)},
    ],
)
def test_every_ingredient_learns_a_small_task(changes: dict) -> None:
    """A bright row: the second half of a short training has a lower loss than the first."""
    trainer, state, _ = setup(**{"lr": (0.5, 0.25), "T": 30} | changes)
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=800, dtype=np.uint8)
    images = rng.integers(60, size=(800, *IMAGE), dtype=np.uint8)
    images[np.arange(800), labels] += 190
    examples = Examples.put(images, labels, state.network)
    order = trainer.order(state, examples)
    state = trainer.advance(state, examples, order, 100)
    half = float(state.totals["loss"])
    state = trainer.advance(state, examples, order, 200)
    assert float(state.totals["loss"]) - half < 0.75 * half


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x[:, :, :2], y), r"inputs of shape \(4, 2\) do not fit.*\(12,\)"),
        (lambda x, y: (x.astype(int), y), "inputs are int64: give unsigned bytes"),
        (lambda x, y: (x[:0], y[:0]), "0 inputs of shape"),
        (lambda x, y: (x[0, 0], y), r"3 inputs of shape \(\) do not fit"),
        (lambda x, y: (x, y + np.uint8(5)), "label [5-9] does not fit a network with 5 outputs"),
        (lambda x, y: (x, y.astype(int) - 5), "label -5 does not fit.*give 0 to 4"),
        (
            lambda x, y: (x, np.eye(4)[y % 4]),
            r"targets have shape \(46, 4\) for 46 inputs .* 5 outputs",
        ),
        (lambda x, y: (x, np.eye(5, dtype=int)[y]), r"labels are int64 of shape \(46, 5\)"),
        (lambda x, y: (x, y / 1.0), "labels are float64.*give an integer for each"),
        (lambda x, y: (x[:5], y[:4]), r"labels are uint8 of shape \(4,\) for 5 inputs"),
    ],
)
def test_data_that_do_not_fit(change, message: str) -> None:
    _, state, _ = setup()
    images, labels = data()
    labels[0] = 0
    with pytest.raises(EqpropError, match=message):
        Examples.put(*change(images, labels), state.network)


def test_numbers_and_one_hot_targets_are_taken_as_they_are() -> None:
    """What was misread once: floats in [0, 1] as bytes, and rows of 0 and 1 as labels."""
    _, state, _ = setup()
    images, labels = data()
    rows = jnp.arange(len(images))
    plain = fetch(Examples.put(images, labels, state.network), rows, state.network)
    other = Examples.put(images / np.float32(255), np.eye(5)[labels], state.network)
    for a, b in zip(fetch(other, rows, state.network), plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_images_that_lie_on_their_side() -> None:
    network = jax.eval_shape(
        build(small(channels=(2,), kernel=2, hidden=(), lr=(0.1, 0.1)), (6, 4), CLASSES, 1).init,
        jax.random.key(0),
    )
    images, labels = np.zeros((3, 6, 4), np.uint8), np.zeros(3, np.uint8)
    assert Examples.put(images, labels, network).inputs.shape == (3, 6, 4)
    assert Examples.put(images[..., None], labels, network).inputs.shape == (3, 6, 4, 1)
    for wrong in (images.transpose(0, 2, 1), images.reshape(3, -1), images[..., None, None]):
        with pytest.raises(EqpropError, match=r"inputs of shape .* do not fit"):
            Examples.put(wrong, labels, network)


def test_examples_that_do_not_fill_a_minibatch() -> None:
    trainer, state, _ = setup()
    images, labels = data()
    with pytest.raises(EqpropError, match="minibatch of 4 does not fit 3 training examples"):
        trainer.batches(Examples.put(images[:3], labels[:3], state.network))


def test_without_a_tolerance_a_test_takes_all_steps() -> None:
    trainer = dataclasses.replace(setup(tolerance=0.1, T=25)[0], test_tolerance=0.0)
    assert trainer.system.relaxation == ToTolerance(25, 0.1)
    assert trainer.tested.relaxation == FixedSteps(25)


@pytest.mark.parametrize("dt", [0.2, 0.01, 0.001])
def test_a_test_ends_when_units_have_settled_whatever_the_time_step(dt: float) -> None:
    """Of real time: a unit moves by as much less in a step as the step is shorter."""
    system = System(
        EnergyBased(ACTIVATIONS["sigm"], dt, clip=True),
        SquaredError(),
        FixedSteps(round(30 / dt)),
        1,
    )
    network = chain([(64,), (20,), (4,)], jax.random.key(0))
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(8, 64), dtype=np.uint8)
    examples = Examples.put(images, np.arange(8, dtype=np.uint8) % 4, network)
    learner = WithOptimizer(AfterPhase(Equilibrium(), OneSided(0.1)), (0.1, 0.1), optax.sgd(1.0))
    ends = [
        Trainer(system, learner, 4, test_tolerance=tolerance).evaluate(network, examples)
        for tolerance in (1e-4, 0.0)
    ]
    assert ends[0][0] == pytest.approx(ends[1][0], abs=2e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": (0,)}, r"layer 1 has shape \(0,\)"),
        ({"beta": 0.0}, "beta is 0.0"),
        ({"T": 0}, "free steps T is 0"),
        ({"K": 0}, "nudged steps K is 0"),
        ({"setting": "energy", "dt": -0.1}, "dt is -0.1"),
        ({"lr": (0.1,)}, r"1 learning rate\(s\) \(0.1,\) for 2 sets of weights"),
        ({"batch": 0}, "batch is 0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"angle": 45.0}, "rule ep needs tied weights, but angle is 45.0"),
        ({"rule": "vf", "angle": 200.0}, "give 0 to 180 degrees"),
        ({"rule": "c-ep", "nudge": "centered"}, "Centered has several"),
        ({"rule": "c-ep", "nudge": "holomorphic"}, "Holomorphic has several"),
        ({"nudge": "holomorphic", "points": 1}, "points is 1"),
        ({"nudge": "holomorphic", "activation": "hardsigm"}, "hardsigm is not analytic"),
        (
            {
                "nudge": "holomorphic",
                "activation": "hardsigm",
                "device": Device(gain_spread=0.1),
            },
            "hardsigm is not analytic",
        ),
        ({"rule": "c-ep", "optimizer": "adam"}, "adam.*has no place: use --optimizer sgd"),
        ({"tolerance": -1.0}, "tolerance is -1.0"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"dtype": "float64"}, "JAX computes in 32 bits"),
        ({"cost": "cross-entropy", "output": "linear"}, "output is linear .* leave both out"),
        ({"cost": "cross-entropy", "hold": True, "dropout": 0.5}, "leave hold or dropout out"),
        ({"setting": "energy", "input_dropout": 0.5}, "use --raw-input"),
    ],
)
def test_bad_recipes(changes: dict, message: str) -> None:
    with pytest.raises(EqpropError, match=message):
        build(small(**changes), IMAGE, CLASSES, 10)


def test_an_unknown_recipe() -> None:
    with pytest.raises(EqpropError, match="unknown recipe 'ep-9h': choose one of ep-1h"):
        recipe("ep-9h")
