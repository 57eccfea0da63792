"""Memory and compilations stay as they are, however long a training is. Oracle: XLA's own account
of a program's memory, the operating system's of the process, and the table in docs/performance.md.
"""

import gc
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqprop.recipes.build import build
from eqprop.recipes.catalogue import recipe
from eqprop.training.divergence import copy, whole
from eqprop.training.trainer import Examples, Trainer

DOCS = Path(__file__).parents[2] / "docs" / "performance.md"
IMAGE, CLASSES, N = (4, 3), 5, 40


def setup(image=IMAGE, **changes):
    """A trainer, its state as shapes, examples, and what draws a network."""
    fields = {"hidden": (7,), "T": 4, "K": 2, "batch": 4} | changes
    chosen = replace(recipe("ep-1h"), **fields)
    built = build(chosen, image, CLASSES, N // chosen.batch)
    trainer = Trainer(built.system, built.learner, chosen.batch)
    like = jax.eval_shape(lambda: trainer.start(built.init, 0))
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(N, *image), dtype=np.uint8)
    labels = rng.integers(CLASSES, size=N, dtype=np.uint8)
    return trainer, like, Examples.put(images, labels, like.network), built.init


def training_memory(trainer, like, examples, _):
    """What XLA says of the program that learns a stretch."""
    order = jax.ShapeDtypeStruct((N // trainer.batch, trainer.batch), jnp.int32)
    stop = jax.ShapeDtypeStruct((), jnp.int32)
    found = trainer._advance.lower(like, examples, order, stop).compile().memory_analysis()
    assert found is not None
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rule": "c-ep"},
        {"rule": "c-vf", "angle": 0.0, "nudge": "random-sign"},
        pytest.param({"rule": "vf", "angle": 0.0}, marks=pytest.mark.slow),
        pytest.param({"setting": "energy", "nudge": "centered"}, marks=pytest.mark.slow),
        pytest.param(
            {"image": (8, 8), "channels": (2,), "hidden": (), "kernel": 3}, marks=pytest.mark.slow
        ),
    ],
)
@pytest.mark.usefixtures("quick_compilation")
def test_phases_of_any_length_take_the_same_memory(changes) -> None:
    few, many = (
        training_memory(*setup(**changes, T=t, K=k)).temp_size_in_bytes
        for t, k in ((10, 5), (1000, 500))
    )
    assert many == few > 0


@pytest.mark.usefixtures("quick_compilation")
def test_evaluations_of_any_length_take_the_same_memory() -> None:
    def memory(steps: int, times: int) -> int:
        trainer, like, examples, _ = setup(T=steps)
        many = jax.tree.map(lambda part: jnp.concatenate([part] * times), examples)
        found = trainer._test.lower(like.network, many, 10).compile().memory_analysis()
        assert found is not None
        return found.temp_size_in_bytes

    assert memory(10, 1) == memory(1000, 1)
    # Two numbers for each block of 10 rows, and the rows' own.
    assert memory(10, 100) - memory(10, 1) < 100 * N * 12


def resident() -> int:
    """Bytes of memory of this process."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.usefixtures("quick_compilation")
def test_nothing_grows_over_a_thousand_stretches() -> None:
    trainer, _, examples, init = setup(optimizer="adam", nudge="random-sign")
    state = trainer.start(init, 0)

    def live() -> tuple[int, int]:
        gc.collect()
        arrays = jax.live_arrays()
        return len(arrays), sum(a.nbytes for a in arrays)

    def stretches(state, number: int):
        """As a session cuts an epoch: a copy, a few minibatches, a look, a test at the end."""
        order = trainer.order(state, examples)
        for n in range(number):
            if state.position[1] == N // 4:
                trainer.evaluate(state.network, examples)
                state = trainer.next_epoch(state)
                order = trainer.order(state, examples)
            good = copy(state)
            state = trainer.advance(
                state, examples, order, min(N // 4, state.position[1] + 1 + n % 3)
            )
            assert whole(good)
        return state

    state = stretches(state, 100)
    before, arrays = resident(), live()
    state = stretches(state, 1000)
    assert live() == arrays
    assert resident() - before < 2**21
    for program in (trainer._advance, trainer._test, trainer._order):
        assert program._cache_size() == 1


def documented() -> dict[str, tuple[float, float]]:
    """From the table: bytes per weight in the state, and in all, by optimizer or rule."""
    rows = re.findall(r"^\| ([^|]+) \| (\d+) \| (\d+) \|$", DOCS.read_text(), re.MULTILINE)
    return {name.strip(): (float(state), float(total)) for name, state, total in rows}


@pytest.mark.parametrize(
    ("row", "changes"),
    [
        ("sgd", {}),
        ("adam", {"optimizer": "adam"}),
        ("continual", {"rule": "c-ep", "lr": (0.01, 0.01)}),
        pytest.param("momentum", {"optimizer": "momentum"}, marks=pytest.mark.slow),
    ],
)
def test_the_documented_bytes_per_weight_are_those_that_xla_takes(row, changes) -> None:
    in_state, total = documented()[row]
    trainer, like, *rest = setup(image=(28, 28), hidden=(512,), batch=20, **changes)
    weights = sum(leaf.size for leaf in jax.tree.leaves(like.network))
    units = 20 * sum(int(np.prod(shape)) for shape in like.network.shapes)
    found = training_memory(trainer, like, *rest)
    assert found.alias_size_in_bytes == pytest.approx(in_state * weights, rel=0.001)
    # The session keeps a copy of the state, until the stretch has proved good.
    taken = 2 * found.alias_size_in_bytes + found.temp_size_in_bytes - 4 * units
    assert taken == pytest.approx(total * weights, rel=0.05)


_COUNT = """
import collections, os, sys
from eqprop.cli import main as cli
cli._prepare_process()
import jax
counts = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: counts.update([event]))
code = {}
print("hits", counts["/jax/compilation_cache/cache_hits"], file=sys.stderr)
print("misses", counts["/jax/compilation_cache/cache_misses"], file=sys.stderr)
sys.exit(code)
"""
_PROGRAM = "int(jax.jit(lambda x: jax.lax.fori_loop(0, 9, lambda _, y: 2 * y, x))(0))"
_TRAINING = (
    """cli.main(["train", "ep-1h", "--dataset", "digits", "--hidden", "4", "--epochs", "1"])"""
)


@pytest.mark.parametrize(
    "code", [_PROGRAM, pytest.param(_TRAINING, marks=pytest.mark.slow)], ids=["program", "training"]
)
def test_the_second_process_compiles_nothing(code, tmp_path) -> None:
    """In the folder that the command chooses; and compiles again where the cache is turned off."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment = kept | {
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    def start(name: str, **variables: str) -> dict[str, int]:
        (tmp_path / name).mkdir()
        done = subprocess.run(
            [sys.executable, "-c", _COUNT.replace("{}", code)],
            capture_output=True,
            text=True,
            env=environment | variables,
            cwd=tmp_path / name,
            check=True,
        )
        words = dict(line.split() for line in done.stderr.splitlines())
        return {name: int(count) for name, count in words.items()}

    first, second = start("first"), start("second")
    assert first["misses"] > 0
    assert second["misses"] == 0
    assert second["hits"] >= first["misses"]
    off = start("third", JAX_ENABLE_COMPILATION_CACHE="false")
    assert off == {"hits": 0, "misses": 0}
