"""States as a rule reads them: noise, offsets, and a converter of few bits."""

import math
from typing import final, override

import equinox as eqx
import jax
import jax.numpy as jnp

from eqprop.devices.noise import fixed, normal_for
from eqprop.devices.record import Device
from eqprop.dynamics.system import Reading
from eqprop.types import Layer, PRNGKeyArray, States


@final
class ImperfectReading(Reading):
    """``state + offset + noise / sqrt(samples)``, rounded to one of ``2^bits`` levels.

    The offset, one for each unit, is that of nudged states as against free ones, as where two
    circuits, or one at two times, are read (arXiv:2505.22887). The noise of an update is that of
    the states divided by beta (arXiv:2503.22810).
    """

    device: Device = eqx.field(static=True)
    key: PRNGKeyArray

    @override
    def at(self, key: PRNGKeyArray) -> "ImperfectReading":
        return ImperfectReading(self.device, key)

    @override
    def __call__(self, states: States, *, nudged: bool) -> States:
        return tuple(self._layer(n, s, nudged=nudged) for n, s in enumerate(states, 1))

    def _layer(self, layer: int, state: Layer, *, nudged: bool) -> Layer:
        device, value = self.device, state
        if device.read_offset and nudged:
            offset = fixed(device.chip, "offset", layer, state.shape[1:])
            value = value + (device.read_offset * offset).astype(state.dtype)
        if device.read_noise:
            # Free and nudged states are read each for itself, even where they are equal.
            key = jax.random.fold_in(self.key, 2 * layer + nudged)
            std = device.read_noise / math.sqrt(device.samples)
            value = value + jnp.asarray(std, state.dtype) * normal_for(key, state)
        if device.adc_bits:
            low, high = device.adc_low, device.adc_high
            step = (high - low) / (2**device.adc_bits - 1)
            value = low + step * jnp.round((jnp.clip(value, low, high) - low) / step)
        return value
