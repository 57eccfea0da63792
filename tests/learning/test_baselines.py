"""BPTT and recurrent backpropagation against autodiff, the NumPy oracle, and a dense solve."""

from itertools import pairwise

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from gradients import StepGradients, bptt, unroll
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import (
    graphs,
    known,
    make_network,
    make_problem,
    oracle_dynamics,
    oracle_network,
)

from eqprop.dynamics.activations import hardsigm, sigm, tanh
from eqprop.dynamics.costs import SquaredError
from eqprop.dynamics.relaxation import FixedSteps, ToTolerance, largest_change
from eqprop.dynamics.step import Dynamics, EnergyBased, Prototypical
from eqprop.dynamics.system import Free, System
from eqprop.errors import EqpropError
from eqprop.learning.baselines import (
    BPTT,
    RecurrentBackprop,
    Truncated,
    Window,
    solve_adjoint,
    truncated,
)
from eqprop.learning.learners import WithOptimizer
from eqprop.learning.rules import Rule
from eqprop.networks.connections import Connection, Dense
from eqprop.networks.edges import Tied
from eqprop.networks.model import Model
from eqprop.networks.network import Network
from eqprop.networks.parameter_names import named_parameters, parameter_names
from eqprop.theorem.curves import Problem

pytestmark = pytest.mark.usefixtures("x64", "quick_compilation")

KEY = jax.random.key(0)
DYNAMICS: dict[str, Dynamics] = {
    "prototypical": Prototypical(sigm),
    "prototypical-inside": Prototypical(tanh, inside=True),
    "energy": EnergyBased(tanh, 0.2),
    "energy-clipped": EnergyBased(sigm, 0.3, clip=True),
    "energy-hardsigm": EnergyBased(hardsigm, 0.3, clip=True),
}
GRAPHS = {
    "chain": ([6, 5, 4, 3], [(0, 1), (1, 2), (2, 3)]),
    "skip": ([6, 5, 4, 3], [(0, 1), (1, 2), (2, 3), (0, 2), (1, 3)]),
    "lateral": ([6, 5, 3], [(0, 1), (1, 2), (1, 1), (2, 2)]),
}


def assert_close(a, b, atol: float = 1e-12) -> None:
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=0, atol=atol), a, b)


@eqx.filter_jit
def per_step(problem: Problem, steps: int) -> StepGradients:
    system, network, batch = problem
    return bptt(system, network, *batch, steps)


def summed(gradients: StepGradients) -> Network:
    return jax.tree.map(lambda leaf: np.asarray(leaf).sum(axis=0), gradients.network)


@eqx.filter_jit
def update_of(rule: Rule, problem: Problem) -> tuple[Model, Free]:
    system, network, batch = problem
    return rule.update(system, network, *batch, KEY)


@eqx.filter_jit
def free_states(problem: Problem) -> tuple[jax.Array, ...]:
    system, network, (x, _) = problem
    return system.free(system.clamp(network, x), x)[0]


def negated(network: Network) -> Network:
    return jax.tree.map(np.negative, network)


def unrolled_gradients(problem: Problem, steps: int) -> list[Network]:
    """``grad_theta(t)``: autodiff of the loop, with a copy of theta for each of the last steps."""
    system, network, (x, y) = problem
    s = network.zeros(x.shape[0])
    for _ in range(system.relaxation.steps - steps):
        s = system.dynamics.step(network, x, s)

    def loss(copies: list[Network]) -> jax.Array:
        states = s
        for copy in copies:
            states = system.dynamics.step(copy, x, states)
        return jnp.mean(system.cost.loss(states[-1], y))

    return jax.jit(jax.grad(loss))([network] * steps)[::-1]


