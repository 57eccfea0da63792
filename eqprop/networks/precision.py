"""States in bfloat16: rounded after each step; products with rounded weights, summed in float32.

Weights and their updates stay in float32. A bfloat16 has 8 bits of significand, so states below 1
lie up to 2^-8 apart: a nudge that moves them by less is lost, and what is left of a nudged phase is
divided by beta. docs/results.md has the angle between such updates and those of float32.
"""

import jax
import jax.numpy as jnp

from eqprop.networks.connections import Connection
from eqprop.networks.graphs import Build
from eqprop.types import Array, Float, PRNGKeyArray, Shape


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


def multiply_in_half(build: Build) -> Build:
    """Makes what ``build`` does, multiplying by ``multiply``."""

    def made(pre: Shape, post: Shape, key: PRNGKeyArray) -> Connection:
        return build(pre, post, key).with_product(multiply)

    return made
