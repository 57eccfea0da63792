"""``eqprop bench``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, final

from tyro.conf import Positional, arg

from eqprop.cli.arguments import parse, require_at_least, require_known
from eqprop.errors import UsageError
from eqprop.recipes.catalogue import RECIPES
from eqprop.recipes.fast import fast

type _Count = Annotated[int | None, arg(metavar="N", help_behavior_hint="")]


@final
@dataclass(frozen=True)
class BenchOptions:
    """What to time, and how long."""

    recipes: Annotated[
        Positional[tuple[str, ...]], arg(metavar="[RECIPE ...]", help_behavior_hint="")
    ] = ()
    """Recipes to time; those of dense networks that learn by EP or VF when left out."""
    minibatches: _Count = None
    """Minibatches in each of the 5 stretches that are timed; as many as take about 1.5 s when left
    out."""
    eager_minibatches: _Count = None
    """Minibatches that the NumPy transcription learns; as many as take about 2 s when left out."""
    fast: bool = False
    """Time the recipes as `eqprop train --fast` has them; NumPy keeps the published settings."""
    profile: bool = False
    """Tell for each recipe where the time of a minibatch goes."""
    out: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """File to write all numbers to, as JSON; rewritten after each recipe."""


_RULES = {"ep", "c-ep", "vf", "c-vf"}

_ABOUT = """Time the recipes on this machine: seconds per epoch, compilation apart, next to the same
equations written out in NumPy, which learn the same minibatches in the same run. Takes about half a
minute for a recipe. Close other programs first."""


def run(args: Sequence[str]) -> None:
    """Times what the arguments say."""
    options = parse(BenchOptions, args, "eqprop bench", _ABOUT, BenchOptions())
    for name in options.recipes:
        require_known("recipe", name, RECIPES, "eqprop list")
        if (dataset := RECIPES[name].dataset) != "mnist":
            raise UsageError(
                f"{name} learns {dataset}, and recipes are timed on images of MNIST: leave it out"
            )
    times = {"minibatches": options.minibatches, "eager-minibatches": options.eager_minibatches}
    require_at_least(1, times)
    if options.out and (options.out.is_dir() or not options.out.absolute().parent.is_dir()):
        raise UsageError(f"{options.out} is no place for a file: give --out another")

    from eqprop.benchmarks.table import BenchmarkPlan, bench  # loads JAX

    names = options.recipes or [
        name for name, recipe in RECIPES.items() if not recipe.channels and recipe.rule in _RULES
    ]
    published = [RECIPES[name] for name in names]
    plan = BenchmarkPlan(
        tuple((recipe, fast(recipe) if options.fast else recipe) for recipe in published),
        options.minibatches,
        options.eager_minibatches,
        options.profile,
        options.out,
    )
    bench(plan, ["eqprop", "bench", *args])
