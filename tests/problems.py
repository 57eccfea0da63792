"""Small random problems for the tests of baselines and of Theorem 1, and their oracle twins."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import oracle
from hypothesis import strategies as st

from eqprop.dynamics.activations import sigm, tanh
from eqprop.dynamics.costs import SquaredError
from eqprop.dynamics.relaxation import FixedSteps
from eqprop.dynamics.step import Dynamics, EnergyBased, Prototypical
from eqprop.dynamics.system import System
from eqprop.networks.connections import Dense
from eqprop.networks.edges import Edge, Tied, Untied
from eqprop.networks.network import Network
from eqprop.theorem.curves import Problem

type Graph = Sequence[tuple[int, int]]


def known[T](value: T | None) -> T:
    assert value is not None
    return value


def make_network(
    sizes: Sequence[int], graph: Graph, seed: int, *, untied: str = "no", scale: float = 1.0
) -> Network:
    """Uniform within ``scale/sqrt(n_pre)``; ``untied``: "no", or "equal" or "random" feedback."""
    generator = np.random.default_rng(seed)

    def draw(pre: int, *shape: int) -> jax.Array:
        bound = scale / np.sqrt(sizes[pre])
        return jnp.asarray(generator.uniform(-bound, bound, shape))

    def edge(pre: int, post: int) -> Edge:
        ahead = Dense(draw(pre, sizes[pre], sizes[post]), draw(pre, sizes[post]))
        if untied == "no" or not pre:
            return Tied(pre, post, ahead)
        back = ahead.weight if untied == "equal" else draw(pre, sizes[pre], sizes[post])
        return Untied(pre, post, ahead, Dense(back))

    return Network(tuple((n,) for n in sizes), tuple(edge(*ends) for ends in graph))


def make_problem(
    network: Network, dynamics: Dynamics, steps: tuple[int, int], *, seed: int = 0, batch: int = 3
) -> Problem:
    """``steps`` are T and K."""
    generator = np.random.default_rng([seed, 1])
    x = jnp.asarray(generator.uniform(size=(batch, *network.shapes[0])))
    y = jnp.eye(network.shapes[-1][0])[generator.integers(network.shapes[-1][0], size=batch)]
    return Problem(
        System(dynamics, SquaredError(), FixedSteps(steps[0]), steps[1]), network, (x, y)
    )


def oracle_network(network: Network) -> oracle.DenseNet:
    """The same dense network (without lateral edges, which the oracle does not have)."""
    ahead = [e.ahead if isinstance(e, Untied) else e.connection for e in network.edges]
    return oracle.make_net(
        [shape[0] for shape in network.shapes],
        [np.asarray(c.weight) for c in ahead],
        [np.asarray(c.bias) for c in ahead],
        [np.asarray(e.back.weight) if isinstance(e, Untied) else None for e in network.edges],
        [(e.pre, e.post) for e in network.edges],
    )


def oracle_dynamics(dynamics: Prototypical | EnergyBased) -> oracle.Dynamics:
    name = {sigm: "sigm", tanh: "tanh"}.get(dynamics.activation, "hardsigm")
    if isinstance(dynamics, EnergyBased):
        return oracle.Dynamics("energy", name, dt=dynamics.dt, clip=dynamics.clip)
    return oracle.Dynamics("prototypical", name, "inside" if dynamics.inside else "outside")


@st.composite
def graphs(draw: st.DrawFn, *, lateral: bool = True) -> tuple[list[int], list[tuple[int, int]]]:
    """Sizes of 3 or 4 layers and a chain through them, with some skip, lateral and double edges."""
    sizes = draw(st.lists(st.integers(2, 7), min_size=3, max_size=4))
    last = len(sizes) - 1
    pairs = [(i, j) for i in range(last + 1) for j in range(1, last + 1) if i < j]
    pairs += [(i, i) for i in range(1, last + 1) if lateral]
    extra = draw(st.lists(st.sampled_from(pairs), max_size=3))
    return sizes, [*oracle.chain(sizes), *extra]
