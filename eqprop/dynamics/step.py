"""Dynamics: one step ``s <- F(s)`` of the states, and the rate that each neuron sends.

All of them share the model's drives, ``dPhi/dr``; they differ in what a drive does to a state.
"""

import abc
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, final, override

import equinox as eqx
import jax
import jax.numpy as jnp

from eqprop.dynamics.activations import Activation, hardsigm, is_analytic
from eqprop.errors import EqpropError
from eqprop.networks.energy import Energy, Own
from eqprop.networks.model import Model
from eqprop.networks.resistive import ResistiveNetwork
from eqprop.types import Forces, Layer, PRNGKeyArray, Rates, States


@final
class Place(NamedTuple):
    """Which layers of which model move."""

    network: Model
    layers: tuple[int, ...]

    @property
    def with_output(self) -> bool:
        """Whether the last of them is the output layer."""
        return self.layers[-1] == len(self.network.shapes) - 1


class Dynamics(eqx.Module):
    """Abstract: the map F whose fixed point is what the network computes."""

    def at(self, key: PRNGKeyArray) -> "Dynamics":
        """The same with other noise, as of another minibatch; itself where it has none."""
        return self

    def map_rows(self, repeat: Callable[[Layer], Layer]) -> "Dynamics":
        """The same for other rows, each one that it was for before; itself where it is the same for
        all.
        """
        return self

    def check_analytic(self) -> None:
        """Raises ``EqpropError`` where the step is not an analytic function of the states, which
        this one is.
        """

    @property
    def dt(self) -> float:
        """Time of one step; ``D_s(t) = (s_{t+1} - s_t)/(beta dt)``. 1 in discrete time."""
        return 1.0

    def rates(self, x: Layer, states: States) -> Rates:
        """What layers 0 ... N send, given the input ``(B, *input)`` and the states: these."""
        return (x, *states)

    @abc.abstractmethod
    def react(self, states: States, drives: States, forces: Forces, at: Place) -> States:
        """New states of some layers from their drives and from what pushes them."""

    def step(
        self,
        network: Model,
        x: Layer,
        states: States,
        forces: Forces | None = None,
        layers: Sequence[int] | None = None,
    ) -> States:
        """``s_{t+1} = F(x, s_t, theta, forces)``, all layers at once or those named in ``layers``.

        ``forces`` are ``-beta dl/ds`` of the layers 1 ... N, each ``(B, *units)`` or None; None in
        a free phase.
        """
        forces = (None,) * len(states) if forces is None else forces
        _check_precision(network, x, states, forces)
        layers = range(1, len(network.shapes)) if layers is None else layers
        drives = network.drives(self.rates(x, states), layers)
        own, at = tuple(states[n - 1] for n in layers), Place(network, tuple(layers))
        moved = self.react(own, drives, tuple(forces[n - 1] for n in layers), at)
        new = dict(zip(layers, moved, strict=True))
        return tuple(new.get(n, s) for n, s in enumerate(states, 1))


def _identity(v: Layer) -> Layer:
    return v


def _of_slope_one(rho: Activation) -> Activation:
    """The same function, whose derivative is taken for 1."""
    made = jax.custom_jvp(rho)
    made.defjvp(lambda v, tangent: (rho(*v), *tangent))
    return made


def _check_analytic(rho: Activation) -> None:
    if not is_analytic(rho):
        name = getattr(rho, "__name__", "the activation")
        raise EqpropError(
            f"{name} is not analytic, as complex states need it for a holomorphic nudge: use "
            "sigm or tanh, or a centered nudge"
        )


def pushed(drives: Sequence[Layer], forces: Forces) -> States:
    """Drives, or what moves states in their place, with the forces added."""
    pairs = zip(drives, forces, strict=True)
    return tuple(drive if force is None else drive + force for drive, force in pairs)


