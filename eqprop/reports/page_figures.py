"""The figures of a report: curves of trainings, of Theorem 1, and of a free phase.

One panel each, small enough for a telephone; the page sets them side by side where it is wide.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from eqprop.recipes.recipe import Published
from eqprop.reports.groups import Group
from eqprop.reports.inspection import Relaxed, Trace
from eqprop.reports.svg import COLOURS, MUTED, figure, tint
from eqprop.theorem.figure import draw_fall, draw_tensor, sample
from eqprop.theorem.questions import bias_order
from eqprop.theorem.trained import Theorem
from eqprop.training import metrics
from eqprop.training.figures import draw_predictions
from eqprop.training.metrics import show_mean_and_std
from eqprop.training.mistakes import Mistakes, Predictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

type Curves = Sequence[Sequence[float]]
"""A curve for each seed."""

_SAMPLES = 5
_INSIDE = 3  # curves whose legend finds room among them
_DASHES = ("-", "--", ":", "-.")
_KINDS = {"s": "states s{}", "W": "weights W{}", "Wb": "feedback weights Wb{}"}


def training(group: Group, name: str) -> list[Markup]:
    """A panel against epochs for each metric that has a title."""
    return [
        _against_epochs(
            metric.title,
            {column.label: _curves(group, column.name) for column in columns},
            f"{name}-{metric.name}",
            group.published if metric.name == "error" else None,
            log=metric.logarithmic,
        )
        for metric in metrics.METRICS
        if metric.title and (columns := metric.columns(group.columns))
    ]


def _curves(group: Group, column: str) -> Curves:
    """Of the seeds that have it."""
    return [member.columns[column] for member in group.members if column in member.columns]


def comparison(titles: Sequence[str], groups: Sequence[Group]) -> list[Markup]:
    """The test errors of several groups against epochs, or what else a test measures, in panels."""
    panels = []
    for metric in metrics.of_examples():
        every = {t: _curves(g, f"test_{metric.name}") for t, g in zip(titles, groups, strict=True)}
        curves = {title: own for title, own in every.items() if own}
        if metric.title and metric.name != "loss" and len(curves) > 1:
            name = "comparison" if metric.name == "error" else f"comparison-{metric.name}"
            title = f"test {metric.title}"
            panels.append(_against_epochs(title, curves, name, log=metric.logarithmic))
    return panels


def predictions(found: Mistakes, name: str) -> list[Markup]:
    """Predicted against true values of each real target."""
    panels = []
    for n, one in enumerate(found.predictions):

        def draw(axes: "Axes", one: Predictions = one) -> None:
            draw_predictions(axes, one)
            axes.set_ylabel("predicted")

        title = _plain(one.name)
        label = f"Predicted against true values of {one.name}, {len(one.true)} examples"
        panels.append(_panel(draw, (title, "true", label), f"{name}-{n}"))
    return panels


def _against_epochs(
    title: str,
    curves: Mapping[str, Curves],
    name: str,
    published: Published | None = None,
    *,
    log: bool,
) -> Markup:
    """Means over the seeds, in bands from the lowest to the highest seed."""

    def draw(axes: "Axes") -> None:
        positive = all(not v <= 0 for seeds in curves.values() for seed in seeds for v in seed)
        for n, (label, seeds) in enumerate(curves.items()):
            low, mean, high = _band(seeds)
            epochs = np.arange(1, len(mean) + 1)
            colour = COLOURS[n % len(COLOURS)]
            style: dict[str, Any] = {"lw": 1.4, "ls": _DASHES[n // len(COLOURS) % len(_DASHES)]}
            style |= {"marker": ".", "ms": 4} if len(epochs) <= 12 else {}
            axes.plot(epochs, mean, color=colour, label=_plain(label), **style)
            if len(seeds) > 1:
                axes.fill_between(epochs, low, high, color=colour, alpha=0.25, lw=0)
        if published:
            low, high = published.test - published.std, published.test + published.std
            axes.axhspan(low, high, color=MUTED, alpha=0.25, lw=0)
            axes.axhline(published.test, color=MUTED, ls="--", lw=1, label="test, published")
        if log and positive:
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
        if len(curves) > _INSIDE:
            _legend_below(axes, 2)
        elif len(curves) > 1:
            axes.legend()

    said = "; ".join(
        f"{label}: {_said(seeds, 0)} at the first epoch, {_said(seeds, -1)} at the last"
        for label, seeds in curves.items()
    )
    below = 0.2 + 0.08 * len(curves) if len(curves) > _INSIDE else 0.0
    words = title, "epoch", f"{title} against epochs. {said}"
    return _panel(draw, words, name, 2.4 + below)


def _panel(
    draw: Callable[["Axes"], None], words: tuple[str, str, str], name: str, height: float = 2.4
) -> Markup:
    """A figure of one panel; ``words`` are its title, what is to the right, and what is read out in
    its stead.
    """
    title, right, label = words

    def on(drawn: "Figure") -> None:
        axes = drawn.subplots()
        draw(axes)
        axes.set_title(title)
        axes.set_xlabel(right)
        if axes.get_xscale() == "linear":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _plain_ticks(axes)

    return figure(on, label, name, (3.6, height))


def _legend_below(axes: "Axes", columns: int) -> None:
    if drawn := axes.get_figure(root=True):
        lines, place = axes.get_legend_handles_labels(), "outside lower center"
        drawn.legend(*lines, loc=place, ncols=columns, fontsize=7)


def _said(seeds: Curves, at: int) -> str:
    values = [seed[at] for seed in seeds if not math.isnan(seed[at])]
    return show_mean_and_std(values, ".4g") if values else "unknown"


def _band(seeds: Curves) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lowest, mean and highest at each epoch, of the seeds that have come so far; or NaN."""
    table = np.full((len(seeds), max(map(len, seeds))), np.nan)
    for row, seed in zip(table, seeds, strict=True):
        row[: len(seed)] = seed
    known = np.ma.masked_invalid(table)
    low, mean, high = (np.ma.filled(f(axis=0), np.nan) for f in (known.min, known.mean, known.max))
    return low, mean, high


