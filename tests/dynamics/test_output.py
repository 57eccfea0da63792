"""Outputs of other kinds: without the slope of rho, as in the published programs; linear ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from eqprop.dynamics.activations import Activation, hardsigm, sigm, tanh
from eqprop.dynamics.costs import SquaredError
from eqprop.dynamics.nudges import Centered, OneSided
from eqprop.dynamics.relaxation import FixedSteps
from eqprop.dynamics.step import Dynamics, EnergyBased, Prototypical
from eqprop.dynamics.system import System
from eqprop.learning.baselines import BPTT
from eqprop.learning.increments import Equilibrium
from eqprop.learning.rules import AfterPhase
from eqprop.networks.graphs import chain

pytestmark = pytest.mark.usefixtures("x64", "quick_compilation")

BETA, DT = 0.3, 0.25


def problem(seed: int = 0):
    rng = np.random.default_rng(seed)
    network = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) / 3),
        chain([(6,), (5,), (3,)], jax.random.key(0)),
    )
    x, y = rng.uniform(size=(4, 6)), rng.uniform(size=(4, 3))
    states = tuple(rng.uniform(size=(4, n)) for n in (5, 3))
    return network, x, y, states


def step(dynamics: Dynamics, force_by: float = BETA) -> tuple[np.ndarray, ...]:
    network, x, y, states = problem()
    forces = (None, force_by * jnp.asarray(y - states[-1]))
    inputs = jnp.asarray(x), tuple(map(jnp.asarray, states))
    return tuple(map(np.asarray, dynamics.step(network, *inputs, forces)))


def weights() -> list[tuple[np.ndarray, np.ndarray]]:
    edges = [edge.connection for edge in problem()[0].edges]
    return [(np.asarray(c.weight), np.asarray(c.bias)) for c in edges]


def rho(v: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-4 * (v - 0.5)))


def slope(v: np.ndarray) -> np.ndarray:
    return 4 * rho(v) * (1 - rho(v))


@pytest.mark.parametrize("clip", [False, True])
def test_an_output_without_slope_is_as_the_published_programs_have_it(clip: bool) -> None:
    """``s_N <- s_N + dt (-s_N + rho(s_{N-1}) W_N + b_N + beta (y - s_N))``, then clipped."""
    _, x, y, (s1, s2) = problem()
    (w1, b1), (w2, b2) = weights()
    hidden = s1 + DT * (-s1 + slope(s1) * (x @ w1 + b1 + rho(s2) @ w2.T))
    output = s2 + DT * (-s2 + rho(s1) @ w2 + b2 + BETA * (y - s2))
    expected = [np.clip(s, 0, 1) if clip else s for s in (hidden, output)]
    found = step(EnergyBased(sigm, DT, clip, raw_input=True, output_slope=False))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_a_linear_output_in_real_time_sends_itself_and_is_not_clipped() -> None:
    _, x, y, (s1, s2) = problem()
    (w1, b1), (w2, b2) = weights()
    hidden = s1 + DT * (-s1 + slope(s1) * (rho(x) @ w1 + b1 + s2 @ w2.T))
    output = s2 + DT * (-s2 + rho(s1) @ w2 + b2 + 50 * (y - s2))
    found = step(EnergyBased(sigm, DT, clip=True, linear_output=True), 50)
    for a, b in zip(found, (np.clip(hidden, 0, 1), output), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    assert found[1].max() > 1


@pytest.mark.parametrize("inside", [False, True])
def test_a_linear_output_in_discrete_time_is_its_drive(inside: bool) -> None:
    _, x, y, (s1, s2) = problem()
    (w1, b1), (w2, b2) = weights()
    expected = rho(x @ w1 + b1 + s2 @ w2.T), s1 @ w2 + b2 + BETA * (y - s2)
    found = step(Prototypical(sigm, inside, linear_output=True))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


PASSED = {rho: Prototypical(rho, output_slope=False) for rho in (sigm, hardsigm)}


@pytest.mark.parametrize("rho", PASSED)
def test_without_the_slope_of_the_output_gradients_pass_it(rho: Activation) -> None:
    """Through the last K of T steps, written out; states are what they are with it, to the bit."""
    network, x, y, _ = problem()
    x, y, T, K = jnp.asarray(x), jnp.asarray(y), 9, 4

    def loss(params) -> jax.Array:
        (w1, b1), (w2, b2) = params
        s1, s2 = jnp.zeros((4, 5)), jnp.zeros((4, 3))
        for t in range(T):
            if t == T - K:
                s1, s2 = jax.lax.stop_gradient((s1, s2))
            drive = s1 @ w2 + b2
            s1 = rho(x @ w1 + b1 + s2 @ w2.T)
            s2 = drive + jax.lax.stop_gradient(rho(drive) - drive)
        return 0.5 * jnp.mean(jnp.sum((s2 - y) ** 2, axis=1))

    system = System(PASSED[rho], SquaredError(), FixedSteps(T), K)
    update, free = jax.jit(BPTT().update)(system, network, x, y, jax.random.key(0))
    expected = jax.grad(loss)([tuple(map(jnp.asarray, pair)) for pair in weights()])
    for edge, (by_weight, by_bias) in zip(update.edges, expected, strict=True):
        np.testing.assert_allclose(edge.connection.weight, -by_weight, rtol=1e-9, atol=1e-14)
        np.testing.assert_allclose(edge.connection.bias, -by_bias, rtol=1e-9, atol=1e-14)
    plain = System(Prototypical(rho), SquaredError(), FixedSteps(T), K)
    same = jax.jit(plain.free)(plain.clamp(network, x), x)[0]
    jax.tree.map(np.testing.assert_array_equal, free.states, same)


def test_so_an_output_learns_where_it_is_flat_as_by_a_nudge_outside() -> None:
    """Of one step back, BPTT is one nudged step of EP, whatever beta. With the slope it is 0."""
    network, x, y, _ = problem()
    x, y = jnp.asarray(x), jnp.asarray(y)
    flat = network.replace_edges(
        [network.edges[0], jax.tree.map(lambda w: w - 9 * (w.ndim == 1), network.edges[1])]
    )
    system = System(PASSED[hardsigm], SquaredError(), FixedSteps(20), 1)
    plain = System(Prototypical(hardsigm), SquaredError(), FixedSteps(20), 1)
    by_nudge = AfterPhase(Equilibrium(), OneSided(0.3))
    found, expected, lost = (
        jax.jit(rule.update)(system, flat, x, y, jax.random.key(0))[0].edges[1].connection
        for rule, system in ((BPTT(), system), (by_nudge, plain), (BPTT(), plain))
    )
    assert float(jnp.abs(expected.bias).min()) > 0.1
    np.testing.assert_allclose(found.bias, expected.bias, rtol=1e-12)
    np.testing.assert_allclose(found.weight, expected.weight, rtol=1e-9, atol=1e-14)
    np.testing.assert_array_equal(lost.bias, 0)


@pytest.mark.parametrize(
    "dynamics",
    [
        EnergyBased(tanh, 0.4, linear_output=True),
        Prototypical(tanh, inside=True, linear_output=True),
        Prototypical(hardsigm, linear_output=True),
    ],
    ids=["energy", "inside", "outside, slope 1"],
)
def test_regressions_follow_the_gradient(dynamics: Prototypical | EnergyBased) -> None:
    """Against ``jax.grad`` through the free phase: the identity has a slope of 1 wherever the nudge
    stands, and an energy of its own.
    """
    network, x, y, _ = problem()
    network = jax.tree.map(lambda leaf: 0.5 * leaf, network)  # so that synchronous steps settle
    if dynamics.activation is hardsigm:  # within its linear part
        network = jax.tree.map(lambda leaf: 0.2 * jnp.abs(leaf), network)
    system = System(dynamics, SquaredError(), FixedSteps(400), 200)
    x, y = jnp.asarray(x), jnp.asarray(y)

    _, settled = system.free(system.clamp(network, x), x)
    assert settled.residual < 1e-10

    def loss(network):
        states, _ = system.free(system.clamp(network, x), x)
        return jnp.mean(system.cost.loss(states[-1], y))

    rule = AfterPhase(Equilibrium(), Centered(1e-3))
    update, _ = jax.jit(rule.update)(system, network, x, y, jax.random.key(0))
    u, g = (ravel_pytree(tree)[0] for tree in (update, jax.jit(jax.grad(loss))(network)))
    assert float(jnp.linalg.norm(u + g) / jnp.linalg.norm(g)) < 1e-5
