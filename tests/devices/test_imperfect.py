"""Neurons, reading and feedback of a device against formulas, and what is left of an ideal one."""

import dataclasses
import functools
from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqprop.devices.feedback import Copied, with_copies
from eqprop.devices.neurons import ImperfectNeurons
from eqprop.devices.noise import normal
from eqprop.devices.reading import ImperfectReading
from eqprop.devices.record import Device
from eqprop.dynamics.activations import activation
from eqprop.dynamics.costs import SquaredError
from eqprop.dynamics.nudges import Centered, Nudge, OneSided
from eqprop.dynamics.relaxation import FixedSteps
from eqprop.dynamics.step import EnergyBased, Place, Prototypical
from eqprop.dynamics.system import System
from eqprop.learning.asymmetric import AsymmetricEP, AsymmetricPhase
from eqprop.learning.increments import Equilibrium, VectorField
from eqprop.learning.learners import Continual
from eqprop.learning.rules import AfterPhase
from eqprop.learning.writing import Writing
from eqprop.networks.graphs import chain
from eqprop.networks.network import Network
from eqprop.recipes.build import build
from eqprop.recipes.catalogue import recipe

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(0)
SHAPES = [(6,), (300,), (200,), (4,)]
X = jax.random.uniform(KEY, (5, 6))
Y = jax.nn.one_hot(jnp.arange(5) % 4, 4)


def system(device: Device | None, key: int = 0, steps: int = 8) -> System:
    exact = Prototypical(activation("sigm"))
    device = device or Device()
    at = jax.random.key(key)
    return System(
        ImperfectNeurons(exact, device, at) if device.computes else exact,
        SquaredError(),
        FixedSteps(20),
        steps,
        reading=ImperfectReading(device, at) if device.reads else None,
    )


def network(angle: float | None = None) -> Network:
    return chain(SHAPES, KEY, angle=angle)


def driven(device: Device, key: int = 0, drive: float = 0.3) -> tuple[np.ndarray, ...]:
    """What drives neurons all of which are asked for the same drive, by way of an identity."""
    exact = Prototypical(lambda v: v)
    dynamics = ImperfectNeurons(exact, device, jax.random.key(key))
    states = network().zeros(500)
    drives = tuple(jnp.full_like(s, drive) for s in states)
    new = dynamics.react(states, drives, (None,) * 3, Place(network(), (1, 2, 3)))
    return tuple(np.asarray(s, np.float64) for s in new)


def test_gains_and_thresholds_spread_and_stay():
    gains = driven(Device(gain_spread=0.2))[0] / 0.3
    thresholds = 0.3 - driven(Device(threshold_spread=0.1))[0]
    for values, mean, std in ((gains, 1, 0.2), (thresholds, 0, 0.1)):
        assert np.all(values == values[0])  # of a neuron, the same for all examples
        assert values[0].mean() == pytest.approx(mean, abs=5 * std / np.sqrt(300))
        assert values[0].std() == pytest.approx(std, rel=0.15)
    assert np.all(driven(Device(gain_spread=0.2), key=5)[0] == driven(Device(gain_spread=0.2))[0])
    other = driven(Device(gain_spread=0.2, chip=1))[0][0] / 0.3
    assert abs(np.corrcoef(other, gains[0])[0, 1]) < 0.3


def test_noise_of_a_step_differs_between_examples_steps_and_layers():
    device = Device(step_noise=0.5)
    noise = [layer - 0.3 for layer in driven(device)]
    assert noise[0].std() == pytest.approx(0.5, rel=0.02)
    assert abs(noise[0].mean()) < 0.01
    assert noise[1].std() == pytest.approx(0.5, rel=0.02)
    again, later = driven(device)[0] - 0.3, driven(device, key=1)[0] - 0.3
    np.testing.assert_array_equal(again, noise[0])
    other_drive = driven(device, drive=np.nextafter(np.float32(0.3), 1).item())[0] - 0.3
    for other in (later, other_drive, noise[1][:, :300] if noise[1].shape[1] >= 300 else later):
        assert abs(np.corrcoef(other.ravel(), noise[0].ravel())[0, 1]) < 0.02


