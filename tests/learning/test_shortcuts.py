"""Every shortcut of learning held to the plain form that it stands for, over random problems.

Drawn are connections (linear in ``r_pre`` or not, of layers with one to three axes, with and
without bias), graphs, increments, nudges, and the lengths of phases.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eqprop.dynamics.activations import sigm, tanh
from eqprop.dynamics.costs import SquaredError
from eqprop.dynamics.nudges import Centered, Holomorphic, MixedSign, Nudge, OneSided
from eqprop.dynamics.relaxation import FixedSteps
from eqprop.dynamics.step import Dynamics, EnergyBased, Prototypical
from eqprop.dynamics.system import System
from eqprop.errors import EqpropError
from eqprop.learning.continual import (
    FromInput,
    LowRank,
    Moving,
    Rewritten,
    Telescoped,
    continual_phase,
    continual_step,
    moving_edges,
)
from eqprop.learning.increments import Equilibrium, Increment, VectorField
from eqprop.networks.connections import Connection, Dense, Lateral
from eqprop.networks.convolution import Conv, MaxPool
from eqprop.networks.edges import Tied, Untied, untied
from eqprop.networks.network import Network
from eqprop.networks.normalisation import Normalised
from eqprop.types import Array, Shape, Strength

pytestmark = pytest.mark.usefixtures("x64", "quick_compilation")


class Tensor(Connection):
    """``sum over all axes of r_pre with those of a weight (*pre, *post)``, plus a bias."""

    weight: Array
    bias: Array | None

    def __call__(self, r_pre):
        axes = r_pre.ndim - 1
        drive = jnp.tensordot(r_pre, self.weight, axes=axes)
        return drive if self.bias is None else drive + self.bias


class Square(Connection):
    """``r_pre^2 W``: linear in its weights, but not in the rates."""

    weight: Array

    def __call__(self, r_pre):
        return r_pre.reshape(len(r_pre), -1) ** 2 @ self.weight


class SquareDense(Dense):  # pyright: ignore[reportGeneralTypeIssues] - what no checker held back
    """The same, by inheriting from a connection that has shortcuts."""

    def __call__(self, r_pre):
        return super().__call__(r_pre**2)


class Folded(Connection):
    """``tanh(r_pre W)``: not linear in its weights either."""

    weight: Array

    def __call__(self, r_pre):
        return jnp.tanh(r_pre.reshape(len(r_pre), -1) @ self.weight)


class Triple(Increment):
    """Three times another increment."""

    inner: Increment

    def edge(self, edge, pre, post):
        return jax.tree.map(lambda leaf: 3 * leaf, self.inner.edge(edge, pre, post))


class Decaying(Increment):
    """EP's, less a hundredth of the weights: it does not telescope, from the input either."""

    def edge(self, edge, pre, post):
        step = Equilibrium().edge(edge, pre, post)
        return jax.tree.map(lambda d, w: d - 0.01 * w, step, edge)


INCREMENTS: dict[str, Increment] = {
    "ep": Equilibrium(),
    "vf": VectorField(),
    "three times ep": Triple(Equilibrium()),
    "three times vf": Triple(VectorField()),
    "decaying": Decaying(),
}
DYNAMICS: dict[str, Dynamics] = {
    "outside": Prototypical(sigm),
    "inside": Prototypical(tanh, inside=True),
    "energy": EnergyBased(tanh, 0.4),
    "energy, output without slope": EnergyBased(tanh, 0.4, output_slope=False),
}
ONE_AXIS = (
    "dense",
    "dense without bias",
    "dense with a fixed bias",
    "square",
    "square dense",
    "folded",
    "normalised",
)


def connection(kind: str, pre: Shape, post: Shape, rng: np.random.Generator) -> Connection:
    n, m = math.prod(pre), math.prod(post)

    def draw(*shape: int) -> Array:
        return jnp.asarray(rng.normal(size=shape) / (2 * n**0.5))

    if kind == "tensor" or len(post) > 1:
        return Tensor(draw(*pre, *post), draw(*post) if rng.random() < 0.5 else None)
    weight = draw(n, m)
    made = {
        "dense": Dense(weight, draw(m)),
        "dense without bias": Dense(weight),
        "dense with a fixed bias": Dense(weight, draw(m), learns_bias=False),
        "square": Square(weight),
        "square dense": SquareDense(weight, draw(m)),
        "folded": Folded(weight),
        "normalised": Normalised(Dense(weight, draw(m)), (0.4,), (0.5,)),
    }
    return made[kind]


