"""Divergence: what is named is where the numbers were lost. Oracles: faults put where we know them,
and the training followed minibatch by minibatch, and phase by phase, in NumPy's eyes.
"""

import dataclasses
import math
from typing import override

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trainings import train

from eqprop.dynamics.step import Prototypical
from eqprop.learning.learners import Learner
from eqprop.networks.network import Network
from eqprop.recipes.build import build
from eqprop.recipes.catalogue import recipe
from eqprop.training.divergence import LIMIT, copy, find, whole
from eqprop.training.trainer import Examples, Trainer, TrainState

pytestmark = pytest.mark.usefixtures("quick_compilation")

CLASSES, BATCHES = 5, 12
FACTORS = (1.0, math.nan, 1e12)


class Faulty(Learner):
    """A learner with a plan of faults, one of ``FACTORS`` for each minibatch and edge."""

    inner: Learner

    @override
    def init(self, network: Network):
        plan = jnp.zeros((BATCHES, len(network.edges)), int)
        return self.inner.init(network), jnp.asarray(0), plan

    @override
    def learn(self, system, network, memory, batch, key):
        inner, count, plan = memory
        network, inner, free = self.inner.learn(system, network, inner, batch, key)
        faulty = network.scale(jnp.asarray(FACTORS)[plan[count]])
        return faulty, (inner, count + 1, plan), free


def setup(image=(4, 3), **changes) -> tuple[Trainer, TrainState, Examples]:
    fields = {"hidden": (6,), "T": 6, "K": 3, "batch": 4} | changes
    built = build(dataclasses.replace(recipe("ep-1h"), **fields), image, CLASSES, BATCHES)
    trainer = Trainer(built.system, built.learner, 4)
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(4 * BATCHES, *image), dtype=np.uint8)
    labels = rng.integers(CLASSES, size=4 * BATCHES, dtype=np.uint8)
    state = trainer.start(built.init, 0)
    return trainer, state, Examples.put(images, labels, state.network)


ENERGY = {"setting": "energy", "activation": "hardsigm"}
RULES = {
    "ep": {},
    "c-vf": {"rule": "c-vf", "angle": 45.0, "nudge": "random-sign"},
    "ep-conv": {"image": (6, 6), "channels": (2,), "hidden": (), "kernel": 3},
    "bptt": {"rule": "bptt"},
}
MORE_RULES = {
    "vf": {"rule": "vf", "angle": 90.0, "nudge": "centered"},
    "c-ep": {"rule": "c-ep"},
    "rbp": {"rule": "rbp"},
    "c-ep-conv": RULES["ep-conv"] | {"rule": "c-ep"},
    "adam": {"optimizer": "adam", "sweeps": True, "tolerance": 1e-3},
    "energy": ENERGY,
}


@pytest.mark.parametrize(
    "changes",
    [
        *(pytest.param(changes, id=name) for name, changes in RULES.items()),
        *(
            pytest.param(changes, id=name, marks=pytest.mark.slow)
            for name, changes in MORE_RULES.items()
        ),
    ],
)
def test_a_fault_is_found_where_it_was_put(changes) -> None:
    trainer, state, examples = setup(**changes)
    learner = Faulty(trainer.learner)
    trainer = Trainer(trainer.system, learner, trainer.batch)
    state = eqx.tree_at(lambda s: s.memory, state, learner.init(state.network))
    order = trainer.order(state, examples)
    for fault, minibatch, edge in ((1, 0, 1), (2, 7, 0)):
        faulty = eqx.tree_at(
            lambda s: s.memory[2],
            copy(state),
            state.memory[2].at[minibatch, edge].set(fault),
        )
        assert whole(faulty)
        found = find(trainer, examples, order, copy(faulty), BATCHES)
        assert found == (minibatch, f"the weights from layer {edge} to layer {edge + 1}", 0)
        # A stretch that begins within the epoch, and ends with the fault.
        begun = trainer.advance(faulty, examples, order, minibatch)
        assert find(trainer, examples, order, begun, minibatch + 1) == found


def beyond(arrays) -> bool:
    return not all(np.max(np.abs(np.asarray(a))) <= LIMIT for a in arrays)