@pytest.mark.parametrize(
    ("dynamics", "graph", "untied"),
    [
        ("prototypical", "chain", "random"),
        ("prototypical-inside", "lateral", "no"),
        ("energy", "skip", "random"),
        ("energy-clipped", "lateral", "no"),
        ("energy-hardsigm", "chain", "no"),
    ],
)
def test_gradients_per_step_are_those_of_an_unrolled_loop(
    dynamics: str, graph: str, untied: str
) -> None:
    network = make_network(*GRAPHS[graph], 0, untied=untied)
    problem = make_problem(network, DYNAMICS[dynamics], (6, 4))
    found = jax.device_get(per_step(problem, 4))
    for t, expected in enumerate(unrolled_gradients(problem, 4)):
        assert_close(jax.tree.map(lambda leaf, t=t: leaf[t], found.network), expected)


@given(
    graph=graphs(lateral=False),
    dynamics=st.sampled_from(list(DYNAMICS.values())),
    untied=st.booleans(),
    seed=st.integers(0, 999),
)
@settings(max_examples=6)
def test_gradients_per_step_against_the_oracle(graph, dynamics, untied: bool, seed: int) -> None:
    sizes, edges = graph
    with jax.enable_x64(True):
        network = make_network(sizes, edges, seed, untied="random" if untied else "no")
        problem = make_problem(network, dynamics, (9, 6), seed=seed, batch=2)
        found = jax.device_get(per_step(problem, 6))
        x, y = (np.asarray(a) for a in problem.batch)
        expected = oracle.bptt(oracle_network(network), oracle_dynamics(dynamics), x, y, 9, 6)
        for t in range(6):
            assert_close(tuple(s[t] for s in found.states), tuple(expected.grad_s[t][1:]))
            for e, edge in enumerate(found.network.edges):
                theta = expected.grad_theta[t]
                ahead = edge.connection if isinstance(edge, Tied) else edge.ahead
                assert_close(ahead.weight[t], theta.W[e])
                assert_close(ahead.bias[t], theta.b[e])
                if not isinstance(edge, Tied):
                    assert_close(edge.back.weight[t], theta.Wb[e])


@pytest.mark.parametrize("dynamics", ["prototypical", "energy-clipped"])
def test_the_rule_sums_the_gradients_of_all_steps(dynamics: str) -> None:
    problem = make_problem(make_network(*GRAPHS["skip"], 1), DYNAMICS[dynamics], (12, 8))
    update, free = update_of(BPTT(), problem)
    assert_close(update, negated(summed(per_step(problem, 8))))
    assert_close(free.states, free_states(problem))
    assert free.settled.steps == 12


def test_truncation_at_the_whole_free_phase_is_the_gradient_of_the_loss() -> None:
    """With K = T nothing is cut off; and K may differ from the system's."""
    problem = make_problem(make_network(*GRAPHS["lateral"], 2), DYNAMICS["energy"], (6, 3))
    system, network, (x, y) = problem

    def loss(network: Network) -> jax.Array:
        s = network.zeros(x.shape[0])
        for _ in range(6):
            s = system.dynamics.step(network, x, s)
        return jnp.mean(system.cost.loss(s[-1], y))

    assert_close(update_of(BPTT(steps=6), problem)[0], negated(jax.jit(jax.grad(loss))(network)))


def test_any_relaxation_may_come_before_the_last_steps() -> None:
    network = make_network([6, 5, 4, 3], oracle.chain([6, 5, 4, 3]), 0)
    system, network, (x, y) = make_problem(network, Prototypical(sigm, inside=True), (400, 8))
    quick = System(system.dynamics, SquaredError(), ToTolerance(400, 1e-13), 8, sweeps=True)
    update, free = update_of(BPTT(), Problem(quick, network, (x, y)))
    expected, _ = update_of(BPTT(), Problem(system, network, (x, y)))
    assert_close(update, expected, 1e-10)
    assert 8 < free.settled.steps < 200
    assert free.settled.residual < 1e-12


def test_memory_does_not_grow_with_the_free_steps() -> None:
    def temporary(free_steps: int) -> int:
        system, network, batch = make_problem(
            make_network([30, 20, 10], oracle.chain([0, 0, 0]), 0),
            DYNAMICS["energy"],
            (free_steps, 5),
        )
        compiled = (
            jax.jit(lambda n: BPTT().update(system, n, *batch, KEY)[0]).lower(network).compile()
        )
        return known(compiled.memory_analysis()).temp_size_in_bytes

    assert temporary(5000) <= temporary(50) + 1024


