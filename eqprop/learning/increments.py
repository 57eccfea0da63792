"""Increments: what the synapses of a network see between two consecutive states."""

import abc
from typing import Any, ClassVar, override

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from eqprop.dynamics.nudges import Stencil
from eqprop.dynamics.system import System
from eqprop.networks.edges import Edge
from eqprop.networks.network import Network
from eqprop.types import Array, Float, Layer, Rates, Scalar, States, Targets


class Increment(eqx.Module):
    """Abstract: what the synapses of a network see between two consecutive states."""

    telescopes: ClassVar[bool]
    """Whether the sum over a phase depends on its first and last states alone."""

    @abc.abstractmethod
    def edge(self, edge: Edge, pre: tuple[Layer, Layer], post: tuple[Layer, Layer]) -> Edge:
        """The increment of one edge, summed over the batch, from its rates (before, after)."""

    @abc.abstractmethod
    def total(
        self, system: System, network: Network, x: Layer, y: Targets, free: States, stencil: Stencil
    ) -> Network:
        """The increments of a whole nudged phase, summed over steps and batch, combined by the
        stencil.
        """

    def between(self, network: Network, before: Rates, after: Rates) -> Network:
        """The increments of all edges, summed over the batch: ``beta B dtheta(t)``."""
        edges = [
            self.edge(e, (before[e.pre], after[e.pre]), (before[e.post], after[e.post]))
            if e.pre
            # The input does not move: both rules are then linear in the postsynaptic change.
            else e.statistic(before[0], after[e.post] - before[e.post])
            for e in network.edges
        ]
        return network.change(edges)


class Equilibrium(Increment):
    """EP: ``dPhi/dtheta(s_{t+1}) - dPhi/dtheta(s_t)``. It telescopes, so a phase needs its ends
    only.
    """

    telescopes: ClassVar[bool] = True

    @override
    def edge(self, edge: Edge, pre: tuple[Layer, Layer], post: tuple[Layer, Layer]) -> Edge:
        # The statistic sums over the batch and is linear in r_post: a difference is one call.
        batch = len(post[0])
        return edge.statistic(_beside(batch, pre[1], pre[0]), _beside(batch, post[1], -post[0]))

    @override
    def total(
        self, system: System, network: Network, x: Layer, y: Targets, free: States, stencil: Stencil
    ) -> Network:
        # All points of the stencil are rows of one batch, those of an example side by side: then a
        # device that holds some of the examples holds all their rows, and sums them by itself.
        points, batch, dtype = len(stencil.betas), x.shape[0], stencil.dtype(x.dtype)

        def repeat(rows: Array, times: int = points) -> Array:
            return jnp.repeat(rows, times, axis=0)

        def start_all(rows: Array) -> Array:
            return repeat(rows).astype(dtype)

        clamped = system.clamp(network, x).change_drives(start_all)
        betas = jnp.tile(stencil.betas, batch).astype(dtype)
        start = tuple(start_all(s) for s in free)
        ends = system.nudged(clamped, repeat(x), repeat(y), betas, start)
        weights = stencil.weights.astype(dtype)
        if stencil.rest is not None:
            ends = tuple(_beside(batch, *pair) for pair in zip(ends, free, strict=True))
            weights = jnp.append(weights, stencil.rest.astype(dtype))
        r_input = system.dynamics.rates(x, ())[0]
        rates = system.dynamics.rates(repeat(x, len(weights)), ends)
        weights = jnp.tile(weights, batch)

        def total_edge(edge: Edge) -> Edge:
            post = jax.vmap(jnp.multiply)(rates[edge.post], weights)
            if edge.pre:
                # Of complex rates it is the real part, since the parameters are real.
                return edge.statistic(rates[edge.pre], post)
            total = post.reshape(batch, -1, *post.shape[1:]).sum(axis=1)
            return edge.statistic(r_input, total.real)

        return network.change([total_edge(e) for e in network.edges])


def _beside(batch: int, *parts: Array) -> Array:
    """One batch of the rows of several, those of the same example side by side."""
    split = [part.reshape(batch, -1, *part.shape[1:]) for part in parts]
    joined = jnp.concatenate(split, axis=1)
    return joined.reshape(-1, *joined.shape[2:])


class VectorField(Increment):
    """VF: each synapse multiplies its presynaptic rate now by its postsynaptic change."""

    telescopes: ClassVar[bool] = False

    @override
    def edge(self, edge: Edge, pre: tuple[Layer, Layer], post: tuple[Layer, Layer]) -> Edge:
        return edge.vector_field(pre[0], pre[1] - pre[0], post[0], post[1] - post[0])

    @override
    def total(
        self, system: System, network: Network, x: Layer, y: Targets, free: States, stencil: Stencil
    ) -> Network:
        dtype = stencil.dtype(x.dtype)
        clamped = system.clamp(network, x)
        hidden = [e for e in network.edges if e.pre]
        start = tuple(s.astype(dtype) for s in free)

        def phase(beta: Scalar, weight: Scalar) -> tuple[list[Edge], Rates]:
            def body(_: Array, carry: tuple[States, list[Edge]]) -> tuple[States, list[Edge]]:
                s, sums = carry
                new = tuple(n.astype(dtype) for n in system.nudged_step(clamped, x, y, beta, s))
                a, b = system.dynamics.rates(x, s), system.dynamics.rates(x, new)
                # The increment is linear in the changes. Weighted here and not after the phase,
                # complex ones come out as the real part that is wanted.
                d = [weight * (after - before) for before, after in zip(a, b, strict=True)]
                steps = [e.vector_field(a[e.pre], d[e.pre], a[e.post], d[e.post]) for e in hidden]
                return new, jax.tree.map(jnp.add, sums, steps)

            zeros = jax.tree.map(jnp.zeros_like, hidden)
            s, sums = lax.fori_loop(0, system.nudged_steps, body, (start, zeros))
            return sums, system.dynamics.rates(x, s)

        weights = stencil.weights.astype(dtype)
        sums, ends = jax.vmap(phase)(stencil.betas.astype(dtype), weights)
        first = system.dynamics.rates(x, free)

        def moved(layer: int) -> Layer:
            return jnp.tensordot(weights, ends[layer] - first[layer], axes=1).real

        totals = iter(jax.tree.map(lambda leaf: leaf.sum(axis=0), sums))
        edges = [
            next(totals) if e.pre else e.statistic(first[0], moved(e.post)) for e in network.edges
        ]
        return network.change(edges)


def scale_edges(network: Network, factors: Float[Array, " factors"]) -> Network:
    """The parameters of each part, the edges and then a readout, times its own factor."""

    def scale(part: eqx.Module, factor: Float[Array, ""]) -> Any:
        return jax.tree.map(lambda leaf: leaf * factor.astype(leaf.dtype), part)

    scaled = [scale(part, f) for part, f in zip(network.parts, factors, strict=True)]
    edges = len(network.edges)
    return network.change(scaled[:edges], *scaled[edges:])
