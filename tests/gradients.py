"""Curves over all steps at once, for small networks: those of a source, and those of BPTT."""

import dataclasses
from typing import NamedTuple

import jax
from jax import lax

from eqprop.dynamics.system import System
from eqprop.learning.baselines import StateCurves, Window, follow, loss_gradient, pull_back
from eqprop.networks.model import Model
from eqprop.theorem.curves import Changes, Source
from eqprop.types import Layer, States, Targets


class StepGradients(NamedTuple):
    """Gradients through the last K steps: t = 0 ... K-1, back in time, along the leading axis."""

    states: StateCurves
    """``grad_s(t)`` of each example, not divided by B."""
    network: Model
    """``grad_theta(t)``, mean over the batch: each parameter with the leading axis K."""


def trace(source: Source, steps: int) -> Changes:
    """All changes for t = 0 ... ``steps`` - 1 along a leading axis."""
    return lax.scan(lambda carry, _: source.step(carry), source.start(), length=steps)[1]


def unroll(system: System, network: Model, x: Layer, steps: int) -> Window:
    """The last ``steps`` of the free phase: the system's own relaxation, then synchronous steps."""
    clamped = system.clamp(network, x)
    s = clamped.zeros(len(x))
    if before := system.relaxation.steps - steps:
        relax = dataclasses.replace(system.relaxation, steps=before)
        s, _ = relax(system.free_step(clamped, x), s)
    return follow(system, clamped, x, s, steps)


def bptt(system: System, network: Model, x: Layer, y: Targets, steps: int) -> StepGradients:
    """``grad_s(t)`` and ``grad_theta(t)`` for t = 0 ... ``steps`` - 1, from one reverse scan."""
    window = unroll(system, network, x, steps)

    def body(adjoint: States, before: States) -> tuple[States, StepGradients]:
        earlier, gradient = pull_back(system, network, x, before, adjoint)
        mean = jax.tree.map(lambda leaf: leaf / x.shape[0], gradient)
        return earlier, StepGradients(adjoint, mean)

    start = loss_gradient(system, network, window.last, y)
    _, forwards = lax.scan(body, start, window.before, reverse=True)
    return jax.tree.map(lambda leaf: leaf[::-1], forwards)
