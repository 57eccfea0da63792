"""Benchmarks: the work that is timed is the work that was meant, and its count is right."""

import dataclasses
import functools
import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.interpreters import partial_eval

from eqprop.benchmarks import machine
from eqprop.benchmarks import operations as flops
from eqprop.benchmarks import speed as benchmark
from eqprop.benchmarks import table as benchmark_report
from eqprop.benchmarks.baseline import measure_eager
from eqprop.benchmarks.speed import TimedTraining, Timing, measure, random_images
from eqprop.cli.main import main
from eqprop.data import named as data
from eqprop.errors import DataUnavailable
from eqprop.recipes.build import build
from eqprop.recipes.catalogue import RECIPES
from eqprop.recipes.fast import fast
from eqprop.recipes.recipe import Recipe

IMAGES = random_images(32, 12, size=6)


def small(name: str = "ep-1h", **changes) -> Recipe:
    sizes = {"T": 6, "K": 3, "batch": 4, "hidden": tuple(8 for _ in RECIPES[name].hidden)}
    return dataclasses.replace(RECIPES[name], **sizes | changes)


def silent(_: str) -> None:
    pass


# ------------------------------------------------------------------------------------- the count


def count(recipe: Recipe, image: tuple[int, int] = (28, 28)) -> flops.Flops | None:
    network = jax.eval_shape(build(recipe, image, 10, 3000).init, jax.random.key(0))
    return flops.of_minibatch(recipe, network, float(recipe.T))


def test_flops_by_hand() -> None:
    """Batch 20, 784-512-10 or 784-512-512-10; two operations for each weight and example."""
    first, second, last = 2 * 20 * 784 * 512, 2 * 20 * 512 * 512, 2 * 20 * 512 * 10
    assert count(RECIPES["ep-1h"]) == (first, 30 * 2 * last, 10 * 2 * last, first + 2 * last)
    step = 2 * (second + last)
    assert count(RECIPES["ep-2h"]) == (first, 100 * step, 20 * step, first + step)
    gram, gram_step = 2 * 20 * 20 * 784, 2 * 20 * 20 * 512
    assert count(RECIPES["c-vf-2h"]) == (
        first,
        100 * step,
        20 * (step + step + gram_step),
        first + gram,
    )
    low_rank = 2 * 2 * (2 * 20 * 20 * 512 + 2 * 20 * 20 * 512)  # two terms, two directions
    assert count(RECIPES["c-ep-2h"]) == (
        first,
        100 * step,
        20 * (step + low_rank + last + gram_step),
        first + gram + 2 * second + 2 * last,
    )
    centered = dataclasses.replace(RECIPES["ep-1h"], nudge="centered")
    assert count(centered) == (first, 30 * 2 * last, 20 * 2 * last, first + 2 * last)
    # Betas at 0, 90 and 180 degrees; a complex product is four real ones.
    circle = dataclasses.replace(RECIPES["ep-1h"], nudge="holomorphic", points=4)
    products = 3 * 4
    assert count(circle) == (
        first,
        30 * 2 * last,
        10 * products * 2 * last,
        first + products * last,
    )
    assert count(RECIPES["bptt-1h"]) is None


def test_flops_of_convolutions_by_hand() -> None:
    """28x28 -> 24x24x32, pooled to 12x12 -> 8x8x64, pooled to 4x4 -> 10."""
    first = 2 * 20 * (24 * 24 * 32) * 25
    second, last = 2 * 20 * (8 * 8 * 64) * (25 * 32), 2 * 20 * 1024 * 10
    step = 2 * (second + last)
    assert count(RECIPES["ep-conv"]) == (first, 200 * step, 10 * step, first + step)


