"""Floating-point operations of a training, counted from the shapes: matrix products only.

Counted is what the algorithm needs in the form in which the library runs it: the input product once
per minibatch, continual rules by their exact shortcuts, convolutions as direct ones. Activations
and sums are left out, so a share of the machine's peak says how much of the time goes into what
must be multiplied.
"""

from typing import NamedTuple, final

import jax

from eqprop.learning.continual import Products, moving_edges
from eqprop.networks.connections import Connection
from eqprop.networks.edges import Edge
from eqprop.networks.model import Model
from eqprop.networks.network import Network
from eqprop.recipes.build import increment
from eqprop.recipes.recipe import Recipe
from eqprop.types import Array, Float, Rates


@final
class Flops(NamedTuple):
    """Operations of one minibatch, a multiplication and an addition counted as two."""

    drive: float
    """The input's drive, the same for both phases."""
    free: float
    """The free steps."""
    nudged: float
    """The nudged steps, with what changes the weights, or sums their change up, at every step."""
    update: float
    """What changes the weights once."""

    @property
    def total(self) -> float:
        """All of them."""
        return sum(self)


def of_minibatch(recipe: Recipe, network: Model, free_steps: float) -> Flops | None:
    """Operations of one minibatch; None for a rule that differentiates the step, a whole one.

    ``free_steps`` are the steps, or sweeps, that the free phase takes, T unless there is a
    tolerance. A sweep over the two colours of the graph is as many operations as a step.
    """
    if recipe.differentiates or not isinstance(network, Network):
        return None
    steps, ends = recipe.K, 2  # of a phase
    if recipe.nudge == "centered":
        steps *= 2  # and the two ends of two phases
    elif recipe.nudge == "holomorphic":
        ends = 4 * (recipe.points // 2 + 1)  # a complex product takes four real ones
        steps *= ends
    drives = [float(recipe.batch) * _multiplications(edge, network) for edge in network.edges]
    if recipe.is_continual:
        nudged = _continual(recipe, network, drives)
    else:
        nudged = [
            _after_phase(edge, recipe.rule, ends, drive)
            for edge, drive in zip(network.edges, drives, strict=True)
        ]
    from_input = [edge.from_input for edge in network.edges]
    still = sum(drive for drive, first in zip(drives, from_input, strict=True) if first)
    # Rates times weights in either direction; the input's stand still, and serve all steps.
    return Flops(
        drive=2.0 * still,
        free=2.0 * free_steps * 2 * (sum(drives) - still),
        nudged=2.0 * steps * sum(products.step for products in nudged),
        update=2.0 * sum(products.once for products in nudged),
    )


def _multiplications(edge: Edge, network: Network) -> int:
    """Of rates and weights, for the drive of one example."""
    # Of untied weights those ahead; those back are as many.
    ahead, *_ = jax.tree.leaves(edge, is_leaf=lambda node: isinstance(node, Connection))
    return ahead.multiplications(network.shapes[edge.pre])


def _after_phase(edge: Edge, rule: str, ends: int, drive: float) -> Products:
    """What an edge takes where the weights stand still: EP's products are those of the ends of a
    phase, VF's those of each step; from the input there is one of the whole phase.
    """
    if edge.from_input:
        return Products(0, drive)
    return Products(2 * drive, ends * drive) if rule == "ep" else Products(4 * drive, 0)


def _continual(recipe: Recipe, network: Network, drives: list[float]) -> list[Products]:
    """What each edge takes in the form in which it moves, which may depend on the batch."""
    rows, found = recipe.batch, []

    def count(network: Network, start: Rates, factors: Float[Array, " edges"]) -> None:
        moving = moving_edges(increment(recipe), network, start, factors)
        found.extend(e.products(drive, rows) for e, drive in zip(moving, drives, strict=True))

    start = tuple(jax.ShapeDtypeStruct((rows, *s), network.dtype) for s in network.shapes)
    factors = jax.ShapeDtypeStruct((len(network.edges),), network.dtype)
    jax.eval_shape(count, network, start, factors)
    return found
