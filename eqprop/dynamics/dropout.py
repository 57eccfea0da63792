"""Dropout: units that are silent while a minibatch is learnt, of each example others."""

from collections.abc import Callable
from dataclasses import replace
from typing import final, override

import equinox as eqx
import jax

from eqprop.dynamics.activations import Activation
from eqprop.dynamics.step import Dynamics, Place
from eqprop.dynamics.system import System
from eqprop.errors import EqpropError
from eqprop.networks.model import Model
from eqprop.types import Forces, Layer, PRNGKeyArray, Rates, States


@final
class Dropout(eqx.Module):
    """Silences each hidden unit with one probability, and each input with another (Srivastava et
    al., JMLR 2014), for one example and through both of its phases.

    What is left is ``1 / (1 - probability)`` times as strong, so that the network is tested as it
    is. What settles is a network whose units have activations of their own, ``m_i sigma``, so
    rules follow its gradient as they follow that of the whole one. For discrete time only: in real
    time a factor in each step would be another flow.

    Raises ``EqpropError`` for what is no probability below 1.
    """

    hidden: float = eqx.field(static=True, default=0.0)
    inputs: float = eqx.field(static=True, default=0.0)

    def __check_init__(self) -> None:
        for name, value in (("dropout", self.hidden), ("input_dropout", self.inputs)):
            if not 0 <= value < 1:
                raise EqpropError(
                    f"{name} is {value}: give the part of the units to silence, from 0 to below 1"
                )

    def __call__(
        self, system: System, network: Model, x: Layer, key: PRNGKeyArray
    ) -> tuple[System, Layer]:
        """The system for one minibatch of that network, and its input ``(B, *input)``, by the key
        of the minibatch.
        """

        def factors(layer: int, probability: float) -> Layer:
            shape, kept = (len(x), *network.shapes[layer]), 1 - probability
            own = jax.random.fold_in(jax.random.fold_in(key, 5), layer)
            drawn = jax.random.bernoulli(own, kept, shape)
            return drawn.astype(x.dtype) / kept

        if self.inputs:
            x = x * factors(0, self.inputs)
        if self.hidden:
            hidden = [n for n in range(1, len(network.shapes)) if n not in network.outputs]
            exact = system.dynamics
            thinned = Thinned(exact.activation, exact, {n: factors(n, self.hidden) for n in hidden})
            system = replace(system, dynamics=thinned)
        return system, x


@final
class Thinned(Dynamics):
    """Other dynamics, in which each step multiplies what a unit becomes by a factor of its own."""

    activation: Activation = eqx.field(static=True)
    """That of the other dynamics."""
    exact: Dynamics
    factors: dict[int, Layer]
    """By layer, from 1 to N, ``(B, *units)``."""

    @property
    @override
    def dt(self) -> float:
        return self.exact.dt

    @override
    def map_rows(self, repeat: Callable[[Layer], Layer]) -> "Thinned":
        factors = {n: repeat(factor) for n, factor in self.factors.items()}
        return Thinned(self.activation, self.exact.map_rows(repeat), factors)

    @override
    def check_analytic(self) -> None:
        self.exact.check_analytic()

    @override
    def rates(self, x: Layer, states: States) -> Rates:
        return self.exact.rates(x, states)

    @override
    def react(self, states: States, drives: States, forces: Forces, at: Place) -> States:
        moved = self.exact.react(states, drives, forces, at)
        return tuple(
            s * self.factors[n] if n in self.factors else s
            for n, s in zip(at.layers, moved, strict=True)
        )
