"""Shared fixtures. Nothing of `eqprop` is imported here: jaxtyping's import hook comes later."""

import os

# Two test processes on two cores: one thread each, or they wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("NPROC", "1")  # the size of XLA's thread pool
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jax
import pytest

# Compilation makes the first example slow, so time limits per example would be noise.
hypothesis.settings.register_profile(
    "eqprop", deadline=None, derandomize=bool(os.environ.get("CI"))
)
hypothesis.settings.load_profile("eqprop")


@pytest.fixture
def x64() -> Iterator[None]:
    """Double precision within one test; everywhere else JAX's default, single, holds."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module", autouse=True)
def _programs_are_dropped() -> Iterator[None]:
    """A compiled program takes several mappings of memory; where a process has more than Linux
    allows it, 65,530 by default, XLA crashes.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()


@pytest.fixture(scope="module")
def quick_compilation() -> Iterator[None]:
    """For modules whose programs are each compiled once and run for milliseconds."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
