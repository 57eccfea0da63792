"""The baseline of a benchmark: the eager transcription learns the same minibatches."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, final

import jax.numpy as jnp
import numpy as np
import threadpoolctl

from eqprop.benchmarks import conv_transcription as eager_conv
from eqprop.benchmarks import transcription as eager
from eqprop.benchmarks.speed import Tell, Timing, Training
from eqprop.networks.edges import Untied
from eqprop.networks.network import Network
from eqprop.recipes.build import nudge
from eqprop.recipes.recipe import Recipe
from eqprop.training.trainer import fetch, minibatch_key

_SECONDS, _MOST = 2.0, 30  # minibatches, unless their number is given


@final
@dataclasses.dataclass(frozen=True)
class Baseline:
    """How long the eager transcription takes."""

    epoch_seconds: Timing
    """Extrapolated, with the number of threads that is faster."""
    threads: int
    by_threads: dict[int, Timing]
    """The same for each number of threads that was tried."""
    compared: int
    """Minibatches after which its weights and the library's were compared."""
    difference: float
    """Their largest difference then, relative to the largest change of a weight since the start."""


def measure_eager(training: Training, minibatches: int | None, tell: Tell) -> Baseline | None:
    """How long the eager transcription takes for the first so many minibatches of a training, or
    for as many as take 2 s. None where there is no transcription of the recipe.

    Restarts the training, and learns the same minibatches with it.
    """
    recipe, batches = training.job.recipe, training.job.batches
    if not _transcribed(recipe):
        return None
    training.restart()
    twin = _twin(recipe)
    start = twin.copy(training.state.network)
    queue = _minibatches(training, min(minibatches or _MOST, batches))
    net, times = start, {}
    for threads in dict.fromkeys((1, _blas_threads())):
        net, took = start, []
        for n, (x, y, numbers) in enumerate(queue, 1):
            tell(f"NumPy with {threads} thread(s), minibatch {n}")
            with threadpoolctl.threadpool_limits(threads, user_api="blas"):
                begun = time.perf_counter()
                net = twin.learn(net, x, y, numbers)
                took.append(time.perf_counter() - begun)
            if minibatches is None and sum(took) > _SECONDS:
                queue = queue[:n]
                break
        times[threads] = Timing.of(took, float(batches))
    threads = min(times, key=lambda threads: times[threads].minimum)
    ours = twin.copy(training.advance(len(queue)).network)
    difference = _largest(twin, ours, net) / _largest(twin, start, net)
    return Baseline(times[threads], threads, times, len(queue), difference)


class _Twin(NamedTuple):
    """The transcription of a recipe."""

    copy: Callable[[Network], Any]
    """The library's network, as the transcription has it."""
    learn: Callable[[Any, np.ndarray, np.ndarray, eager.Numbers], Any]
    arrays: Callable[[Any], Sequence[np.ndarray]]
    """All parameters of a transcribed network."""


def _transcribed(recipe: Recipe) -> bool:
    plain = recipe.optimizer == "sgd" and recipe.schedule == "constant" and not recipe.weight_decay
    plain = plain and recipe.activation in eager.ACTIVATIONS
    plain = plain and not (recipe.skips or recipe.lateral or recipe.mean or recipe.flip)
    plain = plain and recipe.states == "full"
    synchronous = not recipe.sweeps and not recipe.nudged_sweeps
    one_sided = recipe.nudge in {"one-sided", "random-sign"}
    steps = synchronous and not recipe.tolerance and one_sided and recipe.cost == "squared-error"
    if recipe.channels:
        tied_max = recipe.rule == "ep" and recipe.pool == "max" and not any(recipe.padding)
        tied_max = tied_max and len(set(recipe.window)) == 1
        return plain and steps and tied_max and recipe.setting == "prototypical"
    return plain and steps and recipe.rule in eager.RULES


def _twin(recipe: Recipe) -> _Twin:
    dynamics = eager.Dynamics(
        recipe.setting,
        recipe.activation,
        "inside" if recipe.inside else "outside",
        dt=recipe.dt,
        clip=recipe.clip,
    )
    if recipe.channels:
        return _Twin(
            lambda network: copy_conv(network, recipe.window[0]),
            lambda net, x, y, numbers: eager_conv.conv_minibatch(
                net, dynamics, x.transpose(0, 3, 1, 2), y, numbers
            ),
            lambda net: [*net.W, *net.b],
        )
    return _Twin(
        copy_dense,
        lambda net, x, y, numbers: eager.minibatch(recipe.rule, net, dynamics, x, y, numbers),
        lambda net: [array for group in net.params for array in group if array is not None],
    )


def copy_dense(network: Network) -> eager.Net:
    """A dense network, as eager.py has it."""
    edges: list[Any] = list(network.edges)
    untied = [isinstance(edge, Untied) for edge in edges]
    ahead = [e.ahead if u else e.connection for e, u in zip(edges, untied, strict=True)]
    back = [e.back.weight if u else None for e, u in zip(edges, untied, strict=True)]

    # Copied, for the training will write where these lie.
    def copies(arrays: Iterable[Any]) -> list[Any]:
        return [None if a is None else np.array(a) for a in arrays]

    return eager.make_net(
        [math.prod(shape) for shape in network.shapes],
        copies(c.weight for c in ahead),
        copies(c.bias for c in ahead),
        copies(back),
        [(edge.pre, edge.post) for edge in edges],
    )


def copy_conv(network: Network, window: int) -> eager_conv.ConvNet:
    """A tied chain of convolutional, then dense layers, as eager_conv.py has it: channel first."""
    edges: list[Any] = list(network.edges)

    def weight(edge: Any) -> np.ndarray:
        w = np.array(edge.connection.weight)
        if w.ndim == 4:
            return w.transpose(3, 2, 0, 1)
        pre = network.shapes[edge.pre]
        order = np.arange(len(w)).reshape(pre)
        return w[np.moveaxis(order, -1, 0).ravel()]

    biases = [np.array(edge.connection.bias) for edge in edges]
    return eager_conv.ConvNet([weight(edge) for edge in edges], biases, window)


def _minibatches(training: Training, n: int) -> list[tuple[np.ndarray, np.ndarray, eager.Numbers]]:
    """Input, targets and numbers of the first minibatches of a training that has not begun."""
    recipe, state, train = training.job.recipe, training.state, training.job.train

    def minibatch(batch: int) -> tuple[np.ndarray, np.ndarray, eager.Numbers]:
        x, y = (np.asarray(a) for a in fetch(train, training.order[batch], state.network))
        key = minibatch_key(state.seed, state.epoch, jnp.asarray(batch, jnp.int32))
        beta = float(nudge(recipe).stencil(key).betas[0])
        return x, y, eager.Numbers(recipe.T, recipe.K, beta, recipe.lr)

    return [minibatch(batch) for batch in range(n)]


def _blas_threads() -> int:
    """Threads that NumPy's matrix products take when nothing keeps them from it."""
    pools = threadpoolctl.threadpool_info()
    return max((pool["num_threads"] for pool in pools if pool["user_api"] == "blas"), default=1)


def _largest(twin: _Twin, a: Any, b: Any) -> float:
    """The largest difference of a parameter."""
    pairs = zip(twin.arrays(a), twin.arrays(b), strict=True)
    return max(float(np.max(np.abs(p - q))) for p, q in pairs)
