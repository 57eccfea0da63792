"""Convolutional connections against XLA's convolutions and window reductions, and autodiff of them.

The convolutional reference vectors are in ``test_reference_vectors.py``.
"""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from eqprop.devices.feedback import with_copies
from eqprop.devices.record import Device
from eqprop.dynamics.activations import hardsigm, sigm, tanh
from eqprop.dynamics.costs import SquaredError
from eqprop.dynamics.nudges import Centered, OneSided
from eqprop.dynamics.relaxation import FixedSteps, iterate
from eqprop.dynamics.step import EnergyBased, Prototypical
from eqprop.dynamics.system import System
from eqprop.errors import EqpropError
from eqprop.learning.continual import continual_phase, continual_step
from eqprop.learning.increments import Equilibrium, VectorField
from eqprop.learning.rules import AfterPhase
from eqprop.networks.connections import Dense
from eqprop.networks.convolution import AveragePool, Conv, MaxPool, NoPool, Pool, conv, conv_shape
from eqprop.networks.edges import Tied, Untied
from eqprop.networks.fast_convolution import convolve
from eqprop.networks.graphs import Build, chain
from eqprop.networks.network import Network
from eqprop.types import Shape

pytestmark = pytest.mark.usefixtures("x64")

KEY = jax.random.key(0)
OTHER_POOLS: list[Pool] = [NoPool(), MaxPool(3), AveragePool(2)]
# Kernel, stride, padding, channels; eight channels and more at stride 1 go through tiles.
GEOMETRIES = [
    ((5, 5), (1, 1), (0, 0), (8, 9)),
    ((3, 3), (1, 1), (1, 1), (9, 8)),
    ((4, 2), (1, 1), (0, 1), (8, 8)),
    ((9, 1), (1, 1), (2, 0), (8, 8)),
    ((5, 5), (1, 1), (0, 0), (1, 3)),
    ((3, 2), (2, 1), (1, 0), (3, 2)),
    ((1, 1), (1, 1), (0, 0), (2, 3)),
    ((3, 3), (2, 3), (0, 2), (8, 8)),
]


