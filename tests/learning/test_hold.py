"""The seven contrastive algorithms: outputs pushed or held, positive, negative or centered.

Oracle: phases and updates of a chain, written out in NumPy.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import make_network

import eqprop as ep
from eqprop.cli.main import main
from eqprop.dynamics.activations import sigm
from eqprop.errors import EqpropError
from eqprop.recipes.build import build
from eqprop.recipes.catalogue import RECIPES
from eqprop.training.runs import read_metrics

SIZES, T, K, BETA = (6, 5, 4), 40, 7, 0.3
KEY = jax.random.key(0)


def rho(v: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-4 * (v - 0.5)))


def oracle(network: Any, x: np.ndarray, y: np.ndarray, betas: Any, *, hold: bool) -> list[Any]:
    """The update of each weight matrix and bias; ``betas`` are (beta, weight), 0 the free end."""
    (w1, b1), (w2, b2) = (map(np.asarray, jax.tree.leaves(edge)) for edge in network.edges)
    s1, s2 = np.zeros((len(x), 5)), np.zeros((len(x), 4))
    for _ in range(T):
        s1, s2 = rho(x @ w1 + b1 + s2 @ w2.T), rho(s1 @ w2 + b2)
    total: list[Any] = [0, 0, 0, 0]
    for beta, weight in betas:
        h, o = s1, s2
        held = s2 + beta * (y - s2)
        for n in range(K if beta else 0):
            if hold:
                o = held
                h = rho(x @ w1 + b1 + o @ w2.T)
            else:
                h, o = rho(x @ w1 + b1 + o @ w2.T), rho(h @ w2 + b2) + beta * (y - o)
            assert n < K
        parts = x.T @ h, h.sum(0), h.T @ o, o.sum(0)
        total = [sums + weight * part / len(x) for sums, part in zip(total, parts, strict=True)]
    return total


ALGORITHMS = {
    "contrastive": ({"nudge": "positive", "beta": 1.0}, True, [(1.0, 1.0), (0, -1.0)]),
    "coupled, positive": ({"nudge": "positive"}, True, [(BETA, 1 / BETA), (0, -1 / BETA)]),
    "coupled, negative": ({"nudge": "negative"}, True, [(-BETA, -1 / BETA), (0, 1 / BETA)]),
    "coupled, centered": (
        {"nudge": "centered"},
        True,
        [(BETA, 0.5 / BETA), (-BETA, -0.5 / BETA)],
    ),
    "EP, positive": ({"nudge": "positive"}, False, [(BETA, 1 / BETA), (0, -1 / BETA)]),
    "EP, negative": ({"nudge": "negative"}, False, [(-BETA, -1 / BETA), (0, 1 / BETA)]),
    "EP, centered": ({"nudge": "centered"}, False, [(BETA, 0.5 / BETA), (-BETA, -0.5 / BETA)]),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_each_algorithm_is_what_numpy_makes_of_it(name: str, x64: None) -> None:
    fields, hold, betas = ALGORITHMS[name]
    recipe = dataclasses.replace(
        RECIPES["ep-1h"],
        **{"beta": BETA, "T": T, "K": K, "hold": hold, "dtype": "float64", **fields},
    )
    built = build(recipe, (6,), 4, 1)
    assert built.system.dynamics.activation is sigm
    network = make_network(SIZES, [(0, 1), (1, 2)], 4)
    rng = np.random.default_rng(2)
    x, y = rng.uniform(size=(3, 6)), np.eye(4)[[0, 2, 3]]
    update, _ = built.learner.rule.update(
        built.system, network, jnp.asarray(x), jnp.asarray(y), KEY
    )
    expected = oracle(network, x, y, betas, hold=hold)
    for found, wanted in zip(jax.tree.leaves(update), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-12)


@pytest.mark.parametrize("sweeps", [False, True])
def test_a_held_output_stays_where_a_push_would_send_it(sweeps: bool, x64: None) -> None:
    """Also in sweeps, for a convolutional net, and for an energy of one's own."""
    recipe = dataclasses.replace(
        RECIPES["ep-conv"],
        **{"channels": (3,), "kernel": 3, "lr": (0.1, 0.1), "T": 20, "K": 4},
        **{"hold": True, "nudged_sweeps": sweeps, "dtype": "float64"},
    )
    built = build(recipe, (8, 8), 5, 1)
    network = built.init(KEY)
    x = jax.random.uniform(jax.random.key(1), (2, *network.shapes[0]))
    y = jnp.eye(5)[jnp.asarray([1, 4])]
    system, clamped = built.system, built.system.clamp(network, x)
    free, _ = system.free(clamped, x)
    last = system.nudged(clamped, x, y, jnp.asarray(0.25), free)
    np.testing.assert_allclose(last[-1], free[-1] + 0.25 * (y - free[-1]), atol=1e-14)
    assert np.abs(last[0] - free[0]).max() > 1e-4


