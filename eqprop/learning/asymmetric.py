"""Asymmetric EP (AEP, arXiv:2602.03670): exact gradients where connections are asymmetric.

With the free step ``F``, its fixed point ``s*``, and ``J = dF/ds`` there, the nudged phase is

    ``s_{t+1} = F(s_t) - (J - J^T)(s_t - s*) + dt beta force(s_t)``.

To first order in beta the displacement ``d_t = s_t - s*`` obeys ``d_{t+1} = J^T d_t + dt beta
force``, the recursion of backpropagation: hence ``D_s(t) = (s_{t+1} - s_t)/(beta dt) = -grad_s(t)``
and, with increments ``(dF/dtheta at s*)^T D_s(t)``, ``D_theta(t) = -grad_theta(t)``, for tied,
untied or no feedback weights alike. Where J is symmetric the correction vanishes, and the phase is
EP's. It is not local in time: ``s*`` is remembered.

Continually (C-AEP) the weights move by the increment of each step, and F and J are those of the
weights as they are, about the ``s*`` of the free phase: ``D_theta(t) = -grad_theta(t)`` as beta and
the learning rates vanish.
"""

from collections.abc import Callable
from typing import final, override

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from eqprop.dynamics.nudges import Nudge, by_row, weighted
from eqprop.dynamics.relaxation import iterate
from eqprop.dynamics.step import Place, Prototypical, pushed
from eqprop.dynamics.system import Free, System
from eqprop.errors import EqpropError
from eqprop.learning.baselines import total_gradient
from eqprop.learning.continual import Batch, Strengths, divided, divisor, part_factors
from eqprop.learning.increments import weights_of_rows
from eqprop.learning.learners import InsidePhase, Schedule, constant
from eqprop.learning.rules import Rule, with_readout
from eqprop.networks.connections import Connection, Dense, Lateral, multiply
from eqprop.networks.convolution import AveragePool, Conv, NoPool
from eqprop.networks.edges import Clamped, Edge, OneWay, Tied, Untied
from eqprop.networks.model import Model
from eqprop.networks.network import Network
from eqprop.types import Array, Layer, PRNGKeyArray, States, Strength, Targets


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

    def stepper(self) -> Callable[[States, Strength], States]:
        """One nudged step as a function of the states, which may be complex, and of beta."""
        clamped = self.system.clamp(self.network, self.x)
        move = self.spread_by_drives(clamped) or self.spread(clamped)

        def nudged(s: States, beta: Strength) -> States:
            forces = self.system.force(clamped, s, self.y)
            by = self.system.dynamics.dt * beta
            return pushed(move(s), by_row(by, forces))

        return nudged

    def spread(self, clamped: Model) -> Callable[[States], States]:
        """``s -> F(s) - (J - J^T)(s - s*)``, for any F; of complex states, too."""
        system, x = self.system, self.x

        def step(s: States) -> States:
            return system.dynamics.step(clamped, x, s)

        _, push = jax.linearize(step, self.free)
        pull = jax.linear_transpose(push, self.free)

        def asymmetry(d: States) -> States:
            return jax.tree.map(jnp.subtract, push(d), pull(d)[0])

        def spread(s: States) -> States:
            d = tuple(new - old for new, old in zip(s, self.free, strict=True))
            return tuple(f - c for f, c in zip(step(s), _linear(asymmetry, d), strict=True))

        return spread

    def spread_by_drives(self, clamped: Model) -> Callable[[States], States] | None:
        """The same where drives are affine in the states, as dense edges make them; else None.

        There ``J d = sigma'(v*) (v(s) - v*)`` for drives v, which F needs anyway: two products of
        rates with weights in each step, ``v(s)`` and ``J^T d``, where the general form takes three.
        """
        dynamics, x = self.system.dynamics, self.x
        if type(dynamics) is not Prototypical or not _is_affine(clamped):
            return None

        layers = tuple(range(1, len(clamped.shapes)))

        def drives(s: States) -> States:
            return clamped.drives(dynamics.rates(x, s))

        def react(v: States) -> States:
            return dynamics.react(self.free, v, (None,) * len(v), Place(clamped, layers))

        rest, pull = jax.vjp(drives, self.free)
        _, slopes = jax.jvp(react, (rest,), (jax.tree.map(jnp.ones_like, rest),))
        general = self.spread(clamped)

        def spread(s: States) -> States:
            if jnp.iscomplexobj(s[-1]):
                return general(s)
            v = drives(s)
            sent = jax.tree.map(lambda g, new, old: g * (new - old), slopes, s, self.free)
            here = jax.tree.map(lambda g, new, old: g * (new - old), slopes, v, rest)
            back = pull(sent)[0]
            return jax.tree.map(lambda f, j, jt: f - j + jt, react(v), here, back)

        return spread

    def increment(self, change: States) -> Model:
        """``(dF/dtheta at s*)^T change / dt``, mean over the batch."""
        dt = self.system.dynamics.dt
        at = tuple(s[None] for s in self.system.read(self.free, nudged=False))

        def pull(d: States) -> Model:
            pulls = tuple(layer[None] / dt for layer in d)
            return total_gradient(self.system, self.network, self.x, at, pulls)

        return _linear(pull, change)

    def advance(self, s: States, beta: Strength) -> tuple[States, Model]:
        """The states after one nudged step, and the increment of it, ``beta dtheta(t)``; divided by
        beta where rows have betas of their own.
        """
        new = self.stepper()(s, beta)
        seen = (self.system.read(states, nudged=True) for states in (s, new))
        change = tuple(b - a for a, b in zip(*seen, strict=True))
        weights = weights_of_rows(beta)
        return new, self.increment(change if weights is None else by_row(weights, change))


