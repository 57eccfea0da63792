"""Skip and lateral connections: Phi by autodiff, Theorem 1, and continual and untied rules."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import known, make_problem

from eqprop.dynamics.activations import sigm, tanh
from eqprop.dynamics.nudges import Centered
from eqprop.dynamics.relaxation import iterate
from eqprop.dynamics.step import Dynamics, EnergyBased, Prototypical
from eqprop.errors import EqpropError
from eqprop.learning.continual import continual_phase, continual_step
from eqprop.learning.increments import Equilibrium, Increment, VectorField
from eqprop.learning.learners import WithOptimizer
from eqprop.learning.rules import AfterPhase
from eqprop.networks.connections import Dense, Lateral
from eqprop.networks.convolution import AveragePool, conv, conv_shape, shortcut
from eqprop.networks.graphs import Link, chain, graph, in_a_row
from eqprop.networks.model import Model
from eqprop.networks.network import Network
from eqprop.theorem.curves import Problem
from eqprop.theorem.verification import Plan, verify
from eqprop.types import Shape

pytestmark = pytest.mark.usefixtures("x64", "quick_compilation")

KEY = jax.random.key(0)
PLAIN = functools.partial(Dense.init, bias=False)
ROW = in_a_row([Dense.init] * 3)
# Under max-pooling some nets never settle: two units of a window win in turn.
POOL = AveragePool(2)
DENSE: list[Shape] = [(6,), (5,), (4,), (3,)]
LATERAL = [(n, n, Lateral.init) for n in (1, 2, 3)]
# From 4x4 maps of 2 channels over 4x4 of 3 and 2x2 of 4 to 1x1 of 5, and 3 outputs.
MAPS: list[Shape] = [(4, 4, 2), (4, 4, 3), (2, 2, 4), (1, 1, 5), (3,)]
CONVS = in_a_row([conv(3, padding=1), *[conv(3, padding=1, pool=POOL)] * 2, Dense.init])
SAME = conv(3, padding=1, bias=False)

GRAPHS: dict[str, tuple[list[Shape], list[Link]]] = {
    "dense": (DENSE, [*ROW, (0, 2, PLAIN), (1, 3, PLAIN), (0, 3, PLAIN), *LATERAL]),
    "maps": (
        MAPS,
        [*CONVS, (1, 3, shortcut), (2, 4, shortcut), (1, 1, SAME), (2, 2, Lateral.init)],
    ),
}


def network(name: str, scale: float = 1.0, angle: float | None = None) -> Network:
    made = graph(*GRAPHS[name], KEY, angle=angle)
    return jax.tree.map(lambda leaf: scale * leaf.astype(float), made)


def rates(net: Network, seed: int = 1) -> tuple[jax.Array, ...]:
    generator = np.random.default_rng(seed)
    return tuple(jnp.asarray(generator.normal(size=(2, *shape))) for shape in net.shapes)


def assert_close(a, b, tolerance: float = 1e-11) -> None:
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=0, atol=tolerance), a, b)


@pytest.mark.parametrize("name", GRAPHS)
def test_drives_and_statistics_are_the_gradients_of_phi(name: str) -> None:
    net = network(name)

    @jax.jit
    def found(net: Network, r):
        statistics = [e.statistic(r[e.pre], r[e.post]) for e in net.edges]
        return net.drives(r), net.replace_edges(statistics)

    @jax.jit
    def expected(net: Network, r):
        by_network, by_rates = jax.grad(Network.phi, (0, 1))(net, r)
        return by_rates[1:], by_network

    assert_close(found(net, rates(net)), expected(net, rates(net)))


def test_a_lateral_connection_is_half_a_symmetric_form_without_diagonal() -> None:
    lateral = Lateral(jnp.asarray(np.random.default_rng(0).normal(size=(5, 5))))
    couplings = np.zeros((5, 5))
    for i, j in itertools.combinations(range(5), 2):
        couplings[i, j] = couplings[j, i] = lateral.weight[i, j]
    r = jnp.asarray(np.random.default_rng(1).normal(size=(3, 5)))
    assert_close(jnp.sum(r * lateral(r)), 0.5 * np.einsum("bi,ij,bj->", r, couplings, r))
    assert_close(lateral(r) + lateral.feedback(r, r), r @ couplings)
    # The derivative of that form in the one number that couples a pair, from differences.
    statistic = lateral.statistic(r, r).weight
    for i, j in np.ndindex(5, 5):
        moved = couplings.copy()
        if i != j:
            moved[[i, j], [j, i]] += 1
        change = 0.5 * np.einsum("bi,ij,bj->", r, moved - couplings, r)
        assert_close(statistic[i, j], change if i < j else 0.0)
    # A unit gets nothing of itself.
    assert_close(jnp.diagonal(jax.jacobian(lambda v: lateral(v[None])[0])(r[0])), np.zeros(5))


def test_untied_lateral_connections_have_a_weight_for_each_direction() -> None:
    edge = network("dense", angle=60.0).edges[-2]
    r, d = (jnp.asarray(np.random.default_rng(n).normal(size=(3, 4))) for n in (1, 2))
    couplings = np.triu(edge.ahead.weight, 1) + np.triu(edge.back.weight, 1).T
    assert not np.allclose(couplings, couplings.T)
    assert_close(edge.forward(r) + edge.feedback(r, r), r @ couplings)
    moved = edge.vector_field(r, d, r, d)
    assert_close(moved.ahead.weight, np.triu(r.T @ d, 1))
    assert_close(moved.back.weight, np.triu(d.T @ r, 1))


def problem(
    name: str, dynamics: Dynamics, steps: tuple[int, int], angle: float | None = None
) -> Problem:
    # Weak enough to settle.
    return make_problem(network(name, 0.35, angle), dynamics, steps, batch=2)


def assert_follows_bptt(setup: Problem, increment: Increment) -> list[str]:
    """The names of all parameters, whose updates approach the gradients as beta does 0."""
    found = verify(setup, increment, Plan((1e-4, 1e-5)))
    assert found.settling.settled
    names: list[str] = []
    for trial in found.beta_trials:
        tensors = [t for t in trial.comparison.tensors if not t.name.startswith("s")]
        names = [t.name for t in tensors]
        for tensor in tensors:
            floor = trial.floors[tensor.name]
            assert known(tensor.relmse) < 50 * trial.beta + 3 * floor < 1e-2, tensor
    return names


@pytest.mark.parametrize(
    ("name", "dynamics"),
    [
        ("dense", EnergyBased(tanh, 0.3)),
        ("dense", Prototypical(sigm, inside=True)),
        ("maps", EnergyBased(tanh, 0.3)),
    ],
)
def test_theorem_1(name: str, dynamics: Dynamics) -> None:
    names = assert_follows_bptt(problem(name, dynamics, (400, 10)), Equilibrium())
    assert {"W1->3", "W2->2"} < set(names)


def test_theorem_1_for_vector_fields_at_angle_0() -> None:
    setup = problem("dense", EnergyBased(tanh, 0.3), (400, 10), angle=0.0)
    assert {"W2->2", "Wb2->2", "Wb1->3"} < set(assert_follows_bptt(setup, VectorField()))


@pytest.mark.parametrize("increment", [Equilibrium(), VectorField()], ids=["c-ep", "c-vf"])
def test_continual_phases_are_continual_steps(increment: Increment) -> None:
    angle = None if isinstance(increment, Equilibrium) else 30.0
    system, net, batch = problem("dense", Prototypical(sigm), (20, 4), angle)
    at = (jnp.asarray(0.3), jnp.linspace(0.1, 0.3, len(net.edges)))

    @jax.jit
    def found(net: Network, s):
        return continual_phase(system, increment, net, s, batch, at)

    @jax.jit
    def expected(net: Model, s):
        for _ in range(system.nudged_steps):
            net, s, _ = continual_step(system, increment, net, s, batch, at)
        return net, s

    clamped = system.clamp(net, batch[0])
    s = iterate(system.free_step(clamped, batch[0]), clamped.zeros(2), 20)
    assert_close(found(net, s), expected(net, s))


def test_lateral_weights_stay_above_the_diagonal_while_they_learn() -> None:
    system, net, batch = problem("dense", Prototypical(sigm), (30, 6))
    learner = WithOptimizer(
        AfterPhase(Equilibrium(), Centered(0.3)), (0.5,) * len(net.edges), optax.scale_by_adam()
    )
    learn = jax.jit(lambda n, m: learner.learn(system, n, m, batch, KEY))
    moved, memory = net, learner.init(net)
    for _ in range(3):
        moved, memory, _ = learn(moved, memory)
    before, after = (n.edges[-2].connection.weight for n in (net, moved))
    assert np.all(np.asarray(before != after) == np.triu(np.ones((4, 4)), 1))


def test_a_chain_is_a_graph_in_a_row() -> None:
    shapes, builds = MAPS, [build for *_, build in CONVS]
    for angle in (None, 40.0):
        assert_close(
            chain(shapes, KEY, builds, angle=angle), graph(shapes, CONVS, KEY, angle=angle), 0
        )


@pytest.mark.parametrize(
    ("links", "message"),
    [
        ([(0, 4, Dense.init)], "a link 0->4 in a network whose layers run from 0, the input, to 3"),
        ([(1, 0, Dense.init)], "a link 1->0"),
        ([*ROW, (1, 2, Lateral.init)], r"lateral connections from a layer \(5,\) to one of \(4,\)"),
        ([], "layer 1 has no connection"),
    ],
)
def test_links_that_do_not_fit(links: list[Link], message: str) -> None:
    with pytest.raises(EqpropError, match=message):
        graph(DENSE, links, KEY)


def test_a_layer_that_only_sends_receives_nothing() -> None:
    links = [(0, 2, Dense.init), (1, 2, Dense.init)]
    with pytest.raises(EqpropError, match="layer 1 has no connection"):
        graph([(3,), (4,), (2,)], links, KEY, feedback="none")
    graph([(3,), (4,), (2,)], links, KEY)  # feedback is something


def test_a_shortcut_that_no_window_makes() -> None:
    with pytest.raises(EqpropError, match=r"makes of a layer \(9, 7, 2\) one of \(4, 3, 5\)"):
        shortcut((9, 7, 2), (4, 4, 5), KEY)
    with pytest.raises(EqpropError, match=r"a skip from a layer \(6,\) to one of \(4, 4, 5\)"):
        shortcut((6,), (4, 4, 5), KEY)
    assert conv_shape((9, 9, 2), 5, 1, pool=POOL) == (4, 4, 5)
    assert shortcut((9, 9, 2), (4, 4, 5), KEY)(jnp.ones((1, 9, 9, 2))).shape == (1, 4, 4, 5)
