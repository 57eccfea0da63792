"""Graphs of connections: chains, skip connections, lateral ones; tied or untied."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import jax

from eqprop.errors import EqpropError
from eqprop.networks.connections import Connection, Dense
from eqprop.networks.edges import Edge, OneWay, Tied, untied
from eqprop.networks.model import check_shapes
from eqprop.networks.network import Network
from eqprop.types import PRNGKeyArray, Shape

type Build = Callable[[Shape, Shape, PRNGKeyArray], Connection]
"""Makes a connection for a presynaptic shape, a postsynaptic shape and a key."""

type Feedback = Literal["trained", "frozen", "none"]
"""Whether untied feedback weights learn, stay as drawn, or are left out."""

type Link = tuple[int, int, Build]
"""(pre, post, how to make the connection)."""


def graph(
    shapes: Sequence[Shape],
    links: Sequence[Link],
    key: PRNGKeyArray,
    *,
    angle: float | None = None,
    feedback: Feedback = "trained",
) -> Network:
    """A network of layers 0 ... N and any connections between them.

    A link ``(pre, post, build)`` makes an edge, which sends drives both ways: a step of a chain
    ``(1, 2)``, a skip ``(1, 3)``, a lateral connection ``(2, 2)``. ``angle`` (degrees, 0 ... 180)
    unties the feedback weights of all edges but those from the input, at that initial angle to the
    forward ones; None ties them. ``feedback`` is for untied edges: "frozen" weights never learn,
    with "none" there are no feedback weights, and no angle.

    Raises ``EqpropError`` where layers and links don't fit.
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
        if pre == 0 or (angle is None and feedback != "none"):
            edges.append(Tied(pre, post, connection))
        elif angle is None:
            edges.append(OneWay(pre, post, connection))
        else:
            edge = untied(pre, post, connection, angle, flip_key)
            edges.append(dataclasses.replace(edge, learns_back=feedback != "frozen"))
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
    builds = [Dense.init] * (len(shapes) - 1) if builds is None else builds
    return graph(shapes, in_a_row(builds), key, angle=angle)


def in_a_row(builds: Sequence[Build]) -> list[Link]:
    """The links of a chain, from the input side to the output."""
    return [(post - 1, post, build) for post, build in enumerate(builds, 1)]
