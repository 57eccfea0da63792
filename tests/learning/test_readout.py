"""Cross-entropy with a readout: gradients against autodiff, updates against BPTT, a training."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eqprop.data import named as data
from eqprop.dynamics.activations import sigm, tanh
from eqprop.dynamics.costs import CrossEntropy
from eqprop.dynamics.nudges import Centered, Holomorphic, OneSided
from eqprop.dynamics.relaxation import FixedSteps
from eqprop.dynamics.step import Dynamics, EnergyBased, Prototypical
from eqprop.dynamics.system import System
from eqprop.errors import EqpropError
from eqprop.learning.baselines import BPTT, RecurrentBackprop
from eqprop.learning.increments import Equilibrium, VectorField
from eqprop.learning.learners import Continual, WithOptimizer
from eqprop.learning.rules import AfterPhase, Rule
from eqprop.networks.connections import Dense
from eqprop.networks.convolution import AveragePool, NoPool, conv, conv_shape
from eqprop.networks.graphs import chain
from eqprop.networks.network import Network
from eqprop.networks.parameter_names import parameter_names
from eqprop.recipes.build import build
from eqprop.recipes.catalogue import recipe
from eqprop.recipes.recipe import Recipe
from eqprop.training.experiment import evaluate, prepare

pytestmark = pytest.mark.usefixtures("quick_compilation")
KEY, CLASSES, B = jax.random.key(0), 4, 5
INSIDE = Prototypical(sigm, inside=True)


def make(shapes, builds=None) -> tuple[Network, jax.Array, jax.Array]:
    network = chain(shapes, KEY, builds)
    readout = Dense.init(shapes[-1], (CLASSES,), jax.random.key(1))
    network = Network(network.shapes, network.edges, readout)
    network = jax.tree.map(lambda leaf: leaf.astype(jnp.result_type(float)), network)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.uniform(size=(B, *shapes[0])))
    return network, x, jnp.eye(CLASSES)[rng.integers(CLASSES, size=B)]


def dense() -> tuple[Network, jax.Array, jax.Array]:
    return make(((6,), (7,), (5,)))


def convolutional() -> tuple[Network, jax.Array, jax.Array]:
    pool = AveragePool(2)
    first = conv_shape((8, 8, 1), 3, 3, pool=pool)
    return make(((8, 8, 1), first, (6,)), [conv(3, pool=pool), Dense.init])


def test_the_loss_and_its_force(x64: None) -> None:
    rng = np.random.default_rng(1)
    scores, y = rng.normal(0, 3, (B, CLASSES)), np.eye(CLASSES)[rng.integers(CLASSES, size=B)]
    exponentials = np.exp(scores)
    softmax = exponentials / exponentials.sum(axis=1, keepdims=True)
    cost = CrossEntropy()
    loss = cost.loss(jnp.asarray(scores), jnp.asarray(y))
    np.testing.assert_allclose(loss, -np.log((softmax * y).sum(axis=1)), rtol=1e-13)
    force = cost.force(jnp.asarray(scores), jnp.asarray(y))
    np.testing.assert_allclose(force, y - softmax, rtol=1e-12, atol=1e-15)
    huge = cost.loss(jnp.asarray([[1e4, 0.0, -1e4, 0.0]]), jnp.eye(CLASSES)[:1])
    np.testing.assert_allclose(huge, 0, atol=1e-300)


def test_the_force_on_the_last_layer_comes_back_through_the_readout(x64: None) -> None:
    network, _, y = dense()
    states = tuple(jnp.asarray(np.random.default_rng(2).uniform(size=(B, n))) for n in (7, 5))
    assert isinstance(network.readout, Dense)
    system = System(INSIDE, CrossEntropy(), FixedSteps(1), 1)
    error = y - jax.nn.softmax(network.read(states[-1]))
    expected = error @ network.readout.weight.T
    hidden, force = system.force(network, states, y)
    assert hidden is None
    np.testing.assert_allclose(force, expected, rtol=1e-12)


def total(rule: Rule, system: System, problem) -> Network:
    network, x, y = problem
    return jax.jit(rule.update)(system, network, x, y, KEY)[0]


def distance(a: Network, b: Network) -> float:
    flat = [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(n)]) for n in (a, b)]
    return float(np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[1]))


@pytest.mark.parametrize("problem", [dense, convolutional])
def test_baselines_are_autodiff_through_the_readout(x64: None, problem) -> None:
    network, x, y = problem()
    system = System(INSIDE, CrossEntropy(), FixedSteps(40), 40)

    def loss(network: Network) -> jax.Array:
        s = network.zeros(B)
        for _ in range(40):
            s = INSIDE.step(network, x, s)
        return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(network.read(s[-1])), axis=1))

    exact = jax.tree.map(jnp.negative, jax.jit(jax.grad(loss))(network))
    assert distance(total(BPTT(), system, (network, x, y)), exact) < 1e-12
    recurrent = RecurrentBackprop(tolerance=1e-10)
    assert distance(total(recurrent, system, (network, x, y)), exact) < 1e-6


@pytest.mark.parametrize("increment", [Equilibrium(), VectorField()], ids=["ep", "vf"])
@pytest.mark.parametrize(
    ("problem", "dynamics"),
    [(dense, INSIDE), (convolutional, INSIDE), (dense, EnergyBased(tanh, 0.5))],
    ids=["dense", "conv", "real time"],
)
def test_updates_tend_to_bptt(x64: None, increment, problem, dynamics: Dynamics) -> None:
    system = System(dynamics, CrossEntropy(), FixedSteps(400), 60)
    one = problem()
    exact = total(BPTT(), system, one)
    betas = (0.02, 0.01)
    for nudge, order in ((OneSided, 1), (Centered, 2)):
        large, small = (
            distance(total(AfterPhase(increment, nudge(b)), system, one), exact) for b in betas
        )
        assert np.log2(large / small) == pytest.approx(order, abs=0.15)


def test_complex_nudges_go_through_the_readout(x64: None) -> None:
    system = System(INSIDE, CrossEntropy(), FixedSteps(200), 60)
    problem = dense()
    exact = total(BPTT(), system, problem)
    errors = [
        distance(total(AfterPhase(Equilibrium(), Holomorphic(0.1, n)), system, problem), exact)
        for n in (2, 4, 6)
    ]
    assert all(b < 0.1 * a for a, b in itertools.pairwise(errors))


def test_rates_and_names() -> None:
    network, _, _ = dense()
    assert parameter_names(network) == ["W1", "b1", "W2", "b2", "Wout", "bout"]
    assert len(parameter_names(network)) == len(jax.tree.leaves(network))
    scaled = network.scale(jnp.asarray([2.0, 3.0, 5.0]))
    for now, before, factor in zip(
        jax.tree.leaves(scaled), jax.tree.leaves(network), (2, 2, 3, 3, 5, 5), strict=True
    ):
        np.testing.assert_allclose(now, factor * before, rtol=1e-6)
    rule = AfterPhase(Equilibrium(), OneSided(0.1))
    WithOptimizer(rule, (0.1,) * 3, optax.identity()).init(network)
    with pytest.raises(EqpropError, match=r"2 learning rate\(s\) .* for 3 sets of weights"):
        WithOptimizer(rule, (0.1,) * 2, optax.identity()).init(network)
    with pytest.raises(EqpropError, match="continual rule"):
        Continual(Equilibrium(), OneSided(0.1), (0.1,) * 3).init(network)


def ours(**changes) -> Recipe:
    fields = {"dataset": "digits", "hidden": (32,), "cost": "cross-entropy", "inside": True}
    return dataclasses.replace(recipe("ep-1h"), **fields | changes)


def test_what_cannot_be() -> None:
    with pytest.raises(EqpropError, match="cost cross-entropy: a continual rule"):
        ours(rule="c-ep")
    with pytest.raises(EqpropError, match="there is none: give --hidden"):
        ours(hidden=())
    with pytest.raises(EqpropError, match="layer 2 is a readout"):
        build(ours(lateral=(2,), lr=(0.1,) * 3), (8, 8), 10, 3)
    network, _, _ = convolutional()
    maps = conv(3, pool=NoPool())(network.shapes[1], (1, 1, 3), KEY)
    with pytest.raises(EqpropError, match="give a readout"):
        Network(network.shapes[:2], network.edges[:1], maps)


@pytest.mark.parametrize(
    "changes",
    [{"hidden": (32, 16), "lr": (0.5, 0.2, 0.2)}, {"channels": (8,), "hidden": (), "kernel": 3}],
    ids=["dense", "conv"],
)
def test_it_learns_digits(changes: dict) -> None:
    # Rates that fall to 0, so that the last epoch is no accident of rounding.
    fields = {"lr": (0.5, 0.2), "nudge": "centered", "schedule": "cosine", "epochs": 8}
    experiment = prepare(ours(**fields | changes), data.load("digits"))
    state = experiment.start(0)
    names = parameter_names(state.network)
    assert names[-2:] == ["Wout", "bout"]
    for _ in range(8):
        order = experiment.trainer.order(state, experiment.train)
        state = experiment.trainer.next_epoch(
            experiment.trainer.advance(state, experiment.train, order, experiment.batches)
        )
    (score,) = evaluate(experiment.trainer, state.network, experiment.test)
    # Logistic regression on the pixels, which this contains, errs on 4 to 5 %; chance on 90 %.
    assert score["error"] < 15
    assert score["loss"] < 0.5 * np.log(10)


def test_the_recipe_reads_out_the_last_hidden_layer() -> None:
    network = jax.eval_shape(build(ours(lateral=(1,), lr=(0.1,) * 3), (8, 8), 10, 3).init, KEY)
    assert network.shapes == ((64,), (32,))
    assert network.score_shape == (10,)
    assert [(e.pre, e.post) for e in network.edges] == [(0, 1), (1, 1)]