def _plain(text: str) -> str:
    """Text for a legend: short, and without what Matplotlib would take for mathematics."""
    short = text if len(text) <= 28 else f"{text[:27]}…"
    return short.replace("$", r"\$")


def _plain_ticks(axes: "Axes") -> None:
    """Numbers of logarithmic axes as text, which keeps to the page's font."""
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            low, high = sorted(axis.get_view_interval())
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 200 else (1,)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())


def theorem(found: Theorem, name: str) -> list[Markup]:
    """D(t) over -grad(t) for each tensor, and how the error falls with beta (and with eta)."""
    generator = np.random.default_rng(0)
    panels = []
    for tensor in found.numbers["asked"]["tensors"]:
        key = tensor["name"]
        kind = key.rstrip("0123456789")
        if kind not in _KINDS:
            continue
        update, reference = (found.curves[f"{side}_{key}"] for side in ("D", "reference"))
        if kind == "s":
            update, reference = sample(update, reference, _SAMPLES, generator)
        title = _KINDS[kind].format(key.removeprefix(kind))
        panels.append(
            _tensor(title, (update[:, :_SAMPLES], reference[:, :_SAMPLES]), f"{name}-{key}")
        )
    order = bias_order(found.recipe.nudge, found.recipe.points)
    falls = [("beta_trials", "beta", order, "|β|", "error against BPTT")]
    if found.numbers["eta_trials"]:
        falls.append(("eta_trials", "factor", 1, "η / η as trained", "error against η = 0"))
    return panels + [
        _fall(found.numbers[trials], key, order, (title, label), f"{name}-{key}")
        for trials, key, order, label, title in falls
    ]


def _tensor(title: str, curves: tuple[np.ndarray, np.ndarray], name: str) -> Markup:
    def draw(axes: "Axes") -> None:
        draw_tensor(axes, *curves)
        axes.ticklabel_format(axis="y", useMathText=False)

    label = f"{title}: change D(t) of the rule over minus the gradient of BPTT, against steps"
    return _panel(draw, (title, "step t", label), name, 2.0)


