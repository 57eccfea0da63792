"""Anderson acceleration of a relaxation, with a safeguard (D. G. Anderson, J. ACM 12, 1965).

From the last m + 1 points at which F was evaluated, a secant model of the residual is made, and the
next point is where that model is smallest: a quasi-Newton method that needs F alone, one evaluation
a step. See H. F. Walker and P. Ni, SIAM J. Numer. Anal. 49 (2011), for the form used here, and for
why it is GMRES where F is linear.
"""

import math
from typing import NamedTuple, final, override

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from eqprop.dynamics.relaxation import Relaxation, Settled, Step, check_steps, check_tolerance
from eqprop.errors import EqpropError
from eqprop.types import Array, Bool, Float, Int, States


@final
class Iteration(NamedTuple):
    """Where each example stands. ``n`` units of all layers in a row, ``m`` remembered pairs."""

    point: Float[Array, "B n"]
    """Where F is evaluated next."""
    trusted: Bool[Array, " B"]
    """Whether that is a plain step, kept whatever its residual is."""
    kept: Float[Array, "B n"]
    """F of the last point that was kept: the relaxed states, so far."""
    residual: Float[Array, "B n"]
    """What F moved that point by."""
    d_kept: Float[Array, "B m n"]
    """Differences of F between points kept one after the other."""
    d_residual: Float[Array, "B m n"]
    """Differences of the residual between them."""
    valid: Bool[Array, "B m"]
    """Which of the two are of this example's present history."""
    steps: Int[Array, ""]
    """Evaluations of F."""


