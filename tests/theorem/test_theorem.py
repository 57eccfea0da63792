"""Theorem 1: what the rules do at each nudged step is minus the BPTT gradient of that step.

The expectations are the theorem's own: agreement to first order in beta (second, when centered), to
first order in eta, and its exceptions. Sizes are small so that errors can be followed to round-off.
"""

import json
import os
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from gradients import trace, unroll
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

from eqprop.dynamics.activations import sigm, tanh
from eqprop.dynamics.nudges import Centered, Nudge, OneSided
from eqprop.dynamics.step import Dynamics, EnergyBased, Prototypical
from eqprop.errors import EqpropError
from eqprop.learning.increments import Equilibrium, Increment, VectorField
from eqprop.learning.learners import Continual
from eqprop.learning.rules import AfterPhase
from eqprop.networks.connections import Dense
from eqprop.networks.convolution import MaxPool, conv, conv_shape
from eqprop.networks.edges import Tied
from eqprop.networks.graphs import chain
from eqprop.networks.network import Network
from eqprop.theorem.agreement import _agreement, compare, fit_order, pick_synapses
from eqprop.theorem.curves import Changes, Gradients, Problem, Updates
from eqprop.theorem.settling import Settling, examine
from eqprop.theorem.verification import Plan, Verification, _floors, verify

pytestmark = pytest.mark.usefixtures("x64", "quick_compilation")

KEY = jax.random.key(0)
VECTORS = Path(os.environ.get("EQPROP_VECTORS_DIR", Path(__file__).parents[1] / "vectors"))
BETAS = (1e-3, 1e-4, 1e-5)


def chain_problem(sizes: list[int], dynamics: Dynamics, steps: tuple[int, int], **how) -> Problem:
    return make_problem(make_network(sizes, oracle.chain(sizes), 0, **how), dynamics, steps)


def parameter_errors(found: Verification) -> np.ndarray:
    """RelMSE of each parameter tensor (rows) at each beta."""
    tensors = [
        [t.relmse for t in trial.comparison.tensors if not t.name.startswith("s")]
        for trial in found.beta_trials
    ]
    return np.array(tensors, float).T


def parameter_orders(found: Verification) -> list[float]:
    orders = {n: o.slope for n, o in found.beta_orders.items() if not n.startswith("s")}
    assert None not in orders.values(), orders
    return [float(slope) for slope in orders.values() if slope is not None]


# ---------------------------------------------------------------- where it holds, with what order

HOLDS: dict[str, Problem | tuple[list[int], Dynamics, tuple[int, int]]] = {
    "toy 10-50-5, energy": ([10, 50, 5], EnergyBased(tanh, 0.08), (3000, 80)),
    "energy, 1 hidden": ([12, 8, 4], EnergyBased(tanh, 0.2), (1000, 40)),
    "energy, 2 hidden": ([12, 8, 6, 4], EnergyBased(tanh, 0.2), (3000, 40)),
    "inside, sigm": ([12, 8, 4], Prototypical(sigm, inside=True), (300, 10)),
    "inside, tanh": ([12, 8, 6, 4], Prototypical(tanh, inside=True), (1500, 20)),
}


@pytest.mark.parametrize("setup", HOLDS.values(), ids=HOLDS)
def test_the_error_falls_as_beta(setup) -> None:
    problem = chain_problem(*setup)
    found = verify(problem, Equilibrium(), Plan(BETAS))
    assert found.settling.settled
    assert parameter_errors(found)[:, -1].max() < 1e-4
    assert all(0.9 < order < 1.1 for order in parameter_orders(found))
    if isinstance(problem.system.dynamics, EnergyBased):
        # Inside a prototypical nudge, states change by sigma' times the gradient.
        assert all(0.9 < known(found.beta_orders[f"s{n}"].slope) < 1.1 for n in (1, 2))
    everything = found.beta_trials[-1].comparison.together
    assert known(everything.angle) < 1e-2
    assert everything.cosine == pytest.approx(1, abs=1e-8)


