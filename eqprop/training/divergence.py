"""Divergence: whether a training still holds finite numbers, and if not, where they were lost."""

import functools
from collections.abc import Sequence
from typing import NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from eqprop.dynamics.system import System
from eqprop.networks.model import Model
from eqprop.training.trainer import Examples, Trainer, TrainState
from eqprop.types import Array, Bool, Float, Int, Layer, States

LIMIT = 1e8
"""Numbers beyond this have exploded, finite or not."""


@final
class Divergence(NamedTuple):
    """The first minibatch, from 0 on, that ends in numbers beyond the limit, and where they are."""

    minibatch: int
    where: str
    replica: int
    """The first one that they are in."""


def whole(state: TrainState) -> bool:
    """Whether all weights, and the loss and residual so far, are numbers within the limit; in every
    replica.
    """
    return bool(_whole(state))


def copy(state: TrainState) -> TrainState:
    """The same state in memory of its own, for ``Trainer.advance`` consumes what it is given."""
    return jax.tree.map(jnp.copy, state)


def find(
    trainer: Trainer,
    examples: Examples,
    order: Int[Array, "*replicas batches B"],
    good: TrainState,
    stop: int,
) -> Divergence:
    """Where a training goes wrong that is whole in state ``good`` but not at minibatch ``stop``."""
    _, start = good.position
    while stop - start > 1:
        middle = (start + stop) // 2
        trial = trainer.advance(copy(good), examples, order, middle)
        if whole(trial):
            good, start = trial, middle
        else:
            stop = middle
    bad = trainer.advance(copy(good), examples, order, start + 1)
    parts = trainer.layout.parts((good, order[..., start, :], bad))
    broken = (n for n, (_, _, after) in enumerate(parts) if not whole(after))
    replica = next(broken)
    before, rows, after = parts[replica]
    x, _ = trainer.fetch(before, examples, rows)
    return Divergence(start, _where(trainer.system, x, before, after), replica)


def _where(system: System, x: Layer, before: TrainState, after: TrainState) -> str:
    """What is beyond the limit in a minibatch's free phase, or in the state that it leads to.

    A free phase is looked at after each of its steps. What a nudged phase, or an adjoint, does
    first shows in the weights.
    """
    step, beyond = jax.device_get(_free_phase(system, before.network, x))
    if beyond.any():
        return f"the states of layer {beyond.argmax() + 1}, in step {step} of the free phase,"
    parts = zip(after.network.part_names, after.network.parts, strict=True)
    if beyond := [name for name, part in parts if not _largest(jax.tree.leaves(part)) <= LIMIT]:
        return f"the weights {', '.join(beyond)}"
    if not _largest(jax.tree.leaves(after.memory)) <= LIMIT:
        return "the numbers that the optimizer keeps"
    return "the loss, or the residual of the free phase,"


@eqx.filter_jit
def _free_phase(
    system: System, network: Model, x: Layer
) -> tuple[Int[Array, ""], Bool[Array, " layers"]]:
    """The first step with states beyond the limit, and the layers in which; or T, and none."""
    clamped = system.clamp(network, x)
    step = system.free_step(clamped, x)

    def beyond(states: States) -> Bool[Array, " layers"]:
        return jnp.stack([~(_largest([s]) <= LIMIT) for s in states])

    def go_on(carry: tuple[Int[Array, ""], States]) -> Bool[Array, ""]:
        taken, states = carry
        return (taken < system.relaxation.steps) & ~jnp.any(beyond(states))

    def advance(carry: tuple[Int[Array, ""], States]) -> tuple[Int[Array, ""], States]:
        taken, states = carry
        return taken + 1, step(states)

    taken, states = lax.while_loop(go_on, advance, (jnp.asarray(0), clamped.zeros(len(x))))
    return taken, beyond(states)


def _largest(leaves: Sequence[Array]) -> Float[Array, ""]:
    """The largest magnitude; not a number if anything is not."""
    largest = [jnp.max(jnp.abs(leaf)) for leaf in leaves if eqx.is_inexact_array(leaf)]
    return functools.reduce(jnp.maximum, largest, jnp.zeros(()))


@jax.jit
def _whole(state: TrainState) -> Bool[Array, ""]:
    totals = state.totals
    loss = totals["loss"] / jnp.maximum(state.minibatch, 1)
    leaves = jax.tree.leaves((state.network, state.memory, loss, totals["residual"]))
    return _largest(leaves) <= LIMIT
