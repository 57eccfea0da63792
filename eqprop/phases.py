"""The two phases: a free relaxation to the fixed point, then K nudged steps away from it."""

import equinox as eqx
from jax import lax

from eqprop.dynamics import Dynamics
from eqprop.errors import EqpropError
from eqprop.network import Network
from eqprop.nudging import Cost
from eqprop.relaxation import Relaxation, Settled, Step
from eqprop.types import Array, Layer, States, Strength, Targets


class System(eqx.Module):
    """What settles, and how: dynamics, cost, free relaxation, and the number K of nudged steps.

    ``sweeps`` replaces a synchronous free step by a sweep over the two colours of the connection
    graph, one after the other, which settles in about half as many. A dense net settles to the same
    fixed point where it has one only; with max-pooling it may be another. Nudged phases are
    synchronous.
    """

    dynamics: Dynamics
    cost: Cost
    relaxation: Relaxation
    nudged_steps: int = eqx.field(static=True)
    sweeps: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        if self.nudged_steps < 1:
            raise EqpropError(
                f"the number of nudged steps K is {self.nudged_steps}: it must be at least 1"
            )

    def clamp(self, network: Network, x: Layer) -> Network:
        """The network with everything that the static input contributes computed once."""
        return network.clamp(self.dynamics.rates(x, ())[0])

    def free_step(self, clamped: Network, x: Layer) -> Step:
        """One free step, or one sweep, as a function of the states."""
        if not self.sweeps:
            return lambda s: self.dynamics.step(clamped, x, s)

        def sweep(s: States) -> States:
            for layers in clamped.colours():
                if layers:
                    s = self.dynamics.step(clamped, x, s, layers=layers)
            return s

        return sweep

    def free(self, clamped: Network, x: Layer) -> tuple[States, Settled]:
        """Phase 1: from ``s = 0`` to the fixed point ``s*``."""
        return self.relaxation(self.free_step(clamped, x), clamped.zeros(x.shape[0]))

    def nudged_step(
        self, network: Network, x: Layer, y: Targets, beta: Strength, states: States
    ) -> States:
        """One nudged step; ``beta`` is one number, or one for each row of the batch."""
        force = self.cost.force(states[-1], y)
        force *= beta.reshape(*beta.shape, *[1] * (force.ndim - beta.ndim)) if beta.ndim else beta
        return self.dynamics.step(network, x, states, force)

    def nudged(
        self, clamped: Network, x: Layer, y: Targets, beta: Strength, states: States
    ) -> States:
        """Phase 2: K steps from ``s*`` with nudging strength ``beta``; the last states."""

        def body(_: Array, s: States) -> States:
            return self.nudged_step(clamped, x, y, beta, s)

        return lax.fori_loop(0, self.nudged_steps, body, states)
