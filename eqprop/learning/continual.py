"""Continual rules, C-EP and C-VF: weights that move at every step of the nudged phase.

``continual_step`` is the definition: it rewrites every weight at every step. ``continual_phase``
runs the same K steps in exactly equivalent forms that rewrite fewer: a change of rank B acts on the
states through B x B matrices, and is written into the weights once, after the phase.
"""

import abc
from typing import cast, override

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from eqprop.dynamics.system import System
from eqprop.learning.increments import Equilibrium, Increment, scale_edges
from eqprop.networks.edges import Edge
from eqprop.networks.network import Network
from eqprop.types import Array, Float, Layer, Scalar, States, Targets


def continual_step(
    system: System,
    increment: Increment,
    network: Network,
    states: States,
    clamps: tuple[Layer, Targets],
    rates: tuple[Scalar, Float[Array, " edges"]],
) -> tuple[Network, States, Network]:
    """One nudged step: ``s_{t+1} = F(x, s_t, theta_t, beta)``, then ``theta_{t+1} = theta_t + eta
    dtheta(t)``.

    ``clamps`` is ``(x, y)`` and ``rates`` is ``(beta, eta per edge)``. Returns the moved network,
    the new states, and ``dtheta(t)``. Nothing of the free phase is read.
    """
    (x, y), (beta, eta) = clamps, rates
    new = system.nudged_step(network, x, y, beta, states)
    before, after = system.dynamics.rates(x, states), system.dynamics.rates(x, new)
    moved = increment.between(network, before, after)
    dtheta = jax.tree.map(lambda leaf: leaf / (beta * x.shape[0]).astype(leaf.dtype), moved)
    return jax.tree.map(jnp.add, network, scale_edges(dtheta, eta)), new, dtheta


class Moving(Edge):
    """Abstract: an edge whose weights follow a continual rule."""

    @abc.abstractmethod
    def advance(self, pre: tuple[Layer, Layer], post: tuple[Layer, Layer]) -> "Moving":
        """The edge after one step, from its rates (before, after)."""

    @abc.abstractmethod
    def settle(self) -> Edge:
        """The edge with its weights written out."""

    @override
    def statistic(self, r_pre: Layer, r_post: Layer) -> "Moving":
        raise NotImplementedError("settle a moving edge first")

    @override
    def vector_field(self, r_pre: Layer, d_pre: Layer, r_post: Layer, d_post: Layer) -> "Moving":
        raise NotImplementedError("settle a moving edge first")


class Rewritten(Moving):
    """The plain form: the weights are rewritten at every step."""

    pre: int = eqx.field(static=True)
    post: int = eqx.field(static=True)
    edge: Edge
    increment: Increment
    rate: Scalar
    """``eta / (beta B)``, as in the forms below."""

    @override
    def forward(self, r_pre: Layer) -> Layer:
        return self.edge.forward(r_pre)

    @override
    def feedback(self, r_pre: Layer, r_post: Layer) -> Layer:
        return self.edge.feedback(r_pre, r_post)

    @override
    def advance(self, pre: tuple[Layer, Layer], post: tuple[Layer, Layer]) -> "Rewritten":
        if self.pre:
            step = self.increment.edge(self.edge, pre, post)
        else:
            step = self.edge.statistic(pre[0], post[1] - post[0])
        return eqx.tree_at(lambda m: m.edge, self, add_scaled(self.edge, self.rate, step))

    @override
    def settle(self) -> Edge:
        return self.edge


class FromInput(Moving):
    """An edge from the input, whose increments telescope because the input stands still.

    ``drive(t) = drive(0) + rate (x x^T + 1) (r_post(t) - r_post(0))``; any rule.
    """

    pre: int = eqx.field(static=True)
    post: int = eqx.field(static=True)
    edge: Edge
    r_input: Layer
    rate: Scalar
    gram: Float[Array, "B B"]
    drive: Layer
    start: Layer
    now: Layer

    @override
    def forward(self, r_pre: Layer) -> Layer:
        return self.drive + self.rate * (self.gram @ (self.now - self.start))

    @override
    def feedback(self, r_pre: Layer, r_post: Layer) -> Layer:
        raise NotImplementedError("the input receives no feedback")

    @override
    def advance(self, pre: tuple[Layer, Layer], post: tuple[Layer, Layer]) -> "FromInput":
        return eqx.tree_at(lambda m: m.now, self, post[1])

    @override
    def settle(self) -> Edge:
        step = self.edge.statistic(self.r_input, self.now - self.start)
        return add_scaled(self.edge, self.rate, step)


