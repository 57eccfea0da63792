"""Increments: what the synapses of a network see between two consecutive states.

|               | after the phase | at every step (continual) |
|---------------|-----------------|---------------------------|
| `Equilibrium` | EP              | C-EP                      |
| `VectorField` | VF              | C-VF                      |

An increment between two consecutive states, divided by ``beta B``, is ``dtheta(t)`` of the papers:
training applies it, and the curves of Theorem 1 plot it.
"""

import abc
import functools
from collections.abc import Sequence
from typing import final, override

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from eqprop.dynamics.nudges import Stencil, by_row, weighted
from eqprop.dynamics.system import System
from eqprop.errors import EqpropError
from eqprop.networks.edges import Plastic
from eqprop.networks.model import Model
from eqprop.networks.network import Network
from eqprop.types import Array, Layer, Rates, States, Strength, Targets

type Ends = tuple[tuple[Layer, Layer], tuple[Layer, Layer]]
"""What an edge sees of a step: the rates of its presynaptic layer, before and after it, and those
of its postsynaptic layer.
"""


class Increment(eqx.Module):
    """Abstract: what the synapses of a network see between two consecutive states.

    Subclasses write ``edge`` alone: the sum over a phase, continual rules and the curves of
    Theorem 1 follow from it.
    """

    @abc.abstractmethod
    def edge(self, edge: Plastic, pre: tuple[Layer, Layer], post: tuple[Layer, Layer]) -> Plastic:
        """The increment of one edge, summed over the batch, from its rates (before, after).

        The rates of the input are the same before and after.
        """

    def between(
        self, network: Model, before: Rates, after: Rates, weights: Strength | None = None
    ) -> Model:
        """The increments of all parameters, summed over the batch, in which rows may have weights:
        ``beta B dtheta(t)``.

        Raises ``EqpropError`` for weights where there are no edges.
        """
        if not isinstance(network, Network):
            if weights is not None:
                raise EqpropError(
                    f"{type(network).__name__} has no edges, whose increments alone can take a "
                    "beta for each example: use a random-sign nudge"
                )
            return self.of_model(network, before, after)
        ends = edge_ends(network, before, after, weights)
        steps = [self.edge(e, *seen) for e, seen in zip(network.plastic, ends, strict=True)]
        return network.update(steps)

    def of_model(self, network: Model, before: Rates, after: Rates) -> Model:
        """The same of a model that is not made of edges. Raises ``EqpropError`` where there is no
        such increment.
        """
        raise EqpropError(
            f"{type(self).__name__} says what an edge sees, but {type(network).__name__} has no "
            "edges: use Equilibrium or VectorField, or write of_model"
        )

    def total(
        self, system: System, network: Model, x: Layer, y: Targets, free: States, stencil: Stencil
    ) -> Model:
        """The increments of a whole nudged phase from the states ``free``, summed over steps and
        batch, combined by the stencil.

        The plain form, one ``edge`` for each step: what the shortcuts below are held to.
        """
        dtype = stencil.dtype(network.dtype)
        # With complex betas, increments of complex copies: their real part is taken at the end.
        copies, start = jax.tree.map(lambda leaf: leaf.astype(dtype), (network, free))
        clamped = system.clamp(copies, x)

        own = stencil.betas.ndim > 1  # of each row, which is weighted as it is seen

        def phase(beta: Strength, weight: Strength) -> Model:
            def body(_: Array, carry: tuple[States, Model]) -> tuple[States, Model]:
                s, sums = carry
                new = system.nudged_step(clamped, x, y, beta, s)
                a, b = (system.nudged_rates(x, states) for states in (s, new))
                step = self.between(copies, a, b, weight if own else None)
                return new, jax.tree.map(jnp.add, sums, step)

            zeros = jax.tree.map(jnp.zeros_like, copies)
            return lax.fori_loop(0, system.nudged_steps, body, (start, zeros))[1]

        sums = jax.vmap(phase)(stencil.betas.astype(dtype), stencil.weights.astype(dtype))
        weights = jnp.ones(len(stencil.betas)) if own else stencil.weights
        return jax.tree.map(functools.partial(weighted, weights), sums)


def edge_ends(
    network: Network, before: Rates, after: Rates, weights: Strength | None = None
) -> list[Ends]:
    """What each edge of a network sees of a step. Weights of the rows are those of the rates of the
    postsynaptic layers, which increments are linear in.
    """
    a, b = (rates if weights is None else by_row(weights, rates) for rates in (before, after))
    return [((before[e.pre], after[e.pre]), (a[e.post], b[e.post])) for e in network.edges]


def weights_of_rows(beta: Strength) -> Strength | None:
    """What the increments of each row are multiplied by, where rows have betas of their own; None
    where what they add up to is divided by the one beta there is.
    """
    return 1 / beta if beta.ndim else None


