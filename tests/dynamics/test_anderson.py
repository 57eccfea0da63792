"""Anderson acceleration against linear algebra, GMRES, the secant method, and steps run long."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from problems import make_network, make_problem

from eqprop.dynamics.activations import hardsigm, sigm
from eqprop.dynamics.anderson import Anderson
from eqprop.dynamics.costs import SquaredError
from eqprop.dynamics.nudges import Centered
from eqprop.dynamics.relaxation import FixedSteps, Settled, Step, ToTolerance
from eqprop.dynamics.step import Dynamics, EnergyBased, Prototypical
from eqprop.dynamics.system import System
from eqprop.errors import EqpropError
from eqprop.learning.increments import Equilibrium
from eqprop.learning.learners import WithOptimizer
from eqprop.learning.rules import AfterPhase
from eqprop.networks.connections import Dense, Lateral
from eqprop.networks.graphs import chain, graph, in_a_row
from eqprop.networks.network import Network
from eqprop.recipes.build import build
from eqprop.recipes.catalogue import recipe
from eqprop.recipes.fast import fast
from eqprop.training.trainer import Examples, Trainer
from eqprop.types import Array, Float, PRNGKeyArray, States

pytestmark = pytest.mark.usefixtures("x64", "quick_compilation")

SIZES = [6, 8, 7, 4]


def linear(radius: float, n: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A symmetric matrix of that spectral radius, with both signs, and a shift for 3 examples."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(n, n)))
    values = np.linspace(-0.6 * radius, radius, n)
    return basis @ np.diag(values) @ basis.T, rng.normal(size=(3, n))


def affine(matrix: np.ndarray, shift: np.ndarray) -> Step:
    return lambda s: (s[0] @ jnp.asarray(matrix.T) + jnp.asarray(shift),)


def zeros(shift: np.ndarray) -> States:
    return (jnp.zeros_like(jnp.asarray(shift)),)


def test_a_linear_contraction_is_solved_in_fewer_steps() -> None:
    """Plain steps need log(tolerance)/log(radius) of them. With a memory of all n steps, Anderson
    is GMRES, which ends after n of them but for rounding.
    """
    matrix, shift = linear(0.98)
    exact = np.linalg.solve(np.eye(12) - matrix, shift.T).T
    plain, plainly = ToTolerance(2000, 1e-8, 1)(affine(matrix, shift), zeros(shift))
    mixed, settled = Anderson(2000, 1e-8, 12)(affine(matrix, shift), zeros(shift))
    np.testing.assert_allclose(mixed[0], exact, atol=1e-6)
    np.testing.assert_allclose(plain[0], exact, atol=1e-6)
    assert plainly.steps > 700
    assert settled.steps <= 16
    few, settled = Anderson(2000, 1e-8, 5)(affine(matrix, shift), zeros(shift))
    np.testing.assert_allclose(few[0], exact, atol=1e-6)
    assert settled.steps < 100


def test_points_are_those_of_gmres() -> None:
    """After k + 1 steps the next point is F of the k-th iterate of GMRES (Walker and Ni, theorem
    2.2), which has the smallest residual in the Krylov space.
    """
    matrix, shift = linear(0.9)
    step, relaxation = affine(matrix, shift), Anderson(9, 1e-12, 12, 1e-15)
    start = zeros(shift)
    progress = relaxation.advance(step, start, relaxation.start(start))
    np.testing.assert_array_equal(progress.point, shift)  # F(0), a plain step
    for k in range(1, 7):
        progress = relaxation.advance(step, start, progress)
        for point, b in zip(progress.point, shift, strict=True):
            krylov = [np.linalg.matrix_power(matrix, power) @ b for power in range(k)]
            space, _ = np.linalg.qr(np.array(krylov).T)
            best, *_ = np.linalg.lstsq(space - matrix @ space, b, rcond=None)
            np.testing.assert_allclose(point, matrix @ (space @ best) + b, atol=1e-9)


@pytest.mark.parametrize("sweeps", [False, True])
@pytest.mark.parametrize("dynamics", [Prototypical(sigm), EnergyBased(sigm, 0.3)])
def test_it_ends_where_steps_run_long_end(dynamics: Dynamics, *, sweeps: bool) -> None:
    problem = make_problem(make_network(SIZES, oracle.chain(SIZES), 0), dynamics, (3000, 4))
    system, network, (x, _) = problem
    clamped = system.clamp(network, x)
    expected, _ = system.free(clamped, x)
    free = {
        relaxation: dataclasses.replace(system, relaxation=relaxation, sweeps=sweeps).free
        for relaxation in (Anderson(3000, 1e-10), ToTolerance(3000, 1e-10, 1))
    }
    (mixed, settled), (_, plainly) = (jax.jit(run)(clamped, x) for run in free.values())
    for ours, theirs in zip(mixed, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-8)
    assert settled.residual < 1e-10
    assert settled.steps < plainly.steps


def leap(s: States) -> States:
    """Newton's and the secant method overshoot the root of arctan ever further, if they start
    far off; this F, whose slope is in [0, 1), comes nearer in every step.
    """
    return (s[0] - jnp.arctan(s[0]),)


def secant(x: float, n: int) -> float:
    """The secant method for arctan(x) = 0 from x and F(x): Anderson's without a safeguard."""
    before, x = x, x - np.arctan(x)
    for _ in range(n):
        slope = (np.arctan(x) - np.arctan(before)) / (x - before)
        before, x = x, x - np.arctan(x) / slope
    return x


