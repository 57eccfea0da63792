"""The two phases: a free relaxation to the fixed point, then K nudged steps away from it."""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple, final

import equinox as eqx
import jax

from eqprop.dynamics.altered import Holding
from eqprop.dynamics.costs import Cost
from eqprop.dynamics.nudges import by_row
from eqprop.dynamics.relaxation import Relaxation, Settled, Step, iterate
from eqprop.dynamics.step import Dynamics
from eqprop.errors import EqpropError
from eqprop.networks.connections import Connection
from eqprop.networks.model import Model
from eqprop.types import (
    Forces,
    Inputs,
    Layer,
    PRNGKeyArray,
    Rates,
    States,
    Strength,
    Targets,
)

type Layers = tuple[int, ...] | None
"""Layers to move; None for all."""


@final
class Free(NamedTuple):
    """A free phase: the states ``s*`` and how the relaxation ended."""

    states: States
    settled: Settled


class Reading(eqx.Module):
    """Abstract: how a rule gets to know states, where it does not see them as they are."""

    @abc.abstractmethod
    def at(self, key: PRNGKeyArray) -> "Reading":
        """The same with other noise, as of another minibatch."""

    @abc.abstractmethod
    def __call__(self, states: States, *, nudged: bool) -> States:
        """Free or nudged states as they are read. One state read twice is read as the same."""