def read(device: Device, value: float = 0.4, *, nudged: bool, key: int = 0) -> np.ndarray:
    reading = ImperfectReading(device, jax.random.key(key))
    states = tuple(jnp.full((400, *shape), value) for shape in SHAPES[1:])
    return np.asarray(reading(states, nudged=nudged)[0], np.float64)


@pytest.mark.parametrize("samples", [1, 4, 100])
def test_noise_of_reading_falls_with_the_samples_averaged(samples):
    device = Device(read_noise=0.2, samples=samples)
    error = read(device, nudged=True) - 0.4
    assert error.std() == pytest.approx(0.2 / np.sqrt(samples), rel=0.02)
    assert abs(error.mean()) < 5 * 0.2 / np.sqrt(samples * error.size)
    free = read(device, nudged=False) - np.float32(0.4)
    assert abs(np.corrcoef(free.ravel(), error.ravel())[0, 1]) < 0.02
    # A state is read once: whoever reads it again sees the same.
    np.testing.assert_array_equal(read(device, nudged=True) - 0.4, error)


def test_offset_is_of_nudged_states_and_stays():
    device = Device(read_offset=0.03)
    np.testing.assert_array_equal(read(device, nudged=False), np.float32(0.4))
    offset = read(device, nudged=True) - np.float32(0.4)
    assert np.ptp(offset, axis=0).max() == 0
    assert offset[0].std() == pytest.approx(0.03, rel=0.15)
    np.testing.assert_array_equal(read(device, nudged=True, key=7) - np.float32(0.4), offset)


@pytest.mark.parametrize("bits", [1, 4, 10])
def test_a_converter_errs_by_half_a_step_at_most(bits):
    device = Device(adc_bits=bits, adc_low=-0.5, adc_high=1.5)
    reading = ImperfectReading(device, KEY)
    states = (jnp.linspace(-0.5, 1.5, 4001)[None],)
    seen = np.asarray(reading(states, nudged=True)[0])
    step = 2 / (2**bits - 1)
    assert np.abs(seen - states[0]).max() <= step / 2 * (1 + 1e-5)
    assert len(np.unique(seen)) == 2**bits
    outside = reading((jnp.asarray([[-3.0, 9.0]]),), nudged=True)[0]
    np.testing.assert_allclose(outside[0], [-0.5, 1.5], rtol=1e-6)


def update_noise(device: Device, nudge: Nudge) -> float:
    """The standard deviation of an update over readings, root mean square over weights."""
    net = network()

    @jax.jit
    def update(key):
        at = system(device).at(key)
        return AfterPhase(Equilibrium(), nudge).update(at, net, X, Y, KEY)[0]

    updates = [update(jax.random.key(n)) for n in range(40)]
    weights = [np.asarray(u.edges[1].connection.weight) for u in updates]
    return float(np.sqrt(np.var(weights, axis=0, ddof=1).mean()))


def test_noise_of_an_update_is_that_of_the_states_over_beta():
    noise = {
        (sigma, beta, samples): update_noise(
            Device(read_noise=sigma, samples=samples), OneSided(beta)
        )
        for sigma, beta, samples in ((1e-3, 0.1, 1), (1e-3, 0.4, 1), (2e-3, 0.1, 1), (1e-3, 0.1, 9))
    }
    base = noise[1e-3, 0.1, 1]
    assert base / noise[1e-3, 0.4, 1] == pytest.approx(4, rel=0.1)
    assert noise[2e-3, 0.1, 1] / base == pytest.approx(2, rel=0.1)
    assert base / noise[1e-3, 0.1, 9] == pytest.approx(3, rel=0.1)
    # Two readings 2 beta apart have half the noise of two that are beta apart.
    centered = update_noise(Device(read_noise=1e-3), Centered(0.1))
    assert base / centered == pytest.approx(2, rel=0.1)


