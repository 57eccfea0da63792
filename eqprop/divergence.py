"""Divergence: whether a training still holds finite numbers, and if not, where they were lost."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from eqprop.training import Examples, Trainer, TrainState
from eqprop.types import Array, Bool, Float, Int

LIMIT = 1e8
"""Numbers beyond this have exploded, finite or not."""


class Divergence(NamedTuple):
    """The first minibatch, from 0 on, that ends in numbers beyond the limit, and where they are."""

    batch: int
    where: str


def whole(state: TrainState) -> bool:
    """Whether all weights, and the loss and residual so far, are numbers within the limit."""
    return bool(_whole(state))


def copy(state: TrainState) -> TrainState:
    """The same state in memory of its own, for ``Trainer.advance`` consumes what it is given."""
    return jax.tree.map(jnp.copy, state)


def find(
    trainer: Trainer,
    examples: Examples,
    order: Int[Array, "batches B"],
    good: TrainState,
    stop: int,
) -> Divergence:
    """Where a training goes wrong that is whole in state ``good`` but not at minibatch ``stop``."""
    start = int(good.batch)
    while stop - start > 1:
        middle = (start + stop) // 2
        trial = trainer.advance(copy(good), examples, order, middle)
        if whole(trial):
            good, start = trial, middle
        else:
            stop = middle
    x, _ = trainer.fetch(good, examples, order[start])
    system = trainer.system
    # Compiled, for it may be many steps.
    states, _ = jax.jit(lambda network: system.free(system.clamp(network, x), x))(good.network)
    for layer, s in enumerate(states, 1):
        if not _largest([s]) <= LIMIT:
            return Divergence(start, f"the states of layer {layer}")
    bad = trainer.advance(copy(good), examples, order, start + 1)
    for edge in bad.network.edges:
        if not _largest(jax.tree.leaves(edge)) <= LIMIT:
            return Divergence(start, f"the weights from layer {edge.pre} to layer {edge.post}")
    return Divergence(start, "the memory of the optimizer")


def _largest(leaves: Sequence[Array]) -> Float[Array, ""]:
    """The largest magnitude; not a number if anything is not."""
    largest = [jnp.max(jnp.abs(leaf)) for leaf in leaves if eqx.is_inexact_array(leaf)]
    return functools.reduce(jnp.maximum, largest)


@jax.jit
def _whole(state: TrainState) -> Bool[Array, ""]:
    totals = state.totals
    loss = totals.loss / jnp.maximum(state.batch, 1)
    leaves = jax.tree.leaves((state.network, state.memory, loss, totals.residual))
    return _largest(leaves) <= LIMIT
