"""Rules: how an update of the parameters is found from a batch, for an optimizer to apply."""

import abc
from typing import final, override

import equinox as eqx
import jax

from eqprop.dynamics.nudges import Nudge
from eqprop.dynamics.system import Free, System
from eqprop.learning.increments import Increment
from eqprop.networks.model import Model
from eqprop.types import Layer, PRNGKeyArray, States, Targets


class Rule(eqx.Module):
    """Abstract: finds an update of the parameters from a batch, to be applied by an optimizer."""

    @abc.abstractmethod
    def update(
        self, system: System, network: Model, x: Layer, y: Targets, key: PRNGKeyArray
    ) -> tuple[Model, Free]:
        """The update (an ascent direction, mean over the batch), and the free phase it was found
        from.
        """


def with_readout(system: System, mean: Model, network: Model, free: States, y: Targets) -> Model:
    """An update, mean over the batch, with that of the readout in its place."""
    seen = system.read(free, nudged=False)
    return mean.with_readout(system.readout_update(network, seen[-1], y))


@final
class AfterPhase(Rule):
    """EP or VF: ``d/dbeta`` at 0, by the stencil of the nudge, of ``1/B sum_t`` of the increments
    of the K nudged steps (arXiv:2005.04169; arXiv:2006.03824 for the stencils).

    ``update`` raises ``EqpropError`` for a complex nudge where the step is not analytic.
    """

    increment: Increment
    nudge: Nudge

    @override
    def update(
        self, system: System, network: Model, x: Layer, y: Targets, key: PRNGKeyArray
    ) -> tuple[Model, Free]:
        stencil = self.nudge.of_batch(key, len(x))
        if stencil.is_complex:
            system.check_analytic(network)
        free = system.free(system.clamp(network, x), x)
        total = self.increment.total(system, network, x, y, free.states, stencil)
        mean = jax.tree.map(lambda leaf: leaf / x.shape[0], total)
        return with_readout(system, mean, network, free.states, y), free
