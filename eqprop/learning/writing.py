"""How what holds the weights takes changes of them, where it does not do exactly as told:
programming, pulses, drift.
"""

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
        """The network after its weights have been set to these, as it is remembered."""

    @abc.abstractmethod
    def shown(self, network: Model, key: PRNGKeyArray) -> Model:
        """A programmed network as it stands, by the same key."""

    @abc.abstractmethod
    def init(self, network: Model) -> Stored:
        """What holds the weights of a network that has been programmed."""

    @abc.abstractmethod
    def write(
        self, network: Model, stored: Stored, change: Model, key: PRNGKeyArray
    ) -> tuple[Model, Stored]:
        """The network, and what holds it, after a change was asked for."""

    @abc.abstractmethod
    def rest(self, network: Model, stored: Stored) -> tuple[Model, Stored]:
        """The same after the last writing of a minibatch: weights leak, and what is reported of it
        is measured.
        """

    @abc.abstractmethod
    def begin(self, stored: Stored) -> Stored:
        """The same before the first writing of a minibatch: counters go back to 0."""

    @abc.abstractmethod
    def seen(self, stored: Stored) -> dict[str, Float[Array, ""]]:
        """What there is to report of the last minibatch, by the names of metrics."""
