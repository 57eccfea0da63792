"""Scaling: numbers of any unit brought to a size that a network takes, by shift and scale."""

from typing import Any, Literal, NamedTuple, final

import numpy as np

from eqprop.errors import EqpropError

BRIGHT = 50
"""Of images in bytes, 0 to 255, some go beyond; bytes that do not are counts, or truth values."""

type ScalingName = Literal["auto", "none", "unit", "standard"]


@final
class Scaling(NamedTuple):
    """What is taken off, and what the rest is divided by: float32, numbers or one of each for
    every feature.
    """

    shift: np.ndarray
    scale: np.ndarray

    @staticmethod
    def fit(how: ScalingName, values: np.ndarray) -> "Scaling":
        """The scaling that suits values ``(n, ...)``, those of the training part alone.

        ``unit`` takes each feature to [0, 1], ``standard`` to mean 0 and standard deviation 1;
        ``none`` leaves all as it is, bytes as 0 to 255. ``auto`` takes bytes, as those of images,
        from 0 ... 255 to 0 ... 1, and is ``standard`` for other numbers. A feature that is the same
        everywhere is shifted only.
        """
        if how == "none":
            return _made(0, 1)
        if how == "auto" and values.dtype == np.uint8:
            return _made(0, 255)
        low, high = values.min(axis=0), values.max(axis=0)
        if how == "unit":
            shift, scale = low, high.astype(np.float64) - low
        else:
            shift, scale = (part(values, axis=0, dtype=np.float64) for part in (np.mean, np.std))
        # The deviation of equal numbers is not always 0.
        return _made(shift, np.where(low == high, 1, scale))

    def check_range(self, values: np.ndarray) -> None:
        """Raises ``EqpropError`` where images ``(n, ...)``, as they come, go from 0 to 1, but those
        that it was made for were bytes; or the other way round.
        """
        if not values.size or values[0].size == 1:
            return
        of_bytes = self.shift.ndim == 0 and (self.shift, self.scale) == (0, 255)
        if of_bytes and values.dtype.kind == "f" and 0 < values.max() <= 1:
            raise EqpropError(
                f"inputs go up to {values.max():.3g}, but what was learnt were bytes, 0 to 255, "
                "which are scaled here: give them as they were, (255 * x).round().astype('uint8')"
            )
        # What lies between 0 and 1 has means there, and a standard deviation of 1/2 at most.
        shift, scale = self
        of_units = shift.ndim > 0 and np.all((shift >= 0) & (shift <= 1) & (scale <= 1))
        if of_units and values.dtype == np.uint8 and values.max() > BRIGHT:
            raise EqpropError(
                f"inputs are bytes up to {values.max()}, but what was learnt were numbers of about "
                "0 to 1: scale them as you did then, x / 255"
            )

    # Arrays of any kind: naming JAX's would load JAX for the command line's sake.
    def apply(self, values: Any) -> Any:
        """Values ``(..., *features)``, scaled; of NumPy or JAX, in their precision or float32."""
        return (values - self.shift) / self.scale

    def undo(self, values: Any) -> Any:
        """The values that were scaled to these."""
        return values * self.scale + self.shift


def _made(shift: Any, scale: Any) -> Scaling:
    return Scaling(np.asarray(shift, np.float32), np.asarray(scale, np.float32))
