"""Layout: how many networks a compiled program trains side by side, and over which devices.

Replicas are networks of the same recipe with seeds of their own. Their arrays are stacked along a
leading axis, and ``jax.vmap`` makes of what learns one what learns them all: on a device that one
small network leaves idle, five take hardly longer.

Over devices, replicas and the rows of a minibatch are divided; weights are whole on each device
that works for their replica. No rule knows of it: the program says where its arrays lie, and XLA's
partitioner adds up over devices where a rule sums over rows (docs/scaling.md).
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from eqprop.errors import EqpropError

REPLICA, DATA = "replica", "data"
"""Axes of a mesh of devices: over replicas, and over the rows of a minibatch."""

ROWS = 32
"""Fewer rows than that for each device are worth its messages at most in large networks: a
minibatch is divided further only where a number of devices is asked for.
"""


@final
@dataclass(frozen=True)
class Layout:
    """One network, or replicas along a leading axis of everything that belongs to a network.

    ``replicas`` is their number; None is one network without that axis. ``mesh`` holds the devices;
    None is JAX's default device.
    """

    replicas: int | None = None
    mesh: Mesh | None = None

    @property
    def devices(self) -> dict[str, int]:
        """How many devices replicas, and the rows of a minibatch, are divided over."""
        return {REPLICA: 1, DATA: 1} if self.mesh is None else dict(self.mesh.shape)

    def lift[F: Callable[..., Any]](self, function: F, axes: Sequence[int | None]) -> F | Any:
        """A function of one network as a function of all; ``axes`` as ``jax.vmap`` wants them."""
        if self.replicas is None:
            return function
        axis = None if self.mesh is None else REPLICA
        return jax.vmap(function, tuple(axes), spmd_axis_name=axis)

    def stack[T](self, parts: Sequence[T]) -> T:
        """The replicas, one by one, as the arrays that hold them all; they share no memory."""
        stack = jnp.stack if self.mesh is None else np.stack
        whole = jax.tree.map(lambda *leaves: stack(leaves), *parts) if self.replicas else parts[0]
        return self._put(whole, self._spec)

    def parts[T](self, stacked: T) -> list[T]:
        """Each replica's part of what ``stack`` or a lifted function returns."""
        if self.mesh is not None:
            # Where all of it is at hand, on each host.
            stacked = jax.device_get(_gather(stacked, NamedSharding(self.mesh, PartitionSpec())))
        if self.replicas is None:
            return [stacked]
        return [jax.tree.map(lambda leaf, n=n: leaf[n], stacked) for n in range(self.replicas)]

    def put_everywhere[T](self, tree: T) -> T:
        """Arrays, whole on each device."""
        return self._put(tree, PartitionSpec())

    def over_rows[T](self, rows: T) -> T:
        """Within a lifted function: arrays whose leading axis are rows, divided over devices."""
        return self._constrain(rows, PartitionSpec(DATA))

    def over_replicas[T](self, stacked: T) -> T:
        """Arrays of all replicas, each on the devices that work for it."""
        return self._constrain(stacked, self._spec)

    def everywhere[T](self, tree: T) -> T:
        """Results, whole on each device."""
        return self._constrain(tree, PartitionSpec())

    @property
    def _spec(self) -> PartitionSpec:
        return PartitionSpec() if self.replicas is None else PartitionSpec(REPLICA)

    def _constrain[T](self, tree: T, spec: PartitionSpec) -> T:
        if self.mesh is None:
            return tree
        return jax.lax.with_sharding_constraint(tree, NamedSharding(self.mesh, spec))

    def _put[T](self, tree: T, spec: PartitionSpec) -> T:
        if self.mesh is None:
            return tree
        sharding = NamedSharding(self.mesh, spec)

        def put(leaf: Any) -> jax.Array:
            whole = np.asarray(leaf)
            return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

        return jax.tree.map(put, tree)


def arrange(replicas: int | None, batch: int, devices: int | None = None) -> Layout:
    """The layout of a training of ``replicas`` and ``batch`` rows over the devices there are.

    Replicas are divided first, for they need no messages. Unless a number of ``devices`` is asked
    for, as many are used as have a share of their own, of at least 32 rows where rows are divided.
    Raises ``EqpropError`` where that number cannot be used.
    """
    there = jax.devices()
    if jax.process_count() > 1:
        if devices not in (None, len(there)):
            raise EqpropError(
                f"devices is {devices}, but {jax.process_count()} processes have {len(there)}: "
                "with several processes all are used"
            )
        devices = len(there)
    across, along = divide(len(there), replicas or 1, batch, devices)
    if across * along == 1 and jax.process_count() == 1:
        return Layout(replicas)
    used = np.array(there[: across * along]).reshape(across, along)
    return Layout(replicas, Mesh(used, (REPLICA, DATA)))


def divide(there: int, replicas: int, batch: int, wanted: int | None) -> tuple[int, int]:
    """Over how many of the devices replicas, and then the rows of a minibatch, are divided."""
    shares = [n for n in range(1, there + 1) if replicas % n == 0]
    if wanted is None:
        across = shares[-1]
        along = [n for n in range(1, there // across + 1) if batch % n == 0 and batch >= n * ROWS]
        return across, max(along, default=1)
    if not 1 <= wanted <= there:
        raise EqpropError(f"devices is {wanted}, but this program sees {there}: give 1 to {there}")
    for across in reversed(shares):
        if wanted % across == 0 and batch % (wanted // across) == 0:
            return across, wanted // across
    raise EqpropError(
        f"{replicas} seed(s) in minibatches of {batch} do not divide over {wanted} devices: give "
        f"--devices a number that divides seeds x batch, or another --batch"
    )


@functools.partial(jax.jit, static_argnums=1)
def _gather[T](tree: T, sharding: NamedSharding) -> T:
    return jax.lax.with_sharding_constraint(tree, sharding)
