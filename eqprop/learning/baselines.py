"""Baselines: backpropagation through time (BPTT), and recurrent backpropagation.

``L`` is the mean over the batch of the loss ``l(s_T, y)`` at the end of T free steps. With the
adjoint of each example, ``grad_s(t) = dl/ds_{T-t}``, one free step back in time is

    ``grad_s(t+1) = J^T grad_s(t)`` and ``grad_theta(t) = mean of (dF/dtheta)^T grad_s(t)``,

both taken at ``s_{T-t-1}``: t = 0 is the last step. Theorem 1 of arXiv:1905.13633 says that minus
these are what the nudged phase of Equilibrium Propagation does, step by step.
"""

import dataclasses
from typing import NamedTuple, final, override

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jax.scipy.sparse.linalg import gmres

from eqprop.dynamics.relaxation import Settled, largest_change
from eqprop.dynamics.system import Free, System
from eqprop.errors import EqpropError
from eqprop.learning.rules import Rule
from eqprop.networks.model import Model
from eqprop.types import Array, Float, Inexact, Layer, PRNGKeyArray, States, Targets

type StateCurves = tuple[Inexact[Array, "K B ..."], ...]
"""States of the layers 1 ... N, or something of their shapes, at K consecutive times."""


@final
class Window(NamedTuple):
    """The last K steps of a free phase: all that truncated BPTT needs of it."""

    before: StateCurves
    """``s_{T-K} ... s_{T-1}``, the states from which the steps start."""
    last: States
    """``s_T``."""


@final
class Truncated(NamedTuple):
    """Truncated BPTT: the gradients of the loss through the last K steps."""

    window: Window
    settled: Settled
    curves: StateCurves
    """``grad_s(t)`` of each example, aligned with ``window.before``: entry j is
    ``dl/ds_{T-K+j+1}``.
    """
    gradient: Model
    """The sum of all ``grad_theta(t)``, mean over the batch."""


@final
class Adjoint(NamedTuple):
    """The solution of ``(I - J^T) lambda = dl/ds`` at the fixed point."""

    states: States
    residual: Float[Array, ""]
    """``|dl/ds - (I - J^T) lambda| / |dl/ds|`` over the batch; infinite where there is none."""


def follow(
    system: System,
    clamped: Model,
    x: Layer,
    states: States,
    steps: int,
    pushes: StateCurves | None = None,
) -> Window:
    """``steps`` synchronous free steps from ``states``, all kept; ``pushes`` are added to what they
    reach.
    """

    def body(s: States, push: States | None) -> tuple[States, States]:
        new = system.dynamics.step(clamped, x, s)
        return new if push is None else jax.tree.map(jnp.add, new, push), s

    last, before = lax.scan(body, states, pushes, length=steps)
    return Window(before, last)


def loss_gradient(system: System, network: Model, states: States, y: Targets) -> States:
    """``grad_s(0) = dl/ds`` for each example: only what the cost reads has any."""
    forces = zip(states, system.force(network, states, y), strict=True)
    return tuple(jnp.zeros_like(s) if force is None else -force for s, force in forces)


def pull_back(
    system: System, network: Model, x: Layer, states: States, adjoint: States
) -> tuple[States, Model]:
    """One free step from ``states``, backwards: ``J^T adjoint`` and ``(dF/dtheta)^T adjoint``.

    The second is summed over the batch. With a clamped network its input edges hold the gradient of
    their drives, for each example.
    """
    _, vjp = jax.vjp(lambda n, s: system.dynamics.step(n, x, s), network, states)
    by_network, by_states = vjp(adjoint)
    return by_states, by_network


def truncated(system: System, network: Model, x: Layer, y: Targets, steps: int) -> Truncated:
    """The gradient through the last ``steps`` of the free phase, which are taken once.

    The first T - K steps are the system's own relaxation (which may stop early or sweep), the last
    K are synchronous. Memory grows with K, not with T. Raises ``EqpropError`` when K > T.
    """
    total = system.relaxation.steps
    if not 1 <= steps <= total:
        raise EqpropError(
            f"K = {steps} steps cannot be followed back through a free phase of T = {total}: "
            "give K from 1 to T"
        )
    clamped = system.clamp(network, x)
    s, taken = clamped.zeros(x.shape[0]), jnp.asarray(0)
    if total > steps:
        relax = dataclasses.replace(system.relaxation, steps=total - steps)
        s, (taken, _) = relax(system.free_step(clamped, x), s)

    def reach(pushes: StateCurves) -> tuple[States, Window]:
        window = follow(system, clamped, x, s, steps, pushes)
        return window.last, window

    # What a push of the state that a step reaches does to the loss is the adjoint of that state.
    none = jax.tree.map(lambda layer: jnp.zeros((steps, *layer.shape), layer.dtype), s)
    last, back, window = jax.vjp(reach, none, has_aux=True)
    (curves,) = back(loss_gradient(system, network, last, y))
    gradient = total_gradient(system, network, x, window.before, curves)
    residual = largest_change(last, tuple(layer[-1] for layer in window.before))
    return Truncated(window, Settled(taken + steps, residual), curves, gradient)


