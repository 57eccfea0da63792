"""Costs: the loss of an output against its target, whose force nudges it."""

import abc
from typing import final, override

import equinox as eqx
import jax
import jax.numpy as jnp

from eqprop.errors import EqpropError
from eqprop.types import Array, Float, Inexact, Layer, Targets


class Cost(eqx.Module):
    """Abstract: the loss of an output against its target: of scores, where a network has a
    readout.
    """

    @abc.abstractmethod
    def loss(self, output: Layer, y: Targets) -> Inexact[Array, " B"]:
        """Loss of each example; for complex outputs its analytic continuation (no conjugates)."""

    def predict(self, output: Layer) -> Float[Array, "B classes"]:
        """Scores whose largest is the predicted class: the output itself."""
        return output

    def force(self, output: Layer, y: Targets) -> Layer:
        """``-dl/ds_N`` for each example, shape ``(B, *output)``; the complex derivative, where the
        output is complex.

        Raises ``EqpropError`` for a loss that is not one number for each example, or that is real
        where the output is complex.
        """
        loss, vjp = jax.vjp(lambda s: self.loss(s, y), output)
        if loss.shape != output.shape[:1]:
            raise EqpropError(
                f"the loss of {type(self).__name__} has shape {loss.shape} for {len(output)} "
                "examples: give one number for each, a sum over its outputs, axis=-1"
            )
        if jnp.iscomplexobj(output) and not jnp.iscomplexobj(loss):
            raise EqpropError(
                f"the loss of {type(self).__name__} is real for complex outputs, so no analytic "
                "function of them: leave out abs and conj, or use a real nudge, as ep.Centered"
            )
        return -vjp(jnp.ones_like(loss))[0]


@final
class SquaredError(Cost):
    """``l = 1/2 |y - s_N|^2``, whose force is ``y - s_N``."""

    @override
    def loss(self, output: Layer, y: Targets) -> Inexact[Array, " B"]:
        _check_targets(output, y)
        return 0.5 * jnp.sum((y - output) ** 2, axis=-1)


@final
class CrossEntropy(Cost):
    """``l = -sum_c y_c log softmax(scores)_c``, whose force on the scores is ``y -
    softmax(scores)`` (arXiv:2006.03824).

    Scores are those of the network's readout; without one, the states of the output layer.
    """

    @override
    def loss(self, output: Layer, y: Targets) -> Inexact[Array, " B"]:
        _check_targets(output, y)
        largest = jax.lax.stop_gradient(jnp.max(output.real, axis=-1, keepdims=True))
        scores = output - largest
        return jnp.log(jnp.sum(jnp.exp(scores), axis=-1)) - jnp.sum(y * scores, axis=-1)


def _check_targets(output: Layer, y: Targets) -> None:
    if jnp.shape(y) != output.shape:
        raise EqpropError(
            f"targets have shape {jnp.shape(y)} for an output of {output.shape}: give a number for "
            "each output of each example (classes one-hot, as jax.nn.one_hot makes them)"
        )
