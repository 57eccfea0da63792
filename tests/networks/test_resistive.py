"""Resistive networks against Kirchhoff's equations and finite differences of the solved circuit."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradients import trace, unroll
from scipy.optimize import minimize

from eqprop.dynamics.costs import SquaredError
from eqprop.dynamics.nudges import Centered, Holomorphic, OneSided
from eqprop.dynamics.relaxation import FixedSteps
from eqprop.dynamics.step import BlockDescent
from eqprop.dynamics.system import System
from eqprop.errors import EqpropError
from eqprop.learning.asymmetric import AsymmetricEP, ContinualAsymmetricEP
from eqprop.learning.baselines import BPTT, RecurrentBackprop
from eqprop.learning.increments import Equilibrium
from eqprop.learning.learners import Continual, InsidePhase, WithOptimizer
from eqprop.learning.rules import AfterPhase
from eqprop.networks.graphs import chain
from eqprop.networks.resistive import ResistiveNetwork
from eqprop.recipes.build import build
from eqprop.recipes.catalogue import recipe
from eqprop.theorem.curves import Gradients, Problem, Updates

pytestmark = pytest.mark.usefixtures("x64", "quick_compilation")

LAYERS = (4, 6, 5, 3)


def circuit(*, diodes: bool, steps=(3000, 3000), sweeps: bool = False) -> Problem:
    network = ResistiveNetwork.init(LAYERS, jax.random.key(1), gain=3.0, least=0.01)
    network = jax.tree.map(lambda leaf: leaf.astype("float64"), network)
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.uniform(-1, 1, (3, 4))), jnp.eye(3)
    dynamics = BlockDescent(diodes=diodes)
    relaxation, swept = FixedSteps(steps[0]), {"sweeps": sweeps, "nudged_sweeps": sweeps}
    system = System(dynamics, SquaredError(), relaxation, steps[1], **swept)
    return Problem(system, network, (x, y))


def power_matrix(network: ResistiveNetwork) -> np.ndarray:
    """The Laplacian of the circuit, all sources and nodes: entry by entry, in NumPy."""
    sizes = [2 * LAYERS[0] + 2, *(n for (n,) in network.shapes[1:])]
    starts = np.cumsum([0, *sizes])
    laplacian = np.zeros((starts[-1], starts[-1]))
    for layer, conductances in enumerate(network.conductances):
        for (i, j), g in np.ndenumerate(conductances):
            a, b = starts[layer] + i, starts[layer + 1] + j
            for node, other in ((a, b), (b, a)):
                laplacian[node, node] += g
                laplacian[node, other] -= g
    return laplacian


def sources(x: np.ndarray) -> np.ndarray:
    return 3.0 * np.concatenate([x, -x, [1.0, -1.0]])


def kirchhoff(network: ResistiveNetwork, x: np.ndarray) -> np.ndarray:
    """Voltages of the free nodes without diodes: currents into each add up to 0."""
    full, volts = power_matrix(network), sources(x)
    n = len(volts)
    return np.linalg.solve(full[n:, n:], -full[n:, :n] @ volts)


def with_diodes(network: ResistiveNetwork, x: np.ndarray) -> np.ndarray:
    """The same with diodes, by SciPy's projected quasi-Newton descent on the power."""
    full, volts = power_matrix(network), sources(x)
    n = len(volts)
    bounds = []
    for (size,) in network.shapes[1:-1]:
        bounds += [(0, None)] * (size // 2) + [(None, 0)] * (size - size // 2)
    bounds += [(None, None)] * network.shapes[-1][0]

    blocked = [pair != (None, None) for pair in bounds]

    def energy(v: np.ndarray) -> tuple[float, np.ndarray]:
        all_volts = np.concatenate([volts, v])
        currents = full @ all_volts
        return float(all_volts @ currents) / 2, currents[n:]

    start, exact = np.zeros(len(bounds)), {"ftol": 1e-15, "gtol": 1e-12, "maxiter": 10000}
    found = minimize(energy, start, jac=True, bounds=bounds, method="L-BFGS-B", options=exact)
    # Which diodes block is known then; with these, the circuit is linear.
    free = np.array([not (end and abs(v) < 1e-6) for v, end in zip(found.x, blocked, strict=True)])
    exactly, inner = np.zeros(len(free)), full[n:, n:][np.ix_(free, free)]
    exactly[free] = np.linalg.solve(inner, -full[n:, :n][free] @ volts)
    return exactly


def settled(problem: Problem) -> np.ndarray:
    system, network, (x, _) = problem
    states, _ = system.free(system.clamp(network, x), x)
    return np.concatenate([np.asarray(s) for s in states], axis=1)


@pytest.mark.parametrize("sweeps", [False, True])
@pytest.mark.parametrize("diodes", [False, True])
def test_it_settles_where_kirchhoff_has_it(diodes: bool, sweeps: bool) -> None:
    problem = circuit(diodes=diodes, sweeps=sweeps)
    oracle = with_diodes if diodes else kirchhoff
    for found, x in zip(settled(problem), np.asarray(problem.batch[0]), strict=True):
        expected = oracle(problem.network, x)
        np.testing.assert_allclose(found, expected, atol=1e-10)
        assert np.abs(expected).max() > 0.1
    if diodes:  # they do something
        assert (settled(problem)[:, :11] == 0).any()


def test_the_power_is_that_of_the_matrix() -> None:
    problem = circuit(diodes=True)
    system, network, (x, _) = problem
    states, _ = system.free(system.clamp(network, x), x)
    full = power_matrix(network)
    for row, power in enumerate(network.power(x, states)):
        own = [np.asarray(s[row]) for s in states]
        volts = np.concatenate([sources(np.asarray(x[row])), *own])
        assert float(power) == pytest.approx(volts @ full @ volts, rel=1e-12)


def flat(network: ResistiveNetwork) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(network)])


