"""What becomes of a change of the weights, where what holds them does not do exactly as told."""

import abc
from typing import Any

import equinox as eqx

from eqprop.networks.model import Model
from eqprop.types import Array, Float, PRNGKeyArray

type Stored = Any
"""What holds the weights, as it is: a pytree of arrays."""


class Writing(eqx.Module):
    """Abstract: weights are programmed once, and then written whenever a learner changes them."""

    @abc.abstractmethod
    def program(self, network: Model, key: PRNGKeyArray) -> Model:
        """The network as it stands after its weights have been set to these."""

    @abc.abstractmethod
    def init(self, network: Model) -> Stored:
        """What holds the weights of a network as it has been programmed."""

    @abc.abstractmethod
    def write(
        self, network: Model, stored: Stored, change: Model, key: PRNGKeyArray
    ) -> tuple[Model, Stored]:
        """The network, and what holds it, after a change was asked for."""

    @abc.abstractmethod
    def rest(self, network: Model, stored: Stored) -> tuple[Model, Stored]:
        """The same at the end of a minibatch, after its last writing."""

    @abc.abstractmethod
    def begin(self, stored: Stored) -> Stored:
        """The same at the beginning of a minibatch, before its first writing."""

    @abc.abstractmethod
    def seen(self, stored: Stored) -> dict[str, Float[Array, ""]]:
        """What there is to report of the last minibatch, by the names of metrics."""
