"""What ``eqprop verify`` is asked, and the papers' figures on Theorem 1 as such questions.

Each figure shows the updates of a rule over the K nudged steps beside the BPTT gradients, for one
example and a network before training (arXiv:1905.13633, arXiv:2005.04168). Settings are those of
the authors' programs. Nothing here loads JAX.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from eqprop.recipes.catalogue import RECIPES
from eqprop.recipes.recipe import Recipe


@final
@dataclass(frozen=True)
class Options:
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
    """Directory for the results; runs/verify-RECIPE when left out."""


@final
@dataclass(frozen=True)
class Figure:
    """A recipe and how to verify it."""

    recipe: Recipe
    options: Options = Options()


def _figure(
    name: str, about: str, base: str, options: Options = Options(), **fields: Any
) -> Figure:
    """Network and rule of a training recipe, for one example, with tanh and states not clipped."""
    common = {"activation": "tanh", "clip": False, "batch": 1, "published": None}
    recipe = dataclasses.replace(RECIPES[base], **{**common, **fields}, name=name, about=about)
    return Figure(recipe, options)


_CONTINUAL: dict[str, Any] = {
    "setting": "energy",
    "dt": 0.08,
    "nudge": "one-sided",
    "beta": 0.005,
    "T": 800,
    "K": 80,
    "lr": (2e-5, 2e-5),
}

FIGURES: dict[str, Figure] = {
    figure.recipe.name: figure
    for figure in (
        _figure(
            "fig-toy",
            "EP in real time, net 10-50-5, random data",
            "eb-1h",
            Options(random=(10, 5)),
            hidden=(50,),
            dt=0.08,
            beta=0.01,
            T=5000,
            K=80,
        ),
        _figure(
            "fig-eb-1h",
            "EP in real time, one hidden layer",
            "eb-1h",
            dt=0.08,
            beta=0.005,
            T=800,
            K=80,
        ),
        _figure(
            "fig-eb-2h",
            "EP in real time, two hidden layers",
            "eb-2h",
            dt=0.08,
            beta=0.01,
            T=5000,
            K=150,
        ),
        _figure(
            "fig-eb-3h",
            "EP in real time, three hidden layers",
            "ep-3h",
            setting="energy",
            dt=0.08,
            beta=0.02,
            T=30000,
            K=200,
        ),
        _figure(
            "fig-ep-1h",
            "EP in discrete time, one hidden layer",
            "ep-1h",
            beta=0.01,
            T=150,
            K=10,
        ),
        _figure(
            "fig-ep-2h",
            "EP in discrete time, two hidden layers",
            "ep-2h",
            beta=0.01,
            T=1500,
            K=40,
        ),
        _figure(
            "fig-ep-3h",
            "EP in discrete time, three hidden layers",
            "ep-3h",
            # The network of seed 0 has no free fixed point that it reaches: it flips for ever
            # between two states. Those of seeds 1 to 3 settle.
            Options(seed=1),
            beta=0.015,
            T=5000,
            K=40,
        ),
        _figure(
            "fig-ep-conv",
            "EP in discrete time, two convolutional layers",
            "ep-conv",
            activation="hardsigm",
            beta=0.02,
            T=5000,
            K=10,
        ),
        _figure(
            "fig-c-ep",
            "continual EP in real time, one hidden layer",
            "c-ep-1h",
            **_CONTINUAL,
        ),
        _figure(
            "fig-c-vf",
            "continual vector field in real time, one hidden layer, angle 0",
            "c-vf-1h",
            **_CONTINUAL,
        ),
        _figure(
            "fig-c-vf-45",
            "continual vector field in real time, one hidden layer, angle 45",
            "c-vf-1h",
            angle=45.0,
            **_CONTINUAL,
        ),
    )
}


def as_verified(recipe: Recipe) -> Recipe:
    """A training recipe with what a verification has in place of its settings: states are not
    clipped, the free phase takes T synchronous steps. In single precision the network is drawn, as
    for a training; the engine then goes to double.
    """
    fixed = {"tolerance": 0.0, "relaxation": "steps", "dtype": "float32"}
    fixed |= {"sweeps": False, "nudged_sweeps": False}
    return dataclasses.replace(recipe, clip=False, **fixed)


def question(name: str) -> Figure:
    """What to verify under that name: a figure, or a training recipe with its own settings."""
    return FIGURES[name] if name in FIGURES else Figure(RECIPES[name])
