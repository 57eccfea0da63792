"""Synapses that take pulses: what a learner writes, and what then stands there."""

from collections.abc import Callable
from typing import NamedTuple, final, override

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from eqprop.devices.noise import fixed, gauss, normal, uniform
from eqprop.devices.record import Device
from eqprop.errors import EqpropError
from eqprop.learning.writing import Writing
from eqprop.networks.model import Model
from eqprop.types import Array, Bool, Float, PRNGKeyArray

_NEAR = 0.01  # of the range: at a bound
_LEAST = 0.01  # of a bound or a step, however its devices are spread


@final
class Cells(NamedTuple):
    """The devices of one array of weights, in device weights: each a number for all, or one for
    each weight.
    """

    scale: float
    """The weight that a device weight of 1 is."""
    step: Float[np.ndarray, "..."]
    high: Float[np.ndarray, "..."]
    low: Float[np.ndarray, "..."]
    stuck: Bool[np.ndarray, "..."] | None


@final
class Held(eqx.Module):
    """What holds the weights: the network without write noise, where there is any; the pulses a
    weight was given in the last minibatch, and the share of weights that stood at a bound after it.
    """

    clean: Model | None
    pulses: Float[Array, ""]
    at_bounds: Float[Array, ""]


@final
class Pulsed(Writing):
    """Weights on devices: a change ``u`` is delivered in ``|u| / dw_min`` pulses of its sign,
    rounded at random to whole ones, each of which moves the weight by ``dw_min (1 - slope w /
    bound)`` of that device, with scatter; it ends at the bounds.

    Of many pulses at once the mean is exact, the scatter that of as many pulses at the first
    weight. ``zero`` is the device weight of a network's weight of 0. Raises ``EqpropError`` for as
    many scales as there are no parts.
    """

    device: Device = eqx.field(static=True)
    zero: float = eqx.field(static=True)
    cells: tuple[Cells, ...]

    @override
    def program(self, network: Model, key: PRNGKeyArray) -> Model:
        device = self.device

        def programmed(n: int, leaf: Array, cells: Cells) -> Array:
            low, high = _bounds(cells, leaf)
            weight = jnp.clip(self._levelled(self._device_weight(leaf, cells)), low, high)
            if cells.stuck is not None and device.w_max is not None and device.w_min is not None:
                value_key, _ = jax.random.split(jax.random.fold_in(key, n))
                drawn = uniform(value_key, leaf.shape, leaf.dtype)
                weight = jnp.where(cells.stuck, low + (high - low) * drawn, weight)
            return ((weight - self.zero) * cells.scale).astype(leaf.dtype)

        return self._each(network, programmed)

    def _each(self, network: Model, change: Callable[[int, Array, Cells], Array]) -> Model:
        """The network after a change of each array of weights, by its place and its devices."""
        leaves, structure = jax.tree.flatten(network)
        pairs = enumerate(zip(leaves, self.cells, strict=True))
        return jax.tree.unflatten(structure, [change(n, *pair) for n, pair in pairs]).projected()

    @override
    def shown(self, network: Model, key: PRNGKeyArray) -> Model:
        if not self.device.write_noise:
            return network

        def shown(n: int, leaf: Array, cells: Cells) -> Array:
            return self._noisy(leaf, cells, jax.random.split(jax.random.fold_in(key, n))[1])

        return self._each(network, shown)

    def _noisy(self, leaf: Array, cells: Cells, key: PRNGKeyArray) -> Array:
        """Weights that have just been written, with write noise; stuck ones have none."""
        noise = self.device.write_noise * cells.scale
        noisy = (leaf + noise * normal(key, leaf.shape, leaf.dtype)).astype(leaf.dtype)
        return _unless_stuck(cells, leaf, noisy)

    @override
    def init(self, network: Model) -> Held:
        none = jnp.zeros((), network.dtype)
        # A buffer each: what is donated must not be shared.
        clean = jax.tree.map(jnp.array, network) if self.device.write_noise else None
        return Held(clean, none, none + 0)

    @override
    def begin(self, stored: Held) -> Held:
        return eqx.tree_at(lambda held: held.pulses, stored, jnp.zeros_like(stored.pulses))

    @override
    def write(
        self, network: Model, stored: Held, change: Model, key: PRNGKeyArray
    ) -> tuple[Model, Held]:
        leaves, structure = jax.tree.flatten(network)
        clean = leaves if stored.clean is None else jax.tree.leaves(stored.clean)
        pulses, moved, shown = jnp.zeros_like(stored.pulses), list[Array](), list[Array]()
        for n, (leaf, before, wanted, cells) in enumerate(
            zip(leaves, clean, jax.tree.leaves(change), self.cells, strict=True)
        ):
            move_key, noise_key = jax.random.split(jax.random.fold_in(key, n))
            after, given = self._moved(before, wanted, cells, move_key)
            moved.append(after)
            pulses += given.sum().astype(pulses.dtype)
            if stored.clean is None:
                shown.append(after)
                continue
            shown.append(jnp.where(given > 0, self._noisy(after, cells, noise_key), leaf))
        size = sum(leaf.size for leaf in leaves)
        now = jax.tree.unflatten(structure, shown).projected()
        kept = None if stored.clean is None else jax.tree.unflatten(structure, moved).projected()
        return now, Held(kept, stored.pulses + pulses / size, stored.at_bounds)

    @override
    def rest(self, network: Model, stored: Held) -> tuple[Model, Held]:
        clean = stored.clean
        if self.device.drift:
            left = jnp.asarray(1 - self.device.drift, network.dtype)

            def leaked(_: int, leaf: Array, cells: Cells) -> Array:
                return _unless_stuck(cells, leaf, leaf * left.astype(leaf.dtype))

            network = self._each(network, leaked)
            clean = None if clean is None else self._each(clean, leaked)
        share = self._share_at_bounds(network if clean is None else clean)
        return network, Held(clean, stored.pulses, share)

    @override
    def seen(self, stored: Held) -> dict[str, Float[Array, ""]]:
        return {"pulses": stored.pulses, "at_bounds": stored.at_bounds}

    def _device_weight(self, leaf: Array, cells: Cells) -> Array:
        return leaf / cells.scale + self.zero

    def _levelled(self, weight: Array) -> Array:
        """The nearest of the levels there are."""
        if not (step := _level_step(self.device)):
            return weight
        low = self.device.w_min or 0.0
        return low + step * jnp.round((weight - low) / step)

    def _moved(
        self, leaf: Array, wanted: Array, cells: Cells, key: PRNGKeyArray
    ) -> tuple[Array, Array]:
        """The weights after a change was asked for, and the pulses that each was given; without
        pulses 1 where there was a change.
        """
        device = self.device
        asked = wanted / cells.scale
        if unit := device.dw_min or _level_step(device):
            draw = uniform(key, leaf.shape, leaf.dtype)
            share = jnp.abs(asked) / unit
            given = jnp.floor(share + draw)
            change = self._pulses(leaf, jnp.sign(asked), given, cells, _left(share, draw))
        else:
            given, change = (asked != 0).astype(leaf.dtype), asked
        # In the weights of the network, so that no rounding to and fro moves what has no pulse.
        low, high = ((bound - self.zero) * cells.scale for bound in _bounds(cells, leaf))
        moved = leaf + (change * cells.scale).astype(leaf.dtype)
        if _level_step(device):
            levelled = self._levelled(self._device_weight(moved, cells))
            moved = jnp.where(given > 0, (levelled - self.zero) * cells.scale, moved)
        moved = jnp.clip(moved, low, high).astype(leaf.dtype)
        return _unless_stuck(cells, leaf, moved), given

    def _pulses(self, leaf: Array, sign: Array, given: Array, cells: Cells, draw: Array) -> Array:
        """How far pulses move device weights, with the scatter of numbers between 0 and 1."""
        device = self.device
        step = cells.step.astype(leaf.dtype)
        one, many = step, given * step
        if device.slope_up or device.slope_down:
            weight, (low, high) = self._device_weight(leaf, cells), _bounds(cells, leaf)
            up = sign > 0
            bound = jnp.where(up, high, low)
            slope = jnp.where(up, device.slope_up, device.slope_down).astype(leaf.dtype)
            # Each pulse leaves this part of the way to bound / slope, where steps vanish.
            # A step wider than the whole way ends at the bound like any other.
            part = jnp.minimum(step * slope / jnp.abs(bound), 0.999)
            ratio = -jnp.expm1(given * jnp.log1p(-part)) / jnp.where(part > 0, part, 1)
            response = 1 - slope * weight / bound
            one, many = step * response, step * response * jnp.where(part > 0, ratio, given)
        if device.pulse_noise:
            scatter = gauss(draw)
            many = many + one * jnp.sqrt(given) * device.pulse_noise * scatter
        return sign * many

    def _share_at_bounds(self, network: Model) -> Float[Array, ""]:
        """The share of weights that are within 1 % of the range of a bound."""
        if self.device.w_max is None and self.device.w_min is None:
            return jnp.zeros((), network.dtype)
        leaves, near = jax.tree.leaves(network), jnp.zeros((), jnp.int32)
        for leaf, cells in zip(leaves, self.cells, strict=True):
            low, high = _bounds(cells, leaf)
            weight = self._device_weight(leaf, cells)
            margin = _NEAR * jnp.minimum(high - low, 2 * jnp.minimum(high, -low))
            near += jnp.sum((weight >= high - margin) | (weight <= low + margin))
        return (near / sum(leaf.size for leaf in leaves)).astype(network.dtype)