def updates_of(device: Device | None, nudge: Nudge) -> np.ndarray:
    rule = AfterPhase(Equilibrium(), nudge)
    made = rule.update(system(device), network(), X, Y, KEY)[0]
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(made)])


def test_a_centered_nudge_cancels_an_offset():
    """To first order: what is left is the offset times the update, not the offset over beta."""
    device = Device(read_offset=0.01)
    off = {}
    for nudge in (OneSided(0.1), Centered(0.1)):
        ideal = updates_of(None, nudge)
        off[type(nudge)] = np.linalg.norm(updates_of(device, nudge) - ideal)
        if isinstance(nudge, Centered):
            assert off[Centered] < 0.05 * np.linalg.norm(ideal)
    assert off[OneSided] > 50 * off[Centered]


def test_feedback_weights_spread_around_those_they_copy():
    net = with_copies(network(), Device(feedback_spread=0.1))
    first, second, _ = net.edges
    assert not isinstance(first, Copied)  # nothing goes back to the input
    assert isinstance(second, Copied)
    one = jnp.eye(200)
    back = np.asarray(second.feedback(jnp.zeros((200, 300)), one))
    weight = np.asarray(second.connection.weight)  # pyright: ignore[reportAttributeAccessIssue]
    ratio = back / weight.T
    assert ratio.mean() == pytest.approx(1, abs=0.01)
    assert ratio.std() == pytest.approx(0.1, rel=0.02)
    np.testing.assert_array_equal(
        second.forward(jnp.ones((1, 300))), second.connection(jnp.ones((1, 300)))
    )
    untied = with_copies(network(angle=0.0), Device(feedback_spread=0.1)).edges[1]
    ratio = np.asarray(untied.back.weight / untied.ahead.weight)
    assert ratio.std() == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize("rule", [Equilibrium(), VectorField()])
def test_rules_take_copies_for_the_weights_themselves(rule):
    """The rule sees a tied net; only the states, which the copies drive, are others."""
    net = network()
    copied = with_copies(net, Device(feedback_spread=0.1))
    r = tuple(jax.random.uniform(jax.random.key(n), (3, *s)) for n, s in enumerate(SHAPES))
    q = tuple(jax.random.uniform(jax.random.key(9 + n), (3, *s)) for n, s in enumerate(SHAPES))
    q = (r[0], *q[1:])
    ours, plain = (rule.between(n, r, q) for n in (copied, net))
    for a, b in zip(*map(jax.tree.leaves, (ours, plain)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


IMPERFECT = {
    "gain_spread": 0.1, "threshold_spread": 0.1, "read_noise": 0.01, "read_offset": 0.01,
    "adc_bits": 6, "feedback_spread": 0.1, "step_noise": 0.1,
}  # fmt: skip


@functools.cache
def trained(rule: str, device: Device) -> np.ndarray:
    """By how much a minibatch moves all weights; that of an ideal device serves many tests."""
    asked = dataclasses.replace(
        recipe("ep-1h"), rule=rule, hidden=(300, 200), lr=(1e-3,) * 3, K=8, device=device
    )
    built, key = build(asked, (6,), 4, 10), jax.random.key(3)
    net, learner, at = built.init(KEY), built.learner, built.system.at(key)
    learn = jax.jit(lambda n: learner.learn(at, n, learner.init(n), (X, Y), key)[0])
    moved = jax.tree.map(jnp.subtract, learn(net), net)
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(moved)])