def test_it_holds_through_convolutions_and_max_pooling() -> None:
    pool = MaxPool(2)
    shapes = ((8, 8, 1), conv_shape((8, 8, 1), 3, 3, pool=pool), (4,))
    network = chain(shapes, KEY, [conv(3, pool=pool), Dense.init])
    problem = make_problem(network, EnergyBased(tanh, 0.2), (800, 20))
    found = verify(problem, Equilibrium(), Plan((1e-4, 1e-5)))
    assert parameter_errors(found)[:, -1].max() < 2e-4
    assert all(0.9 < order < 1.1 for order in parameter_orders(found))


@pytest.mark.parametrize("name", ["energy, 2 hidden", "inside, sigm"])
def test_the_error_falls_as_beta_squared_when_centered(name: str) -> None:
    found = verify(
        chain_problem(*HOLDS[name]), Equilibrium(), Plan((3e-2, 1e-2, 3e-3), nudge=Centered)
    )
    assert all(1.9 < order < 2.1 for order in parameter_orders(found))


@pytest.mark.parametrize("rho", [sigm, tanh])
def test_with_the_nudge_outside_a_gap_stays(rho) -> None:
    found = verify(
        chain_problem([12, 8, 4], Prototypical(rho), (300, 10)), Equilibrium(), Plan(BETAS)
    )
    errors = parameter_errors(found)
    assert errors.min() > 1e-2
    np.testing.assert_allclose(errors[:, 1:], errors[:, :1].repeat(2, axis=1), rtol=0.02)
    assert all(abs(order) < 0.01 for order in parameter_orders(found))
    assert 0.5 < known(found.asked.comparison.together.cosine) < 0.9999


def test_vector_fields_follow_the_gradient_where_both_weights_are_equal() -> None:
    steps = ([12, 8, 6, 4], EnergyBased(tanh, 0.2), (3000, 40))
    equal = verify(chain_problem(*steps, untied="equal"), VectorField(), Plan(BETAS))
    assert parameter_errors(equal)[:, -1].max() < 2e-4
    assert all(0.9 < order < 1.1 for order in parameter_orders(equal))
    apart = verify(chain_problem(*steps, untied="random"), VectorField(), Plan(BETAS))
    assert parameter_errors(apart).min(axis=1).max() > 0.1
    assert abs(known(apart.beta_orders["W1"].slope)) < 0.01


@given(
    graph=graphs(),
    dynamics=st.sampled_from([EnergyBased(tanh, 0.3), Prototypical(sigm, inside=True)]),
    vector_field=st.booleans(),
    seed=st.integers(0, 999),
)
@settings(max_examples=5)
def test_it_holds_on_any_graph(graph, dynamics: Dynamics, vector_field: bool, seed: int) -> None:
    sizes, edges = graph
    untied, increment = ("equal", VectorField()) if vector_field else ("no", Equilibrium())
    with jax.enable_x64(True):
        # Weak enough to settle, whatever the graph.
        network = make_network(sizes, edges, seed, untied=untied, scale=0.4)
        problem = make_problem(network, dynamics, (400, 12), seed=seed, batch=2)
        found = verify(problem, increment, Plan((1e-4, 1e-5)))
    coarse, fine = found.beta_trials
    for before, tensor in zip(coarse.comparison.tensors, fine.comparison.tensors, strict=True):
        if isinstance(dynamics, Prototypical) and tensor.name.startswith("s"):
            continue
        # Where a gradient happens to be near 0 the error may be larger; but it falls with beta.
        limit = max(100 * fine.beta, 0.15 * (before.relmse or 0.0))
        error = tensor.relmse or 0.0
        assert error < limit + 3 * fine.floors[tensor.name], tensor


@pytest.mark.parametrize("increment", [Equilibrium(), VectorField()], ids=["c-ep", "c-vf"])
def test_continual_rules_depart_as_eta(increment: Increment) -> None:
    untied = "no" if isinstance(increment, Equilibrium) else "equal"
    problem = chain_problem([12, 8, 4], EnergyBased(tanh, 0.2), (1000, 15), untied=untied)
    plan = Plan((1e-3, 1e-4), eta=(2e-6, 1e-6), factors=(1.0, 0.1, 0.01))
    found = verify(problem, increment, plan)
    assert all(0.9 < known(order.slope) < 1.1 for order in found.eta_orders.values())
    assert all(0.9 < known(order.slope) < 1.1 for order in found.beta_orders.values())
    away = found.asked.comparison.together
    assert known(found.beta_trials[0].comparison.together.relmse) < known(away.relmse) < 0.1
    assert [trial.factor for trial in found.eta_trials] == [1.0, 0.1, 0.01]


