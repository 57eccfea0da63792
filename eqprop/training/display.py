"""Progress on the screen: a line per epoch, and a live display on a terminal or in a notebook."""

import contextlib
import io
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from eqprop.training import metrics

_COLUMNS = 100  # of a notebook


@final
class Now(NamedTuple):
    """Where a training is."""

    rows: Sequence[metrics.Row]
    """The metrics so far of the current epoch, and of the last test, of each seed in training."""
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
        self._notebook = processes == 1 and Console().is_jupyter
        # Of several processes the first one speaks, and in lines: a live display is for whoever
        # shows it to compute, which takes all of them.
        self.console = Console(
            highlight=False,
            markup=False,
            emoji=False,
            quiet=process > 0,
            force_terminal=None if processes == 1 and not self._notebook else False,
            force_jupyter=False,  # lines are text there, too, not an output each
        )
        self.idle = Stopwatch()
        """Since the command began, or since its last training has ended."""
        self._show: Callable[[RenderableType], object] | None = None
        self._epochs = 0

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
    def training(self, epochs: int) -> Iterator[None]:
        """Shows a training of so many epochs; ``now`` and ``epoch`` feed it."""
        self._epochs = epochs
        with self._live() as show:
            self._show = show
            try:
                yield
            finally:
                self._show = None

    @contextlib.contextmanager
    def _live(self) -> Iterator[Callable[[RenderableType], object] | None]:
        """What shows something in the place of what it has shown before, and nothing in the end."""
        if self.console.is_terminal:
            # Refreshed by the training itself: a thread of its own would take time from it.
            with Live(console=self.console, auto_refresh=False, transient=True) as live:
                yield lambda shown: live.update(shown, refresh=True)
        elif self._notebook:
            from IPython.display import HTML, DisplayHandle

            place = DisplayHandle()
            place.display(HTML(""))
            try:
                yield lambda shown: place.update(HTML(_html(shown)))
            finally:
                place.update(HTML(""))
        else:
            yield None

    @property
    def live(self) -> bool:
        """Whether ``now`` shows anything."""
        return self._show is not None

    def now(self, now: Now) -> None:
        """Shows where the training is."""
        if self._show is None:
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
        self._show(Group(top, Text(metrics.show(rows))))

    def epoch(self, rows: Sequence[metrics.Row]) -> None:
        """Tells of an epoch that is finished, by its row of metrics, or those of several seeds."""
        number = f"{rows[0]['epoch']:>{len(str(self._epochs))}}"
        self.say(f"epoch {number}/{self._epochs}  {metrics.show(rows)}")


def _html(shown: RenderableType) -> str:
    """As a terminal would show it."""
    page = Console(record=True, file=io.StringIO(), width=_COLUMNS, force_jupyter=False)
    page.print(shown)
    return page.export_html(inline_styles=True, code_format="<pre>{code}</pre>")


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
