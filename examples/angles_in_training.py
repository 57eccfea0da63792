"""The angle between the update of a rule and the gradient of BPTT, as training goes on.

python examples/angles_in_training.py runs/angles docs/records/asymmetric/angles.json

Each network is trained to an epoch, its theorem checked on five examples as `eqprop report` does
it, and trained on. One hidden layer on MNIST, from 90 degrees between forward and feedback weights.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import eqprop as ep
from eqprop.recipes.catalogue import recipe
from eqprop.theorem.trained import examine
from eqprop.training import launch
from eqprop.training.display import Display
from eqprop.training.experiment import prepare_again
from eqprop.training.files import write_whole
from eqprop.training.metrics import angles
from eqprop.training.runs import is_run

_SWEEPS: dict[str, Any] = {"angle": 90.0, "sweeps": True, "T": 15}
RULES = {
    "AEP": dataclasses.replace(recipe("ep-1h"), rule="aep", **_SWEEPS),
    "VF": dataclasses.replace(recipe("ep-1h"), rule="vf", lr=(0.02, 0.01), **_SWEEPS),
    "C-AEP": dataclasses.replace(
        recipe("ep-1h"), rule="c-aep", nudge="random-sign", K=2, **_SWEEPS
    ),
    "C-VF": dataclasses.replace(recipe("c-vf-1h"), angle=90.0, sweeps=True, T=20),
}
EPOCHS = (1, 2, 5, 10, 20)


def main(runs: Path, out: Path) -> None:
    """Trains, or goes on, and writes what was found after each of ``EPOCHS``."""
    found: dict[str, list[dict[str, float]]] = json.loads(out.read_text()) if out.exists() else {}
    for name, wanted in RULES.items():
        folder, there = runs / name.lower(), found.setdefault(name, [])
        for epochs in EPOCHS[len(there) :]:
            now = dataclasses.replace(wanted, epochs=epochs)
            if is_run(folder):
                launch.resume(folder, epochs, ["angles"])
            else:
                launch.train(now, [0], folder, ["angles"])
            run, display = ep.open_run(folder), Display()
            experiment = prepare_again(folder, run.record, run.recipe, display)
            theorem = examine(experiment, run.network, 0, display.say)
            there.append(
                {
                    "epoch": epochs,
                    "angle": theorem.numbers["asked"]["together"]["angle"],
                    "weights": angles(run.network)["1-2"],
                    "test_error": float(run.metrics["test_error"][epochs - 1]),
                }
            )
            print(name, there[-1], flush=True)
            write_whole(out, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
