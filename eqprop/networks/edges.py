"""Edges: connections between two layers of a network, tied or untied."""

import abc
import dataclasses
import math
from typing import override

import equinox as eqx
import jax
import jax.numpy as jnp

from eqprop.errors import EqpropError
from eqprop.networks.connections import Connection
from eqprop.types import Array, Float, Layer, PRNGKeyArray


class Edge(eqx.Module):
    """Abstract: a connection between the layers ``pre`` and ``post`` of a network."""

    pre: eqx.AbstractVar[int]
    post: eqx.AbstractVar[int]

    @abc.abstractmethod
    def forward(self, r_pre: Layer) -> Layer:
        """Drive on layer ``post``."""

    @abc.abstractmethod
    def feedback(self, r_pre: Layer, r_post: Layer) -> Layer:
        """Drive on layer ``pre``."""

    @abc.abstractmethod
    def statistic(self, r_pre: Layer, r_post: Layer) -> "Edge":
        """``dPhi/dtheta``, summed over the batch and linear in ``r_post``."""

    @abc.abstractmethod
    def vector_field(self, r_pre: Layer, d_pre: Layer, r_post: Layer, d_post: Layer) -> "Edge":
        """Presynaptic rate times postsynaptic change, for each parameter; summed over the batch."""

    def kernel(self, r_pre: Layer, other: Layer) -> Float[Array, "B other"] | None:
        """``Connection.kernel``, where one connection serves both directions; else None."""
        return None


class Tied(Edge):
    """One set of weights used in both directions: ``dPhi/dtheta`` exists."""

    pre: int = eqx.field(static=True)
    post: int = eqx.field(static=True)
    connection: Connection

    @override
    def forward(self, r_pre: Layer) -> Layer:
        return self.connection(r_pre)

    @override
    def feedback(self, r_pre: Layer, r_post: Layer) -> Layer:
        return self.connection.feedback(r_pre, r_post)

    @override
    def statistic(self, r_pre: Layer, r_post: Layer) -> "Tied":
        return Tied(self.pre, self.post, self.connection.statistic(r_pre, r_post))

    @override
    def vector_field(self, r_pre: Layer, d_pre: Layer, r_post: Layer, d_post: Layer) -> "Tied":
        ahead = self.connection.statistic(r_pre, d_post)
        back = self.connection.feedback_statistic(r_pre, d_pre, r_post)
        return Tied(self.pre, self.post, jax.tree.map(jnp.add, ahead, back))

    @override
    def kernel(self, r_pre: Layer, other: Layer) -> Float[Array, "B other"] | None:
        return self.connection.kernel(r_pre, other)


class Untied(Edge):
    """Forward weights ``ahead`` and separate feedback weights ``back`` (of the same shape, no
    bias).

    The feedback goes to the units from which the forward drive comes: where there is max-pooling,
    to its winners.
    """

    pre: int = eqx.field(static=True)
    post: int = eqx.field(static=True)
    ahead: Connection
    back: Connection

    @override
    def forward(self, r_pre: Layer) -> Layer:
        return self.ahead(r_pre)

    @override
    def feedback(self, r_pre: Layer, r_post: Layer) -> Layer:
        return self.back.guided(self.ahead).feedback(r_pre, r_post)

    @override
    def statistic(self, r_pre: Layer, r_post: Layer) -> "Untied":
        raise EqpropError(
            f"the edge {self.pre}->{self.post} is untied, so dPhi/dtheta does not exist: "
            "use a vector-field rule (vf, c-vf), or tied weights"
        )

    @override
    def vector_field(self, r_pre: Layer, d_pre: Layer, r_post: Layer, d_post: Layer) -> "Untied":
        def feedback(back: Connection) -> Layer:
            return dataclasses.replace(self, back=back).feedback(r_pre, r_post)

        _, vjp = jax.vjp(feedback, self.back)
        return Untied(self.pre, self.post, self.ahead.statistic(r_pre, d_post), *vjp(d_pre))


class Clamped(Edge):
    """An edge from the static input: its drive, computed once, stands in for its weights."""

    pre: int = eqx.field(static=True)
    post: int = eqx.field(static=True)
    drive: Layer

    @override
    def forward(self, r_pre: Layer) -> Layer:
        return self.drive

    @override
    def feedback(self, r_pre: Layer, r_post: Layer) -> Layer:
        raise NotImplementedError("the input receives no feedback")

    @override
    def statistic(self, r_pre: Layer, r_post: Layer) -> "Clamped":
        raise NotImplementedError("a clamped drive has no parameters")

    @override
    def vector_field(self, r_pre: Layer, d_pre: Layer, r_post: Layer, d_post: Layer) -> "Clamped":
        raise NotImplementedError("a clamped drive has no parameters")


def untied(pre: int, post: int, ahead: Connection, angle: float, key: PRNGKeyArray) -> Untied:
    """Feedback weights equal to the forward ones but for sign flips of probability ``(1 - cos
    angle)/2``.

    ``angle`` in degrees; the angle realised differs from it by chance. The feedback has no bias.
    """
    if not 0 <= angle <= 180:
        raise EqpropError(
            f"the angle between forward and feedback weights is {angle}: give 0 to 180 degrees"
        )
    p = (1 - math.cos(math.radians(angle))) / 2
    leaves, structure = jax.tree.flatten(without_bias(ahead))
    keys = jax.random.split(key, len(leaves))
    flipped = [
        jnp.where(jax.random.bernoulli(k, p, leaf.shape), -leaf, leaf)
        for k, leaf in zip(keys, leaves, strict=True)
    ]
    return Untied(pre, post, ahead, jax.tree.unflatten(structure, flipped))


def without_bias(connection: Connection) -> Connection:
    """The same connection with its bias, if it has one, set to None."""
    if getattr(connection, "bias", None) is None:
        return connection
    return eqx.tree_at(lambda c: c.bias, connection, None)


def realised_angle(edge: Untied) -> Float[Array, ""]:
    """``arccos(<Wf, Wb> / (|Wf| |Wb|))`` in degrees; 90 where all weights are 0."""
    ahead, back = (
        jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(c)])
        for c in (without_bias(edge.ahead), edge.back)
    )
    norms = jnp.linalg.norm(ahead) * jnp.linalg.norm(back)
    cosine = ahead @ back / jnp.where(norms > 0, norms, 1)
    return jnp.degrees(jnp.arccos(jnp.clip(cosine, -1, 1)))