def draw(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def naive_conv(x: jax.Array, w: jax.Array, stride=(1, 1), padding=(0, 0)) -> jax.Array:
    pads = [(p, p) for p in padding]
    return lax.conv_general_dilated(x, w, stride, pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def naive_pool(maps: jax.Array, pool: Pool) -> jax.Array:
    window = (1, pool.size, pool.size, 1)
    if isinstance(pool, MaxPool):
        return lax.reduce_window(maps, -jnp.inf, lax.max, window, window, "VALID")
    return lax.reduce_window(maps, 0.0, lax.add, window, window, "VALID") / pool.size**2


def naive_drive(connection: Conv, x: jax.Array) -> jax.Array:
    maps = naive_conv(x, connection.weight, connection.stride, connection.padding)
    bias = 0.0 if connection.bias is None else connection.bias
    return naive_pool(maps + bias, connection.pool)


def close(value, expected, tolerance: float = 1e-11) -> None:
    for a, b in zip(jax.tree.leaves(value), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def make(geometry, pool: Pool) -> tuple[Conv, jax.Array, jax.Array]:
    """A connection, and rates on both sides of it."""
    taps, stride, padding, (c_in, c_out) = geometry
    connection = Conv(draw(1, *taps, c_in, c_out), draw(2, c_out), stride, padding, pool)
    pre = (11, 12, c_in)
    post = conv_shape(pre, c_out, taps, stride, padding, pool)
    return connection, draw(3, 2, *pre), draw(4, 2, *post)


@pytest.mark.parametrize(
    ("geometry", "pool"),
    [*((g, MaxPool(2)) for g in GEOMETRIES), *itertools.product(GEOMETRIES[1:6:4], OTHER_POOLS)],
    ids=str,
)
def test_drive_feedback_and_statistics_are_those_of_xla(geometry, pool: Pool) -> None:
    connection, r_pre, r_post = make(geometry, pool)
    d_pre = draw(5, *r_pre.shape)

    def phi(connection, x):
        return jnp.sum(r_post * naive_drive(connection, x))

    def feedback_phi(connection):
        return jnp.sum(d_pre * jax.grad(phi, 1)(connection, r_pre))

    @jax.jit
    def found(c):
        return (
            c(r_pre),
            c.feedback(r_pre, r_post),
            c.statistic(r_pre, r_post),
            c.feedback_statistic(r_pre, d_pre, r_post),
        )

    @jax.jit
    def expected(c):
        return (
            naive_drive(c, r_pre),
            *jax.grad(phi, (1, 0))(c, r_pre),
            jax.grad(feedback_phi)(c),
        )

    close(found(connection), expected(connection))


@pytest.mark.parametrize("taps", [(2, 5), (6, 7), (8, 3)], ids=str)
@pytest.mark.parametrize(("shape", "padding"), [((8, 8), (0, 0)), ((13, 9), (3, 1))], ids=str)
def test_tiles_of_every_size(taps, shape, padding) -> None:
    x, w = draw(1, 2, *shape, 8), draw(2, *taps, 8, 8)
    tiles = jax.jit(lambda x, w: convolve(x, w, (1, 1), padding))(x, w)
    close(tiles, naive_conv(x, w, (1, 1), padding), 1e-12)


def test_complex_rates_are_convolved_by_their_parts() -> None:
    connection, real, _ = make(GEOMETRIES[0], AveragePool(2))
    imaginary = draw(6, *real.shape)
    parts = connection(real) + 1j * (connection(imaginary) - connection.bias)
    close(connection(real + 1j * imaginary), parts)


def test_rounding_in_single_precision() -> None:
    x, w = draw(1, 4, 12, 12, 32), draw(2, 5, 5, 32, 64)
    exact = naive_conv(x, w)
    rounded = convolve(x.astype(jnp.float32), w.astype(jnp.float32), (1, 1), (0, 0))
    assert rounded.dtype == jnp.float32
    assert float(jnp.std(rounded - exact) / jnp.std(exact)) < 4e-6


def test_a_kernel_of_one_tap_is_one_product() -> None:
    x, w = draw(0, 4, 9, 9, 16), draw(1, 1, 1, 16, 16)
    one = convolve(x, w, (1, 1), (0, 0))
    np.testing.assert_array_equal(one, (x.reshape(-1, 16) @ w[0, 0]).reshape(one.shape))


@pytest.mark.parametrize("geometry", [GEOMETRIES[0], GEOMETRIES[4]], ids=["tiles", "patches"])
def test_replicas_by_vmap(geometry) -> None:
    connection, r_pre, r_post = make(geometry, MaxPool(2))
    scales = jnp.asarray([1.0, -0.5, 2.0])
    replicas = jax.vmap(lambda a: jax.tree.map(lambda leaf: a * leaf, connection))(scales)
    feedback = jax.jit(lambda c: c.feedback(r_pre, r_post))
    found = jax.jit(jax.vmap(feedback))(replicas)
    for n, a in enumerate(scales):
        close(found[n], feedback(jax.tree.map(lambda leaf, a=a: a * leaf, connection)))


# ------------------------------------------------------------------------------------------- ties


def first_of_windows(size: int) -> Callable[[jax.Array], jax.Array]:
    """What a max-pool does where all units of every window are equal."""
    return lambda maps: maps[:, ::size, ::size]


def test_a_window_of_equals_sends_its_cotangent_to_the_first() -> None:
    maps, cotangent = jnp.ones((2, 6, 6, 3)), draw(1, 2, 3, 3, 3)
    pooled, vjp = jax.vjp(MaxPool(2), maps)
    close(pooled, jnp.ones((2, 3, 3, 3)))
    close(vjp(cotangent), jax.vjp(first_of_windows(2), maps)[1](cotangent))


def test_the_later_of_two_largest_receives_nothing() -> None:
    window = jnp.asarray([[1.0, 3.0], [3.0, 2.0]]).reshape(1, 2, 2, 1)
    _, vjp = jax.vjp(MaxPool(2), window)
    close(vjp(jnp.ones((1, 1, 1, 1)))[0].ravel(), jnp.asarray([0.0, 1.0, 0.0, 0.0]))


@pytest.mark.parametrize("geometry", [GEOMETRIES[0], GEOMETRIES[4]], ids=["tiles", "patches"])
def test_feedback_and_statistics_agree_on_ties(geometry) -> None:
    connection, r_pre, r_post = make(geometry, MaxPool(2))
    w = connection.weight

    def phi(w, x):  # the drive that ties must have: a linear one, of the first units alone
        pooled = first_of_windows(2)(naive_conv(x, w)[:, : 2 * h, : 2 * v])
        return jnp.sum(r_post * pooled)

    h, v = r_post.shape[1:3]
    silent = jnp.zeros_like(r_pre)
    close(connection.feedback(silent, r_post), jax.grad(phi, 1)(w, silent))
    nothing = Conv(jnp.zeros_like(w), connection.bias, pool=MaxPool(2))
    close(nothing.statistic(r_pre, r_post).weight, jax.grad(phi)(jnp.zeros_like(w), r_pre))
    found = nothing.feedback_statistic(r_pre, r_pre, r_post).weight
    close(found, jax.grad(phi)(jnp.zeros_like(w), r_pre))


# ------------------------------------------------------------------------------ shapes and errors


def test_shapes_round_down_and_what_is_left_over_does_nothing() -> None:
    assert conv_shape((28, 28, 1), 32, 5, pool=MaxPool(2)) == (12, 12, 32)
    assert conv_shape((11, 12, 1), 4, (3, 4), (2, 1), (1, 0), AveragePool(2)) == (3, 4, 4)
    connection = Conv(draw(1, 1, 1, 1, 1), pool=AveragePool(2))
    feedback = connection.feedback(draw(2, 1, 5, 5, 1), jnp.ones((1, 2, 2, 1)))
    assert not jnp.any(feedback[:, 4])
    assert not jnp.any(feedback[:, :, 4])
    assert jnp.all(feedback[:, :4, :4] != 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((28, 28), 8, 5), r"\(28, 28\).*height, width, channels"),
        (((4, 28, 1), 8, 5), r"5x5.*\(4, 28, 1\).*0x24"),
        (((6, 6, 1), 8, 5, 1, 0, MaxPool(3)), r"5x5.*MaxPool\(3\).*\(6, 6, 1\).*2x2"),
        (((28, 28, 1), 0, 5), "channels of 0"),
        (((28, 28, 1), 8, 0), "kernel of 0"),
        (((28, 28, 1), 8, 5, 0), "stride of 0"),
        (((28, 28, 1), 8, 5, 1, (0, -1)), r"padding of \(0, -1\)"),
    ],
)
def test_sizes_that_do_not_fit(arguments, message: str) -> None:
    with pytest.raises(EqpropError, match=message):
        conv_shape(*arguments)


@pytest.mark.parametrize("pool", [MaxPool, AveragePool])
def test_a_window_of_nothing(pool) -> None:
    with pytest.raises(EqpropError, match="window of 0"):
        pool(0)


def test_layers_that_do_not_fit_their_convolution() -> None:
    with pytest.raises(EqpropError, match=r"5x5.*\(28, 28, 1\).*\(12, 12, 32\).*\(11, 11, 32\)"):
        chain([(28, 28, 1), (11, 11, 32)], KEY, [conv(5, pool=MaxPool(2))])
    edge = Tied(0, 1, Conv(draw(1, 3, 3, 2, 4)))
    with pytest.raises(EqpropError, match=r"2 channels.*\(6, 6, 3\)"):
        Network(((6, 6, 3), (4, 4, 4)), (edge,))
    with pytest.raises(EqpropError, match=r"\(4, 4, 4\).*\(3, 4, 4\)"):
        Network(((6, 6, 2), (3, 4, 4)), (edge,))


def test_initial_parameters_are_uniform_in_the_fan_in() -> None:
    connection = conv((5, 4), pool=MaxPool(2))((14, 14, 3), (5, 5, 200), KEY)
    bound = (5 * 4 * 3) ** -0.5
    for leaf in (connection.weight, jnp.asarray(connection.bias)):
        assert 0.9 * bound < float(jnp.max(jnp.abs(leaf))) <= bound
        assert abs(float(jnp.mean(leaf))) < 0.1 * bound
    assert conv(3, bias=False)((8, 8, 2), (6, 6, 2), KEY).bias is None


# --------------------------------------------------------------------------------------- networks


def small(*, angle: float | None = None) -> Network:
    """Convolutions in patches, in tiles, and a dense layer."""
    shapes: list[Shape] = [(14, 14, 1), (6, 6, 8)]
    shapes += [conv_shape(shapes[1], 9, 3, 1, 1, MaxPool(2)), (4,)]
    builds: list[Build] = [conv(3, pool=AveragePool(2)), conv(3, 1, 1, MaxPool(2)), Dense.init]
    network = chain(shapes, KEY, builds, angle=angle)
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), network)


