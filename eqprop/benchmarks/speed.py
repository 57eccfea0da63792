"""Benchmarks: how long a recipe takes on this machine, and where the time goes.

Measured is what ``eqprop train`` runs: the same compiled functions, in stretches of an epoch. Other
programs only ever add time, so the minimum of several stretches says what the code needs, and the
median what to expect.
"""

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from typing import Any, final

import jax
import numpy as np
from jax import lax

from eqprop.benchmarks import operations
from eqprop.benchmarks.machine import seconds
from eqprop.data import named as data
from eqprop.data.dataset import Dataset
from eqprop.data.targets import Classes
from eqprop.errors import DataUnavailable
from eqprop.networks.edges import Edge
from eqprop.networks.model import Model
from eqprop.networks.network import Network
from eqprop.recipes.recipe import Recipe
from eqprop.training.experiment import Experiment, evaluate, prepare
from eqprop.training.trainer import Examples, TrainState, fetch
from eqprop.types import Array, Int

STRETCHES = 5
_STRETCH = 1.5  # seconds, unless a number of minibatches is given
_IMAGES = 10_000  # the size of MNIST's test set ...
_TEST = 2000  # ... of which so many are timed

type Tell = Callable[[str], None]
"""Is told what comes next."""


@final
@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds: the minimum and the median of several measurements."""

    minimum: float
    median: float
    measurements: int

    @classmethod
    def of(cls, measured: Sequence[float], factor: float = 1.0) -> "Timing":
        """The measurements, each times a factor."""
        low, middle = min(measured), statistics.median(measured)
        return cls(factor * low, factor * middle, len(measured))


@final
@dataclasses.dataclass(frozen=True)
class Speed:
    """How long a recipe takes."""

    batches: int
    """Minibatches in an epoch."""
    minibatches: int
    """In a stretch."""
    epoch_seconds: Timing
    """Of training, extrapolated from stretches."""
    compile_seconds: float
    """Of the programs for training and evaluation, from nothing."""
    test_seconds: float
    """Of an evaluation of 10,000 images, extrapolated."""
    free_steps: float
    """Of a minibatch, mean."""
    epoch_flops: float | None
    """Matrix products only, where operations.py counts them."""


@final
@dataclasses.dataclass(frozen=True)
class PhaseTime:
    """What a part of each minibatch takes, and the matrix products in it."""

    name: str
    seconds: float
    flops: float | None


@final
class TimedTraining:
    """A training that runs for the sake of its time."""

    def __init__(self, recipe: Recipe, dataset: Dataset) -> None:
        self.experiment: Experiment = prepare(recipe, dataset)
        self.restart()

    def restart(self) -> None:
        """Goes back to before the first minibatch."""
        self.state: TrainState = self.experiment.start(0)
        self.order = self.experiment.trainer.order(self.state, self.experiment.train)
        jax.block_until_ready((self.state, self.order, self.experiment.train))

    def advance(self, minibatches: int) -> TrainState:
        """Learns so many within one epoch, the next one if this one has not as many left."""
        trainer = self.experiment.trainer
        if int(self.state.minibatch) + minibatches > self.experiment.batches:
            self.state = trainer.next_epoch(self.state)
            self.order = trainer.order(self.state, self.experiment.train)
        stop = int(self.state.minibatch) + minibatches
        self.state = trainer.advance(self.state, self.experiment.train, self.order, stop)
        return self.state

    def length(self, wanted: float) -> int:
        """How many minibatches take about so many seconds; an epoch at most."""
        n = 1
        while (
            took := seconds(lambda n=n: self.advance(n))
        ) < wanted / 8 and n < self.experiment.batches:
            n = min(2 * n, self.experiment.batches)
        return max(1, min(self.experiment.batches, round(n * wanted / took)))

    def stretches(self, minibatches: int) -> list[float]:
        """Seconds of several stretches of that length."""
        return [seconds(lambda: self.advance(minibatches)) for _ in range(STRETCHES)]


def measure(training: TimedTraining, minibatches: int | None, tell: Tell) -> Speed:
    """How long a training takes that has not begun, in stretches of so many minibatches, or of
    about 1.5 s.
    """
    experiment = training.experiment
    tell("compiling")
    compile_train = seconds(lambda: training.advance(0))
    tell("training")
    n = min(minibatches or training.length(_STRETCH), experiment.batches)
    stretches = training.stretches(n)
    free_steps = int(training.state.totals["steps"]) / int(training.state.minibatch)

    tell("evaluating")
    network = training.state.network
    test = experiment.test.part(0, _TEST)
    first, *again = [seconds(lambda: evaluate(experiment.trainer, network, test)) for _ in range(4)]
    work = operations.of_minibatch(experiment.recipe, network, free_steps)
    return Speed(
        batches=experiment.batches,
        minibatches=n,
        epoch_seconds=Timing.of(stretches, experiment.batches / n),
        compile_seconds=compile_train + max(0.0, first - min(again)),
        test_seconds=min(again) * _IMAGES / len(test),
        free_steps=free_steps,
        epoch_flops=experiment.batches * work.total if work else None,
    )


def breakdown(
    training: TimedTraining, dataset: Dataset, speed: Speed, tell: Tell
) -> list[PhaseTime]:
    """Where the time of a minibatch goes: by differences from trainings with T = 1 or K = 1, and by
    computing the input's drive alone. Needs a recipe with a nudged phase.

    Without a part the compiler may arrange the rest differently, so the parts are approximate.
    """
    recipe, T, K = training.experiment.recipe, speed.free_steps, training.experiment.recipe.K
    loops: dict[str, Callable[[], object]] = {}
    lengths: dict[str, int] = {}
    for name, changes in (("whole", {}), ("free", {"T": 1}), ("nudged", {"K": 1})):
        tell(f"profiling: {name}")
        variant = TimedTraining(dataclasses.replace(recipe, **changes), dataset)
        variant.advance(0)
        n = lengths[name] = variant.length(_STRETCH / 2)
        loops[name] = lambda variant=variant, n=n: variant.advance(n)
    tell("profiling: input drive")
    loops["drive"], lengths["drive"] = _drive_loop(training), training.experiment.batches
    # In turn, so that a machine that grows slower, or quicker, does so for all.
    rounds = [{name: seconds(loop) for name, loop in loops.items()} for _ in range(STRETCHES)]
    pace = {name: min(r[name] for r in rounds) / n for name, n in lengths.items()}

    work = operations.of_minibatch(recipe, training.state.network, T)
    drive, free, nudged, update = work or (None,) * 4
    parts = [PhaseTime("fetch, input drive", pace["drive"], drive)]
    if T > 1:
        took = (pace["whole"] - pace["free"]) * T / (T - 1)
        parts.append(PhaseTime(f"{T:.4g} free steps", took, free))
    if K > 1:
        took = (pace["whole"] - pace["nudged"]) * K / (K - 1)
        parts.append(PhaseTime(f"{K} nudged steps", took, nudged))
    rest = pace["whole"] - sum(part.seconds for part in parts)
    return [*parts, PhaseTime("update, loss, loop", rest, update)]


def _drive_loop(training: TimedTraining) -> Callable[[], object]:
    """Fetches each minibatch of an epoch and computes the drive of its input, and no more."""
    experiment = training.experiment

    def from_input(network: Model) -> list[Edge]:
        edges = network.edges if isinstance(network, Network) else ()
        return [edge for edge in edges if edge.from_input]

    def drives(network: Model, examples: Examples, order: Int[Array, "batches B"]) -> Any:
        def add(batch: Int[Array, ""], sums: Any) -> Any:
            x, _ = fetch(examples, order[batch], network)
            clamped = experiment.trainer.system.clamp(network, x)
            return [a + e.forward(x) for a, e in zip(sums, from_input(clamped), strict=True)]

        zeros = network.zeros(experiment.trainer.batch)
        return lax.fori_loop(
            0, experiment.batches, add, [zeros[e.post - 1] for e in from_input(network)]
        )

    program = jax.jit(drives)
    network, order = training.state.network, training.order
    jax.block_until_ready(program(network, experiment.train, order))
    return lambda: program(network, experiment.train, order)


def load_images() -> Dataset:
    """MNIST, or random images of its shape, four fifths of them black, where it is unavailable."""
    try:
        return data.load("mnist")
    except DataUnavailable:
        return random_images(60_000, _IMAGES)


def random_images(train: int, test: int, size: int = 28) -> Dataset:
    """Images that only the clock can learn from."""
    rng = np.random.default_rng(0)

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        images = rng.integers(1, 256, (n, size, size), np.uint8)
        images[rng.random(images.shape, np.float32) < 0.8] = 0
        return images, rng.integers(10, size=n, dtype=np.uint8)

    source = "Random images of the shape of MNIST, which is unavailable; for timing only."
    return Dataset("random", *draw(train), *draw(test), Classes.of(10), source)
