"""Run directories: what a training leaves behind, and all that it needs to go on.

- ``run.json``: the record (records.py)
- ``data.npz``: data of one's own (run_data.py)
- ``start.safetensors``: the weights of another run that it has started from
- ``metrics.jsonl``: a JSON object per epoch
- ``events/``: the same for TensorBoard
- ``checkpoints/``: see checkpoint.py
- ``best.safetensors``, ``result.json``: with a validation part, the checkpoint of the best epoch,
  and what it has come to on the test set
- ``training.png``: the curves, at the end

A run of several seeds has a ``run.json`` for all, a run directory ``seed-<n>`` for each, and, at
the end, ``summary.json``: mean and standard deviation over the seeds.
"""

import contextlib
import fcntl
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, final

from eqprop.errors import EqpropError
from eqprop.training import records
from eqprop.training.files import partial, write_whole, writing
from eqprop.training.records import Record

if TYPE_CHECKING:
    from eqprop.training.events import Events

_RECORD, _METRICS, _LOCK = "run.json", "metrics.jsonl", ".lock"
CHECKPOINTS = "checkpoints"
DATA = "data.npz"
"""Where data of one's own are kept (run_data.py)."""
START = "start.safetensors"
"""The checkpoint that a training has started from, before its first minibatch."""
BEST = "best.safetensors"
"""The checkpoint of the best epoch on the validation part."""
_RESULT = "result.json"
_SUMMARY = "summary.json"
_GO_ON = "make room, or make it writable; `eqprop resume` then goes on"


@final
class Run:
    """A run directory, held by this process until it is closed, from ``create`` or ``resume``; or
    only looked at, from ``watch``.
    """

    def __init__(self, folder: Path, record: Record, lock: io.TextIOWrapper | None) -> None:
        self.folder, self.record, self._lock = folder, record, lock
        self._events: Events | None = None

    @classmethod
    def create(
        cls, folder: Path, record: Record, kept: Mapping[str, bytes] = MappingProxyType({})
    ) -> "Run":
        """A new run, in a folder that is empty or not there yet; with files ``kept`` beside its
        record, ``DATA`` or ``START``.

        Raises:
            EqpropError: there is something in the folder, or it cannot be written.
        """
        check_new(folder)
        with writing(f"the run directory {folder}", "give another with --out"):
            folder.mkdir(parents=True, exist_ok=True)
            lock = _hold(folder)
            try:
                check_new(folder)  # another process may have been quicker
                for name, content in kept.items():
                    write_whole(folder / name, content)
                write_whole(folder / _RECORD, _text(record))
            except BaseException:
                lock.close()
                raise
        return cls(folder, record, lock)

    @classmethod
    def resume(cls, folder: Path) -> "Run":
        """The run in a folder, to go on with it.

        Raises:
            EqpropError: there is none, another process is on it, it cannot be written, or its
                ``run.json`` is damaged.
        """
        read_record(folder)
        with writing(folder, _GO_ON):
            lock = _hold(folder)
        try:
            return cls(folder, read_record(folder), lock)
        except EqpropError:
            lock.close()
            raise

    @classmethod
    def watch(cls, folder: Path, record: Record) -> "Run":
        """A run that another process of the same training holds, and alone writes to."""
        return cls(folder, record, None)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / CHECKPOINTS

    def check_held(self) -> None:
        """Raises ``EqpropError`` where the directory that this process holds is no longer there:
        what has come in its place is not to be written to.
        """
        assert self._lock is not None
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(self._lock.fileno()), os.stat(self.folder / _LOCK)):
                return
        raise EqpropError(
            f"the run directory {self.folder} was moved, deleted or replaced while this process "
            "trained in it: go on with it where it is now, or train again"
        )

    def rewrite(self, record: Record) -> None:
        """Replaces the record in ``run.json``. Raises ``EqpropError`` where that cannot be."""
        with self._writing(_RECORD) as path:
            write_whole(path, _text(record))
        self.record = record

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds the metrics of an epoch to ``metrics.jsonl`` and to the events for TensorBoard.

        Raises:
            EqpropError: they cannot be written; what was there before is still there.
        """
        with self._writing(_METRICS) as path, path.open("a") as file:
            file.write(_line(row))
            file.flush()
            os.fsync(file.fileno())
        from eqprop.training.events import Events  # loads NumPy

        with self._writing("events") as events:
            # TensorBoard then hides what a training that was cut had told of this epoch and later.
            self._events = self._events or Events(events, row["epoch"])
            self._events.add(row)

    def truncate(self, epochs: int) -> int:
        """Keeps the metrics of the first ``epochs`` epochs, and returns how many rows that leaves.

        What is dropped will be measured again, and come out the same.
        """
        rows = [row for row in read_metrics(self.folder) if row["epoch"] <= epochs]
        with self._writing(_METRICS) as path:
            write_whole(path, "".join(map(_line, rows)))
        return len(rows)

    def keep_best(self, content: bytes) -> None:
        """Writes the packed checkpoint of the best epoch so far."""
        with self._writing(BEST) as path:
            write_whole(path, content)

    def conclude(self, epoch: int, tested: Mapping[str, float]) -> None:
        """Writes what the network of the best epoch has come to on the test set."""
        told = {name: number for name, number in tested.items() if math.isfinite(number)}
        columns = {f"test_{name}": number for name, number in told.items()}
        with self._writing(_RESULT) as path:
            write_whole(path, _line({"epoch": epoch} | columns))

    def summarise(self, seeds: Sequence[Sequence[Mapping[str, Any]]]) -> None:
        """Writes ``summary.json``: mean and sample standard deviation of what the seeds measured, a
        row per epoch that all of them have finished.
        """
        from eqprop.training import metrics  # loads NumPy

        summary = []
        for number, rows in enumerate(zip(*seeds, strict=False), 1):
            tables = [metrics.flat(row) for row in rows]
            shared = [name for name in tables[0] if all(name in table for table in tables)]
            spread = {name: metrics.mean_and_std([t[name] for t in tables]) for name in shared}
            columns = {name: {"mean": mean, "std": std} for name, (mean, std) in spread.items()}
            summary.append({"epoch": number, "seeds": len(rows)} | columns)
        with self._writing(_SUMMARY) as path:
            write_whole(path, json.dumps(summary, indent=2) + "\n")

    @contextlib.contextmanager
    def _writing(self, name: str) -> Iterator[Path]:
        """The path of a file that is written inside; if that fails, nothing else is lost."""
        self.check_held()
        path = self.folder / name
        with writing(path, _GO_ON):
            yield path

    def close(self) -> None:
        """Lets go of the directory."""
        if self._events is not None:
            # What cannot be written has been told of when it was added.
            with contextlib.suppress(OSError):
                self._events.close()
        if self._lock is not None:
            self._lock.close()


def check_new(folder: Path) -> None:
    """Raises ``EqpropError`` unless the folder is empty or not there."""
    if os.path.isdir(folder):
        # What a crash leaves of a run that had not begun; without the lock it is somebody else's.
        names = {path.name for path in folder.iterdir()}
        left = {_LOCK, *(partial(folder / name).name for name in (_RECORD, DATA, START))}
        if names - left - ({DATA, START} if _LOCK in names else set()):
            go_on = f", or go on with it: eqprop resume {folder}" if is_run(folder) else ""
            raise EqpropError(
                f"the run directory {folder} exists, and is not empty: give another with "
                f"--out{go_on}"
            )
    elif os.path.exists(folder):
        raise EqpropError(f"{folder} is a file, so no run directory: give another with --out")


def make_folder(out: Path) -> Path:
    """Makes a directory, before the work whose results it is to hold.

    Raises ``EqpropError`` where that cannot be.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EqpropError(
            f"the directory {out} cannot be made ({error.strerror}): give another with --out"
        ) from error
    return out


