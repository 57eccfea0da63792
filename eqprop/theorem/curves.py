"""The curves of Theorem 1: what a rule does at each nudged step, and what BPTT asks for.

A ``Source`` yields changes D(t) for t = 0 ... K-1. ``Updates`` yields those of a rule, by the very
increments that training applies; ``Gradients`` yields minus the gradients of BPTT
(arXiv:1905.13633: the two agree as beta -> 0, where the free phase has converged). A further rule
to examine is a further source.
"""

import abc
import functools
from typing import Any, NamedTuple, final, override

import equinox as eqx
import jax
import jax.numpy as jnp

from eqprop.dynamics.nudges import Stencil, weighted
from eqprop.dynamics.system import System
from eqprop.learning.asymmetric import AsymmetricPhase, continual_asymmetric_step
from eqprop.learning.baselines import StateCurves, Window, loss_gradient, pull_back
from eqprop.learning.continual import continual_step
from eqprop.learning.increments import Increment
from eqprop.networks.model import Model
from eqprop.types import Array, Float, Int, Layer, States, Strength, Targets


@final
class Problem(NamedTuple):
    """What rules and baselines are compared on: a network, its dynamics, and a batch ``(x, y)``,
    inputs ``(B, *shapes[0])`` and targets ``(B, outputs)``.
    """

    system: System
    network: Model
    batch: tuple[Layer, Targets]


@final
class Changes(NamedTuple):
    """The changes D(t) of one step (or of all steps, along a leading axis K)."""

    states: States | StateCurves
    """``D_s(t)`` of each example."""
    network: Model
    """``D_theta(t)``, mean over the batch."""


class Source(eqx.Module):
    """Abstract: something that says, step by step, how states and parameters are to change."""

    problem: eqx.AbstractVar[Problem]

    @abc.abstractmethod
    def start(self) -> Any:
        """What is carried from step to step, as it is before t = 0."""

    @abc.abstractmethod
    def step(self, carry: Any) -> tuple[Any, Changes]:
        """The next step's changes."""


@final
class Gradients(Source):
    """``-grad_s(t)`` and ``-grad_theta(t)``: BPTT through the free steps of ``window``.

    BPTT runs from the last step backwards, so its t grows along with that of the nudged phase.
    """

    problem: Problem
    window: Window

    @override
    def start(self) -> tuple[Int[Array, ""], States]:
        last = self.window.before[-1].shape[0] - 1
        system, network, (_, y) = self.problem
        return jnp.asarray(last), loss_gradient(system, network, self.window.last, y)

    @override
    def step(self, carry: tuple[Int[Array, ""], States]) -> tuple[Any, Changes]:
        index, adjoint = carry
        system, network, (x, _) = self.problem
        before = tuple(layer[index] for layer in self.window.before)
        earlier, gradient = pull_back(system, network, x, before, adjoint)
        ascent = jax.tree.map(lambda leaf: -leaf / x.shape[0], gradient)
        return (index - 1, earlier), Changes(jax.tree.map(jnp.negative, adjoint), ascent)


class NudgedPhase(Source):
    """Abstract: ``D_s(t) = (s_{t+1} - s_t)/(beta dt)`` and ``D_theta(t) = dtheta(t)`` of a learning
    rule, one step after the other.

    ``free`` is where the nudged phases start, ``s*``; ``eta`` (one per edge) is the step of a
    continual rule, 0 for others. With several nudged phases D is their combination by the
    weights of the stencil: ``D_s(t) = sum_k w_k (s_k(t+1) - s_k(t))/dt``, and likewise for theta;
    with complex betas the real part of that, of complex copies of states and parameters.
    """

    free: eqx.AbstractVar[States]
    stencil: eqx.AbstractVar[Stencil]
    eta: eqx.AbstractVar[Float[Array, " edges"]]

    @abc.abstractmethod
    def one(self, network: Model, states: States, beta: Strength) -> tuple[Model, States, Model]:
        """A step with one beta: the moved network, the new states, and ``dtheta(t)``."""

    @override
    def start(self) -> tuple[Model, StateCurves]:
        system, network, _ = self.problem
        if self.stencil.is_complex:
            system.check_analytic(network)

        def copies(leaf: Array) -> Array:
            points = len(self.stencil.betas)
            return jnp.broadcast_to(
                leaf.astype(self.stencil.dtype(leaf.dtype)), (points, *leaf.shape)
            )

        return jax.tree.map(copies, (network, self.free))

    @override
    def step(self, carry: tuple[Model, StateCurves]) -> tuple[Any, Changes]:
        betas, weights, _ = self.stencil
        moved, new, dtheta = jax.vmap(self.one)(*carry, betas)
        d_states = tuple(
            weighted(weights, after - before) / self.problem.system.dynamics.dt
            for before, after in zip(carry[1], new, strict=True)
        )
        # Each point's dtheta is divided by its own beta already: what is left is alike in all rows.
        shares = (weights * betas).reshape(len(betas), -1)[:, 0]
        d_network = jax.tree.map(functools.partial(weighted, shares), dtheta)
        return (moved, new), Changes(d_states, d_network)


@final
class Updates(NudgedPhase):
    """Those of the rules that are an increment."""

    problem: Problem
    increment: Increment
    free: States
    stencil: Stencil
    eta: Float[Array, " edges"]

    @override
    def one(self, network: Model, states: States, beta: Strength) -> tuple[Model, States, Model]:
        system, _, batch = self.problem
        strengths = (beta, self.eta)
        return continual_step(system, self.increment, network, states, batch, strengths)


@final
class AsymmetricUpdates(NudgedPhase):
    """Those of asymmetric EP."""

    problem: Problem
    free: States
    stencil: Stencil
    eta: Float[Array, " edges"]

    @override
    def one(self, network: Model, states: States, beta: Strength) -> tuple[Model, States, Model]:
        system, real, batch = self.problem
        if self.stencil.is_complex:  # about a real fixed point of real parameters, which stay
            phase = AsymmetricPhase(system, real, *batch, self.free)
            new, seen = phase.advance(states, beta)
            return network, new, jax.tree.map(lambda leaf: leaf / beta, seen)
        strengths = (beta, self.eta)
        return continual_asymmetric_step(system, network, self.free, states, batch, strengths)