# ------------------------------------------------------------------------------- what is compared


@eqx.filter_jit
def sources(
    problem: Problem, increment: Increment, nudge: Nudge, eta: jax.Array | float = 0.0
) -> tuple[Updates, Gradients]:
    """A rule and BPTT, from a free phase that need not have settled."""
    system, network, (x, _) = problem
    window = unroll(system, network, x, system.nudged_steps)
    rates = jnp.broadcast_to(eta, len(network.edges))
    update = Updates(problem, increment, window.last, nudge.stencil(KEY), rates)
    return update, Gradients(problem, window)


@eqx.filter_jit
def _traced(*setup) -> tuple[Changes, Changes]:
    update, gradient = sources(*setup)
    steps = update.problem.system.nudged_steps
    return trace(update, steps), trace(gradient, steps)


def traced(
    problem: Problem, increment: Increment, nudge: Nudge, eta: jax.Array | float = 0.0
) -> tuple[Changes, Changes]:
    """All their changes, ``D(t)`` and ``-grad(t)``."""
    return jax.device_get(_traced(problem, increment, nudge, eta))


@pytest.mark.parametrize(
    ("nudge", "increment"), [(OneSided(-0.3), VectorField()), (Centered(0.3), Equilibrium())]
)
def test_the_curves_add_up_to_the_update_that_training_applies(
    nudge: Nudge, increment: Increment
) -> None:
    problem = chain_problem([6, 5, 4, 3], Prototypical(sigm), (30, 6))
    system, network, batch = problem
    rule = AfterPhase(increment, nudge)
    update, _ = jax.jit(lambda n: rule.update(system, n, *batch, KEY))(network)
    curves, _ = traced(problem, increment, nudge)
    total = jax.tree.map(lambda leaf: leaf.sum(axis=0), curves.network)
    for a, b in zip(jax.tree.leaves(total), jax.tree.leaves(update), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_the_curves_of_a_continual_rule_add_up_to_what_it_learns() -> None:
    problem = chain_problem([6, 5, 4, 3], Prototypical(sigm), (30, 6), untied="random")
    system, network, batch = problem
    learner = Continual(VectorField(), OneSided(0.3), (0.05,) * 3)
    learned, *_ = jax.jit(lambda n: learner.learn(system, n, learner.init(n), batch, KEY))(network)
    curves, _ = traced(problem, VectorField(), OneSided(0.3), 0.05)
    leaves = (jax.tree.leaves(tree) for tree in (curves.network, network, learned))
    for curve, before, after in zip(*leaves, strict=True):
        np.testing.assert_allclose(0.05 * curve.sum(axis=0), after - before, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dynamics", [EnergyBased(tanh, 0.2), Prototypical(sigm)], ids=["eb", "p"])
def test_measures_against_the_oracle(dynamics: Dynamics) -> None:
    """Far from the limit (beta = 0.5, an unsettled phase), so that nothing cancels."""
    problem = chain_problem([6, 5, 4, 3], dynamics, (30, 6))
    x, y = (np.array(a) for a in problem.batch)
    x[:, 2] = 0  # a pixel that is always dark
    problem = problem._replace(batch=(jnp.asarray(x), jnp.asarray(y)))
    source, reference = sources(problem, Equilibrium(), OneSided(0.5))
    picks = pick_synapses(problem.network, 4, 0)
    found = compare(source, reference, 6, picks)

    net, dyn = oracle_network(problem.network), oracle_dynamics(dynamics)
    s = oracle.free_phase(net, dyn, x, 30)
    phase = oracle.learn("ep", net, dyn, s, y, 6, 0.5, [0.0] * 3)
    d_states, bptt = oracle.d_states(dyn, phase.states, 0.5), oracle.bptt(net, dyn, x, y, 30, 6)
    d_total, grad_total = oracle.total(phase.increments), oracle.total(bptt.grad_theta)
    for layer in (1, 2, 3):
        d = np.stack([step[layer] for step in d_states])
        grad = np.stack([step[layer] for step in bptt.grad_s])
        name = f"s{layer}"
        np.testing.assert_allclose(found.updates[name], d, rtol=0, atol=1e-12)
        np.testing.assert_allclose(found.references[name], -grad, rtol=0, atol=1e-12)
        assert found[name].relmse == pytest.approx(oracle.relmse(d, grad), abs=1e-12)
        assert found[name].size == 3 * problem.network.shapes[layer][0]

        w = np.stack([step.W[layer - 1] for step in phase.increments])
        grad_w = np.stack([step.W[layer - 1] for step in bptt.grad_theta])
        tensor, at = found[f"W{layer}"], tuple(found.synapses[f"W{layer}"].T)
        np.testing.assert_allclose(found.updates[tensor.name], w[:, *at], rtol=0, atol=1e-12)
        np.testing.assert_allclose(
            found.references[tensor.name], -grad_w[:, *at], rtol=0, atol=1e-12
        )
        assert tensor.silent == (5 if layer == 1 else 0)
        # The oracle counts a silent element as an error of 0.
        heard = 1 - tensor.silent / tensor.size
        assert known(tensor.relmse) * heard == pytest.approx(oracle.relmse(w, grad_w), abs=1e-12)
        opposite = oracle.angle(w.sum(axis=0), -grad_w.sum(axis=0))
        assert tensor.angle == pytest.approx(opposite, abs=1e-9)
        assert np.cos(np.radians(opposite)) == pytest.approx(tensor.cosine, abs=1e-12)

    minus = oracle.combine(lambda _, g: -g, grad_total)
    assert found.together.angle == pytest.approx(oracle.angle(d_total, minus), abs=1e-9)


@given(graph=graphs(), vector_field=st.booleans(), seed=st.integers(0, 999))
@settings(max_examples=5)
def test_what_is_out_of_reach_does_not_change(graph, vector_field: bool, seed: int) -> None:
    """A layer d steps from the output is reached at t = d; before, D and grad are exactly zero.


    Centered, with weights that are powers of two: the two phases share the drift bit by bit.
    """
    sizes, edges = graph
    last = len(sizes) - 1
    distance = {last: 0}
    for _ in sizes:
        for i, j in edges:
            for a, b in ((i, j), (j, i)):
                if a and b in distance:
                    distance[a] = min(distance.get(a, 99), distance[b] + 1)
    with jax.enable_x64(True):
        untied, increment = ("random", VectorField()) if vector_field else ("no", Equilibrium())
        network = make_network(sizes, edges, seed, untied=untied)
        problem = make_problem(network, EnergyBased(tanh, 0.25), (8, 5), seed=seed)
        for changes in traced(problem, increment, Centered(2.0**-6)):
            for layer, curve in enumerate(changes.states, 1):
                assert not np.any(curve[: distance[layer]])
                assert np.any(curve[distance[layer] :]) or distance[layer] >= 5
            for edge in changes.network.edges:
                first = min(distance[edge.post], distance.get(edge.pre, 99))
                for leaf in jax.tree.leaves(edge):
                    assert not np.any(leaf[:first])


def test_memory_does_not_grow_with_nudged_steps_times_parameters() -> None:
    from eqprop.theorem.agreement import _scan

    def temporary(steps: int) -> int:
        problem = chain_problem([40, 60, 4], EnergyBased(tanh, 0.2), (60, steps))
        source, reference = sources(problem, Equilibrium(), OneSided(0.1))
        picks = pick_synapses(problem.network, 2, 0)
        compiled = _scan.lower(source, reference, steps, picks).compile()
        return compiled.compiled.memory_analysis().temp_size_in_bytes

    parameters = 8 * (40 * 60 + 60 * 4)
    assert temporary(50) - temporary(5) < 5 * parameters


# ---------------------------------------------------------------------- settled, or what is wrong


def settle(dynamics: Dynamics, steps: int, tolerance: float) -> Settling:
    problem = chain_problem([8, 6, 4], dynamics, (steps, 5))
    system, network, (x, _) = problem
    window = jax.jit(lambda n: unroll(system, n, x, 5))(network)
    return examine(problem, window, tolerance)


def test_what_T_would_do_is_found_by_going_on() -> None:
    def settling(steps: int) -> Settling:
        return settle(EnergyBased(tanh, 0.2), steps, 1e-7)

    short = settling(60)
    assert not short.settled
    needed = known(short.needed)
    assert needed > 60
    assert settling(needed).settled
    assert not settling(needed - 1).settled
    assert short.residuals.shape == (5, 2)
    assert settling(needed).needed == needed


def test_what_T_would_do_is_extrapolated_where_going_on_takes_too_long() -> None:
    def settling(steps: int) -> Settling:
        return settle(EnergyBased(tanh, 0.01), steps, 1e-9)

    far = settling(100)
    needed = known(far.needed)
    assert needed > 400
    assert 0.9 < far.rate < 1
    assert settling(int(1.2 * needed)).settled
    assert not settling(int(0.8 * needed)).settled


def test_a_free_phase_that_oscillates_is_refused() -> None:
    """One unit that inhibits itself takes two values in turn."""
    inhibits = Tied(1, 1, Dense(jnp.array([[-3.0]])))
    network = Network(((1,), (1,)), (Tied(0, 1, Dense(jnp.array([[1.0]]))), inhibits))
    problem = make_problem(network, Prototypical(tanh), (150, 10))
    with pytest.raises(EqpropError, match=r"oscillates: layer 1 still moves by [\d.]+ per step"):
        verify(problem, Equilibrium(), Plan())


def test_a_free_phase_that_diverges_is_refused() -> None:
    problem = chain_problem([4, 3, 2], Prototypical(lambda v: 3 * v), (3000, 10), scale=3.0)
    with pytest.raises(EqpropError, match=r"diverges: layer \d is not finite"):
        verify(problem, Equilibrium(), Plan())
    growing = chain_problem([4, 3, 2], Prototypical(lambda v: 1.05 * v), (40, 10), scale=1.5)
    with pytest.raises(EqpropError, match=r"free phase diverges: layer \d"):
        verify(growing, Equilibrium(), Plan())


def test_a_nudged_phase_that_diverges_is_refused() -> None:
    problem = chain_problem([4, 3, 2], Prototypical(sigm), (50, 10))
    with pytest.raises(EqpropError, match=r"curves of s1 are not finite within 10 steps.*lower"):
        verify(problem, Equilibrium(), Plan((1e80,)))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"betas": (0.1, 0.0)}, r"betas are \(0.1, 0.0\)"),
        ({"betas": ()}, "no beta"),
        ({"factors": (0.0,)}, "factors of eta"),
        ({"samples": -1}, "samples is -1"),
        ({"tolerance": 0.0}, "tolerance is 0.0"),
    ],
)
def test_plans_that_cannot_be_are_refused(plan: dict, message: str) -> None:
    with pytest.raises(EqpropError, match=message):
        Plan(**plan)