def _check_precision(network: Model, x: Layer, states: States, forces: Forces) -> None:
    """Raises ``EqpropError`` where data and network would make states of another type."""
    own = jnp.finfo(network.dtype)
    if not jnp.issubdtype(x.dtype, jnp.floating) or jnp.finfo(x.dtype).bits != own.bits:
        raise EqpropError(
            f"the input is {x.dtype}, but the network {own.dtype}: give x.astype('{own.dtype}'), "
            "or a network of the other type"
        )
    for force, s in zip(forces, states, strict=True):
        if force is not None and jnp.promote_types(s.dtype, force.dtype) != s.dtype:
            raise EqpropError(
                f"the targets make a force of {force.dtype}, but states are {s.dtype}: give "
                f"y.astype('{own.dtype}')"
            )


@final
class Prototypical(Dynamics):
    """Discrete time, ``s_i <- sigma(drive_i)`` (arXiv:2005.04169, "prototypical" setting).

    The nudge stands outside the activation, ``s_N <- sigma(drive_N) + force``, as in the paper;
    with ``inside`` it is a force on the potential, ``s_N <- sigma(drive_N + force)``, and then the
    updates follow the BPTT gradients for any differentiable activation. A ``linear_output`` is its
    drive as it is, ``s_N <- drive_N + force``, as regressions want it.

    Without ``output_slope`` derivatives pass the output as if ``sigma'`` were 1 there, the output
    being what it was. So what backpropagation sends back is not lost where sigma is flat, as a
    nudge outside is not.
    """

    activation: Activation = eqx.field(static=True)
    inside: bool = eqx.field(static=True, default=False)
    output_slope: bool = eqx.field(static=True, default=True)
    linear_output: bool = eqx.field(static=True, default=False)

    @override
    def check_analytic(self) -> None:
        _check_analytic(self.activation)

    @override
    def react(self, states: States, drives: States, forces: Forces, at: Place) -> States:
        rhos = [self.activation] * len(drives)
        if at.with_output and self.linear_output:
            rhos[-1] = _identity
        elif at.with_output and not self.output_slope:
            rhos[-1] = _of_slope_one(self.activation)
        drives = pushed(drives, forces) if self.inside else drives
        moved = tuple(rho(drive) for rho, drive in zip(rhos, drives, strict=True))
        return moved if self.inside else pushed(moved, forces)


@final
class EnergyBased(Dynamics):
    """Real time, ``s_i <- s_i + dt (-s_i + rho'(s_i) drive_i)`` (+ ``dt force``).

    A gradient step on ``E = 1/2 sum |s|^2 - Phi(rho(s))``; neurons send ``rho(s)``, the input
    included; with ``raw_input`` the input sends ``x`` as it is. ``clip`` keeps states in [0, 1], as
    trainings do and theorem checks do not.

    Without ``output_slope`` the output moves by its drive as it is, ``s_N <- s_N + dt (-s_N +
    drive_N + force)``, as in the published programs, while rules go on reading ``rho(s_N)``: then
    no energy has these dynamics, and Theorem 1 is approximate. A ``linear_output``, as regressions
    want it, has the identity for its rho, and is not clipped.
    """

    activation: Activation = eqx.field(static=True)
    time_step: float = eqx.field(static=True)
    clip: bool = eqx.field(static=True, default=False)
    raw_input: bool = eqx.field(static=True, default=False)
    output_slope: bool = eqx.field(static=True, default=True)
    linear_output: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        if not (0 < self.time_step <= 1 and math.isfinite(self.time_step)):
            raise EqpropError(
                f"dt is {self.time_step}: the time step must be above 0 and at most 1"
            )

    @property
    @override
    def dt(self) -> float:
        return self.time_step

    @override
    def rates(self, x: Layer, states: States) -> Rates:
        r_input = x if self.raw_input else self.activation(x)
        rates = [self.activation(s) for s in states]
        if states and self.linear_output:
            rates[-1] = states[-1]
        return (r_input, *rates)

    @override
    def check_analytic(self) -> None:
        _check_analytic(self.activation)
        if self.clip:
            raise EqpropError(
                "states kept in [0, 1] are not analytic functions of beta, as a holomorphic nudge "
                "needs: leave the clipping out (--no-clip), or use a centered nudge"
            )

    @override
    def react(self, states: States, drives: States, forces: Forces, at: Place) -> States:
        def slope(s: Layer) -> Layer:
            return jax.jvp(self.activation, (s,), (jnp.ones_like(s),))[1]

        linear = at.with_output and self.linear_output
        pulls = [slope(s) * v - s for s, v in zip(states, drives, strict=True)]
        if linear or (at.with_output and not self.output_slope):
            pulls[-1] = drives[-1] - states[-1]
        pairs = zip(states, pushed(pulls, forces), strict=True)
        moved = [s + self.time_step * pull for s, pull in pairs]
        if not self.clip:
            return tuple(moved)
        clipped = [hardsigm(s) for s in moved]
        return (*clipped[:-1], moved[-1] if linear else clipped[-1])


