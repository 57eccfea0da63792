"""States in bfloat16: rounded after each step; products with rounded weights, summed in float32.

Weights and their updates stay in float32. A bfloat16 has 8 bits of significand, so states below 1
lie up to 2^-8 apart: a nudge that moves them by less is lost, and what is left of a nudged phase is
divided by beta. docs/results.md has the angle between such updates and those of float32.
"""

from typing import override

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from eqprop.dynamics import Activation, Dynamics
from eqprop.graphs import Build
from eqprop.network import Connection
from eqprop.types import Array, Float, Layer, PRNGKeyArray, Rates, Shape, States


@jax.custom_vjp
def multiply(a: Float[Array, "m k"], b: Float[Array, "k n"]) -> Float[Array, "m n"]:
    """``a b``, both rounded to bfloat16, summed in the precision of ``a``.

    Its derivative in ``a``, for ``b`` the weights, is such a product too. That in ``b`` is in full
    precision: rounding it would drown the difference of two states, which the nudge has made.
    """
    half = (a.astype(jnp.bfloat16), b.astype(jnp.bfloat16))
    return jnp.matmul(*half, preferred_element_type=a.dtype)


type _Pair = tuple[Float[Array, "m k"], Float[Array, "k n"]]


def _forward(a: Array, b: Array) -> tuple[Array, tuple[Array, Array]]:
    return multiply(a, b), (a, b)


def _backward(factors: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    a, b = factors
    return multiply(cotangent, b.T), jnp.matmul(a.T, cotangent)


multiply.defvjp(_forward, _backward)


class RoundedStates(Dynamics):
    """Other dynamics, whose new states are rounded to the nearest bfloat16.

    The arrays stay float32, so that every rule sees one type: products gain, memory does not.
    """

    activation: Activation = eqx.field(static=True)
    """That of the other dynamics."""
    exact: Dynamics

    @property
    @override
    def dt(self) -> float:
        return self.exact.dt

    @override
    def rates(self, x: Layer, states: States) -> Rates:
        return self.exact.rates(x, states)

    @override
    def react(self, states: States, drives: States, force: Layer | None) -> States:
        new = self.exact.react(states, drives, force)
        return tuple(lax.reduce_precision(s, exponent_bits=8, mantissa_bits=7) for s in new)


def multiply_in_half(build: Build) -> Build:
    """Makes what ``build`` does, multiplying by ``multiply``."""

    def made(pre: Shape, post: Shape, key: PRNGKeyArray) -> Connection:
        return build(pre, post, key).with_product(multiply)

    return made
