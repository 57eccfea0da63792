"""Rules and learners against the NumPy transcription, which rewrites every weight at every step."""

import inspect
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from problems import make_network, make_problem

from eqprop.devices.record import Device
from eqprop.devices.synapses import pulsed
from eqprop.dynamics.activations import activation
from eqprop.dynamics.costs import SquaredError
from eqprop.dynamics.nudges import Centered, MixedSign, Nudge, OneSided, RandomSign, Stencil
from eqprop.dynamics.relaxation import FixedSteps
from eqprop.dynamics.step import Dynamics, EnergyBased, Prototypical
from eqprop.dynamics.system import System
from eqprop.errors import EqpropError
from eqprop.learning.continual import LowRank, continual_phase, continual_step
from eqprop.learning.increments import Equilibrium, Increment, VectorField
from eqprop.learning.learners import Continual, Learner, WithOptimizer, constant
from eqprop.learning.rules import AfterPhase
from eqprop.networks.connections import Dense
from eqprop.networks.edges import Tied, Untied
from eqprop.networks.graphs import chain
from eqprop.networks.network import Network

pytestmark = pytest.mark.usefixtures("x64", "quick_compilation")

RULES: dict[str, tuple[Increment, bool]] = {
    "ep": (Equilibrium(), False),
    "c-ep": (Equilibrium(), True),
    "vf": (VectorField(), False),
    "c-vf": (VectorField(), True),
}
SETTINGS = {
    "outside": (
        oracle.Dynamics("prototypical", "sigm", "outside"),
        Prototypical(activation("sigm")),
    ),
    "inside": (
        oracle.Dynamics("prototypical", "tanh", "inside"),
        Prototypical(activation("tanh"), inside=True),
    ),
    "energy": (
        oracle.Dynamics("energy", "tanh", dt=0.1),
        EnergyBased(activation("tanh"), 0.1),
    ),
    "energy, raw input": (
        oracle.Dynamics("energy", "sigm", dt=0.1, input_rate="identity"),
        EnergyBased(activation("sigm"), 0.1, raw_input=True),
    ),
    "energy, clipped": (
        oracle.Dynamics("energy", "hardsigm", dt=0.3, clip=True),
        EnergyBased(activation("hardsigm"), 0.3, clip=True),
    ),
}
SIZES = [8, 14, 12, 5]
GRAPHS = {"chain": [(0, 1), (1, 2), (2, 3)], "skip": [(0, 1), (1, 2), (2, 3), (0, 2), (1, 3)]}
T, K, ETA = 12, 5, 0.3


class Case(NamedTuple):
    """A random problem, in the oracle's form and in the library's."""

    theirs: oracle.DenseNet
    ours: Network
    x: np.ndarray
    y: np.ndarray

    @property
    def batch(self) -> tuple[jax.Array, jax.Array]:
        return jnp.asarray(self.x), jnp.asarray(self.y)


def case(graph: str, rows: int, *, untied: bool, seed: int = 0) -> Case:
    rng = np.random.default_rng(seed)
    net = oracle.random_net(rng, SIZES, GRAPHS[graph], untied=untied)
    x, y = rng.uniform(size=(rows, SIZES[0])), np.eye(SIZES[-1])[rng.integers(SIZES[-1], size=rows)]
    return Case(net, convert(net), x, y)


def convert(net: oracle.DenseNet) -> Network:
    edges = []
    for (pre, post), w, b, wb in zip(net.edges, *net.params, strict=True):
        dense = Dense(jnp.asarray(w), jnp.asarray(b))
        tied = wb is None
        edges.append(
            Tied(pre, post, dense) if tied else Untied(pre, post, dense, Dense(jnp.asarray(wb)))
        )
    return Network(tuple((n,) for n in net.sizes), tuple(edges))


def system(dynamics: Dynamics, steps: int = T) -> System:
    return System(dynamics, SquaredError(), FixedSteps(steps), K)


def learn(
    learner: Learner, dynamics: Dynamics, problem: Case, *, seed: int = 0, steps: int = T
) -> Network:
    memory, key = learner.init(problem.ours), jax.random.key(seed)
    part = system(dynamics, steps)
    run = jax.jit(lambda n: learner.learn(part, n, memory, problem.batch, key)[0])
    return run(problem.ours)