def finite_differences(problem: Problem) -> np.ndarray:
    """Minus the gradient of the mean loss of the solved circuit, conductance by conductance."""
    _, network, (x, y) = problem
    solve = with_diodes if problem.system.dynamics.diodes else kirchhoff

    def loss(values: np.ndarray) -> float:
        given = eqx_with(network, values)
        outputs = np.stack([solve(given, each)[-6:] for each in np.asarray(x)])
        return float(((np.asarray(y) - (outputs[:, :3] - outputs[:, 3:])) ** 2).sum() / 2 / len(x))

    values, step = flat(network), 1e-6
    columns = np.eye(len(values)) * step
    return np.array([-(loss(values + c) - loss(values - c)) / 2 / step for c in columns])


def eqx_with(network: ResistiveNetwork, values: np.ndarray) -> ResistiveNetwork:
    sizes = np.cumsum([g.size for g in network.conductances])[:-1]
    parts = zip(np.split(values, sizes), network.conductances, strict=True)
    return dataclasses.replace(
        network, conductances=tuple(jnp.asarray(v.reshape(g.shape)) for v, g in parts)
    )


def update(problem: Problem, rule) -> np.ndarray:
    system, network, (x, y) = problem
    return flat(rule.update(system, network, x, y, jax.random.key(0))[0])


def error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_updates_are_the_gradient_of_the_solved_circuit() -> None:
    problem = circuit(diodes=False)
    gradient = finite_differences(problem)
    ep = [
        error(update(problem, AfterPhase(Equilibrium(), OneSided(b))), gradient)
        for b in (2e-3, 1e-3)
    ]
    assert np.log2(ep[0] / ep[1]) == pytest.approx(1, abs=0.1)
    assert error(update(problem, AfterPhase(Equilibrium(), Centered(1e-4))), gradient) < 1e-5
    assert error(update(problem, AsymmetricEP(Centered(1e-4))), gradient) < 1e-5
    assert error(update(problem, BPTT()), gradient) < 1e-5
    assert error(update(problem, RecurrentBackprop()), gradient) < 1e-3
    swept = circuit(diodes=False, sweeps=True)
    assert error(update(swept, AfterPhase(Equilibrium(), Centered(1e-4))), gradient) < 1e-5


def test_updates_with_diodes() -> None:
    problem = circuit(diodes=True)
    gradient = finite_differences(problem)
    assert error(update(problem, AfterPhase(Equilibrium(), Centered(1e-4))), gradient) < 1e-5
    assert error(update(problem, BPTT()), gradient) < 1e-5


def test_each_step_of_parameters_is_that_of_bptt() -> None:
    """States move by block descent, a preconditioned one, but what conductances see of each step is
    the gradient of it.
    """
    problem = circuit(diodes=False, steps=(3000, 6))
    window = unroll(*problem[:2], problem.batch[0], 6)
    stencil = Centered(1e-4).stencil(jax.random.key(0))
    eta = jnp.zeros(3)
    ours = Updates(
        problem=problem, increment=Equilibrium(), free=window.last, stencil=stencil, eta=eta
    )
    found = trace(ours, 6).network
    expected = trace(Gradients(problem, window), 6).network
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert float(jnp.abs(b).max()) > 1e-8
        np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max()))


