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
from eqprop.dynamics.costs import CrossEntropy, SquaredError
from eqprop.dynamics.nudges import Centered, Holomorphic, MixedSign, Nudge, OneSided, RandomSign
from eqprop.dynamics.relaxation import FixedSteps
from eqprop.dynamics.step import Dynamics, EnergyBased, Prototypical
from eqprop.dynamics.system import System
from eqprop.errors import EqpropError
from eqprop.learning.asymmetric import (
    AsymmetricEP,
    AsymmetricPhase,
    ContinualAsymmetricEP,
    continual_asymmetric_step,
)
from eqprop.learning.increments import Equilibrium, VectorField
from eqprop.learning.rules import AfterPhase
from eqprop.networks.connections import Dense
from eqprop.networks.convolution import AveragePool, MaxPool, NoPool, conv, conv_shape
from eqprop.networks.edges import Untied
from eqprop.networks.graphs import Feedback, graph, in_a_row
from eqprop.networks.network import Network
from eqprop.networks.parameter_names import named_parameters
from eqprop.recipes.build import build
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


def problem_at(angle: float | None, dynamics: Dynamics, feedback: Feedback = "trained") -> Problem:
    links = in_a_row([Dense.init] * 3)
    network = graph([(n,) for n in SIZES], links, jax.random.key(1), angle=angle, feedback=feedback)
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


def test_mixed_signs_are_one_sided_nudges_of_the_two_halves() -> None:
    problem = problem_at(90.0, DYNAMICS["sigm"])
    system, network, (x, y) = problem
    sign = float(jnp.sign(MixedSign(0.1).of_batch(jax.random.key(0), 1).betas[0, 0]))
    halves = [
        update(Problem(system, network, (x[n::2], y[n::2])), OneSided((-1) ** n * sign * 0.1))
        for n in (0, 1)
    ]
    parts = [len(x[n::2]) / len(x) for n in (0, 1)]
    expected = parts[0] * halves[0] + parts[1] * halves[1]
    assert error(update(problem, MixedSign(0.1)), expected) < 1e-12


def test_a_continual_step_with_a_beta_for_each_example_is_the_mean_over_them() -> None:
    system, network, (x, y) = problem_at(90.0, DYNAMICS["sigm"])
    free = system.free(system.clamp(network, x), x)[0]
    start = tuple(s + 0.01 for s in free)
    betas, eta = jnp.where(jnp.arange(len(x)) % 2 == 0, 0.2, -0.3), jnp.full(3, 0.1)

    def step(rows: slice, beta: jax.Array):
        seen = tuple(tuple(s[rows] for s in states) for states in (free, start))
        batch = x[rows], y[rows]
        return continual_asymmetric_step(system, network, *seen, batch, (beta, eta))

    moved, new, dtheta = step(slice(None), betas)
    alone = [step(slice(n, n + 1), betas[n]) for n in range(len(x))]
    mean = np.mean([flat(change) for *_, change in alone], axis=0)
    assert error(flat(dtheta), mean) < 1e-12
    assert error(flat(moved), flat(network) + 0.1 * mean) < 1e-12
    np.testing.assert_allclose(new[-1], np.concatenate([s[-1] for _, s, _ in alone]), atol=1e-12)


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
    problem = problem_at(None, DYNAMICS["sigm"], feedback="none")
    x, y = problem.batch

    def loss(network: Network) -> jax.Array:
        s = x
        for edge in network.edges:
            s = sigm(edge.forward(s))
        return ((y - s) ** 2).sum() / 2 / len(x)

    gradient = flat(jax.grad(loss)(problem.network))
    assert error(update(problem, Centered(1e-3)), -gradient) < 1e-5
    # VF has nothing to tell the layers below the last.
    w1 = update(problem, OneSided(1e-3), lambda nudge: AfterPhase(VectorField(), nudge))[: 9 * 7]
    assert np.abs(w1).max() < 1e-12


@pytest.mark.parametrize("rule", ["vf", "aep", "c-vf", "c-aep", "bptt", "rbp"])
def test_frozen_feedback_weights_stay(rule: str) -> None:
    """All others move as if feedback weights learnt, but for a continual rule, whose feedback
    weights are used while they move. Neither do they decay, nor does a bias that does not learn.
    """
    moved = {}
    decay = 0.0 if rule.startswith("c-") else 0.05
    for feedback in ("trained", "frozen"):
        asked = dataclasses.replace(
            recipe("ep-1h"),
            **{"hidden": (7, 6), "lr": (0.1,) * 3, "dtype": "float64", "rule": rule},
            **{"angle": 90.0, "feedback": feedback, "batch": 5, "T": 60, "K": 10},
            **{"weight_decay": decay, "train_input_bias": False},
        )
        built = build(asked, (3, 3), 4, 2)
        network = built.init(jax.random.key(1))
        memory = built.learner.init(network)
        x = jnp.linspace(0, 1, 45).reshape(5, 9)
        batch = (x, jax.nn.one_hot(jnp.arange(5) % 4, 4, dtype=float))
        after = built.learner.learn(built.system, network, memory, batch, jax.random.key(2))[0]
        moved[feedback] = jax.tree.map(jnp.subtract, after, network)
        assert float(jnp.abs(named_parameters(moved[feedback])["b1"]).max()) == 0
    for trained, frozen in zip(moved["trained"].edges, moved["frozen"].edges, strict=True):
        if isinstance(trained, Untied):
            assert float(jnp.abs(trained.back.weight).max()) > 1e-6
            assert float(jnp.abs(frozen.back.weight).max()) == 0
            if not rule.startswith("c-"):
                np.testing.assert_allclose(frozen.ahead.weight, trained.ahead.weight, atol=1e-14)
            assert float(jnp.abs(frozen.ahead.weight).max()) > 1e-6


