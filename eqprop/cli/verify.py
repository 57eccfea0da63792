"""``eqprop verify``."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

import tyro

from eqprop.cli.arguments import hidden_fields, listing, split_name
from eqprop.cli.recipe_options import RecipeOptions, fields_of, parse_with_fields
from eqprop.devices.record import IDEAL, Device
from eqprop.errors import UsageError, typed
from eqprop.recipes.catalogue import RECIPES
from eqprop.recipes.recipe import Published, Recipe, changes
from eqprop.theorem.questions import (
    FIGURES,
    FIXED,
    VerifyOptions,
    as_verified,
    in_steps,
    question,
)
from eqprop.training.runs import check_new


@final
@dataclass(frozen=True, kw_only=True)
class _Fields(Recipe):
    rule: Literal["ep", "c-ep", "vf", "c-vf", "aep", "c-aep"] = "ep"  # pyright: ignore[reportIncompatibleVariableOverride]
    """Learning rule: ep, vf, or aep, exact for untied weights too; continually c-ep, c-vf, c-aep.
    """
    clip: bool = False
    """Keep states in [0, 1] in the energy-based setting, as trainings do and Theorem 1 does not."""
    beta: float = 0.1
    """Nudging strength of the curves."""
    T: int = 30
    """Free steps."""
    K: int = 10
    """Nudged steps, compared with the last K free steps."""
    lr: tuple[float, ...] = (0.08, 0.04)
    """Learning rates eta of a continual rule, from the input side to the output; no effect on other
    rules.
    """
    # What has no place in a verification is no option.
    tolerance: tyro.conf.Suppress[float] = 0.0
    test_tolerance: tyro.conf.Suppress[float] = 1e-4
    relaxation: tyro.conf.Suppress[Literal["steps", "anderson"]] = "steps"
    sweeps: tyro.conf.Suppress[bool] = False
    nudged_sweeps: tyro.conf.Suppress[bool] = False
    hold: tyro.conf.Suppress[bool] = False
    shift: tyro.conf.Suppress[int] = 0
    flip: tyro.conf.Suppress[bool] = False
    rotate: tyro.conf.Suppress[float] = 0.0
    zoom: tyro.conf.Suppress[float] = 0.0
    elastic: tyro.conf.Suppress[float] = 0.0
    erase: tyro.conf.Suppress[int] = 0
    input_dropout: tyro.conf.Suppress[float] = 0.0
    dropout: tyro.conf.Suppress[float] = 0.0
    optimizer: tyro.conf.Suppress[Literal["sgd", "momentum", "adam"]] = "sgd"
    momentum: tyro.conf.Suppress[float] = 0.9
    weight_decay: tyro.conf.Suppress[float] = 0.0
    schedule: tyro.conf.Suppress[Literal["constant", "cosine"]] = "constant"
    epochs: tyro.conf.Suppress[int] = 30
    patience: tyro.conf.Suppress[int] = 0
    dtype: tyro.conf.Suppress[Literal["float32", "float64"]] = "float32"
    states: tyro.conf.Suppress[Literal["full", "bfloat16"]] = "full"
    device: tyro.conf.Suppress[tyro.conf.Fixed[Device]] = IDEAL
    model: tyro.conf.Suppress[tyro.conf.Fixed[str]] = ""
    published: tyro.conf.Suppress[tyro.conf.Fixed[Published | None]] = None


_ABOUT = """Check Theorem 1 on a network as it is before training: do the updates of the learning
rule, step by step, follow the gradients of backpropagation through time (BPTT)? Prints how far
they differ in each tensor, and whether the difference vanishes with beta (and with the learning
rates of a continual rule). Writes a figure, the curves and the numbers to a directory."""


def run(args: Sequence[str]) -> None:
    """Verifies what the arguments say."""
    known = (*RECIPES, *FIGURES)
    name, rest = split_name(args, known, "eqprop verify", VerifyOptions, _about())
    recipe, options = _read(name, rest)
    out = options.out or _unused(Path("runs"), f"verify-{name}")
    with typed():
        check_new(out)

    from eqprop.theorem.launch import verify  # loads JAX

    verify(recipe, options, out, ["eqprop", "verify", *args])


def _unused(folder: Path, name: str) -> Path:
    """The first that is not there of a folder's name, name-2, name-3, ..."""
    later = (folder / f"{name}-{number}" for number in itertools.count(2))
    return next(place for place in itertools.chain([folder / name], later) if not place.exists())


def _read(name: str, args: Sequence[str]) -> tuple[Recipe, VerifyOptions]:
    """The recipe to verify, of which every field says what will be done, and the options."""
    asked = question(name)
    if not asked.recipe.is_nudged:
        raise UsageError(f"{name} follows gradients by definition: verify one that is nudged")
    _refuse_training(args)
    fields = _Fields(**{**fields_of(in_steps(asked.recipe)), "clip": False})
    about = f"Verify {name}: {asked.recipe.about}. Every field of the recipe is an option."
    defaults = asked.options, fields
    options, recipe = parse_with_fields(*defaults, args, f"eqprop verify {name}", about)
    if recipe.K > recipe.T:
        raise UsageError(
            f"K is {recipe.K}, but T is {recipe.T}: the K nudged steps are compared with the last "
            "K of the T free steps; lower K, or raise T"
        )
    if not 0 <= options.seed < 2**31:
        raise UsageError(f"seed is {options.seed}: give a number from 0 to {2**31 - 1}")
    _tell(recipe, fields, asked.recipe, options)
    return as_verified(recipe, clip=recipe.clip), options


def _refuse_training(args: Sequence[str]) -> None:
    """Raises for options of trainings that would change nothing here."""
    refused = hidden_fields(_Fields) - hidden_fields(RecipeOptions)
    for arg in args:
        option = arg.partition("=")[0].replace("_", "-")
        field = option.removeprefix("--").removeprefix("no-").replace("-", "_").partition(".")[0]
        if option.startswith("--") and field in refused:
            _, why = FIXED.get(field, (None, "nothing is trained"))
            raise UsageError(f"{option} has no place in a verification, where {why}: leave it out")


def _tell(recipe: Recipe, default: Recipe, base: Recipe, options: VerifyOptions) -> None:
    """Says what is done otherwise than in a training, and which options had no effect."""
    if base.clip and not recipe.clip and recipe.setting == "energy":
        print("note: states are not kept in [0, 1], as they are in training (--clip keeps them)")
    if base.tolerance or base.sweeps or base.nudged_sweeps:
        print(
            f"note: T {recipe.T} free and K {recipe.K} nudged synchronous steps, without a "
            "tolerance; two steps are one sweep"
        )
    typed_in = changes(recipe, default)
    idle = {"lr": not recipe.is_continual, "dataset": options.random is not None}
    for field, is_idle in idle.items():
        if is_idle and field in typed_in:
            print(f"note: {field} has no effect on what is verified")


def _about() -> str:
    figures = {name: figure.recipe.about for name, figure in FIGURES.items()}
    recipes = {n: it.about for n, it in RECIPES.items() if it.is_nudged}
    return "\n".join(
        [
            *(_ABOUT, "", "Figures of the papers (one example, tanh):", *listing(figures)),
            *("", "Recipes for training, with their own beta, T and K:", *listing(recipes), ""),
            "Start with: eqprop verify fig-toy",
            "",
            "Every field of a recipe is an option too, such as --activation, --setting, --inside, "
            "--nudge, --angle, --batch, --beta, --T and --K: eqprop verify fig-toy --help",
        ]
    )