@pytest.mark.parametrize("field", IMPERFECT)
@pytest.mark.parametrize("rule", ["ep", "vf", "aep", "c-ep", "c-aep"])
def test_every_imperfection_reaches_every_rule_and_vanishes_with_its_size(field, rule):
    most = IMPERFECT[field]
    least = 24 if field == "adc_bits" else 1e-5 * most
    small, large = (
        trained(rule, Device(**{field: value}, adc_low=-1.0, adc_high=2.0))
        for value in (least, most)
    )
    ideal = trained(rule, Device())
    size = np.linalg.norm(ideal)
    off = np.linalg.norm(large - ideal) / size
    # In a continual phase, and in the field of a moving state, an offset is the same before
    # and after, and drops out of what is seen.
    if (field, rule) not in {("read_offset", "c-aep")}:
        assert off > 1e-4
    assert np.linalg.norm(small - ideal) / size < 0.02
    assert np.isfinite(large).all()


def test_an_ideal_device_changes_not_one_bit():
    def program(device: Device, rule: str) -> str:
        asked = dataclasses.replace(recipe("ep-1h"), hidden=(20,), rule=rule, device=device)
        built = build(asked, (6,), 4, 10)
        net = built.init(KEY)
        learn = lambda n, key: built.learner.learn(  # noqa: E731
            built.system.at(key), n, built.learner.init(n), (X, Y), key
        )
        return str(jax.make_jaxpr(learn)(net, KEY))

    for rule in ("ep", "c-ep", "vf", "aep", "bptt"):
        named = Device(name="mine", chip=3, samples=9, scale=(2.0,), adc_high=7.0)
        assert program(named, rule) == program(Device(), rule)


def test_continual_phases_in_closed_form_read_as_step_by_step():
    """The cheap forms of a continual phase see what the plain form sees, in real time as well."""
    # Noise is a function of the last bits, in which the two differ.
    device = Device(gain_spread=0.1, threshold_spread=0.1, read_offset=0.01)
    net, exact = network(), EnergyBased(activation("sigm"), 0.2)
    at = system(device)
    at = dataclasses.replace(
        at,
        dynamics=ImperfectNeurons(exact, device, KEY),
        relaxation=FixedSteps(9),
    )

    class Plain(Equilibrium.__base__):  # pyright: ignore
        def edge(self, edge, pre, post):
            return Equilibrium().edge(edge, pre, post)

    moved = []
    for increment in (Equilibrium(), Plain()):
        learner = Continual(increment, OneSided(0.3), (0.1, 0.1, 0.1))
        learn = jax.jit(lambda n, it=learner: it.learn(at, n, it.init(n), (X, Y), KEY)[0])
        moved.append(learn(net))
    for a, b, start in zip(*map(jax.tree.leaves, (*moved, net)), strict=True):
        np.testing.assert_allclose(a - start, b - start, rtol=0.02, atol=2e-6)


def test_asymmetric_ep_reads_its_fixed_point_as_others_read_states():
    """What sends is read by two bits, as if it were exactly that."""
    net, exact, coarse = network(), system(None), system(Device(adc_bits=2))
    free = exact.free(exact.clamp(net, X), X).states
    read = coarse.read(free, nudged=False)
    change = tuple(jax.random.normal(jax.random.key(n), s.shape) for n, s in enumerate(free))
    ours, wanted, unread = (
        AsymmetricPhase(own, net, X, Y, states).increment(change)
        for own, states in ((coarse, free), (exact, read), (exact, free))
    )
    pairs = zip(*map(jax.tree.leaves, (ours, wanted)), strict=True)
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    weights = (np.asarray(it.edges[2].connection.weight) for it in (ours, unread))  # pyright: ignore[reportAttributeAccessIssue]
    assert not np.allclose(*weights, atol=1e-3)