@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_the_score_of_a_circuit_is_held_as_far_as_beta_says(beta: float, x64: None) -> None:
    """A score is the difference of two nodes, both of which are held."""
    recipe = dataclasses.replace(
        RECIPES["resistive-1h"],
        **{"hidden": (6,), "lr": (0.1, 0.1), "T": 400, "K": 30, "nudge": "positive"},
        **{"beta": beta, "hold": True, "dtype": "float64"},
    )
    built = build(recipe, (8,), 3, 1)
    network, system = built.init(KEY), built.system
    x, y = jax.random.uniform(KEY, (2, *network.shapes[0])), jnp.eye(3)[:2]
    clamped = system.clamp(network, x)
    free = system.free(clamped, x).states
    held = network.scores_of(system.nudged(clamped, x, y, jnp.asarray(beta), free))
    scores = network.scores_of(free)
    np.testing.assert_allclose(held, scores + beta * (y - scores), atol=1e-12)


def test_an_energy_of_ones_own_takes_it_too(x64: None) -> None:
    def energy(params: Any, x: jax.Array, states: Any) -> jax.Array:
        h, o = states
        return jnp.sum((h - x @ params["a"]) ** 2, -1) + jnp.sum((o - h @ params["b"]) ** 2, -1)

    def draw(key: jax.Array) -> Any:
        return {"a": jax.random.normal(key, (6, 5)), "b": jax.random.normal(key, (5, 4)) / 2}

    own = ep.Energy(energy, SIZES, draw, dt=0.1)
    system = ep.System(ep.dynamics_of(own), ep.SquaredError(), ep.FixedSteps(600), 600, hold=True)
    model = jax.tree.map(lambda leaf: leaf.astype(float), own.init(KEY))
    x, y = jax.random.uniform(KEY, (3, 6)), jnp.eye(4)[jnp.asarray([0, 1, 2])]
    free, _ = system.free(model, x)
    h, o = system.nudged(model, x, y, jnp.asarray(1.0), free)
    np.testing.assert_allclose(o, y, atol=1e-14)
    # What minimises the energy at a held output, by linear algebra.
    a, b = (np.asarray(model.params[name]) for name in "ab")
    wanted = np.linalg.solve(np.eye(5) + b @ b.T, (np.asarray(x) @ a + np.asarray(y) @ b.T).T).T
    np.testing.assert_allclose(h, wanted, atol=1e-10)


@pytest.mark.parametrize("rule", [ep.VectorField(), "continual"])
def test_rules_that_read_the_steps_are_refused(rule: Any) -> None:
    network = make_network(SIZES, [(0, 1), (1, 2)], 4)
    system = ep.System(ep.Prototypical(sigm), ep.SquaredError(), ep.FixedSteps(5), 2, hold=True)
    x, y = jnp.zeros((2, 6), network.dtype), jnp.zeros((2, 4), network.dtype)

    def learn() -> None:
        if rule == "continual":
            at = jnp.asarray(0.1, network.dtype), jnp.zeros(2, network.dtype)
            free = system.free(network, x)[0]
            ep.continual_phase(system, ep.Equilibrium(), network, free, (x, y), at)
        else:
            ep.AfterPhase(rule, ep.OneSided(0.1)).update(system, network, x, y, KEY)

    with pytest.raises(EqpropError, match="leave hold out"):
        learn()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hold": True, "rule": "c-ep"}, "hold with rule c-ep"),
        ({"hold": True, "rule": "bptt"}, "hold with rule bptt"),
        ({"hold": True, "nudge": "holomorphic"}, "hold with rule ep and nudge holomorphic"),
        ({"nudge": "negative", "beta": -0.1}, "beta is -0.1 with nudge negative"),
    ],
)
def test_recipes_that_cannot_be(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(EqpropError, match=message):
        dataclasses.replace(RECIPES["ep-1h"], **fields)


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("--dataset", "digits", "--hidden", "16", "--epochs", "3")
    coupled = ("--hold", "--nudge", "centered", "--out", str(tmp_path / "run"))
    assert main(["train", "ep-1h", *small, *coupled]) == 0
    assert read_metrics(tmp_path / "run")[-1]["test_error"] < 40
    assert main(["verify", "ep-1h", "--hold"]) == 2
    assert "--hold has no place in a verification" in capsys.readouterr().err
