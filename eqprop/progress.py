"""Progress on the screen: a live display on a terminal, a line per epoch everywhere else."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, final

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text


class Now(NamedTuple):
    """Where a training is."""

    row: Mapping[str, Any]
    """The metrics so far of the current epoch."""
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

    def __init__(self) -> None:
        self.console = Console(highlight=False, markup=False, emoji=False)
        self._live: Live | None = None
        self._epochs = 0
        self._test_error: float | None = None

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
        row = now.row
        top = Table.grid(padding=(0, 2))
        top.add_row(
            f"epoch {row['epoch']}/{self._epochs}",
            ProgressBar(total=now.total, completed=now.done, width=20),
            f"{now.doing} {now.done}/{now.total}".strip(),
            "" if now.per_epoch is None else f"{now.per_epoch:.3g} s/epoch",
            "" if now.left is None else f"{clock(now.left)} left",
        )
        test = "" if self._test_error is None else f"  test {self._test_error:.2f} %"
        figures = (
            f"loss {row['train_loss']:.4f}  train {row['train_error']:.2f} %{test}"
            f"  steps {row['free_steps']:.1f}+{row['nudged_steps']}"
        )
        self._live.update(Group(top, Text(figures)), refresh=True)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Tells of an epoch that is finished, by its row of metrics."""
        self._test_error = row["test_error"]
        angles = "".join(f"  angle {edge} {a:.1f}" for edge, a in row["angles"].items())
        self.say(
            f"epoch {row['epoch']:>{len(str(self._epochs))}}/{self._epochs}"
            f"  loss {row['train_loss']:.4f}  train {row['train_error']:.2f} %"
            f"  test {row['test_error']:.2f} %"
            f"  steps {row['free_steps']:.1f}+{row['nudged_steps']}{angles}"
            f"  {sum(row['seconds'].values()):.1f} s"
        )


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