def _linear[Result](function: Callable[[States], Result], d: States) -> Result:
    """A real linear function, of displacements that may be complex."""
    if not jnp.iscomplexobj(d[-1]):
        return function(d)
    parts = (function(tuple(part(layer) for layer in d)) for part in (jnp.real, jnp.imag))
    return jax.tree.map(lax.complex, *parts)


def _is_affine(model: Model) -> bool:
    """Whether the drives of a model are known, by their very types, to be affine in its states."""

    def connections(edge: Edge) -> tuple[Connection, ...] | None:
        if type(edge) is Clamped:
            return ()
        if type(edge) is Tied:
            return (edge.connection,)
        if type(edge) is Untied:
            return edge.ahead, edge.back
        return (edge.ahead,) if type(edge) is OneWay else None

    def linear(c: Connection) -> bool:
        if type(c) is Conv:
            return c.product is None and type(c.pool) in (NoPool, AveragePool)
        return type(c) in (Dense, Lateral) and getattr(c, "product", None) is multiply

    def affine(edge: Edge) -> bool:
        found = connections(edge)
        return found is not None and all(map(linear, found))

    return isinstance(model, Network) and all(affine(edge) for edge in model.edges)


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
        stencil = self.nudge.of_batch(key, len(x))
        if stencil.is_complex:
            system.check_analytic(network)
        free = system.free(system.clamp(network, x), x)
        phase = AsymmetricPhase(system, network, x, y, free.states)
        dtype = stencil.dtype(network.dtype)
        nudged = phase.stepper()
        start = tuple(s.astype(dtype) for s in free.states)

        def displacement(beta: Strength) -> States:
            last = iterate(lambda s: nudged(s, beta), start, system.nudged_steps)
            ends = system.read(last, nudged=True), system.read(start, nudged=False)
            return tuple(end - s for end, s in zip(*ends, strict=True))

        ends = jax.vmap(displacement)(stencil.betas.astype(dtype))
        change = tuple(weighted(stencil.weights, end) for end in ends)
        mean = phase.increment(change)
        return with_readout(system, mean, network, free.states, y), free


def continual_asymmetric_step(
    system: System,
    network: Model,
    free: States,
    states: States,
    batch: Batch,
    strengths: Strengths,
) -> tuple[Model, States, Model]:
    """One step of C-AEP about the fixed point ``free``, then ``theta_{t+1} = theta_t + eta
    dtheta(t)``.

    Returns the moved network, the new states, and ``dtheta(t)``.
    """
    (x, y), (beta, _) = batch, strengths
    new, seen = AsymmetricPhase(system, network, x, y, free).advance(states, beta)
    # A mean over the batch already.
    step = seen.scale(part_factors(network, batch, strengths) * len(x))
    moved = jax.tree.map(jnp.add, network, step).projected()
    return moved, new, divided(seen, divisor(beta, batch) / len(x))


@final
class ContinualAsymmetricEP(InsidePhase):
    """C-AEP: the weights move by AEP's increments at every step of the nudged phase."""

    nudge: Nudge
    learning_rates: tuple[float, ...] = eqx.field(static=True)
    schedule: Schedule = eqx.field(static=True, default=constant)

    @property
    @override
    def settings(self) -> tuple[Nudge, tuple[float, ...], Schedule]:
        return self.nudge, self.learning_rates, self.schedule

    @override
    def phase(
        self, system: System, network: Model, free: States, batch: Batch, strengths: Strengths
    ) -> Model:
        def step(_: Array, carry: tuple[Model, States]) -> tuple[Model, States]:
            model, s = carry
            return continual_asymmetric_step(system, model, free, s, batch, strengths)[:2]

        return lax.fori_loop(0, system.nudged_steps, step, (network, free))[0]

    @override
    def step(
        self,
        system: System,
        network: Model,
        ends: tuple[States, States],
        batch: Batch,
        strengths: Strengths,
    ) -> tuple[States, Model]:
        return continual_asymmetric_step(system, network, *ends, batch, strengths)[1:]
