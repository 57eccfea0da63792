"""Appendix of arXiv:2005.04169, "debug C-EP": with tiny rates, its sum applied as EP's, C-EP is EP.

``examples/debug_c_ep.py`` has the check on MNIST.
"""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from eqprop.networks.model import Model
from eqprop.recipes.build import build
from eqprop.recipes.catalogue import recipe


@pytest.mark.parametrize(
    ("name", "hidden", "steps"), [("ep-1h", (8,), (30, 10)), ("ep-2h", (8, 7), (60, 12))]
)
def test_c_ep_with_tiny_rates_is_ep(name, hidden, steps, x64: None) -> None:
    T, K = steps
    ep = dataclasses.replace(recipe(name), dtype="float64", hidden=hidden, T=T, K=K, batch=4)
    xs, targets = jax.random.split(jax.random.key(1))
    x = jax.random.uniform(xs, (5, 4, 12), "float64")
    y = jax.nn.one_hot(jax.random.randint(targets, (5, 4), 0, 3), 3, dtype="float64")
    built = build(ep, (12,), 3, 1)
    system, init = built.system, built.init
    start = init(jax.random.key(0))

    def learnt(rule: str, factor: float) -> Model:
        used = dataclasses.replace(ep, rule=rule, lr=tuple(factor * rate for rate in ep.lr))
        learner = build(used, (12,), 3, 1).learner

        @jax.jit
        def learn(network: Model, x, y) -> Model:
            memory = learner.init(network)
            moved = learner.learn(system, network, memory, (x, y), jax.random.key(0))[0]
            return jax.tree.map(lambda new, old: old + (new - old) / factor, moved, network)

        network = start
        for minibatch in zip(x, y, strict=True):
            network = learn(network, *minibatch)
        return network

    def largest(a: Model, b: Model) -> float:
        pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        return max(float(jnp.max(jnp.abs(p - q))) for p, q in pairs)

    plain = learnt("ep", 1.0)
    coarse, fine = (
        largest(learnt("c-ep", factor), plain) / largest(plain, start) for factor in (1e-3, 1e-5)
    )
    assert fine < 1e-3
    assert coarse / fine == pytest.approx(100, rel=0.05)  # of first order in the rates
