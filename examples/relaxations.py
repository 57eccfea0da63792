"""How many free steps are enough: residuals, seconds, and the angle of EP's update to the gradient.

    python examples/relaxations.py EP_2H_RUN EP_CONV_RUN

For ep-2h and ep-conv, before training and as two runs left networks of the same layers: steps and
seconds until no unit of a minibatch of MNIST is moved by 1e-2, 1e-3 and 1e-4 in a synchronous step;
how many examples come to another output than by long sweeps; and the angle of EP's update after T
free steps to the gradient at the fixed point of long sweeps, by recurrent backpropagation. Means
over BATCHES minibatches. Prints Markdown and writes docs/images/relaxations.png: run it from the
root of the repository.
"""

import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt
from jax import lax

from eqprop.data.named import load
from eqprop.dynamics.anderson import Anderson, Iteration, states
from eqprop.dynamics.nudges import Centered, Nudge, OneSided
from eqprop.dynamics.relaxation import ToTolerance, iterate
from eqprop.dynamics.system import System
from eqprop.learning.baselines import RecurrentBackprop
from eqprop.learning.increments import Equilibrium
from eqprop.networks.network import Network
from eqprop.recipes.build import build
from eqprop.recipes.catalogue import RECIPES
from eqprop.recipes.fast import fast
from eqprop.recipes.recipe import Recipe
from eqprop.training.experiment import prepare
from eqprop.training.restore import load as load_checkpoint
from eqprop.training.trainer import fetch
from eqprop.types import Array, Float, Int, Layer, States, Targets

CAP, LONG, BATCHES, REPEATS = 150, 300, 1, 3
TOLERANCES = (1e-2, 1e-3, 1e-4)
FREE_STEPS = (2, 3, 4, 6, 8, 12, 16, 24, 40, 70, 100, 150)
ELSEWHERE = 1e-2
IMAGES = (28, 28), 10

type Batch = tuple[Layer, Targets]

KINDS = {"steps": (False, False), "sweeps": (True, False)}
KINDS |= {"Anderson on steps": (False, True), "Anderson on sweeps": (True, True)}


class Measured(NamedTuple):
    """What was found for one network."""

    residuals: dict[str, np.ndarray]
    """By relaxation: minibatches x steps x examples."""
    seconds: dict[str, float]
    """Of one step."""
    elsewhere: dict[str, float]
    """Examples in % whose output is not that of long sweeps."""
    angles: dict[str, list[float]]
    """By phases and nudge: degrees to the gradient, after each of FREE_STEPS."""


@eqx.filter_jit
def course(
    system: System, network: Network, x: Layer, *, mixed: bool
) -> tuple[Float[Array, "T B"], States]:
    """Residual of a synchronous step after each of CAP steps, and the last states."""
    clamped = system.clamp(network, x)
    step, s0 = system.free_step(clamped, x), clamped.zeros(x.shape[0])
    synchronous = dataclasses.replace(system, sweeps=False).free_step(clamped, x)
    relaxation = Anderson(CAP, TOLERANCES[-1])

    def residual(s: States) -> Float[Array, " B"]:
        changes = [
            jnp.max(jnp.abs(a - b).reshape(x.shape[0], -1), axis=1)
            for a, b in zip(synchronous(s), s, strict=True)
        ]
        return jnp.max(jnp.stack(changes), axis=0)

    def accelerated(now: Iteration, _: None) -> tuple[Iteration, Float[Array, " B"]]:
        now = relaxation.advance(step, s0, now)
        return now, residual(states(now.kept, s0))

    def plain(s: States, _: None) -> tuple[States, Float[Array, " B"]]:
        s = step(s)
        return s, residual(s)

    if mixed:
        last, residuals = lax.scan(accelerated, relaxation.start(s0), length=CAP)
        return residuals, states(last.kept, s0)
    last, residuals = lax.scan(plain, s0, length=CAP)
    return residuals, last


