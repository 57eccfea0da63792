"""Feedback weights that are imperfect copies of the forward ones."""

import dataclasses
from typing import final, override

import equinox as eqx
import jax
import jax.numpy as jnp

from eqprop.devices.noise import fixed
from eqprop.devices.record import Device
from eqprop.networks.connections import Connection
from eqprop.networks.edges import Edge, Plastic, Tied, Untied, without_bias
from eqprop.networks.network import Network
from eqprop.types import Layer


@final
class Copied(Plastic):
    """A tied edge as a rule takes it to be, whose feedback goes through ``(1 + spread) W``: the
    mismatch of each weight stays, and nobody knows it.
    """

    connection: Connection
    device: Device = eqx.field(static=True)
    place: int = eqx.field(static=True)
    """Among the edges of the network."""

    @property
    @override
    def reciprocal(self) -> bool:
        return True

    @override
    def forward(self, r_pre: Layer) -> Layer:
        return self.connection(r_pre)

    @override
    def feedback(self, r_pre: Layer, r_post: Layer) -> Layer:
        copy = mismatched(self.connection, self.device, self.place)
        return copy.guided(self.connection).feedback(r_pre, r_post)

    @override
    def statistic(self, r_pre: Layer, r_post: Layer) -> "Copied":
        return dataclasses.replace(self, connection=self.connection.statistic(r_pre, r_post))

    @override
    def vector_field(self, r_pre: Layer, d_pre: Layer, r_post: Layer, d_post: Layer) -> "Copied":
        ahead = self.connection.statistic(r_pre, d_post)
        back = self.connection.feedback_statistic(r_pre, d_pre, r_post)
        return dataclasses.replace(self, connection=jax.tree.map(jnp.add, ahead, back))


def mismatched(connection: Connection, device: Device, place: int) -> Connection:
    """The copy, without a bias, whose weights are ``1 + feedback_spread`` times normal numbers of
    the chip as large.
    """
    leaves, structure = jax.tree.flatten(without_bias(connection))
    factors = [
        1 + device.feedback_spread * fixed(device.chip, f"feedback {n}", place, leaf.shape)
        for n, leaf in enumerate(leaves)
    ]
    copies = [leaf * f.astype(leaf.dtype) for leaf, f in zip(leaves, factors, strict=True)]
    return jax.tree.unflatten(structure, copies)


def with_copies(network: Network, device: Device) -> Network:
    """The network with a mismatch between forward and feedback weights: one that stays where they
    are tied; a first one, from where both go their own ways, where they are untied.
    """

    def edge(place: int, edge: Edge) -> Edge:
        if isinstance(edge, Untied):
            return eqx.tree_at(lambda e: e.back, edge, mismatched(edge.back, device, place))
        if isinstance(edge, Tied) and not edge.from_input:
            return Copied(edge.pre, edge.post, edge.connection, device, place)
        return edge

    return network.replace_edges([edge(*pair) for pair in enumerate(network.edges)])
