"""Theorem 1 on the network of a run."""

import dataclasses

import jax
import numpy as np
import pytest

from eqprop.benchmarks.speed import random_images
from eqprop.data.dataset import Dataset
from eqprop.errors import EqpropError
from eqprop.recipes.catalogue import RECIPES
from eqprop.recipes.recipe import Recipe
from eqprop.theorem import launch
from eqprop.theorem.trained import Theorem, examine
from eqprop.training.experiment import prepare

SMALL = dataclasses.replace(RECIPES["ep-1h"], hidden=(8,), T=80, K=4, batch=4, inside=True)


def measured(recipe: Recipe) -> Theorem:
    experiment = prepare(recipe, random_images(8, 2, size=5))
    return examine(experiment, experiment.start(0).network, 0, lambda _: None)


def test_a_run_with_rounded_states_is_measured_without_rounding() -> None:
    """Differences of rounded states, divided by beta, would say nothing of the rule."""
    full, rounded = (
        measured(dataclasses.replace(SMALL, states=states)) for states in ("full", "bfloat16")
    )
    assert rounded.verdict == full.verdict
    assert rounded.verdict.startswith("Theorem 1 holds")
    jax.tree.map(np.testing.assert_array_equal, rounded.curves, full.curves)


def test_sweeps_become_as_many_steps_as_carry_a_signal_as_far() -> None:
    found = measured(dataclasses.replace(SMALL, T=40, K=2, sweeps=True, nudged_sweeps=True))
    assert (found.recipe.T, found.recipe.K) == (80, 4)
    assert found.numbers == measured(SMALL).numbers
    with pytest.raises(EqpropError, match="8 nudged steps have only 4 free steps"):
        measured(dataclasses.replace(SMALL, T=4, K=4, nudged_sweeps=True))


def test_inputs_are_scaled_as_they_were_learnt() -> None:
    """What was measured in another unit is the same."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6)), np.arange(40) % 3
    found = []
    for unit in (1, 64):
        data = Dataset.from_arrays(unit * x, y)
        recipe = dataclasses.replace(SMALL, dataset="own")
        experiment = prepare(recipe, data)
        network = experiment.start(0).network
        found.append(examine(experiment, network, 0, lambda _: None))
        start = experiment.start(0)
        rows = experiment.trainer.order(start, experiment.train)[0]
        batch, own = launch._problem(experiment, 0)
        assert own == rows.tolist()
        expected = experiment.trainer.fetch(start, experiment.train, rows)
        for ours, theirs in zip(batch.batch, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert found[0].numbers == found[1].numbers
