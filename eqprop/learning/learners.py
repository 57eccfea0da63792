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
from jax import lax

from eqprop.dynamics.nudges import Nudge
from eqprop.dynamics.system import Free, System
from eqprop.errors import EqpropError
from eqprop.learning.continual import Batch, Strengths, continual_phase, continual_step
from eqprop.learning.increments import Increment
from eqprop.learning.rules import Rule
from eqprop.learning.writing import Stored, Writing
from eqprop.networks.model import Model
from eqprop.types import Array, Float, Int, PRNGKeyArray, States

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
    if len(rates) != len(names := network.part_names):
        raise EqpropError(
            f"{len(rates)} learning rate(s) {tuple(rates)} for {len(names)} sets of weights: give "
            f"one for each, in this order: {', '.join(names)}"
        )


def writing_key(key: PRNGKeyArray) -> PRNGKeyArray:
    """What writing draws from, given the key of a minibatch."""
    return jax.random.fold_in(key, 4)


class Learner(eqx.Module):
    """Abstract: one minibatch, from the free phase to the new parameters; ``writing`` is what holds
    these, where that does not do exactly as told.
    """

    writing: Writing | None = eqx.field(default=None, kw_only=True)

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
        batch: Batch,
        key: PRNGKeyArray,
    ) -> tuple[Model, Memory, Free]:
        """The network and the learner's state after one batch ``(x, y)``, and the batch's free
        phase.
        """

    def seen(self, memory: Memory) -> dict[str, Float[Array, ""]]:
        """What there is to report of the last minibatch, by the names of metrics, from the
        learner's state after it.
        """
        return {} if self.writing is None else self.writing.seen(memory[-1])


@final
class WithOptimizer(Learner):
    """A rule's update handed to an Optax optimizer after the phase: ``theta <- theta + eta
    optimizer(update)``, with a learning rate for each part of the model.

    Raises ``EqpropError`` for learning rates that cannot be, and by ``init`` where there is not one
    for each part.
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
        memory = cast(Any, self.optimizer).init(network), jnp.zeros((), jnp.int32)
        return memory if self.writing is None else (*memory, self.writing.init(network))

    @override
    def learn(
        self,
        system: System,
        network: Model,
        memory: Memory,
        batch: Batch,
        key: PRNGKeyArray,
    ) -> tuple[Model, Memory, Free]:
        state, step, *held = memory
        update, free = self.rule.update(system, network, *batch, key)
        # Optax descends: the update stands for minus a gradient.
        descent = jax.tree.map(jnp.negative, update)
        # Optax takes any pytree, but its types know only containers of arrays.
        scaled, state = cast(Any, self.optimizer).update(descent, state, network)
        factors = jnp.asarray(self.learning_rates) * self.schedule(step)
        descent = cast(Model, scaled).scale(factors)
        if self.writing is None:
            moved = jax.tree.map(jnp.subtract, network, descent)
            return moved.projected(), (state, step + 1), free
        change = jax.tree.map(jnp.negative, descent)
        begun = self.writing.begin(held[0])
        moved = self.writing.write(network, begun, change, writing_key(key))
        network, stored = self.writing.rest(*moved)
        return network, (state, step + 1, stored), free


class InsidePhase(Learner):
    """Abstract: plain steps of size ``eta`` per part of the model, inside the nudged phase.

    Raises ``EqpropError`` for a nudge of several phases.
    """

    def __check_init__(self) -> None:
        nudge, rates, _ = self.settings
        _check_rates(rates)
        if not nudge.one_sided:
            raise EqpropError(
                "a continual rule moves the weights along one nudged phase, but "
                f"{type(nudge).__name__} has several: use a one-sided, random-sign or mixed-sign "
                "nudge"
            )

    @property
    @abc.abstractmethod
    def settings(self) -> tuple[Nudge, tuple[float, ...], Schedule]:
        """What beta is drawn from, the learning rates of the parts, and the factor on these."""

    @abc.abstractmethod
    def phase(
        self, system: System, network: Model, free: States, batch: Batch, strengths: Strengths
    ) -> Model:
        """The network after the nudged phase from the states ``free``."""

    @abc.abstractmethod
    def step(
        self,
        system: System,
        network: Model,
        ends: tuple[States, States],
        batch: Batch,
        strengths: Strengths,
    ) -> tuple[States, Model]:
        """One step of the phase, given its first and its present states: the new states, and
        ``dtheta(t)``.
        """

    @override
    def init(self, network: Model) -> Memory:
        if network.readout is not None:
            raise EqpropError(
                "a continual rule moves connections by what the nudged phase does to their two "
                "ends, but a readout has no second end in it: use squared-error, or the rule that "
                "is not continual"
            )
        _check_rates(self.settings[1], network)
        step = jnp.zeros((), jnp.int32)
        return step if self.writing is None else (step, self.writing.init(network))

    @override
    def learn(
        self,
        system: System,
        network: Model,
        memory: Memory,
        batch: Batch,
        key: PRNGKeyArray,
    ) -> tuple[Model, Memory, Free]:
        x, _ = batch
        free = system.free(system.clamp(network, x), x)
        nudge, rates, schedule = self.settings
        beta = nudge.of_batch(key, len(x)).betas[0].astype(network.dtype)
        step = jnp.asarray(memory if self.writing is None else memory[0])
        strengths = beta, jnp.asarray(rates) * schedule(step)
        if self.writing is None:
            return self.phase(system, network, free.states, batch, strengths), step + 1, free
        held = network, self.writing.begin(memory[1])
        network, stored = self._write(system, held, free.states, batch, strengths, key)
        return network, (step + 1, stored), free

    def _write(
        self,
        system: System,
        held: tuple[Model, Stored],
        free: States,
        batch: Batch,
        strengths: Strengths,
        key: PRNGKeyArray,
    ) -> tuple[Model, Stored]:
        """The phase, with weights that are written at every step of it."""
        writing = self.writing
        assert writing is not None

        def body(
            t: Array, carry: tuple[tuple[Model, Stored], States]
        ) -> tuple[tuple[Model, Stored], States]:
            (network, stored), s = carry
            new, dtheta = self.step(system, network, (free, s), batch, strengths)
            change = dtheta.scale(strengths[1].astype(network.dtype))
            at = jax.random.fold_in(writing_key(key), t)
            return writing.write(network, stored, change, at), new

        written, _ = lax.fori_loop(0, system.nudged_steps, body, (held, free))
        return writing.rest(*written)


@final
class Continual(InsidePhase):
    """C-EP or C-VF, by its increment: ``theta_{t+1} = theta_t + eta dtheta(t)`` at every step of
    the nudged phase.

    Raises ``EqpropError`` for learning rates and nudges that cannot be, and by ``init`` for a
    network with a readout, which has no second end in the phase.
    """

    increment: Increment
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
        return continual_phase(system, self.increment, network, free, batch, strengths)[0]

    @override
    def step(
        self,
        system: System,
        network: Model,
        ends: tuple[States, States],
        batch: Batch,
        strengths: Strengths,
    ) -> tuple[States, Model]:
        return continual_step(system, self.increment, network, ends[1], batch, strengths)[1:]