class Case(NamedTuple):
    system: System
    network: Network
    batch: tuple[Array, Array]


SHAPES = st.sampled_from([(1,), (3,), (12,), (30,), (2, 3), (5, 7), (2, 2, 3)])


class Plan(NamedTuple):
    """What is drawn; ``build`` makes a case of it."""

    seed: int
    shapes: list[Shape]
    skip: tuple[int, int] | None
    kinds: list[str]
    angled: list[bool]
    lateral: bool
    rows: int
    dynamics: str


@st.composite
def plans(draw: st.DrawFn, *, tied: bool) -> Plan:
    """A network of one to three hidden layers, with any connections and perhaps a skip or a lateral
    one.
    """
    shapes = [draw(SHAPES), *draw(st.lists(SHAPES, min_size=1, max_size=3))]
    shapes.append((draw(st.integers(2, 5)),))
    skips: list[tuple[int, int] | None] = [None, (0, 2), (1, 3)]
    skip = draw(st.sampled_from(skips if len(shapes) > 3 else [None]))
    links = len(shapes) if skip else len(shapes) - 1
    kinds = st.sampled_from((*ONE_AXIS, "tensor"))
    return Plan(
        draw(st.integers(0, 2**31)),
        shapes,
        skip,
        draw(st.lists(kinds, min_size=links, max_size=links)),
        [not tied and angled for angled in draw(st.tuples(*[st.booleans()] * links))],
        draw(st.booleans()),
        draw(st.integers(1, 5)),
        draw(st.sampled_from(sorted(DYNAMICS))),
    )


def build(plan: Plan, steps: int) -> Case:
    rng, shapes = np.random.default_rng(plan.seed), plan.shapes
    links = [(post - 1, post) for post in range(1, len(shapes))]
    links += [plan.skip] if plan.skip else []
    edges = list[Tied | Untied]()
    for (pre, post), kind, angled in zip(links, plan.kinds, plan.angled, strict=True):
        made = connection(kind, shapes[pre], shapes[post], rng)
        key = jax.random.key(int(rng.integers(2**31)))
        untie = angled and pre > 0
        edges.append(untied(pre, post, made, 60.0, key) if untie else Tied(pre, post, made))
    if plan.lateral:
        n = math.prod(shapes[1])
        edges.append(Tied(1, 1, Lateral(jnp.triu(jnp.asarray(rng.normal(size=(n, n)) / 9), 1))))
    x = jnp.asarray(rng.uniform(size=(plan.rows, *shapes[0])))
    y = jnp.eye(shapes[-1][0])[rng.integers(shapes[-1][0], size=plan.rows)]
    system = System(DYNAMICS[plan.dynamics], SquaredError(), FixedSteps(4), steps)
    return Case(system, Network(tuple(shapes), tuple(edges)), (x, y))


HALF = jnp.asarray(0.5)


def free(case: Case):
    system, network, (x, _) = case
    return system.free(system.clamp(network, x), x)[0]


def both(case: Case, increment: Increment, beta: Strength = HALF):
    """A continual phase, and as many continual steps."""
    system, network, batch = case
    strengths = (jnp.asarray(beta), jnp.linspace(0.2, 0.4, len(network.edges)))
    start = free(case)
    found = continual_phase(system, increment, network, start, batch, strengths)
    step = jax.jit(lambda n, s: continual_step(system, increment, n, s, batch, strengths)[:2])
    expected = network, start
    for _ in range(system.nudged_steps):
        expected = step(*expected)
    return found, expected


def assert_same(found, expected) -> None:
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