def test_conductances_stay_where_they_may_be() -> None:
    asked = dataclasses.replace(
        recipe("resistive-1h"), hidden=(8,), lr=(1e3, 1e3), batch=5, least=0.01
    )
    built = build(asked, (2, 2), 3, 4)
    network = built.init(jax.random.key(0))
    x = jnp.linspace(0, 1, 20, dtype=jnp.float32).reshape(5, 4)
    y = jax.nn.one_hot(jnp.arange(5) % 3, 3, dtype=jnp.float32)
    memory = built.learner.init(network)
    assert isinstance(built.learner, WithOptimizer)
    after, _, _ = built.learner.learn(built.system, network, memory, (x, y), jax.random.key(1))
    least = [float(g.min()) for g in after.conductances]
    assert least == pytest.approx([0.01, 0.01])


def test_bad_input() -> None:
    key = jax.random.key(0)
    with pytest.raises(EqpropError, match="gain is 0"):
        ResistiveNetwork.init(LAYERS, key, gain=0.0)
    with pytest.raises(EqpropError, match="least conductance is -1"):
        ResistiveNetwork.init(LAYERS, key, least=-1.0)
    network, problem = ResistiveNetwork.init(LAYERS, key), circuit(diodes=True)
    with pytest.raises(EqpropError, match=r"conductances have shapes .*\(10, 6\)"):
        dataclasses.replace(network, conductances=network.conductances[1:])
    for shapes in (((4,), (2, 2), (6,)), ((4,), (6,), (5,))):
        with pytest.raises(EqpropError, match=r"layers have shapes .* an even number"):
            dataclasses.replace(network, shapes=shapes)
    other = chain([(4,), (3,)], key)
    with pytest.raises(EqpropError, match=r"block descent is of resistive networks.*Network"):
        problem.system.dynamics.step(other, *_some(problem))
    with pytest.raises(EqpropError, match="diodes are not analytic"):
        update(circuit(diodes=True), AfterPhase(Equilibrium(), Holomorphic(0.1)))
    with pytest.raises(EqpropError, match=r"channels is .*resistive network has dense layers"):
        dataclasses.replace(recipe("resistive-1h"), channels=(3,))


def _some(problem: Problem) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    x = problem.batch[0]
    return x, (jnp.zeros((len(x), 3)),)


def test_a_node_that_nothing_is_joined_to_stays_at_0() -> None:
    """Conductances may learn down to 0."""
    network = ResistiveNetwork.init((3, 4, 2), jax.random.key(0))
    first, second = network.conductances
    alone = eqx.tree_at(
        lambda n: n.conductances, network, (first.at[:, 1].set(0), second.at[1].set(0))
    )
    x, y = jnp.ones((2, 3)), jnp.eye(2)
    system = System(BlockDescent(), SquaredError(), FixedSteps(9), 3)
    clamped = system.clamp(alone, x)
    states = system.free(clamped, x).states
    for ends in (states, system.nudged(clamped, x, y, jnp.asarray(0.5), states)):
        assert np.all(ends[0][:, 1] == 0)
        assert all(np.isfinite(s).all() for s in ends)


def test_initial_conductances_are_uniform_above_the_least() -> None:
    network = ResistiveNetwork.init((99, 300, 50), jax.random.key(0), least=0.01)
    for g in network.conductances:
        top = 2 / sum(g.shape)
        assert g.min() >= 0.01
        assert 0.95 * top < g.max() - 0.01 <= top * (1 + 1e-6)
        assert float((g - 0.01).mean()) == pytest.approx(top / 2, rel=0.05)


@pytest.mark.parametrize(
    "learner",
    [
        Continual(Equilibrium(), OneSided(0.1), (1e3,) * 3),
        ContinualAsymmetricEP(OneSided(0.1), (1e3,) * 3),
    ],
)
def test_conductances_stay_where_they_may_be_continually(learner: InsidePhase) -> None:
    system, network, batch = circuit(diodes=True, steps=(50, 3))
    memory = learner.init(network)
    after, _, _ = jax.jit(lambda n: learner.learn(system, n, memory, batch, jax.random.key(1)))(
        network
    )
    least = [float(g.min()) for g in after.conductances]
    assert least == pytest.approx([0.01] * 3)