@final
class Descent(Dynamics):
    """Real time on any energy, ``s_i <- s_i - dt dE/ds_i`` (+ ``dt force`` where it is pushed),
    then projected on the ``bounds`` of its layer, where it has any.
    """

    time_step: float = eqx.field(static=True)
    bounds: tuple[tuple[float, float] | None, ...] = eqx.field(static=True)
    """Of the layers 1 ... N."""

    @property
    @override
    def dt(self) -> float:
        return self.time_step

    @override
    def react(self, states: States, drives: States, forces: Forces, at: Place) -> States:
        pairs = zip(states, pushed(drives, forces), strict=True)
        moved = [s + self.time_step * pull for s, pull in pairs]
        # All layers move at once: what has no connections has no sweeps.
        return tuple(
            s if ends is None else jnp.clip(s, *ends)
            for s, ends in zip(moved, self.bounds, strict=True)
        )


@final
class BlockDescent(Dynamics):
    """A resistive network: each node moves to where the currents into it, those of the nudge
    included, add up to 0 while the others stay, ``v_i <- (sum_j g_ij v_j + force) / sum_j g_ij``;
    and then no further than its diode lets it (arXiv:2402.11674).

    Swept over even and odd layers this is exact block coordinate descent on E. Of the hidden nodes
    of a layer the first half stay at 0 or above, the others at 0 or below; without ``diodes`` the
    circuit is linear. Raises ``EqpropError`` for other models.
    """

    diodes: bool = eqx.field(static=True, default=True)

    @override
    def react(self, states: States, drives: States, forces: Forces, at: Place) -> States:
        if not isinstance(at.network, ResistiveNetwork):
            raise EqpropError(
                f"block descent is of resistive networks, but this is a {type(at.network).__name__}"
            )
        totals = [at.network.totals[n - 1] for n in at.layers]
        moved = [
            v + current / jnp.maximum(total, jnp.finfo(total.dtype).tiny)
            for v, current, total in zip(states, pushed(drives, forces), totals, strict=True)
        ]
        if not self.diodes:
            return tuple(moved)
        hidden = moved[:-1] if at.with_output else moved
        kept = [_rectified(v) for v in hidden]
        return (*kept, *moved[len(hidden) :])


def _rectified(v: Layer) -> Layer:
    """The first half of the nodes at 0 or above, the others at 0 or below."""
    above = jnp.arange(v.shape[-1]) < v.shape[-1] // 2
    return jnp.where(above, jnp.maximum(v, 0), jnp.minimum(v, 0))


@final
class Iterated(Dynamics):
    """A map of one's own: the drives are the new states; forces stand outside of it."""

    @override
    def react(self, states: States, drives: States, forces: Forces, at: Place) -> States:
        return pushed(drives, forces)


def dynamics_of(own: Own) -> Dynamics:
    """How an energy or a map of one's own settles."""
    if isinstance(own, Energy):
        return Descent(time_step=own.dt, bounds=own.bounds_of_layers)
    return Iterated()