@eqx.filter_jit
def steps_taken(system: System, network: Network, x: Layer) -> Int[Array, ""]:
    """How many steps a free phase takes."""
    return system.free(system.clamp(network, x), x)[1].steps


@eqx.filter_jit
def settled(system: System, network: Network, x: Layer) -> States:
    """Where a free phase ends."""
    return system.free(system.clamp(network, x), x)[0]


@eqx.filter_jit
def gradient(system: System, network: Network, x: Layer, y: Targets) -> Array:
    """Minus the gradient at the fixed point, as a row."""
    return row(RecurrentBackprop().update(system, network, x, y, jax.random.key(0))[0])


@eqx.filter_jit
def update(system: System, nudge: Nudge, network: Network, batch: Batch, steps: Array) -> Array:
    """EP's update after so many free steps, but for a positive factor, as a row."""
    x, y = batch
    clamped = system.clamp(network, x)
    free = iterate(system.free_step(clamped, x), clamped.zeros(x.shape[0]), steps)
    stencil = nudge.stencil(jax.random.key(0))
    return row(Equilibrium().total(system, network, x, y, free, stencil))


def row(network: Network) -> Array:
    """All parameters of a network."""
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(network)])


def degrees(a: Array, b: Array) -> float:
    """The angle between two rows."""
    cosine = a @ b / (jnp.linalg.norm(a) * jnp.linalg.norm(b))
    return float(jnp.degrees(jnp.arccos(jnp.clip(cosine, -1, 1))))


def seconds_per_step(systems: dict[str, System], network: Network, x: Layer) -> dict[str, float]:
    """Least of several free phases of each system, taken in turn, as other programs run too."""
    least = dict.fromkeys(systems, float("inf"))
    for turn in range(REPEATS + 1):
        for name, system in systems.items():
            begun = time.perf_counter()
            taken = int(steps_taken(system, network, x))
            if turn:  # the first one compiles
                least[name] = min(least[name], (time.perf_counter() - begun) / taken)
    return least


def measure(recipe: Recipe, network: Network, batches: Sequence[Batch]) -> Measured:
    """Everything on one network."""
    published = build(recipe, *IMAGES, 1).system
    short = build(fast(recipe), *IMAGES, 1).system
    systems = {
        name: dataclasses.replace(
            published,
            sweeps=sweeps,
            relaxation=(Anderson if mixed else ToTolerance)(CAP, TOLERANCES[-1]),
        )
        for name, (sweeps, mixed) in KINDS.items()
    }
    exact = dataclasses.replace(published, sweeps=True, relaxation=ToTolerance(LONG, 1e-6))
    ends = [settled(exact, network, x)[-1] for x, _ in batches]
    residuals, elsewhere = {}, {}
    for name, (_, mixed) in KINDS.items():
        found = [course(systems[name], network, x, mixed=mixed) for x, _ in batches]
        residuals[name] = np.array([np.asarray(r) for r, _ in found])
        off = [jnp.max(jnp.abs(s[-1] - e), axis=1) for (_, s), e in zip(found, ends, strict=True)]
        elsewhere[name] = 100 * float(jnp.mean(jnp.concatenate(off) > ELSEWHERE))
    phases = {
        f"{way}, {nudge}": (system, kind(recipe.beta))
        for way, system in (("steps", published), ("sweeps", short))
        for nudge, kind in (("one-sided", OneSided), ("centered", Centered))
    }
    gradients = [gradient(exact, network, *batch) for batch in batches]
    angles = {
        name: [
            float(
                np.mean(
                    [
                        degrees(update(*phase, network, batch, jnp.asarray(steps)), g)
                        for batch, g in zip(batches, gradients, strict=True)
                    ]
                )
            )
            for steps in FREE_STEPS
        ]
        for name, phase in phases.items()
    }
    seconds = seconds_per_step(systems, network, batches[0][0])
    return Measured(residuals, seconds, elsewhere, angles)


