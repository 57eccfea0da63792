"""Charts of results: rows of a table in, figures out. Nothing is computed here."""

from collections.abc import Sequence
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from eqprop.reports.tables import Row, epochs_done

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OURS: dict[str, Any] = {"fmt": "o", "color": "tab:blue", "capsize": 3, "label": "here"}
_PUBLISHED: dict[str, Any] = {
    "fmt": "D",
    "color": "tab:grey",
    "mfc": "white",
    "capsize": 3,
    "label": "published",
}

_TICKS = (1, 2, 5, 10, 20, 50, 90)
"""Errors in %, where an axis is logarithmic."""


def errors(figure: "Figure", rows: Sequence[Row]) -> None:
    """Test errors of recipes, ours beside the published ones."""
    figure.set_size_inches(7.2, 1.2 + 0.3 * len(rows))
    axes = figure.subplots()
    places = range(len(rows))
    for name, shift, style in (("published_", 0.12, _PUBLISHED), ("", -0.12, _OURS)):
        test, std = _errors(rows, name)
        axes.errorbar(test, [place - shift for place in places], xerr=std, **style)
    labels = [shorten(f"{row['recipe']}{_short(row)}", 72, placeholder=" …") for row in rows]
    axes.set_yticks(list(places), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("test error (%)")
    _spread(axes, "x", rows)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def against_angle(figure: "Figure", rows: Sequence[Row]) -> None:
    """Test error over the initial angle, a panel for each network, a line for each rule."""
    panels = list(dict.fromkeys(row["network"] for row in rows))
    columns = min(len(panels), 2)
    lines = -(-len(panels) // columns)
    figure.set_size_inches(6.4 * columns, 4.2 * lines)
    for n, panel in enumerate(panels, 1):
        axes = figure.add_subplot(lines, columns, n)
        own = [row for row in rows if row["network"] == panel]
        _rules_against_angle(axes, own, _rules(own))
        axes.set_title(panel, fontsize=10)


def angles_in_training(
    figure: "Figure", rows: Sequence[Row], through: Sequence[Sequence[Sequence[float]]]
) -> None:
    """Test error over the initial angle, a panel for each network, and below it the angle after
    each epoch, a line for each seed of a row.
    """
    panels, rules = list(dict.fromkeys(row["network"] for row in rows)), _rules(rows)
    figure.set_size_inches(6.4 * len(panels), 8.4)
    for n, panel in enumerate(panels, 1):
        above, below = (figure.add_subplot(2, len(panels), n + at) for at in (0, len(panels)))
        above.set_title(panel, fontsize=10)
        _rules_against_angle(above, [row for row in rows if row["network"] == panel], rules)
        for row, seeds in zip(rows, through, strict=True):
            for angles in seeds if row["network"] == panel else ():
                line = [row["angle"], *angles]
                below.plot(line, color=f"C{rules.index(row['rule'])}", linewidth=0.8)
        below.set_yticks([45 * n for n in range(5)])
        below.set(xlabel="epoch", ylabel="angle (degrees)")
        below.grid(alpha=0.3)


def _rules(rows: Sequence[Row]) -> list[str]:
    """Each with the colour of its place."""
    return list(dict.fromkeys(row["rule"] for row in rows))


def _rules_against_angle(axes: "Axes", rows: Sequence[Row], rules: Sequence[str]) -> None:
    for n, rule in enumerate(rules):
        own = [row for row in rows if row["rule"] == rule]
        if not own:
            continue
        style: dict[str, Any] = {**_OURS, "fmt": "o-", "color": f"C{n}", "label": rule}
        axes.errorbar([row["angle"] for row in own], *_errors(own), **style)
        if published := [row for row in own if row["published_test"] is not None]:
            style = {**_PUBLISHED, "color": f"C{n}", "label": f"{rule}, published"}
            angles = [row["angle"] for row in published]
            axes.errorbar(angles, *_errors(published, "published_"), **style)
    axes.set_xticks([45 * n for n in range(5)])
    _spread(axes, "y", rows)
    # Beside the panel: lines run all over it.
    legend: dict[str, Any] = {"fontsize": 7, "loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
    _label(axes, "initial angle (degrees)", "test error (%)", **legend)


def against_gradient_angle(figure: "Figure", rows: Sequence[Row]) -> None:
    """Test error over the angle between update and BPTT gradient."""
    figure.set_size_inches(6.4, 4.2)
    axes = figure.subplots()
    rows = [row for row in rows if row["gradient_angle"] is not None]
    angles = [row["gradient_angle"] for row in rows]
    for name, style in (("published_", _PUBLISHED), ("", _OURS)):
        axes.errorbar(angles, *_errors(rows, name), **style)
    for row in rows:
        at = row["published_test"] if row["published_test"] is not None else row["test"]
        if at is not None:
            offset = {"xytext": (6, 5), "textcoords": "offset points"}
            where = (row["gradient_angle"], at)
            axes.annotate(row["point"], where, **offset, fontsize=7, rotation=35)
    axes.set_xlim(0, max([90.0, *(angle + 5 for angle in angles)]))
    _spread(axes, "y", rows)
    legend: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0.3, 1.0)}  # few angles
    _label(
        axes,
        "angle of update to BPTT gradient, before training (degrees)",
        "test error (%)",
        **legend,
    )


def over_fields(figure: "Figure", rows: Sequence[Row], fields: Sequence[str], label: str) -> None:
    """The score over each field of a sweep, in a panel each."""
    rows = [row for row in rows if row["score"] is not None]
    figure.set_size_inches(1.2 + 3.2 * len(fields), 3.4)
    panels = figure.subplots(1, len(fields), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, fields, strict=True):
        values = [row[name] for row in rows]
        try:
            numbers = [float(value) for value in values]
        except ValueError:
            numbers = values  # words, each with a place of its own
        else:
            if numbers and min(numbers) > 0 and max(numbers) >= 10 * min(numbers):
                axes.set_xscale("log")
        std = [row["score_std"] or 0.0 for row in rows]
        axes.errorbar(numbers, [row["score"] for row in rows], std, fmt="o", capsize=3)
        axes.set_xlabel(name)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(label)


def over_sizes(figure: "Figure", rows: Sequence[Row], label: str, *, percent: bool) -> None:
    """The score over the size of each imperfection of a device, a line for each; whether it is in
    ``percent``.
    """
    figure.set_size_inches(9.6, 4.2)
    panels = figure.subplots(1, 2, sharey=True)
    ideal = next(row["score"] for row in rows if row["imperfection"] == "none")
    scores = [s for row in rows for s in (row["score"], row["offline"]) if s is not None]
    for axes, kind, title in zip(
        panels, ("score", "offline"), ("trained on the device", "programmed"), strict=True
    ):
        sized = [row for row in rows if row["factor"] and row[kind] is not None]
        for name in dict.fromkeys(row["imperfection"] for row in sized):
            own = [row for row in sized if row["imperfection"] == name]
            std = [row[f"{kind}_std"] or 0.0 for row in own]
            style = {"color": "black", "lw": 2} if name == "together" else {}
            where = [row["factor"] for row in own]
            axes.errorbar(where, [row[kind] for row in own], std, label=name, fmt="o-", **style)
        if sized:  # else there is nothing to take the logarithm of
            axes.set_xscale("log")
            sizes = sorted({row["factor"] for row in sized})
            axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
            axes.set_xticks([], minor=True)
            if min(scores) > 0:  # there is no place for a 0 on a logarithmic axis
                axes.set_yscale("log")
                if percent:
                    axes.set_yticks(_TICKS, [str(tick) for tick in _TICKS])
                    axes.set_yticks([], minor=True)
                axes.set_ylim(0.8 * min(scores), 1.25 * max(scores))
        if ideal is not None:
            axes.axhline(ideal, color="tab:grey", ls="--", lw=1)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("size of the imperfection, the device's own is 1")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(label)
    if panels[0].get_legend_handles_labels()[0]:
        panels[0].legend(fontsize=7)


def _errors(rows: Sequence[Row], name: str = "") -> tuple[list[float], list[float]]:
    """Test errors and their standard deviations, ours or the published ones."""
    test = [_number(row[f"{name}test"]) for row in rows]
    return test, [row["published_std" if name else "test_std"] or 0.0 for row in rows]


def _short(row: Row) -> str:
    """How much of a row's training was run, where that is not all."""
    if row["most_epochs_done"] is None or row["least_epochs_done"] >= row["epochs"]:
        return ""
    return f" ({epochs_done(row)} epochs)"


def _spread(axes: "Axes", axis: str, rows: Sequence[Row]) -> None:
    """Make an axis of errors logarithmic, where some are of trainings that have just begun, or have
    failed.
    """
    if any(_number(row["test"]) > 8 for row in rows):
        axes.set(**{f"{axis}scale": "log", f"{axis}ticks": _TICKS})
        axes.set(**{f"{axis}ticklabels": [str(tick) for tick in _TICKS]})
        axes.minorticks_off()


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _label(axes: "Axes", x: str, y: str, **legend: Any) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(**{"fontsize": 8, **legend})
