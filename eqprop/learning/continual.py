"""Continual rules, C-EP and C-VF: weights that move at every step of the nudged phase.

A step is defined once, by ``_advance`` and ``Rewritten``: a nudged step with the weights as they
are, then each weight moves by its increment. ``continual_step`` is one such step, as the curves of
Theorem 1 want it. ``continual_phase``, which trains, is K of them, with each edge in the cheapest
form that is exact for it: a change of rank B may act on the states through B x B matrices, and be
written into the weights once, after the phase.
"""

import abc
from collections.abc import Sequence
from typing import NamedTuple, final, override

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from eqprop.dynamics.system import System
from eqprop.learning.increments import (
    Ends,
    Equilibrium,
    Increment,
    VectorField,
    edge_ends,
    weights_of_rows,
)
from eqprop.networks.connections import Connection, Dense, multiply
from eqprop.networks.edges import Edge, Plastic, Tied
from eqprop.networks.model import Model
from eqprop.networks.network import Network
from eqprop.networks.normalisation import Normalised
from eqprop.types import Array, Float, Inexact, Layer, Rates, Scalar, States, Strength, Targets

type Batch = tuple[Layer, Targets]
"""Input and targets, ``(x, y)``."""


type Strengths = tuple[Strength, Float[Array, " parts"]]
"""Nudging strength, with its sign, or that of each row of the batch, and the learning rate of each
part of the model, an edge or whatever else learns: ``(beta, eta)``.
"""


@final
class Products(NamedTuple):
    """Multiplications that an edge takes during a continual phase."""

    step: float
    """In each step, for its drives and for what moves its weights."""
    once: float
    """For the whole phase, besides the drive of the static input."""


def continual_step(
    system: System,
    increment: Increment,
    network: Model,
    states: States,
    batch: Batch,
    strengths: Strengths,
) -> tuple[Model, States, Model]:
    """One nudged step: ``s_{t+1} = F(x, s_t, theta_t, beta)``, then ``theta_{t+1} = theta_t + eta
    dtheta(t)``.

    Returns the moved network, the new states, and ``dtheta(t)``. Nothing of the free phase is read.
    """
    if not isinstance(network, Network):
        return _model_step(system, increment, network, states, batch, strengths)
    beta, _ = strengths
    plain = [
        Rewritten(e.pre, e.post, e, increment, rate)
        for e, rate in zip(network.plastic, part_factors(network, batch, strengths), strict=True)
    ]
    moved, new, ends = _advance(system, network, plain, states, batch, beta)
    total = network.update([form.seen(*seen) for form, seen in zip(plain, ends, strict=True)])
    settled = network.replace_edges([form.settle() for form in moved])
    return settled, new, divided(total, divisor(beta, batch))


def _model_step(
    system: System,
    increment: Increment,
    network: Model,
    states: States,
    batch: Batch,
    strengths: Strengths,
) -> tuple[Model, States, Model]:
    """The step of a model without edges."""
    (x, y), (beta, _) = batch, strengths
    new = system.nudged_step(network, x, y, beta, states)
    before, after = (system.nudged_rates(x, s) for s in (states, new))
    total = increment.between(network, before, after, weights_of_rows(beta))
    step = total.scale(part_factors(network, batch, strengths))
    moved = jax.tree.map(jnp.add, network, step).projected()
    return moved, new, divided(total, divisor(beta, batch))


def continual_phase(
    system: System,
    increment: Increment,
    network: Model,
    states: States,
    batch: Batch,
    strengths: Strengths,
) -> tuple[Model, States]:
    """K times ``continual_step``, in the cheapest equivalent form: the moved network and the last
    states.
    """
    beta, _ = strengths
    if not isinstance(network, Network):

        def step(_: Array, carry: tuple[Model, States]) -> tuple[Model, States]:
            return continual_step(system, increment, *carry, batch, strengths)[:2]

        return lax.fori_loop(0, system.nudged_steps, step, (network, states))
    r_start = system.nudged_rates(batch[0], states)
    factors = part_factors(network, batch, strengths)
    start = moving_edges(increment, network, r_start, factors, weights_of_rows(beta))

    def body(_: Array, carry: tuple[Sequence[Moving], States]) -> tuple[Sequence[Moving], States]:
        moving, s = carry
        return _advance(system, network, moving, s, batch, beta)[:2]

    moving, last = lax.fori_loop(0, system.nudged_steps, body, (start, states))
    return network.replace_edges([edge.settle() for edge in moving]), last


def part_factors(network: Model, batch: Batch, strengths: Strengths) -> Inexact[Array, " parts"]:
    """``eta / (beta B)`` for each part, the edges of a network: the factor on its increments.
    ``eta / B`` where rows have betas of their own, and are divided by them.
    """
    beta, eta = strengths
    return eta.astype(network.dtype) / divisor(beta, batch).astype(network.dtype)


