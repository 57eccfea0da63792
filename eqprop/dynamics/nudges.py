"""Nudges: finite-difference stencils in beta.

A nudged phase adds the force ``-beta dl/ds_N`` to the output. A nudge says for which betas to run
it and with which weights to combine what is found, so that the combination is an estimate of the
derivative with respect to beta at 0.
"""

import abc
import cmath
import math
from typing import ClassVar, NamedTuple, final, override

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from eqprop.errors import EqpropError
from eqprop.types import Array, Float, Inexact, Layer, PRNGKeyArray, Strength


@final
class Stencil(NamedTuple):
    """Estimate ``d/dbeta f(beta) at 0`` by ``sum_k weights[k] f(betas[k]) + rest f(0)``.

    Where betas are complex, by the real part of that. Examples may have betas, and with them
    weights, of their own: then there is a second axis for the rows of the batch.
    """

    betas: Inexact[Array, "points *rows"]
    weights: Inexact[Array, "points *rows"]
    rest: Inexact[Array, "*rows"] | None
    """None where the fixed point itself has no weight."""

    @property
    def is_complex(self) -> bool:
        """Whether states take complex values when they are nudged so."""
        return jnp.iscomplexobj(self.betas)

    def dtype(self, real: jnp.dtype) -> jnp.dtype:
        """The type of nudged states, in the precision of ``real``."""
        return jnp.promote_types(real, jnp.complex64) if self.is_complex else real


def by_row[Layers](factor: Strength, layers: Layers) -> Layers:
    """Layers, or one, times one number, or each row of them times its own."""

    def times(layer: Layer) -> Layer:
        if not factor.ndim:
            return factor * layer
        return factor.reshape(-1, *[1] * (layer.ndim - 1)) * layer

    return jax.tree.map(times, layers)


def weighted(
    weights: Inexact[Array, "points *rows"], values: Inexact[Array, "points *shape"]
) -> Array:
    """The real part of the weighted sum of what was found at each beta."""
    if weights.ndim > 1:
        return jax.vmap(by_row)(weights.astype(values.dtype), values).sum(axis=0).real
    precision = lax.Precision.HIGHEST  # see ``networks.connections.multiply``
    return jnp.tensordot(weights.astype(values.dtype), values, axes=1, precision=precision).real


class Nudge(eqx.Module):
    """Abstract: which betas a batch is nudged with."""

    one_sided: ClassVar[bool]
    """Whether one phase with one beta is all there is to it, as continual rules need."""

    @abc.abstractmethod
    def stencil(self, key: PRNGKeyArray) -> Stencil:
        """The stencil for one minibatch; ``key`` serves those that are drawn at random."""

    def of_batch(self, key: PRNGKeyArray, rows: int) -> Stencil:
        """The stencil for a minibatch of so many examples: that of all, unless a subclass has betas
        for each.
        """
        return self.stencil(key)


def _check_beta(beta: float | Array) -> None:
    # A traced beta has no value to check.
    if isinstance(beta, float | int) and (beta == 0 or not math.isfinite(beta)):
        raise EqpropError(f"beta is {beta}: the nudging strength must be finite and not 0")


@final
class OneSided(Nudge):
    """Nudge with ``beta``, which may be negative; bias O(beta)."""

    beta: float | Float[Array, ""]
    one_sided: ClassVar[bool] = True

    def __check_init__(self) -> None:
        _check_beta(self.beta)

    @override
    def stencil(self, key: PRNGKeyArray) -> Stencil:
        beta = jnp.asarray(self.beta)
        return Stencil(beta[None], 1 / beta[None], -1 / beta)


@final
class RandomSign(Nudge):
    """Nudge each minibatch with ``+beta``, with probability ``positive``, or else with
    ``-beta``.
    """

    beta: float
    positive: float = 0.5
    one_sided: ClassVar[bool] = True

    def __check_init__(self) -> None:
        _check_beta(self.beta)
        if not 0 <= self.positive <= 1:
            raise EqpropError(
                f"the probability of a positive beta is {self.positive}: give a number from 0 to 1"
            )

    @override
    def stencil(self, key: PRNGKeyArray) -> Stencil:
        sign = jnp.where(jax.random.bernoulli(key, self.positive), 1.0, -1.0)
        return OneSided(self.beta * sign).stencil(key)


@final
class MixedSign(Nudge):
    """Nudge every other example of a minibatch with ``+beta`` and the rest with ``-beta``, in one
    phase.

    The bias of order beta cancels in the mean over examples, and so does what weights that move
    within the phase add to it, as long as both are small: what pulls the outputs of one half on
    holds those of the other half back.
    """

    beta: float
    one_sided: ClassVar[bool] = True

    def __check_init__(self) -> None:
        _check_beta(self.beta)

    @override
    def stencil(self, key: PRNGKeyArray) -> Stencil:
        """That of a single example, whose sign is drawn."""
        return RandomSign(self.beta).stencil(key)

    @override
    def of_batch(self, key: PRNGKeyArray, rows: int) -> Stencil:
        beta = self.stencil(key).betas * (1.0 - 2.0 * (jnp.arange(rows) % 2))
        return Stencil(beta[None], 1 / beta[None], -1 / beta)


@final
class Centered(Nudge):
    """Nudge with ``+beta`` and ``-beta``, as one batch; bias O(beta^2) (arXiv:2006.03824).

    What a free phase that has not settled leaves as drift is the same in both and cancels.
    """

    beta: float | Float[Array, ""]
    one_sided: ClassVar[bool] = False

    def __check_init__(self) -> None:
        _check_beta(self.beta)

    @override
    def stencil(self, key: PRNGKeyArray) -> Stencil:
        beta = jnp.asarray(self.beta)
        betas = jnp.stack([beta, -beta])
        return Stencil(betas, 0.5 / betas, None)


@final
class Holomorphic(Nudge):
    """Nudge with ``points`` complex betas on a circle, as one batch (arXiv:2209.00530).

    ``beta_k = beta e^{2 pi i k/N}`` and ``1/N sum_k f(beta_k) / beta_k``, Cauchy's formula for
    ``f'(0)`` by the trapezoidal rule. The bias is of order ``beta^N``, so it falls exponentially
    with N within the circle in which f is analytic; N = 2 is ``Centered``.

    States become complex, and F must be analytic: no hardsigm, no clipping, no max-pooling. F is
    real for real arguments, hence ``f(conj beta) = conj f(beta)``: only the ``N // 2 + 1`` betas of
    the upper half are run, those off the axis with twice their weight, and the real part is taken.
    """

    beta: float | Float[Array, ""]
    points: int = eqx.field(static=True, default=4)
    one_sided: ClassVar[bool] = False

    def __check_init__(self) -> None:
        _check_beta(self.beta)
        if self.points < 2:
            raise EqpropError(
                f"the number of points is {self.points}: a holomorphic nudge needs at least 2"
            )

    @override
    def stencil(self, key: PRNGKeyArray) -> Stencil:
        n = self.points
        # Exact on the real axis, where sin(pi) is not 0 in floating point.
        roots = [complex(1)] + [cmath.exp(2j * math.pi * k / n) for k in range(1, (n + 1) // 2)]
        times = [1.0] + [2.0] * (len(roots) - 1)
        if n % 2 == 0:
            roots, times = [*roots, complex(-1)], [*times, 1.0]
        # Divided in Python: near the axis complex division in XLA loses digits.
        weights = jnp.asarray([t / (n * root) for t, root in zip(times, roots, strict=True)])
        return Stencil(jnp.asarray(self.beta) * jnp.asarray(roots), weights / self.beta, None)
