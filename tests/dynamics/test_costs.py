"""Costs: what cannot be a loss, or a target, is refused where it would be broadcast."""

from typing import override

import jax.numpy as jnp
import pytest

import eqprop as ep
from eqprop.errors import EqpropError


class Summed(ep.Cost):
    """The loss of a batch, where that of each example is wanted."""

    @override
    def loss(self, output, y):
        return jnp.mean((output - y) ** 2)

    @override
    def predict(self, output):
        return output


def test_a_loss_is_one_number_for_each_example() -> None:
    with pytest.raises(EqpropError, match=r"loss of Summed has shape \(\) for 4 examples"):
        Summed().force(jnp.zeros((4, 3)), jnp.zeros((4, 3)))


@pytest.mark.parametrize("cost", [ep.SquaredError(), ep.CrossEntropy()])
@pytest.mark.parametrize("shape", [(4, 1), (4, 3)])
def test_targets_have_the_shape_of_the_output(cost: ep.Cost, shape: tuple[int, ...]) -> None:
    """A column of labels would be broadcast."""
    with pytest.raises(EqpropError, match="classes one-hot"):
        cost.force(jnp.zeros((4, 4)), jnp.zeros(shape))