def test_problems_that_cannot_be_are_refused() -> None:
    with pytest.raises(EqpropError, match=r"K = 20 .* T = 10"):
        verify(chain_problem([4, 3, 2], Prototypical(sigm), (10, 20)), Equilibrium(), Plan())
    problem = chain_problem([4, 3, 2], Prototypical(sigm), (50, 5), untied="equal")
    with pytest.raises(EqpropError, match=r"1 learning rate.* for 2 connections"):
        verify(problem, Equilibrium(), Plan(eta=(0.1,)))
    with pytest.raises(EqpropError, match=r"not reciprocal.*untied weights"):
        verify(problem, Equilibrium(), Plan())
    x, y = problem.batch
    with pytest.raises(EqpropError, match=r"inputs have shape .* but the network takes \(4,\)"):
        verify(problem._replace(batch=(x[:, :3], y)), VectorField(), Plan())


# ------------------------------------------------------------------------------------ the results


def test_results_can_be_saved_and_hold_no_nan(tmp_path: Path) -> None:
    """With K = 1 the hidden layer is out of reach: some tensors have nothing to compare."""
    seen: list[tuple[str, int, int]] = []
    problem = chain_problem([4, 3, 2], Prototypical(sigm), (60, 1))
    with jax.enable_x64(False):
        single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), problem)
        plan = Plan((0.1, 0.01), eta=(1e-5, 1e-5))
        found = verify(single, Equilibrium(), plan, lambda *row: seen.append(row))
    assert [row[1:] for row in seen] == [(n, 7) for n in range(7)]
    record = json.loads(json.dumps(found.record(), allow_nan=False))
    hidden = {t["name"]: t for t in record["asked"]["tensors"]}["W1"]
    assert hidden["silent"] == hidden["size"]
    assert hidden["relmse"] is hidden["cosine"] is hidden["angle"] is None
    np.savez(tmp_path / "curves.npz", **found.arrays())
    with np.load(tmp_path / "curves.npz", allow_pickle=False) as file:
        assert file["D_s2"].shape == file["reference_s2"].shape == (1, 3, 2)
        assert file["D_W2"].shape == (1, 6)
        assert file["synapses_W2"].shape == (6, 2)
        assert file["D_s2"].dtype == np.float64
        assert all(np.isfinite(file[key]).all() for key in file.files)


