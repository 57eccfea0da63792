"""What a training runs on, as a command is told; loads no JAX."""

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Hardware:
    """Devices and hosts. They change what is learnt by rounding errors only."""

    devices: int | None = None
    """How many devices to divide the seeds, and the examples of a minibatch, over; as many as it
    is worth when left out, and those of all processes where there are several.
    """
    coordinator: str | None = None
    """Train in several processes: HOST:PORT of the first one, the same for all; or auto, as a
    cluster (Slurm, Open MPI, Kubernetes) has started them.
    """
    processes: int | None = None
    """How many processes there are; not with auto."""
    process: int | None = None
    """Which of them this is, from 0 on; not with auto."""
    wait: int = 300
    """Seconds to wait for all processes to start."""


DEFAULT = Hardware()
"""All devices of this machine, for one process."""