def learner(rule: str, nudge: Nudge, rates: tuple[float, ...]) -> Learner:
    increment, continual = RULES[rule]
    if continual:
        return Continual(increment, nudge, rates)
    return WithOptimizer(AfterPhase(increment, nudge), rates, optax.identity())


def assert_close(a, b, atol: float = 1e-12) -> None:
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=0, atol=atol), a, b)


@pytest.mark.parametrize("rows", [1, 3])  # 1: low-rank forms of C-EP pay; 3: weights are rewritten
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("rule", RULES)
def test_a_batch_changes_the_weights_as_the_equations_say(
    rule: str, setting: str, graph: str, rows: int
) -> None:
    theirs, ours = SETTINGS[setting]
    problem = case(graph, rows, untied="vf" in rule)
    rates = tuple(ETA / (n + 1) for n in range(len(problem.ours.edges)))
    beta = -0.4 if graph == "skip" else 0.4

    free = oracle.free_phase(problem.theirs, theirs, problem.x, T)
    phase = oracle.learn(rule, problem.theirs, theirs, free, problem.y, K, beta, rates)

    new = learn(learner(rule, OneSided(beta), rates), ours, problem)
    assert_close(new, convert(phase.net))


@pytest.mark.parametrize("setting", SETTINGS)
def test_centered_nudging(setting: str) -> None:
    theirs, ours = SETTINGS[setting]
    problem = case("skip", 3, untied=False)
    free = oracle.free_phase(problem.theirs, theirs, problem.x, T)
    update = oracle.centered_update(problem.theirs, theirs, free, problem.y, K, 0.4)
    rates = (ETA,) * 5
    expected = oracle.add_scaled(problem.theirs.params, rates, update)
    new = learn(learner("ep", Centered(0.4), rates), ours, problem)
    assert_close(new, convert(problem.theirs.with_params(expected)))


def test_random_signs_are_one_sided_nudges_of_either_sign() -> None:
    problem = case("chain", 3, untied=False)
    dynamics, rates = SETTINGS["outside"][1], (ETA,) * 3
    either = [learn(learner("ep", OneSided(b), rates), dynamics, problem) for b in (0.4, -0.4)]
    drawn = [
        learn(learner("ep", RandomSign(0.4), rates), dynamics, problem, seed=seed)
        for seed in range(12)
    ]
    weights = [jax.tree.leaves(network)[0] for network in (*either, *drawn)]
    same = [[np.allclose(w, e, rtol=0, atol=1e-12) for e in weights[:2]] for w in weights[2:]]
    assert {tuple(row) for row in same} == {(True, False), (False, True)}
    always = learn(learner("ep", RandomSign(0.4, positive=1.0), rates), dynamics, problem)
    assert_close(always, either[0])


@pytest.mark.parametrize("rule", ["ep", "vf"])
def test_of_two_equal_examples_mixed_signs_nudge_one_each_way(rule: str) -> None:
    """So that they do what a centered nudge does to one."""
    problem = case("skip", 3, untied=rule == "vf")
    twice = problem._replace(x=problem.x.repeat(2, axis=0), y=problem.y.repeat(2, axis=0))
    dynamics, rates = SETTINGS["outside"][1], (ETA,) * 5
    expected = learn(learner(rule, Centered(0.4), rates), dynamics, problem)
    assert_close(learn(learner(rule, MixedSign(0.4), rates), dynamics, twice), expected)


@pytest.mark.parametrize("rule", ["ep", "vf"])
def test_mixed_signs_cancel_what_moving_weights_add_for_a_small_beta(rule: str) -> None:
    """Continual updates over eta differ from those after the phase by O(eta / beta); where each
    example is there twice, nudged one each way, by O(eta).
    """
    problem = case("chain", 3, untied=rule == "vf")
    twice = problem._replace(x=problem.x.repeat(2, axis=0), y=problem.y.repeat(2, axis=0))

    def gap(nudge: Nudge, eta: float = 1e-6) -> float:
        still, moving = (
            learn(learner(name, nudge, (eta,) * 3), SETTINGS["outside"][1], twice, steps=1000)
            for name in (rule, f"c-{rule}")
        )
        changes = jax.tree.map(lambda a, b: jnp.abs(a - b).max() / eta**2, still, moving)
        return float(max(jax.tree.leaves(changes)))

    coarse, fine = 0.02, 0.01
    assert gap(OneSided(fine)) / gap(OneSided(coarse)) == pytest.approx(2, rel=0.05)
    assert gap(MixedSign(fine)) / gap(MixedSign(coarse)) == pytest.approx(1, rel=0.05)
    assert gap(MixedSign(fine)) < 0.1 * gap(OneSided(fine))