def table(found: dict[str, Measured]) -> str:
    """Markdown: steps and seconds of the slowest example of a minibatch, by tolerance."""
    head = [*(f"steps to {t:g}" for t in TOLERANCES), *(f"ms to {t:g}" for t in TOLERANCES)]
    lines = [
        f"| network | relaxation | {' | '.join(head)} | settled % | elsewhere % |",
        "| --- " * (len(head) + 4) + "|",
    ]
    for network, measured in found.items():
        for name, curves in measured.residuals.items():
            below = [curves.max(axis=2) < t for t in TOLERANCES]  # minibatches x steps
            reached = [bool(b.any(axis=1).all()) for b in below]
            steps = [float(np.mean(b.argmax(axis=1) + 1)) for b in below]
            counts = [f"{n:.0f}" if ok else "-" for n, ok in zip(steps, reached, strict=True)]
            times = [1e3 * n * measured.seconds[name] for n in steps]
            ms = [f"{t:.2g}" if ok else "-" for t, ok in zip(times, reached, strict=True)]
            share = 100 * np.mean(curves[:, -1] < TOLERANCES[0])
            cells = [network, name, *counts, *ms, f"{share:.0f}", f"{measured.elsewhere[name]:.0f}"]
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"| network | phases | {' | '.join(f'T {n}' for n in FREE_STEPS)} |"]
    lines += ["| --- " * (len(FREE_STEPS) + 2) + "|"]
    for network, measured in found.items():
        for name, angles in measured.angles.items():
            lines.append(f"| {network} | {name} | {' | '.join(f'{a:.1f}' for a in angles)} |")
    return "\n".join(lines)


def figure(found: dict[str, Measured], path: Path) -> None:
    """Residuals above, angles below; a column for each network."""
    plot, axes = plt.subplots(2, len(found), figsize=(3.4 * len(found), 6), layout="constrained")
    for (above, below), (network, measured) in zip(axes.T, found.items(), strict=True):
        for n, (name, curves) in enumerate(measured.residuals.items()):
            steps = np.arange(1, CAP + 1)
            above.loglog(steps, curves.max(axis=2).mean(axis=0), f"C{n}", label=name)
            above.loglog(steps, np.median(curves, axis=(0, 2)), f"C{n}:", lw=1)
        above.set(title=network, xlabel="free steps", ylim=(1e-6, 2))
        for n, (name, angles) in enumerate(measured.angles.items()):
            below.semilogx(FREE_STEPS, angles, f"C{n}.-", label=name)
        below.set(xlabel="free steps T", ylim=(0, 90))
    axes[0, 0].set_ylabel("residual (dotted: the median)")
    axes[1, 0].set_ylabel("angle to the gradient (degrees)")
    for axis in axes[:, 0]:
        axis.legend(fontsize=7)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    plot.savefig(path, dpi=90)


def main() -> None:
    """Print the tables, and draw."""
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    data = load("mnist")
    found = {}
    for name, run in zip(("ep-2h", "ep-conv"), sys.argv[1:], strict=True):
        experiment = prepare(RECIPES[name], data)
        network = experiment.start(0).network
        restored = load_checkpoint(experiment, Path(run) / "checkpoints", 0)
        if restored is None:
            raise SystemExit(f"{run} holds no checkpoint")
        batches = [
            fetch(experiment.test, jnp.arange(n, n + experiment.trainer.batch), network)
            for n in range(0, BATCHES * experiment.trainer.batch, experiment.trainer.batch)
        ]
        for when, parameters in (("before", network), ("trained", restored.state.network)):
            begun = time.perf_counter()
            found[f"{name}, {when}"] = measure(RECIPES[name], parameters, batches)
            print(f"{name}, {when}: {time.perf_counter() - begun:.0f} s", file=sys.stderr)
    print(table(found))
    figure(found, Path("docs") / "images" / "relaxations.png")


if __name__ == "__main__":
    main()