def batch(rows: int = 3) -> tuple[jax.Array, jax.Array]:
    generator = np.random.default_rng(7)
    x = jnp.asarray(generator.uniform(size=(rows, 14, 14, 1)))
    return x, jnp.eye(4)[generator.integers(4, size=rows)]


def naive(connection, r_pre: jax.Array) -> jax.Array:
    """The drive of a connection, by XLA alone."""
    if isinstance(connection, Conv):
        return naive_drive(connection, r_pre)
    drive = r_pre.reshape(len(r_pre), -1) @ connection.weight
    return drive if connection.bias is None else drive + connection.bias


def naive_feedback(ahead, back, r_pre: jax.Array, r_post: jax.Array) -> jax.Array:
    """By weights of its own, but through the units that win in the forward drive."""
    if not isinstance(ahead, Conv):
        return jax.vjp(lambda r: naive(back, r), r_pre)[1](r_post)[0]
    maps = naive_conv(r_pre, ahead.weight, ahead.stride, ahead.padding)
    unpooled = jax.vjp(lambda m: naive_pool(m, ahead.pool), maps)[1](r_post)[0]
    convolution = jax.vjp(lambda r: naive_conv(r, back.weight, back.stride, back.padding), r_pre)[1]
    return convolution(unpooled)[0]