def products(jaxpr: Any) -> int:
    """Operations of the matrix products in a program; what is the same is done once."""
    total = 0
    values: dict[Any, Any] = {}  # the variable that first held the same
    done: dict[Any, Any] = {}
    for equation in jaxpr.eqns:
        operands = [str(v) if hasattr(v, "val") else values.get(v, v) for v in equation.invars]
        key = equation.primitive.name, str(equation.params), *operands
        if key in done:
            values |= zip(equation.outvars, done[key], strict=True)
            continue
        done[key] = equation.outvars
        inner = [p for p in equation.params.values() if hasattr(p, "jaxpr") or hasattr(p, "eqns")]
        found = sum(products(getattr(p, "jaxpr", p)) for p in inner)
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left, right = (v.aval.shape for v in equation.invars)
            if min(len(left), len(right)) > 1:  # with a vector it is a weighted sum
                size = math.prod(equation.outvars[0].aval.shape)
                found = 2 * size * math.prod(left[axis] for axis in contracted)
        assert not (found and equation.primitive.name == "while"), "a loop of unknown length"
        total += found * equation.params.get("length", 1)
    return total


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("ep-1h", {}),
        ("ep-3h", {"hidden": (8, 7, 9), "nudge": "centered"}),
        ("ep-2h", {"sweeps": True}),
        ("eb-2h", {}),
        ("c-ep-2h", {}),
        ("c-ep-2h", {"hidden": (64, 48), "batch": 2, "K": 9}),
        ("c-ep-2h", {"states": "bfloat16"}),  # no shortcut is exact: weights are rewritten
        ("c-vf-2h", {}),
        ("c-vf-1h", {"rule": "vf"}),
    ],
)
def test_flops_are_those_of_the_program(name: str, changes: dict) -> None:
    recipe = small(name, **changes)
    system, learner, init, *_ = build(recipe, (6, 6), 10, 8)
    network = init(jax.random.key(0))
    batch = jnp.zeros((recipe.batch, 36)), jnp.zeros((recipe.batch, 10))
    memory = learner.init(network)

    def learn(network, batch):
        return learner.learn(system, network, memory, batch, jax.random.key(0))[0]

    closed = jax.make_jaxpr(learn)(network, batch)
    # What a VJP computes and nobody uses is dropped, as XLA does.
    needed, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    work = flops.of_minibatch(recipe, network, float(recipe.T))
    assert work is not None
    assert products(needed) == work.total


# ------------------------------------------------------------------------------------ equal work


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("ep-1h", {}),
        ("ep-2h", {}),
        ("eb-1h", {}),
        ("eb-1h", {"raw_input": True, "output_slope": False, "train_input_bias": False}),
        ("c-ep-2h", {}),
        ("c-vf-2h", {"train_input_bias": True}),
        ("c-vf-2h", {"train_input_bias": False}),
        ("ep-conv", {}),
    ],
)
def test_the_baseline_learns_the_same(name: str, fields: dict[str, Any], x64: None) -> None:
    changes: dict[str, Any] = {"dtype": "float64"} | fields
    if name == "ep-conv":
        changes |= {"channels": (2, 3), "kernel": 2, "hidden": (4,), "lr": (0.1, 0.1, 0.1, 0.1)}
    images = random_images(40, 12, size=8)
    baseline = measure_eager(TimedTraining(small(name, **changes), images), 7, silent)
    assert baseline is not None
    assert baseline.compared == 7
    assert baseline.difference < 1e-12


@pytest.mark.parametrize(
    "changes", [{"optimizer": "adam"}, {"nudge": "centered"}, {"tolerance": 1.0}]
)
def test_what_the_baseline_does_not_have(changes: dict) -> None:
    recipe = small(**{"tolerance": 0.0} | changes)
    assert measure_eager(TimedTraining(recipe, IMAGES), 1, silent) is None


def test_the_fewest_minibatches_that_take_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eqprop.benchmarks.baseline._SECONDS", 0.0)
    baseline = measure_eager(TimedTraining(small(), IMAGES), None, silent)
    assert baseline is not None
    assert baseline.compared == baseline.epoch_seconds.measurements == 1
    assert baseline.difference < 1e-4  # float32


# ---------------------------------------------------------------------------------- measurements


def test_a_timing_is_the_minimum_and_the_median() -> None:
    assert Timing.of([3.0, 1.0, 2.0, 9.0], 10.0) == Timing(10.0, 25.0, 4)


def test_a_stretch_stays_within_an_epoch() -> None:
    training = TimedTraining(small(), IMAGES)
    ends = [(int(s.epoch), int(s.minibatch)) for s in (training.advance(3) for _ in range(4))]
    assert ends == [(0, 3), (0, 6), (1, 3), (1, 6)]
    assert 1 <= training.length(1e-9) <= training.length(100.0) == training.experiment.batches == 8


def test_speed() -> None:
    training = TimedTraining(fast(small()), IMAGES)
    speed = measure(training, 1000, silent)
    assert speed.minibatches == speed.batches == 8
    assert 1 <= speed.free_steps <= 6
    assert 0 < speed.epoch_seconds.minimum <= speed.epoch_seconds.median
    assert speed.compile_seconds > 0
    assert speed.test_seconds > 0


