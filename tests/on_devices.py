"""Run by test_devices.py with 8 simulated devices: trainings over them, against one device's."""

import dataclasses
import json
import math
import re
import sys

import jax
import numpy as np

from eqprop.recipes.build import build
from eqprop.recipes.catalogue import recipe
from eqprop.training.replicas import Layout, arrange
from eqprop.training.trainer import Examples, Trainer, TrainState

IMAGE, CLASSES, N, BATCH = (6, 5), 4, 24, 8
CONV = {"channels": (3,), "kernel": 3, "hidden": (), "activation": "hardsigm", "lr": (0.1, 0.05)}

CASES: list[tuple[int | None, int, dict]] = [
    # replicas, devices, recipe; rows are divided over what replicas leave
    (4, 8, {"nudge": "centered", "optimizer": "adam", "lr": (0.01, 0.01)}),
    (2, 8, {"rule": "c-ep", "nudge": "random-sign", "shift": 1, "dropout": 0.3}),
    (None, 4, {"rule": "c-ep", "nudge": "mixed-sign", "hidden": (70, 60), "lr": (0.1, 0.1, 0.1)}),
    (3, 3, {"rule": "vf", "angle": 60.0, "tolerance": 1e-2, "T": 40}),
    (2, 4, {"rule": "c-vf", "angle": 60.0, "nudge": "random-sign", "lr": (0.1, 0.05)}),
    (2, 4, CONV | {"rule": "c-ep", "setting": "energy", "tolerance": 1e-2, "sweeps": True}),
    (None, 8, {"rule": "bptt"}),
]


def prepare(layout: Layout, changes: dict) -> tuple[Trainer, list[TrainState], Examples]:
    fields: dict = {"hidden": (7,), "T": 9, "K": 3, "batch": BATCH, "lr": (0.3, 0.2)}
    fields |= {"dtype": "float64"} | changes
    built = build(dataclasses.replace(recipe("ep-1h"), **fields), IMAGE, CLASSES, N // BATCH)
    parts = built.system, built.learner, BATCH, built.augmentations
    # With dropout it is slow to settle, and blocks of other sizes stop elsewhere at a tolerance.
    tolerance = 0.0 if "dropout" in changes else 1e-4
    trainer = Trainer(*parts, layout, dropout=built.dropout, test_tolerance=tolerance)
    states = [trainer.start(built.init, seed) for seed in range(layout.replicas or 1)]
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(N, *IMAGE), dtype=np.uint8)
    labels = rng.integers(CLASSES, size=N, dtype=np.uint8)
    examples = Examples.put(images, labels, states[0].network)
    return trainer, states, layout.put_everywhere(examples)


def two_epochs(layout: Layout, changes: dict) -> list[np.ndarray]:
    trainer, states, examples = prepare(layout, changes)
    state = layout.stack(states)
    for epoch in range(2):
        state = trainer.next_epoch(state) if epoch else state
        order = trainer.order(state, examples)
        for stop in (2, 3):
            state = trainer.advance(state, examples, order, stop)
    assert state.position == (1, 3)
    score = trainer.evaluate(state.network, examples, rows=5)
    return [np.asarray(leaf) for leaf in jax.tree.leaves((layout.parts(state), score))]


def equal() -> None:
    jax.config.update("jax_disable_most_optimizations", True)
    for replicas, devices, changes in CASES:
        layout = arrange(replicas, BATCH, devices)
        pairs = zip(two_epochs(layout, changes), two_epochs(Layout(replicas), changes), strict=True)
        for ours, theirs in pairs:
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11, strict=True)
        print(f"{replicas} {devices} {changes}: same after 2 epochs, {layout.devices}")


def messages() -> None:
    for rule in ("ep", "c-vf"):
        changes = {"rule": rule, "angle": 45.0 if rule == "c-vf" else None}
        layout = arrange(None, BATCH, 8)
        trainer, states, examples = prepare(layout, changes)
        state = layout.stack(states)
        order = trainer.order(state, examples)
        program = trainer._advance.lower(state, examples, order, np.int32(1)).compile().as_text()
        kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
        count = dict.fromkeys(kinds.split("|"), 0)
        for shapes, kind in re.findall(rf"= (.*?) ({kinds})(?:-start)?\(", program):
            for shape in re.findall(r"f64\[([\d,]*)\]", shapes):
                count[kind] += math.prod(int(n) for n in shape.split(",") if n)
        print(json.dumps({"rule": rule} | {kind: n for kind, n in count.items() if n}))


if __name__ == "__main__":
    {"equal": equal, "messages": messages}[sys.argv[1]]()