def far() -> States:
    return (jnp.array([[10.0], [0.5], [-30.0]]),)


def test_the_safeguard_goes_back_to_plain_steps() -> None:
    assert abs(secant(10.0, 5)) > 1e3
    assert abs(secant(0.5, 5)) < 1e-9
    _, plainly = ToTolerance(200, 1e-10, 1)(leap, far())
    (mixed,), settled = Anderson(200, 1e-10)(leap, far())
    np.testing.assert_allclose(mixed, 0, atol=1e-9)
    assert settled.residual < 1e-10
    assert settled.steps <= 2 * plainly.steps + 1


def test_each_example_is_mixed_by_itself() -> None:
    relaxation = Anderson(200, 1e-10, 1)
    together = relaxation.start(far())
    alone = [relaxation.start((row[None],)) for row in far()[0]]
    for _ in range(6):
        together = relaxation.advance(leap, far(), together)
        alone = [
            relaxation.advance(leap, (row[None],), p)
            for row, p in zip(far()[0], alone, strict=True)
        ]
        for n, progress in enumerate(alone):
            np.testing.assert_allclose(together.point[n], progress.point[0], rtol=1e-9, atol=1e-12)
            np.testing.assert_array_equal(together.trusted[n], progress.trusted[0])


def test_numbers_that_are_none_are_passed_over_where_plain_steps_have_none() -> None:
    def fragile(s: States) -> States:
        return (jnp.where(jnp.abs(s[0]) > 50, jnp.nan, leap(s)[0]),)

    assert abs(secant(10.0, 2)) > 50 or abs(secant(10.0, 1)) > 50
    (mixed,), _ = Anderson(200, 1e-10)(fragile, far())
    np.testing.assert_allclose(mixed, 0, atol=1e-9)


@pytest.mark.parametrize("growth", [jnp.inf, jnp.nan, 1e200])
def test_plain_steps_that_are_no_numbers_end_it(growth: float) -> None:
    _, settled = Anderson(50, 1e-3)(lambda s: (s[0] * growth + 1,), (jnp.ones((1, 2)),))
    assert not jnp.isfinite(settled.residual)
    assert settled.steps < 10


def test_a_cycle_of_plain_steps_has_a_fixed_point_within() -> None:
    (mixed,), settled = Anderson(50, 1e-10)(lambda s: (1 - s[0],), (jnp.zeros((2, 3)),))
    np.testing.assert_allclose(mixed, 0.5)
    assert settled.steps <= 4


def test_kinks_and_clipping() -> None:
    """A net of hardsigm units, some at rest at 0 or 1, ends where steps do."""
    network = make_network(SIZES, oracle.chain(SIZES), 3, scale=2.0)
    system, network, (x, _) = make_problem(network, Prototypical(hardsigm), (2000, 4), batch=8)
    clamped = system.clamp(network, x)
    expected, plainly = system.free(clamped, x)
    assert plainly.residual < 1e-12
    assert any(bool(jnp.any((layer == 0) | (layer == 1))) for layer in expected)
    mixed, _ = Anderson(2000, 1e-10)(system.free_step(clamped, x), clamped.zeros(8))
    for ours, theirs in zip(mixed, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-8)


def test_vmapped_networks_end_each_by_itself() -> None:
    radii = jnp.array([0.3, 0.95])
    matrix, shift = linear(1.0)

    def run(radius: Float[Array, ""]) -> tuple[States, Settled]:
        return Anderson(300, 1e-9)(affine(radius * matrix, shift), zeros(shift))

    (ends,), settled = jax.jit(jax.vmap(run))(radii)
    for radius, end in zip(radii, ends, strict=True):
        exact = np.linalg.solve(np.eye(12) - float(radius) * matrix, shift.T).T
        np.testing.assert_allclose(end, exact, atol=1e-7)
    assert settled.steps[0] < settled.steps[1]


