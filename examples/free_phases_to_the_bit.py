"""Whether a free phase ever stops changing in float32: followed far beyond the T of its recipe.

python examples/free_phases_to_the_bit.py OUT.json RUN ...

Of each run: its first minibatches of MNIST, step by step; the largest change of a unit after some
steps, and when a minibatch comes back to states that it was in a few steps before, from where on
it would go in circles.
"""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np

import eqprop as ep
from eqprop.data.named import load

MINIBATCHES, STEPS, LONGEST = 20, 400, 12
SHOWN = (10, 20, 30, 50, 75, 100, 150, 300, 400)


def follow(run: ep.TrainedRun, images: np.ndarray) -> np.ndarray:
    """All states of a minibatch, ``(STEPS + 1, units of all examples)``."""
    layers = run.relax(images, steps=STEPS)
    return np.concatenate([layer.reshape(len(layer), -1) for layer in layers], axis=1)


def returned(states: np.ndarray) -> tuple[int, int] | None:
    """The first step after which all is as it was ``period`` steps before, and that period."""
    for step in range(1, len(states)):
        for period in range(1, min(step, LONGEST) + 1):
            if np.array_equal(states[step], states[step - period]):
                return step, period
    return None


def main(out: Path, folders: list[Path]) -> None:
    """Writes what was found of each run."""
    images, found = load("mnist").train_x, {}
    for folder in folders:
        run = ep.open_run(folder)
        batch = run.recipe.batch
        parts = [images[n * batch : (n + 1) * batch] for n in range(MINIBATCHES)]
        followed = [follow(run, part) for part in parts]
        changes = np.array([np.abs(np.diff(states, axis=0)).max(axis=1) for states in followed])
        found[run.recipe.name] = {
            "epochs": len(run.metrics["test_error"]),
            "recipe": dataclasses.asdict(run.recipe) | {"device": None},
            "returned": [returned(states) for states in followed],
            "change": {
                step: {"median": float(np.median(at)), "largest": float(at.max())}
                for step, at in ((step, changes[:, step - 1]) for step in SHOWN)
            },
        }
        print(run.recipe.name, found[run.recipe.name]["change"], flush=True)
    out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), list(map(Path, sys.argv[2:])))
