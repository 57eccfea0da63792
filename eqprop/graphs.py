"""Graphs of connections: chains, skip connections, lateral ones; tied or untied."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import override

import equinox as eqx
import jax
import jax.numpy as jnp

from eqprop.errors import EqpropError
from eqprop.network import (
    Connection,
    Dense,
    Edge,
    Network,
    Product,
    Tied,
    Untied,
    check_shapes,
)
from eqprop.types import Array, Float, Layer, PRNGKeyArray, Shape

type Build = Callable[[Shape, Shape, PRNGKeyArray], Connection]
"""Makes a connection for a presynaptic shape, a postsynaptic shape and a key."""

type Link = tuple[int, int, Build]
"""(pre, post, how to make the connection)."""


class Lateral(Connection):
    """Connections within a layer: symmetric, none from a unit to itself, each pair of units once.

    ``Phi = sum over pairs i < j of r_i U_ij r_j = 1/2 r J r`` with ``J = U + U^T``; ``U`` is what
    ``weight`` (n, n) holds above its diagonal, and the rest of it has no effect and never learns.
    As an edge from a layer to itself it drives by ``r U``, its feedback by ``r U^T``: ``r J``
    together. The 1/2 of the quadratic form is thereby in the counting: the statistic of a pair is
    ``r_i r_j``, as between layers, not the half of it that the entries J_ij and J_ji would share.

    Untied, the two directions of a pair have a weight each, ``J = U_ahead + U_back^T``. There is no
    bias: give one to another edge into the layer. A layer with several axes is flattened.
    """

    weight: Float[Array, "n n"]
    product: Product = eqx.field(static=True, default=jnp.matmul)

    @property
    def upper(self) -> Float[Array, "n n"]:
        """``U``, zero on the diagonal and below."""
        return jnp.triu(self.weight, 1)

    @override
    def __call__(self, r_pre: Layer) -> Layer:
        return self.product(r_pre.reshape(r_pre.shape[0], -1), self.upper).reshape(r_pre.shape)

    @override
    def with_product(self, product: Product) -> "Lateral":
        return dataclasses.replace(self, product=product)

    @classmethod
    def init(cls, pre: Shape, post: Shape, key: PRNGKeyArray) -> "Lateral":
        """Weights uniform in ``+-1/sqrt(n)``. Raises ``EqpropError`` between different layers."""
        if pre != post:
            raise EqpropError(f"lateral connections from a layer {pre} to one of {post}")
        n = math.prod(pre)
        bound = n**-0.5
        return cls(jnp.triu(jax.random.uniform(key, (n, n), minval=-bound, maxval=bound), 1))


def graph(
    shapes: Sequence[Shape],
    links: Sequence[Link],
    key: PRNGKeyArray,
    *,
    angle: float | None = None,
) -> Network:
    """A network of layers 0 ... N and any connections between them.

    A link ``(pre, post, build)`` makes an edge, which sends drives both ways: a step of a chain
    ``(1, 2)``, a skip ``(1, 3)``, a lateral connection ``(2, 2)``. ``angle`` (degrees, 0 ... 180)
    unties the feedback weights of all edges but those from the input, at that initial angle to the
    forward ones; None ties them. Raises ``EqpropError`` where layers and links don't fit.
    """
    shapes = tuple(tuple(shape) for shape in shapes)
    check_shapes(shapes)
    edges: list[Edge] = []
    for (pre, post, build), k in zip(links, jax.random.split(key, len(links)), strict=True):
        if not (0 <= pre < len(shapes) and 1 <= post < len(shapes)):
            raise EqpropError(
                f"a link {pre}->{post} in a network whose layers run from 0, the input, "
                f"to {len(shapes) - 1}"
            )
        init_key, flip_key = jax.random.split(k)
        connection = build(shapes[pre], shapes[post], init_key)
        if angle is None or pre == 0:
            edges.append(Tied(pre, post, connection))
        else:
            edges.append(untied(pre, post, connection, angle, flip_key))
    return Network(shapes, tuple(edges))


def chain(
    shapes: Sequence[Shape],
    key: PRNGKeyArray,
    builds: Sequence[Build] | None = None,
    *,
    angle: float | None = None,
) -> Network:
    """A network of layers in a row, dense unless ``builds`` says otherwise; ``angle`` as in
    ``graph``.
    """
    check_shapes(tuple(tuple(shape) for shape in shapes))
    builds = [Dense.init] * (len(shapes) - 1) if builds is None else builds
    return graph(shapes, in_a_row(builds), key, angle=angle)


def in_a_row(builds: Sequence[Build]) -> list[Link]:
    """The links of a chain, from the input side to the output."""
    return [(post - 1, post, build) for post, build in enumerate(builds, 1)]


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
