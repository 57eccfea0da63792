"""The baseline of a benchmark: the eager transcription learns the same minibatches."""

import dataclasses
import math
import time
from collections.abc import Iterable
from typing import Any, NamedTuple, final

import jax.numpy as jnp
import numpy as np
import threadpoolctl

from eqprop import eager
from eqprop.benchmark import Tell, Timing, Training
from eqprop.network import Network, Untied
from eqprop.nudging import RandomSign
from eqprop.recipes import Recipe
from eqprop.training import fetch, minibatch_key

_SECONDS, _LEAST, _MOST = 2.0, 3, 30  # minibatches, unless their number is given


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


class _Minibatch(NamedTuple):
    x: np.ndarray
    y: np.ndarray
    numbers: eager.Numbers


def measure_eager(training: Training, minibatches: int | None, tell: Tell) -> Baseline | None:
    """How long the eager transcription takes for the first so many minibatches of a training, or
    for as many as take 2 s. None where it has no transcription of the recipe.

    Restarts the training, and learns the same minibatches with it.
    """
    recipe, batches = training.job.recipe, training.job.batches
    if not _transcribed(recipe):
        return None
    training.restart()
    start, dynamics = twin(training.state.network), twin_dynamics(recipe)
    queue = _minibatches(training, min(minibatches or _MOST, batches))
    times: dict[int, list[float]] = {}
    net = start
    for threads in dict.fromkeys((1, _blas_threads())):
        net, took = start, []
        for n, minibatch in enumerate(queue, 1):
            tell(f"the eager transcription, {threads} thread(s), minibatch {n}")
            with threadpoolctl.threadpool_limits(threads, user_api="blas"):
                begun = time.perf_counter()
                net = eager.minibatch(
                    recipe.rule, net, dynamics, minibatch.x, minibatch.y, minibatch.numbers
                )
                took.append(time.perf_counter() - begun)
            if minibatches is None and n >= _LEAST and sum(took) > _SECONDS:
                queue = queue[:n]  # with other numbers of threads the same
                break
        times[threads] = took
    by_threads = {threads: Timing.of(took, batches) for threads, took in times.items()}
    threads = min(by_threads, key=lambda threads: by_threads[threads].minimum)
    ours = twin(training.advance(len(queue)).network)
    difference = _largest(ours, net) / _largest(start, net)
    return Baseline(by_threads[threads], threads, by_threads, len(queue), difference)


def _transcribed(recipe: Recipe) -> bool:
    return (
        recipe.optimizer == "sgd"
        and recipe.weight_decay == 0
        and recipe.schedule == "constant"
        and recipe.nudge != "centered"
        and not recipe.sweeps
        and not recipe.tolerance
    )


def twin(network: Network) -> eager.Net:
    """A dense network, as the transcription has it."""
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


def twin_dynamics(recipe: Recipe) -> eager.Dynamics:
    """The step of a recipe, as the transcription has it."""
    nudge = "inside" if recipe.inside else "outside"
    return eager.Dynamics(recipe.setting, recipe.activation, nudge, dt=recipe.dt, clip=recipe.clip)


def _minibatches(training: Training, n: int) -> list[_Minibatch]:
    """The first minibatches of a training that has not begun."""
    recipe, state, train = training.job.recipe, training.state, training.job.train

    def beta(batch: int) -> float:
        if recipe.nudge != "random-sign":
            return recipe.beta
        key = minibatch_key(state.seed, state.epoch, jnp.asarray(batch, jnp.int32))
        return float(RandomSign(recipe.beta, recipe.positive).stencil(key).betas[0])

    def minibatch(batch: int) -> _Minibatch:
        x, y = (np.asarray(a) for a in fetch(train, training.order[batch], state.network))
        numbers = eager.Numbers(recipe.T, recipe.K, beta(batch), recipe.lr)
        return _Minibatch(x.reshape(len(x), -1), y, numbers)

    return [minibatch(batch) for batch in range(n)]


def _blas_threads() -> int:
    """Threads that NumPy's matrix products take when nothing keeps them from it."""
    pools = threadpoolctl.threadpool_info()
    return max((pool["num_threads"] for pool in pools if pool["user_api"] == "blas"), default=1)


def _largest(a: eager.Net, b: eager.Net) -> float:
    """The largest difference of a parameter."""
    gaps = eager.combine(lambda _, p, q: np.max(np.abs(p - q)), a.params, b.params)
    return max(float(gap) for group in gaps for gap in group if gap is not None)
