"""Figures: how all are made and written, and the curves of a training."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eqprop.training.runs import read_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    for path in paths:
        figure.savefig(path, dpi=150, metadata=_METADATA[path.suffix])


def training_curves(folders: Sequence[Path], out: Path, title: str) -> Path:
    """Training and test error over the epochs of some run directories, as an image ``out``.

    Below them, for untied networks, the angles between forward and feedback weights.
    """
    from matplotlib.ticker import MaxNLocator

    runs = [read_metrics(folder) for folder in folders]
    edges = sorted({edge for rows in runs for row in rows for edge in row.get("angles", ())})
    panels = 2 if edges else 1
    figure = new_figure((6.4, 1.6 + 2.4 * panels))
    top, *below = figure.subplots(panels, sharex=True, squeeze=False)[:, 0]
    style = {"lw": 1.2, "marker": ".", "ms": 4}
    for rows in runs:
        epochs, first = [row["epoch"] for row in rows], rows is runs[0]
        for key, label in (("train_error", "training"), ("test_error", "test")):
            colour = "tab:blue" if label == "training" else "tab:orange"
            errors = [row.get(key) for row in rows]
            top.plot(epochs, errors, color=colour, label=label if first else None, **style)
        for n, edge in enumerate(edges):
            angles = [row.get("angles", {}).get(edge) for row in rows]
            name = f"layers {edge}" if first else None
            below[0].plot(epochs, angles, color=f"C{n + 2}", label=name, **style)
    top.set(ylabel="error (%)", title=title, ylim=(0, None))
    for axes in below:
        axes.set(ylabel="angle of forward to\nfeedback weights (degrees)", ylim=(0, None))
    for axes in (top, *below):
        axes.grid(alpha=0.3)
        axes.legend()
    (below or [top])[-1].set(xlabel="epoch")
    top.xaxis.set_major_locator(MaxNLocator(integer=True))
    save(figure, out)
    return out