@pytest.mark.parametrize("steps", [0, 13])
def test_steps_outside_the_free_phase_are_refused(steps: int) -> None:
    system, network, (x, y) = make_problem(
        make_network(*GRAPHS["chain"], 0), Prototypical(sigm), (12, 4)
    )
    with pytest.raises(EqpropError, match=f"K = {steps} .* T = 12.*from 1 to T"):
        BPTT(steps).update(system, network, x, y, KEY)


# ------------------------------------------------------------------- recurrent backpropagation

SETTLED: dict[str, Dynamics] = {
    "prototypical": Prototypical(sigm),
    "energy": EnergyBased(tanh, 0.3),
}


def settled(dynamics: Dynamics, steps: int = 200, untied: str = "no") -> Problem:
    """A problem whose free phase is at its fixed point ``steps`` steps before its end."""
    network = make_network(*GRAPHS["skip"], 3, untied=untied, scale=0.7)
    return make_problem(network, dynamics, (1000 + steps, steps))


def recurrent(problem: Problem) -> Model:
    """The update of recurrent backpropagation, solved to round-off."""
    return update_of(RecurrentBackprop(tolerance=1e-13), problem)[0]


@pytest.mark.parametrize(("dynamics", "untied"), [("prototypical", "random"), ("energy", "no")])
def test_recurrent_backpropagation_is_a_dense_solve(dynamics: str, untied: str) -> None:
    problem = settled(SETTLED[dynamics], untied=untied)
    system, network, (x, y) = problem
    flat, restore = jax.flatten_util.ravel_pytree(free_states(problem))

    def step(network: Network, flat: jax.Array) -> jax.Array:
        new = system.dynamics.step(network, x, restore(flat))
        return jax.flatten_util.ravel_pytree(new)[0]

    jacobian = jax.jit(jax.jacobian(step, argnums=1))(network, flat)
    force = jax.jit(jax.grad(lambda s: jnp.sum(system.cost.loss(restore(s)[-1], y))))(flat)
    solution = np.linalg.solve(np.eye(len(flat)) - np.asarray(jacobian).T, force)
    (expected,) = jax.jit(lambda n, c: jax.vjp(lambda m: step(m, flat), n)[1](c))(network, solution)
    assert_close(recurrent(problem), jax.tree.map(lambda leaf: -leaf / len(x), expected), 1e-11)


def test_truncated_gradients_approach_recurrent_backpropagation() -> None:
    problem = settled(SETTLED["energy"])
    steps = jax.device_get(per_step(problem, 200)).network
    limit = jax.device_get(recurrent(problem))

    def missing(k: int) -> float:
        pairs = zip(jax.tree.leaves(steps), jax.tree.leaves(limit), strict=True)
        return float(np.sqrt(sum(np.sum((leaf[:k].sum(axis=0) + end) ** 2) for leaf, end in pairs)))

    gaps = [missing(k) for k in (1, 10, 25, 50, 100, 200)]
    assert all(b < 0.9 * a for a, b in pairwise(gaps) if a > 1e-11)
    assert gaps[-1] < 1e-11


def test_an_adjoint_that_was_not_found_is_told() -> None:
    """Layer 2 holds a unit on which ``J`` is 1 and the loss has a gradient: no solution exists."""
    hold = Tied(1, 1, Dense(jnp.array([[0.5, 0.0], [0.0, 0.0]])))
    network = Network(((2,), (2,)), (Tied(0, 1, Dense(jnp.zeros((2, 2)))), hold))
    x, y = jnp.ones((1, 2)), jnp.ones((1, 2))
    system = System(Prototypical(lambda v: v), SquaredError(), FixedSteps(5), 1)
    adjoint = solve_adjoint(system, system.clamp(network, x), x, y, network.zeros(1), 1e-8)
    assert adjoint.residual > 0.5
    with pytest.raises(EqpropError, match=r"not solved to a relative residual of 0\.1.*Raise T"):
        RecurrentBackprop().update(system, network, x, y, KEY)
    # A compiled program cannot raise: its update stops a training.
    update, _ = update_of(RecurrentBackprop(), Problem(system, network, (x, y)))
    assert any(np.isnan(leaf).any() for leaf in jax.tree.leaves(update))


