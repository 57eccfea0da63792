"""Learners: how a batch changes a network. Rule and optimizer after the phase, or continually
inside it.
"""

import abc
import math
from collections.abc import Callable, Sequence
from typing import Any, cast, final, override

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from eqprop.dynamics.nudges import Nudge
from eqprop.dynamics.system import System
from eqprop.errors import EqpropError
from eqprop.learning.continual import Batch, Strengths, continual_phase
from eqprop.learning.increments import Increment
from eqprop.learning.rules import Free, Rule
from eqprop.networks.model import Model
from eqprop.types import Array, Float, Int, Layer, PRNGKeyArray, States, Targets

type Schedule = Callable[[Int[Array, ""]], Float[Array, ""]]
"""Factor on all learning rates, given the number of minibatches learnt so far."""


type Memory = Any
"""A learner's own state: a pytree of arrays, whose structure the optimizer decides."""


def constant(step: Int[Array, ""]) -> Float[Array, ""]:
    """The schedule of the papers: learning rates stay as they are."""
    return jnp.ones(())


def _check_rates(rates: Sequence[float], network: Model | None = None) -> None:
    if any(not math.isfinite(rate) or rate < 0 for rate in rates):
        raise EqpropError(
            f"learning rates {tuple(rates)}: each must be a finite number, at least 0"
        )
    if network is None:
        return
    connections = len(network.parts)
    if len(rates) != connections:
        raise EqpropError(
            f"{len(rates)} learning rate(s) {tuple(rates)} for {connections} connections: give one "
            "for each, from the input side to the output or the readout"
        )


class Learner(eqx.Module):
    """Abstract: one minibatch, from the free phase to the new parameters."""

    @abc.abstractmethod
    def init(self, network: Model) -> Memory:
        """The learner's own state for this network. Raises ``EqpropError`` where the two don't
        fit.
        """

    @abc.abstractmethod
    def learn(
        self,
        system: System,
        network: Model,
        memory: Memory,
        batch: tuple[Layer, Targets],
        key: PRNGKeyArray,
    ) -> tuple[Model, Memory, Free]:
        """The network and the learner's state after one batch ``(x, y)``, and the batch's free
        phase.
        """


@final
class WithOptimizer(Learner):
    """A rule's update handed to an Optax optimizer after the phase; the learning
    rates of edges scale its output.
    """

    rule: Rule
    learning_rates: tuple[float, ...] = eqx.field(static=True)
    optimizer: optax.GradientTransformation = eqx.field(static=True)
    schedule: Schedule = eqx.field(static=True, default=constant)

    def __check_init__(self) -> None:
        _check_rates(self.learning_rates)

    @override
    def init(self, network: Model) -> Memory:
        _check_rates(self.learning_rates, network)
        return cast(Any, self.optimizer).init(network), jnp.zeros((), jnp.int32)

    @override
    def learn(
        self,
        system: System,
        network: Model,
        memory: Memory,
        batch: tuple[Layer, Targets],
        key: PRNGKeyArray,
    ) -> tuple[Model, Memory, Free]:
        state, step = memory
        update, free = self.rule.update(system, network, *batch, key)
        # Optax descends: the update stands for minus a gradient.
        descent = jax.tree.map(jnp.negative, update)
        # Optax takes any pytree, but its types know only containers of arrays.
        scaled, state = cast(Any, self.optimizer).update(descent, state, network)
        factors = jnp.asarray(self.learning_rates) * self.schedule(step)
        moved = jax.tree.map(jnp.subtract, network, cast(Model, scaled).scale(factors))
        return moved.projected(), (state, step + 1), free


class InsidePhase(Learner):
    """Abstract: plain steps of size ``eta`` per edge, inside the nudged phase.

    Raises ``EqpropError`` for a nudge of several phases.
    """

    def __check_init__(self) -> None:
        nudge, rates, _ = self.strengths
        _check_rates(rates)
        if not nudge.one_sided:
            raise EqpropError(
                "a continual rule moves the weights along one nudged phase, but "
                f"{type(nudge).__name__} has several: use a one-sided or random-sign nudge"
            )

    @property
    @abc.abstractmethod
    def strengths(self) -> tuple[Nudge, tuple[float, ...], Schedule]:
        """What beta is drawn from, the learning rates of the edges, and the factor on these."""

    @abc.abstractmethod
    def phase(
        self, system: System, network: Model, free: States, batch: Batch, strengths: Strengths
    ) -> Model:
        """The network after the nudged phase from the states ``free``."""

    @override
    def init(self, network: Model) -> Memory:
        if network.readout is not None:
            raise EqpropError(
                "a continual rule moves connections by what the nudged phase does to their two "
                "ends, but a readout has no second end in it: use squared-error, or the rule that "
                "is not continual"
            )
        _check_rates(self.strengths[1], network)
        return jnp.zeros((), jnp.int32)

    @override
    def learn(
        self,
        system: System,
        network: Model,
        memory: Memory,
        batch: tuple[Layer, Targets],
        key: PRNGKeyArray,
    ) -> tuple[Model, Memory, Free]:
        x, _ = batch
        free = Free(*system.free(system.clamp(network, x), x))
        nudge, rates, schedule = self.strengths
        beta = nudge.stencil(key).betas[0].astype(network.dtype)
        eta = jnp.asarray(rates) * schedule(jnp.asarray(memory))
        moved = self.phase(system, network, free.states, batch, (beta, eta))
        return moved, jnp.asarray(memory) + 1, free


@final
class Continual(InsidePhase):
    """C-EP or C-VF, by its increment."""

    increment: Increment
    nudge: Nudge
    learning_rates: tuple[float, ...] = eqx.field(static=True)
    schedule: Schedule = eqx.field(static=True, default=constant)

    @property
    @override
    def strengths(self) -> tuple[Nudge, tuple[float, ...], Schedule]:
        return self.nudge, self.learning_rates, self.schedule

    @override
    def phase(
        self, system: System, network: Model, free: States, batch: Batch, strengths: Strengths
    ) -> Model:
        return continual_phase(system, self.increment, network, free, batch, strengths)[0]
