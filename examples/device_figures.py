"""Draws docs/images/devices.png from the records of the sweeps over devices.

python examples/device_figures.py docs/records/devices docs/images/devices.png
"""

import csv
import sys
from pathlib import Path

from matplotlib.figure import Figure


def rows(path: Path) -> list[dict[str, str]]:
    """What a sweep has found; members without a result are left out."""
    with path.open(encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["test"]]


def main(records: Path, out: Path) -> None:
    """Left: error over the noise of an update; right: over the offset of what is read."""
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    noise, offset = figure.subplots(1, 2, sharey=True)
    found = rows(records / "read-noise" / "sweep.csv")
    for nudge in ("one-sided", "centered"):
        for beta in ("0.1", "0.5"):
            for samples in ("1", "16"):
                own = [
                    row
                    for row in found
                    if (row["nudge"], row["beta"], row["device.samples"]) == (nudge, beta, samples)
                ]
                # Two readings are as far apart as the nudges are.
                apart = float(beta) * (2 if nudge == "centered" else 1)
                size = [
                    float(row["device.read_noise"]) / (apart * float(samples) ** 0.5) for row in own
                ]
                points = sorted(zip(size, (float(row["test"]) for row in own), strict=True))
                label = f"{nudge}, beta {beta}, N {samples}"
                marker = {"one-sided": "o-", "centered": "s--"}[nudge]
                noise.plot(*zip(*points, strict=True), marker, ms=4, lw=1, label=label)
    noise.set_xlabel("read noise / (distance of the nudges x sqrt(N))")
    noise.set_ylabel("test error (%), 5 epochs")
    noise.legend(fontsize=7)
    found = rows(records / "offset" / "sweep.csv")
    for nudge, marker in (("one-sided", "o-"), ("centered", "s--")):
        points = sorted(
            (float(row["device.read_offset"]), float(row["test"]))
            for row in found
            if row["nudge"] == nudge
        )
        offset.plot(*zip(*points, strict=True), marker, label=f"{nudge}, beta 0.1")
    offset.set_xlabel("offset of the nudged states")
    offset.legend(fontsize=8)
    for axes in (noise, offset):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_yticks([2, 5, 10, 20, 50, 90], ["2", "5", "10", "20", "50", "90"])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.savefig(out, dpi=150)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
