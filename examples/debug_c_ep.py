"""C-EP with tiny learning rates, its sum applied as EP's: the check that C-EP is EP but for the
moving weights (arXiv:2005.04169, appendix, "debug C-EP").

    python examples/debug_c_ep.py [MINIBATCHES]

ep-1h and ep-2h learn the first minibatches of MNIST, 500 unless told, in double precision: by EP,
and by C-EP with learning rates 1e-3 and 1e-5 times as large, whose change of the weights is divided
by that factor after each minibatch. Prints the largest difference of a weight, relative to the
largest change of one since the start, and the error of both on the first 1000 test images.
"""

import dataclasses
import sys

import jax
import jax.numpy as jnp

from eqprop.data.named import Dataset, load
from eqprop.networks.network import Network
from eqprop.recipes.build import build
from eqprop.recipes.catalogue import recipe
from eqprop.recipes.recipe import Recipe
from eqprop.training.experiment import prepare
from eqprop.training.trainer import fetch

FACTORS = (1e-3, 1e-5)


def largest(a: Network, b: Network) -> float:
    """The largest difference of a parameter."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(jnp.max(jnp.abs(p - q))) for p, q in pairs)


def compare(ep: Recipe, data: Dataset, minibatches: int) -> None:
    """Print the rows of one recipe."""
    key, shape = jax.random.key(0), data.train_x.shape[1:]
    experiment = prepare(ep, data)
    start = experiment.start(0).network
    system = build(ep, shape, data.classes, 1).system
    batches = [
        fetch(experiment.train, jnp.arange(n, n + ep.batch), start)
        for n in range(0, minibatches * ep.batch, ep.batch)
    ]
    tests = fetch(experiment.test, jnp.arange(1000), start)

    @jax.jit
    def error(network: Network, x: jax.Array, y: jax.Array) -> jax.Array:
        states, _ = system.free(system.clamp(network, x), x)
        return 100 * jnp.mean(states[-1].argmax(axis=1) != y.argmax(axis=1))

    def learnt(rule: str, factor: float) -> Network:
        """The network after the minibatches, with learning rates and changes scaled."""
        used = dataclasses.replace(ep, rule=rule, lr=tuple(factor * rate for rate in ep.lr))
        learner = build(used, shape, data.classes, 1).learner

        @jax.jit
        def learn(network: Network, x: jax.Array, y: jax.Array) -> Network:
            memory = learner.init(network)
            moved = learner.learn(system, network, memory, (x, y), key)[0]
            return jax.tree.map(lambda new, old: old + (new - old) / factor, moved, network)

        network = start
        for x, y in batches:
            network = learn(network, x, y)
        return network

    plain = learnt("ep", 1.0)
    print(f"{ep.name}: {minibatches} minibatches, EP: test error {error(plain, *tests):.1f} %")
    for factor in FACTORS:
        other = learnt("c-ep", factor)
        apart = largest(other, plain) / largest(plain, start)
        print(f"  C-EP, rates x {factor:g}: {error(other, *tests):.1f} %, apart {apart:.1e}")


def main() -> None:
    """Print the table."""
    jax.config.update("jax_enable_x64", True)
    minibatches = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    data = load("mnist")
    for name in ("ep-1h", "ep-2h"):
        compare(dataclasses.replace(recipe(name), dtype="float64"), data, minibatches)


if __name__ == "__main__":
    main()
