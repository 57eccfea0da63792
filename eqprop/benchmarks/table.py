"""A benchmark of several recipes: what it tells on the screen, and what it writes."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, final

from rich import box
from rich.live import Live
from rich.table import Table
from rich.text import Text

from eqprop.benchmarks import machine
from eqprop.benchmarks.baseline import Baseline, measure_eager
from eqprop.benchmarks.speed import (
    STRETCHES,
    PhaseTime,
    Speed,
    Tell,
    TimedTraining,
    breakdown,
    load_images,
    measure,
)
from eqprop.data.dataset import Dataset
from eqprop.recipes.recipe import Recipe, changes
from eqprop.training.display import Display
from eqprop.training.records import made
from eqprop.training.seed_processes import cores

FORMAT = 1
"""Version of the layout of the JSON."""

_BUSY = 0.5  # mean number of other processes that run
_SAME = 0.01  # largest difference of weights, relative to how far they moved, that is round-off


@final
@dataclasses.dataclass(frozen=True)
class BenchmarkPlan:
    """What is to be timed."""

    recipes: tuple[tuple[Recipe, Recipe], ...]
    """Each as published, and as it is to be timed."""
    minibatches: int | None
    """In a stretch; None for as many as take a good time."""
    eager_minibatches: int | None
    """That NumPy learns; None likewise."""
    profile: bool
    """Whether to find out where the time goes."""
    out: Path | None
    """The file for the numbers."""


@final
@dataclasses.dataclass(frozen=True)
class Result:
    """What was found for a recipe."""

    recipe: Recipe
    """As it was timed."""
    changed: dict[str, object]
    """Settings of it that are not the published ones."""
    speed: Speed
    numpy: Baseline | None
    """With the published settings."""
    parts: list[PhaseTime] | None
    """Of a minibatch."""

    @property
    def ratio(self) -> float | None:
        """NumPy's seconds per epoch divided by ours, both minima."""
        ours, numpy = self.speed.epoch_seconds.minimum, self.numpy
        return numpy.epoch_seconds.minimum / ours if numpy else None

    @property
    def flops_per_second(self) -> float | None:
        """Matrix products only, in the fastest stretch."""
        flops = self.speed.epoch_flops
        return flops / self.speed.epoch_seconds.minimum if flops else None


def bench(plan: BenchmarkPlan, command: Sequence[str]) -> None:
    """Times recipes, tells what it finds, and writes it down after each recipe."""
    display, load = Display(), machine.load()
    display.say(machine.describe())
    if load is not None and load > _BUSY:
        display.say(
            f"NOTE: other programs are running (load {load:.1f} on {cores()} cores): the "
            "times will come out too long"
        )
    about = {"format": FORMAT} | dataclasses.asdict(made(command))
    about |= {"cpu": machine.cpu(), "cores": cores(), "load": load}
    results: list[Result] = []
    peak = 0.0
    with machine.cold_compilation():
        with _telling(display, "") as tell:
            tell("loading data")
            dataset = load_images()
        display.say(dataset.source)
        for n, (published, recipe) in enumerate(plan.recipes, 1):
            with _telling(display, f"{recipe.name}, {n} of {len(plan.recipes)}: ") as tell:
                tell("the peak of matrix products")
                # Again for each recipe, for other programs may have kept it down.
                peak = max(peak, machine.peak())
                results.append(_measure(published, recipe, plan, dataset, tell))
            display.say(_line(results[-1]))
            if plan.out:
                found = {"data": dataset.source, "peak_flops_per_second": peak}
                found |= {"results": [_row(result, peak) for result in results]}
                plan.out.write_text(json.dumps(about | found, indent=2) + "\n")
    display.say("")
    display.console.print(_table(results, peak))
    display.say(_legend(results, peak))
    for result in results:
        if result.parts:
            display.say("")
            display.console.print(_profile(result, result.parts, peak))
        elif plan.profile:
            name, rule = result.recipe.name, result.recipe.rule
            display.say(f"\n{name} has no profile: rule {rule} differentiates whole steps")
    if plan.out:
        display.say(f"all numbers in {plan.out}")


def _measure(
    published: Recipe, recipe: Recipe, plan: BenchmarkPlan, dataset: Dataset, tell: Tell
) -> Result:
    training = TimedTraining(recipe, dataset)
    speed = measure(training, plan.minibatches, tell)
    profiled = plan.profile and not recipe.differentiates
    parts = breakdown(training, dataset, speed, tell) if profiled else None
    if recipe != published:
        training = TimedTraining(published, dataset)
    numpy = measure_eager(training, plan.eager_minibatches, tell)
    changed = {name: value for name, (value, _) in changes(recipe, published).items()}
    return Result(recipe, changed, speed, numpy, parts)