@settings(max_examples=10)
@given(data=st.data(), name=st.sampled_from(sorted(INCREMENTS)), steps=st.integers(1, 8))
def test_a_continual_phase_is_its_steps(data: st.DataObject, name: str, steps: int) -> None:
    case = build(data.draw(plans(tied="vf" not in name)), steps)
    of_rows = betas_of_rows(len(case.batch[0]))
    assert_same(*both(case, INCREMENTS[name], of_rows if data.draw(st.booleans()) else HALF))


def betas_of_rows(rows: int) -> Array:
    return jnp.where(jnp.arange(rows) % 2 == 0, 0.5, -0.3)


@settings(max_examples=5)
@given(data=st.data(), name=st.sampled_from(sorted(set(INCREMENTS) - {"decaying"})))
def test_a_step_with_a_beta_for_each_example_is_the_mean_over_them(
    data: st.DataObject, name: str
) -> None:
    """Each alone, with its own beta, from the same weights."""
    system, network, (x, y) = case = build(data.draw(plans(tied="vf" not in name)), 1)
    eta, betas = jnp.linspace(0.2, 0.4, len(network.edges)), betas_of_rows(len(x))
    batch, start = case.batch, free(case)
    step = jax.jit(lambda *of: continual_step(system, INCREMENTS[name], network, *of))

    def alone(row: int):
        own, states = slice(row, row + 1), tuple(s[row : row + 1] for s in start)
        return step(states, (x[own], y[own]), (betas[row], eta))[1:]

    found, new, dtheta = step(start, batch, (betas, eta))
    singles = [alone(row) for row in range(len(x))]
    assert_same(new, jax.tree.map(lambda *rows: jnp.concatenate(rows), *(s for s, _ in singles)))
    mean = jax.tree.map(lambda *rows: sum(rows) / len(rows), *(change for _, change in singles))
    assert_same(dtheta, mean)
    assert_same(found, jax.tree.map(jnp.add, network, mean.scale(eta)))


NUDGES: dict[str, Nudge] = {
    "mixed-sign": MixedSign(0.3),
    "one-sided": OneSided(0.3),
    "centered": Centered(0.2),
    "holomorphic": Holomorphic(0.2, 3),
}


@settings(max_examples=5)
@given(
    data=st.data(),
    increment=st.sampled_from([Equilibrium(), VectorField()]),
    nudge=st.sampled_from(sorted(NUDGES)),
    steps=st.integers(1, 8),
)
def test_the_total_of_a_phase_is_the_sum_of_its_increments(
    data: st.DataObject, increment: Increment, nudge: str, steps: int
) -> None:
    case = build(data.draw(plans(tied=isinstance(increment, Equilibrium))), steps)
    system, network, (x, y) = case
    stencil = NUDGES[nudge].of_batch(jax.random.key(0), len(x))
    of = (system, network, x, y, free(case), stencil)
    assert_same(increment.total(*of), Increment.total(increment, *of))


def chain(case_shapes: tuple[Shape, ...], made: list[Connection], rows: int, steps: int) -> Case:
    rng = np.random.default_rng(1)
    edges = tuple(Tied(n, n + 1, it) for n, it in enumerate(made))
    x = jnp.asarray(rng.uniform(size=(rows, *case_shapes[0])))
    y = jnp.eye(case_shapes[-1][0])[rng.integers(case_shapes[-1][0], size=rows)]
    system = System(Prototypical(sigm), SquaredError(), FixedSteps(10), steps)
    return Case(system, Network(case_shapes, edges), (x, y))


@pytest.mark.parametrize("rows", [2, 4])
def test_a_normalised_hidden_connection_under_c_ep(rows: int) -> None:
    """Its drive is not linear in the rates, so terms of low rank cannot stand for its feedback."""
    rng = np.random.default_rng(0)
    shapes: tuple[Shape, ...] = ((30,), (200,), (150,), (5,))
    kinds = ("dense", "normalised", "dense")
    made = [connection(k, shapes[n], shapes[n + 1], rng) for n, k in enumerate(kinds)]
    assert_same(*both(chain(shapes, made, rows, 6), Equilibrium()))