def _fall(
    trials: Sequence[Mapping[str, object]],
    key: str,
    order: int,
    words: tuple[str, str],
    name: str,
) -> Markup:
    title, right = words

    def draw(axes: "Axes") -> None:
        draw_fall(axes, trials, key, order)
        axes.set_ylabel("RelMSE")
        _legend_below(axes, 4)

    said = f"{title} (RelMSE) against {right}, beside a line of order {order}"
    return _panel(draw, (title, right, said), name)


def relaxation(relaxed: Relaxed, name: str) -> list[Markup]:
    """States against steps, layer by layer, and how the residuals fall."""
    layers = relaxed.layers
    panels = [_units(layer, n, f"{name}-s{n}") for n, layer in enumerate(layers, 1)]
    if relaxed.outputs:
        panels[-1] = _outputs(layers[-1], relaxed, f"{name}-out")
    return [*panels, _residuals(relaxed, f"{name}-residuals")]


def _units(layer: Trace, number: int, name: str) -> Markup:
    size = layer.end.size
    shown = layer.states.shape[1]
    which = f"{shown} of {size} units" if shown < size else f"{size} units"
    title = f"layer {number}, {which}"

    def draw(axes: "Axes") -> None:
        extent = (-0.5, len(layer.states) - 0.5, 0, shown)
        style: dict[str, Any] = {"aspect": "auto", "interpolation": "none", "origin": "lower"}
        axes.imshow(tint(layer.states.T), extent=extent, **style)
        axes.set_ylabel("unit")
        axes.set_yticks([])

    last, largest = layer.states[-1], np.abs(layer.states).max()
    label = (
        f"States of {title}, against steps; the strongest is {largest:.2f}. At the end the "
        f"lowest is {last.min():.2f}, the highest {last.max():.2f}"
    )
    return _panel(draw, (title, "step", label), name)


def _outputs(layer: Trace, relaxed: Relaxed, name: str) -> Markup:
    # Of many units some are shown, by their places in the order in which they end.
    whole = layer.states.shape[1] == layer.end.size
    marked = dict(sorted(relaxed.marked.items())[: len(COLOURS)]) if whole else {}

    def draw(axes: "Axes") -> None:
        for unit, states in enumerate(layer.states.T):
            style: dict[str, Any] = {"color": MUTED, "lw": 0.8}
            if unit in marked:
                colour = COLOURS[list(marked).index(unit)]
                style = {"color": colour, "lw": 2, "label": _plain(marked[unit])}
            axes.plot(states, **style)
        if len(marked) < layer.states.shape[1]:
            axes.plot([], [], color=MUTED, lw=0.8, label="others")
        for n, level in enumerate(relaxed.levels[: len(marked)]):
            axes.axhline(level, color=COLOURS[n], ls="--", lw=1, label=None if n else "target")
        axes.set_ylabel("state")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)

    said = "".join(f", {name} {layer.end.ravel()[unit]:.2f}" for unit, name in marked.items())
    label = f"States of the outputs against steps; at the end {layer.end.max():.2f} at most{said}"
    return _panel(draw, ("outputs", "step", label), name)


def _residuals(relaxed: Relaxed, name: str) -> Markup:
    layers = relaxed.layers

    def draw(axes: "Axes") -> None:
        # There is no place for a 0 on a logarithmic axis.
        moved = [np.where(it.residuals > 0, it.residuals, np.nan) for it in layers]
        for n, residuals in enumerate(moved):
            name = "outputs" if relaxed.outputs and n + 1 == len(layers) else f"layer {n + 1}"
            steps, colour = np.arange(1, len(residuals) + 1), COLOURS[n % len(COLOURS)]
            axes.plot(steps, residuals, color=colour, lw=1.2, label=name)
        if np.isfinite(moved).any():
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
        axes.legend()

    ends = ", ".join(f"{layer.residuals[-1]:.1e}" for layer in layers)
    label = f"Largest change of any unit in each step; in the last: {ends}"
    return _panel(draw, ("largest change of any unit", "step", label), name)