def divisor(beta: Strength, batch: Batch) -> Scalar:
    """``beta B``, which increments summed over the batch are divided by; B where rows have betas of
    their own.
    """
    rows = len(batch[0])
    return jnp.asarray(rows, beta.dtype) if beta.ndim else beta * rows


def divided[T](tree: T, by: Scalar) -> T:
    """``tree / by``."""
    return jax.tree.map(lambda leaf: leaf / by.astype(leaf.dtype), tree)


def _advance(
    system: System,
    network: Network,
    moving: "Sequence[Moving]",
    states: States,
    batch: Batch,
    beta: Strength,
) -> "tuple[list[Moving], States, list[Ends]]":
    """A nudged step with the edges as they are, then each edge moves by what it sees of it."""
    x, y = batch
    new = system.nudged_step(network.replace_edges(moving), x, y, beta, states)
    before, after = (system.nudged_rates(x, s) for s in (states, new))
    ends = edge_ends(network, before, after, weights_of_rows(beta))
    return [edge.advance(*seen) for edge, seen in zip(moving, ends, strict=True)], new, ends


def moving_edges(
    increment: Increment,
    network: Network,
    start: Rates,
    factors: Float[Array, " edges"],
    weights: Strength | None = None,
) -> "list[Moving]":
    """The edges of a network as they move under a continual rule, each in the cheapest form that is
    exact for it.

    ``start`` are the rates at the beginning of the phase, ``factors`` those on the increments of
    each edge, ``weights`` those of the rows, where they have any. The forms other than
    ``Rewritten`` are exact for certain increments and connections, and are chosen by their very
    types: a subclass may have changed what they rest on.
    """
    return [
        _moving_edge(increment, edge, factor, (pre, post))
        for edge, factor, ((pre, _), (post, _)) in zip(
            network.plastic, factors, edge_ends(network, start, start, weights), strict=True
        )
    ]


def _moving_edge(
    increment: Increment, edge: Plastic, rate: Scalar, start: tuple[Layer, Layer]
) -> "Moving":
    if type(edge) is Tied and type(increment) in (Equilibrium, VectorField):
        pre, post = start
        if edge.from_input:
            if (gram := _gram(edge.connection, pre)) is not None:
                drive = edge.forward(pre)
                return FromInput(edge.pre, edge.post, edge, pre, rate, gram, drive, post, post)
        elif type(increment) is Equilibrium and _is_matrix(edge.connection):
            n_pre, n_post, rows = pre[0].size, post[0].size, len(pre)
            # What two terms of rank B cost in each direction, against writing the weights.
            if n_pre * n_post > 4 * rows * (n_pre + n_post):
                return LowRank(edge.pre, edge.post, edge, rate, start, start)
            base = add_scaled(edge, -rate, edge.statistic(*start))
            return Telescoped(edge.pre, edge.post, base, rate, start)
    return Rewritten(edge.pre, edge.post, edge, increment, rate)


def _is_matrix(connection: Connection) -> bool:
    """Whether a drive is ``r_pre W + b``, exactly."""
    return type(connection) is Dense and connection.product is multiply


def _gram(connection: Connection, r_input: Layer) -> Float[Array, "B B"] | None:
    """``x x^T + 1`` of what a matrix sees of the input (without the 1 where no bias learns), if the
    connection is one.
    """
    seen = r_input
    if type(connection) is Normalised:
        seen, connection = connection.normalise(seen), connection.connection
    if not _is_matrix(connection):
        return None
    rows = seen.reshape(len(seen), -1)
    gram = multiply(rows, rows.T)
    return gram + 1 if _learns_bias(connection) else gram


def _learns_bias(connection: Connection) -> bool:
    return type(connection) is Dense and connection.bias is not None and connection.learns_bias


class Moving(Edge):
    """Abstract: an edge whose weights follow a continual rule."""

    @abc.abstractmethod
    def advance(self, pre: tuple[Layer, Layer], post: tuple[Layer, Layer]) -> "Moving":
        """The edge after one step, from its rates (before, after)."""

    @abc.abstractmethod
    def settle(self) -> Plastic:
        """The edge with its weights written out."""

    @abc.abstractmethod
    def products(self, drive: float, rows: int) -> Products:
        """What the edge takes in a batch of so many rows; its drive takes ``drive``."""


