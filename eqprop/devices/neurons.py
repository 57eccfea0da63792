"""Neurons that differ from each other, and are noisy: what a step computes."""

from typing import final, override

import equinox as eqx
import jax
import jax.numpy as jnp

from eqprop.devices.noise import fixed, normal_for
from eqprop.devices.record import Device
from eqprop.dynamics.altered import Altered
from eqprop.dynamics.step import Place, pushed
from eqprop.types import Forces, Layer, PRNGKeyArray, States


@final
class ImperfectNeurons(Altered):
    """A neuron is driven by ``gain drive - threshold + noise``.

    Gains and thresholds stay; the noise differs in each step. It is one function of the states for
    each key, see ``noise.normal_for``.
    """

    device: Device = eqx.field(static=True)
    key: PRNGKeyArray

    @override
    def at(self, key: PRNGKeyArray) -> "ImperfectNeurons":
        return ImperfectNeurons(self.exact, self.device, key)

    @override
    def react(self, states: States, drives: States, forces: Forces, at: Place) -> States:
        # Forces tell the two sides of a centered nudge apart, which start from equal states.
        seen = pushed(drives, forces)
        driven = tuple(
            self._driven(n, drive, others, at)
            for n, drive, others in zip(at.layers, drives, seen, strict=True)
        )
        return self.exact.react(states, driven, forces, at)

    def _driven(self, layer: int, drive: Layer, seen: Layer, at: Place) -> Layer:
        device, shape = self.device, at.network.shapes[layer]
        if device.gain_spread:
            gain = 1 + device.gain_spread * fixed(device.chip, "gain", layer, shape)
            drive = drive * gain.astype(drive.dtype)
        if device.threshold_spread:
            threshold = device.threshold_spread * fixed(device.chip, "threshold", layer, shape)
            drive = drive - threshold.astype(drive.dtype)
        if device.step_noise:
            key = jax.random.fold_in(self.key, layer)
            drive = drive + jnp.asarray(device.step_noise, drive.dtype) * normal_for(key, seen)
        return drive
