"""A device as data: what is wrong with it. Nothing here loads JAX."""

import dataclasses
from typing import final

from eqprop.errors import EqpropError
from eqprop.fields import conform

SYNAPSES = (
    *("dw_min", "slope_up", "slope_down", "w_max", "w_min", "dw_min_spread", "w_max_spread"),
    *("w_min_spread", "pulse_noise", "write_noise", "levels", "stuck", "drift"),
)
"""The fields about what is written into weights."""

NEURONS = ("gain_spread", "threshold_spread", "step_noise")
"""Those about what a step computes."""

READING = ("read_noise", "read_offset", "adc_bits")
"""Those about what a rule reads."""

# Those that make a device imperfect; the others name it, or say more about one of these.
EFFECTS = (*SYNAPSES, *NEURONS, *READING, "feedback_spread")
BOUNDS = ("w_max", "w_min")
NEEDS: dict[str, tuple[str, ...]] = {
    "slope_up": ("dw_min", "w_max"),
    "slope_down": ("dw_min", "w_min"),
    "dw_min_spread": ("dw_min",),
    "pulse_noise": ("dw_min",),
    "w_max_spread": ("w_max",),
    "w_min_spread": ("w_min",),
    "levels": ("w_max", "w_min"),
}
MOST_BITS = 24
_LEAST = 1e-12  # that single precision can still count with


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Device:
    """Hardware that a network learns on. The docstring of a field is its help.

    Weights of a device run from ``w_min`` to ``w_max``, about 1 each way. What is 0, or None, is
    ideal; what differs from one device to the next is drawn by ``chip``, what differs from one time
    to the next by the seed of the training. Raises ``EqpropError`` for values that cannot be.
    """

    name: str = "ideal"
    """Name of the device."""
    source: str = ""
    """Where its numbers are from."""
    chip: int = 0
    """Which of many chips: draws all that differs from device to device."""
    scale: tuple[float, ...] = (1.0,)
    """The weight of the network that a device weight of 1 is: one number for all connections, or
    one for each.
    """
    dw_min: float = 0.0
    """Step of a pulse at weight 0. A change is delivered in pulses, rounded at random to whole
    ones; 0 takes any change.
    """
    slope_up: float = 0.0
    """How an upward step shrinks with the weight, dw_min (1 - slope w / w_max): 0 constant, between
    them linear, 1 soft bounds.
    """
    slope_down: float = 0.0
    """How a downward step shrinks with the weight, dw_min (1 - slope w / w_min)."""
    w_max: float | None = None
    """Upper bound of a device weight."""
    w_min: float | None = None
    """Lower bound of a device weight."""
    dw_min_spread: float = 0.0
    """Spread of the step from device to device, relative to it."""
    w_max_spread: float = 0.0
    """Spread of the upper bound from device to device, relative to it."""
    w_min_spread: float = 0.0
    """Spread of the lower bound from device to device, relative to it."""
    pulse_noise: float = 0.0
    """Scatter of a step from pulse to pulse, relative to it."""
    write_noise: float = 0.0
    """Noise with which a weight stands each time it has been written, in device weights; the device
    remembers the weight without it.
    """
    levels: int = 0
    """Weights there are, evenly from w_min to w_max; 0 for any."""
    stuck: float = 0.0
    """Share of devices that keep, whatever is written, a weight drawn between the bounds, or where
    there are none the first that they had.
    """
    drift: float = 0.0
    """Part of each weight that is lost in each minibatch."""
    gain_spread: float = 0.0
    """Spread of the gain of neurons around 1, of what drives them."""
    threshold_spread: float = 0.0
    """Spread of the threshold of neurons around 0, in units of what drives them."""
    step_noise: float = 0.0
    """Noise on what drives a neuron, in each step."""
    read_noise: float = 0.0
    """Noise on each state that a rule reads."""
    samples: int = 1
    """Readings that are averaged: noise falls as one over their square root."""
    read_offset: float = 0.0
    """Spread of a constant offset with which the nudged states are read, as against the free ones.
    """
    adc_bits: int = 0
    """Bits of the converter by which states are read; 0 for no converter."""
    adc_low: float = 0.0
    """Lowest state that the converter can read."""
    adc_high: float = 1.0
    """Highest state that the converter can read."""
    feedback_spread: float = 0.0
    """Spread of feedback weights around the forward ones that they copy, relative to these."""

    def __post_init__(self) -> None:
        conform(self, "device.")

        def require(ok: bool, name: str, remedy: str) -> None:
            if not ok:
                raise EqpropError(f"device.{name} is {getattr(self, name)}: {remedy}")

        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, float):
                    sane = number == 0 or _LEAST <= abs(number) <= 1 / _LEAST
                    require(sane, field.name, "give 0, or a size from 1e-12 to 1e12")
                if isinstance(number, int):
                    require(abs(number) < 2**31, field.name, "give less than 2^31")
        for name in (*EFFECTS, "chip", "samples"):
            if name not in BOUNDS:
                least = int(name == "samples")
                require(getattr(self, name) >= least, name, f"give at least {least}")
        for name in ("stuck", "drift"):
            require(getattr(self, name) <= 1, name, "give a part, from 0 to 1")
        for name in ("slope_up", "slope_down"):
            require(getattr(self, name) <= 1, name, "give 0 to 1, where 1 is soft bounds")
        for name, needed in NEEDS.items():
            for other in needed if getattr(self, name) else ():
                there = getattr(self, other) not in (None, 0)
                in_place = (
                    f"levels, {self.levels}, are exact: leave it out, or give dw_min for them"
                )
                pulsed = other == "dw_min" and self.levels
                require(there, name, in_place if pulsed else f"give {other} too, which it is about")
        positive = bool(self.scale) and min(self.scale) > 0
        require(positive, "scale", "give numbers above 0, one or one for each connection")
        low, high = self.w_min, self.w_max
        require(high is None or high > 0, "w_max", "give a number above 0, which weights can be")
        require(low is None or low < 0, "w_min", "give a number below 0, which weights can be")
        if low is not None and high is not None:
            inside = f"give a step within the range, {high - low:g}"
            require(self.dw_min <= high - low, "dw_min", inside)
        require(self.levels != 1, "levels", "give at least 2, or 0 for any weight")
        alone = not (self.levels and self.dw_min)
        require(alone, "levels", "leave dw_min out: the distance of levels is the step")
        require(self.adc_bits <= MOST_BITS, "adc_bits", f"give at most {MOST_BITS}, 0 for none")
        require(
            self.adc_low < self.adc_high, "adc_low", f"give less than {self.adc_high}, adc_high"
        )

    @property
    def title(self) -> str:
        """What it is called in a sentence: own, where fields alone make it other than ideal."""
        return "own" if self.name == "ideal" and self.effects else self.name

    @property
    def effects(self) -> tuple[str, ...]:
        """The fields that make it imperfect."""
        return tuple(
            field.name
            for field in dataclasses.fields(self)
            if field.name in EFFECTS and getattr(self, field.name) != field.default
        )

    @property
    def essence(self) -> "Device":
        """What decides how a training goes: an ideal device does whatever it is called."""
        return dataclasses.replace(self, name="", source="") if self.effects else IDEAL

    @property
    def writes(self) -> bool:
        """Whether weights are not simply what a learner wants."""
        return any(name in SYNAPSES for name in self.effects)

    @property
    def reads(self) -> bool:
        """Whether states are not read as they are."""
        return any(name in READING for name in self.effects)

    @property
    def computes(self) -> bool:
        """Whether a step of the neurons is not what it should be."""
        return any(name in NEURONS for name in self.effects)


IDEAL = Device()
"""No imperfection at all."""
