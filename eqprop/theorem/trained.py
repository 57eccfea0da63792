"""Theorem 1 on the network of a run, as a report shows it: on few examples, as it was trained."""

from collections.abc import Callable
from typing import Any, NamedTuple, final

import jax
import numpy as np

from eqprop.data.targets import Real
from eqprop.errors import EqpropError
from eqprop.networks.model import Model
from eqprop.recipes.build import build, nudged_rule
from eqprop.recipes.recipe import Recipe
from eqprop.theorem import verification
from eqprop.theorem.curves import Problem
from eqprop.theorem.launch import plan_for
from eqprop.theorem.questions import VerifyOptions, as_verified, in_steps
from eqprop.theorem.verdict import convergence, verdict
from eqprop.training.experiment import Experiment
from eqprop.training.trainer import fetch

_EXAMPLES = 5


@final
class Theorem(NamedTuple):
    """D(t) of a rule against -grad(t), measured as by ``eqprop verify``."""

    recipe: Recipe
    """With what was left out or changed for the theorem."""
    examples: int
    settled: str
    """Whether the free phase had converged, in words."""
    verdict: str
    numbers: dict[str, Any]
    """``Verification.record``."""
    curves: dict[str, np.ndarray]
    """``Verification.arrays``."""


def examine(
    experiment: Experiment, network: Model, seed: int, tell: Callable[[str], None]
) -> Theorem:
    """Verifies a network of an experiment on a few examples of the training's first minibatch.

    The theorem is one of synchronous steps without clipping; as many are taken as carry a signal as
    far as the sweeps of the recipe. Raises ``EqpropError`` for rules without a nudged phase, for
    K > T, and for a free phase that diverges or oscillates.
    """
    recipe = as_verified(in_steps(experiment.recipe))
    if recipe.K > recipe.T:
        raise EqpropError(
            f"{recipe.K} nudged steps have only {recipe.T} free steps to be compared with"
        )
    rule = nudged_rule(recipe)
    rows = experiment.trainer.order(experiment.start(seed), experiment.train)[0][:_EXAMPLES]
    x, y = fetch(experiment.train, rows, network, experiment.trainer.scaling)
    image, classes = experiment.train.inputs.shape[1:], network.score_shape[0]
    built = build(
        recipe, image, classes, experiment.batches, real=experiment.trainer.target is Real
    )
    # The same parameters in a network that rounds nothing, should the recipe have rounded states.
    exact = jax.tree.structure(jax.eval_shape(built.init, jax.random.key(0)))
    network = jax.tree.unflatten(exact, jax.tree.leaves(network))
    found = verification.verify(
        Problem(built.system, network, (x, y)),
        rule,
        plan_for(recipe, VerifyOptions(seed=seed)),
        lambda what, done, stages: tell(f"{what} ({done + 1} of {stages})"),
    )
    return Theorem(
        recipe,
        len(rows),
        convergence(found.settling, recipe, [trial.beta for trial in found.beta_trials]),
        verdict(found, recipe),
        found.record(),
        found.arrays(),
    )
