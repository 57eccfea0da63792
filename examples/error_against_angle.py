"""Published test error against the angle between update and BPTT gradient before training.

Reads docs/records/angles.json (from `eqprop verify`) and the recipes; writes
docs/images/error-against-angle.png. Run it from the root of the repository.
"""

import json
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from eqprop.recipes import RECIPES

DOCS = Path("docs")


def main() -> None:
    angles = json.loads((DOCS / "records" / "angles.json").read_text(encoding="utf-8"))
    del angles["about"]
    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for name, angle in angles.items():
        published = RECIPES[name].published
        assert published
        colour = "C1" if name.startswith("c-") else "C0"
        axes.errorbar(angle, published.test, published.std, fmt="o", color=colour, capsize=3)
        axes.annotate(
            name,
            (angle, published.test),
            (6, 5),
            textcoords="offset points",
            fontsize=8,
            rotation=35,
        )
    axes.set(
        xlabel="angle between total update and BPTT gradient, before training (degrees)",
        ylabel="published test error (%)",
        xlim=(0, 90),
    )
    axes.grid(alpha=0.3)
    figure.savefig(DOCS / "images" / "error-against-angle.png", dpi=110)


if __name__ == "__main__":
    main()
