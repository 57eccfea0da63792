"""``eqprop sweep``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, final

import tyro

from eqprop.cli.arguments import require_at_least, split_name
from eqprop.cli.data import DEFAULT_SPLIT, SplitOptions, choose_data
from eqprop.cli.recipe_options import as_options, changed, parse_with_fields
from eqprop.errors import UsageError
from eqprop.recipes.catalogue import RECIPES
from eqprop.recipes.fast import fast
from eqprop.recipes.recipe import Recipe
from eqprop.sweeps.space import Sweep, parse_grid, parse_random


@final
@dataclass(frozen=True)
class SweepOptions:
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
    data: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """Data of your own, as for eqprop train; the same for all members, kept beside them."""
    split: Annotated[SplitOptions, tyro.conf.arg(name="")] = DEFAULT_SPLIT
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
    """CPU cores of a Slurm job; processes share those of the machine."""
    gpus: int = 0
    """GPUs of a job; of processes, the first ones for all of them."""
    partition: str | None = None
    """Partition of the Slurm cluster."""


_ABOUT = """Train a recipe over values of its fields, a grid of them or random ones, and compare.
Each member is an ordinary run directory. Members train one after another, their seeds together
where that is faster, or as jobs. Stopped or killed, the same command goes on where it was.
With --validation the members are compared on the part that is held back, else on the test set.

Start with: eqprop sweep ep-1h --grid beta=0.2,0.5

Every field of a recipe is an option too: eqprop sweep ep-1h --help lists them."""


def run(args: Sequence[str]) -> None:
    """Sweeps what the arguments say."""
    name, rest = split_name(args, RECIPES, "eqprop sweep", SweepOptions, _ABOUT)
    defaults = SweepOptions(), as_options(RECIPES[name])
    options, recipe = parse_with_fields(*defaults, rest, f"eqprop sweep {name}", _ABOUT)
    swept = _swept(options)
    if options.fast:
        recipe = fast(recipe, RECIPES[recipe.name])
    _check(options)
    if options.data is not None and "dataset" in swept.fields:
        raise UsageError(f"dataset is swept, but --data is {options.data}: leave one of them out")
    recipe, dataset = choose_data(options.data, options.split, recipe, "eqprop sweep")
    members = swept.members(lambda values: assign(recipe, values))
    if len(members) < (drawn := sum(1 for _ in swept.assignments())):
        print(f"note: equal samples fall together, {drawn} of them into {len(members)} members")

    from eqprop.sweeps.cluster import Processes, Slurm
    from eqprop.sweeps.sweep import SweepRun, sweep

    limits = options.at_once, options.minutes, options.cpus, options.gpus
    workers = {
        "here": None,
        "processes": Processes(*limits),
        "slurm": Slurm(*limits, options.partition),
    }
    out = options.out or Path("runs") / f"sweep-{name}"
    seeds = tuple(range(options.seeds))
    where = out, workers[options.on], dataset
    asked = SweepRun(recipe.name, swept.fields, members, seeds, *where)
    sweep(asked, ["eqprop", "sweep", *args])


def assign(recipe: Recipe, values: Mapping[str, str]) -> Recipe:
    """The recipe with some fields as typed. Raises ``UsageError`` for a value that does not fit."""
    typed = {field: value for field, value in values.items() if not _is_within(field)}
    for field, value in values.items():
        name, _, index = field.partition(".")
        if _is_within(field):
            words = typed[name].split() if name in typed else [*map(str, getattr(recipe, name))]
            if int(index) >= len(words):
                raise UsageError(f"{field} is not there: {name} is {' '.join(words)}")
            words[int(index)] = value
            typed[name] = " ".join(words)
    options = [
        word
        for name, value in typed.items()
        for word in ("--" + name.replace("_", "-"), *value.split())
    ]
    return changed(recipe, options, "eqprop sweep")


def _is_within(field: str) -> bool:
    """Whether it is one number of several, as ``lr.0`` is."""
    return field.partition(".")[2].isdecimal()


def _swept(options: SweepOptions) -> Sweep:
    grids = tuple(map(parse_grid, options.grid))
    randoms = tuple(map(parse_random, options.random))
    found = Sweep(grids, randoms, options.samples, options.sample_seed)
    if not found.fields:
        raise UsageError("nothing is swept: give --grid beta=0.2,0.5, or --random (see --help)")
    for name in found.fields:
        if found.fields.count(name) > 1:
            raise UsageError(f"{name} is swept twice: name it once")
    return found


def _check(options: SweepOptions) -> None:
    names = ("samples", "seeds", "at_once", "minutes", "cpus")
    require_at_least(1, {name: getattr(options, name) for name in names})
    require_at_least(0, {name: getattr(options, name) for name in ("sample_seed", "gpus")})
