"""What one accelerator does: seconds of an epoch of many seeds, memory, and published rows trained.

    python benchmarks/gpu.py --minutes 25 --out runs/gpu

Half of the time goes into measurements: every recipe on MNIST with 1, 5 and 64 seeds side by side,
with the peak of the device's memory and the seconds of compilation, and once with bfloat16 states.
The rest trains the published rows, five seeds together each, the shortest first; the same call
again goes on with them. Writes `gpu.json` after each number, and prints Markdown at the end. With
`--rehearse` it does all that for small networks on the digits, anywhere, in a minute.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import jax

from eqprop.benchmarks.machine import seconds
from eqprop.data import named
from eqprop.errors import EqpropError
from eqprop.recipes.catalogue import RECIPES
from eqprop.recipes.recipe import Recipe
from eqprop.training import launch
from eqprop.training.experiment import Experiment, prepare
from eqprop.training.records import made
from eqprop.training.replicas import Layout
from eqprop.training.runs import is_run
from eqprop.training.session import TimeUp

SEEDS = 1, 5, 64
TIMED = (
    *("ep-1h", "c-ep-1h", "c-vf-1h", "eb-1h", "ep-2h", "c-ep-2h", "ep-conv-best", "ep-conv"),
    *("bptt-1h", "bptt-2h"),
)
TRAINED = (
    *("ep-1h", "bptt-1h", "eb-1h", "c-ep-1h", "c-vf-1h", "ep-conv-best"),
    *("ep-2h", "bptt-2h", "c-ep-2h", "c-vf-2h", "eb-2h", "ep-conv", "ep-3h", "bptt-3h"),
)
_STRETCH = 0.6  # seconds that are timed


def small(recipe: Recipe) -> Recipe:
    """A recipe for a rehearsal."""
    if recipe.channels:
        layers = {"channels": (4, 8), "kernel": 3}
    else:
        layers = {"hidden": (8,) * len(recipe.hidden)}
    return dataclasses.replace(recipe, dataset="digits", T=4, K=2, epochs=1, **layers)


def epoch_seconds(experiment: Experiment, seeds: int) -> dict[str, Any]:
    """Seconds of an epoch of so many seeds side by side, and of their compilation."""
    laid_out = experiment.lay_out(Layout(seeds if seeds > 1 else None))
    trainer, train = laid_out.trainer, laid_out.train
    state = trainer.layout.stack([laid_out.start(seed) for seed in range(seeds)])
    order = trainer.order(state, train)
    at, length, took = 1, 1, 0.0

    def advance(stop: int) -> Any:
        nonlocal state
        state = trainer.advance(state, train, order, stop)
        return state

    compiling = seconds(lambda: advance(at))
    while took < _STRETCH and at < laid_out.batches:
        stop = min(laid_out.batches, at + length)
        took, learnt = seconds(lambda stop=stop: advance(stop)), stop - at
        at, length = stop, max(1, min(8 * length, round(1.3 * length * _STRETCH / took)))
    return {"seconds": took / learnt * laid_out.batches, "compile": compiling}


def measure(recipes: dict[str, Recipe], until: float, tell: Any) -> None:
    """Times recipes with each number of seeds, for as long as there is time."""
    datasets = {recipe.dataset: named.load(recipe.dataset) for recipe in recipes.values()}
    for seeds in SEEDS:
        for name, recipe in recipes.items():
            if time.monotonic() > until:
                return
            row: dict[str, Any] = {"recipe": name, "seeds": seeds, "states": recipe.states}
            try:
                row |= epoch_seconds(prepare(recipe, datasets[recipe.dataset]), seeds)
            except (EqpropError, jax.errors.JaxRuntimeError) as error:  # out of memory, say
                row["failed"] = str(error).splitlines()[0]
            memory = jax.devices()[0].memory_stats() or {}
            row["peak_bytes"] = memory.get("peak_bytes_in_use")
            tell("timed", row)


def train(recipes: dict[str, Recipe], out: Path, until: float, tell: Any) -> None:
    """Trains recipes, five seeds of each together, for as long as there is time."""
    command = ["benchmarks/gpu.py"]
    for name, recipe in recipes.items():
        folder = out / name
        try:
            if is_run(folder):
                launch.resume(folder, recipe.epochs, command, until=until)
            else:
                launch.train(recipe, range(5), folder, command, "together", until=until)
        except TimeUp as end:
            tell("trained", {"recipe": name, "end": str(end)})
            return
        except EqpropError as error:
            tell("trained", {"recipe": name, "end": str(error)})
        else:
            tell("trained", {"recipe": name, "end": "finished"})


def main() -> None:
    """Measures, then trains."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    begun, budget = time.monotonic(), 60 * options.minutes
    options.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"made": dataclasses.asdict(made(["benchmarks/gpu.py"]))}
    found |= {"timed": [], "trained": []}

    def tell(kind: str, row: dict[str, Any]) -> None:
        found[kind].append(row)
        print(kind, json.dumps(row), flush=True)
        (options.out / "gpu.json").write_text(json.dumps(found, indent=2) + "\n")

    shrink = small if options.rehearse else lambda recipe: recipe
    timed = {name: shrink(RECIPES[name]) for name in TIMED}
    half = dataclasses.replace(timed["ep-conv-best"], states="bfloat16")
    measure(timed | {"ep-conv-best, bfloat16": half}, begun + budget / 2, tell)
    train({name: shrink(RECIPES[name]) for name in TRAINED}, options.out, begun + budget, tell)
    print("\n| recipe | seeds | s/epoch of all | compile | peak MiB |\n|---|---|---|---|---|")
    for row in found["timed"]:
        shown = f"{row['seconds']:.3g} | {row['compile']:.1f}" if "seconds" in row else "failed | "
        peak = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**20:.0f}"
        print(f"| {row['recipe']} | {row['seeds']} | {shown} | {peak} |")


if __name__ == "__main__":
    main()