def test_the_order_is_the_slope_above_the_floor() -> None:
    sizes = [1e-1, 1e-2, 1e-3, 1e-4]
    errors = [3 * size**2 for size in sizes]
    assert fit_order(sizes, errors, [0.0] * 4).slope == pytest.approx(2, abs=1e-12)
    spoilt = [*errors[:3], 1e-5]
    assert fit_order(sizes, spoilt, [1e-5] * 4).points == 2
    assert fit_order(sizes, spoilt, [1e-5] * 4).slope == pytest.approx(2, abs=1e-12)
    assert fit_order([0.1, -0.1], [1.0, 1.0], [0.0, 0.0]).slope is None
    assert fit_order(sizes, [None, 0.0, None, 1.0], [0.0] * 4).slope is None


def test_data_of_another_precision_than_the_network() -> None:
    problem = chain_problem([6, 5, 3], EnergyBased(tanh, 0.2), (400, 10))
    x, y = (a.astype(jnp.float32) for a in problem.batch)
    exact = problem._replace(batch=(x.astype(jnp.float64), y.astype(jnp.float64)))
    plan = Plan((1e-2, 1e-3))
    mixed, double = (
        verify(p, Equilibrium(), plan) for p in (problem._replace(batch=(x, y)), exact)
    )
    assert mixed.record() == double.record()


