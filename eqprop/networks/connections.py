"""Connections: one differentiable function each, from which everything else follows."""

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import final, override

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from eqprop.errors import EqpropError
from eqprop.types import Array, Float, Inexact, Layer, PRNGKeyArray, Shape

type Factor = Inexact[Array, "..."] | Inexact[np.ndarray, "..."]

type Product = Callable[[Array, Array], Array]
"""How two matrices are multiplied."""


def multiply(a: Factor, b: Factor) -> Inexact[Array, "..."]:
    """``a b``, and its derivatives, in the full precision of their type.

    All products of rates and weights are made so: left to itself, JAX has a GPU round the factors
    of a float32 product to 10 bits (TensorFloat-32), which is coarser than what a nudge moves.
    """
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


@jax.custom_vjp
def multiply_in_half(a: Float[Array, "m k"], b: Float[Array, "k n"]) -> Float[Array, "m n"]:
    """``a b``, both rounded to bfloat16, summed in the precision of ``a``.

    Its derivative in ``a``, for ``b`` the weights, is such a product too. That in ``b`` is in full
    precision: rounding it would drown the difference of two states, which the nudge has made.
    Weights and their updates stay in float32; docs/tried.md has the angle between such updates
    and those of float32.
    """
    half = (a.astype(jnp.bfloat16), b.astype(jnp.bfloat16))
    return jnp.matmul(*half, preferred_element_type=a.dtype)


def _forward(a: Array, b: Array) -> tuple[Array, tuple[Array, Array]]:
    return multiply_in_half(a, b), (a, b)


