"""Figures: files in, figures out. Nothing is computed here."""

from collections.abc import Sequence
from pathlib import Path

from eqprop.runs import read_metrics


def training_curves(folders: Sequence[Path], out: Path, title: str) -> Path:
    """Training and test error over the epochs of some run directories, as an image ``out``."""
    # Without pyplot: no display is looked for, and no figure outlives this call.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    curves = (("train_error", "training", "tab:blue"), ("test_error", "test", "tab:orange"))
    for folder in folders:
        rows = read_metrics(folder)
        for key, label, colour in curves:
            first = label if folder == folders[0] else None
            epochs, errors = [row["epoch"] for row in rows], [row[key] for row in rows]
            axes.plot(epochs, errors, color=colour, label=first, lw=1.2, marker=".", ms=4)
    axes.set(xlabel="epoch", ylabel="error (%)", title=title, ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(out, dpi=150)
    return out
