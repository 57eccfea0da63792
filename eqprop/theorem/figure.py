"""The figure of a verification: files in, figures out. Nothing is computed here."""

import json
import textwrap
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eqprop.errors import EqpropError
from eqprop.theorem.questions import bias_order
from eqprop.training.figures import new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

NUMBERS, CURVES, VERIFICATION = "verification.json", "curves.npz", "verification.png"
"""What a verification leaves in its directory, and the figure of it."""

_TITLES = {"s": "states $s_{}$", "W": "weights $W_{}$", "Wb": "feedback weights $W^b_{}$"}
_LINES = {"s": ("o", ":"), "W": ("s", "-"), "Wb": ("D", "-.")}
"""Marker and line of the errors of states, weights and feedback weights."""


def verification_figure(folder: Path) -> Path:
    """The figure of a verification, from the files in its directory.

    A row for each layer, with D(t) dashed over -grad(t) of a few units and of a few weights; beside
    them how the errors fall with beta, and with eta. Raises ``EqpropError`` where a file is
    missing or damaged.
    """
    figure, out = new_figure(), folder / VERIFICATION
    draw_verification(figure, folder)
    save(figure, out)
    return out


def draw_verification(figure: "Figure", folder: Path) -> None:
    """The same on an empty figure."""
    numbers, curves = _read_verification(folder)
    names = [tensor["name"] for tensor in numbers["asked"]["tensors"]]
    rows = sum(name.startswith("s") for name in names)
    columns = 3 if any(name.startswith("Wb") for name in names) else 2
    widths = (3.0 * columns, 3.8)
    figure.set_size_inches(sum(widths), max(4.4, 1.5 * rows + 1.2))
    recipe = numbers["recipe"]
    figure.suptitle(f"{recipe['name']}: {recipe['about']}", fontsize=11)
    left, right = figure.subfigures(1, 2, width_ratios=widths, squeeze=False)[0]
    _draw_curves(left, numbers["options"], curves, (rows, columns))
    _draw_errors(right, numbers, rows)