class _Own(Increment):
    """EP's, but not known to be."""

    def edge(self, edge, pre, post):
        return Equilibrium().edge(edge, pre, post)


class _Important(Nudge):
    """One-sided, where some examples count for more and some for nothing."""

    beta: float

    def stencil(self, key):
        return self.of_batch(key, 1)

    def of_batch(self, key, rows):
        weights = jnp.arange(rows) % 3.0 / self.beta
        return Stencil(jnp.full((1, rows), self.beta), weights[None], -weights)


def test_examples_that_count_for_more_do_so_with_any_increment() -> None:
    """What each asks for alone, times what it counts for."""
    network = make_network([5, 4, 3], [(0, 1), (1, 2)], 0)
    problem = make_problem(network, SETTINGS["inside"][1], (T, K), batch=5)
    key, (x, y) = jax.random.key(0), problem.batch

    def updates(rule: AfterPhase, rows: slice) -> list[np.ndarray]:
        found = rule.update(problem.system, network, x[rows], y[rows], key)[0]
        return [np.asarray(leaf) for leaf in jax.tree.leaves(found)]

    alone = [updates(AfterPhase(Equilibrium(), OneSided(0.1)), slice(n, n + 1)) for n in range(5)]
    for increment in (_Own(), Equilibrium()):
        together = updates(AfterPhase(increment, _Important(0.1)), slice(5))
        for n, found in enumerate(together):
            wanted = sum(count % 3 * one[n] for count, one in enumerate(alone)) / 5
            np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_the_sign_that_a_single_example_is_nudged_by_is_drawn() -> None:
    keys = [jax.random.key(seed) for seed in range(12)]
    assert {float(MixedSign(0.4).of_batch(key, 1).betas[0, 0]) for key in keys} == {
        float(jnp.float64(0.4)),
        -float(jnp.float64(0.4)),
    }


def test_the_vector_field_with_equal_weights_tends_to_ep_as_beta_does_to_0() -> None:
    """Sum of both directions against the tied rule: the difference is O(beta)."""
    problem = case("chain", 3, untied=False)
    dynamics = SETTINGS["energy"][1]

    def gap(beta: float) -> float:
        # From a free phase that has settled: the drift of any other is divided by beta.
        ep, vf = (
            learn(learner(rule, OneSided(beta), (1.0,) * 3), dynamics, problem, steps=1000)
            for rule in ("ep", "vf")
        )
        return float(optax.tree.norm(jax.tree.map(jnp.subtract, ep, vf)))

    assert gap(1e-3) / gap(1e-4) == pytest.approx(10, rel=0.05)


@pytest.mark.parametrize("setting", ["outside", "energy"])
def test_continual_ep_tends_to_ep_as_eta_does_to_0(setting: str) -> None:
    """The totals per eta differ by O(eta): order 1."""
    problem = case("chain", 3, untied=False)
    dynamics = SETTINGS[setting][1]

    def total(rule: str, eta: float) -> Network:
        new = learn(learner(rule, OneSided(0.4), (eta,) * 3), dynamics, problem)
        return jax.tree.map(lambda a, b: (a - b) / eta, new, problem.ours)

    def gap(eta: float) -> float:
        a, b = total("c-ep", eta), total("ep", eta)
        return float(optax.tree.norm(jax.tree.map(jnp.subtract, a, b)))

    order = np.log10(gap(1e-3) / gap(1e-4))
    assert order == pytest.approx(1, abs=0.02)


