"""Learning rules: two local increments, applied after the nudged phase or at every step of it.

|               | after the phase | at every step (continual) |
|---------------|-----------------|---------------------------|
| `Equilibrium` | EP              | C-EP                      |
| `VectorField` | VF              | C-VF                      |

An increment between two consecutive states, divided by ``beta B``, is ``dtheta(t)`` of the papers:
training applies it, and the curves of Theorem 1 plot it.
"""

import abc
from typing import NamedTuple, override

import equinox as eqx
import jax

from eqprop.dynamics.nudges import Nudge
from eqprop.dynamics.relaxation import Settled
from eqprop.dynamics.system import System
from eqprop.learning.increments import Increment
from eqprop.networks.network import Network
from eqprop.types import Layer, PRNGKeyArray, States, Targets


class Free(NamedTuple):
    """A free phase: the states ``s*`` and how the relaxation ended."""

    states: States
    settled: Settled


class Rule(eqx.Module):
    """Abstract: finds an update of the parameters from a batch, to be applied by an optimizer."""

    @abc.abstractmethod
    def update(
        self, system: System, network: Network, x: Layer, y: Targets, key: PRNGKeyArray
    ) -> tuple[Network, Free]:
        """The update (an ascent direction, mean over the batch), and the free phase it was found
        from.
        """


class AfterPhase(Rule):
    """EP or VF: the increments of the nudged phase, summed."""

    increment: Increment
    nudge: Nudge

    @override
    def update(
        self, system: System, network: Network, x: Layer, y: Targets, key: PRNGKeyArray
    ) -> tuple[Network, Free]:
        stencil = self.nudge.stencil(key)
        if stencil.is_complex:
            system.check_analytic(network)
        free = Free(*system.free(system.clamp(network, x), x))
        total = self.increment.total(system, network, x, y, free.states, stencil)
        mean = jax.tree.map(lambda leaf: leaf / x.shape[0], total)
        return mean.change(mean.edges, system.readout_update(network, free.states[-1], y)), free
