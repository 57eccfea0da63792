"""Activations: elementwise functions of the potential, and which of them are analytic."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from eqprop.errors import EqpropError
from eqprop.types import Layer

type Activation = Callable[[Layer], Layer]


def sigm(v: Layer) -> Layer:
    """``1 / (1 + exp(-4 (v - 1/2)))``, written with tanh: the same function, cheaper and
    analytic.
    """
    return 0.5 + 0.5 * jnp.tanh(2 * v - 1)


@jax.custom_jvp
def hardsigm(v: Layer) -> Layer:
    """``clip(v, 0, 1)``, with derivative 1 on the closed interval, so that a unit at rest at 0 can
    leave it.
    """
    return jnp.clip(v, 0, 1)


@hardsigm.defjvp
def _hardsigm_jvp(primals: tuple[Layer], tangents: tuple[Layer]) -> tuple[Layer, Layer]:
    (v,), (tangent,) = primals, tangents
    return hardsigm(v), jnp.where((v >= 0) & (v <= 1), tangent, 0)


def half_hardsigm(v: Layer) -> Layer:
    """``clip(v/2, 0, 1)``, the activation of arXiv:2006.03824 on CIFAR-10."""
    return hardsigm(0.5 * v)


def tanh(v: Layer) -> Layer:
    """Hyperbolic tangent."""
    return jnp.tanh(v)


ACTIVATIONS: dict[str, Activation] = {
    "sigm": sigm,
    "hardsigm": hardsigm,
    "half-hardsigm": half_hardsigm,
    "tanh": tanh,
}
"""Activations by name; any elementwise differentiable function will do."""


def activation(name: str) -> Activation:
    """The activation of that name. Raises ``EqpropError`` that lists the names there are."""
    if name not in ACTIVATIONS:
        raise EqpropError(f"unknown activation {name!r}: choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def is_analytic(rho: Activation) -> bool:
    """Whether an activation is analytic within 1/4 of [-2, 3] on the real axis.

    By Cauchy: over any circle the mean is the value at its centre, and the integral is 0. A kink
    or a real part shows as a difference of a few hundredths; sigm and tanh meet both to 1e-7.
    """
    with jax.ensure_compile_time_eval():
        centres = jnp.linspace(-2.0, 3.0, 41)
        circle = 0.25 * jnp.exp(2j * jnp.pi * jnp.arange(16) / 16)
        try:
            values = rho(centres[:, None] + circle)
            off = values.mean(axis=1) - rho(centres + 0j), (values * circle).mean(axis=1)
            return bool(jnp.all(jnp.abs(jnp.stack(off)) < 1e-4))
        except (TypeError, ValueError):  # an operation that has no complex form
            return False
