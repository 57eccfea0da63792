"""Whether a free phase has converged, and what T would do when it has not.

Theorem 1 supposes that the states stand still over the last K free steps. What still moves is a
drift, which a one-sided rule divides by beta.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from eqprop.dynamics.relaxation import ToTolerance, largest_change
from eqprop.errors import EqpropError
from eqprop.learning.baselines import Window, follow
from eqprop.theorem.curves import Problem
from eqprop.types import Array, Float, States


@final
@dataclass(frozen=True)
class Settling:
    """How a free phase of T = ``steps`` ended.

    ``residuals``, ``(K, N)``, are the largest change of any unit of each layer in each of the last
    K steps. ``rate`` is the factor per step by which their maximum falls. ``needed`` is the T with
    which the last K steps stay within ``tolerance``: found by going on, or extrapolated where that
    takes more than three times T; None when the residual does not fall.
    """

    steps: int
    tolerance: float
    residuals: np.ndarray
    rate: float
    needed: int | None

    @property
    def residual(self) -> float:
        """Largest change of any unit in any of the last K steps."""
        return float(self.residuals.max())

    @property
    def settled(self) -> bool:
        """Whether the residual was within the tolerance throughout the last K steps."""
        return self.residual <= self.tolerance

    def record(self) -> dict[str, Any]:
        """The numbers, ready for JSON."""
        return {
            "steps": self.steps,
            "tolerance": self.tolerance,
            "settled": self.settled,
            "residual": self.residual,
            "residual_of_layers": self.residuals.max(axis=0).tolist(),
            "last_residual_of_layers": self.residuals[-1].tolist(),
            "rate": self.rate,
            "needed": self.needed,
        }


@final
class Further(NamedTuple):
    """What going on from the end of a free phase finds."""

    steps: Array
    """Steps until the tolerance was reached, or all that were allowed."""
    moved: Float[Array, " N"]
    """How far each layer got, at most in any unit."""
    residuals: Float[Array, "K N"]
    """Changes in K steps after that."""


def _residuals(window: Window) -> Float[Array, "K N"]:
    columns = []
    for before, last in zip(window.before, window.last, strict=True):
        changes = jnp.abs(jnp.diff(jnp.concatenate([before, last[None]]), axis=0))
        columns.append(jnp.max(changes.reshape(changes.shape[0], -1), axis=1))
    return jnp.stack(columns, axis=1)


@eqx.filter_jit
def _go_on(problem: Problem, states: States, limits: tuple[int, float], window: int) -> Further:
    system, network, (x, _) = problem
    clamped = system.clamp(network, x)
    steps, tolerance = limits
    relax = ToTolerance(steps, tolerance, every=1)
    s, settled = relax(lambda s: system.dynamics.step(clamped, x, s), states)
    moved = [largest_change((a,), (b,)) for a, b in zip(s, states, strict=True)]
    residuals = _residuals(follow(system, clamped, x, s, window))
    return Further(settled.steps, jnp.stack(moved), residuals)


def _check_finite(residuals: np.ndarray, steps: int) -> None:
    """Raise where states are no longer numbers; the last row shows the step number ``steps``."""
    bad = ~np.isfinite(residuals)
    if not bad.any():
        return
    row = int(bad.any(axis=1).argmax())
    layer = int(bad[row].argmax()) + 1
    known = f" (residual {residuals[row - 1].max():.3g} one step before)" if row else ""
    step = steps - len(residuals) + row + 1
    raise EqpropError(
        f"the free phase diverges: layer {layer} is not finite after {step} steps{known}; "
        "lower dt or the scale of the weights"
    )


def examine(problem: Problem, window: Window, tolerance: float) -> Settling:
    """How the free phase that ended with ``window`` has settled.

    Where it has not, it is followed for three times as many steps again (at least 1000). Raises
    ``EqpropError``, naming layer and residual, when the states stop being finite, grow, or go
    round without settling.
    """
    steps, length = problem.system.relaxation.steps, window.before[-1].shape[0]
    residuals = np.asarray(jax.jit(_residuals)(window))
    _check_finite(residuals, steps)
    first, last = residuals[0].max(), residuals[-1].max()
    rate = _fall(first, last, length - 1)
    if residuals.max() <= tolerance:
        return Settling(steps, tolerance, residuals, rate, steps)

    extra = max(3 * steps, 1000)
    further = jax.device_get(_go_on(problem, window.last, (extra, tolerance), length))
    _check_finite(further.residuals, steps + int(further.steps) + length)
    now = further.residuals.max(axis=0)
    layer = int(now.argmax())
    where = (
        f"layer {layer + 1} still moves by {now[layer]:.3g} per step after {steps + extra} steps"
    )
    # States are of order 1.
    if now[layer] > 1e3 * max(1.0, residuals.max()):
        raise EqpropError(f"the free phase diverges: {where}; lower dt or the scale of the weights")
    # A slow drift gets somewhere: about residual x steps away. A cycle comes back.
    if now[layer] > 0.95 * residuals.max() and further.moved[layer] < 0.1 * extra * now[layer]:
        raise EqpropError(
            f"the free phase oscillates: {where} and gets nowhere; lower dt or the scale of the "
            "weights, or use another activation"
        )
    if now[layer] <= tolerance:
        # The last K steps begin with the first one within the tolerance.
        return Settling(steps, tolerance, residuals, rate, steps + int(further.steps) + length - 1)
    late = _fall(further.residuals[0].max(), further.residuals[-1].max(), length - 1)
    more = math.log(tolerance / now[layer]) / math.log(late) if 0 < late < 1 else None
    needed = None if more is None else steps + extra + length + math.ceil(more)
    return Settling(steps, tolerance, residuals, rate, needed)


def _fall(first: float, last: float, steps: int) -> float:
    """The factor per step from one residual to another."""
    return float((last / first) ** (1 / steps)) if first > 0 and steps > 0 else 0.0