def test_low_rank_forms_are_used_where_they_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    advance = LowRank.advance
    monkeypatch.setattr(
        LowRank, "advance", lambda self, *args: used.append(self.pre) or advance(self, *args)
    )
    dynamics = SETTINGS["outside"][1]
    for rows, expected in ((1, {1}), (3, set())):
        used.clear()
        learn(
            learner("c-ep", OneSided(0.4), (ETA,) * 3), dynamics, case("chain", rows, untied=False)
        )
        assert set(used) == expected


def test_continual_rules_read_nothing_of_the_free_phase() -> None:
    """Local in time: no argument carries a free phase, whose states are no more than where it
    starts.

    The phase restarted halfway, from nothing but its own parameters and states, is the same phase.
    """
    names = list(inspect.signature(continual_phase).parameters)
    assert names == ["system", "increment", "network", "states", "batch", "strengths"]

    problem = case("chain", 1, untied=False)
    dynamics, eta = SETTINGS["outside"][1], jnp.full(3, ETA)
    start = system(dynamics).free(
        problem.ours.clamp(jnp.asarray(problem.x)), jnp.asarray(problem.x)
    )
    rates = (jnp.asarray(0.4), eta)

    def run(network: Network, states, steps: int):
        part = System(dynamics, SquaredError(), FixedSteps(T), steps)
        return continual_phase(part, Equilibrium(), network, states, problem.batch, rates)

    whole, whole_states = run(problem.ours, start[0], 6)
    half, half_states = run(problem.ours, start[0], 3)
    again, again_states = run(half, half_states, 3)
    assert_close((again, again_states), (whole, whole_states))


def test_learning_rates_scale_the_output_of_the_optimizer() -> None:
    """Adam and weight decay: two batches against Optax run by hand on the EP update."""
    problem, dynamics = case("chain", 3, untied=False), SETTINGS["outside"][1]
    rule, rates = AfterPhase(Equilibrium(), OneSided(0.4)), (0.1, 0.2, 0.3)
    optimizer = optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(0.01))
    ours = WithOptimizer(rule, rates, optimizer)

    network, memory = problem.ours, ours.init(problem.ours)
    expected: Any = problem.ours
    state = optimizer.init(expected)
    for seed in range(2):
        key = jax.random.key(seed)
        network, memory, _ = ours.learn(system(dynamics), network, memory, problem.batch, key)
        update, _ = rule.update(system(dynamics), expected, *problem.batch, key)
        step: Any
        step, state = optimizer.update(jax.tree.map(jnp.negative, update), state, expected)
        moved = [
            jax.tree.map(lambda w, d, rate=rate: w - rate * d, edge, d)
            for edge, d, rate in zip(expected.edges, step.edges, rates, strict=True)
        ]
        expected = expected.replace_edges(moved)
    assert_close(network, expected)


@pytest.mark.parametrize("on_a_device", [False, True])
@pytest.mark.parametrize("name", ["ep", "c-ep"])
def test_a_schedule_is_a_factor_on_all_rates(name: str, on_a_device: bool) -> None:
    """Minibatch n is learnt as with half as large rates as the one before it."""
    problem, at = case("chain", 3, untied=False), system(SETTINGS["outside"][1])
    rates = (0.1, 0.2, 0.3)
    # A device that takes any change.
    device = Device(w_max=50.0, w_min=-50.0)
    writing = pulsed(device, problem.ours) if on_a_device else None

    def made(factor: float, schedule: Any) -> Learner:
        own = tuple(factor * rate for rate in rates)
        if name == "c-ep":
            return Continual(Equilibrium(), OneSided(0.4), own, schedule, writing=writing)
        rule = AfterPhase(Equilibrium(), OneSided(0.4))
        return WithOptimizer(rule, own, optax.identity(), schedule, writing=writing)

    @eqx.filter_jit
    def step(learner: Learner, network: Network, memory: Any, key: jax.Array) -> Any:
        return learner.learn(at, network, memory, problem.batch, key)

    ours = made(1.0, lambda count: 0.5**count)
    network = expected = problem.ours
    memory = ours.init(network)
    for n in range(3):
        plain, key = made(0.5**n, constant), jax.random.key(n)
        network, memory, _ = step(ours, network, memory, key)
        expected, _, _ = step(plain, expected, plain.init(expected), key)
    assert_close(network, expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OneSided(0.0), "beta is 0.0"),
        (lambda: Centered(float("nan")), "beta is nan"),
        (lambda: MixedSign(0.0), "beta is 0.0.*not 0"),
        (lambda: RandomSign(0.1, 1.5), "probability of a positive beta is 1.5.*from 0 to 1"),
        (lambda: FixedSteps(0), "free steps T is 0: it must be at least 1"),
        (lambda: EnergyBased(jnp.tanh, -0.1), "dt is -0.1"),
        (lambda: activation("relu"), "unknown activation 'relu': choose one of sigm"),
        (lambda: learner("ep", OneSided(0.1), (0.1, -1.0)), r"learning rates \(0.1, -1.0\)"),
        (lambda: learner("c-ep", Centered(0.1), (0.1,)), "Centered has several.*one-sided"),
        (
            lambda: System(Prototypical(jnp.tanh), SquaredError(), FixedSteps(1), 0),
            "nudged steps K is 0",
        ),
        (
            lambda: learner("ep", OneSided(0.1), (0.1,)).init(
                chain([(3,), (4,), (2,)], jax.random.key(0))
            ),
            r"1 learning rate\(s\) \(0.1,\) for 2 sets of weights",
        ),
    ],
)
def test_bad_values(make, message: str) -> None:
    with pytest.raises(EqpropError, match=message):
        make()