@final
class Equilibrium(Increment):
    """EP: ``dPhi/dtheta(s_{t+1}) - dPhi/dtheta(s_t)``. It telescopes, so a phase needs its ends
    only.

    Raises ``EqpropError`` for untied weights, for which ``Phi`` does not exist.
    """

    def __init_subclass__(cls) -> None:
        raise _no_subclass(cls)

    @override
    def edge(self, edge: Plastic, pre: tuple[Layer, Layer], post: tuple[Layer, Layer]) -> Plastic:
        if edge.from_input:
            return edge.statistic(pre[0], post[1] - post[0])
        edge.check_reciprocal()
        # The statistic sums over the batch and is linear in r_post: a difference is one call.
        batch = len(post[0])
        return edge.statistic(_beside(batch, pre[1], pre[0]), _beside(batch, post[1], -post[0]))

    @override
    def of_model(self, network: Model, before: Rates, after: Rates) -> Model:
        rows = jnp.ones(len(before[0]), before[0].dtype)
        then, now = (network.statistic(rates, rows, rates[0]) for rates in (before, after))
        return jax.tree.map(jnp.subtract, now, then)

    @override
    def total(
        self, system: System, network: Model, x: Layer, y: Targets, free: States, stencil: Stencil
    ) -> Model:
        # All points of the stencil are rows of one batch, those of an example side by side: then a
        # device that holds some of the examples holds all their rows, and sums them by itself.
        points, batch, dtype = len(stencil.betas), x.shape[0], stencil.dtype(network.dtype)

        def repeat(rows: Array, times: int = points) -> Array:
            return jnp.repeat(rows, times, axis=0)

        def start_all(rows: Array) -> Array:
            return repeat(rows).astype(dtype)

        clamped = system.clamp(network, x).map_drives(start_all)
        betas = _of_all_rows(stencil.betas, batch).astype(dtype)
        start = tuple(start_all(s) for s in free)
        several = system.map_rows(repeat)
        ends = several.nudged(clamped, repeat(x), repeat(y), betas, start)
        ends, free = system.read(ends, nudged=True), system.read(free, nudged=False)
        weights = stencil.weights
        if stencil.rest is not None:
            ends = tuple(_beside(batch, *pair) for pair in zip(ends, free, strict=True))
            weights = jnp.concatenate([weights, stencil.rest[None]])
        rates = system.dynamics.rates(repeat(x, len(weights)), ends)
        r_input = system.dynamics.rates(x, ())[0]
        return network.statistic(rates, _of_all_rows(weights, batch).astype(dtype), r_input)


@final
class VectorField(Increment):
    """VF: each synapse multiplies its presynaptic rate now by its postsynaptic change."""

    def __init_subclass__(cls) -> None:
        raise _no_subclass(cls)

    @override
    def edge(self, edge: Plastic, pre: tuple[Layer, Layer], post: tuple[Layer, Layer]) -> Plastic:
        if edge.from_input:
            return edge.statistic(pre[0], post[1] - post[0])
        return edge.vector_field(pre[0], pre[1] - pre[0], post[0], post[1] - post[0])

    @override
    def of_model(self, network: Model, before: Rates, after: Rates) -> Model:
        """``(d drives/d theta)^T`` times the change of the states."""
        _, pull = jax.vjp(lambda model: model.drives(before), network)
        return pull(tuple(new - old for old, new in zip(before[1:], after[1:], strict=True)))[0]

    @override
    def total(
        self, system: System, network: Model, x: Layer, y: Targets, free: States, stencil: Stencil
    ) -> Model:
        if not isinstance(network, Network):
            return super().total(system, network, x, y, free, stencil)
        # As in the plain form, but what edges from the input add up telescopes.
        dtype = stencil.dtype(network.dtype)
        clamped = system.clamp(network, x)
        hidden = [e for e in network.plastic if not e.from_input]
        start = tuple(s.astype(dtype) for s in free)

        def phase(beta: Strength, weight: Strength) -> tuple[Sequence[Plastic], Rates]:
            def body(_: Array, carry: tuple[States, list[Plastic]]) -> tuple[States, list[Plastic]]:
                s, sums = carry
                new = tuple(n.astype(dtype) for n in system.nudged_step(clamped, x, y, beta, s))
                a, b = (system.nudged_rates(x, states) for states in (s, new))
                # The increment is linear in the changes. Weighted here and not after the phase,
                # complex ones come out as the real part that is wanted.
                d = [by_row(weight, after - before) for before, after in zip(a, b, strict=True)]
                steps = [e.vector_field(a[e.pre], d[e.pre], a[e.post], d[e.post]) for e in hidden]
                return new, jax.tree.map(jnp.add, sums, steps)

            zeros = jax.tree.map(jnp.zeros_like, hidden)
            s, sums = lax.fori_loop(0, system.nudged_steps, body, (start, zeros))
            return sums, system.nudged_rates(x, s)

        weights = stencil.weights.astype(dtype)
        sums, ends = jax.vmap(phase)(stencil.betas.astype(dtype), weights)
        first = system.nudged_rates(x, free)

        def moved(layer: int) -> Layer:
            return weighted(weights, ends[layer] - first[layer])

        totals = iter(jax.tree.map(lambda leaf: leaf.sum(axis=0), sums))
        return network.update(
            [
                e.statistic(first[0], moved(e.post)) if e.from_input else next(totals)
                for e in network.plastic
            ]
        )


def _no_subclass(cls: type) -> EqpropError:
    """Why an increment with shortcuts is final: they would stay, whatever a subclass changes."""
    return EqpropError(
        f"{cls.__name__} inherits from an increment whose shortcuts are exact for itself alone: "
        "inherit from Increment, and call the other one in edge"
    )


def _of_all_rows(values: Array, batch: int) -> Array:
    """Numbers of a stencil's points as those of one batch, the points of an example side by side:
    of all examples, or ``(points, B)``.
    """
    return jnp.tile(values, batch) if values.ndim == 1 else values.T.reshape(-1)


def _beside(batch: int, *parts: Array) -> Array:
    """One batch of the rows of several, those of the same example side by side."""
    split = [part.reshape(batch, -1, *part.shape[1:]) for part in parts]
    joined = jnp.concatenate(split, axis=1)
    return joined.reshape(-1, *joined.shape[2:])
