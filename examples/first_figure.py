"""Draws docs/images/first.png: a training, and Theorem 1.

eqprop verify fig-eb-1h --out runs/verify-fig-eb-1h
python examples/first_figure.py docs/records/ep-1h runs/verify-fig-eb-1h docs/images/first.png
"""

import json
import sys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eqprop.recipes.catalogue import RECIPES
from eqprop.theorem.figure import draw_tensor, sample

_BLUE, _ORANGE = "#2563a8", "#d97a1e"


def main(trained: Path, verified: Path, out: Path) -> None:
    """From the records of some seeds of ep-1h, and the directory of a verification."""
    figure = Figure(figsize=(10.4, 3.5), layout="constrained")
    training, states, weights, order = figure.subplots(1, 4, width_ratios=(1.25, 1, 1, 1))
    _training(training, trained)
    numbers = json.loads((verified / "verification.json").read_text(encoding="utf-8"))
    with np.load(verified / "curves.npz") as curves:
        for axes, name, what, power in (
            (states, "s1", "of hidden units", -2),
            (weights, "W1", "of weights", -4),
        ):
            pair = tuple(curves[f"{side}_{name}"] / 10.0**power for side in ("D", "reference"))
            shown = sample(*pair, 5, np.random.default_rng(3)) if name == "s1" else pair
            draw_tensor(axes, *shown)
            axes.set_title(f"D(t) {what} ($\\times 10^{{{power}}}$)", loc="left", fontsize=9)
            axes.set_xlabel("step t")
    lines = [
        *states.plot([], [], color="black", alpha=0.35, lw=3, label="BPTT, $-\\nabla(t)$"),
        *states.plot([], [], color="black", ls="--", lw=1.2, label="EP, $D(t)$"),
    ]
    states.legend(handles=lines, fontsize=8, frameon=False)
    trials = numbers["beta_trials"]
    beta = [trial["beta"] for trial in trials]
    error = [trial["together"]["relmse"] for trial in trials]
    order.loglog(beta, error, "o-", color=_BLUE, ms=5)
    order.set_xlabel("beta")
    order.set_title("RelMSE of all parameters", loc="left", fontsize=9)
    for axes in (training, order):
        axes.grid(alpha=0.25)
    for axes in (training, states, weights, order):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    figure.savefig(out, dpi=160)


def _training(axes: Axes, trained: Path) -> None:
    columns: dict[str, list[list[float]]] = {"test_error": [], "train_error": []}
    for path in sorted(trained.glob("seed-*/metrics.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for name, seeds in columns.items():
            seeds.append([row[name] for row in rows])
    published = RECIPES["ep-1h"].published
    assert published is not None
    assert published.std is not None
    low, high = published.test - published.std, published.test + published.std
    axes.axhspan(low, high, color=_BLUE, alpha=0.15, lw=0, label="published test error")
    for (name, seeds), color in zip(columns.items(), (_BLUE, _ORANGE), strict=True):
        epochs = np.arange(1, len(seeds[0]) + 1)
        for seed in seeds:
            axes.plot(epochs, seed, color=color, lw=0.6, alpha=0.5)
        words = {"test_error": "test", "train_error": "training"}[name]
        axes.plot(epochs, np.mean(seeds, axis=0), color=color, lw=1.8, label=words)
    axes.set_yscale("log")
    axes.set_yticks([0.2, 0.5, 1, 2, 5, 10], ["0.2", "0.5", "1", "2", "5", "10"])
    axes.minorticks_off()
    axes.set_xlabel("epoch")
    axes.set_title(
        f"EP on MNIST: error (%), {len(columns['test_error'])} seeds", loc="left", fontsize=9
    )
    axes.legend(fontsize=8, frameon=False)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