def test_the_machine() -> None:
    assert machine.peak(64, repeats=2) > 0
    assert machine.cpu()
    assert machine.describe().endswith("cores")
    before = jax.config.jax_enable_compilation_cache
    with machine.cold_compilation():
        assert not jax.config.jax_enable_compilation_cache
    assert jax.config.jax_enable_compilation_cache == before


def test_random_images_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(_: str) -> None:
        raise DataUnavailable("no mnist")

    monkeypatch.setattr(data, "load", unavailable)
    drawn = []
    monkeypatch.setattr(benchmark, "random_images", lambda *n: drawn.append(n) or IMAGES)
    assert benchmark.load_images() is IMAGES
    assert drawn == [(60_000, 10_000)]
    assert 0.15 < np.mean(random_images(50, 1).train_x > 0) < 0.25


# ----------------------------------------------------------------------------------- the command


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small recipes, a small data set, and a peak that is found quickly."""
    for recipe in (small(), small("bptt-1h")):
        monkeypatch.setitem(RECIPES, recipe.name, recipe)
    monkeypatch.setattr(benchmark_report, "load_images", lambda: IMAGES)
    monkeypatch.setattr(machine, "peak", functools.partial(machine.peak, 64))
    monkeypatch.setattr(benchmark, "_STRETCH", 0.001)


LENGTHS = ("--minibatches", "4", "--eager-minibatches", "2")


def test_bench(quick: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench.json"
    names = "ep-1h", "bptt-1h"
    assert main(["bench", *names, *LENGTHS, "--profile", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    found = json.loads(out.read_text())
    assert found["peak_flops_per_second"] > 0
    assert found["versions"]["jax"] == jax.__version__
    assert found["command"][:2] == ["eqprop", "bench"]
    assert [row["recipe"]["name"] for row in found["results"]] == list(names)
    assert "bptt-1h has no profile: rule bptt differentiates" in shown
    assert "ep-1h has no profile" not in shown
    for row in found["results"]:
        name, speed = row["recipe"]["name"], row["speed"]
        assert shown.count(name) >= 2
        assert speed["minibatches"] == 4
        assert 0 < speed["epoch_seconds"]["minimum"] <= speed["epoch_seconds"]["median"]
        assert row["changed"] == {}
        if name == "bptt-1h":
            assert row["numpy"] is row["ratio"] is row["share_of_peak"] is row["parts"] is None
            continue
        assert row["ratio"] > 0
        assert row["numpy"]["difference"] < 1e-3
        rate = row["share_of_peak"] * found["peak_flops_per_second"]
        assert rate * speed["epoch_seconds"]["minimum"] == pytest.approx(speed["epoch_flops"])
        work = sum(part["flops"] for part in row["parts"])
        assert work * speed["batches"] == pytest.approx(speed["epoch_flops"])


def test_bench_fast_on_a_terminal(
    quick: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the output for a terminal
    assert main(["bench", "ep-1h", "--fast", *LENGTHS]) == 0
    shown = capsys.readouterr().out
    assert "ep-1h, 1 of 1: compiling ..." in shown
    assert "tolerance 0.001" in shown


def test_all_recipes_of_dense_networks_by_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    monkeypatch.setattr(benchmark_report, "bench", lambda request, _: asked.append(request))
    assert main(["bench"]) == 0
    (request,) = asked
    names = [timed.name for _, timed in request.recipes]
    assert {"ep-1h", "ep-2h", "ep-3h", "eb-1h", "eb-2h", "c-ep-2h", "c-vf-1h"} <= set(names)
    assert not any("conv" in name or "bptt" in name for name in names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["ep-1"], "unknown recipe 'ep-1': did you mean ep-1h"),
        (["ep-1h", "ep-cifar10-conv"], "ep-cifar10-conv learns cifar-10"),
        (["--minibatches", "0"], "minibatches is 0: give at least 1"),
        (["--eager-minibatches", "-1"], "eager-minibatches is -1: give at least 1"),
        (["--out", "/no/such/folder/x.json"], "/no/such/folder/x.json is no place for a file"),
        (["--out", "."], "give --out another"),
        (["--minibatch", "3"], "unknown option '--minibatch': did you mean --minibatches"),
    ],
)
def test_what_cannot_be_timed(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("eqprop: ")
    assert message in line


def test_the_help_says_what_it_times(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--help"]) == 0
    assert "seconds per epoch" in capsys.readouterr().out
