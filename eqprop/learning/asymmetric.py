"""Asymmetric EP (AEP, arXiv:2602.03670): exact gradients where connections are asymmetric.

With the free step ``F``, its fixed point ``s*``, and ``J = dF/ds`` there, the nudged phase is

    ``s_{t+1} = F(s_t) - (J - J^T)(s_t - s*) + dt beta force(s_t)``.

To first order in beta the displacement ``d_t = s_t - s*`` obeys ``d_{t+1} = J^T d_t + dt beta
force``, the recursion of backpropagation: hence ``D_s(t) = (s_{t+1} - s_t)/(beta dt) = -grad_s(t)``
and, with increments ``(dF/dtheta at s*)^T D_s(t)``, ``D_theta(t) = -grad_theta(t)``, for tied,
untied or no feedback weights alike. Where J is symmetric the correction vanishes, and the phase is
EP's. It is not local in time: ``s*`` is remembered.
"""

from collections.abc import Callable
from typing import final, override

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from eqprop.dynamics.nudges import Nudge, weighted
from eqprop.dynamics.system import System
from eqprop.errors import EqpropError
from eqprop.learning.baselines import total_gradient
from eqprop.learning.rules import Free, Rule, with_readout
from eqprop.networks.model import Model
from eqprop.types import Array, Layer, PRNGKeyArray, Scalar, States, Targets


@final
class AsymmetricPhase(eqx.Module):
    """The nudged phase of AEP about the fixed point ``free``, and what the synapses see of it."""

    system: System
    network: Model
    x: Layer
    y: Targets
    free: States

    def __check_init__(self) -> None:
        if self.system.nudged_sweeps:
            raise EqpropError(
                "AEP corrects synchronous nudged steps by the Jacobian of a whole step, which a "
                "sweep is not: leave nudged_sweeps out (--no-nudged-sweeps)"
            )

    def stepper(self) -> Callable[[States, Scalar], States]:
        """One nudged step as a function of the states, which may be complex, and of beta."""
        system, x = self.system, self.x
        clamped = system.clamp(self.network, x)

        def step(s: States) -> States:
            return system.dynamics.step(clamped, x, s)

        _, push = jax.linearize(step, self.free)
        pull = jax.linear_transpose(push, self.free)

        def asymmetry(d: States) -> States:
            """``(J - J^T) d`` of real displacements."""
            return jax.tree.map(jnp.subtract, push(d), pull(d)[0])

        def nudged(s: States, beta: Scalar) -> States:
            d = tuple(new - old for new, old in zip(s, self.free, strict=True))
            if jnp.iscomplexobj(beta):  # J is real
                parts = (asymmetry(tuple(part(v) for v in d)) for part in (jnp.real, jnp.imag))
                corrections = tuple(lax.complex(*pair) for pair in zip(*parts, strict=True))
            else:
                corrections = asymmetry(d)
            *moved, last = (f - c for f, c in zip(step(s), corrections, strict=True))
            force = system.dynamics.dt * beta * system.force(clamped, s[-1], self.y)
            return (*moved, last + force)

        return nudged

    def increment(self, change: States) -> Model:
        """``(dF/dtheta at s*)^T change / dt``, mean over the batch."""
        dt = self.system.dynamics.dt
        at, pulls = tuple(s[None] for s in self.free), tuple(d[None] / dt for d in change)
        return total_gradient(self.system, self.network, self.x, at, pulls)


@final
class AsymmetricEP(Rule):
    """AEP: its increments, summed over the nudged phase. They are linear in the change of the
    states at a fixed ``s*``, so that the ends of the phase are enough.

    The force stands outside the activation, whatever ``Prototypical.inside`` says. The free phase
    has to have settled to well within beta: all is expanded about its fixed point. Raises
    ``EqpropError`` for nudged sweeps, and for holomorphic nudges where F is not analytic.
    """

    nudge: Nudge

    @override
    def update(
        self, system: System, network: Model, x: Layer, y: Targets, key: PRNGKeyArray
    ) -> tuple[Model, Free]:
        stencil = self.nudge.stencil(key)
        if stencil.is_complex:
            system.check_analytic(network)
        free = Free(*system.free(system.clamp(network, x), x))
        phase = AsymmetricPhase(system, network, x, y, free.states)
        dtype = stencil.dtype(network.dtype)
        nudged = phase.stepper()
        start = tuple(s.astype(dtype) for s in free.states)

        def displacement(beta: Scalar) -> States:
            def body(_: Array, s: States) -> States:
                return nudged(s, beta)

            last = lax.fori_loop(0, system.nudged_steps, body, start)
            return tuple(end - s for end, s in zip(last, start, strict=True))

        ends = jax.vmap(displacement)(stencil.betas.astype(dtype))
        change = tuple(weighted(stencil.weights, end) for end in ends)
        mean = phase.increment(change)
        return with_readout(system, mean, network, free.states, y), free
