"""Networks: everything a connection does follows from Phi, and bad graphs are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eqprop.errors import EqpropError
from eqprop.learning.increments import Equilibrium
from eqprop.networks.connections import Dense
from eqprop.networks.edges import Tied, Untied, realised_angle, untied
from eqprop.networks.graphs import chain
from eqprop.networks.network import Network

pytestmark = pytest.mark.usefixtures("x64")

SHAPES = ((6,), (5,), (4,), (3,))
GRAPHS = {
    "chain": [(0, 1), (1, 2), (2, 3)],
    "skip": [(0, 1), (1, 2), (2, 3), (0, 2), (1, 3)],
    "lateral": [(0, 1), (1, 2), (2, 3), (1, 1), (3, 3)],
    "backwards": [(0, 3), (3, 2), (2, 1)],
}


def network(graph: list[tuple[int, int]], seed: int = 0) -> Network:
    keys = jax.random.split(jax.random.key(seed), len(graph))
    edges = [
        Tied(pre, post, Dense.init(SHAPES[pre], SHAPES[post], key))
        for (pre, post), key in zip(graph, keys, strict=True)
    ]
    return Network(SHAPES, tuple(edges))


def rates(batch: int = 2, seed: int = 1) -> tuple[jax.Array, ...]:
    keys = jax.random.split(jax.random.key(seed), len(SHAPES))
    return tuple(jax.random.normal(k, (batch, *s)) for k, s in zip(keys, SHAPES, strict=True))


def assert_close(a, b) -> None:
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=0, atol=1e-12), a, b)


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_drives_are_the_gradient_of_phi_in_the_rates(graph: list[tuple[int, int]]) -> None:
    net, r = network(graph), rates()
    assert_close(net.drives(r), jax.grad(net.phi)(r)[1:])


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_statistics_are_the_gradient_of_phi_in_the_parameters(graph: list[tuple[int, int]]) -> None:
    net, r = network(graph), rates()
    statistics = net.replace_edges([e.statistic(r[e.pre], r[e.post]) for e in net.edges])
    assert_close(statistics, jax.grad(lambda n: n.phi(r))(net))


def test_a_subset_of_drives_is_the_same_drives() -> None:
    net, r = network(GRAPHS["skip"]), rates()
    everything = net.drives(r)
    assert_close(net.drives(r, (1, 3)), (everything[0], everything[2]))


def test_clamping_the_input_changes_no_drive() -> None:
    net, r = network(GRAPHS["skip"]), rates()
    assert_close(net.clamp(r[0]).drives((jnp.zeros_like(r[0]), *r[1:])), net.drives(r))


def test_the_vector_field_of_tied_weights_adds_both_directions() -> None:
    """dPhi/dtheta is bilinear, so one small step changes it by the sum of both products."""
    edge, (a, b), (da, db) = network(GRAPHS["chain"]).edges[1], rates()[1:3], rates(seed=2)[1:3]
    both = jax.jvp(edge.statistic, (a, b), (da, db))[1]
    assert_close(edge.vector_field(a, da, b, db), both)


def test_the_vector_field_of_untied_weights() -> None:
    ahead, back = (Dense.init((5,), (4,), jax.random.key(n)) for n in (0, 1))
    edge = Untied(1, 2, ahead, Dense(back.weight))
    (a, b), (da, db) = rates()[1:3], rates(seed=2)[1:3]
    moved = edge.vector_field(a, da, b, db)
    assert_close(moved.ahead, Dense(a.T @ db, db.sum(0)))
    assert_close(moved.back, Dense(da.T @ b))
    assert_close(edge.forward(a), a @ ahead.weight + ahead.bias)
    assert_close(edge.feedback(a, b), b @ back.weight.T)


def test_initial_weights_and_biases_are_uniform_within_the_bound() -> None:
    dense = Dense.init((400,), (300,), jax.random.key(0))
    for values in (dense.weight, dense.bias):
        assert jnp.max(jnp.abs(values)) <= 400**-0.5
        assert jnp.max(jnp.abs(values)) > 0.95 * 400**-0.5
    assert abs(jnp.std(dense.weight) * 400**0.5 - 3**-0.5) < 0.01


@given(angle=st.floats(0, 180), seed=st.integers(0, 99))
def test_sign_flips_realise_the_angle(angle: float, seed: int) -> None:
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(seed))
        edge = untied(1, 2, Dense.init((100,), (100,), keys[0]), angle, keys[1])
        assert edge.back.bias is None
        np.testing.assert_array_equal(jnp.abs(edge.back.weight), jnp.abs(edge.ahead.weight))
        # The cosine averages 10,000 signs weighted by w^2: sd about 0.013.
        assert abs(jnp.cos(jnp.radians(realised_angle(edge))) - np.cos(np.radians(angle))) < 0.07


def test_a_chain_unties_hidden_connections_only() -> None:
    net = chain(SHAPES, jax.random.key(0), angle=90.0)
    assert [type(edge) for edge in net.edges] == [Tied, Untied, Untied]


def test_colours_of_a_chain_and_of_graphs_that_have_none() -> None:
    assert chain([(2,)] * 5, jax.random.key(0)).colours() == ((2, 4), (1, 3))
    assert network([*GRAPHS["skip"][:3], (1, 2), (0, 3)]).colours() == ((2,), (1, 3))
    for odd, layer in (("skip", 1), ("lateral", 3)):
        with pytest.raises(EqpropError, match=f"layer {layer} lies on an odd cycle.*synchronous"):
            network(GRAPHS[odd]).colours()


@pytest.mark.parametrize(
    ("shapes", "edges", "message"),
    [
        (((6,),), [], "needs an input and an output layer"),
        (((6,), (0,)), [], r"layer 1 has shape \(0,\): every size must be an integer >= 1"),
        (((6,), (5,), (4,)), [(0, 1)], "layer 2 has no connection"),
        (((6,), (5,)), [(0, 2)], "edge 0->2 names a layer that is not there"),
        (((6,), (5,)), [(0, 0)], "edge 0->0 names a layer that is not there"),
    ],
)
def test_bad_graphs(shapes, edges, message: str) -> None:
    dense = Dense.init((6,), (5,), jax.random.key(0))
    with pytest.raises(EqpropError, match=message):
        Network(shapes, tuple(Tied(pre, post, dense) for pre, post in edges))


def test_connections_that_do_not_fit_the_layers() -> None:
    with pytest.raises(
        EqpropError, match=r"drives units of shape \(5,\), but layer 1 has shape \(4,\)"
    ):
        Network(((6,), (4,)), (Tied(0, 1, Dense.init((6,), (5,), jax.random.key(0))),))
    with pytest.raises(EqpropError, match=r"edge 0->1 does not accept layer 0 of shape \(7,\)"):
        Network(((7,), (5,)), (Tied(0, 1, Dense.init((6,), (5,), jax.random.key(0))),))


def test_feedback_weights_that_do_not_fit_the_layers() -> None:
    ahead, wide = (Dense.init((5,), (n,), jax.random.key(n)) for n in (4, 3))
    edges = Tied(0, 1, Dense.init((6,), (5,), jax.random.key(0))), Untied(1, 2, ahead, wide)
    with pytest.raises(EqpropError, match=r"edge 1->2 does not accept layer 2 of shape \(4,\)"):
        Network(((6,), (5,), (4,)), edges)


@pytest.mark.parametrize("angle", [-1.0, 180.5, float("nan")])
def test_an_angle_out_of_range(angle: float) -> None:
    with pytest.raises(EqpropError, match="give 0 to 180 degrees"):
        chain(SHAPES, jax.random.key(0), angle=angle)


def test_untied_weights_have_no_phi() -> None:
    edge = chain(SHAPES, jax.random.key(0), angle=0.0).edges[1]
    assert not edge.reciprocal
    pre, post = ((rate, rate) for rate in rates()[1:3])
    with pytest.raises(EqpropError, match=r"edge 1->2 is not reciprocal.*rule for untied weights"):
        Equilibrium().edge(edge, pre, post)


def test_weights_that_are_all_0_have_an_angle_that_is_a_number() -> None:
    edge = untied(1, 2, Dense(jnp.zeros((3, 2)), jnp.ones(2)), 45.0, jax.random.key(0))
    assert realised_angle(edge) == pytest.approx(90)