def total_gradient(
    system: System, network: Model, x: Layer, before: StateCurves, adjoint: StateCurves
) -> Model:
    """``sum over steps of (dF/dtheta)^T adjoint``, mean over the batch.

    ``before`` are the states that the steps start from and ``adjoint`` belongs to those they
    reach; both are ``(K, B, *units)``. F acts on each row alone, so all steps form one batch of
    K x B rows: one matrix product per connection. The input does not move, so its connections are
    differentiated once, with the sum of their drives' gradients.
    """
    steps, batch = before[-1].shape[:2]

    def flat(curve: Inexact[Array, "K B ..."]) -> Inexact[Array, "KB ..."]:
        return curve.reshape(steps * batch, *curve.shape[2:])

    def repeat(rows: Layer) -> Inexact[Array, "KB ..."]:
        return flat(jnp.broadcast_to(rows, (steps, *rows.shape)))

    repeated = system.clamp(network, x).map_drives(repeat)
    rows, pulls = (tuple(flat(curve) for curve in curves) for curves in (before, adjoint))
    several = system.map_rows(repeat)
    _, by_clamped = pull_back(several, repeated, repeat(x), rows, pulls)

    gradient = network.unclamped(by_clamped, system.dynamics.rates(x, ())[0], steps)
    return jax.tree.map(lambda leaf: leaf / batch, gradient)


def solve_adjoint(
    system: System, clamped: Model, x: Layer, y: Targets, states: States, tolerance: float
) -> Adjoint:
    """``(I - J^T) lambda = dl/ds`` at the fixed point ``states``, by GMRES without a matrix.

    Where the free dynamics converges, this is the limit of ``sum over t of grad_s(t)`` as K grows.
    The solver aims at a relative residual of ``tolerance``; the one reached is returned, and the
    caller judges it.
    """
    _, vjp = jax.vjp(lambda s: system.dynamics.step(clamped, x, s), states)

    def operator(v: States) -> States:
        return jax.tree.map(jnp.subtract, v, vjp(v)[0])

    def norm(v: States) -> Float[Array, ""]:
        return jnp.sqrt(sum((jnp.sum(layer**2) for layer in v), jnp.zeros((), clamped.dtype)))

    force = loss_gradient(system, clamped, states, y)
    solution, _ = gmres(
        operator, force, tol=tolerance, restart=20, maxiter=50, solve_method="incremental"
    )
    left = norm(jax.tree.map(jnp.subtract, force, operator(solution)))
    size = norm(force)
    relative = left / jnp.where(size > 0, size, 1)
    return Adjoint(solution, jnp.where(jnp.isfinite(relative), relative, jnp.inf))


@final
class BPTT(Rule):
    """Truncated backpropagation through the last ``steps`` of the free phase (None: as many as K).

    The update is minus the gradient of the loss ``l(s_T, y)``, mean over the batch. No nudge, no
    second phase.
    """

    steps: int | None = eqx.field(static=True, default=None)

    @override
    def update(
        self, system: System, network: Model, x: Layer, y: Targets, key: PRNGKeyArray
    ) -> tuple[Model, Free]:
        steps = system.nudged_steps if self.steps is None else self.steps
        (_, last), settled, _, gradient = truncated(system, network, x, y, steps)
        return _update(system, gradient, network, last, y), Free(last, settled)


@final
class RecurrentBackprop(Rule):
    """Recurrent backpropagation (Almeida 1987, Pineda 1987): the gradient at the fixed point.

    ``-(dF/dtheta)^T lambda`` with ``(I - J^T) lambda = dl/ds``, both at the end of the free phase,
    which ought to have converged. Where the relative residual of the solution exceeds ``refuse``
    there is no update: ``EqpropError``, or in a compiled program, which can raise nothing, one that
    is not a number, at which a training stops.
    """

    tolerance: float = eqx.field(static=True, default=1e-4)
    refuse: float = eqx.field(static=True, default=1e-1)

    def __check_init__(self) -> None:
        if not 0 < self.tolerance <= self.refuse < 1:
            raise EqpropError(
                f"recurrent backpropagation with tolerance {self.tolerance}, refusing residuals "
                f"above {self.refuse}: give 0 < tolerance <= refuse < 1"
            )

    @override
    def update(
        self, system: System, network: Model, x: Layer, y: Targets, key: PRNGKeyArray
    ) -> tuple[Model, Free]:
        clamped = system.clamp(network, x)
        free = system.free(clamped, x)
        adjoint = solve_adjoint(system, clamped, x, y, free.states, self.tolerance)
        solved = adjoint.residual <= self.refuse
        if not isinstance(solved, Tracer) and not solved:
            raise EqpropError(
                "recurrent backpropagation: (I - J^T) lambda = dl/ds was not solved to a relative "
                f"residual of {self.refuse}, but of {adjoint.residual:.3g}; has the free phase "
                "converged? Raise T, or lower the learning rates"
            )
        solution = jax.tree.map(lambda s: jnp.where(solved, s, jnp.nan), adjoint.states)
        before, curves = (tuple(s[None] for s in group) for group in (free.states, solution))
        gradient = total_gradient(system, network, x, before, curves)
        return _update(system, gradient, network, free.states, y), free


def _update(system: System, gradient: Model, network: Model, states: States, y: Targets) -> Model:
    """Minus the gradient, with that of the readout."""
    ascent = jax.tree.map(jnp.negative, gradient)
    return ascent.with_readout(system.readout_update(network, states[-1], y))
