"""Verifications as the command runs them: data, the question to the engine, what is left on disk.

- ``verification.json``: the recipe and the options, the numbers, the verdict
- ``curves.npz``: D(t) and -grad(t) of all states and of a few synapses, without pickles
- ``verification.png``: both as a figure
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from eqprop.data import named as data
from eqprop.data.dataset import Dataset
from eqprop.data.targets import Classes
from eqprop.errors import UsageError, typed
from eqprop.numerics import numerics
from eqprop.recipes.build import nudge, nudged_rule
from eqprop.recipes.recipe import Recipe
from eqprop.theorem import verification
from eqprop.theorem.curves import Problem
from eqprop.theorem.figure import CURVES, NUMBERS, VERIFICATION, verification_figure
from eqprop.theorem.questions import VerifyOptions
from eqprop.theorem.verdict import beta_table, convergence, points_table, tensor_table, verdict
from eqprop.theorem.verification import Plan, Verification
from eqprop.training.display import Display, Stopwatch
from eqprop.training.experiment import Experiment, prepare
from eqprop.training.files import writing
from eqprop.training.metrics import angles
from eqprop.training.records import made
from eqprop.training.runs import make_folder
from eqprop.training.trainer import fetch

FORMAT = 1
"""Version of the layout of ``verification.json``."""

_POINTS = (1, 2, 3, 4, 6, 8)
"""Numbers of betas on the circle of a holomorphic nudge, beside the one asked for."""

_COLUMNS = 200
"""More than any table takes."""

_DRIFT = 1e-6
"""What the free phase may still add to D(t) of a state; the output's is of order 1."""


def verify(recipe: Recipe, options: VerifyOptions, out: Path, command: Sequence[str]) -> None:
    """Verifies a recipe before training, tells the result and writes it to ``out``."""
    display, watch = Display(), Stopwatch()
    display.say(f"{recipe.name}: {recipe.about}")
    with display.doing("loading data"):
        if options.random:
            dataset = _random(recipe, *options.random, options.seed)
        else:
            dataset = data.load(recipe.dataset, fallback=recipe.dataset == "mnist")
    stand_in = not options.random and dataset.name != recipe.dataset
    display.say(f"{'NOTE' if stand_in else 'data'}: {dataset.source}")
    # In the precision of trainings, so that network and minibatch are those of a training.
    with typed(), numerics(double=False):
        plan = plan_for(recipe, options)
        experiment = prepare(_with_rates(recipe), dataset)
        rule = nudged_rule(recipe)
        problem, rows = _problem(experiment, options.seed)
    make_folder(out)
    with display.doing("verifying") as tell:
        found = verification.verify(
            problem,
            rule,
            plan,
            lambda what, done, stages: tell(f"{what} ({done + 1} of {stages})"),
        )
    realised = angles(problem.network)
    _report(found, recipe, realised, display)
    numbers = {
        "format": FORMAT,
        "recipe": dataclasses.asdict(recipe),
        "options": dataclasses.asdict(options) | {"out": str(out)},
        "data": {"name": dataset.name, "source": dataset.source, "rows": rows},
        "angles": realised,
        "made": dataclasses.asdict(made(command)),
        "seconds": watch.seconds,
        "verdict": verdict(found, recipe),
        **found.record(),
    }
    with display.doing("drawing"):
        figure = _write(out, numbers, found)
    display.say(f"figure in {figure}; {watch.seconds:.1f} s")


def _random(recipe: Recipe, inputs: int, classes: int, seed: int) -> Dataset:
    """One minibatch of random data."""
    if inputs < 1 or not 2 <= classes <= 256:
        raise UsageError(
            f"random is {inputs} {classes}: give at least 1 input and 2 to 256 classes"
        )
    generator = np.random.default_rng(seed)
    x = generator.integers(256, size=(recipe.batch, 1, inputs)).astype(np.uint8)
    y = generator.integers(classes, size=recipe.batch).astype(np.uint8)
    source = f"{inputs} random inputs between 0 and 1, a random target out of {classes} classes."
    return Dataset("random", x, y, x[:1], y[:1], Classes.of(classes), source)


def plan_for(recipe: Recipe, options: VerifyOptions) -> Plan:
    """The question to the engine. Raises ``EqpropError`` for a beta that cannot be."""
    beta = recipe.beta
    # 0.035 and not 0.034999999999999996.
    others = options.betas or [float(f"{beta / ratio:.9g}") for ratio in (10, 100)]
    betas = tuple(dict.fromkeys((beta, *others)))
    for b in betas:
        nudge(dataclasses.replace(recipe, beta=b))  # raises where that cannot be
    smallest = min(abs(b) for b in betas)
    dt = recipe.dt if recipe.setting == "energy" else 1.0
    return Plan(
        betas=betas,
        nudge=lambda b: nudge(dataclasses.replace(recipe, beta=b)),
        eta=recipe.lr if recipe.is_continual else None,
        factors=options.eta_factors,
        points=tuple(sorted({*_POINTS, recipe.points})) if recipe.nudge == "holomorphic" else (),
        samples=options.samples,
        seed=options.seed,
        # Far from the output curves are small: a drift must not show there either.
        tolerance=_DRIFT * smallest * dt,
    )


def _with_rates(recipe: Recipe) -> Recipe:
    """With as many learning rates as there are connections, where nothing depends on them."""
    if recipe.is_continual:
        return recipe
    return dataclasses.replace(recipe, lr=(1.0,) * recipe.connections)


def _problem(experiment: Experiment, seed: int) -> tuple[Problem, list[int]]:
    """The network and the minibatch with which a training begins, and the rows of the latter."""
    start = experiment.start(seed)
    rows = experiment.trainer.order(start, experiment.train)[0]
    batch = fetch(experiment.train, rows, start.network, experiment.trainer.scaling)
    return Problem(experiment.trainer.system, start.network, batch), rows.tolist()


def _report(
    found: Verification, recipe: Recipe, realised: dict[str, float], display: Display
) -> None:
    display.say(convergence(found.settling, recipe, [trial.beta for trial in found.beta_trials]))
    for edge, angle in realised.items():
        display.say(f"angle between forward and feedback weights {edge}: {angle:.1f} degrees")
    tables = [tensor_table(found, recipe), beta_table(found, recipe)]
    tables += [points_table(found, recipe)] if found.point_trials else []
    for table in tables:
        # As wide as its numbers are, on a narrow terminal too.
        table.width = Console(width=_COLUMNS).measure(table).maximum
        display.console.print(table, crop=False)
    display.say(verdict(found, recipe))


def _write(out: Path, numbers: dict[str, Any], found: Verification) -> Path:
    with writing(f"the directory {out}", "give another with --out"):
        # What is cut short is not to be taken for whole: no file of an earlier one stays.
        for name in (NUMBERS, CURVES, VERIFICATION):
            (out / name).unlink(missing_ok=True)
        (out / NUMBERS).write_text(json.dumps(numbers, indent=2, allow_nan=False) + "\n")
        np.savez_compressed(out / CURVES, allow_pickle=False, **found.arrays())
        return verification_figure(out)
