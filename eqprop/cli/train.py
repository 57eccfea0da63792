"""``eqprop train``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from eqprop.cli.arguments import parse
from eqprop.cli.recipe_options import RecipeOptions, as_options, as_recipe
from eqprop.errors import UsageError, suggest, typed
from eqprop.recipes.catalogue import RECIPES, SERIES, fast
from eqprop.recipes.recipe import Recipe, changes
from eqprop.training.hardware import DEFAULT, Hardware
from eqprop.training.records import Replicas
from eqprop.training.runs import check_new, is_run

_MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Options:
    """What is not a field of the recipe."""

    seeds: int = 1
    """How many seeds to train, in seed-0, seed-1, ... of the run directory."""
    seed: int = 0
    """The (first) seed."""
    replicas: Replicas = "auto"
    """Train the seeds together in one program, or in turn. Auto is in turn on a CPU, where together
    is no faster.
    """
    fast: bool = False
    """Settings that reach the same error sooner; tells which."""
    out: Path | None = None
    """Run directory; runs/RECIPE when left out."""
    hardware: Annotated[Hardware, tyro.conf.arg(name="")] = DEFAULT


@dataclass(frozen=True)
class _Request:
    options: Annotated[Options, tyro.conf.arg(name="")]
    fields: Annotated[RecipeOptions, tyro.conf.arg(name="")]


_ABOUT = """Train a network from the beginning. The run directory gets the full configuration, the
metrics, checkpoints, and the curves; `eqprop resume` goes on with it after a stop (Ctrl-C)."""


def run(args: Sequence[str]) -> None:
    """Trains what the arguments say."""
    if not args or args[0] in {"-h", "--help"}:
        _help()
        return
    name, *rest = args
    if name.startswith("-"):
        raise UsageError(f"the recipe comes first: eqprop train RECIPE {name} ...")
    series = SERIES.get(name)
    if series is None and name not in RECIPES:
        raise UsageError(f"unknown recipe {suggest(name, [*RECIPES, *SERIES])} (see eqprop list)")
    recipe, options = _read(series.base if series else name, rest)
    out = options.out or Path("runs") / name
    if options.fast:
        recipe = _make_fast(recipe)
    seeds = range(options.seed, options.seed + options.seeds)
    command = ["eqprop", "train", *args]
    if series:
        with typed():
            members = series.members(recipe)
        _train_series(members, seeds, out, command, options)
        return
    if options.hardware.coordinator is None:  # else the first process may already have begun
        with typed():
            check_new(out)

    from eqprop.training.launch import train  # loads JAX

    train(recipe, seeds, out, command, options.replicas, options.hardware)


def _train_series(
    members: Mapping[str, Recipe],
    seeds: Sequence[int],
    out: Path,
    command: Sequence[str],
    options: Options,
) -> None:
    """Trains each member in a directory of its own; goes on with those that have begun."""
    from eqprop.training.launch import resume, train  # loads JAX

    for name, recipe in members.items():
        if is_run(out / name):
            resume(out / name, recipe.epochs, command, options.hardware)
        else:
            train(recipe, seeds, out / name, command, options.replicas, options.hardware)


def _read(name: str, args: Sequence[str]) -> tuple[Recipe, Options]:
    published = RECIPES[name]
    fields = as_options(published)
    about = f"Train {name}: {published.about}. Every field of the recipe is an option."
    request = parse(_Request, args, f"eqprop train {name}", about, _Request(Options(), fields))
    options = request.options
    if not 1 <= options.seeds <= _MOST_SEEDS:
        raise UsageError(f"seeds is {options.seeds}: train at least 1, at most {_MOST_SEEDS}")
    if not 0 <= options.seed <= options.seed + options.seeds <= 2**31:
        raise UsageError(f"seed is {options.seed}: give a number from 0 to {2**31 - options.seeds}")
    return as_recipe(request.fields), options


def _make_fast(recipe: Recipe) -> Recipe:
    quick = fast(recipe)
    different = changes(quick, recipe)
    list_ = ", ".join(f"{name} {new}, was {old}" for name, (new, old) in different.items())
    print(f"fast: {list_ or 'nothing to change in this recipe'}")
    return quick


def _help() -> None:
    width = max(map(len, [*RECIPES, *SERIES]))
    recipes = [f"  {name:{width}}  {it.about}" for name, it in {**RECIPES, **SERIES}.items()]
    about = "\n".join(
        [
            *(_ABOUT, "", "Recipes:", *recipes, ""),
            "Every field of a recipe is an option too: eqprop train ep-1h --help lists them.",
        ]
    )
    parse(Options, ["--help"], "eqprop train RECIPE", about, Options())