def test_nudged_sweeps() -> None:
    """Even layers, then odd ones, by hand; and after many the fixed point of synchronous steps."""
    problem, beta = case("chain", 3, untied=False), 0.3
    (w1, w2, w3), (b1, b2, b3), _ = problem.theirs.params
    dynamics = Prototypical(activation("sigm"))

    def sigm(v: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-4 * (v - 0.5)))

    def nudged(steps: int, *, sweeps: bool) -> tuple[np.ndarray, ...]:
        x, y = problem.batch
        part = System(dynamics, SquaredError(), FixedSteps(1), steps, nudged_sweeps=sweeps)
        start = problem.ours.zeros(3)
        ends = part.nudged(part.clamp(problem.ours, x), x, y, jnp.asarray(beta), start)
        return tuple(np.asarray(s) for s in ends)

    s1, s2, s3 = (np.zeros((3, n)) for n in SIZES[1:])
    for _ in range(K):
        s2 = sigm(s1 @ w2 + b2 + s3 @ w3.T)
        s1, s3 = (
            sigm(problem.x @ w1 + b1 + s2 @ w2.T),
            sigm(s2 @ w3 + b3) + beta * (problem.y - s3),
        )
    for ours, theirs in zip(nudged(K, sweeps=True), (s1, s2, s3), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)
    for fast, slow in zip(nudged(200, sweeps=True), nudged(400, sweeps=False), strict=True):
        np.testing.assert_allclose(fast, slow, rtol=1e-10)


@pytest.mark.parametrize("rule", ["c-ep", "c-vf"])
@pytest.mark.parametrize("rows", [2, 9])  # few rows move large matrices by low rank
def test_continual_shortcuts_hold_in_nudged_sweeps(rule: str, rows: int) -> None:
    problem = case("chain", rows, untied=rule == "c-vf")
    part = System(
        Prototypical(activation("sigm")), SquaredError(), FixedSteps(T), K, nudged_sweeps=True
    )
    beta, eta = jnp.asarray(0.3), jnp.full(3, ETA)
    clamped = part.clamp(problem.ours, problem.batch[0])
    start, _ = part.free(clamped, problem.batch[0])
    ours, ends = continual_phase(
        part, RULES[rule][0], problem.ours, start, problem.batch, (beta, eta)
    )
    network, states = problem.ours, start
    for _ in range(K):
        network, states, _ = continual_step(
            part, RULES[rule][0], network, states, problem.batch, (beta, eta)
        )
    for a, b in zip(jax.tree.leaves((ours, ends)), jax.tree.leaves((network, states)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)
    moved = jax.tree.map(jnp.subtract, ours, problem.ours)
    assert all(float(jnp.max(jnp.abs(leaf))) > 1e-4 for leaf in jax.tree.leaves(moved.edges[0]))
