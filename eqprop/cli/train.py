"""``eqprop train``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, final

import tyro

from eqprop.cli.arguments import listing, split_name
from eqprop.cli.data import DEFAULT_SPLIT, SplitOptions, choose_data
from eqprop.cli.recipe_options import as_options, parse_with_fields
from eqprop.errors import Diverged, UsageError, typed
from eqprop.recipes.catalogue import RECIPES
from eqprop.recipes.fast import fast
from eqprop.recipes.recipe import Recipe, changes
from eqprop.recipes.series import SERIES
from eqprop.training.hardware import DEFAULT, Hardware
from eqprop.training.records import Replicas
from eqprop.training.runs import check_new, is_run

if TYPE_CHECKING:
    from eqprop.data.dataset import Dataset
    from eqprop.training.experiment import WarmStart

_MOST_SEEDS = 10_000


@final
@dataclass(frozen=True)
class TrainOptions:
    """What is not a field of the recipe."""

    seeds: int = 1
    """How many seeds to train, in seed-0, seed-1, ... of the run directory."""
    seed: int = 0
    """The (first) seed."""
    replicas: Replicas = "auto"
    """Train the seeds together in one program; as processes, one for each core; or in turn. Auto is
    together on a GPU, and on a CPU processes, but for trainings that are over sooner than these
    start.
    """
    data: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """Data of your own, as `eqprop data PATH` shows them: an .npz file, a table, a folder of images
    or of IDX files. The network gets the inputs and outputs that fit them.
    """
    split: Annotated[SplitOptions, tyro.conf.arg(name="")] = DEFAULT_SPLIT
    start: Annotated[Path | None, tyro.conf.arg(name="from", metavar="RUN")] = None
    """Start from the weights of this run, of one seed and of the same layers, not from drawn ones.
    """
    fast: bool = False
    """Settings that reach the same error sooner, where you give none; tells which."""
    out: Path | None = None
    """Run directory; runs/RECIPE when left out."""
    hardware: Annotated[Hardware, tyro.conf.arg(name="")] = DEFAULT


_ABOUT = """Train a network from the beginning. The run directory gets the full configuration, the
metrics, checkpoints, and the curves; `eqprop resume` goes on with it after a stop (Ctrl-C)."""


def run(args: Sequence[str]) -> None:
    """Trains what the arguments say."""
    abouts = {name: it.about for name, it in {**RECIPES, **SERIES}.items()}
    every = "Every field of a recipe is an option too: eqprop train ep-1h --help lists them."
    about = "\n".join([_ABOUT, "", "Recipes:", *listing(abouts), "", every])
    name, rest = split_name(args, abouts, "eqprop train", TrainOptions, about)
    series = SERIES.get(name)
    options, recipe = _read(series.base if series else name, rest)
    out = options.out or Path("runs") / name
    if options.fast:
        recipe = _make_fast(recipe)
    seeds = range(options.seed, options.seed + options.seeds)
    command = ["eqprop", "train", *args]
    recipe, dataset = choose_data(options.data, options.split, recipe, "eqprop train")
    if series:
        with typed():
            members = series.members(recipe)
        _train_series(members, seeds, out, command, options, dataset)
        return
    if options.hardware.coordinator is None:  # else the first process may already have begun
        with typed():
            check_new(out)

    from eqprop.training.launch import train  # loads JAX

    where = out, command, options.replicas, options.hardware
    train(recipe, seeds, *where, dataset=dataset, start=_start(options))


def _start(options: TrainOptions) -> "WarmStart | None":
    """The weights to start from, where a run is named."""
    from eqprop.training import hosts
    from eqprop.training.trained_run import open_run

    hosts.join(options.hardware)  # before JAX does anything else
    if options.start is None:
        return None
    with typed():
        return open_run(options.start).warm_start


def _train_series(
    members: Mapping[str, Recipe],
    seeds: Sequence[int],
    out: Path,
    command: Sequence[str],
    options: TrainOptions,
    dataset: "Dataset | None",
) -> None:
    """Trains each member in a directory of its own; goes on with those that have begun."""
    from eqprop.training.launch import resume, train  # loads JAX
    from eqprop.training.planned import PlannedTraining, check_all
    from eqprop.training.run_data import KeptData, describe

    start = _start(options)
    trainings: dict[str, PlannedTraining] = {}
    for name, recipe in members.items():
        data = dataset and KeptData(out, describe(dataset, recipe))
        trainings[name] = PlannedTraining(recipe, tuple(seeds), out / name, data)
    with typed():
        check_all(trainings, start and start.origin)
    lost: Diverged | None = None
    for name, recipe in members.items():
        try:
            if is_run(out / name):
                resume(out / name, recipe.epochs, command, options.hardware)
            else:
                where = out / name, command, options.replicas, options.hardware
                train(recipe, seeds, *where, dataset=dataset, start=start)
        except Diverged as error:  # which it would do again; others need not
            print(f"NOTE: {name}: {error}", flush=True)
            lost = error
    if lost:
        raise lost


def _read(name: str, args: Sequence[str]) -> tuple[TrainOptions, Recipe]:
    published = RECIPES[name]
    about = f"Train {name}: {published.about}. Every field of the recipe is an option."
    defaults = TrainOptions(), as_options(published)
    options, recipe = parse_with_fields(*defaults, args, f"eqprop train {name}", about)
    if not 1 <= options.seeds <= _MOST_SEEDS:
        raise UsageError(f"seeds is {options.seeds}: train at least 1, at most {_MOST_SEEDS}")
    if not 0 <= options.seed <= options.seed + options.seeds <= 2**31:
        raise UsageError(f"seed is {options.seed}: give a number from 0 to {2**31 - options.seeds}")
    return options, recipe


def _make_fast(recipe: Recipe) -> Recipe:
    quick = fast(recipe, RECIPES[recipe.name])
    different = changes(quick, recipe)
    list_ = ", ".join(f"{name} {new}, was {old}" for name, (new, old) in different.items())
    print(f"fast: {list_ or 'nothing to change in this recipe'}")
    return quick
