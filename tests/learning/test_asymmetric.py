"""Asymmetric EP against ``jax.grad`` through the free phase, in double precision."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import graphs, known, make_network, make_problem

from eqprop.dynamics.activations import hardsigm, sigm, tanh
from eqprop.dynamics.costs import SquaredError
from eqprop.dynamics.nudges import Centered, Holomorphic, Nudge, OneSided, RandomSign
from eqprop.dynamics.relaxation import FixedSteps
from eqprop.dynamics.step import Dynamics, EnergyBased, Prototypical
from eqprop.dynamics.system import System
from eqprop.errors import EqpropError
from eqprop.learning.asymmetric import AsymmetricEP
from eqprop.learning.increments import Equilibrium, VectorField
from eqprop.learning.rules import AfterPhase
from eqprop.networks.connections import Dense
from eqprop.networks.convolution import MaxPool, conv, conv_shape
from eqprop.networks.edges import Tied
from eqprop.networks.graphs import graph, in_a_row
from eqprop.networks.network import Network
from eqprop.recipes.catalogue import recipe
from eqprop.theorem.curves import Problem
from eqprop.theorem.verification import Plan, verify

pytestmark = pytest.mark.usefixtures("x64", "quick_compilation")

SIZES = (9, 7, 6, 4)
SETTLED = (200, 90)  # T and K
DYNAMICS = {
    "sigm": Prototypical(sigm),
    "tanh": Prototypical(tanh),
    "energy": EnergyBased(sigm, 0.5),
    "no slope": EnergyBased(tanh, 0.5, output_slope=False),
}


def problem_at(angle: float | None, dynamics: Dynamics) -> Problem:
    links = in_a_row([Dense.init] * 3)
    network = graph([(n,) for n in SIZES], links, jax.random.key(1), angle=angle)
    network = jax.tree.map(lambda leaf: leaf.astype("float64"), network)
    return make_problem(network, dynamics, SETTLED)


def descent(problem: Problem) -> np.ndarray:
    """Minus the gradient of the loss after the whole free phase, by JAX."""
    system, network, (x, y) = problem

    def loss(network: Network) -> jax.Array:
        s = tuple(jnp.zeros((len(x), *shape)) for shape in network.shapes[1:])
        s = jax.lax.scan(
            lambda s, _: (system.dynamics.step(network, x, s), None), s, length=SETTLED[0]
        )[0]
        return ((y - s[-1]) ** 2).sum() / 2 / len(x)

    return -flat(jax.jit(jax.grad(loss))(network))


def flat(network: Network) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(network)])


def update(problem: Problem, nudge: Nudge, rule=AsymmetricEP) -> np.ndarray:
    system, network, (x, y) = problem
    return flat(rule(nudge).update(system, network, x, y, jax.random.key(0))[0])


def error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("angle", [None, 45.0, 90.0, 180.0])
def test_the_error_falls_as_the_bias_of_the_nudge(angle: float | None) -> None:
    problem = problem_at(angle, DYNAMICS["sigm"])
    gradient = descent(problem)

    def order(nudge) -> float:
        coarse, fine = (error(update(problem, nudge(b)), gradient) for b in (0.02, 0.01))
        assert coarse < 0.05
        return float(np.log2(coarse / fine))

    assert order(OneSided) == pytest.approx(1, abs=0.1)
    assert order(Centered) == pytest.approx(2, abs=0.1)
    assert order(lambda b: Holomorphic(10 * b, 4)) == pytest.approx(4, abs=0.3)
    assert error(update(problem, Holomorphic(0.02, 8)), gradient) < 1e-9
    if angle is not None:  # what the rule is for
        other = update(problem, Centered(0.01), lambda nudge: AfterPhase(VectorField(), nudge))
        assert error(other, gradient) > 0.3


@pytest.mark.parametrize("name", DYNAMICS)
def test_any_dynamics(name: str) -> None:
    problem = problem_at(90.0, DYNAMICS[name])
    assert error(update(problem, Centered(1e-3)), descent(problem)) < 1e-5


def test_the_sign_of_beta_is_drawn() -> None:
    problem = problem_at(90.0, DYNAMICS["sigm"])
    found = update(problem, RandomSign(0.1))
    signed = [update(problem, OneSided(beta)) for beta in (0.1, -0.1)]
    assert error(signed[0], signed[1]) > 1e-3
    assert min(error(found, each) for each in signed) < 1e-12


def test_on_an_energy_it_is_ep() -> None:
    """The corrections vanish, so that both rules differ by the curvature of what EP reads."""
    problem = problem_at(None, DYNAMICS["energy"])

    def difference(beta: float) -> float:
        ep = update(problem, OneSided(beta), lambda nudge: AfterPhase(Equilibrium(), nudge))
        return error(update(problem, OneSided(beta)), ep)

    coarse, fine = difference(1e-3), difference(1e-4)
    assert fine < 1e-3
    assert coarse / fine == pytest.approx(10, rel=0.1)


@settings(max_examples=3)
@given(data=st.data())
def test_any_graph(data: st.DataObject) -> None:
    sizes, edges = data.draw(graphs())
    untied = data.draw(st.sampled_from(["no", "random"]))
    dynamics = data.draw(st.sampled_from([*DYNAMICS.values()]))
    network = make_network(sizes, edges, data.draw(st.integers(0, 99)), untied=untied, scale=0.5)
    problem = make_problem(network, dynamics, SETTLED)
    assert error(update(problem, Centered(1e-3)), descent(problem)) < 1e-4


@pytest.mark.parametrize("angle", [None, 90.0])
def test_convolutions_with_pooling(angle: float | None) -> None:
    first = conv_shape((6, 6, 1), 2, 3, 1, 0, MaxPool(2))
    links = in_a_row([conv(3, 1, 0, MaxPool(2)), Dense.init])
    network = graph([(6, 6, 1), first, (3,)], links, jax.random.key(3), angle=angle)
    network = jax.tree.map(lambda leaf: leaf.astype("float64"), network)
    problem = make_problem(network, Prototypical(tanh), SETTLED)
    assert error(update(problem, Centered(1e-4)), descent(problem)) < 1e-5


def test_no_feedback_at_all_is_backpropagation() -> None:
    problem = problem_at(0.0, DYNAMICS["sigm"])
    none = [
        edge if isinstance(edge, Tied) else dataclasses.replace(edge, back=silent(edge.back))
        for edge in problem.network.edges
    ]
    problem = problem._replace(network=problem.network.replace_edges(none))
    x, y = problem.batch

    def loss(network: Network) -> jax.Array:
        s = x
        for edge in network.edges:
            s = sigm(edge.forward(s))
        return ((y - s) ** 2).sum() / 2 / len(x)

    # Feedback weights of 0 have a gradient in the recurrent net, but not in the chain.
    def forwards(network: Network) -> np.ndarray:
        kept = [e.connection if isinstance(e, Tied) else e.ahead for e in network.edges]
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(kept)])

    rule = AsymmetricEP(Centered(1e-3))
    found = rule.update(problem.system, problem.network, x, y, jax.random.key(0))[0]
    assert error(forwards(found), -forwards(jax.grad(loss)(problem.network))) < 1e-5


def silent(connection: Dense) -> Dense:
    return jax.tree.map(jnp.zeros_like, connection)


@pytest.mark.parametrize("name", ["sigm", "energy"])
def test_each_step_is_that_of_bptt(name: str) -> None:
    """``D(t) = -grad(t)`` for every t, layer and parameter, to first order in beta."""
    problem = problem_at(90.0, DYNAMICS[name])
    found = verify(problem, AsymmetricEP(OneSided(1.0)), Plan((1e-3, 1e-4), OneSided))
    for tensor in (*found.asked.comparison.tensors, found.asked.comparison.together):
        assert tensor.relmse is None or tensor.relmse < 0.05, tensor.name
    assert {round(known(order.slope), 1) for order in found.beta_orders.values()} == {1.0}


def test_what_it_cannot_do() -> None:
    problem = problem_at(90.0, DYNAMICS["sigm"])
    sweeping = dataclasses.replace(problem.system, nudged_sweeps=True)
    with pytest.raises(EqpropError, match=r"AEP.*--no-nudged-sweeps"):
        update(problem._replace(system=sweeping), OneSided(0.1))
    kinked = System(Prototypical(hardsigm), SquaredError(), FixedSteps(9), 3)
    with pytest.raises(EqpropError, match="hardsigm is not analytic"):
        update(problem._replace(system=kinked), Holomorphic(0.1))
    for field in ("inside", "nudged_sweeps"):
        with pytest.raises(EqpropError, match="rule aep corrects synchronous"):
            dataclasses.replace(recipe("ep-1h"), rule="aep", **{field: True})
