"""Random numbers of a device: those that stay, and those that change at each look."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import UInt32

from eqprop.types import Array, Float, PRNGKeyArray, Shape

_ODD = 2654435761  # 2^32 over the golden ratio
_MIX = (0x21F0AAAD, 0x735A2D97)  # multipliers of an integer hash of low bias


def fixed(chip: int, what: str, place: int, shape: Shape) -> Float[np.ndarray, "*shape"]:
    """Standard normal numbers that belong to a chip: the same whenever they are asked for.

    ``what`` and ``place``, a layer or a connection say, tell them from others.
    """
    seed = [chip, place, *what.encode()]
    return np.random.default_rng(seed).standard_normal(shape)


def uniform(key: PRNGKeyArray, shape: Shape, dtype: Any) -> Float[Array, "*shape"]:
    """Uniform numbers above 0 and below 1, on a grid of 2^-23, neither end among them.

    A hash of the place in the array and of the key, which ``jax.random`` has made: rounding every
    weight at random in every step needs numbers by the million, and these cost a tenth.
    """
    first, second = jax.random.key_data(key).astype(jnp.uint32)
    places = lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    bits = _mixed(_mixed(places + first) ^ second)
    return ((bits >> 9).astype(dtype) + 0.5) * 2.0**-23


def normal(key: PRNGKeyArray, shape: Shape, dtype: Any) -> Float[Array, "*shape"]:
    """Standard normal numbers, made of these."""
    return gauss(uniform(key, shape, dtype))


def gauss(draw: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The normal numbers below which lies this share of them."""
    return lax.erf_inv(2 * draw - 1) * 2**0.5


def _mixed(bits: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    for factor in _MIX:
        bits = (bits ^ (bits >> 16)) * np.uint32(factor)
    return bits ^ (bits >> 15)


def normal_for(key: PRNGKeyArray, values: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Standard normal noise on real values, as a function of key and values.

    Whoever looks twice at the same thing sees the same; whatever differs in one bit has other
    noise. So noisy steps are still functions of the states, as relaxations and rules take them to
    be, and know nothing of a place in time. It has no derivative.
    """
    single = lax.stop_gradient(values).astype(jnp.float32)
    bits = lax.bitcast_convert_type(single, jnp.uint32).ravel()
    odd = lax.iota(jnp.uint32, bits.size) * np.uint32(2) + np.uint32(1)
    # Wraps around, so that it is the same in whatever order it is summed up.
    digest = jnp.sum((bits ^ (bits >> 15)) * (odd * np.uint32(_ODD)), dtype=jnp.uint32)
    return normal(jax.random.fold_in(key, digest), values.shape, values.dtype)
