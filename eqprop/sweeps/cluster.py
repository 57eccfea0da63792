"""Trainings as jobs, of a Slurm cluster or as other processes of this machine, by submitit.

A job is told its training and no more, and goes on where the run directory stands: so jobs may be
preempted, requeued, or submitted again. Logs are in ``jobs/``, the jobs' numbers in ``jobs.json``.
"""

import abc
import dataclasses
import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final, override

import msgspec

from eqprop.errors import EqpropError
from eqprop.training.files import write_whole
from eqprop.training.planned import PlannedTraining

_POLL = 1.0  # seconds
_JOBS = "jobs.json"


@dataclass(frozen=True)
class Workers(abc.ABC):
    """Abstract: where jobs run, and what each may use."""

    at_once: int
    """Jobs at the same time."""
    minutes: int
    cpus: int
    gpus: int

    @abc.abstractmethod
    def executor(self, logs: Path) -> Any:
        """What submits jobs, by submitit. Raises ``RuntimeError`` where that cannot be."""

    @abc.abstractmethod
    def job(self, logs: Path, number: str) -> Any:
        """A job that an earlier call has submitted."""

    @abc.abstractmethod
    def room(self, trainings: int) -> int:
        """How many jobs may wait or run, of so many trainings."""


@final
@dataclass(frozen=True)
class Processes(Workers):
    """Other processes of this machine."""

    @override
    def executor(self, logs: Path) -> Any:
        return _submitit().AutoExecutor(logs, cluster="local")

    @override
    def job(self, logs: Path, number: str) -> Any:
        return _Earlier(number)

    @override
    def room(self, trainings: int) -> int:
        return self.at_once


@final
@dataclass(frozen=True)
class _Earlier:
    """A process that an earlier call has started, of which submitit knows no more."""

    job_id: str

    def done(self) -> bool:
        """Whether no process of submitit has that number."""
        try:
            asked = ["ps", "-ww", "-o", "args=", "-p", self.job_id]
            said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
        except OSError:  # no ps; what runs keeps its directory locked
            return True
        return "submitit" not in said


@final
@dataclass(frozen=True)
class Slurm(Workers):
    """A Slurm cluster, which itself queues what is too much at once."""

    partition: str | None = None
    """The cluster's default if None."""

    @override
    def executor(self, logs: Path) -> Any:
        executor = _submitit().AutoExecutor(logs, cluster="slurm")
        limits = {"slurm_array_parallelism": self.at_once, "slurm_partition": self.partition}
        executor.update_parameters(**{name: it for name, it in limits.items() if it})
        return executor

    @override
    def job(self, logs: Path, number: str) -> Any:
        return _submitit().SlurmJob(logs, number)

    @override
    def room(self, trainings: int) -> int:
        return trainings


def _submitit() -> Any:
    try:
        import submitit
    except ImportError as error:
        raise EqpropError(
            "jobs need submitit, which is not installed: pip install 'eqprop[slurm]'"
        ) from error
    return submitit


@final
@dataclass(frozen=True)
class Job:
    """What a job does."""

    planned: PlannedTraining
    command: tuple[str, ...]

    def __call__(self) -> None:
        """Trains from where the run stands."""
        self.planned.work(self.command)

    def checkpoint(self) -> Any:
        """What Slurm is to run after it has preempted this, or its time was over: the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def work_all(
    trainings: Mapping[str, PlannedTraining],
    workers: Workers,
    folder: Path,
    command: Sequence[str],
    done: Callable[[str], None],
) -> None:
    """Has all trained that have not ended, and waits; ``done`` hears of each.

    Stopped while it waits, it leaves jobs alone, though a terminal sends Ctrl-C to processes, too;
    called again, it waits for those that still run.

    Raises:
        KeyboardInterrupt: it was stopped; says how many jobs ran.
        EqpropError: submitit or Slurm is not there, or jobs ended before their trainings.
    """
    logs = folder / "jobs"
    executor = _executor(workers, logs)
    numbers = _read(folder)
    waiting = [name for name, planned in trainings.items() if not planned.ended]
    running = {
        name: job
        for name in waiting
        if name in numbers and not (job := workers.job(logs, numbers[name])).done()
    }
    waiting = [name for name in waiting if name not in running]
    began = list(running)
    room = workers.room(len(trainings))
    while waiting or running:
        free = max(0, room - len(running))
        start, waiting = waiting[:free], waiting[free:]
        if start:
            with executor.batch():
                new = {
                    name: executor.submit(Job(_absolute(trainings[name]), tuple(command)))
                    for name in start
                }
            running |= new
            began += start
            numbers |= {name: job.job_id for name, job in new.items()}
            write_whole(folder / _JOBS, json.dumps(numbers, indent=2) + "\n")
        try:
            time.sleep(_POLL)
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(
                f"interrupted while {len(running)} of {len(trainings)} jobs ran: the same command "
                "waits for those that still do, and goes on with the others"
            ) from stop
        for name in [name for name, job in running.items() if job.done()]:
            del running[name]
            done(name)
    if failed := [name for name in began if not trainings[name].ended]:
        raise EqpropError(
            f"{len(failed)} of {len(trainings)} trainings did not come to their end ({failed[0]}, "
            f"job {numbers[failed[0]]}): see the logs in {logs}; the same command goes on with them"
        )


def _executor(workers: Workers, logs: Path) -> Any:
    try:
        executor = workers.executor(logs)
    except RuntimeError as error:  # no srun
        raise EqpropError(
            f"jobs cannot be submitted: {error}; run this on a login node of a Slurm cluster, or "
            "with --on processes"
        ) from error
    executor.update_parameters(
        name="eqprop-sweep",
        timeout_min=workers.minutes,
        cpus_per_task=workers.cpus,
        gpus_per_node=workers.gpus,
    )
    return executor


def _absolute(planned: PlannedTraining) -> PlannedTraining:
    data = planned.data and dataclasses.replace(planned.data, folder=planned.data.folder.resolve())
    return dataclasses.replace(planned, folder=planned.folder.resolve(), data=data)


def _read(folder: Path) -> dict[str, str]:
    path = folder / _JOBS
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, str]) if path.exists() else {}
    except msgspec.MsgspecError as error:
        raise EqpropError(f"{path} is damaged ({error}): delete it") from error