def is_run(folder: Path) -> bool:
    """Whether a run has been started in the folder."""
    return os.path.isfile(folder / _RECORD)


def read_record(folder: Path) -> Record:
    """The record of the run in a folder.

    Raises:
        EqpropError: there is none, or it is damaged.
    """
    path = folder / _RECORD
    if not os.path.isfile(path):  # `Path.is_file` raises for names that are too long
        raise EqpropError(
            f"{folder} is no run directory, for it has no {_RECORD}: name one that "
            "`eqprop train` made"
        )
    try:
        return records.from_json(json.loads(path.read_text()))
    except (OSError, ValueError, RecursionError) as error:
        raise EqpropError(
            f"{path} cannot be used: {error}; restore it, or take the version that wrote it"
        ) from error


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of the epochs, as metrics.py has them; a last line that a crash cut short is left
    out.

    Raises:
        EqpropError: another line is damaged.
    """
    from eqprop.training import metrics  # loads NumPy

    path = folder / _METRICS
    # A pipe would wait for ever.
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        if number == len(lines) and not line.endswith(b"\n"):
            break
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or not metrics.is_row(row, number):
            raise EqpropError(
                f"{path}, line {number}, is not the metrics of epoch {number}: restore that line"
            )
        rows.append(row)
    return rows


def read_result(folder: Path) -> dict[str, Any] | None:
    """What ``Run.conclude`` has written, if it has: the best epoch, and metrics of the test set.

    Raises ``EqpropError`` where it is damaged.
    """
    from eqprop.training import metrics  # loads NumPy

    path = folder / _RESULT
    if not path.is_file():
        return None
    try:
        result = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        result = None
    if not isinstance(result, dict) or not metrics.is_row(result, result.get("epoch", 0)):
        raise EqpropError(f"{path} is damaged: delete it, and eqprop resume {folder} renews it")
    return result


def seed_folders(folder: Path, record: Record) -> list[tuple[int, Path]]:
    """The run directory of each seed of the run in a folder."""
    if len(record.seeds) == 1:
        return [(record.seeds[0], folder)]
    return [(seed, folder / f"seed-{seed}") for seed in record.seeds]


def _text(record: Record) -> str:
    return json.dumps(records.to_json(record), indent=2) + "\n"


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def _hold(folder: Path) -> io.TextIOWrapper:
    """Locks a run directory for this process; the system unlocks it when the process ends."""
    lock = (folder / _LOCK).open("a+", errors="replace")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        holder = lock.read(20).strip() or "unknown"
        lock.close()
        raise EqpropError(
            f"another eqprop process (number {holder}) is on the run directory {folder}: wait for "
            "it, or stop it"
        ) from error
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock
