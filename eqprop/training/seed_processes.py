"""Seeds as processes of this machine: on a CPU, where one small network keeps one core busy.

Each seed is a run directory of its own, so a process is told its directory and no more, and goes on
where that stands. It ends with a checkpoint when it is told to, and when whoever started it is
gone.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, final

from eqprop.errors import Diverged, EqpropError
from eqprop.training.display import Display
from eqprop.training.session import Signals, Stopped, TimeUp

_PROGRAM = "from eqprop.training.launch import work_on_seed; work_on_seed()"
_TICK = 0.2  # seconds
_WORTH = 200_000  # examples learnt by a seed: below, a process takes longer to start than to learn


def cores() -> int:
    """How many cores there are for this process."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_worth_it(examples: int, epochs: int) -> bool:
    """Whether seeds that learn so many examples an epoch are faster side by side."""
    return cores() > 1 and examples * epochs >= _WORTH


def train_side_by_side(
    run: Path, seeds: Sequence[int], command: Sequence[str], display: Display, until: float
) -> None:
    """Trains the seeds of the run in a folder, each in a run directory that is there, as many at
    the same time as there are cores.

    Raises:
        Stopped: SIGINT or SIGTERM came, and checkpoints were made.
        TimeUp: they were not finished ``until`` then (``time.monotonic``); likewise.
        Diverged: what a seed has learnt is not finite; the others have made checkpoints.
        EqpropError: a process could not do its work.
    """
    workers = min(len(seeds), cores())
    share = cores() // workers
    waiting, failed = list(seeds), {}
    with _Processes(run, command, share) as started, Signals(until) as signals:
        with display.doing("training") as tell:
            told = False
            while waiting or started.running:
                stop = signals.heard is not None or signals.time_is_up or bool(failed)
                if stop and not told:
                    started.signal(signals.heard or signal.SIGTERM)
                    told, waiting = True, []
                while waiting and len(started.running) < workers:
                    started.begin(waiting.pop(0))
                for seed, line in started.lines():
                    display.say(f"seed {seed}: {line}")
                failed |= started.ended()
                done = len(seeds) - len(waiting) - len(started.running)
                at = ", ".join(f"seed {seed}" for seed in sorted(started.running))
                tell(f"{at}; {done} of {len(seeds)} seeds done")
        where = f"to go on: eqprop resume {run}"
        if signals.heard is not None:
            raise Stopped(f"stopped by {signals.name}, with checkpoints; {where}", signals.heard)
        for error in failed.values():
            raise error
        if told:
            raise TimeUp(f"its time is up; {where}")
        if started.stopped:
            raise EqpropError(f"the process of seed {started.stopped[0]} was stopped; {where}")


@final
class _Processes:
    """Processes that each train a seed, and what they say."""

    def __init__(self, run: Path, command: Sequence[str], share: int) -> None:
        self.running: dict[int, subprocess.Popen[str]] = {}
        self.stopped: list[int] = []
        """Seeds whose process heard a signal, ours or another's."""
        self._run, self._command, self._share = run, command, share
        self._said: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
        self._errors: dict[int, list[str]] = {}
        self._readers: dict[int, list[threading.Thread]] = {}

    def __enter__(self) -> "_Processes":
        return self

    def __exit__(self, *_: object) -> None:
        for seed, process in self.running.items():  # only where something has gone wrong here
            process.kill()
            process.wait()
            self._close(seed, process)

    def begin(self, seed: int) -> None:
        """Starts the process of a seed."""
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(self._run), str(seed), *self._command],
            stdin=subprocess.PIPE,  # whose end tells it that this process is gone
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=environment(self._share, os.environ),
            start_new_session=True,  # Ctrl-C is heard here, and told on
        )
        self.running[seed] = process
        self._errors[seed] = []

        def hear() -> None:
            for line in process.stdout or ():
                self._said.put((seed, line.rstrip()))

        def hear_errors() -> None:
            self._errors[seed].extend(line.rstrip() for line in process.stderr or ())

        self._readers[seed] = [threading.Thread(target=it) for it in (hear, hear_errors)]
        for reader in self._readers[seed]:
            reader.start()

    def signal(self, number: int) -> None:
        """Tells all to make a checkpoint and end."""
        for process in self.running.values():
            process.send_signal(number)

    def lines(self) -> Iterator[tuple[int, str]]:
        """What was said, by which seed; waits a moment for something."""
        with contextlib.suppress(queue.Empty):
            yield self._said.get(timeout=_TICK)
            while True:
                yield self._said.get_nowait()

    def ended(self) -> dict[int, EqpropError]:
        """Forgets those that have ended; why those that have failed did."""
        failed = {}
        for seed, process in list(self.running.items()):
            if process.poll() is None or any(it.is_alive() for it in self._readers[seed]):
                continue
            del self.running[seed]
            self._close(seed, process)
            if not process.returncode:
                continue
            if error := _error(seed, process, self._errors[seed]):
                failed[seed] = error
            else:
                self.stopped.append(seed)
        return failed

    def _close(self, seed: int, process: "subprocess.Popen[str]") -> None:
        for reader in self._readers[seed]:
            reader.join()
        for stream in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()


def environment(share: int, of_this: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that is to use so many cores."""
    heard = {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8:replace"}
    found = {**of_this, **heard, "NPROC": str(share)}
    if share == 1:
        flags = "--xla_cpu_multi_thread_eigen=false"
        found |= {"OMP_NUM_THREADS": "1", "XLA_FLAGS": f"{of_this.get('XLA_FLAGS', '')} {flags}"}
    return found


def _error(seed: int, process: "subprocess.Popen[str]", lines: Sequence[str]) -> EqpropError | None:
    """Why a process has failed; None where it has stopped for a signal."""
    try:
        about: Any = json.loads(lines[-1])
        kind, message = about["kind"], about["message"]
    except (ValueError, LookupError, TypeError):
        last = f": {lines[-1]}" if lines else ""
        return EqpropError(f"the process of seed {seed} ended with {process.returncode}{last}")
    if kind == Stopped.__name__:
        return None
    return Diverged(message) if kind == Diverged.__name__ else EqpropError(message)


def work(train: Callable[[Path, int, Sequence[str]], None]) -> NoReturn:
    """The main program of such a process: trains the seed that its arguments name.

    What goes wrong is told as JSON in the last line of standard error.
    """
    run, seed, *command = sys.argv[1:]
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        train(Path(run), int(seed), command)
    except EqpropError as error:
        about = {"kind": type(error).__name__, "message": str(error)}
        print(json.dumps(about), file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    raise SystemExit(0)


def _end_with_parent() -> None:
    """Stops, with a checkpoint, when the process that started this one is gone."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)