class Telescoped(Moving):
    """A tied edge under C-EP: ``theta(t) = theta(0) + rate (P(t) - P(0))``, ``P = r_pre^T r_post``.

    Written out afresh at every step from the present rates: one product where ``Rewritten`` takes
    two, and no sum that is carried on. ``base`` is ``theta(0) - rate P(0)``.
    """

    pre: int = eqx.field(static=True)
    post: int = eqx.field(static=True)
    base: Edge
    rate: Scalar
    now: tuple[Layer, Layer]

    @override
    def forward(self, r_pre: Layer) -> Layer:
        return self.settle().forward(r_pre)

    @override
    def feedback(self, r_pre: Layer, r_post: Layer) -> Layer:
        return self.settle().feedback(r_pre, r_post)

    @override
    def advance(self, pre: tuple[Layer, Layer], post: tuple[Layer, Layer]) -> "Telescoped":
        return eqx.tree_at(lambda m: m.now, self, (pre[1], post[1]))

    @override
    def settle(self) -> Edge:
        return add_scaled(self.base, self.rate, self.base.statistic(*self.now))


class LowRank(Moving):
    """The same for large matrices: two terms of rank B act on the rates without being written."""

    pre: int = eqx.field(static=True)
    post: int = eqx.field(static=True)
    edge: Edge
    rate: Scalar
    start: tuple[Layer, Layer]
    now: tuple[Layer, Layer]

    def _terms(self) -> tuple[tuple[Layer, Layer, Scalar], ...]:
        return ((*self.now, self.rate), (*self.start, -self.rate))

    @override
    def forward(self, r_pre: Layer) -> Layer:
        drive = self.edge.forward(r_pre)
        for pre, post, rate in self._terms():
            kernel = self.edge.kernel(r_pre, pre)
            assert kernel is not None  # or this form would not have been chosen
            drive += rate * (kernel @ post)
        return drive

    @override
    def feedback(self, r_pre: Layer, r_post: Layer) -> Layer:
        drive = self.edge.feedback(r_pre, r_post)
        for pre, post, rate in self._terms():
            drive += rate * jnp.tensordot(r_post @ post.T, pre, axes=1)
        return drive

    @override
    def advance(self, pre: tuple[Layer, Layer], post: tuple[Layer, Layer]) -> "LowRank":
        return eqx.tree_at(lambda m: m.now, self, (pre[1], post[1]))

    @override
    def settle(self) -> Edge:
        (pre_0, post_0), (pre, post) = self.start, self.now
        step = Equilibrium().edge(self.edge, (pre_0, pre), (post_0, post))
        return add_scaled(self.edge, self.rate, step)


def add_scaled[T](tree: T, rate: Scalar, step: T) -> T:
    """``tree + rate * step``."""
    return jax.tree.map(lambda leaf, d: leaf + rate.astype(leaf.dtype) * d, tree, step)


def continual_phase(
    system: System,
    increment: Increment,
    network: Network,
    states: States,
    clamps: tuple[Layer, Targets],
    rates: tuple[Scalar, Float[Array, " edges"]],
) -> tuple[Network, States]:
    """K times ``continual_step``, in the cheapest equivalent form: the moved network and the last
    states.
    """
    (x, y), (beta, eta) = clamps, rates
    start = system.dynamics.rates(x, states)
    scaled = eta.astype(network.dtype) / (beta * x.shape[0]).astype(network.dtype)

    def set_moving(edge: Edge, rate: Scalar) -> Moving:
        pre, post = start[edge.pre], start[edge.post]
        kernel = edge.kernel(pre, pre)
        if kernel is None:
            return Rewritten(edge.pre, edge.post, edge, increment, rate)
        if not edge.pre:
            drive = edge.forward(pre)
            return FromInput(0, edge.post, edge, pre, rate, kernel, drive, post, post)
        n_pre, n_post = pre[0].size, post[0].size
        if not increment.telescopes:
            return Rewritten(edge.pre, edge.post, edge, increment, rate)
        # What two terms of rank B cost in each direction, against writing n_pre x n_post weights.
        if n_pre * n_post > 4 * x.shape[0] * (n_pre + n_post):
            return LowRank(edge.pre, edge.post, edge, rate, (pre, post), (pre, post))
        base = add_scaled(edge, -rate, edge.statistic(pre, post))
        return Telescoped(edge.pre, edge.post, base, rate, (pre, post))

    moving = network.replace_edges(
        [set_moving(e, rate) for e, rate in zip(network.edges, scaled, strict=True)]
    )

    def body(_: Array, carry: tuple[Network, States]) -> tuple[Network, States]:
        moving, s = carry
        new = system.nudged_step(moving, x, y, beta, s)
        a, b = system.dynamics.rates(x, s), system.dynamics.rates(x, new)
        edges = [
            cast(Moving, e).advance((a[e.pre], b[e.pre]), (a[e.post], b[e.post]))
            for e in moving.edges
        ]
        return moving.replace_edges(edges), new

    moving, last = lax.fori_loop(0, system.nudged_steps, body, (moving, states))
    return network.replace_edges([cast(Moving, e).settle() for e in moving.edges]), last