def _read_verification(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    path = folder / NUMBERS
    try:
        numbers = json.loads(path.read_text())
        path = folder / CURVES
        with path.open("rb") as file, np.load(file) as curves:
            return numbers, dict(curves)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise EqpropError(f"{path} cannot be read ({error}): run eqprop verify again") from error


def _draw_curves(
    figure: "SubFigure",
    options: Mapping[str, Any],
    curves: Mapping[str, np.ndarray],
    shape: tuple[int, int],
) -> None:
    """A row for each layer, from the input side down to the output."""
    grid = figure.subplots(*shape, sharex=True, squeeze=False)
    generator = np.random.default_rng(options["seed"])
    for layer, row in enumerate(grid, 1):
        for axes, kind in zip(row, _TITLES, strict=False):
            if f"D_{kind}{layer}" not in curves:
                axes.set_axis_off()
                continue
            update, reference = (curves[f"{side}_{kind}{layer}"] for side in ("D", "reference"))
            if kind == "s":
                update, reference = sample(update, reference, options["samples"], generator)
            draw_tensor(axes, update, reference)
            axes.set_title(_TITLES[kind].format(layer), loc="left", pad=3, fontsize=9)
        output = " (output)" if layer == len(grid) else ""
        row[0].set_ylabel(f"layer {layer}{output}", fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel("step t", fontsize=9)
    handles = [
        *grid[0, 0].plot([], [], color="black", alpha=0.35, lw=3, label="$-\\nabla(t)$ of BPTT"),
        *grid[0, 0].plot([], [], color="black", ls="--", lw=1.2, label="$D(t)$ of the rule"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=9, frameon=False)


def sample(
    update: np.ndarray, reference: np.ndarray, samples: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The same few curves out of two ``(K, B, *units)``, among those that are not all zero."""
    p, q = (curve.reshape(len(curve), -1) for curve in (update, reference))
    (alive,) = np.nonzero((p != 0).any(axis=0) | (q != 0).any(axis=0))
    chosen = np.sort(generator.choice(alive, min(samples, len(alive)), replace=False))
    return p[:, chosen], q[:, chosen]


def draw_tensor(axes: "Axes", update: np.ndarray, reference: np.ndarray) -> None:
    """D(t) dashed over -grad(t), both ``(K, curves)``; a single step as points."""
    points: dict[str, Any] = {"marker": "o"} if len(update) == 1 else {}
    for n, (d, gradient) in enumerate(zip(update.T, reference.T, strict=True)):
        axes.plot(gradient, color=f"C{n % 10}", alpha=0.35, lw=3, ms=8, **points)
        axes.plot(d, color=f"C{n % 10}", ls="--", lw=1.2, ms=3, **points)
    axes.axhline(0, color="grey", lw=0.5, zorder=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
    axes.yaxis.get_offset_text().set_fontsize(8)
    axes.tick_params(labelsize=8)
    axes.margins(x=0.02)


def _draw_errors(figure: "SubFigure", numbers: Mapping[str, Any], layers: int) -> None:
    """RelMSE of the tensors against beta; and of a continual rule against eta."""
    recipe = numbers["recipe"]
    order = bias_order(recipe["nudge"], recipe.get("points", 2))
    continual = bool(numbers["eta_trials"])
    title = "error against BPTT" + (r", at $\eta = 0$" if continual else "")
    panels: list[tuple[str, str, int | None, str, str]] = [
        ("beta_trials", "beta", order, r"$|\beta|$", title)
    ]
    if continual:
        title = r"error against the same rule at $\eta = 0$"
        panels.append(("eta_trials", "factor", 1, r"$\eta$ / $\eta$ as asked", title))
    if numbers.get("point_trials"):
        title = r"error against BPTT, $\beta_k$ on a circle"
        panels.append(("point_trials", "points", None, "number of points N", title))
    # Beside many layers a single panel would become a tower.
    grid = figure.subplots(max(len(panels), layers // 2), 1, squeeze=False)[:, 0]
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    if len(grid) > len(panels):
        verdict = textwrap.fill(numbers["verdict"], 46)
        grid[len(panels)].text(0, 1, verdict, va="top", fontsize=9)
    for axes, (trials, key, order, label, title) in zip(grid, panels, strict=False):
        draw_fall(axes, numbers[trials], key, order)
        axes.set_title(title, loc="left", pad=3, fontsize=9)
        axes.set_xlabel(label, fontsize=9)
        axes.set_ylabel("RelMSE", fontsize=9)
    lines = grid[0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=4, fontsize=8, frameon=False)


def draw_fall(
    axes: "Axes", trials: Sequence[Mapping[str, Any]], key: str, order: int | None
) -> None:
    """Errors against ``key``, hollow where they are noise, beside a line of that order.

    With None for the order they are to fall exponentially: the axis of ``key`` is linear.
    """
    sizes = np.array([abs(trial[key]) for trial in trials])

    def errors(tensors: Sequence[Mapping[str, Any]]) -> np.ndarray:
        # There is no place for a 0 on a logarithmic axis.
        return np.array([tensor["relmse"] or np.nan for tensor in tensors])

    for tensors in zip(*(trial["tensors"] for trial in trials), strict=True):
        name = tensors[0]["name"]
        kind = name.rstrip("0123456789")
        if kind in _LINES:
            marker, line = _LINES[kind]
            colour, size = f"C{int(name.removeprefix(kind)) - 1}", errors(tensors)
            axes.plot(sizes, size, marker, color=colour, ls=line, lw=1, ms=4, label=name)
            noise = size <= 3 * np.array([trial["floors"][name] for trial in trials])
            axes.plot(sizes[noise], size[noise], marker, color=colour, ms=4, mfc="white")
    together = errors([trial["together"] for trial in trials])
    axes.plot(sizes, together, color="black", lw=2, label="all parameters")
    if order is not None:
        most = int(sizes.argmax())
        guide = 0.4 * together[most] * (sizes / sizes[most]) ** order
        axes.plot(sizes, guide, color="grey", ls=":", lw=2, zorder=0, label=f"order {order}")
    axes.plot([], [], "o", color="grey", mfc="white", ms=4, label="noise")
    axes.set(xscale="linear" if order is None else "log", yscale="log")
    axes.grid(alpha=0.3)
    axes.tick_params(labelsize=8)
