"""The machine that a benchmark runs on: its name, its load, and its peak."""

import contextlib
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import lax

from eqprop.training.seed_processes import cores
from eqprop.types import Array, Float, Int


def timed[**P, T](work: Callable[P, T], *args: P.args, **keywords: P.kwargs) -> tuple[T, float]:
    """What a function returns, and the seconds until all of that is there."""
    start = time.perf_counter()
    result = jax.block_until_ready(work(*args, **keywords))
    return result, time.perf_counter() - start


def seconds(work: Callable[[], object]) -> float:
    """How long something takes, until all that it returns is there."""
    return timed(work)[1]


def load() -> float | None:
    """Processes that have been running, on average over the last minute, where that is known."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def cpu() -> str:
    """The model of the processor."""
    try:
        if platform.system() == "Darwin":
            sysctl = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(sysctl, capture_output=True, text=True, check=True).stdout.strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except (OSError, subprocess.SubprocessError):
        pass
    return platform.processor() or platform.machine()


def describe() -> str:
    """The device that JAX computes on, in a line."""
    device, count = jax.devices()[0], jax.device_count()
    if device.platform == "cpu":
        return f"{cpu()}, {cores()} cores"
    return f"{count} x {device.device_kind} ({device.platform}); {cpu()}, {cores()} cores"


def peak(n: int = 2048, repeats: int = 5) -> float:
    """FLOP/s of float32 matrix products of n x n on the default device, the best of several."""
    a = jax.random.normal(jax.random.key(0), (n, n)) / n**0.5  # so that products stay of size 1

    def products(a: Float[Array, "n n"], count: Int[Array, ""]) -> Float[Array, "n n"]:
        return lax.fori_loop(0, count, lambda _, b: a @ b, a)

    multiply = jax.jit(products)
    multiply(a, jnp.asarray(1)).block_until_ready()
    one = seconds(lambda: multiply(a, jnp.asarray(1)))
    # Long enough that starting the program does not count.
    count = max(1, round(0.2 / one))
    best = min(seconds(lambda: multiply(a, jnp.asarray(count))) for _ in range(repeats))
    return count * 2 * n**3 / best


@contextlib.contextmanager
def cold_compilation() -> Iterator[None]:
    """Inside, nothing that has been compiled before is taken from the cache on disk."""
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