def naive_phi(connections, rates) -> jax.Array:
    terms = zip(connections, rates[:-1], rates[1:], strict=True)
    return jnp.sum(jnp.stack([jnp.sum(r_post * naive(c, r_pre)) for c, r_pre, r_post in terms]))


def test_the_statistic_of_a_network_is_the_gradient_of_phi() -> None:
    network = small()
    rates = tuple(draw(n, 3, *shape) for n, shape in enumerate(network.shapes))
    connections = [e.connection for e in network.edges]
    expected = jax.jit(jax.grad(lambda c: naive_phi(c, rates)))(connections)
    close(jax.jit(jax.grad(lambda n: n.phi(rates)))(network), expected)
    statistics = jax.jit(lambda n: [e.statistic(rates[e.pre], rates[e.post]) for e in n.edges])
    close(statistics(network), expected)


def test_bptt_through_a_step_is_that_through_a_naive_network() -> None:
    network, (x, y) = small(), batch()
    dynamics = Prototypical(sigm)

    def loss(network, step) -> jax.Array:
        return jnp.sum((y - iterate(lambda s: step(network, s), network.zeros(3), 5)[-1]) ** 2)

    def naive_step(network, states):
        def phi(states):
            return naive_phi([e.connection for e in network.edges], (x, *states))

        return tuple(sigm(drive) for drive in jax.grad(phi)(states))

    found = jax.jit(jax.grad(lambda n: loss(n, lambda n, s: dynamics.step(n, x, s))))(network)
    close(found, jax.jit(jax.grad(lambda n: loss(n, naive_step)))(network))


@pytest.mark.parametrize("kind", ["tied", "untied", "copied"])
def test_clamping_prepares_kernels_and_changes_neither_drives_nor_gradients(kind: str) -> None:
    network, (x, _) = small(angle=60.0 if kind == "untied" else None), batch()
    if kind == "copied":
        network = with_copies(network, Device(feedback_spread=0.3))
    clamped = network.clamp(x)
    states, pulls = (
        tuple(draw(seed, 3, *shape) for shape in network.shapes[1:]) for seed in (1, 2)
    )

    def drives(network: Network):
        return network.drives((x, *states))

    found, back = jax.vjp(drives, clamped)
    expected, pull = jax.vjp(drives, network)
    close(found, expected)
    close(network.unclamped(back(pulls)[0], x, 1), pull(pulls)[0])
    # A copy's feedback is made of the weights as they are, at each step.
    kernels = {"tied": 1, "untied": 2, "copied": 0}[kind]
    more = len(jax.tree.leaves(clamped.edges[1])) - len(jax.tree.leaves(network.edges[1]))
    assert more == kernels