def pulsed(device: Device, network: Model, *, non_negative: bool = False) -> Pulsed:
    """The synapses of a chip, for a network of these shapes. Where its weights are conductances,
    ``non_negative``, a weight of 0 is a device at its lower bound.
    """
    parts = len(network.parts)
    if len(device.scale) not in (1, parts):
        raise EqpropError(
            f"device.scale is {device.scale}: give one number, or one for each of {parts} "
            "connections"
        )
    if non_negative and device.w_min is None:
        raise EqpropError(
            "device.w_min is None, but weights are conductances, where the lower bound is 0: give "
            "device.w_min"
        )
    scales = jnp.broadcast_to(jnp.asarray(device.scale), (parts,))
    ones = jax.tree.map(lambda leaf: jnp.ones((1,) * leaf.ndim, leaf.dtype), network)
    of_leaves = [float(leaf.ravel()[0]) for leaf in jax.tree.leaves(ones.scale(scales))]
    cells = [
        _cells(device, place, leaf.shape, scale)
        for place, (leaf, scale) in enumerate(zip(jax.tree.leaves(network), of_leaves, strict=True))
    ]
    return Pulsed(device, (device.w_min or 0.0) if non_negative else 0.0, tuple(cells))


def _cells(device: Device, place: int, shape: tuple[int, ...], scale: float) -> Cells:
    def spread(what: str, nominal: float | None, relative: float, absent: float) -> np.ndarray:
        if nominal is None:
            return np.asarray(absent)
        if not relative:
            return np.asarray(nominal)
        factor = 1 + relative * fixed(device.chip, what, place, shape)
        return nominal * np.maximum(factor, _LEAST)

    stuck = None
    if device.stuck:
        # The same devices whatever the share is, and more of them where it is larger.
        rank = np.argsort(np.argsort(fixed(device.chip, "stuck", place, shape), axis=None))
        stuck = (rank < round(device.stuck * rank.size)).reshape(shape)
    step = device.dw_min or _level_step(device)
    return Cells(
        scale,
        spread("dw_min", step, device.dw_min_spread, 0.0),
        spread("w_max", device.w_max, device.w_max_spread, np.inf),
        spread("w_min", device.w_min, device.w_min_spread, -np.inf),
        stuck,
    )


def _unless_stuck(cells: Cells, before: Array, after: Array) -> Array:
    """Weights after a change; those of stuck devices before it."""
    return after if cells.stuck is None else jnp.where(cells.stuck, before, after)


def _left(share: Array, draw: Array) -> Array:
    """What is still random of uniform numbers that have rounded ``share`` up, or down: they are
    uniform once more, and a second draw is spared.
    """
    part = share - jnp.floor(share)
    up = draw >= 1 - part
    left = jnp.where(up, (draw - (1 - part)) / part, draw / (1 - part))
    # Of a draw that is on a grid neither end is reached, where a scatter would be infinite.
    least = jnp.finfo(draw.dtype).eps
    return jnp.clip(left, least, 1 - least)


def _level_step(device: Device) -> float:
    """The distance of two levels; 0 where there are none."""
    if not device.levels or device.w_max is None or device.w_min is None:
        return 0.0
    return (device.w_max - device.w_min) / (device.levels - 1)


def _bounds(cells: Cells, leaf: Array) -> tuple[Array, Array]:
    """The lower and the upper bound of device weights."""
    return jnp.asarray(cells.low, leaf.dtype), jnp.asarray(cells.high, leaf.dtype)