@final
class System(eqx.Module):
    """What settles, and how: dynamics, cost, free relaxation, and the number K of nudged steps.

    ``sweeps`` replaces a synchronous free step by a sweep over the two colours of the connection
    graph, one after the other, which settles in about half as many. A dense net settles to the same
    fixed point where it has one only; with max-pooling it may be another. ``nudged_sweeps`` does so
    in the nudged phase, whose K sweeps carry the error about as far as 2K steps. The fixed points
    it heads for are the same, but the theorem that links each nudged step to a step of BPTT is one
    of synchronous steps.

    With ``hold`` the output is not pushed in the nudged phase but held where a push of beta would
    send it at once, ``s* + beta force``: coupled learning (Stern et al., PRX 2021), and with beta
    1 contrastive learning. Rules that compare the two ends of the phase, EP after the phase, read
    it as any other.
    """

    dynamics: Dynamics
    cost: Cost
    relaxation: Relaxation
    nudged_steps: int = eqx.field(static=True)
    sweeps: bool = eqx.field(static=True, default=False)
    nudged_sweeps: bool = eqx.field(static=True, default=False)
    hold: bool = eqx.field(static=True, default=False)
    reading: Reading | None = None

    def __check_init__(self) -> None:
        if self.nudged_steps < 1:
            raise EqpropError(
                f"the number of nudged steps K is {self.nudged_steps}: it must be at least 1"
            )

    def holding(self, values: Mapping[int, Inputs]) -> "System":
        """The same with some units put where they stay, as a clamped input does: by layer, from 1
        to N, ``(B, *units)`` for the examples to come, NaN where a unit is free.

        A step raises ``EqpropError`` for layers and values that do not fit.
        """
        return dataclasses.replace(self, dynamics=Holding(self.dynamics, dict(values)))

    def map_rows(self, repeat: Callable[[Layer], Layer]) -> "System":
        """The same for several rows of each example, as ``repeat`` makes them of one."""
        return dataclasses.replace(self, dynamics=self.dynamics.map_rows(repeat))

    def at(self, key: PRNGKeyArray) -> "System":
        """The same with other noise, as of the minibatch of that key; itself where it has none."""
        of_steps, of_reading = (jax.random.fold_in(key, n) for n in (2, 3))
        return dataclasses.replace(
            self,
            dynamics=self.dynamics.at(of_steps),
            reading=self.reading and self.reading.at(of_reading),
        )

    def read(self, states: States, *, nudged: bool) -> States:
        """Free or nudged states as a rule reads them."""
        return states if self.reading is None else self.reading(states, nudged=nudged)

    def nudged_rates(self, x: Layer, states: States) -> Rates:
        """What layers 0 ... N send, by nudged states as a rule reads them."""
        return self.dynamics.rates(x, self.read(states, nudged=True))

    def check_analytic(self, network: Model) -> None:
        """Raises ``EqpropError`` where F is not analytic, as holomorphic nudges need."""
        self.dynamics.check_analytic()
        network.check_analytic()

    def check_sweeps(self, network: Model) -> None:
        """Raises ``EqpropError`` where there are sweeps, but the connection graph has no two
        colours.
        """
        if self.sweeps or self.nudged_sweeps:
            network.colours()

    def clamp(self, network: Model, x: Layer) -> Model:
        """The network with everything that the static input, ``(B, *shapes[0])``, contributes
        computed once.

        Raises ``EqpropError`` for inputs of another shape.
        """
        if x.shape[1:] != network.shapes[0]:
            raise EqpropError(
                f"inputs have shape {x.shape}, but the network takes {network.shapes[0]} of each "
                "example: give a batch of these"
            )
        return network.clamp(self.dynamics.rates(x, ())[0])

    def free_step(self, clamped: Model, x: Layer) -> Step:
        """One free step, or one sweep, as a function of the states."""

        def part(s: States, layers: Layers) -> States:
            return self.dynamics.step(clamped, x, s, layers=layers)

        return _sweep(clamped, part) if self.sweeps else lambda s: part(s, None)

    def free(self, clamped: Model, x: Layer) -> Free:
        """Phase 1: from ``s = 0`` to the fixed point ``s*``: the states of the layers 1 ... N,
        ``(B, *shapes[n])``, and how the relaxation ended.
        """
        return Free(*self.relaxation(self.free_step(clamped, x), clamped.zeros(x.shape[0])))

    def force(self, network: Model, states: States, y: Targets) -> Forces:
        """``-dl/ds`` of each example, by way of the scores: of the layers 1 ... N, None for those
        that the cost does not read.
        """
        outputs = [n - 1 for n in network.outputs]
        scores, back = jax.vjp(
            lambda *own: network.read(network.output(own)), *(states[n] for n in outputs)
        )
        forces = dict(zip(outputs, back(self.cost.force(scores, y)), strict=True))
        return tuple(forces.get(n) for n in range(len(states)))

    def readout_update(self, network: Model, output: Layer, y: Targets) -> Connection | None:
        """``-dl/dtheta`` of the readout, mean over the batch; None where there is none.

        The readout has no part in the fixed point, so this is all of its gradient: local, between
        the output layer and the error of the scores (arXiv:2006.03824).
        """
        if network.readout is None:
            return None
        scores, back = jax.vjp(lambda readout: readout(output), network.readout)
        return back(self.cost.force(scores, y) / len(y))[0]

    def nudged_step(
        self, network: Model, x: Layer, y: Targets, beta: Strength, states: States
    ) -> States:
        """One nudged step, or one sweep; ``beta`` is one number, or one for each row of the
        batch.

        Raises ``EqpropError`` where the output is held, which is up to the whole phase.
        """
        if self.hold:
            raise EqpropError(
                "a held output is for rules that compare the two ends of the nudged phase, as ep, "
                "not for those that read its steps: leave hold out"
            )

        def part(s: States, layers: Layers) -> States:
            forces = by_row(beta, self.force(network, s, y))
            return self.dynamics.step(network, x, s, forces, layers)

        return _sweep(network, part)(states) if self.nudged_sweeps else part(states, None)

    def nudged(
        self, clamped: Model, x: Layer, y: Targets, beta: Strength, states: States
    ) -> States:
        """Phase 2: K steps from ``s*`` with nudging strength ``beta``; the last states."""
        if self.hold:
            return self._held(clamped, x, y, beta, states)

        return iterate(
            lambda s: self.nudged_step(clamped, x, y, beta, s), states, self.nudged_steps
        )

    def _held(self, clamped: Model, x: Layer, y: Targets, beta: Strength, states: States) -> States:
        """``nudged``, with the output held where scores are ``beta`` of the way to the target, and
        the other layers as free as before.
        """
        forces = by_row(beta / clamped.score_per_force, self.force(clamped, states, y))

        def held(s: States) -> States:
            start = zip(s, states, forces, strict=True)
            return tuple(now if f is None else before + f for now, before, f in start)

        def part(s: States, layers: Layers) -> States:
            return held(self.dynamics.step(clamped, x, s, layers=layers))

        step = _sweep(clamped, part) if self.nudged_sweeps else lambda s: part(s, None)
        return iterate(step, held(states), self.nudged_steps)


def _sweep(network: Model, part: Callable[[States, Layers], States]) -> Step:
    """Moves the layers of one colour of the connection graph, then those of the other."""

    def sweep(s: States) -> States:
        for layers in network.colours():
            if layers:
                s = part(s, layers)
        return s

    return sweep