def test_asymmetric_ep_takes_the_gains_of_its_neurons_for_what_they_are():
    """AEP differentiates the step that there is, gains included, so its update is that of BPTT."""
    device = Device(gain_spread=0.3, threshold_spread=0.2)
    from eqprop.learning.baselines import BPTT

    at = dataclasses.replace(system(device, steps=15), relaxation=FixedSteps(60))
    net = network(angle=60.0)
    ours = AsymmetricEP(Centered(1e-2)).update(at, net, X, Y, KEY)[0]
    exact = BPTT().update(at, net, X, Y, KEY)[0]
    a, b = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(u)]) for u in (ours, exact))
    assert np.linalg.norm(a - b) < 0.02 * np.linalg.norm(b)


def test_a_baseline_reads_nothing_for_a_readout_either():
    base = dataclasses.replace(recipe("bptt-1h"), cost="cross-entropy", hidden=(8,))
    updates = []
    for device in (Device(), Device(read_noise=0.1)):
        built = build(dataclasses.replace(base, device=device), (6,), 4, 1)
        net = built.init(KEY)
        y = jax.nn.one_hot(jnp.arange(len(X)) % 4, 4)
        updates.append(built.learner.rule.update(built.system.at(KEY), net, X, y, KEY)[0])
    for a, b in zip(*map(jax.tree.leaves, updates), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_spread_differs_from_layer_to_layer():
    n = 200

    def apart(one: np.ndarray, other: np.ndarray) -> bool:
        return abs(np.corrcoef(np.ravel(one)[:n], np.ravel(other)[:n])[0, 1]) < 5 / np.sqrt(n)

    for device in (Device(gain_spread=0.2), Device(threshold_spread=0.1)):
        first, second, _ = driven(device)
        assert apart(first[0], second[0])
    reading = ImperfectReading(Device(read_offset=0.03), KEY)
    first, second, _ = reading(network().zeros(1), nudged=True)
    assert apart(first, second)
    plain, copied = network(), with_copies(network(), Device(feedback_spread=0.1))
    ratios = []
    for edge, of in zip(copied.edges[1:], plain.edges[1:], strict=True):
        weight = np.asarray(of.connection.weight)  # pyright: ignore[reportAttributeAccessIssue]
        n_pre, n_post = weight.shape
        back = edge.feedback(jnp.zeros((n_post, n_pre)), jnp.eye(n_post))
        ratios.append(np.asarray(back).T / weight)
    assert apart(*ratios)


def test_noise_of_a_step_is_another_in_another_minibatch():
    net, at = network(), system(Device(step_noise=0.1))
    settle = jax.jit(lambda key: at.at(key).free(at.clamp(net, X), X).states[0])
    ends = [settle(jax.random.key(n)) for n in (0, 0, 1)]
    np.testing.assert_array_equal(ends[0], ends[1])
    assert not np.allclose(ends[0], ends[2], atol=1e-3)


def test_the_two_sides_of_a_nudge_have_noise_of_their_own_from_the_first_step_on():
    """They start from the same states: the force alone tells them apart."""
    device, net = Device(step_noise=0.5), network()
    dynamics = ImperfectNeurons(Prototypical(lambda v: v), device, KEY)
    states, noise = net.zeros(500), []
    for force in (0.1, -0.1):
        forces = (None, None, jnp.full_like(states[-1], force))
        drives = tuple(jnp.zeros_like(s) for s in states)
        new = dynamics.react(states, drives, forces, Place(net, (1, 2, 3)))
        noise.append(np.ravel(new[-1] - force))
    assert abs(np.corrcoef(noise)[0, 1]) < 5 / np.sqrt(noise[0].size)


def test_a_step_of_asymmetric_ep_sees_states_as_they_are_read():
    net, exact, coarse = network(), system(None), system(Device(adc_bits=3))
    free = exact.free(exact.clamp(net, X), X).states
    ours, moved = AsymmetricPhase(coarse, net, X, Y, free), free
    advance = jax.jit(lambda states: ours.advance(states, jnp.asarray(0.5)))
    for _ in range(3):
        before, (moved, seen) = moved, advance(moved)
    read = (coarse.read(states, nudged=True) for states in (before, moved))
    expected = ours.increment(tuple(b - a for a, b in zip(*read, strict=True)))
    for found, wanted in zip(*map(jax.tree.leaves, (seen, expected)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rule", ["ep", "c-ep"])
def test_weights_drift_and_pulses_are_counted_once_a_minibatch(rule):
    """However often they are written in it."""
    device = Device(drift=0.1, dw_min=1e-3)
    asked = dataclasses.replace(recipe("ep-1h"), rule=rule, hidden=(20,), K=6, device=device)
    still, learns = (
        build(dataclasses.replace(asked, lr=(rate, rate)), (6,), 4, 10) for rate in (0.0, 1.0)
    )
    net = still.init(KEY)

    @eqx.filter_jit
    def learn(built, net, memory, n):
        return built.learner.learn(built.system, net, memory, (X, Y), jax.random.key(n))[:2]

    later, _ = learn(still, net, still.learner.init(net), 0)
    for a, b in zip(*map(jax.tree.leaves, (later, net)), strict=True):
        np.testing.assert_allclose(a, 0.9 * b, rtol=1e-6)
    first, memory = learn(learns, net, learns.learner.init(net), 1)
    pulses = [
        float(learns.learner.seen(learn(learns, first, held, 2)[1])["pulses"])
        for held in (memory, learns.learner.init(first))
    ]
    assert pulses[0] == pulses[1] > 0


def test_each_step_of_a_continual_phase_is_written_with_random_numbers_of_its_own():
    """As many numbers as there are steps add up to one with so many times the variance."""

    @final
    class Shaken(Writing):
        """Adds a normal number to each weight, whatever is asked for."""

        def program(self, network, key):
            return network

        def shown(self, network, key):
            return network

        def init(self, network):
            return jnp.zeros(())

        def write(self, network, stored, change, key):
            return jax.tree.map(lambda w: w + normal(key, w.shape, w.dtype), network), stored

        def rest(self, network, stored):
            return network, stored

        def begin(self, stored):
            return stored

        def seen(self, stored):
            return {}

    net, steps = network(), 9
    learner = Continual(Equilibrium(), OneSided(0.1), (0.0,) * 3, writing=Shaken())
    moved, _, _ = learner.learn(system(None, steps=steps), net, learner.init(net), (X, Y), KEY)
    shaken = np.asarray(moved.edges[1].connection.weight - net.edges[1].connection.weight)
    assert shaken.std() == pytest.approx(np.sqrt(steps), rel=0.05)


def test_gains_are_of_what_drives_a_neuron_and_know_nothing_of_thresholds():
    """``gain drive - threshold``, each as it is alone."""
    spreads = {"gain_spread": 0.2}, {"threshold_spread": 0.1}
    gained, shifted = (driven(Device(**fields))[0][0] for fields in spreads)
    both = driven(Device(**spreads[0], **spreads[1]))[0][0]
    np.testing.assert_allclose(both, gained + shifted - 0.3, atol=1e-6)
    assert abs(np.corrcoef(gained, shifted)[0, 1]) < 5 / np.sqrt(300)


def test_feedback_weights_of_their_own_begin_with_a_mismatch_of_their_own():
    plain = chain([(200,), (200,), (200,), (200,)], KEY, angle=0.0)
    copied = with_copies(plain, Device(feedback_spread=0.1))
    ratios = []
    for edge, of in zip(copied.edges[1:], plain.edges[1:], strict=True):
        ours, exact = (np.asarray(e.back.weight, np.float64) for e in (edge, of))
        ratios.append(np.ravel(ours / exact))
        np.testing.assert_array_equal(edge.ahead.weight, of.ahead.weight)
    assert [ratio.std() for ratio in ratios] == pytest.approx([0.1, 0.1], rel=0.03)
    assert abs(np.corrcoef(ratios)[0, 1]) < 5 / 200
