"""Floating-point operations of a training, counted from the shapes: matrix products only.

Counted is what the algorithm needs in the form in which the library runs it: the input product once
per minibatch, continual rules by their exact shortcuts, convolutions as direct ones. Activations
and sums are left out, so a share of the machine's peak says how much of the time goes into what
must be multiplied.
"""

import math
from typing import Any, NamedTuple

from eqprop.networks.edges import Edge, Untied
from eqprop.networks.fast_convolution import positions
from eqprop.networks.network import Network
from eqprop.networks.normalisation import Normalised
from eqprop.recipes.recipe import Recipe
from eqprop.types import Shape


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


def of_minibatch(recipe: Recipe, network: Network, free_steps: float) -> Flops | None:
    """Operations of one minibatch; None for a rule without a nudged phase.

    ``free_steps`` are the steps, or sweeps, that the free phase takes, T unless there is a
    tolerance. A sweep over the two colours of the graph is as many operations as a step.
    """
    rule, batch = recipe.rule, recipe.batch
    if rule in {"bptt", "rbp"}:
        return None
    steps, ends = recipe.K, 2  # of a phase
    if recipe.nudge == "centered":
        steps *= 2  # and the two ends of two phases
    elif recipe.nudge == "holomorphic":
        ends = 4 * (recipe.points // 2 + 1)  # a complex product takes four real ones
        steps *= ends
    drive = free = nudged = update = 0.0
    for edge in network.edges:
        pre, post = network.shapes[edge.pre], network.shapes[edge.post]
        n_pre, n_post = math.prod(pre), math.prod(post)
        # Rates times weights, in either direction; or rates times rates, for a change of weights.
        product = 2.0 * batch * _multiplications(edge, pre)
        shortcuts = len(post) == 1  # a dense connection has some, under continual rules
        if not edge.pre:
            drive += product  # the input stands still, so one product serves all steps
            if not rule.startswith("c-"):
                update += product
            elif shortcuts:
                update += product + 2 * batch**2 * n_pre  # x x^T ...
                nudged += steps * 2 * batch**2 * n_post  # ... times changes
            else:
                nudged += steps * 2 * product
            continue
        free += free_steps * 2 * product
        nudged += steps * 2 * product
        if rule == "ep":
            update += ends * product
        elif rule == "c-ep" and shortcuts:
            low_rank = n_pre * n_post > 4 * batch * (n_pre + n_post)  # as continual.py decides
            # Two terms of rank B in each direction, or the weights written from present rates.
            nudged += steps * (8 * batch**2 * (n_pre + n_post) if low_rank else product)
            update += 2 * product
        else:
            nudged += steps * 2 * product
    return Flops(drive, free, nudged, update)


def _multiplications(edge: Edge, pre: Shape) -> int:
    """Of rates and weights, for the drive of one example; before pooling."""
    source: Any = edge
    connection: Any = source.ahead if isinstance(edge, Untied) else source.connection
    if isinstance(connection, Normalised):
        connection = connection.connection
    weight = connection.weight
    if weight.ndim == 2:
        return weight.size
    padded = tuple(n + 2 * p for n, p in zip(pre, connection.padding, strict=False))
    return weight.size * math.prod(positions(padded, weight.shape[:2], connection.stride))