def check_the_form_by_drives(network: Network) -> None:
    system, model, (x, y) = make_problem(network, DYNAMICS["tanh"], (30, 5))
    clamped = system.clamp(model, x)
    phase = AsymmetricPhase(system, model, x, y, system.free(clamped, x)[0])
    fast, plain = phase.spread_by_drives(clamped), phase.spread(clamped)
    assert fast is not None
    s = tuple(
        layer + 0.1 * jnp.cos(jnp.arange(layer.size)).reshape(layer.shape) for layer in phase.free
    )
    for ours, theirs in zip(fast(s), plain(s), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


@settings(max_examples=5)
@given(data=st.data())
def test_the_form_by_drives_is_the_general_one(data: st.DataObject) -> None:
    sizes, edges = data.draw(graphs())
    untied = data.draw(st.sampled_from(["no", "random"]))
    network = make_network(sizes, edges, data.draw(st.integers(0, 99)), untied=untied, scale=0.5)
    check_the_form_by_drives(network)


@pytest.mark.parametrize("angle", [None, 90.0])
@pytest.mark.parametrize("pool", [1, 2])
def test_so_it_is_of_convolutions_without_a_largest(pool: int, angle: float | None) -> None:
    kind = AveragePool(2) if pool == 2 else NoPool()
    links = in_a_row([conv(3, 1, 0, kind), conv(2, 1, 0), Dense.init])
    shapes = [(8, 8, 1), conv_shape((8, 8, 1), 2, 3, 1, 0, kind)]
    shapes = [*shapes, conv_shape(shapes[1], 2, 2, 1, 0), (3,)]
    network = graph(shapes, links, jax.random.key(3), angle=angle)
    network = jax.tree.map(lambda leaf: leaf.astype("float64"), network)
    check_the_form_by_drives(network)


def test_the_form_by_drives_is_for_affine_drives_alone() -> None:
    problem = problem_at(90.0, DYNAMICS["energy"])
    phase = AsymmetricPhase(
        *problem[:2], *problem.batch, problem.network.zeros(len(problem.batch[0]))
    )
    assert phase.spread_by_drives(problem.network) is None
    links = in_a_row([conv(3, 1, 0, MaxPool(2)), conv(2, 1, 0, MaxPool(1)), Dense.init])
    shapes = [(8, 8, 1), (3, 3, 2), (2, 2, 2), (3,)]
    network = graph(shapes, links, jax.random.key(3), angle=90.0)
    problem = make_problem(network, DYNAMICS["sigm"], (5, 2))
    phase = AsymmetricPhase(*problem[:2], *problem.batch, network.zeros(len(problem.batch[0])))
    assert phase.spread_by_drives(network) is None


@pytest.mark.parametrize(("name", "angle"), [("sigm", None), ("sigm", 90.0), ("energy", 90.0)])
def test_continually_it_follows_bptt_as_rates_vanish(name: str, angle: float | None) -> None:
    problem = problem_at(angle, DYNAMICS[name])
    plan = Plan((1e-3, 1e-4), OneSided, eta=(1e-6,) * 3, factors=(1.0, 0.1))
    found = verify(problem, AsymmetricEP(OneSided(1.0)), plan)
    for orders in (found.beta_orders, found.eta_orders):
        slopes = [order.slope for order in orders.values()]  # None: too exact for one
        assert {round(slope, 1) for slope in slopes if slope is not None} == {1.0}


def test_a_continual_step_of_vanishing_size_is_a_part_of_the_update() -> None:
    """Trained so, with rates of next to nothing, weights move by AEP's update."""
    problem = problem_at(90.0, DYNAMICS["sigm"])
    system, network, batch = problem
    learner = ContinualAsymmetricEP(OneSided(0.1), (1e-7,) * 3)
    memory = learner.init(network)
    after = learner.learn(system, network, memory, batch, jax.random.key(0))[0]
    moved = (flat(after) - flat(network)) / 1e-7
    assert error(moved, update(problem, OneSided(0.1))) < 1e-5
    larger = ContinualAsymmetricEP(OneSided(0.1), (1e-4,) * 3)
    after = larger.learn(system, network, memory, batch, jax.random.key(0))[0]
    assert error((flat(after) - flat(network)) / 1e-4, update(problem, OneSided(0.1))) > 1e-4


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


@pytest.mark.parametrize("angle", [None, 90.0])
def test_with_a_readout_all_parameters_follow_the_gradient(angle: float | None) -> None:
    """The nudge comes back through it, and its own gradient is local."""
    shapes = [(n,) for n in SIZES]
    network = graph(shapes, in_a_row([Dense.init] * 3), jax.random.key(1), angle=angle)
    network = Network(network.shapes, network.edges, Dense.init((4,), (3,), jax.random.key(2)))
    network = jax.tree.map(lambda leaf: leaf.astype("float64"), network)
    system = System(DYNAMICS["energy"], CrossEntropy(), FixedSteps(SETTLED[0]), SETTLED[1])
    x = jax.random.uniform(jax.random.key(3), (5, SIZES[0]))
    y = jnp.eye(3)[jnp.asarray([0, 1, 2, 1, 0])]

    def loss(network: Network) -> jax.Array:
        states, _ = system.free(network, x)
        scores = network.scores_of(states)
        return -(y * jax.nn.log_softmax(scores)).sum() / len(x)

    gradient = flat(jax.jit(jax.grad(loss))(network))
    problem = Problem(system, network, (x, y))
    coarse, fine = (error(update(problem, Centered(b)), -gradient) for b in (4e-2, 1e-2))
    assert fine < 1e-3
    assert coarse / fine == pytest.approx(16, rel=0.1)
