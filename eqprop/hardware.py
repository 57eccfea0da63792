"""What a training runs on, as a command is told; loads no JAX."""

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Hardware:
    """Devices. They change what is learnt by rounding errors only."""

    devices: int | None = None
    """How many devices to divide the seeds, and the examples of a minibatch, over; as many as it
    is worth when left out.
    """


DEFAULT = Hardware()
"""What there is, used as it is worth."""
