"""Figures: how all are made and written, the curves of a training, and a network's mistakes."""

import io
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eqprop.training.files import write_whole, writing
from eqprop.training.metrics import METRICS, flat, of_examples
from eqprop.training.runs import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from eqprop.training.mistakes import Counts, Mistakes, Predictions

_PICTURES = 4  # in a row of a figure
_MOST_NUMBERS = 400  # that a matrix has room for

# Without dates and versions, so that a figure drawn again is the same file.
_METADATA = {".png": {"Software": None}, ".svg": {"Date": None}}


def new_figure(size: tuple[float, float] | None = None) -> "Figure":
    """An empty figure, of so many inches; no display is looked for, and nothing keeps it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: "Figure", *paths: Path) -> None:
    """Writes a figure to each of some files, ``.png`` or ``.svg``."""
    from matplotlib import rc_context

    for path in paths:
        drawn = io.BytesIO()
        kind = path.suffix.removeprefix(".")
        with rc_context({"svg.hashsalt": "eqprop"}):  # names of shapes that are always the same
            figure.savefig(drawn, format=kind, dpi=150, metadata=_METADATA[path.suffix])
        write_whole(path, drawn.getvalue())


def training_curves(folders: Sequence[Path], out: Path, title: str) -> Path:
    """What was measured on training and test examples over the epochs of some run directories, but
    for the loss, as an image ``out``: errors, or RMSE and R².

    Below it, for untied networks, the angles between forward and feedback weights.
    """
    from matplotlib.ticker import MaxNLocator

    runs = [[flat(row) for row in read_metrics(folder)] for folder in folders]
    names = dict.fromkeys(name for rows in runs for row in rows for name in row)
    examples = [metric for metric in of_examples() if metric.name != "loss"]
    shown = [m for m in METRICS if m.title and (m in examples or m.name == "angles")]
    panels = [(m, columns) for m in shown if (columns := m.columns(names))]
    figure = new_figure((6.4, 1.6 + 2.4 * max(1, len(panels))))
    axes = figure.subplots(max(1, len(panels)), sharex=True, squeeze=False)[:, 0]
    style: dict[str, Any] = {"lw": 1.2, "marker": ".", "ms": 4}
    for panel, (metric, columns) in zip(axes, panels, strict=False):
        for n, column in enumerate(columns):
            for rows in runs:
                values = [row.get(column.name, math.nan) for row in rows]
                label = column.label if rows is runs[0] else None
                panel.plot(range(1, len(rows) + 1), values, color=f"C{n}", label=label, **style)
        panel.set(ylabel=textwrap.fill(metric.title or "", 24))
        panel.set_ylim(min(0, panel.dataLim.y0))
        panel.grid(alpha=0.3)
        panel.legend()
    axes[0].set(title=title)
    axes[-1].set(xlabel="epoch")
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    save(figure, out)
    return out


def mistakes_figure(found: "Mistakes", out: Path) -> Path:
    """Confusion matrix, or predicted against true values, and the worst mistakes, where inputs are
    pictures, as an image ``out``. Raises ``EqpropError`` where that cannot be written.
    """
    captions = found.captions if found.pictures else []
    left = max(1, len(found.predictions))
    rows = -(-len(captions) // _PICTURES)
    figure = new_figure((4.2 * left + 4.8 * bool(captions), max(3.8, 1.3 * rows)))
    ratios = [4.2 * left, *([4.8] if captions else [])]
    parts = figure.subfigures(1, len(ratios), squeeze=False, width_ratios=ratios).ravel()
    panels = parts[0].subplots(1, left, squeeze=False)[0]
    if found.counts is not None:
        _draw_counts(panels[0], found.counts)
    for panel, one in zip(panels, found.predictions, strict=False):
        draw_predictions(panel, one)
        panel.set(title=one.name, xlabel="true", ylabel="predicted")
    if captions:
        places = parts[-1].subplots(rows, _PICTURES, squeeze=False).ravel()
        for place in places:
            place.set_axis_off()
        for place, x, caption in zip(places, found.inputs, captions, strict=False):
            place.imshow(_picture(x), cmap="gray")
            place.set_title(textwrap.fill(caption, 18), fontsize=6)
    with writing(out, "give another file with --figure"):
        save(figure, out)
    return out


def draw_predictions(axes: "Axes", found: "Predictions") -> None:
    """Predicted over true values, a point each, and the line where they are equal."""
    true, predicted = found.true, found.predicted
    ends = [min(true.min(), predicted.min()), max(true.max(), predicted.max())]
    axes.plot(ends, ends, color="#808080", lw=0.8)
    axes.plot(true, predicted, ".", color="C0", ms=4, alpha=0.6)
    axes.grid(alpha=0.3)


def _picture(x: np.ndarray) -> np.ndarray:
    """An input as ``imshow`` takes it; floats, which are in any unit, from 0 to 1."""
    if x.dtype.kind == "f":
        x = (x - x.min()) / (np.ptp(x) or 1)
    return x if x.shape[2:] in ((3,), (4,)) else x.reshape(x.shape[:2])


def _draw_counts(axes: "Axes", found: "Counts") -> None:
    """Shades are shares of a row."""
    shares = found.counts / np.maximum(found.counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    if found.counts.size <= _MOST_NUMBERS:
        for (row, column), number in np.ndenumerate(found.counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7, "color": colour}
            axes.text(column, row, f"{number}", **style)
        rows, columns = (
            [name if len(name) <= 16 else f"{name[:15]}…" for name in names]
            for names in (found.rows, found.columns)
        )
        axes.set_xticks(range(len(columns)), columns, rotation=45 * (len(columns) > 4))
        axes.set_yticks(range(len(rows)), rows)
    axes.set(xlabel="predicted", ylabel="true")