def test_sensitivity_is_what_an_error_of_1_makes_of_the_relmse() -> None:
    """A small error in every element at every step, divided by its size."""
    p = np.random.default_rng(0).normal(size=(7, 20)) * np.linspace(0.1, 3, 20)
    q = p - 1e-7
    rows = p.sum(axis=0), q.sum(axis=0), (p**2).sum(axis=0), (q**2).sum(axis=0)
    found = _agreement("W1", 7, [[row] for row in (*rows, ((p - q) ** 2).sum(axis=0))])
    assert known(found.relmse) / 1e-7 == pytest.approx(found.sensitivity, rel=1e-5)


def test_floors_are_what_a_drift_adds_to_the_curves() -> None:
    """A drift of a state by r in each step is ``r/(beta dt)`` of D_s, and ``r/beta`` of D_theta;
    both sides of a centered nudge see it alike.
    """
    problem = chain_problem([5, 4, 3], EnergyBased(tanh, 0.2), (300, 4))
    picks = pick_synapses(problem.network, 1, 0)
    found = compare(*sources(problem, Equilibrium(), OneSided(0.1)), 4, picks)
    sensitivity = {t.name: t.sensitivity for t in (*found.tensors, found.together)}

    def floors(nudge: Nudge, residual: float) -> dict[str, float]:
        return _floors(found, nudge.of_batch(KEY, 3), residual, 0.2)

    moved = floors(OneSided(-0.1), 1e-3)
    for name, floor in moved.items():
        dt = 0.2 if name.startswith("s") else 1.0
        assert floor == pytest.approx(sensitivity[name] * 1e-3 / 0.1 / dt, rel=1e-6), name
    centered = floors(Centered(0.1), 1e-3)
    assert all(0 < centered[name] < 1e-10 * floor for name, floor in moved.items())
