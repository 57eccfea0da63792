"""The bias of every nudge against the true gradient, over beta and over the number of points.

The network of ep-1h before training, nudged inside its activation, a minibatch of 20, in double
precision. The true gradient is recurrent backpropagation at the fixed point; the nudged phases are
run until they have settled, too. Run it from the root of the repository; it writes
docs/images/bias-of-nudges.png and prints the table of docs/tried.md.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.flatten_util import ravel_pytree

import eqprop as ep

OUT = Path("docs/images/bias-of-nudges.png")
BETAS = tuple(float(f"{10**e:.3g}") for e in np.arange(-3, 0.01, 0.25))
POINTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20)
RADII = (0.05, 0.1, 0.2, 0.5, 1.0)
SETTLE = 150  # free steps, and nudged ones


def problem() -> tuple[ep.System, ep.Network, jax.Array, jax.Array]:
    """The system, the network, and the batch with which a training of seed 0 could begin."""
    recipe = dataclasses.replace(ep.recipe("ep-1h"), inside=True, T=SETTLE, K=SETTLE)
    dataset = ep.load("mnist", fallback=True)
    built = ep.build(recipe, dataset.train_x.shape[1:], dataset.classes, 1)
    network = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), built.init(jax.random.key(0)))
    rows = np.random.default_rng(0).choice(len(dataset.train_x), recipe.batch, replace=False)
    x = jnp.asarray(dataset.train_x[rows].reshape(len(rows), -1) / 255)
    y = jax.nn.one_hot(dataset.train_y[rows], dataset.classes, dtype=jnp.float64)
    return built.system, network, x, y


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    system, network, x, y = problem()
    key = jax.random.key(0)

    def updater(nudge: Callable[[jax.Array], ep.Nudge]) -> Callable[[jax.Array], jax.Array]:
        def update(beta: jax.Array) -> jax.Array:
            rule = ep.AfterPhase(ep.Equilibrium(), nudge(beta))
            return ravel_pytree(rule.update(system, network, x, y, key)[0])[0]

        return jax.jit(update)

    rbp = ep.RecurrentBackprop(tolerance=1e-13)
    update, free = jax.jit(lambda: rbp.update(system, network, x, y, key))()
    truth = ravel_pytree(update)[0]
    assert free.settled.residual < 1e-13

    def bias(update: Callable[[jax.Array], jax.Array], beta: float) -> float:
        return float(jnp.linalg.norm(update(jnp.asarray(beta)) - truth) / jnp.linalg.norm(truth))

    def circle(n: int) -> Callable[[jax.Array], ep.Nudge]:
        return ep.OneSided if n == 1 else lambda beta: ep.Holomorphic(beta, n)

    updates = {n: updater(circle(n)) for n in POINTS}
    negative = updater(lambda beta: ep.OneSided(-beta))
    lines = {
        "one-sided, $+\\beta$": [bias(updates[1], b) for b in BETAS],
        "one-sided, $-\\beta$": [bias(negative, b) for b in BETAS],
        "centered": [bias(updater(ep.Centered), b) for b in BETAS],
        **{f"holomorphic, N = {n}": [bias(updates[n], b) for b in BETAS] for n in (4, 8, 16)},
    }
    table = {n: [bias(updates[n], r) for r in RADII] for n in POINTS}

    print("| N | " + " | ".join(f"beta {r:g}" for r in RADII) + " |")
    print("|---" * (1 + len(RADII)) + "|")
    for n, row in table.items():
        print(f"| {n} | " + " | ".join(f"{value:.1e}" for value in row) + " |")
    draw(lines, table)


def draw(lines: dict[str, list[float]], table: dict[int, list[float]]) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", sharey=True)
    for label, values in lines.items():
        left.loglog(BETAS, values, marker=".", label=label)
    left.set(xlabel=r"$\beta$ (radius of the circle)", ylabel="relative error of the gradient")
    for index, radius in enumerate(RADII):
        values = [row[index] for row in table.values()]
        right.semilogy(POINTS, values, marker=".", label=rf"$\beta$ = {radius:g}")
    right.set(xlabel="number N of points (1: one-sided, 2: centered)", xticks=range(0, 21, 4))
    right.set(ylim=(1e-14, 1e5))  # room for the legends
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc="upper left", ncols=2)
    figure.savefig(OUT, dpi=110)


if __name__ == "__main__":
    main()