@pytest.mark.parametrize("dynamics", [Prototypical(hardsigm), EnergyBased(tanh, 0.3)], ids=str)
def test_ep_is_the_difference_of_two_gradients_of_phi(dynamics) -> None:
    network, (x, y) = small(), batch()
    system = System(dynamics, SquaredError(), FixedSteps(15), 4)
    rule = AfterPhase(Equilibrium(), Centered(0.2))
    update, free = jax.jit(lambda n: rule.update(system, n, x, y, KEY))(network)

    @jax.jit
    def gradient(network, beta):
        """Of Phi after K steps, states held."""
        nudged = system.nudged(system.clamp(network, x), x, y, beta, free.states)
        rates = dynamics.rates(x, nudged)
        return jax.grad(lambda c: naive_phi(c, rates))([e.connection for e in network.edges])

    ahead, back = (gradient(network, jnp.asarray(beta)) for beta in (0.2, -0.2))
    expected = jax.tree.map(lambda a, b: (a - b) / (2 * 0.2 * 3), ahead, back)
    close([e.connection for e in update.edges], expected)


def test_feedback_of_untied_convolutions_goes_to_the_winners_of_the_forward_drive() -> None:
    edge = small(angle=60.0).edges[1]
    assert isinstance(edge, Untied)
    pre, post = (draw(n, 3, *shape) for n, shape in enumerate(small().shapes[1:3]))
    found = edge.feedback(pre, post)
    close(found, naive_feedback(edge.ahead, edge.back, pre, post))
    # Not those of the feedback weights: the two have other winners here.
    assert float(jnp.max(jnp.abs(found - edge.back.feedback(pre, post)))) > 0.1


def test_untied_convolutions_of_different_sizes() -> None:
    small_kernel, large_kernel = (
        Conv(draw(1, k, k, 1, 2), padding=(k // 2, k // 2), pool=MaxPool(2)) for k in (3, 5)
    )
    first = Tied(0, 1, Conv(draw(2, 1, 1, 1, 1)))
    with pytest.raises(EqpropError, match=r"winners of a max-pool.*give both the same"):
        Network(
            ((8, 8, 1), (8, 8, 1), (4, 4, 2)), (first, Untied(1, 2, small_kernel, large_kernel))
        )


def test_vf_with_untied_convolutions_sums_presynaptic_rates_times_changes() -> None:
    network, (x, y), beta = small(angle=40.0), batch(), 0.3
    system = System(Prototypical(sigm), SquaredError(), FixedSteps(10), 3)
    rule = AfterPhase(VectorField(), OneSided(beta))
    update, free = jax.jit(lambda n: rule.update(system, n, x, y, KEY))(network)

    @jax.jit
    def increment(edge, pre, post, d_pre, d_post):
        """Of one edge, from the definition."""

        def ahead(c):
            return jnp.sum(d_post * naive(c, pre))

        def back(c):
            return jnp.sum(d_pre * naive_feedback(edge.ahead, c, pre, post))

        if isinstance(edge, Untied):
            parts = jax.grad(ahead)(edge.ahead), jax.grad(back)(edge.back)
            return Untied(edge.pre, edge.post, *parts)
        return Tied(edge.pre, edge.post, jax.grad(ahead)(edge.connection))

    total, s = jax.tree.map(jnp.zeros_like, network.edges), free.states
    step = jax.jit(lambda s: system.nudged_step(network, x, y, jnp.asarray(beta), s))
    for _ in range(3):
        new = step(s)
        before, after = (x, *s), (x, *new)
        steps = tuple(
            increment(
                edge,
                before[edge.pre],
                before[edge.post],
                after[edge.pre] - before[edge.pre],
                after[edge.post] - before[edge.post],
            )
            for edge in network.edges
        )
        total, s = jax.tree.map(jnp.add, total, steps), new
    close(update.edges, jax.tree.map(lambda leaf: leaf / (beta * 3), total))


@pytest.mark.parametrize("angle", [None, 60.0])
def test_the_continual_phase_is_its_steps(angle: float | None) -> None:
    network, (x, y) = small(angle=angle), batch()
    increment = Equilibrium() if angle is None else VectorField()
    system = System(Prototypical(sigm), SquaredError(), FixedSteps(10), 4)
    free, _ = jax.jit(lambda n: system.free(system.clamp(n, x), x))(network)
    rates = (jnp.asarray(0.3), jnp.asarray([0.1, 0.05, 0.02]))
    step = jax.jit(lambda n, s: continual_step(system, increment, n, s, (x, y), rates)[:2])
    moved, s = network, free
    for _ in range(4):
        moved, s = step(moved, s)
    phase = jax.jit(lambda n: continual_phase(system, increment, n, free, (x, y), rates))
    close(phase(network), (moved, s))
    assert float(jnp.max(jnp.abs(moved.edges[1].forward(free[0]) - s[1]))) > 1e-3
