"""How far updates with states in bfloat16 are from those of float32, before training, on MNIST.

python benchmarks/precision.py: prints, for each recipe and beta, the mean over minibatches of the
angle between the two updates in degrees, and of |difference| / |float32 update|.
"""

import dataclasses

import jax
import numpy as np

from eqprop.data import named as data
from eqprop.recipes.catalogue import recipe
from eqprop.training.experiment import prepare
from eqprop.training.trainer import fetch

MINIBATCHES = 5
ROWS = [
    ("ep-1h", {}),
    ("ep-1h", {"nudge": "centered"}),
    ("ep-1h", {"nudge": "centered", "beta": 0.5}),
    ("ep-2h", {}),
    ("ep-2h", {"nudge": "centered"}),
    ("ep-conv", {}),
    ("ep-conv", {"nudge": "centered"}),
]


def updates(setup, dataset) -> list[np.ndarray]:
    """The updates of the first minibatches, all of them at the initial weights."""
    experiment = prepare(setup, dataset)
    state, trainer = experiment.start(0), experiment.trainer

    @jax.jit
    def update(rows):
        batch = fetch(experiment.train, rows, state.network)
        rule = trainer.learner.rule
        return rule.update(trainer.system, state.network, *batch, jax.random.key(0))[0]

    found = [update(rows) for rows in trainer.order(state, experiment.train)[:MINIBATCHES]]
    return [
        np.concatenate([np.ravel(leaf).astype(float) for leaf in jax.tree.leaves(tree)])
        for tree in found
    ]


def main() -> None:
    mnist = data.load("mnist")
    print("recipe | nudge | beta | angle, degrees | relative error")
    for name, changes in ROWS:
        setup = dataclasses.replace(recipe(name), **changes)
        full, half = (
            updates(dataclasses.replace(setup, states=states), mnist)
            for states in ("full", "bfloat16")
        )
        pairs = list(zip(full, half, strict=True))
        cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]
        angle = np.mean(np.degrees(np.arccos(cosines)))
        error = np.mean([np.linalg.norm(a - b) / np.linalg.norm(a) for a, b in pairs])
        print(f"{name} | {setup.nudge} | {setup.beta} | {angle:.1f} | {error:.2f}", flush=True)


if __name__ == "__main__":
    main()
