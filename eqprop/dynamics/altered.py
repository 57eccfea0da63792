"""Dynamics made of others, of which a step does something else besides."""

import dataclasses
from collections.abc import Callable
from typing import final, override

import jax.numpy as jnp
from jax import lax

from eqprop.dynamics.step import Dynamics, Place
from eqprop.errors import EqpropError
from eqprop.types import Forces, Inputs, Layer, PRNGKeyArray, Rates, States


class Altered(Dynamics):
    """Abstract: other dynamics, ``exact``, whose steps are altered; all else is as theirs."""

    exact: Dynamics

    @property
    @override
    def dt(self) -> float:
        return self.exact.dt

    @override
    def at(self, key: PRNGKeyArray) -> "Altered":
        return dataclasses.replace(self, exact=self.exact.at(key))

    @override
    def map_rows(self, repeat: Callable[[Layer], Layer]) -> "Altered":
        return dataclasses.replace(self, exact=self.exact.map_rows(repeat))

    @override
    def check_analytic(self) -> None:
        self.exact.check_analytic()

    @override
    def rates(self, x: Layer, states: States) -> Rates:
        return self.exact.rates(x, states)


@final
class Holding(Altered):
    """Some units stay where they are put, whatever drives them: what is left settles to the fixed
    point given these.

    Raises ``EqpropError`` for values that do not fit the layer, or the examples.
    """

    values: dict[int, Inputs]
    """By layer, from 1 to N, ``(B, *units)``: NaN where a unit is free."""

    @override
    def map_rows(self, repeat: Callable[[Layer], Layer]) -> "Holding":
        values = {n: repeat(value) for n, value in self.values.items()}
        return Holding(self.exact.map_rows(repeat), values)

    @override
    def react(self, states: States, drives: States, forces: Forces, at: Place) -> States:
        moved, last = self.exact.react(states, drives, forces, at), len(at.network.shapes) - 1
        if wrong := [n for n in self.values if not 1 <= n <= last]:
            raise EqpropError(f"layer {wrong[0]} cannot be held: give layers from 1 to {last}")
        return tuple(
            _held(s, self.values[n], n) if n in self.values else s
            for n, s in zip(at.layers, moved, strict=True)
        )


def _held(moved: Layer, value: Inputs, layer: int) -> Layer:
    if value.shape != moved.shape:
        raise EqpropError(
            f"the values held in layer {layer} have shape {value.shape}, but its states "
            f"{moved.shape}: give one for each unit of each example, NaN where it is free"
        )
    return jnp.where(jnp.isnan(value), moved, value)


@final
class Thinned(Altered):
    """What a unit becomes is multiplied by a factor of its own, 0 to silence it.

    For steps that forget the state before them, as in discrete time: in real time a factor in each
    step would be another flow.
    """

    factors: dict[int, Layer]
    """By layer, from 1 to N, ``(B, *units)``."""

    @override
    def map_rows(self, repeat: Callable[[Layer], Layer]) -> "Thinned":
        factors = {n: repeat(factor) for n, factor in self.factors.items()}
        return Thinned(self.exact.map_rows(repeat), factors)

    @override
    def react(self, states: States, drives: States, forces: Forces, at: Place) -> States:
        moved = self.exact.react(states, drives, forces, at)
        return tuple(
            s * self.factors[n] if n in self.factors else s
            for n, s in zip(at.layers, moved, strict=True)
        )


@final
class RoundedStates(Altered):
    """New states are rounded to the nearest bfloat16.

    The arrays stay float32, so that every rule sees one type: products gain, memory does not.
    """

    @override
    def react(self, states: States, drives: States, forces: Forces, at: Place) -> States:
        new = self.exact.react(states, drives, forces, at)
        return tuple(lax.reduce_precision(s, exponent_bits=8, mantissa_bits=7) for s in new)
