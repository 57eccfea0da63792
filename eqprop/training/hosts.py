"""Many hosts: the processes of one training, which all run the same program.

Each compiled step is run by all of them, or it waits for ever. So what hangs on a clock, a signal
or a file is decided by the first process, and what it decides is sent to all. It alone writes.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from eqprop.errors import EqpropError, UsageError
from eqprop.training.hardware import Hardware

_LEAVE = 30  # seconds that a process waits at its end for the others


def join(hardware: Hardware) -> None:
    """Makes this process one of those that the hardware tells of; before JAX does anything else.

    Raises ``EqpropError`` where the processes do not find each other, or cannot.
    """
    if hardware.coordinator is None and (hardware.processes, hardware.process) != (None, None):
        raise UsageError("--processes and --process need --coordinator HOST:PORT, the same for all")
    if hardware.coordinator is None or jax.distributed.is_initialized():
        return
    found = hardware.coordinator == "auto"
    # It would take SIGTERM, which a training heeds by itself.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator_address=None if found else hardware.coordinator,
            num_processes=hardware.processes,
            process_id=hardware.process,
            initialization_timeout=hardware.wait,
            shutdown_timeout_seconds=_LEAVE,
        )
    except (RuntimeError, ValueError) as error:
        raise EqpropError(
            f"the processes of this training do not come together ({error}): give each the same "
            "--coordinator HOST:PORT and --processes, and a --process from 0 on; or on Slurm "
            "start them with srun and give --coordinator auto"
        ) from error


@contextlib.contextmanager
def watched(run: str) -> Iterator[None]:
    """Says what to do where another process is lost on the way."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        raise EqpropError(
            f"another process of this training is lost ({str(error).splitlines()[0][:200]}): start "
            f"them again, as many as you like, with eqprop resume {run}"
        ) from error


def agree[T](tree: T) -> T:
    """The numbers in the first process's tree, in all processes."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.broadcast_one_to_all(tree)


def any_of(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.int32(flag))))


def on_lead[T](action: Callable[[], T]) -> T | None:
    """What the first process alone does, files above all: its result there, None elsewhere.

    Where it fails, all fail: its error there, an ``EqpropError`` elsewhere.
    """
    if jax.process_count() == 1:
        return action()
    result: Any = None
    failure: Exception | None = None
    if jax.process_index() == 0:
        try:
            result = action()
        except Exception as error:
            failure = error
    if agree(np.int32(failure is not None)):
        raise failure or EqpropError("the first process has failed: see what it says")
    return result
