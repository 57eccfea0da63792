"""How far a continual rule's update departs from the gradient, against the number of nudged steps.

    python examples/continual_departure.py [RUN]

For c-ep-1h and variants of it: the angle in degrees between the update of a minibatch, divided by
the learning rates, and the BPTT gradient at the converged fixed point; and how many times longer
the update is. Means of eight minibatches of MNIST, for the network before training or that of a
run.
"""

import dataclasses
import sys
from pathlib import Path

import jax
import jax.numpy as jnp

from eqprop.data.named import load
from eqprop.networks.network import Network
from eqprop.recipes.build import build
from eqprop.recipes.catalogue import recipe
from eqprop.recipes.recipe import Recipe
from eqprop.training.experiment import prepare
from eqprop.training.restore import load as load_checkpoint
from eqprop.training.trainer import fetch

C_EP, FEW = recipe("c-ep-1h"), recipe("c-ep-1h-few")
EP_RATES = (0.08, 0.04)
CASES = {
    "as published: 15 steps": C_EP,
    "15 steps, rates of EP": dataclasses.replace(C_EP, lr=EP_RATES),
    "4 steps, rates of EP": dataclasses.replace(C_EP, lr=EP_RATES, K=4),
    "3 steps, rates of EP": dataclasses.replace(C_EP, lr=EP_RATES, K=3),
    "3 sweeps, rates of EP": dataclasses.replace(FEW, K=3),
    "2 sweeps, rates of EP (c-ep-1h-few)": FEW,
    "1 sweep, rates of EP": dataclasses.replace(FEW, K=1),
    "2 sweeps, rates near 0": dataclasses.replace(FEW, lr=(1e-5, 5e-6)),
}
BATCHES = 8


def vector(network: Network, scales: tuple[float, ...] | None = None) -> jax.Array:
    """All parameters in a row, those of each edge divided by its scale."""
    scales = scales or (1.0,) * len(network.edges)
    return jnp.concatenate(
        [
            leaf.ravel() / scale
            for edge, scale in zip(network.edges, scales, strict=True)
            for leaf in jax.tree.leaves(edge)
        ]
    )


def main() -> None:
    """Print the table."""
    data = load("mnist")
    experiment = prepare(FEW, data)
    network = experiment.start(0).network
    if len(sys.argv) > 1:
        found = load_checkpoint(experiment, Path(sys.argv[1]) / "checkpoints", 0)
        if found is None:
            raise SystemExit(f"{sys.argv[1]} holds no checkpoint")
        network = found.state.network
    batches = [
        fetch(experiment.train, jnp.arange(n, n + FEW.batch), network)
        for n in range(0, BATCHES * FEW.batch, FEW.batch)
    ]
    key = jax.random.key(0)
    shape, classes = data.train_x.shape[1:], data.classes

    exact = build(dataclasses.replace(recipe("bptt-1h"), T=200, K=100), shape, classes, 1)
    gradient = jax.jit(lambda x, y: exact.learner.rule.update(exact.system, network, x, y, key)[0])
    gradients = [vector(gradient(x, y)) for x, y in batches]

    def update(case: Recipe, x: jax.Array, y: jax.Array) -> jax.Array:
        # A long free phase, so that what is seen is the nudged phase's.
        built = build(dataclasses.replace(case, T=60, schedule="constant"), shape, classes, 1)
        memory = built.learner.init(network)
        moved, _, _ = built.learner.learn(built.system, network, memory, (x, y), key)
        return vector(jax.tree.map(jnp.subtract, moved, network), case.lr)

    for name, case in CASES.items():
        updates = [jax.jit(update, static_argnums=0)(case, x, y) for x, y in batches]
        pairs = list(zip(updates, gradients, strict=True))
        lengths = [(jnp.linalg.norm(u), jnp.linalg.norm(g)) for u, g in pairs]
        cosines = [u @ g / (m * n) for (u, g), (m, n) in zip(pairs, lengths, strict=True)]
        angle = jnp.degrees(jnp.arccos(jnp.stack(cosines))).mean()
        ratio = jnp.stack([m / n for m, n in lengths]).mean()
        print(f"{name:38} {angle:5.1f} degrees   {ratio:9.3g} times as long")


if __name__ == "__main__":
    main()
