"""Normalisation of the input: a connection that sees ``(r - mean) / std`` of what the input sends.

It is part of the connection, as a batch norm folded into a convolution would be: images stay bytes
on the device, and training, evaluation and verification see the same network.
"""

import dataclasses
from typing import final, override

import equinox as eqx
import jax.numpy as jnp

from eqprop.errors import EqpropError
from eqprop.networks.connections import Connection, Product
from eqprop.types import Layer, Shape


@final
class Normalised(Connection):
    """``connection((r_pre - mean) / std)``, channel by channel; mean and std do not learn.

    They are as many as channels, along the last axis, or one each for all. An average pixel is 0,
    as are the zeros with which a convolution pads.
    """

    connection: Connection
    mean: tuple[float, ...] = eqx.field(static=True)
    std: tuple[float, ...] = eqx.field(static=True)

    @property
    @override
    def analytic(self) -> bool:
        return self.connection.analytic

    def __check_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise EqpropError(
                f"mean {self.mean} and std {self.std} of channels: give as many of each, and each "
                "std above 0"
            )

    def normalise(self, r: Layer) -> Layer:
        """``(r - mean) / std``, what the connection within sees."""
        if len(self.mean) not in (1, r.shape[-1]):
            raise EqpropError(
                f"{len(self.mean)} means for the {r.shape[-1]} channels of the input: give one for "
                "each, or one for all"
            )
        return (r - jnp.asarray(self.mean, r.dtype)) / jnp.asarray(self.std, r.dtype)

    @override
    def __call__(self, r_pre: Layer) -> Layer:
        return self.connection(self.normalise(r_pre))

    @override
    def multiplications(self, pre: Shape) -> int:
        return self.connection.multiplications(pre)

    @override
    def fix_bias(self) -> "Normalised":
        return dataclasses.replace(self, connection=self.connection.fix_bias())

    @override
    def with_product(self, product: Product) -> "Normalised":
        return dataclasses.replace(self, connection=self.connection.with_product(product))