@pytest.mark.parametrize("kind", ["square", "square dense"])
def test_a_connection_that_squares_rates_under_c_ep(kind: str) -> None:
    rng = np.random.default_rng(0)
    shapes: tuple[Shape, ...] = ((12,), (60,), (50,), (4,))
    kinds = ("dense", kind, "dense")
    made = [connection(k, shapes[n], shapes[n + 1], rng) for n, k in enumerate(kinds)]
    assert_same(*both(chain(shapes, made, 3, 5), Equilibrium()))


@pytest.mark.parametrize("rows", [3, 5])
def test_a_layer_with_two_axes_under_c_ep(rows: int) -> None:
    rng = np.random.default_rng(0)
    shapes: tuple[Shape, ...] = ((12,), (5, 7), (4,))
    made = [connection("tensor", shapes[n], shapes[n + 1], rng) for n in range(2)]
    assert_same(*both(chain(shapes, made, rows, 4), Equilibrium()))


def forms(case: Case, increment: Increment) -> list[type[Moving]]:
    system, network, (x, _) = case
    rates = system.dynamics.rates(x, free(case))
    edges = moving_edges(increment, network, rates, jnp.ones(len(network.edges)))
    return [type(edge) for edge in edges]


def test_dense_chains_get_their_shortcuts() -> None:
    """Else the tests above would compare the plain form with itself."""
    rng = np.random.default_rng(0)
    shapes: tuple[Shape, ...] = ((30,), (40,), (40,), (5,))
    made = [connection("dense", shapes[n], shapes[n + 1], rng) for n in range(3)]
    few, many = chain(shapes, made, 2, 2), chain(shapes, made, 9, 2)
    assert forms(few, Equilibrium()) == [FromInput, LowRank, Telescoped]
    assert forms(many, Equilibrium()) == [FromInput, Telescoped, Telescoped]
    assert forms(few, VectorField()) == [FromInput, Rewritten, Rewritten]
    assert forms(few, Triple(Equilibrium())) == [Rewritten] * 3
    normalised = [connection("normalised", shapes[0], shapes[1], rng), *made[1:]]
    assert forms(chain(shapes, normalised, 9, 2), Equilibrium())[0] is FromInput


def test_other_connections_are_rewritten_at_every_step() -> None:
    rng = np.random.default_rng(0)
    for kind in ("square", "square dense", "folded", "tensor"):
        shapes: tuple[Shape, ...] = ((12,), (9,), (4,))
        made = [connection(kind, shapes[n], shapes[n + 1], rng) for n in range(2)]
        assert forms(chain(shapes, made, 2, 2), Equilibrium()) == [Rewritten] * 2
    pooled = Conv(jnp.asarray(rng.normal(size=(3, 3, 1, 2))), pool=MaxPool(2))
    dense = connection("dense", (2, 2, 2), (4,), rng)
    assert forms(chain(((6, 6, 1), (2, 2, 2), (4,)), [pooled, dense], 9, 2), Equilibrium()) == [
        Rewritten,
        Telescoped,
    ]


def test_an_increment_with_shortcuts_is_final() -> None:
    with pytest.raises(EqpropError, match=r"Twice inherits .* inherit from Increment"):

        class Twice(Equilibrium):  # pyright: ignore[reportGeneralTypeIssues]
            pass


@pytest.mark.parametrize("name", sorted(INCREMENTS))
def test_a_fixed_bias_does_not_move_while_weights_do(name: str) -> None:
    rng = np.random.default_rng(0)
    shapes: tuple[Shape, ...] = ((12,), (9,), (4,))
    kinds = ("dense with a fixed bias", "dense")
    case = chain(
        shapes,
        [
            connection(k, (n,), (m,), rng)
            for k, (n,), (m,) in zip(kinds, shapes, shapes[1:], strict=False)
        ],
        3,
        4,
    )
    found, _ = both(case, INCREMENTS[name])
    before, after = (n.edges[0].connection for n in (case.network, found[0]))
    if name != "decaying":  # which moves whatever has a weight
        np.testing.assert_array_equal(before.bias, after.bias)
    assert not np.allclose(before.weight, after.weight)