@final
class Rewritten(Moving):
    """The plain form: the weights are rewritten at every step."""

    edge: Plastic
    increment: Increment
    rate: Scalar
    """``eta / (beta B)``, as in the forms below."""

    @override
    def forward(self, r_pre: Layer) -> Layer:
        return self.edge.forward(r_pre)

    @override
    def feedback(self, r_pre: Layer, r_post: Layer) -> Layer:
        return self.edge.feedback(r_pre, r_post)

    def seen(self, pre: tuple[Layer, Layer], post: tuple[Layer, Layer]) -> Plastic:
        """``beta B dtheta(t)``: the increment of a step."""
        return self.increment.edge(self.edge, pre, post)

    @override
    def advance(self, pre: tuple[Layer, Layer], post: tuple[Layer, Layer]) -> "Rewritten":
        moved = add_scaled(self.edge, self.rate, self.seen(pre, post))
        return eqx.tree_at(lambda m: m.edge, self, moved)

    @override
    def settle(self) -> Plastic:
        return self.edge

    @override
    def products(self, drive: float, rows: int) -> Products:
        # Forward, back, and rates times rates twice; from the input one product of each kind.
        return Products(2 * drive if self.from_input else 4 * drive, 0)


@final
class FromInput(Moving):
    """A matrix of weights from the input, whose increments telescope because the input stands
    still: under EP's and under VF's.

    ``drive(t) = drive(0) + rate (x x^T + 1) (r_post(t) - r_post(0))``.
    """

    edge: Tied
    r_input: Layer
    rate: Scalar
    gram: Float[Array, "B B"]
    drive: Layer
    start: Layer
    now: Layer

    @override
    def forward(self, r_pre: Layer) -> Layer:
        return self.drive + self.rate * multiply(self.gram, self.now - self.start)

    @override
    def feedback(self, r_pre: Layer, r_post: Layer) -> Layer:
        return self.edge.feedback(r_pre, r_post)

    @override
    def advance(self, pre: tuple[Layer, Layer], post: tuple[Layer, Layer]) -> "FromInput":
        return eqx.tree_at(lambda m: m.now, self, post[1])

    @override
    def settle(self) -> Plastic:
        step = self.edge.statistic(self.r_input, self.now - self.start)
        return add_scaled(self.edge, self.rate, step)

    @override
    def products(self, drive: float, rows: int) -> Products:
        # x x^T and the statistic once; x x^T times changes at every step.
        n_pre, n_post = self.r_input[0].size, self.now[0].size
        return Products(rows**2 * n_post, rows**2 * n_pre + drive)


@final
class Telescoped(Moving):
    """A tied matrix of weights under C-EP: ``theta(t) = theta(0) + rate (P(t) - P(0))`` with
    ``P = r_pre^T r_post``.

    Written out afresh at every step from the present rates: one product where ``Rewritten`` takes
    two, and no sum that is carried on. ``base`` is ``theta(0) - rate P(0)``.
    """

    base: Plastic
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
    def settle(self) -> Plastic:
        return add_scaled(self.base, self.rate, self.base.statistic(*self.now))

    @override
    def products(self, drive: float, rows: int) -> Products:
        return Products(3 * drive, 2 * drive)


@final
class LowRank(Moving):
    """The same for large matrices: two terms of rank B act on the rates without being written."""

    edge: Tied
    rate: Scalar
    start: tuple[Layer, Layer]
    now: tuple[Layer, Layer]

    def _terms(self) -> tuple[tuple[Layer, Layer, Scalar], ...]:
        return ((*self.now, self.rate), (*self.start, -self.rate))

    @override
    def forward(self, r_pre: Layer) -> Layer:
        drive = self.edge.forward(r_pre)
        bias = _learns_bias(self.edge.connection)
        rows = r_pre.reshape(len(r_pre), -1)
        for pre, post, rate in self._terms():
            overlap = multiply(rows, pre.reshape(len(pre), -1).T)
            drive += rate * multiply(overlap + 1 if bias else overlap, post)
        return drive

    @override
    def feedback(self, r_pre: Layer, r_post: Layer) -> Layer:
        drive = self.edge.feedback(r_pre, r_post)
        for pre, post, rate in self._terms():
            moved = multiply(multiply(r_post, post.T), pre.reshape(len(pre), -1))
            drive += rate * moved.reshape(drive.shape)
        return drive

    @override
    def advance(self, pre: tuple[Layer, Layer], post: tuple[Layer, Layer]) -> "LowRank":
        return eqx.tree_at(lambda m: m.now, self, (pre[1], post[1]))

    @override
    def settle(self) -> Plastic:
        (pre_0, post_0), (pre, post) = self.start, self.now
        step = Equilibrium().edge(self.edge, (pre_0, pre), (post_0, post))
        return add_scaled(self.edge, self.rate, step)

    @override
    def products(self, drive: float, rows: int) -> Products:
        n_pre, n_post = self.now[0][0].size, self.now[1][0].size
        return Products(2 * drive + 4 * rows**2 * (n_pre + n_post), 2 * drive)


def add_scaled[T](tree: T, rate: Scalar, step: T) -> T:
    """``tree + rate * step``."""
    return jax.tree.map(lambda leaf, d: leaf + rate.astype(leaf.dtype) * d, tree, step)
