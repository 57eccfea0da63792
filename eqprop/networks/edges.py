"""Edges: what sends drives between two layers of a network.

Edges whose weights learn are ``Plastic``: ``Tied``, ``Untied`` or ``OneWay``. ``Clamped`` stands in
for one from the static input while a network relaxes.
"""

import abc
import dataclasses
import math
from typing import final, override

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from eqprop.errors import EqpropError
from eqprop.networks.connections import Connection
from eqprop.types import Array, Float, Layer, PRNGKeyArray, Shape

INPUT = 0
"""The layer that is the input: static, and without feedback."""


class Edge(eqx.Module):
    """Abstract: drives between the layers ``pre`` and ``post`` of a network."""

    pre: int = eqx.field(static=True)
    post: int = eqx.field(static=True)

    @property
    def from_input(self) -> bool:
        """Whether the presynaptic layer is the input, which does not move and hears nothing."""
        return self.pre == INPUT

    @abc.abstractmethod
    def forward(self, r_pre: Layer) -> Layer:
        """The drive on layer ``post``, ``(B, *post)``, for presynaptic rates ``(B, *pre)``."""

    @abc.abstractmethod
    def feedback(self, r_pre: Layer, r_post: Layer) -> Layer:
        """The drive on layer ``pre``, ``(B, *pre)``."""


class Plastic(Edge):
    """Abstract: an edge with parameters that learn from what its two ends do."""

    @property
    @abc.abstractmethod
    def reciprocal(self) -> bool:
        """Whether feedback is the transpose of ``forward``, so that ``Phi`` exists."""

    def check_reciprocal(self) -> None:
        """Raises ``EqpropError`` where ``Phi`` does not exist."""
        if not self.reciprocal:
            raise EqpropError(
                f"the edge {self.pre}->{self.post} is not reciprocal, so dPhi/dtheta does not "
                "exist: use a rule for untied weights (vf, c-vf, aep, c-aep), or tied ones"
            )

    def prepared(self, pre: Shape) -> "Plastic":
        """The same edge from a layer of that shape, its connections prepared for many calls; itself
        where it does something of its own with their weights.
        """
        return self

    @abc.abstractmethod
    def statistic(self, r_pre: Layer, r_post: Layer) -> "Plastic":
        """The gradient in theta of ``r_post . forward(r_pre)``, summed over the batch and linear in
        ``r_post``: ``dPhi/dtheta``, where the edge is reciprocal.
        """

    @abc.abstractmethod
    def vector_field(self, r_pre: Layer, d_pre: Layer, r_post: Layer, d_post: Layer) -> "Plastic":
        """Presynaptic rate times postsynaptic change, for each parameter; summed over the batch."""


@final
class Tied(Plastic):
    """One set of weights used in both directions: ``dPhi/dtheta`` exists."""

    connection: Connection

    @property
    @override
    def reciprocal(self) -> bool:
        return True

    @override
    def forward(self, r_pre: Layer) -> Layer:
        return self.connection(r_pre)

    @override
    def feedback(self, r_pre: Layer, r_post: Layer) -> Layer:
        return self.connection.feedback(r_pre, r_post)

    @override
    def prepared(self, pre: Shape) -> "Tied":
        return dataclasses.replace(self, connection=self.connection.prepared(pre))

    @override
    def statistic(self, r_pre: Layer, r_post: Layer) -> "Tied":
        return Tied(self.pre, self.post, self.connection.statistic(r_pre, r_post))

    @override
    def vector_field(self, r_pre: Layer, d_pre: Layer, r_post: Layer, d_post: Layer) -> "Tied":
        ahead = self.connection.statistic(r_pre, d_post)
        back = self.connection.feedback_statistic(r_pre, d_pre, r_post)
        return Tied(self.pre, self.post, jax.tree.map(jnp.add, ahead, back))


@final
class Untied(Plastic):
    """Forward weights ``ahead`` and separate feedback weights ``back`` (of the same shape, no
    bias).

    The feedback goes to the units from which the forward drive comes: where there is max-pooling,
    to its winners. Feedback weights that do not learn have an update of 0 in every rule.
    """

    ahead: Connection
    back: Connection
    learns_back: bool = eqx.field(static=True, default=True)

    @property
    @override
    def reciprocal(self) -> bool:
        return False

    @override
    def forward(self, r_pre: Layer) -> Layer:
        return self.ahead(r_pre)

    @override
    def feedback(self, r_pre: Layer, r_post: Layer) -> Layer:
        back = self.back if self.learns_back else lax.stop_gradient(self.back)
        return back.guided(self.ahead).feedback(r_pre, r_post)

    @override
    def prepared(self, pre: Shape) -> "Untied":
        ahead, back = self.ahead.prepared(pre), self.back.prepared(pre)
        return dataclasses.replace(self, ahead=ahead, back=back)

    @override
    def statistic(self, r_pre: Layer, r_post: Layer) -> "Untied":
        none = jax.tree.map(jnp.zeros_like, self.back)
        return dataclasses.replace(self, ahead=self.ahead.statistic(r_pre, r_post), back=none)

    @override
    def vector_field(self, r_pre: Layer, d_pre: Layer, r_post: Layer, d_post: Layer) -> "Untied":
        def feedback(back: Connection) -> Layer:
            return dataclasses.replace(self, back=back).feedback(r_pre, r_post)

        _, vjp = jax.vjp(feedback, self.back)
        (back,) = vjp(d_pre)
        return dataclasses.replace(self, ahead=self.ahead.statistic(r_pre, d_post), back=back)


@final
class OneWay(Plastic):
    """Forward weights alone: the layer behind hears nothing of the one ahead."""

    ahead: Connection

    @property
    @override
    def reciprocal(self) -> bool:
        return False

    @override
    def forward(self, r_pre: Layer) -> Layer:
        return self.ahead(r_pre)

    @override
    def feedback(self, r_pre: Layer, r_post: Layer) -> Layer:
        return jnp.zeros_like(r_pre)

    @override
    def prepared(self, pre: Shape) -> "OneWay":
        return dataclasses.replace(self, ahead=self.ahead.prepared(pre))

    @override
    def statistic(self, r_pre: Layer, r_post: Layer) -> "OneWay":
        return OneWay(self.pre, self.post, self.ahead.statistic(r_pre, r_post))

    @override
    def vector_field(self, r_pre: Layer, d_pre: Layer, r_post: Layer, d_post: Layer) -> "OneWay":
        return self.statistic(r_pre, d_post)


@final
class Clamped(Edge):
    """An edge from the static input: its drive, computed once, stands in for its weights."""

    drive: Layer

    @override
    def forward(self, r_pre: Layer) -> Layer:
        return self.drive

    @override
    def feedback(self, r_pre: Layer, r_post: Layer) -> Layer:
        # The drive is a constant, so its derivative in the presynaptic rates is 0.
        return jnp.zeros_like(r_pre)


def untied(pre: int, post: int, ahead: Connection, angle: float, key: PRNGKeyArray) -> Untied:
    """An edge whose feedback weights equal the forward ones but for sign flips of probability
    ``(1 - cos angle)/2``.

    ``angle`` in degrees; the angle realised differs from it by chance. The feedback has no bias.
    Raises ``EqpropError`` for an angle outside 0 ... 180.
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
    cosine = jnp.sum(ahead * back) / jnp.where(norms > 0, norms, 1)
    return jnp.degrees(jnp.arccos(jnp.clip(cosine, -1, 1)))
