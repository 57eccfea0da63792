"""``eqprop sweep``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from eqprop.cli.arguments import parse
from eqprop.cli.recipe_options import RecipeOptions, as_options, as_recipe
from eqprop.errors import UsageError, suggest
from eqprop.recipes.catalogue import RECIPES, fast
from eqprop.sweeps.space import Sweep, parse_grid, parse_random


@dataclass(frozen=True)
class Options:
    """What to sweep, and where."""

    grid: tuple[str, ...] = ()
    """Fields with all their values: beta=0.2,0.5 T=20,30 "hidden=512,512 512"."""
    random: tuple[str, ...] = ()
    """Fields with a distribution: lr.0=loguniform:0.01,0.2 beta=uniform:0.1,0.5 T=int:20,40
    nudge=choice:one-sided,centered.
    """
    samples: int = 10
    """Random samples, at each point of the grid."""
    sample_seed: int = 0
    """Draws the samples."""
    seeds: int = 1
    """Seeds of each member."""
    fast: bool = False
    """Settings that reach the same error sooner (eqprop train --fast), before any are swept."""
    out: Path | None = None
    """Directory for the members and their table; runs/sweep-RECIPE when left out."""
    on: Literal["here", "processes", "slurm"] = "here"
    """Here, one after another; as processes of this machine; or as jobs of a Slurm cluster."""
    at_once: int = 2
    """Jobs at the same time."""
    minutes: int = 240
    """Time limit of a job; Slurm then queues it again, and it goes on."""
    cpus: int = 4
    """CPU cores of a job."""
    gpus: int = 0
    """GPUs of a job."""
    partition: str | None = None
    """Partition of the Slurm cluster."""


@dataclass(frozen=True)
class _Request:
    options: Annotated[Options, tyro.conf.arg(name="")]
    fields: Annotated[RecipeOptions, tyro.conf.arg(name="")]


_ABOUT = """Train a recipe over values of its fields, a grid of them or random ones, and compare.
Each member is an ordinary run directory. Members train one after another, their seeds together
where that is faster, or as jobs. Stopped or killed, the same command goes on where it was."""


def run(args: Sequence[str]) -> None:
    """Sweeps what the arguments say."""
    if not args or args[0] in {"-h", "--help"}:
        parse(Options, ["--help"], "eqprop sweep RECIPE", _ABOUT, Options())
        return
    name, *rest = args
    if name.startswith("-"):
        raise UsageError(f"the recipe comes first: eqprop sweep RECIPE {name} ...")
    if name not in RECIPES:
        raise UsageError(f"unknown recipe {suggest(name, RECIPES)} (see eqprop list)")
    default = _Request(Options(), as_options(RECIPES[name]))
    request = parse(_Request, rest, f"eqprop sweep {name}", _ABOUT, default)
    options, recipe = request.options, as_recipe(request.fields)
    swept = _swept(options)
    if options.fast:
        recipe = fast(recipe)
    _check(options)
    swept.members(recipe)  # values that do not fit

    from eqprop.sweeps.cluster import Place
    from eqprop.sweeps.sweep import Request, sweep  # loads JAX

    place = None
    if options.on != "here":
        limits = options.at_once, options.minutes, options.cpus, options.gpus
        place = Place(options.on, *limits, options.partition)
    out = options.out or Path("runs") / f"sweep-{name}"
    seeds = tuple(range(options.seeds))
    sweep(Request(recipe, swept, seeds, out, place), ["eqprop", "sweep", *args])


def _swept(options: Options) -> Sweep:
    grids = tuple(map(parse_grid, options.grid))
    randoms = tuple(map(parse_random, options.random))
    found = Sweep(grids, randoms, options.samples, options.sample_seed)
    if not found.fields:
        raise UsageError("nothing is swept: give --grid beta=0.2,0.5, or --random (see --help)")
    for name in found.fields:
        if found.fields.count(name) > 1:
            raise UsageError(f"{name} is swept twice: name it once")
    return found


def _check(options: Options) -> None:
    for name in ("samples", "seeds", "at_once", "minutes", "cpus"):
        if getattr(options, name) < 1:
            raise UsageError(f"{name} is {getattr(options, name)}: give at least 1")
    for name in ("sample_seed", "gpus"):
        if getattr(options, name) < 0:
            raise UsageError(f"{name} is {getattr(options, name)}: give at least 0")