def _backward(factors: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    a, b = factors
    return multiply_in_half(cotangent, b.T), multiply(a.T, cotangent)


multiply_in_half.defvjp(_forward, _backward)


class Connection(eqx.Module):
    """Abstract: a differentiable map from the rates of one layer to a drive on another.

    Subclasses write ``__call__`` alone. The feedback and the statistics below are derived from it,
    so they cannot disagree with it.
    """

    @property
    def analytic(self) -> bool:
        """Whether the drive is an analytic function of the rates, as holomorphic nudges need."""
        return True

    @abc.abstractmethod
    def __call__(self, r_pre: Layer) -> Layer:
        """Drive on the postsynaptic layer, ``(B, *post)``, for presynaptic rates ``(B, *pre)``."""

    def feedback(self, r_pre: Layer, r_post: Layer) -> Layer:
        """Drive on the presynaptic layer, ``dPhi/dr_pre``, shape ``(B, *pre)``."""
        _, vjp = jax.vjp(self.__call__, r_pre)
        return vjp(r_post)[0]

    def statistic(self, r_pre: Layer, r_post: Layer) -> "Connection":
        """``dPhi/dtheta`` summed over the batch; linear in ``r_post``."""
        _, vjp = jax.vjp(lambda connection: connection(r_pre), self)
        return vjp(r_post)[0]

    def feedback_statistic(self, r_pre: Layer, d_pre: Layer, r_post: Layer) -> "Connection":
        """Gradient in theta of ``d_pre . feedback(r_pre, r_post)``, summed over the batch."""
        _, vjp = jax.vjp(lambda connection: connection.feedback(r_pre, r_post), self)
        return vjp(d_pre)[0]

    def multiplications(self, pre: Shape) -> int:
        """How many multiplications of rates with weights the drive of one example takes, for
        presynaptic units of shape ``pre``.

        Each weight counts once; a connection whose weights serve several times says so itself.
        """
        return sum(leaf.size for leaf in jax.tree.leaves(self) if leaf.ndim > 1)

    def guided(self, by: "Connection") -> "Connection":
        """The same connection, but what it chooses by the size of drives, as a max-pool does, is
        chosen by those of another one; itself where it chooses nothing.
        """
        return self

    def prepared(self, pre: Shape) -> "Connection":
        """The same connection with what it makes of its weights at each call, for presynaptic units
        of shape ``pre``, made once; itself where that is nothing.
        """
        return self

    def fix_bias(self) -> "Connection":
        """The same connection with a bias that never learns; itself where it has none."""
        return self

    def with_product(self, product: Product) -> "Connection":
        """The same connection with another way to multiply rates with weights; itself where it has
        no product to replace.
        """
        return self


@final
class Dense(Connection):
    """All-to-all connection ``r_pre W + b``; a layer with several axes is flattened.

    ``weight`` has shape ``(n_pre, n_post)``, ``bias`` ``(n_post,)`` or None. A bias that does not
    learn has an update of 0 in every rule.
    """

    weight: Float[Array, "n_pre n_post"]
    bias: Float[Array, " n_post"] | None = None
    product: Product = eqx.field(static=True, default=multiply)
    learns_bias: bool = eqx.field(static=True, default=True)

    @override
    def __call__(self, r_pre: Layer) -> Layer:
        drive = self.product(r_pre.reshape(r_pre.shape[0], -1), self.weight)
        if self.bias is None:
            return drive
        return drive + (self.bias if self.learns_bias else lax.stop_gradient(self.bias))

    @override
    def fix_bias(self) -> "Dense":
        return dataclasses.replace(self, learns_bias=False)

    @override
    def with_product(self, product: Product) -> "Dense":
        return dataclasses.replace(self, product=product)

    @classmethod
    def init(cls, pre: Shape, post: Shape, key: PRNGKeyArray, *, bias: bool = True) -> "Dense":
        """Weights and biases uniform in ``+-1/sqrt(fan_in)``."""
        n_pre, (n_post,) = math.prod(pre), post
        w_key, b_key = jax.random.split(key)
        bound = n_pre**-0.5
        weight = jax.random.uniform(w_key, (n_pre, n_post), minval=-bound, maxval=bound)
        b = jax.random.uniform(b_key, (n_post,), minval=-bound, maxval=bound) if bias else None
        return cls(weight, b)


@final
class Lateral(Connection):
    """Connections within a layer: symmetric, none from a unit to itself, each pair of units once.

    ``Phi = sum over pairs i < j of r_i U_ij r_j = 1/2 r J r`` with ``J = U + U^T``; ``U`` is what
    ``weight`` (n, n) holds above its diagonal, and the rest of it has no effect and never learns.
    As an edge from a layer to itself it drives by ``r U``, its feedback by ``r U^T``: ``r J``
    together. The 1/2 of the quadratic form is thereby in the counting: the statistic of a pair is
    ``r_i r_j``, as between layers, not the half of it that the entries J_ij and J_ji would share.

    Untied, the two directions of a pair have a weight each, ``J = U_ahead + U_back^T``. There is no
    bias: give one to another edge into the layer. A layer with several axes is flattened.
    """

    weight: Float[Array, "n n"]
    product: Product = eqx.field(static=True, default=multiply)

    @property
    def upper(self) -> Inexact[Array, "n n"]:
        """``U``, zero on the diagonal and below."""
        return jnp.triu(self.weight, 1)

    @override
    def __call__(self, r_pre: Layer) -> Layer:
        return self.product(r_pre.reshape(r_pre.shape[0], -1), self.upper).reshape(r_pre.shape)

    @override
    def with_product(self, product: Product) -> "Lateral":
        return dataclasses.replace(self, product=product)

    @classmethod
    def init(cls, pre: Shape, post: Shape, key: PRNGKeyArray) -> "Lateral":
        """Weights uniform in ``+-1/sqrt(n)``. Raises ``EqpropError`` between different layers."""
        if pre != post:
            raise EqpropError(f"lateral connections from a layer {pre} to one of {post}")
        n = math.prod(pre)
        bound = n**-0.5
        return cls(jnp.triu(jax.random.uniform(key, (n, n), minval=-bound, maxval=bound), 1))
