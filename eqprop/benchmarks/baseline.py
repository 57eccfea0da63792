"""The baseline of a benchmark: the NumPy transcription learns the same minibatches."""

import dataclasses
import math
from collections.abc import Sequence
from typing import final

import jax.numpy as jnp
import numpy as np
import threadpoolctl

from eqprop.benchmarks.conv_transcription import ConvNet
from eqprop.benchmarks.machine import timed
from eqprop.benchmarks.speed import Tell, TimedTraining, Timing
from eqprop.benchmarks.transcription import (
    ACTIVATIONS,
    RULES,
    DenseNet,
    Dynamics,
    Net,
    Numbers,
    Params,
    minibatch,
)
from eqprop.networks.model import Model
from eqprop.networks.parameter_names import named_parameters
from eqprop.recipes.build import nudge
from eqprop.recipes.recipe import Recipe
from eqprop.training.trainer import fetch, minibatch_key

_SECONDS, _MOST = 2.0, 30  # minibatches, unless their number is given


@final
@dataclasses.dataclass(frozen=True)
class Baseline:
    """How long the NumPy transcription takes."""

    epoch_seconds: Timing
    """Extrapolated, with the number of threads that is faster."""
    threads: int
    by_threads: dict[int, Timing]
    """The same for each number of threads that was tried."""
    compared: int
    """Minibatches after which its weights and the library's were compared."""
    difference: float
    """Their largest difference then, relative to the largest change of a weight since the start."""


def measure_eager(training: TimedTraining, minibatches: int | None, tell: Tell) -> Baseline | None:
    """How long the NumPy transcription takes for the first so many minibatches of a training, or
    for as many as take 2 s. None where there is no transcription of the recipe.

    Restarts the training, and learns the same minibatches with it.
    """
    recipe, batches = training.experiment.recipe, training.experiment.batches
    if not _transcribed(recipe):
        return None
    training.restart()
    start = transcribe(training.state.network, recipe)
    queue = _minibatches(training, min(minibatches or _MOST, batches))
    net, times = start, {}
    for threads in dict.fromkeys((1, _blas_threads())):
        net, took = start, []
        for n, batch in enumerate(queue, 1):
            tell(f"NumPy with {threads} thread(s), minibatch {n}")
            with threadpoolctl.threadpool_limits(threads, user_api="blas"):
                net, seconds = timed(minibatch, recipe.rule, net, _dynamics(recipe), *batch)
            took.append(seconds)
            if minibatches is None and sum(took) > _SECONDS:
                queue = queue[:n]
                break
        times[threads] = Timing.of(took, float(batches))
    threads = min(times, key=lambda threads: times[threads].minimum)
    ours = transcribe(training.advance(len(queue)).network, recipe)
    difference = _largest(ours, net) / _largest(start, net)
    return Baseline(times[threads], threads, times, len(queue), difference)


def _transcribed(recipe: Recipe) -> bool:
    """Whether the transcription has everything that the recipe asks for."""
    plain = recipe.optimizer == "sgd" and recipe.schedule == "constant" and not recipe.weight_decay
    plain = plain and recipe.activation in ACTIVATIONS and recipe.rule in RULES
    plain = plain and not (recipe.skips or recipe.lateral or recipe.augments)
    plain = plain and not (recipe.dropout or recipe.input_dropout)
    plain = plain and recipe.states == "full" and not (recipe.mean or recipe.std)
    synchronous = not (recipe.sweeps or recipe.nudged_sweeps or recipe.tolerance)
    one_sided = recipe.nudge in {"one-sided", "random-sign"} and recipe.cost == "squared-error"
    convolutions = not recipe.channels or (
        recipe.rule == "ep"
        and recipe.pool == "max"
        and not any(recipe.padding)
        and len(set(recipe.window)) == 1
        and recipe.setting == "prototypical"
    )
    return plain and synchronous and one_sided and convolutions


def _dynamics(recipe: Recipe) -> Dynamics:
    return Dynamics(
        recipe.setting,
        recipe.activation,
        "inside" if recipe.inside else "outside",
        dt=recipe.dt,
        input_rate="identity" if recipe.raw_input else "rho",
        clip=recipe.clip,
        output_slope=recipe.output_slope,
    )


def transcribe(network: Model, recipe: Recipe) -> Net:
    """A chain of layers as the transcription has it. Arrays are copied, for the training will write
    where they lie.
    """
    found = {name: np.array(array) for name, array in named_parameters(network).items()}
    layers = range(1, len(network.shapes))
    W = [_channel_first(found[f"W{n}"], network.shapes[n - 1]) for n in layers]
    b, Wb = ([found.get(f"{kind}{n}") for n in layers] for kind in ("b", "Wb"))
    edges, params = [(n - 1, n) for n in layers], Params(W, b, Wb)
    fixed = frozenset(() if recipe.train_input_bias else (0,))
    if recipe.channels:
        return ConvNet(edges, params, recipe.window[0], fixed_biases=fixed)
    sizes = [math.prod(shape) for shape in network.shapes]
    return DenseNet(edges, params, sizes, fixed_biases=fixed)


def _channel_first(weight: np.ndarray, pre: Sequence[int]) -> np.ndarray:
    """A kernel, or a matrix from a layer of this shape, with channels before rows and columns."""
    if weight.ndim == 4:
        return weight.transpose(3, 2, 0, 1)
    if len(pre) < 3:
        return weight
    order = np.arange(len(weight)).reshape(pre)
    return weight[np.moveaxis(order, -1, 0).ravel()]


def _minibatches(training: TimedTraining, n: int) -> list[tuple[np.ndarray, np.ndarray, Numbers]]:
    """Input, targets and numbers of the first minibatches of a training that has not begun."""
    recipe, state, train = training.experiment.recipe, training.state, training.experiment.train

    def fetch_minibatch(batch: int) -> tuple[np.ndarray, np.ndarray, Numbers]:
        x, y = (np.asarray(a) for a in fetch(train, training.order[batch], state.network))
        key = minibatch_key(state.seed, state.epoch, jnp.asarray(batch, jnp.int32))
        beta = float(nudge(recipe).stencil(key).betas[0])
        x = x.transpose(0, 3, 1, 2) if recipe.channels else x
        return x, y, Numbers(recipe.T, recipe.K, beta, recipe.lr)

    return [fetch_minibatch(batch) for batch in range(n)]


def _blas_threads() -> int:
    """Threads that NumPy's matrix products take when nothing keeps them from it."""
    pools = threadpoolctl.threadpool_info()
    return max((pool["num_threads"] for pool in pools if pool["user_api"] == "blas"), default=1)


def _largest(a: Net, b: Net) -> float:
    """The largest difference of a parameter."""
    groups = zip(a.params, b.params, strict=True)
    pairs = [pair for group in groups for pair in zip(*group, strict=True)]
    return max(float(np.max(np.abs(p - q))) for p, q in pairs if p is not None)
