"""Nudges as stencils: how their bias against the true gradient falls with beta and with points.

The true gradient is jax.grad of the loss at the end of a free phase that has settled to round-off,
in double precision; the nudged phases have settled, too.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from gradients import trace
from problems import make_network, make_problem

from eqprop.dynamics.activations import hardsigm, is_analytic, sigm, tanh
from eqprop.dynamics.costs import Cost
from eqprop.dynamics.nudges import Centered, Holomorphic, Nudge, OneSided, RandomSign
from eqprop.dynamics.step import Dynamics, EnergyBased, Prototypical
from eqprop.errors import EqpropError
from eqprop.learning.increments import Equilibrium, Increment, VectorField
from eqprop.learning.learners import Continual
from eqprop.learning.rules import AfterPhase
from eqprop.networks.connections import Dense
from eqprop.networks.convolution import AveragePool, MaxPool, Pool, conv, conv_shape
from eqprop.networks.graphs import chain
from eqprop.networks.model import Model
from eqprop.networks.network import Network
from eqprop.recipes.build import build
from eqprop.recipes.catalogue import RECIPES
from eqprop.theorem.curves import Problem, Updates

pytestmark = pytest.mark.usefixtures("x64", "quick_compilation")

KEY = jax.random.key(0)
EQUILIBRIUM = Equilibrium()


def chain_problem(dynamics: Dynamics, steps: tuple[int, int] = (200, 150)) -> Problem:
    sizes = [6, 7, 5, 3]
    return make_problem(make_network(sizes, oracle.chain(sizes), 0, scale=0.7), dynamics, steps)


def conv_problem(pool: Pool) -> Problem:
    shapes = ((6, 6, 1), conv_shape((6, 6, 1), 2, 3, pool=pool), (3,))
    network = chain(shapes, KEY, [conv(3, pool=pool), Dense.init])
    network = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), network)
    return make_problem(network, Prototypical(sigm, inside=True), (60, 60))


def flat(tree) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def update(problem: Problem, nudge: Nudge, increment: Increment = EQUILIBRIUM) -> np.ndarray:
    system, network, (x, y) = problem
    rule = AfterPhase(increment, nudge)
    return flat(jax.jit(rule.update)(system, network, x, y, KEY)[0])


class Biases:
    """Distances from the true gradient, relative to it."""

    def __init__(self, problem: Problem) -> None:
        system, network, (x, y) = problem
        self.problem = problem

        def loss(network: Network) -> jax.Array:
            states, _ = system.free(system.clamp(network, x), x)
            return system.cost.loss(states[-1], y).mean()

        self.truth = -flat(jax.jit(jax.grad(loss))(network))
        (self.free, settled) = jax.jit(lambda: system.free(system.clamp(network, x), x))()
        assert settled.residual < 1e-14

    def __call__(self, betas, nudge) -> list[float]:
        """At each beta; one program for all."""
        system, network, (x, y) = self.problem

        def total(beta: jax.Array) -> Model:
            stencil = nudge(beta).stencil(KEY)
            return Equilibrium().total(system, network, x, y, self.free, stencil)

        run = jax.jit(total)
        return [
            np.linalg.norm(flat(run(beta)) / len(x) - self.truth) / np.linalg.norm(self.truth)
            for beta in jnp.asarray(betas)
        ]


INSIDE = Prototypical(sigm, inside=True)


@pytest.fixture(scope="module")
def discrete() -> Biases:
    with jax.enable_x64(True):
        return Biases(chain_problem(INSIDE))


@pytest.mark.parametrize(
    ("nudge", "order"),
    [
        (OneSided, 1),
        (Centered, 2),
        *((functools.partial(Holomorphic, points=n), n) for n in (2, 3, 4, 5)),
    ],
    ids=["one-sided", "centered", *(f"N = {n}" for n in (2, 3, 4, 5))],
)
def test_the_bias_falls_as_a_power_of_beta(nudge, order: int, discrete: Biases) -> None:
    large, small = discrete([0.05, 0.025], nudge)
    assert np.log2(large / small) == pytest.approx(order, abs=0.2)


def test_the_random_sign_decides_between_two_one_sided_nudges() -> None:
    for positive, sign in ((1.0, 1), (0.0, -1)):
        random, fixed = RandomSign(0.1, positive).stencil(KEY), OneSided(sign * 0.1).stencil(KEY)
        jax.tree.map(np.testing.assert_array_equal, random, fixed)


def test_the_bias_falls_exponentially_with_the_points(discrete: Biases) -> None:
    radius = 0.1
    errors = [discrete([radius], lambda b, n=n: Holomorphic(b, n))[0] for n in (2, 4, 6, 8, 12)]
    # A factor for each further point, down to round-off.
    assert all(later < 0.1 * earlier for earlier, later in itertools.pairwise(errors))
    assert errors[-1] < 1e-6 * errors[0]


def test_in_real_time() -> None:
    biases = Biases(chain_problem(EnergyBased(tanh, 0.5), (400, 200)))
    errors = [biases([0.05], lambda b, n=n: Holomorphic(b, n))[0] for n in (2, 4, 6)]
    assert errors[1] < 0.1 * errors[0]
    assert errors[2] < 0.1 * errors[1]


@pytest.mark.parametrize("increment", [Equilibrium(), VectorField()], ids=["ep", "vf"])
@pytest.mark.parametrize("dynamics", [Prototypical(tanh), EnergyBased(tanh, 0.3)])
def test_two_points_are_the_centered_nudge(dynamics: Dynamics, increment: Increment) -> None:
    problem = chain_problem(dynamics, (30, 7))
    two, centered = (update(problem, n, increment) for n in (Holomorphic(0.3, 2), Centered(0.3)))
    np.testing.assert_allclose(two, centered, rtol=0, atol=1e-13)


@pytest.mark.parametrize("points", [2, 3, 4, 7, 8])
def test_the_upper_half_of_the_circle_stands_for_all_of_it(points: int) -> None:
    def f(beta):  # real for real beta
        return jnp.exp(0.7 * beta) / (2 - beta)

    betas = 0.4 * np.exp(2j * np.pi * np.arange(points) / points)
    whole = np.mean(f(betas) / betas)
    stencil = Holomorphic(0.4, points).stencil(KEY)
    assert len(stencil.betas) == points // 2 + 1
    half = jnp.sum(stencil.weights * f(stencil.betas)).real
    np.testing.assert_allclose(half, whole.real, rtol=1e-13)
    assert abs(whole.imag) < 1e-13


@pytest.mark.parametrize("increment", [Equilibrium(), VectorField()], ids=["ep", "vf"])
def test_an_update_is_the_mean_over_the_circle_of_phases_run_one_by_one(
    increment: Increment,
) -> None:
    """Transcribed in NumPy: states and statistics of each beta, nothing shared or halved."""
    problem = chain_problem(Prototypical(tanh, inside=True), (40, 6))
    system, network, (x, y) = problem
    free, _ = system.free(system.clamp(network, x), x)
    weights = [np.asarray(e.connection.weight) for e in network.edges]
    biases = [np.asarray(e.connection.bias) for e in network.edges]
    x_, y_ = np.asarray(x), np.asarray(y)
    total = [np.zeros(w.shape) for w in weights]
    for k in range(5):
        beta = 0.3 * np.exp(2j * np.pi * k / 5)
        s = [np.asarray(layer, complex) for layer in free]
        for _ in range(6):
            r = [x_.astype(complex), *s]
            v = [r[i] @ weights[i] + biases[i] for i in range(3)]
            for i in range(2):
                v[i] = v[i] + s[i + 1] @ weights[i + 1].T
            v[2] = v[2] + beta * (y_ - s[2])
            new = [np.tanh(u) for u in v]
            after = [x_.astype(complex), *new]
            for i in range(3):
                if isinstance(increment, Equilibrium):
                    change = after[i].T @ after[i + 1] - r[i].T @ r[i + 1]
                else:
                    change = r[i].T @ (after[i + 1] - r[i + 1]) + (after[i] - r[i]).T @ r[i + 1]
                total[i] += (change / (5 * beta * len(x_))).real
            s = new
    rule = AfterPhase(increment, Holomorphic(0.3, 5))
    found = rule.update(system, network, x, y, KEY)[0]
    for edge, expected in zip(found.edges, total, strict=True):
        np.testing.assert_allclose(edge.connection.weight, expected, rtol=0, atol=1e-12)


def test_curves_add_up_to_the_update() -> None:
    problem = chain_problem(INSIDE, (30, 7))
    system, network, (x, _) = problem
    free, _ = system.free(system.clamp(network, x), x)
    nudge = Holomorphic(0.3, 5)
    source = Updates(problem, Equilibrium(), free, nudge.stencil(KEY), jnp.zeros(3))
    curves = trace(source, 7)
    total = jax.tree.map(lambda leaf: leaf.sum(axis=0), curves.network)
    np.testing.assert_allclose(flat(total), update(problem, nudge), rtol=0, atol=1e-13)
    assert all(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(curves))


def test_convolutions_with_average_pooling() -> None:
    problem = conv_problem(AveragePool(2))
    errors = [Biases(problem)([0.1], lambda b, n=n: Holomorphic(b, n))[0] for n in (2, 4)]
    assert errors[1] < 0.1 * errors[0]


def test_what_is_analytic() -> None:
    def softplus(v):
        return jnp.log1p(jnp.exp(v))

    assert all(map(is_analytic, (sigm, tanh, softplus, jnp.sin, lambda v: v)))
    kinked = (hardsigm, jax.nn.relu, jnp.abs, jnp.real, lambda v: jnp.where(v.real > 0, v, 0.1 * v))
    assert not any(map(is_analytic, kinked))
    with jax.enable_x64(False):
        assert is_analytic(sigm)
        assert not is_analytic(hardsigm)


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (lambda: chain_problem(Prototypical(hardsigm)), "hardsigm is not analytic.*sigm or tanh"),
        (lambda: chain_problem(EnergyBased(tanh, 0.5, clip=True)), r"not analytic.*--no-clip"),
        (lambda: conv_problem(MaxPool(2)), "edge 0->1 is not analytic.*average pooling"),
    ],
)
def test_a_network_that_is_not_analytic(problem, message: str) -> None:
    with pytest.raises(EqpropError, match=message):
        update(problem(), Holomorphic(0.3))


def test_a_cost_that_is_not_analytic() -> None:
    class Modulus(Cost):
        def loss(self, output, y):
            return 0.5 * jnp.sum(jnp.abs(y - output) ** 2, axis=-1)

    output, y = jnp.ones((2, 3)), jnp.zeros((2, 3))
    np.testing.assert_allclose(Modulus().force(output, y), -1)
    with pytest.raises(EqpropError, match="loss of Modulus is real for complex outputs"):
        Modulus().force(output + 0j, y)


def test_other_mistakes() -> None:
    with pytest.raises(EqpropError, match=r"points is 1.*at least 2"):
        Holomorphic(0.1, 1)
    with pytest.raises(EqpropError, match="beta is 0"):
        Holomorphic(0.0)
    with pytest.raises(EqpropError, match=r"Holomorphic has several.*one-sided"):
        Continual(Equilibrium(), Holomorphic(0.1), (0.1,))
    recipe = dataclasses.replace(RECIPES["ep-conv"], nudge="holomorphic")
    with pytest.raises(EqpropError, match="hardsigm is not analytic"):
        build(recipe, (28, 28), 10, 1)