def test_a_training_is_that_of_long_free_phases() -> None:
    images, labels = (
        np.random.default_rng(0).integers(0, 256, (12, 2, 3), "uint8"),
        np.arange(12) % 3,
    )
    networks = []
    for relaxation in (FixedSteps(400), Anderson(400, 1e-11)):
        system = System(Prototypical(sigm, inside=True), SquaredError(), relaxation, 5)
        learner = WithOptimizer(
            AfterPhase(Equilibrium(), Centered(0.1)), (0.2, 0.1), optax.identity()
        )
        trainer = Trainer(system, learner, 4)
        state = trainer.start(lambda key: chain([(6,), (5,), (3,)], key), 0)
        examples = Examples.put(images, labels, state.network)
        state = trainer.advance(state, examples, trainer.order(state, examples), 3)
        networks.append(state.network)
    for ours, theirs in zip(*map(jax.tree.leaves, networks), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_recipes_and_what_cannot_be() -> None:
    mixed = dataclasses.replace(recipe("ep-1h"), relaxation="anderson", tolerance=1e-3)
    relaxation = build(mixed, (28, 28), 10, 1).system.relaxation
    assert relaxation == Anderson(30, 1e-3)
    assert relaxation.until(1e-5) == Anderson(30, 1e-5)
    assert Anderson(30, 1e-3, 7, 1e-6).until(1e-5) == Anderson(30, 1e-5, 7, 1e-6)
    assert FixedSteps(7).until(1e-5) == ToTolerance(7, 1e-5)
    with pytest.raises(EqpropError, match=r"tolerance is 0\.0: give one, as --tolerance 1e-3"):
        dataclasses.replace(mixed, tolerance=0.0)
    for values, message in (
        ((0, 1e-3), "free steps T is 0"),
        ((5, 0.0), "tolerance is 0.0: it must be above 0"),
        ((5, 1e-3, 0), "remembers 0 steps: it needs at least 1"),
        ((5, 1e-3, 2, 0.0), "damping of Anderson acceleration is 0.0"),
    ):
        with pytest.raises(EqpropError, match=message):
            Anderson(*values)


@pytest.mark.parametrize("phase", ["sweeps", "nudged_sweeps"])
def test_sweeps_over_an_odd_cycle_are_refused_before_the_first_minibatch(phase: str) -> None:
    def init(key: PRNGKeyArray) -> Network:
        shapes = [(6,), (5,), (3,)]
        links = [*in_a_row([Dense.init] * 2), (1, 1, Lateral.init)]
        return graph(shapes, links, key)

    system = System(Prototypical(sigm), SquaredError(), FixedSteps(5), 2, **{phase: True})
    learner = WithOptimizer(AfterPhase(Equilibrium(), Centered(0.1)), (0.1,) * 3, optax.identity())
    with pytest.raises(EqpropError, match=r"layer 1 lies on an odd cycle.*use synchronous steps"):
        Trainer(system, learner, 4).start(init, 0)


@pytest.mark.parametrize(
    "links",
    [{}, {"skips": ((0, 2),)}, {"skips": ((1, 4),)}, {"skips": ((1, 3),)}, {"lateral": (2,)}],
    ids=str,
)
def test_fast_sweeps_where_the_graph_has_two_colours(links: dict[str, Any]) -> None:
    rates = (0.1,) * (4 + len(links))
    made = fast(dataclasses.replace(recipe("ep-1h"), hidden=(5, 4, 3), lr=rates, **links))
    assert made.tolerance > 0
    network = build(made, (2, 3), 3, 1).init(jax.random.key(0))
    if made.sweeps:
        assert network.colours() == ((2, 4), (1, 3))
        return
    with pytest.raises(EqpropError, match="odd cycle"):
        network.colours()
    with pytest.raises(EqpropError, match=r"odd cycle.*use synchronous steps"):
        build(dataclasses.replace(made, sweeps=True), (2, 3), 3, 1)


@pytest.mark.parametrize("every", [1, 3, 4, 20])
def test_steps_end_at_the_most_that_there_are_however_seldom_they_are_tested(every: int) -> None:
    """A step adds 1, and so never settles."""
    relaxation = ToTolerance(10, 1e-3, every)
    (s,), settled = relaxation(lambda s: (s[0] + 1,), (jnp.zeros((2, 3)),))
    assert np.all(s == 10)
    assert (settled.steps, settled.residual) == (10, 1)
