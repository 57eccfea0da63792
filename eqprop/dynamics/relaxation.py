"""Relaxation: iterate a step towards its fixed point. It knows nothing of networks.

Every relaxation is ``(step, s0) -> (states, Settled)``.
"""

import abc
from collections.abc import Callable
from typing import NamedTuple, final, override

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from eqprop.errors import EqpropError
from eqprop.types import Array, Float, Int, States

type Step = Callable[[States], States]


@final
class Settled(NamedTuple):
    """How a relaxation ended: steps taken, and the largest change of any unit in the last step."""

    steps: Int[Array, ""]
    residual: Float[Array, ""]


def largest_change(a: States, b: States) -> Float[Array, ""]:
    """``max |a - b|`` over all units of all layers and examples."""
    return jnp.max(jnp.stack([jnp.max(jnp.abs(p - q)) for p, q in zip(a, b, strict=True)]))


class Relaxation(eqx.Module):
    """Abstract: how a step is iterated."""

    steps: eqx.AbstractVar[int]
    """The number of steps T, or the most that are taken."""

    @abc.abstractmethod
    def __call__(self, step: Step, s0: States) -> tuple[States, Settled]:
        """Iterate ``step`` from ``s0``."""

    def until(self, tolerance: float) -> "Relaxation":
        """The same, but ended as soon as no unit moves by ``tolerance`` in a step."""
        return ToTolerance(self.steps, tolerance)


def check_steps(steps: int) -> None:
    """Raises ``EqpropError`` unless there is a step to take."""
    if steps < 1:
        raise EqpropError(f"the number of free steps T is {steps}: it must be at least 1")


def check_tolerance(tolerance: float) -> None:
    """Raises ``EqpropError`` unless it can be reached."""
    if not tolerance > 0:
        raise EqpropError(f"the tolerance is {tolerance}: it must be above 0")


def iterate(step: Step, s0: States, n: int | Int[Array, ""]) -> States:
    """``n`` steps from ``s0``."""
    return lax.fori_loop(0, n, lambda _, s: step(s), s0)


@final
class FixedSteps(Relaxation):
    """T steps, whatever the residual: the published setting."""

    steps: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        check_steps(self.steps)

    @override
    def __call__(self, step: Step, s0: States) -> tuple[States, Settled]:
        before = iterate(step, s0, self.steps - 1)
        s = step(before)
        return s, Settled(jnp.asarray(self.steps), largest_change(s, before))


@final
class ToTolerance(Relaxation):
    """Until no unit moves by ``tolerance`` or more in a step, tested every ``every`` steps; T at
    most.

    The batch stops together, when its slowest example has settled.
    """

    steps: int = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)
    every: int = eqx.field(static=True, default=3)

    def __check_init__(self) -> None:
        check_steps(self.steps)
        check_tolerance(self.tolerance)
        if not self.every >= 1:
            raise EqpropError(
                f"the residual is tested every {self.every} steps: it must be at least 1"
            )

    @override
    def __call__(self, step: Step, s0: States) -> tuple[States, Settled]:
        def unsettled(carry: tuple[States, Settled]) -> Array:
            _, (steps, residual) = carry
            # A residual that is not a number also ends the loop: iterating on cannot mend it.
            return (steps < self.steps) & (residual >= self.tolerance)

        def advance(carry: tuple[States, Settled]) -> tuple[States, Settled]:
            s, settled = carry
            n = jnp.minimum(self.every, self.steps - settled.steps)
            before = iterate(step, s, n - 1)
            after = step(before)
            return after, Settled(settled.steps + n, largest_change(after, before))

        dtype = jax.eval_shape(largest_change, s0, s0).dtype
        start = Settled(jnp.asarray(0), jnp.asarray(jnp.inf, dtype))
        return lax.while_loop(unsettled, advance, (s0, start))
