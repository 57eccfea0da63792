"""Layout: how many networks a compiled program trains side by side.

Replicas are networks of the same recipe with seeds of their own. Their arrays are stacked along a
leading axis, and ``jax.vmap`` makes of what learns one what learns them all: on a device that one
small network leaves idle, five take hardly longer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import jax
import jax.numpy as jnp


@final
@dataclass(frozen=True)
class Layout:
    """One network, or replicas along a leading axis of everything that belongs to a network.

    ``replicas`` is their number; None is one network without that axis.
    """

    replicas: int | None = None

    def lift[F: Callable[..., Any]](self, function: F, axes: Sequence[int | None]) -> F | Any:
        """A function of one network as a function of all; ``axes`` as ``jax.vmap`` wants them."""
        return function if self.replicas is None else jax.vmap(function, tuple(axes))

    def stack[T](self, parts: Sequence[T]) -> T:
        """The replicas, one by one, as the arrays that hold them all; they share no memory."""
        if self.replicas is None:
            (part,) = parts
            return part
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)

    def parts[T](self, stacked: T) -> list[T]:
        """Each replica's part of what ``stack`` or a lifted function returns."""
        if self.replicas is None:
            return [stacked]
        return [jax.tree.map(lambda leaf, n=n: leaf[n], stacked) for n in range(self.replicas)]
