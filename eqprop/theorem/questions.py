"""What ``eqprop verify`` is asked, and the papers' figures on Theorem 1 as such questions.

Each figure shows the updates of a rule over the K nudged steps beside the BPTT gradients, for one
example and a network before training (arXiv:1905.13633, arXiv:2005.04168). Settings are those of
the authors' programs. Nothing here loads JAX.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from eqprop.devices.record import IDEAL
from eqprop.recipes.catalogue import RECIPES
from eqprop.recipes.recipe import Recipe

FIXED: dict[str, tuple[Any, str]] = {
    "tolerance": (0.0, "the free phase takes T steps"),
    "relaxation": ("steps", "the free phase takes steps as they are"),
    "sweeps": (False, "the free phase takes synchronous steps"),
    "nudged_sweeps": (False, "the nudged phase takes synchronous steps"),
    "hold": (False, "the output is pushed, step by step"),
    # In single precision the network is drawn, as for a training; the engine then goes to double.
    "dtype": ("float32", "it is float64"),
    "states": ("full", "they are float64"),
    "device": (IDEAL, "the device is ideal"),
}
"""Fields of a recipe that are the same in every verification, and why in words."""


@final
@dataclass(frozen=True)
class VerifyOptions:
    """What to verify that is not a field of the recipe."""

    betas: tuple[float, ...] = ()
    """Further betas, to see how the error falls; a tenth and a hundredth of beta when left out."""
    eta_factors: tuple[float, ...] = (1.0, 0.1, 0.01)
    """Factors on lr at which a continual rule is compared with itself at lr = 0."""
    random: tuple[int, int] | None = None
    """So many random inputs, and a random target out of so many classes, instead of a data set."""
    samples: int = 5
    """Units of each layer, and weights of each connection, that the figure shows."""
    seed: int = 0
    """Draws the network and the minibatch, those with which a training of this seed begins."""
    out: Path | None = None
    """Directory for the results; runs/verify-RECIPE, or the first of that name and a number
    that is not there, when left out.
    """


@final
@dataclass(frozen=True)
class Question:
    """A recipe and how to verify it."""

    recipe: Recipe
    options: VerifyOptions = VerifyOptions()


def as_verified(recipe: Recipe, *, clip: bool = False) -> Recipe:
    """A recipe with what a verification has in place of a training's settings: those of ``FIXED``,
    and states that are not clipped unless asked for.
    """
    fixed = {field: value for field, (value, _) in FIXED.items()}
    return dataclasses.replace(recipe, clip=clip, **fixed)


def in_steps(recipe: Recipe) -> Recipe:
    """The recipe with synchronous steps in place of sweeps: as many as carry a signal as far."""
    T, K = recipe.T * (1 + recipe.sweeps), recipe.K * (1 + recipe.nudged_sweeps)
    return dataclasses.replace(recipe, T=T, K=K, sweeps=False, nudged_sweeps=False)


def question(name: str) -> Question:
    """What to verify under that name: a figure, or a training recipe with its own settings."""
    return FIGURES[name] if name in FIGURES else Question(RECIPES[name])


def _figure(
    name: str, about: str, base: str, options: VerifyOptions = VerifyOptions(), **fields: Any
) -> Question:
    """Model and rule of a training recipe, for one example, with tanh, states not clipped, and
    every parameter trained.
    """
    common = {"activation": "tanh", "clip": False, "batch": 1, "published": None}
    common["train_input_bias"] = True
    recipe = dataclasses.replace(RECIPES[base], **{**common, **fields}, name=name, about=about)
    return Question(recipe, options)


def _real_time(name: str, about: str, base: str, **fields: Any) -> Question:
    """A figure of the energy-based setting."""
    common = {"setting": "energy", "dt": 0.08, "raw_input": False}
    return _figure(name, f"EP in real time, {about}", base, **common, **fields)


def _discrete(name: str, about: str, base: str, **fields: Any) -> Question:
    """A figure of the prototypical setting."""
    return _figure(name, f"EP in discrete time, {about}", base, **fields)


def _continual(name: str, about: str, base: str, **fields: Any) -> Question:
    """A figure of a continual rule, in the energy-based setting with one hidden layer."""
    common = {"setting": "energy", "dt": 0.08, "nudge": "one-sided", "beta": 0.005}
    common |= {"T": 800, "K": 80, "lr": (2e-5, 2e-5)}
    return _figure(name, f"continual {about}", base, **common, **fields)


_RANDOM = VerifyOptions(random=(10, 5))
# The network of seed 0 has no free fixed point that it reaches: it flips for ever between two
# states. Those of seeds 1 to 3 settle.
_SETTLES = VerifyOptions(seed=1)

FIGURES: dict[str, Question] = {
    figure.recipe.name: figure
    for figure in (
        _real_time(
            "fig-toy",
            "net 10-50-5, random data",
            "eb-1h",
            options=_RANDOM,
            hidden=(50,),
            beta=0.01,
            T=5000,
            K=80,
        ),
        _real_time("fig-eb-1h", "one hidden layer", "eb-1h", beta=0.005, T=800, K=80),
        _real_time("fig-eb-2h", "two hidden layers", "eb-2h", beta=0.01, T=5000, K=150),
        _real_time("fig-eb-3h", "three hidden layers", "ep-3h", beta=0.02, T=30000, K=200),
        _discrete("fig-ep-1h", "one hidden layer", "ep-1h", beta=0.01, T=150, K=10),
        _discrete("fig-ep-2h", "two hidden layers", "ep-2h", beta=0.01, T=1500, K=40),
        _discrete(
            "fig-ep-3h",
            "three hidden layers",
            "ep-3h",
            options=_SETTLES,
            beta=0.015,
            T=5000,
            K=40,
        ),
        _discrete(
            "fig-ep-conv",
            "two convolutional layers",
            "ep-conv",
            activation="hardsigm",
            beta=0.02,
            T=5000,
            K=10,
        ),
        _continual("fig-c-ep", "EP in real time, one hidden layer", "c-ep-1h"),
        _continual("fig-c-vf", "vector field in real time, one hidden layer, angle 0", "c-vf-1h"),
        _continual(
            "fig-c-vf-45",
            "vector field in real time, one hidden layer, angle 45",
            "c-vf-1h",
            angle=45.0,
        ),
    )
}


def bias_order(nudge: str, points: int) -> int:
    """The power of beta with which the bias of a nudge falls, where F is smooth."""
    return {"centered": 2, "holomorphic": points}.get(nudge, 1)
