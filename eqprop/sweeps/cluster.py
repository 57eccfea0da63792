"""Trainings as jobs, of a Slurm cluster or as other processes of this machine, by submitit.

A job is told its part and no more, and goes on where the run directory stands: so jobs may be
preempted, requeued, or submitted again. Logs are in ``jobs/``, the jobs' numbers in ``jobs.json``.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

from eqprop.errors import EqpropError
from eqprop.training.planned import Part
from eqprop.training.runs import write_whole

_POLL = 1.0  # seconds
_JOBS = "jobs.json"


@final
@dataclass(frozen=True)
class Place:
    """Where jobs run, and what each may use."""

    kind: Literal["processes", "slurm"]
    at_once: int
    """Jobs at the same time."""
    minutes: int
    cpus: int
    gpus: int
    partition: str | None
    """Of a Slurm cluster; its default if None."""


@final
@dataclass(frozen=True)
class Job:
    """What a job does."""

    part: Part
    command: tuple[str, ...]

    def __call__(self) -> None:
        """Trains from where the run stands."""
        self.part.work(self.command)

    def checkpoint(self) -> Any:
        """What Slurm is to run after it has preempted this, or its time was over: the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def work_all(
    parts: Mapping[str, Part],
    place: Place,
    folder: Path,
    command: Sequence[str],
    done: Callable[[str], None],
) -> None:
    """Has all parts trained that have not ended, and waits; ``done`` hears of each.

    Stopped while it waits, jobs go on; called again, it waits for those that still run.

    Raises:
        EqpropError: submitit or Slurm is not there, or jobs ended before their trainings.
    """
    executor = _executor(place, folder / "jobs")
    numbers = _read(folder)
    waiting = [name for name, part in parts.items() if not part.ended]
    running = {
        name: job
        for name in waiting
        if name in numbers and not (job := _again(place, folder / "jobs", numbers[name])).done()
    }
    waiting = [name for name in waiting if name not in running]
    began = list(running)
    # Slurm queues what is too much; processes have to wait here.
    room = len(parts) if place.kind == "slurm" else place.at_once
    while waiting or running:
        start, waiting = waiting[: room - len(running)], waiting[max(0, room - len(running)) :]
        if start:
            with executor.batch():
                new = {
                    name: executor.submit(Job(_absolute(parts[name]), tuple(command)))
                    for name in start
                }
            running |= new
            began += start
            numbers |= {name: job.job_id for name, job in new.items()}
            write_whole(folder / _JOBS, json.dumps(numbers, indent=2) + "\n")
        time.sleep(_POLL)
        for name in [name for name, job in running.items() if job.done()]:
            del running[name]
            done(name)
    if failed := [name for name in began if not parts[name].ended]:
        logs = folder / "jobs"
        raise EqpropError(
            f"{len(failed)} of {len(parts)} trainings did not come to their end ({failed[0]}, job "
            f"{numbers[failed[0]]}): see the logs in {logs}; the same command goes on with them"
        )


def _executor(place: Place, logs: Path) -> Any:
    try:
        import submitit
    except ImportError as error:
        raise EqpropError(
            "jobs need submitit, which is not installed: pip install 'eqprop[slurm]'"
        ) from error
    try:
        executor = submitit.AutoExecutor(logs, cluster=_cluster(place))
    except RuntimeError as error:  # no srun
        raise EqpropError(
            f"jobs cannot be submitted: {error}; run this on a login node of a Slurm cluster, or "
            "with --on processes"
        ) from error
    executor.update_parameters(
        name="eqprop-sweep",
        timeout_min=place.minutes,
        cpus_per_task=place.cpus,
        gpus_per_node=place.gpus,
    )
    if place.kind == "slurm":
        executor.update_parameters(slurm_array_parallelism=place.at_once)
        if place.partition:
            executor.update_parameters(slurm_partition=place.partition)
    return executor


def _again(place: Place, logs: Path, number: str) -> Any:
    """A job that an earlier call has submitted."""
    import submitit

    kind = submitit.SlurmJob if place.kind == "slurm" else submitit.LocalJob
    return kind(logs, number)


def _cluster(place: Place) -> str:
    return "slurm" if place.kind == "slurm" else "local"


def _absolute(part: Part) -> Part:
    return Part(part.recipe, part.seeds, part.folder.resolve())


def _read(folder: Path) -> dict[str, str]:
    path = folder / _JOBS
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise EqpropError(f"{path} is damaged ({error}): delete it") from error
