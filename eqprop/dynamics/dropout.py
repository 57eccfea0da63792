"""Dropout: units that are silent while a minibatch is learnt, of each example others."""

from dataclasses import replace
from typing import final

import equinox as eqx
import jax

from eqprop.dynamics.altered import Thinned
from eqprop.dynamics.system import System
from eqprop.errors import EqpropError
from eqprop.networks.model import Model
from eqprop.types import Layer, PRNGKeyArray


@final
class Dropout(eqx.Module):
    """Silences each hidden unit with one probability, and each input with another (Srivastava et
    al., JMLR 2014), for one example and through both of its phases.

    What is left is ``1 / (1 - probability)`` times as strong, so that the network is tested as it
    is. What settles is a network whose units have activations of their own, ``m_i sigma``, so
    rules follow its gradient as they follow that of the whole one. In discrete time only, see
    ``Thinned``.

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
            # A readout takes the place of the output layer: all layers are hidden then.
            outputs = network.outputs if network.readout is None else ()
            hidden = [n for n in range(1, len(network.shapes)) if n not in outputs]
            thinned = Thinned(system.dynamics, {n: factors(n, self.hidden) for n in hidden})
            system = replace(system, dynamics=thinned)
        return system, x
