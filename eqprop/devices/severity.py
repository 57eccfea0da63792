"""Parts of a device: one imperfection alone, less or more of it. Nothing here loads JAX."""

import dataclasses
import math
from typing import Any

from eqprop.devices.record import BOUNDS, MOST_BITS, NEEDS, Device

_ALWAYS = ("chip", "scale", "samples", "adc_low", "adc_high")
_ABOUT = {**NEEDS, "stuck": BOUNDS}
"""What an imperfection is about, where the device has it: stuck weights are within its bounds."""


def alone(device: Device, field: str, factor: float = 1.0) -> Device:
    """A device with one of the imperfections only, and what that is about: a scatter of pulses has
    pulses, a spread of bounds has bounds. Its size is multiplied by ``factor``.
    """
    kept = (*_ALWAYS, *_ABOUT.get(field, ()), field)
    fields: dict[str, Any] = {name: getattr(device, name) for name in kept}
    fields[field] = scaled(device, field, factor)
    return Device(name=f"{device.title}, {field}", **fields)


def together(device: Device, factor: float) -> Device:
    """All imperfections of a device, each multiplied by ``factor``; but for bounds that weights are
    stuck between: wider ones would make that worse.
    """
    kept = BOUNDS if device.stuck else ()
    fields = {n: scaled(device, n, factor) for n in device.effects if n not in kept}
    low, high = (fields.get(name, getattr(device, name)) for name in ("w_min", "w_max"))
    if "dw_min" in fields and low is not None and high is not None:
        fields["dw_min"] = min(fields["dw_min"], high - low)  # no step is wider than the range
    return dataclasses.replace(device, **fields)


def scaled(device: Device, field: str, factor: float) -> float | int:
    """The value of a field where its imperfection is ``factor`` times as large: bounds closer,
    levels and bits fewer.
    """
    value = getattr(device, field)
    match field:
        case "adc_bits":
            return min(MOST_BITS, max(1, round(value - math.log2(factor))))
        case "levels":
            return max(2, round((value - 1) / factor) + 1)
        case "w_max" | "w_min":
            return value / factor
        case "stuck" | "drift" | "slope_up" | "slope_down":
            return min(1.0, value * factor)
        case "dw_min" if device.w_max is not None and device.w_min is not None:
            return min(device.w_max - device.w_min, value * factor)
        case _:
            return value * factor
