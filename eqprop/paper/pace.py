"""How long an epoch of a recipe takes on this machine, measured in about a second."""

from dataclasses import dataclass
from typing import final

import jax

from eqprop.benchmarks.machine import seconds
from eqprop.benchmarks.speed import Training
from eqprop.data.named import Dataset
from eqprop.recipes.recipe import Recipe
from eqprop.training.display import Stopwatch
from eqprop.training.experiment import evaluate
from eqprop.training.trainer import Examples

_STRETCH = 0.5  # seconds
_TESTED = 200  # examples, a block of an evaluation


@final
@dataclass(frozen=True)
class Pace:
    """Seconds."""

    epoch: float
    """Of one seed, with the test that ends it."""
    start: float
    """Of compiling, and of putting the data in place."""


def measure(recipe: Recipe, dataset: Dataset) -> Pace:
    """Trains for a moment and tests a little, for the time that takes.

    Networks that have learnt more may take fewer steps where there is a tolerance: then a training
    is over sooner than this says.
    """
    with jax.enable_x64(recipe.dtype == "float64"):
        watch = Stopwatch()
        training = Training(recipe, dataset)
        jax.block_until_ready(training.advance(0))
        start = watch.seconds
        job = training.job
        minibatches = training.length(_STRETCH)
        learning = seconds(lambda: training.advance(minibatches)) * job.batches / minibatches
        some = Examples(*(part[:_TESTED] for part in job.test))
        first, again = (
            seconds(lambda: evaluate(job, training.state.network, some)) for _ in range(2)
        )
    testing = again * len(job.test.labels) / len(some.labels)
    return Pace(learning + testing, start + max(0.0, first - again))
