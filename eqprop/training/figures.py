"""Figures: how all are made and written, and the curves of a training."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eqprop.training.runs import read_metrics

if TYPE_CHECKING:
    pass


def training_curves(folders: Sequence[Path], out: Path, title: str) -> Path:
    """Training and test error over the epochs of some run directories, as an image ``out``.

    Below them, for untied networks, the angles between forward and feedback weights.
    """
    # Without pyplot: no display is looked for, and no figure outlives this call.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    runs = [read_metrics(folder) for folder in folders]
    edges = sorted({edge for rows in runs for row in rows for edge in row["angles"]})
    panels = 2 if edges else 1
    figure = Figure(figsize=(6.4, 1.6 + 2.4 * panels), layout="constrained")
    FigureCanvasAgg(figure)
    top, *below = figure.subplots(panels, sharex=True, squeeze=False)[:, 0]
    style = {"lw": 1.2, "marker": ".", "ms": 4}
    for rows in runs:
        epochs, first = [row["epoch"] for row in rows], rows is runs[0]
        for key, label in (("train_error", "training"), ("test_error", "test")):
            colour = "tab:blue" if label == "training" else "tab:orange"
            errors = [row[key] for row in rows]
            top.plot(epochs, errors, color=colour, label=label if first else None, **style)
        for n, edge in enumerate(edges):
            angles, label = [row["angles"].get(edge) for row in rows], f"layers {edge}"
            below[0].plot(
                epochs, angles, color=f"C{n + 2}", label=label if first else None, **style
            )
    top.set(ylabel="error (%)", title=title, ylim=(0, None))
    for axes in below:
        axes.set(ylabel="angle of forward to\nfeedback weights (degrees)", ylim=(0, None))
    for axes in (top, *below):
        axes.grid(alpha=0.3)
        axes.legend()
    (below or [top])[-1].set(xlabel="epoch")
    top.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.savefig(out, dpi=150)
    return out