def _row(result: Result, peak: float) -> dict[str, Any]:
    """A result for the file, with what follows from it."""
    rate = result.flops_per_second
    share = rate / peak if rate else None
    derived = {"ratio": result.ratio, "flops_per_second": rate, "share_of_peak": share}
    return dataclasses.asdict(result) | derived


@contextlib.contextmanager
def _telling(display: Display, prefix: str) -> Iterator[Tell]:
    """Shows on a terminal what is being done."""
    if not display.console.is_terminal:
        yield lambda _: None
        return
    # Refreshed when there is news: a thread of its own would take time from what is timed.
    with Live(console=display.console, auto_refresh=False, transient=True) as live:
        yield lambda what: live.update(Text(f"{prefix}{what} ..."), refresh=True)


def _line(result: Result) -> str:
    """A result in a line, as progress."""
    recipe, numpy = result.recipe, result.numpy
    line = f"{recipe.name}: {_figure(result.speed.epoch_seconds.minimum)} s per epoch"
    if numpy:
        line += f"; NumPy {_figure(numpy.epoch_seconds.minimum)} s"
    if numpy and numpy.difference > _SAME:
        line += f" (NOTE: weights {100 * numpy.difference:.2g} % apart, so not the same work)"
    if result.changed:
        line += "; with " + ", ".join(f"{name} {value}" for name, value in result.changed.items())
    return line


def _table(results: Sequence[Result], peak: float) -> Table:
    table = _columns("recipe", "s/epoch", "median", "compile", "test", "NumPy", "faster", *_RATES)
    for result in results:
        speed, numpy, ratio = result.speed, result.numpy, result.ratio
        table.add_row(
            result.recipe.name,
            _figure(speed.epoch_seconds.minimum),
            _figure(speed.epoch_seconds.median),
            f"{speed.compile_seconds:.1f}",
            _figure(speed.test_seconds),
            _figure(numpy.epoch_seconds.minimum) if numpy else "-",
            f"{_figure(ratio)} x" if ratio else "-",
            *_rates(result.flops_per_second, peak),
        )
    return table


def _legend(results: Sequence[Result], peak: float) -> str:
    baselines = [result.numpy for result in results if result.numpy]
    threads = sorted({n for baseline in baselines for n in baseline.by_threads})
    return "\n".join(
        [
            f"s/epoch  training, the fastest of {STRETCHES} stretches; median: their middle one",
            "compile  seconds at a first start; `eqprop train` keeps the programs for later ones",
            "test     seconds for 10,000 images",
            "NumPy    s/epoch of the same equations in NumPy, by its fastest minibatch"
            f" (threads tried: {', '.join(map(str, threads))})",
            "faster   NumPy's s/epoch divided by ours",
            "GFLOP/s  in matrix products, counting nothing else (eqprop/benchmarks/operations.py)",
            f"of peak  of {peak / 1e9:.4g} GFLOP/s, a float32 product of 2048x2048 matrices here",
        ]
    )


def _profile(result: Result, parts: Sequence[PhaseTime], peak: float) -> Table:
    whole = sum(part.seconds for part in parts)
    table = _columns("part", "ms", "of time", "MFLOP", *_RATES)
    table.title = f"{result.recipe.name}: {1e3 * whole:.3g} ms per minibatch"
    for part in parts:
        # The difference of two times may come out as nothing, or less.
        rate = part.flops / part.seconds if part.flops and part.seconds > 0 else None
        table.add_row(
            part.name,
            f"{1e3 * part.seconds:.3f}",
            f"{100 * part.seconds / whole:.0f} %",
            "-" if part.flops is None else f"{part.flops / 1e6:.3g}",
            *_rates(rate, peak),
        )
    return table


_RATES = "GFLOP/s", "of peak"


def _rates(rate: float | None, peak: float) -> tuple[str, str]:
    """FLOP/s, and their share of the peak."""
    return ("-", "-") if rate is None else (f"{rate / 1e9:.3g}", f"{100 * rate / peak:.0f} %")


def _figure(value: float) -> str:
    """Three digits, or all there are before the point."""
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _columns(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title_justify="left")
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table
