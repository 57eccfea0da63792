"""Progress on the screen: a live display on a terminal, a line per epoch everywhere else."""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, final

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text


class Now(NamedTuple):
    """Where a training is."""

    rows: Sequence[Mapping[str, Any]]
    """The metrics so far of the current epoch, of each seed that is trained."""
    done: int
    """Parts of the epoch, minibatches or test examples, that are done ..."""
    total: int
    """... out of so many."""
    doing: str
    """Other than learning."""
    per_epoch: float | None
    """Seconds, or None before they are known."""
    left: float | None
    """Seconds to the end of the training."""


@final
class Display:
    """What a command tells its user; lines go to standard output, one by one, terminal or not."""

    def __init__(self, process: int = 0, processes: int = 1) -> None:
        # Of several processes the first one speaks, and in lines: a live display is for whoever
        # shows it to compute, which takes all of them.
        self.console = Console(
            highlight=False,
            markup=False,
            emoji=False,
            quiet=process > 0,
            force_terminal=None if processes == 1 else False,
        )
        self._live: Live | None = None
        self._epochs = 0
        self._test_error: str | None = None

    def say(self, line: str) -> None:
        """A line that stays."""
        self.console.print(line, soft_wrap=True)

    @contextlib.contextmanager
    def doing(self, what: str) -> Iterator[Callable[[str], None]]:
        """Shows, on a terminal, what takes its time; what it yields tells how far that is."""
        if not self.console.is_terminal:
            yield lambda _: None
            return
        with self.console.status(f"{what} ...") as status:
            yield lambda progress: status.update(f"{what} ... {progress}")

    @contextlib.contextmanager
    def training(self, epochs: int) -> Iterator["Display"]:
        """Shows a training of so many epochs; ``now`` and ``epoch`` feed it."""
        self._epochs, self._test_error = epochs, None
        if not self.console.is_terminal:
            yield self
            return
        # Refreshed by the training itself: a thread of its own would take time from it.
        live = Live(console=self.console, auto_refresh=False, transient=True)
        with live:
            self._live = live
            try:
                yield self
            finally:
                self._live = None

    @property
    def live(self) -> bool:
        """Whether ``now`` shows anything."""
        return self._live is not None

    def now(self, now: Now) -> None:
        """Shows where the training is."""
        if self._live is None:
            return
        rows = now.rows
        top = Table.grid(padding=(0, 2))
        top.add_row(
            f"epoch {rows[0]['epoch']}/{self._epochs}",
            ProgressBar(total=now.total, completed=now.done, width=20),
            f"{now.doing} {now.done}/{now.total}".strip(),
            "" if now.per_epoch is None else f"{now.per_epoch:.3g} s/epoch",
            "" if now.left is None else f"{clock(now.left)} left",
        )
        test = "" if self._test_error is None else f"  test {self._test_error} %"
        figures = (
            f"loss {spread(rows, 'train_loss', 4)}  train {spread(rows, 'train_error')} %{test}"
            f"  steps {spread(rows, 'free_steps', 1)}+{rows[0]['nudged_steps']}"
        )
        self._live.update(Group(top, Text(figures)), refresh=True)

    def epoch(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Tells of an epoch that is finished, by its row of metrics, or those of several seeds."""
        first = rows[0]
        self._test_error = spread(rows, "test_error")
        by_edge = [row["angles"] for row in rows]
        angles = "".join(f"  angle {edge} {spread(by_edge, edge, 1)}" for edge in first["angles"])
        self.say(
            f"epoch {first['epoch']:>{len(str(self._epochs))}}/{self._epochs}"
            f"  loss {spread(rows, 'train_loss', 4)}  train {spread(rows, 'train_error')} %"
            f"  test {self._test_error} %"
            f"  steps {spread(rows, 'free_steps', 1)}+{first['nudged_steps']}{angles}"
            f"  {sum(first['seconds'].values()):.1f} s"
        )


def spread(rows: Sequence[Mapping[str, Any]], key: str, digits: int = 2) -> str:
    """A figure of several seeds as mean ± std; what all of them share, as it is."""
    values = [row[key] for row in rows]
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(set(values)) > 1 else mean


@final
class Stopwatch:
    """Seconds since it was made or last restarted."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """From 0 again."""
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """What it shows."""
        return time.perf_counter() - self._start


def clock(seconds: float) -> str:
    """Hours, minutes and seconds, as ``1:02:03``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}"