def by_minibatch(trainer: Trainer, state: TrainState, examples: Examples, order) -> tuple[int, str]:
    """Each minibatch by itself, its free phase step by step."""
    system, learn = trainer.system, jax.jit(trainer.learner.learn)
    network, memory = state.network, state.memory
    for n, rows in enumerate(order):
        here = dataclasses.replace(state, network=network, minibatch=jnp.asarray(n, jnp.int32))
        x, y = trainer.fetch(here, examples, rows)
        clamped = system.clamp(network, x)
        states = clamped.zeros(len(x))
        advance = jax.jit(system.free_step(clamped, x))
        for step in range(1, system.relaxation.steps + 1):
            states = advance(states)
            for layer, s in enumerate(states, 1):
                if beyond([s]):
                    return n, f"the states of layer {layer}, in step {step} of the free phase,"
        network, memory, _ = learn(system, network, memory, (x, y), jax.random.key(0))
        bad = [
            f"from layer {e.pre} to layer {e.post}"
            for e in network.edges
            if beyond(jax.tree.leaves(e))
        ]
        if bad:
            return n, f"the weights {', '.join(bad)}"
    raise AssertionError("it does not diverge")


@pytest.mark.parametrize(
    ("changes", "linear"),
    [
        ({"lr": (1e9, 3e8)}, False),
        (ENERGY | {"clip": False, "dt": 1.0, "lr": (0.1, 5e7), "T": 20}, False),
        ({"lr": (30.0, 30.0), "hidden": (6, 6), "T": 40}, True),
        pytest.param(
            {"lr": (3.0, 3.0), "rule": "c-ep", "hidden": (6, 6), "T": 40},
            True,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_is_named_is_what_following_it_finds(changes, linear) -> None:
    """Too high learning rates; with units that do not saturate, so that states explode."""
    depth = len(changes.get("hidden", (6,)))
    changes = changes | {"lr": (*changes["lr"], *changes["lr"][:1] * (depth - 1))}
    trainer, state, examples = setup(**changes)
    if linear:
        system = dataclasses.replace(trainer.system, dynamics=Prototypical(lambda v: v))
        trainer = Trainer(system, trainer.learner, trainer.batch)
    order = trainer.order(state, examples)
    expected = by_minibatch(trainer, state, examples, order)
    found = find(trainer, examples, order, state, BATCHES)
    assert found == (*expected, 0)


def test_states_are_named_with_their_step() -> None:
    trainer, state, examples = setup(hidden=(6, 6), lr=(0.1,) * 3, T=60)
    # Two units that excite each other, and nothing else.
    system = dataclasses.replace(trainer.system, dynamics=Prototypical(lambda v: v))
    trainer = Trainer(system, trainer.learner, trainer.batch)
    network = eqx.tree_at(
        lambda n: (n.edges[1].connection.bias, n.edges[1].connection.weight),
        jax.tree.map(jnp.zeros_like, state.network),
        (jnp.zeros(6).at[0].set(1.0), jnp.zeros((6, 6)).at[0, 0].set(2.0)),
    )
    order = trainer.order(state, examples)
    found = find(trainer, examples, order, eqx.tree_at(lambda s: s.network, state, network), 1)
    layer_1, layer_2, step = 0.0, 0.0, 0
    while max(layer_1, layer_2) <= LIMIT:
        layer_1, layer_2, step = 2 * layer_2, 1 + 2 * layer_1, step + 1
    layer = 1 if layer_1 > LIMIT else 2
    assert found == (0, f"the states of layer {layer}, in step {step} of the free phase,", 0)


def test_what_else_may_be_lost() -> None:
    trainer, state, examples = setup(optimizer="momentum", lr=(0.0, 0.0))
    order = trainer.order(state, examples)
    spoilt = jax.tree.map(
        lambda leaf: leaf.at[0].set(math.inf) if leaf.ndim else leaf, state.memory
    )
    assert not whole(eqx.tree_at(lambda s: s.memory, state, spoilt))
    found = find(trainer, examples, order, eqx.tree_at(lambda s: s.memory, copy(state), spoilt), 1)
    assert found.where in {
        "the weights from layer 0 to layer 1, from layer 1 to layer 2",  # 0 * inf
        "the numbers that the optimizer keeps",
    }
    lost = eqx.tree_at(lambda s: s.totals["residual"], state, jnp.asarray(math.nan))
    assert not whole(lost)
    assert "the residual" in find(trainer, examples, order, lost, 1).where


def test_asymmetric_ep_tells_once_that_free_phases_do_not_settle(tmp_path, capsys) -> None:
    options = ("--rule", "aep", "--angle", "90", "--K", "2", "--epochs", "2", "--beta", "0.1")
    assert train(tmp_path / "short", *options, "--T", "2") == 0
    out = capsys.readouterr().out
    assert out.count("asymmetric EP needs a settled free phase") == 1
    assert "beta is 0.1" in out
    assert train(tmp_path / "long", *options, "--T", "60") == 0
    assert "settled" not in capsys.readouterr().out