@final
class Anderson(Relaxation):
    """Until no unit moves by ``tolerance`` or more in a step; T steps at most.

    Each example is mixed by itself. With the residual ``f = F(s) - s`` and the differences
    ``df_j``, ``dF_j`` between the last ``memory`` + 1 points,

        ``s <- F(s) - sum_j gamma_j dF_j`` with ``gamma`` the least-squares solution of
        ``sum_j gamma_j df_j = f``,

    by normal equations whose columns have length 1 and whose diagonal is raised by ``damping``, so
    that their condition number is at most ``memory / damping`` (None: 100 rounding errors).

    Safeguard: where the residual of an accelerated point is not below that of the point before, in
    Euclidean norm, or is no number, the example goes back to the plain step from there and forgets
    its pairs. Plain steps are always kept, whatever their residual. The residual is needed for that
    at each step, so it is tested at each.

    Caveats: where F has kinks (hardsigm, max-pooling) an example may never settle: what a plain
    step loses, an accelerated one wins back, again and again (docs/tried.md, "Relaxations"). It
    looks for any fixed point: where plain steps run in a cycle it finds one that they would leave
    again, and where there are several it may find another one. The batch stops together, when its
    slowest example has settled. A step costs some ``memory**2`` operations a unit on top of F,
    which shows where F is cheap.
    """

    steps: int = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)
    memory: int = eqx.field(static=True, default=5)
    damping: float | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        check_steps(self.steps)
        check_tolerance(self.tolerance)
        if self.memory < 1:
            raise EqpropError(
                f"Anderson acceleration remembers {self.memory} steps: it needs at least 1"
            )
        if self.damping is not None and not 0 < self.damping < math.inf:
            raise EqpropError(
                f"the damping of Anderson acceleration is {self.damping}: give a number above 0"
            )

    @override
    def __call__(self, step: Step, s0: States) -> tuple[States, Settled]:
        def unsettled(now: Iteration) -> Array:
            # A residual that is not a number also ends the loop, as in ``ToTolerance``.
            largest = _largest(now.residual)
            return (now.steps < self.steps) & (largest >= self.tolerance)

        end = lax.while_loop(unsettled, lambda p: self.advance(step, s0, p), self.start(s0))
        return states(end.kept, s0), Settled(end.steps, _largest(end.residual))

    @override
    def until(self, tolerance: float) -> "Anderson":
        return Anderson(self.steps, tolerance, self.memory, self.damping)

    def start(self, s0: States) -> Iteration:
        """Before the first step from ``s0``."""
        point = units(s0)
        batch, n = point.shape
        pairs = jnp.zeros((batch, self.memory, n), point.dtype)
        endless = jnp.full_like(point, jnp.inf)
        yes = jnp.ones(batch, bool)
        none = jnp.zeros((batch, self.memory), bool)
        return Iteration(point, yes, point, endless, pairs, pairs, none, jnp.asarray(0))

    def advance(self, step: Step, like: States, now: Iteration) -> Iteration:
        """One evaluation of F, and where to go on; ``like`` has the shapes of the states."""
        after = units(step(states(now.point, like)))
        residual = after - now.point
        keep = now.trusted | (_norm(residual) < _norm(now.residual))
        pair = keep[:, None] & (now.steps > 0)
        slot = now.steps % self.memory
        valid = now.valid.at[:, slot].set(pair[:, 0]) & keep[:, None]
        d_kept = now.d_kept.at[:, slot].set(jnp.where(pair, after - now.kept, 0))
        d_residual = now.d_residual.at[:, slot].set(jnp.where(pair, residual - now.residual, 0))
        kept = jnp.where(keep[:, None], after, now.kept)
        residual = jnp.where(keep[:, None], residual, now.residual)
        gamma = self._mixing(d_residual, residual, valid)
        mixed = kept - _sum("bm,bmn->bn", gamma, d_kept)
        # An example that was sent back, or has no pairs, or no solution, is not accelerated.
        accelerate = jnp.any(valid, axis=1) & jnp.all(jnp.isfinite(mixed), axis=1)
        point = jnp.where(accelerate[:, None], mixed, kept)
        steps = now.steps + 1
        return Iteration(point, ~accelerate, kept, residual, d_kept, d_residual, valid, steps)

    def _mixing(
        self,
        d_residual: Float[Array, "B m n"],
        residual: Float[Array, "B n"],
        valid: Bool[Array, "B m"],
    ) -> Float[Array, "B m"]:
        """``gamma`` for each example; 0 for pairs that are not valid."""
        gram = _sum("bmn,bkn->bmk", d_residual, d_residual)
        square = jnp.diagonal(gram, axis1=1, axis2=2)
        usable = valid & (square > 0)
        scale = jnp.where(usable, 1 / jnp.sqrt(jnp.where(usable, square, 1)), 0)

        damping = 100 * jnp.finfo(gram.dtype).eps if self.damping is None else self.damping
        gram *= scale[:, :, None] * scale[:, None, :]
        gram += damping * jnp.eye(self.memory, dtype=gram.dtype)
        projected = scale * _sum("bmn,bn->bm", d_residual, residual)
        factor = jax.scipy.linalg.cho_factor(gram)
        return scale * jax.scipy.linalg.cho_solve(factor, projected[:, :, None])[:, :, 0]


def units(s: States) -> Float[Array, "B n"]:
    """All units of each example in a row."""
    return jnp.concatenate([layer.reshape(layer.shape[0], -1) for layer in s], axis=1)


def states(rows: Float[Array, "B n"], like: States) -> States:
    """The states, of the shapes of ``like``, that ``units`` put in a row."""
    ends = [0]
    for layer in like:
        ends.append(ends[-1] + math.prod(layer.shape[1:]))
    return tuple(
        rows[:, start:end].reshape(layer.shape)
        for layer, start, end in zip(like, ends[:-1], ends[1:], strict=True)
    )


def _sum(subscripts: str, *factors: Float[Array, "..."]) -> Float[Array, "..."]:
    # Of full precision: see ``networks.connections.multiply``.
    return jnp.einsum(subscripts, *factors, precision=lax.Precision.HIGHEST)


def _norm(rows: Float[Array, "B n"]) -> Float[Array, " B"]:
    return jnp.sqrt(jnp.sum(rows**2, axis=1))


def _largest(rows: Float[Array, "B n"]) -> Float[Array, ""]:
    return jnp.max(jnp.abs(rows))
