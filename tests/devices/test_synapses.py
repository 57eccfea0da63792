"""What is written into synapses, against formulas of its mean and variance."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eqprop.devices.noise import normal, uniform
from eqprop.devices.presets import PRESETS
from eqprop.devices.record import Device
from eqprop.devices.synapses import Held, Pulsed, pulsed
from eqprop.errors import EqpropError
from eqprop.networks.graphs import chain
from eqprop.networks.network import Network

KEY = jax.random.key(0)
SHAPES = [(400,), (50,)]
N = 400 * 50


def constant(weight: float) -> Network:
    """A network of one connection, all of whose weights are the same."""
    return jax.tree.map(lambda leaf: jnp.full_like(leaf, weight), chain(SHAPES, KEY))


def weights(network: Network) -> np.ndarray:
    return np.asarray(network.edges[0].connection.weight, np.float64)


def written(
    device: Device, weight: float, change: float, times: int = 1
) -> tuple[np.ndarray, Held]:
    """The weights after the same change has been asked for a few times."""
    network = constant(weight)
    chip = pulsed(device, network)
    held = chip.init(network)

    @jax.jit
    def write(network, held, key):
        return chip.write(network, held, constant(change), key)

    for n in range(times):
        network, held = write(network, held, jax.random.fold_in(KEY, n))
    return weights(network), held


def test_uniform_numbers_are_uniform_and_independent():
    keys = jax.random.split(KEY, 3)
    u = np.stack([np.asarray(uniform(k, (500, 400), jnp.float32)) for k in keys])
    assert u.min() > 0
    assert u.max() < 1
    flat = u.reshape(3, -1)
    n = flat.shape[1]
    # Of each digit as many as of the others: chi squared of 99 degrees, within 5 deviations.
    for row in flat:
        counts = np.histogram(row, 100, (0, 1))[0]
        assert abs(((counts - n / 100) ** 2 / (n / 100)).sum() - 99) < 5 * np.sqrt(2 * 99)
    pairs = [(flat[0], flat[1]), (flat[1], flat[2]), (flat[0][1:], flat[0][:-1])]
    pairs += [(u[0][1:].ravel(), u[0][:-1].ravel())]
    for a, b in pairs:
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(len(a))
    # One bit of the key changes half the bits of every number.
    here, there = (np.asarray(k) for k in (flat[0], flat[1]))
    bits = [np.round(x * 2**23 - 0.5).astype(np.uint32) for x in (here, there)]
    flips = np.unpackbits((bits[0] ^ bits[1]).view(np.uint8)).mean() * 32 / 23
    assert abs(flips - 0.5) < 0.01


def test_normal_numbers_are_normal():
    x = np.asarray(normal(KEY, (200_000,), jnp.float32), np.float64)
    moments = [x.mean(), x.var(), (x**3).mean(), (x**4).mean()]
    np.testing.assert_allclose(moments, [0, 1, 0, 3], atol=0.05)
    assert (np.abs(x) > 3).mean() == pytest.approx(0.0027, rel=0.2)


@pytest.mark.parametrize("change", [3e-4, -7e-4, 0.0104, -0.05])
def test_pulses_are_rounded_at_random_to_whole_ones(change):
    """|u| / dw_min pulses on average, with the variance of a rounded number."""
    step = 0.002
    after, held = written(Device(dw_min=step), 0.1, change)
    pulses = (after - np.float32(0.1)) / step
    np.testing.assert_allclose(pulses, np.round(pulses), atol=1e-3)
    share = abs(change) / step
    part = share - np.floor(share)
    error = np.sqrt(part * (1 - part) / N)
    assert abs(pulses.mean() - np.sign(change) * share) < 5 * error + 1e-6
    assert pulses.var() == pytest.approx(part * (1 - part), rel=0.1)
    assert set(np.unique(np.round(np.abs(pulses)))) <= {np.floor(share), np.floor(share) + 1}
    assert float(held.pulses) == pytest.approx(share, rel=0.1)


@pytest.mark.parametrize("share", [0.05, 0.5, 1.0, 7.3])
def test_pulses_scatter(share):
    """Each of n pulses adds the variance ``(dw_min std)^2``, and no bias."""
    step, scatter = 0.002, 0.8
    after, _ = written(Device(dw_min=step, pulse_noise=scatter), 0.0, share * step)
    moved, part = after / step, share - np.floor(share)
    variance = part * (1 - part) + share * scatter**2
    assert moved.mean() == pytest.approx(share, abs=5 * np.sqrt(variance / N))
    assert moved.var() == pytest.approx(variance, rel=0.08)


def test_one_draw_rounds_and_scatters_independently():
    """The scatter that is made of what the rounding left over knows nothing of the rounding."""
    after, _ = written(Device(dw_min=1.0, pulse_noise=1e-2), 0.0, 0.3)
    up = after > 0.5
    assert up.mean() == pytest.approx(0.3, abs=0.02)
    scatter = (after[up] - 1) / 1e-2
    np.testing.assert_allclose([scatter.mean(), scatter.var()], [0, 1], atol=0.08)
    assert np.abs((scatter**3).mean()) < 0.15


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("slope", [0.0, 0.3, 1.0])
def test_many_pulses_at_once_are_many_one_by_one(up, slope):
    device = Device(dw_min=0.01, slope_up=slope, slope_down=slope, w_max=0.9, w_min=-0.6)
    sign, weight = (1 if up else -1), 0.2
    expected, bound = weight, 0.9 if up else -0.6
    for _ in range(40):
        expected += sign * 0.01 * (1 - slope * expected / bound)
    expected = float(np.clip(expected, -0.6, 0.9))
    at_once, _ = written(device, weight, sign * 0.4)
    # Of thousands of weights one or two may round up once more.
    np.testing.assert_allclose(np.median(at_once), expected, rtol=2e-5)
    in_turn, _ = written(device, weight, sign * 0.01 * (1 + 1e-6), times=40)
    np.testing.assert_allclose(np.median(in_turn), expected, rtol=2e-5)
    assert max(at_once.std(), in_turn.std()) < 1e-3


def test_soft_bounds_settle_at_the_symmetry_point():
    """As many pulses up as down, at random, drive a weight to where both steps are equal."""
    device = Device(dw_min=0.02, slope_up=1.0, slope_down=0.5, w_max=0.8, w_min=-0.5)
    network = constant(0.5)
    chip = pulsed(device, network)

    def body(n, network):
        key = jax.random.fold_in(KEY, n)
        signs = jax.tree.map(
            lambda leaf: 0.02 * jax.random.rademacher(key, leaf.shape, leaf.dtype), network
        )
        return chip.write(network, chip.init(network), signs, jax.random.fold_in(key, 1))[0]

    after = weights(jax.jit(lambda n: jax.lax.fori_loop(0, 800, body, n))(network))
    # The mean step is 0.02/2 (-w/0.8 + 0.5 w/(-0.5)), which vanishes at w = 0 and is stable there.
    assert abs(after.mean()) < 0.005
    # Ornstein-Uhlenbeck: variance step^2 / (2 rate), with rate step/2 (1/0.8 + 1).
    assert after.var() == pytest.approx(0.02 / (1 / 0.8 + 1), rel=0.1)


def test_weights_end_at_the_bounds_of_their_devices():
    device = Device(dw_min=0.01, w_max=0.5, w_min=-0.4, w_max_spread=0.1, w_min_spread=0.2)
    high, held = written(device, 0.0, 5.0)
    assert high.mean() == pytest.approx(0.5, rel=0.01)
    assert high.std() == pytest.approx(0.05, rel=0.05)
    low, _ = written(device, 0.0, -5.0)
    assert low.mean() == pytest.approx(-0.4, rel=0.01)
    assert low.std() == pytest.approx(0.08, rel=0.05)
    network = constant(0.0)
    chip = pulsed(device, network)
    full, held = chip.write(network, chip.init(network), constant(5.0), KEY)
    assert float(chip.rest(full, held)[1].at_bounds) == 1
    assert float(chip.rest(network, held)[1].at_bounds) == 0


def test_steps_differ_from_device_to_device_and_stay():
    device = Device(dw_min=0.001, dw_min_spread=0.3)
    once, _ = written(device, 0.0, 0.001)
    twice, _ = written(device, 0.0, 0.001, times=2)
    assert once.std() / once.mean() == pytest.approx(0.3, rel=0.05)
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-5)
    other, _ = written(dataclasses.replace(device, chip=1), 0.0, 0.001)
    assert abs(np.corrcoef(once.ravel(), other.ravel())[0, 1]) < 0.05


def test_write_noise_is_drawn_anew_and_does_not_add_up():
    device = Device(dw_min=0.001, write_noise=0.05)
    once, _ = written(device, 0.0, 0.001)
    many, held = written(device, 0.0, 0.001, times=30)
    assert once.std() == pytest.approx(0.05, rel=0.03)
    assert many.std() == pytest.approx(0.05, rel=0.03)
    assert held.clean is not None
    np.testing.assert_allclose(weights(held.clean), 0.03, rtol=1e-4)
    # What has no pulse keeps its noise.
    network = constant(0.0)
    chip = pulsed(device, network)
    noisy, held = chip.write(network, chip.init(network), constant(0.001), KEY)
    still, _ = chip.write(noisy, held, constant(0.0), jax.random.key(9))
    np.testing.assert_array_equal(weights(still), weights(noisy))


def test_what_is_programmed_is_remembered_without_write_noise():
    device = Device(dw_min=0.001, write_noise=0.05, stuck=0.1, w_max=0.5, w_min=-0.5)
    network = constant(0.2)
    chip = pulsed(device, network)
    remembered = chip.program(network, KEY)
    shown = chip.shown(remembered, KEY)
    free = weights(remembered) == np.float32(0.2)
    assert free.mean() == pytest.approx(0.9, abs=1e-4)
    assert weights(shown)[free].std() == pytest.approx(0.05, rel=0.03)
    np.testing.assert_array_equal(weights(shown)[~free], weights(remembered)[~free])
    written, held = chip.write(shown, chip.init(remembered), constant(0.001), jax.random.key(5))
    assert held.clean is not None
    np.testing.assert_allclose(weights(held.clean)[free], 0.201, rtol=1e-5)
    assert weights(written)[free].std() == pytest.approx(0.05, rel=0.03)


def test_stuck_devices_keep_a_weight_between_their_bounds():
    device = Device(stuck=0.1, w_max=0.5, w_min=-0.5)
    network = constant(0.01)
    chip = pulsed(device, network)
    start = chip.program(network, KEY)
    after, _ = chip.write(start, chip.init(start), constant(0.2), KEY)
    kept = weights(after) == weights(start)
    assert kept.mean() == pytest.approx(0.1, abs=1e-4)
    values = weights(start)[kept]
    assert values.min() >= -0.5
    assert values.max() <= 0.5
    assert values.std() == pytest.approx(1 / np.sqrt(12), rel=0.05)
    more = pulsed(dataclasses.replace(device, stuck=0.2), network).cells[0].stuck
    assert more is not None
    assert np.all(more >= chip.cells[0].stuck)


def test_levels():
    device = Device(levels=9, w_max=0.5, w_min=-0.5)
    levels = np.linspace(-0.5, 0.5, 9)
    network = constant(0.07)
    chip = pulsed(device, network)
    start = chip.program(network, KEY)
    np.testing.assert_allclose(weights(start), 0.125, rtol=1e-5)
    moved, _ = chip.write(start, chip.init(start), constant(0.04), KEY)
    found = weights(moved)
    assert np.abs(found[..., None] - levels).min(axis=-1).max() < 1e-6
    error = 5 * 0.125 * np.sqrt(0.32 * 0.68 / N)
    assert found.mean() == pytest.approx(0.125 + 0.04, abs=error)


def test_drift_loses_a_part_of_each_weight():
    device = Device(drift=0.01)
    network = constant(0.5)
    chip = pulsed(device, network)
    later, _ = chip.rest(network, chip.init(network))
    np.testing.assert_allclose(weights(later), 0.495, rtol=1e-6)


def test_scale_is_what_a_device_weight_of_1_stands_for():
    device = Device(dw_min=0.01, w_max=1.0, w_min=-1.0, scale=(0.5,))
    after, _ = written(device, 0.0, 0.01)
    assert set(np.round(np.unique(after), 6)) <= {0.005, 0.01}
    full, _ = written(device, 0.0, 9.0)
    np.testing.assert_allclose(full, 0.5, rtol=1e-6)
    with pytest.raises(EqpropError, match="one for each of 1 connections"):
        pulsed(dataclasses.replace(device, scale=(1.0, 2.0)), constant(0))


def test_conductances_have_their_zero_at_the_lower_bound():
    network = constant(0.0)
    device = Device(dw_min=0.01, w_max=1.0, w_min=-1.0)
    chip = pulsed(device, network, non_negative=True)
    down, _ = chip.write(network, chip.init(network), constant(-1), KEY)
    up, _ = chip.write(network, chip.init(network), constant(9), KEY)
    assert np.all(weights(down) == 0)
    np.testing.assert_allclose(weights(up), 2, rtol=1e-6)
    with pytest.raises(EqpropError, match=r"w_min is None, but weights are conductances"):
        pulsed(Device(w_max=1.0), network, non_negative=True)


def sizes(most: float):
    """0, or a size that single precision can count with, which is what a device takes."""
    return st.just(0.0) | st.floats(1e-12, most)


FIELDS = {
    "dw_min": st.floats(1e-5, 0.1),
    "slope_up": sizes(1),
    "slope_down": sizes(1),
    "pulse_noise": sizes(4),
    "dw_min_spread": sizes(1),
    "w_max_spread": sizes(1),
    "w_min_spread": sizes(1),
    "stuck": sizes(1),
    "drift": sizes(1),
}


@settings(max_examples=25)
@given(st.fixed_dictionaries(FIELDS), st.floats(-0.5, 0.5), st.floats(-2, 2), st.integers(0, 9))
def test_any_device_stays_within_its_bounds(fields, weight, change, seed):
    network = jax.tree.map(lambda leaf: leaf + weight, chain([(20,), (5,)], KEY))
    device = Device(**fields, w_max=0.7, w_min=-0.6, chip=seed)
    chip = pulsed(device, network)
    start = chip.program(network, KEY)
    wanted = jax.tree.map(lambda leaf: jnp.full_like(leaf, change), network)
    moved, held = chip.write(start, chip.init(start), wanted, jax.random.key(seed))
    rested, _ = chip.rest(moved, held)
    for leaf, before, cells in zip(*map(jax.tree.leaves, (rested, start)), chip.cells, strict=True):
        assert np.isfinite(leaf).all()
        assert np.all(leaf <= np.float32(cells.high))
        assert np.all(leaf >= np.float32(cells.low))
        if cells.stuck is not None:
            np.testing.assert_array_equal(leaf[cells.stuck], before[cells.stuck])


def test_every_imperfection_vanishes_with_its_size():
    """An update by a device that is nearly ideal is nearly the ideal one."""
    network, change = constant(0.1), 0.0123
    for fields in (
        {"dw_min": 1e-6},
        {"dw_min": 1e-9, "pulse_noise": 0.3, "dw_min_spread": 1e-5},
        {"dw_min": 1e-6, "slope_up": 1e-4, "w_max": 1.0},
        {"write_noise": 1e-6},
        {"drift": 1e-6},
        {"stuck": 1e-9},
        {"levels": 2_000_001, "w_max": 1.0, "w_min": -1.0},
        {"w_max": 50.0},
    ):
        chip = pulsed(Device(**fields), network)
        start = chip.program(network, KEY)
        moved = chip.rest(*chip.write(start, chip.init(start), constant(change), KEY))[0]
        np.testing.assert_allclose(weights(moved), 0.1123, atol=3e-5, err_msg=str(fields))


def test_presets_are_pulsed_and_bounded():
    network = constant(0.0)
    for name, device in PRESETS.items():
        if name == "ideal":
            assert not device.effects
            continue
        chip = pulsed(device, network)
        assert isinstance(chip, Pulsed)
        up, _ = written(dataclasses.replace(device, write_noise=0.0), 0.0, device.dw_min)
        assert up.mean() == pytest.approx(device.dw_min, rel=0.15), name
        assert device.w_max is not None
        full, _ = written(dataclasses.replace(device, pulse_noise=0.0, write_noise=0.0), 0.0, 30.0)
        assert full.mean() == pytest.approx(device.w_max, rel=0.02), name


def test_drift_is_of_what_is_remembered_too():
    chip = pulsed(Device(drift=0.01, write_noise=0.05), constant(0.5))
    held = chip.init(constant(0.5))
    for _ in range(2):
        _, held = chip.rest(constant(0.5), held)
    assert held.clean is not None
    np.testing.assert_allclose(weights(held.clean), 0.5 * 0.99**2, rtol=1e-6)


def test_pulses_are_counted_from_the_beginning_of_a_minibatch():
    """All of the writings of it, and none of those before."""
    device, network = Device(dw_min=0.002), constant(0.1)
    _, held = written(device, 0.1, 0.005, times=4)
    assert float(held.pulses) == pytest.approx(4 * 2.5, rel=0.01)
    assert float(pulsed(device, network).begin(held).pulses) == 0


def test_what_is_spread_or_drawn_differs_from_one_connection_to_the_next():
    device = Device(
        dw_min=0.01, dw_min_spread=0.1, w_max=1.0, w_min=-1.0, w_max_spread=0.1, w_min_spread=0.1
    )
    network = chain([(200,), (200,), (200,)], KEY)
    first, _, second, _ = pulsed(device, network).cells
    parts = [first.step, first.high, first.low, second.step, second.high, second.low]
    correlations = np.corrcoef([np.ravel(part) for part in parts]) - np.eye(len(parts))
    assert np.abs(correlations).max() < 5 / 200
    # And so do the roundings to whole pulses.
    network = jax.tree.map(jnp.zeros_like, network)
    half = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.005), network)
    chip = pulsed(Device(dw_min=0.01), network)
    moved, _ = chip.write(network, chip.init(network), half, KEY)
    ends = [np.ravel(edge.connection.weight) for edge in moved.edges]
    assert abs(np.corrcoef(ends)[0, 1]) < 5 / 200


def test_write_noise_is_in_device_weights():
    device = Device(dw_min=0.001, write_noise=0.05, scale=(0.4,))
    after, _ = written(device, 0.0, 0.001)
    assert after.std() == pytest.approx(0.4 * 0.05, rel=0.03)
    chip = pulsed(device, constant(0.2))
    shown = weights(chip.shown(chip.program(constant(0.2), KEY), KEY))
    assert shown.std() == pytest.approx(0.4 * 0.05, rel=0.03)


def test_the_scatter_of_a_pulse_shrinks_with_its_step():
    """At w = 0.5 a step up is ``dw_min (1 - 0.5)``, and scatters relative to that."""
    step = 0.002
    device = Device(dw_min=step, pulse_noise=0.8, slope_up=1.0, w_max=1.0)
    moved = written(device, 0.5, step * (1 + 1e-6))[0] - 0.5
    assert moved.mean() == pytest.approx(step / 2, rel=0.03)
    assert moved.std() == pytest.approx(0.8 * step / 2, rel=0.03)


def test_conductances_have_levels_and_steps_from_the_lower_bound():
    network = constant(0.07)
    chip = pulsed(Device(levels=9, w_max=0.5, w_min=-0.5), network, non_negative=True)
    start = chip.program(network, KEY)
    np.testing.assert_allclose(weights(start), 0.125, rtol=1e-5)
    moved = weights(chip.write(start, chip.init(start), constant(0.04), KEY)[0])
    assert set(np.unique(np.round(moved, 6))) == {0.125, 0.25}
    assert moved.mean() == pytest.approx(0.165, abs=5 * 0.125 * np.sqrt(0.32 * 0.68 / N))
    # A conductance of 0.25 is a device weight of -0.25, whose steps up are the larger ones.
    network, device = constant(0.25), Device(dw_min=0.01, slope_up=1.0, w_max=0.5, w_min=-0.5)
    chip = pulsed(device, network, non_negative=True)
    moved = weights(chip.write(network, chip.init(network), constant(0.01 * (1 + 1e-6)), KEY)[0])
    np.testing.assert_allclose(np.median(moved), 0.25 + 0.01 * (1 + 0.25 / 0.5), rtol=1e-5)


def test_with_one_bound_alone_few_weights_are_at_it():
    for fields, end in (({"w_max": 0.5}, 5.0), ({"w_min": -0.5}, -5.0)):
        network = constant(0.0)
        chip = pulsed(Device(dw_min=0.01, **fields), network)
        held = chip.init(network)
        assert float(chip.rest(network, held)[1].at_bounds) == 0
        full, held = chip.write(network, held, constant(end), KEY)
        assert float(chip.rest(full, held)[1].at_bounds) == 1


def test_each_connection_has_a_scale_of_its_own():
    network = jax.tree.map(jnp.zeros_like, chain([(5,), (4,), (3,)], KEY))
    chip = pulsed(Device(w_max=1.0, w_min=-1.0, scale=(0.5, 2.0)), network)
    wanted = jax.tree.map(lambda leaf: jnp.full_like(leaf, 9.0), network)
    moved, _ = chip.write(network, chip.init(network), wanted, KEY)
    for edge, scale in zip(moved.edges, (0.5, 2.0), strict=True):
        for leaf in jax.tree.leaves(edge):
            np.testing.assert_allclose(leaf, scale, rtol=1e-6)