@pytest.mark.parametrize("limits", [(0.0, 0.1), (0.2, 0.1), (1e-4, 1.0), (np.nan, 0.1)])
def test_limits_of_an_adjoint_that_make_no_sense(limits: tuple[float, float]) -> None:
    with pytest.raises(EqpropError, match="tolerance <= refuse"):
        RecurrentBackprop(*limits)


# ------------------------------------------------------------------------------ as learning rules


@pytest.mark.parametrize(
    ("rule", "dynamics"), [(BPTT(), "energy"), (RecurrentBackprop(), "prototypical")]
)
def test_both_learn(rule: Rule, dynamics: str) -> None:
    """In single precision, as training is."""
    with jax.enable_x64(False):
        network = make_network([8, 12, 4], oracle.chain([0, 0, 0]), 0)
        system, network, (x, y) = make_problem(network, SETTLED[dynamics], (60, 15), batch=8)
        learner = WithOptimizer(rule, (0.5, 0.25), optax.identity())

        def loss(network: Network) -> jax.Array:
            states, _ = system.free(system.clamp(network, x), x)
            return jnp.mean(system.cost.loss(states[-1], y))

        def body(_: int, carry):
            return learner.learn(system, *carry, (x, y), KEY)[:2]

        trained, _ = jax.jit(lambda n: jax.lax.fori_loop(0, 100, body, (n, learner.init(n))))(
            network
        )
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(trained))
        before, after = jax.jit(loss)(network), jax.jit(loss)(trained)
        assert after < 0.6 * before, (before, after)


def test_gradients_of_all_steps_at_once_are_the_sum_of_single_ones() -> None:
    system, network, (x, y) = make_problem(
        make_network(*GRAPHS["skip"], 5, untied="random"), EnergyBased(tanh, 0.2), (20, 6)
    )

    @jax.jit
    def both(network: Network) -> tuple[Truncated, Window]:
        return truncated(system, network, x, y, 6), unroll(system, network, x, 6)

    found, unrolled = both(network)
    steps = per_step(Problem(system, network, (x, y)), 6)
    assert_close(tuple(np.asarray(c)[::-1] for c in found.curves), steps.states)
    assert_close(found.gradient, summed(steps))
    assert_close(found.window, unrolled)
    before = tuple(layer[-1] for layer in unrolled.before)
    assert_close(tuple(found.settled), (20, largest_change(unrolled.last, before)))


# -------------------------------------------------------------------------------------------- names


def test_parameters_have_names() -> None:
    network = make_network([4, 3, 2], [(0, 1), (1, 2), (0, 2), (1, 1), (1, 2)], 0, untied="random")
    assert parameter_names(network) == [
        *("W1", "b1", "W2", "b2", "Wb2", "W0->2", "b0->2"),
        *("W1->1", "b1->1", "Wb1->1", "W2#2", "b2#2", "Wb2#2"),
    ]

    class Two(Connection):
        down: Dense
        up: Dense

        def __call__(self, r_pre):
            return self.up(self.down(r_pre))

    key = jax.random.key(0)
    two = Two(Dense.init((4,), (2,), key, bias=False), Dense.init((2,), (3,), key))
    made = Network(((4,), (3,)), (Tied(0, 1, two),))
    assert parameter_names(made) == ["down.W1", "up.W1", "b1"]
    named = named_parameters(network)
    assert named["Wb2"] is network.edges[1].back.weight
    assert named["b0->2"] is network.edges[2].connection.bias


@pytest.mark.parametrize("steps", [1, 7, 12])
def test_the_free_phase_of_a_baseline_counts_all_of_its_steps(steps: int) -> None:
    problem = make_problem(
        make_network([5, 4, 3], oracle.chain([5, 4, 3]), 0), Prototypical(sigm), (12, steps)
    )
    _, free = update_of(BPTT(), problem)
    assert free.settled.steps == 12
