"""A training session: learning with a run directory, a display, and what may happen on the way.

An epoch is learnt in stretches of about half a second, between which numbers are shown, faults
found, signals heard and checkpoints written. Where it is cut has no effect on what is learnt.
"""

import math
import signal
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn, final

import jax

from eqprop.errors import Diverged, EqpropError
from eqprop.training import checkpoint, hosts
from eqprop.training.display import Display, Now, Stopwatch
from eqprop.training.divergence import copy, find, whole
from eqprop.training.experiment import Job, Start, evaluate_each
from eqprop.training.runs import Run
from eqprop.training.trainer import TrainState, angles
from eqprop.types import Array, Int

_STRETCH = 0.5  # seconds
_SAVE_AFTER_EPOCH, _SAVE_WITHIN_EPOCH = 10.0, 60.0  # seconds since the last checkpoint


class Stopped(EqpropError):
    """A training that a signal has stopped, and that can go on."""


@final
class Session:
    """Trains a job in a run directory, or its replicas in one for each.

    ``top`` is the run directory that is to be resumed.
    """

    def __init__(self, job: Job, runs: Sequence[Run], display: Display, top: str) -> None:
        self._job, self._runs, self._display, self._top = job, runs, display, top
        self._saved = Stopwatch()
        self._pace: float | None = None  # seconds per minibatch, as last measured
        self._testing = 0.0  # seconds
        self._length = 1  # minibatches in a stretch
        self._epochs = 0

    def train(self, start: Start, epochs: int) -> TrainState:
        """Trains until so many epochs are finished; returns the final state, saved.

        Raises:
            Stopped: SIGINT or SIGTERM came, and a checkpoint was made.
            Diverged: what was learnt is not finite.
            EqpropError: a checkpoint could not be written.
        """
        state, seconds = start
        self._epochs = epochs
        with hosts.watched(self._top), _Signals() as signals:
            state = self._compile(state)
            with self._display.training(epochs):
                while state.place[0] < epochs:
                    state, seconds = self._learn(state, seconds, signals)
                    state = self._finish_epoch(state, seconds, signals)
                    seconds = 0.0
                    finished, stopped = state.place[0] == epochs, signals.heard_anywhere()
                    due = hosts.agree(self._saved.seconds >= _SAVE_AFTER_EPOCH)
                    if finished or stopped or due:
                        self._save(state, seconds)
                    if stopped and not finished:
                        self._stop(state, signals)
        return state

    def _compile(self, state: TrainState) -> TrainState:
        job, watch = self._job, Stopwatch()
        with self._display.doing("compiling"):
            # No minibatch at all: it is compiled and does nothing.
            order = job.trainer.order(state, job.train)
            state = job.trainer.advance(state, job.train, order, state.place[1])
            whole(copy(state))
        self._display.say(f"compiled in {watch.seconds:.1f} s")
        return state

    def _learn(
        self, state: TrainState, seconds: float, signals: "_Signals"
    ) -> tuple[TrainState, float]:
        """The rest of the state's epoch; and the seconds that the whole epoch took."""
        job = self._job
        order = job.trainer.order(state, job.train)
        _, batch = state.place
        while batch < job.batches:
            good, watch = copy(state), Stopwatch()
            stop = min(job.batches, batch + self._length)
            state = job.trainer.advance(state, job.train, order, stop)
            if not whole(state):
                self._diverge(order, good, stop, seconds)
            took, learnt = watch.seconds, stop - batch
            if learnt > 1:  # a single minibatch may be the first, which takes longer
                self._pace = took / learnt
            # What hangs on a clock is for the first of several processes to say.
            self._length, due = hosts.agree(
                (
                    max(1, min(4 * self._length, round(_STRETCH * learnt / took))),
                    self._saved.seconds >= _SAVE_WITHIN_EPOCH,
                )
            )
            seconds, batch = seconds + took, stop
            self._show(state)
            stopped = signals.heard_anywhere()
            if stopped or due:
                self._save(state, seconds)
            if stopped:
                self._stop(state, signals)
        return state, seconds

    def _finish_epoch(self, state: TrainState, seconds: float, signals: "_Signals") -> TrainState:
        """Tests, writes the epoch's metrics, and turns to the next epoch."""
        job, watch = self._job, Stopwatch()

        def go_on(done: int) -> bool:
            self._show(state, ("testing", done, len(job.test.labels)))
            return not signals.heard_anywhere()

        scores = evaluate_each(job, state.network, job.test, go_on)
        if scores is None:
            self._save(state, seconds)
            self._stop(state, signals)
        epoch = state.place[0] + 1
        for replica, score in enumerate(scores):
            if not math.isfinite(score.loss):
                raise Diverged(
                    f"{self._name(replica)} has diverged: the test loss after epoch {epoch} is "
                    f"{score.loss}; {self._remedy(replica)}"
                )
        self._testing = watch.seconds
        times = {"train": seconds, "test": self._testing}
        rows = [
            row | {"test_loss": score.loss, "test_error": score.error, "seconds": times}
            for row, score in zip(self._measure(state, epoch), scores, strict=True)
        ]
        hosts.on_lead(lambda: [run.append(row) for run, row in zip(self._runs, rows, strict=True)])
        self._display.epoch(rows)
        return job.trainer.next_epoch(state)

    def _measure(self, state: TrainState, epoch: int) -> list[dict[str, Any]]:
        """The metrics of a finished epoch that follow from its state, for each run."""
        parts = self._job.trainer.layout.parts
        _, batches = state.place
        examples = batches * self._job.trainer.batch
        return [
            {
                "epoch": epoch,
                "train_loss": float(totals.loss) / examples,
                "train_error": 100 * int(totals.errors) / examples,
                "free_steps": int(totals.steps) / batches,
                "nudged_steps": self._job.recipe.K,
                "residual": float(totals.residual),
                "angles": angles(network),
            }
            for totals, network in zip(
                jax.device_get(parts(state.totals)), parts(state.network), strict=True
            )
        ]

    def _show(self, state: TrainState, doing: tuple[str, int, int] | None = None) -> None:
        if not self._display.live:
            return
        job, (done_epochs, batch) = self._job, state.place
        epoch = done_epochs + 1
        rows = self._measure(state, epoch)
        left = per_epoch = None
        if self._pace is not None:
            per_epoch = self._pace * job.batches + self._testing
            left = (self._epochs - epoch + 1) * per_epoch - self._pace * batch
        what, done, total = doing or ("", batch, job.batches)
        self._display.now(Now(rows, done, total, what, per_epoch, left))

    def _save(self, state: TrainState, seconds: float) -> None:
        parts = self._job.trainer.layout.parts(state)

        def write() -> None:
            for run, part in zip(self._runs, parts, strict=True):
                checkpoint.save(run.checkpoints, part, {"seconds": seconds})

        hosts.on_lead(write)
        self._saved.restart()

    def _stop(self, state: TrainState, signals: "_Signals") -> NoReturn:
        epochs, batch = state.place
        raise Stopped(
            f"stopped by {signals.heard or 'a signal'} in epoch {epochs + 1}, with {batch} of "
            f"{self._job.batches} minibatches learnt; to go on: eqprop resume {self._top}"
        )

    def _diverge(
        self, order: Int[Array, "*replicas batches B"], good: TrainState, stop: int, seconds: float
    ) -> NoReturn:
        job = self._job
        batch, where, replica = find(job.trainer, job.train, order, good, stop)
        if len(self._runs) > 1:
            # The others have done nothing wrong: they can go on from here, each alone.
            self._save(good, seconds)
        raise Diverged(
            f"{self._name(replica)} has diverged in epoch {good.place[0] + 1}, minibatch "
            f"{batch + 1} of {job.batches}: {where} are not finite, or beyond all bounds; "
            f"{self._remedy(replica)}"
        )

    def _name(self, replica: int) -> str:
        """Which training that is."""
        if len(self._runs) == 1:
            return "the training"
        return f"the training of seed {self._runs[replica].record.seeds[0]}"

    def _remedy(self, replica: int) -> str:
        last = checkpoint.newest_path(self._runs[replica].checkpoints) or "none yet"
        rates = " ".join(map(str, self._job.recipe.lr))
        others = [str(run.folder) for n, run in enumerate(self._runs) if n != replica]
        alone = f"; or go on with another seed alone: eqprop resume {others[0]}" if others else ""
        return (
            f"train with lower learning rates than --lr {rates}{alone}. Last good checkpoint: "
            f"{last}"
        )


@final
class _Signals:
    """Hears SIGINT and SIGTERM for the training to heed; a second one ends it at once."""

    heard: str | None = None

    def __enter__(self) -> "_Signals":
        self._before: dict[int, Any] = {}
        # Elsewhere than in the main thread Python lets nobody listen.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def heard_anywhere(self) -> bool:
        """Whether this process or another one of the training has heard one."""
        return hosts.any_of(self.heard is not None)

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        if self.heard:
            raise KeyboardInterrupt
        self.heard = signal.Signals(number).name
