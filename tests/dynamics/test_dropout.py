"""Units that are silent while a minibatch is learnt. Oracle: ``jax.grad`` of the net in full."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqprop.dynamics.activations import sigm
from eqprop.dynamics.altered import Thinned
from eqprop.dynamics.dropout import Dropout
from eqprop.errors import EqpropError
from eqprop.networks.connections import Dense
from eqprop.recipes.build import build
from eqprop.recipes.catalogue import RECIPES
from eqprop.training.trainer import Examples, Trainer

KEY = jax.random.key(0)
DEEP = {"hidden": (9, 8), "lr": (0.1, 0.1, 0.1)}


def loss(parameters: list[jax.Array], x: jax.Array, y: jax.Array, factors: Any) -> jax.Array:
    """Of three layers with feedback weights ``v``, settled step by step."""
    w0, b0, w1, b1, v1, w2, b2, v2 = parameters
    h, g, o = (jnp.zeros((len(x), n)) for n in (9, 8, 4))
    for _ in range(200):
        first, second = sigm(x @ w0 + b0 + g @ v1.T), sigm(h @ w1 + b1 + o @ v2.T)
        h, g, o = first * factors[1], second * factors[2], sigm(g @ w2 + b2)
    return 0.5 * jnp.sum((o - y) ** 2) / len(x)


@pytest.mark.parametrize("rule", ["ep", "aep"])
def test_updates_are_the_gradient_of_the_network_that_is_left(rule: str, x64: None) -> None:
    tied = rule == "ep"
    recipe = dataclasses.replace(
        RECIPES["ep-1h"],
        **{"rule": rule, "angle": None if tied else 90.0, "inside": tied, "nudge": "centered"},
        **{"beta": 1e-3, "T": 200, "K": 200, "dtype": "float64", "dropout": 0.4, **DEEP},
        input_dropout=0.3,
    )
    built = build(recipe, (6,), 4, 1)
    network = built.init(KEY)
    x, y = jax.random.uniform(jax.random.key(1), (5, 6)), jnp.eye(4)[jnp.asarray([0, 2, 3, 1, 1])]
    system, x = built.dropout(built.system, network, x, KEY)
    update, _ = built.learner.rule.update(system, network, x, y, KEY)

    assert isinstance(system.dynamics, Thinned)
    factors = system.dynamics.factors
    leaves = jax.tree.leaves(network)
    # A tied weight goes both ways, and its gradient is that of both.
    feedback = {4: leaves[2], 7: leaves[4]} if tied else {}
    parameters = list(leaves)
    for place, weight in feedback.items():
        parameters.insert(place, weight)
    found = list(jax.grad(loss)(parameters, x, y, factors))
    for place in reversed(feedback):
        found[place - 2] += found.pop(place)
    for ours, theirs in zip(jax.tree.leaves(update), found, strict=True):
        np.testing.assert_allclose(ours, -theirs, atol=1e-5 * float(jnp.abs(theirs).max()))


def test_what_is_left_is_stronger_so_that_sums_stay() -> None:
    network = build(dataclasses.replace(RECIPES["ep-1h"], **DEEP), (300,), 4, 1).init(KEY)
    plain = build(RECIPES["ep-1h"], (300,), 4, 1).system
    x = jnp.ones((400, 300))
    system, thin = Dropout(0.5, 0.2)(plain, network, x, KEY)
    assert isinstance(system.dynamics, Thinned)
    assert set(system.dynamics.factors) == {1, 2}  # not the output
    for factors, kept in ((thin, 0.8), (system.dynamics.factors[1], 0.5)):
        np.testing.assert_allclose(np.unique(factors), [0, 1 / kept], rtol=1e-6)
        assert float(factors.mean()) == pytest.approx(1, abs=0.05)
        # Each example has its own, and each layer.
        assert len(np.unique(np.asarray(factors), axis=0)) > len(x) / 2
    first, second = system.dynamics.factors.values()
    assert np.any(np.asarray(first[:, :8]) != np.asarray(second))


def test_with_a_readout_all_layers_are_hidden() -> None:
    recipe = dataclasses.replace(RECIPES["ep-1h"], cost="cross-entropy", dropout=0.5, **DEEP)
    built = build(recipe, (6,), 4, 1)
    network, x = built.init(KEY), jnp.ones((5, 6))
    system, _ = built.dropout(built.system, network, x, KEY)
    assert isinstance(system.dynamics, Thinned)
    assert set(system.dynamics.factors) == {1, 2}
    free, _ = system.free(system.clamp(network, x), x)
    silent = system.dynamics.factors[2] == 0
    assert silent.any()
    # So the readout gets nothing from what is silent.
    update = system.readout_update(network, free[-1][:1], jnp.eye(4)[:1])
    assert isinstance(update, Dense)
    assert not np.any(update.weight[silent[0]])


def test_states_stay_silent_through_both_phases() -> None:
    recipe = dataclasses.replace(RECIPES["ep-conv"], channels=(3,), kernel=3, lr=(0.1, 0.1))
    built = build(dataclasses.replace(recipe, dropout=0.5, nudged_sweeps=True), (8, 8), 5, 1)
    network = built.init(KEY)
    x, y = jax.random.uniform(KEY, (2, *network.shapes[0])), jnp.eye(5)[jnp.asarray([1, 4])]
    system, x = built.dropout(built.system, network, x, KEY)
    clamped = system.clamp(network, x)
    free, _ = system.free(clamped, x)
    nudged = system.nudged(clamped, x, y, jnp.asarray(0.5), free)
    assert isinstance(system.dynamics, Thinned)
    silent = system.dynamics.factors[1] == 0
    assert 0.4 < float(silent.mean()) < 0.6
    for states in (free, nudged):
        assert not np.any(states[0][silent])
        assert float((states[0][~silent] > 0).mean()) > 0.3


def test_tests_take_the_network_as_it_is() -> None:
    recipe = dataclasses.replace(RECIPES["ep-1h"], hidden=(7,), dropout=0.5, input_dropout=0.5)
    built = build(recipe, (6, 6), 3, 1)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(256, size=(40, 6, 6), dtype=np.uint8), rng.integers(3, size=40)
    network = built.init(KEY)
    examples = Examples.put(images, labels, network)
    found = [
        Trainer(built.system, built.learner, 4, dropout=dropout).test(network, examples)
        for dropout in (built.dropout, Dropout())
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"input_dropout": -0.1}, "input_dropout is -0.1"),
        ({"dropout": float("nan")}, "dropout is nan"),
        ({"dropout": 0.5, "setting": "energy"}, "discrete time only"),
        ({"dropout": 0.5, "setting": "resistive"}, "discrete time only"),
        ({"dropout": 0.5, "model": "mine"}, "discrete time only"),
    ],
)
def test_what_cannot_be_silenced_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(EqpropError, match=message):
        build(dataclasses.replace(RECIPES["ep-1h"], **fields), (6,), 4, 1)


def test_continual_rules_take_it_too(x64: None) -> None:
    """K steps of C-EP with tiny rates add up to the update of EP, units silent in both."""
    fields = {"dropout": 0.4, "beta": 0.3, "T": 30, "K": 5, "dtype": "float64", **DEEP}
    rates = {"lr": (1e-8,) * 3}
    changed = []
    for rule in ("ep", "c-ep"):
        recipe = dataclasses.replace(RECIPES["ep-1h"], rule=rule, **fields | rates)
        built = build(recipe, (6,), 4, 1)
        network = built.init(KEY)
        x, y = jax.random.uniform(KEY, (3, 6)), jnp.eye(4)[jnp.asarray([0, 2, 3])]
        system, x = built.dropout(built.system, network, x, KEY)
        memory = built.learner.init(network)
        new, *_ = built.learner.learn(system, network, memory, (x, y), KEY)
        changed.append(jax.tree.map(lambda a, b: (a - b) * 1e8, new, network))
    for one, other in zip(*map(jax.tree.leaves, changed), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_dropout_of_nothing_changes_nothing() -> None:
    built, x = build(RECIPES["ep-1h"], (6,), 4, 1), jnp.ones((2, 6))
    system, same = built.dropout(built.system, built.init(KEY), x, KEY)
    assert system is built.system
    assert same is x
