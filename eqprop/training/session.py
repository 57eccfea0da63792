"""A training session: learning with a run directory, a display, and what may happen on the way.

An epoch is learnt in stretches of about half a second, between which numbers are shown, faults
found, signals heard and checkpoints written. Where it is cut has no effect on what is learnt.
"""

import math
import signal
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn, final

import jax

from eqprop.errors import Diverged, EqpropError
from eqprop.recipes.recipe import Recipe
from eqprop.training import checkpoint, hosts, metrics
from eqprop.training.display import Display, Now, Stopwatch
from eqprop.training.divergence import copy, find, whole
from eqprop.training.experiment import Experiment, evaluate
from eqprop.training.places import newest_path
from eqprop.training.restore import Start
from eqprop.training.runs import Run, read_metrics
from eqprop.training.selection import best_epoch, has_waited
from eqprop.training.trainer import TrainState
from eqprop.types import Array, Int

_STRETCH = 0.5  # seconds
# Beyond them nudged states may be driven by their targets, or leap over where they head for.
_LARGE_BETA, _LARGE_DT = 10.0, 0.5
_SAVE_AFTER_EPOCH, _SAVE_WITHIN_EPOCH = 10.0, 60.0  # seconds since the last checkpoint


@final
class Stopped(EqpropError):
    """A training that a signal has stopped, and that can go on.

    ``exit_code`` is what a process that the signal has ended returns to its shell.
    """

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = 1 if number is None else 128 + number


@final
class TimeUp(EqpropError):
    """A training whose time is up, and that can go on."""


@final
class Session:
    """Trains an experiment in a run directory, or its replicas in one for each.

    ``top`` is the run directory that is to be resumed.
    """

    def __init__(
        self, experiment: Experiment, runs: Sequence[Run], display: Display, top: str
    ) -> None:
        self._experiment, self._runs, self._display, self._top = experiment, runs, display, top
        self._saved = Stopwatch()
        self._pace: float | None = None  # seconds per minibatch, as last measured
        self._testing = 0.0  # seconds
        self._seconds_to_start = math.nan  # until they are told, once
        self._tested: list[dict[str, float]] = [{} for _ in runs]  # by the last test
        self._rows: list[list[dict[str, Any]]] = [[] for _ in runs]  # of finished epochs
        self._length = 1  # minibatches in a stretch
        self._epochs = 0
        self._told = False  # that free phases do not settle

    def train(self, start: Start, epochs: int, until: float = math.inf) -> TrainState:
        """Trains until so many epochs are finished, or the patience of the recipe is at its end;
        returns the final state, saved. The state of the best epoch is kept where there is a
        validation part.

        Raises:
            Stopped: SIGINT or SIGTERM came, and a checkpoint was made.
            TimeUp: it was not finished ``until`` then (``time.monotonic``), and a checkpoint was
                made.
            Diverged: what was learnt is not finite.
            EqpropError: a checkpoint could not be written.
        """
        state, seconds = start
        self._epochs = epochs
        with hosts.watched(self._top), Signals(until) as signals:
            self.catch_up(state)
            state = self._compile(state)
            self._seconds_to_start = self._display.idle.seconds
            with self._display.training(epochs):
                finished = False
                while not finished:
                    state, seconds = self._learn(state, seconds, signals)
                    state = self._finish_epoch(state, seconds, signals)
                    seconds = 0.0
                    # The first process alone knows all rows.
                    waited = [has_waited(self._experiment.recipe, rows) for rows in self._rows]
                    finished = state.position[0] == epochs or bool(hosts.agree(all(waited)))
                    stopped = signals.heard_anywhere()
                    best = self._best_now(state)
                    due = hosts.agree(self._saved.seconds >= _SAVE_AFTER_EPOCH)
                    if finished or stopped or due or any(best):
                        self._save(state, seconds)
                        self._keep_best(state)
                    if stopped and not finished:
                        self._stop(state, signals)
            if hosts.any_of(signals.heard is not None):
                # Nothing is left to learn, but other seeds, or a test, may come next.
                raise Stopped(
                    f"stopped by {signals.name} after its last epoch; to go on: eqprop resume "
                    f"{self._top}",
                    signals.heard,
                )
        self._display.idle.restart()
        return state

    def catch_up(self, state: TrainState) -> None:
        """Reads what was measured before; and keeps the state of the best epoch, should the
        training have been cut just before that.
        """
        folders = [run.folder for run in self._runs]
        self._rows = hosts.on_lead(lambda: [*map(read_metrics, folders)]) or self._rows
        self._keep_best(state)

    def _compile(self, state: TrainState) -> TrainState:
        experiment, watch = self._experiment, Stopwatch()
        with self._display.doing("compiling"):
            # No minibatch at all: it is compiled and does nothing.
            order = experiment.trainer.order(state, experiment.train)
            state = experiment.trainer.advance(state, experiment.train, order, state.position[1])
            whole(copy(state))
        self._display.say(f"compiled in {watch.seconds:.1f} s")
        return state

    def _learn(
        self, state: TrainState, seconds: float, signals: "Signals"
    ) -> tuple[TrainState, float]:
        """The rest of the state's epoch; and the seconds that the whole epoch took."""
        experiment = self._experiment
        order = experiment.trainer.order(state, experiment.train)
        _, minibatch = state.position
        while minibatch < experiment.batches:
            good, watch = copy(state), Stopwatch()
            stop = min(experiment.batches, minibatch + self._length)
            state = experiment.trainer.advance(state, experiment.train, order, stop)
            if not whole(state):
                self._diverge(order, good, stop, seconds)
            took, learnt = watch.seconds, stop - minibatch
            if learnt > 1:  # a single minibatch may be the first, which takes longer
                self._pace = took / learnt
            # What hangs on a clock is for the first of several processes to say.
            self._length, due = hosts.agree(
                (
                    max(1, min(4 * self._length, round(_STRETCH * learnt / took))),
                    self._saved.seconds >= _SAVE_WITHIN_EPOCH,
                )
            )
            seconds, minibatch = seconds + took, stop
            self._show(state)
            stopped = signals.heard_anywhere()
            if stopped or due:
                self._save(state, seconds)
            if stopped:
                self._stop(state, signals)
        return state, seconds

    def _finish_epoch(self, state: TrainState, seconds: float, signals: "Signals") -> TrainState:
        """Tests, writes the epoch's metrics, and turns to the next epoch."""
        experiment, watch = self._experiment, Stopwatch()
        part = experiment.recipe.measured_part

        def look(done: int) -> None:
            self._show(state, ("testing", done, len(experiment.measured)))
            if signals.heard_anywhere():
                self._save(state, seconds)
                self._stop(state, signals)

        scores = evaluate(experiment.trainer, state.network, experiment.measured, look)
        epoch = state.position[0] + 1
        for replica, score in enumerate(scores):
            if not math.isfinite(score["loss"]):
                raise Diverged(
                    f"{self._name(replica)} has diverged: the {part} loss after epoch {epoch} "
                    f"is {score['loss']}; {self._remedy(replica)}"
                )
        self._testing, self._tested = watch.seconds, scores
        rows = self._measure(state, {"train": seconds, "test": self._testing})
        hosts.on_lead(lambda: [run.append(row) for run, row in zip(self._runs, rows, strict=True)])
        for earlier, row in zip(self._rows, rows, strict=True):
            earlier.append(row)
        self._seconds_to_start = math.nan
        self._display.epoch(rows)
        self._tell_unsettled(rows)
        return experiment.trainer.next_epoch(state)

    def _tell_unsettled(self, rows: Sequence[dict[str, Any]]) -> None:
        """AEP expands about the fixed point: says, once, where free phases do not come near it."""
        recipe, residual = self._experiment.recipe, max(row["residual"] for row in rows)
        if not recipe.is_asymmetric or self._told or residual < abs(recipe.beta):
            return
        self._told = True
        self._display.say(
            f"NOTE: a state still moved by {residual:.2g} in the last free step, beta is "
            f"{recipe.beta:g}: asymmetric EP needs a settled free phase; raise --T, or lower --lr"
        )

    def _measure(self, state: TrainState, seconds: dict[str, float]) -> list[dict[str, Any]]:
        """The metrics of the epoch so far, and of the last test, for each run."""
        trainer = self._experiment.trainer
        epochs, minibatches = state.position
        parts = trainer.layout.parts((state.totals, state.network))
        return [
            metrics.measure(
                metrics.Epoch(
                    number=epochs + 1,
                    minibatches=minibatches,
                    examples=minibatches * trainer.batch,
                    totals=jax.device_get(totals),
                    network=network,
                    recipe=self._experiment.recipe,
                    tested=tested,
                    seconds=seconds,
                    seconds_to_start=self._seconds_to_start if seconds else math.nan,
                    unit=self._experiment.train.unit,
                )
            )
            for (totals, network), tested in zip(parts, self._tested, strict=True)
        ]

    def _show(self, state: TrainState, doing: tuple[str, int, int] | None = None) -> None:
        if not self._display.live:
            return
        experiment, (done_epochs, minibatch) = self._experiment, state.position
        epoch = done_epochs + 1
        rows = self._measure(state, {})
        left = per_epoch = None
        if self._pace is not None:
            per_epoch = self._pace * experiment.batches + self._testing
            left = (self._epochs - epoch + 1) * per_epoch - self._pace * minibatch
        what, done, total = doing or ("", minibatch, experiment.batches)
        self._display.now(Now(rows, done, total, what, per_epoch, left))

    def _save(self, state: TrainState, seconds: float) -> None:
        parts = self._experiment.trainer.layout.parts(state)

        def write() -> None:
            for run, part in zip(self._runs, parts, strict=True):
                run.check_held()
                checkpoint.save(run.checkpoints, part, {"seconds": seconds})

        hosts.on_lead(write)
        self._saved.restart()

    def _best_now(self, state: TrainState) -> list[bool]:
        """Which runs are at the end of their best epoch so far."""
        best = hosts.agree([best_epoch(rows) for rows in self._rows])
        return [number > 0 and state.position == (number, 0) for number in best]

    def _keep_best(self, state: TrainState) -> None:
        """Writes the states of runs that are there; after their checkpoints, so that what is cut
        between the two is made up for.
        """
        best = self._best_now(state)
        if not any(best):
            return
        parts = self._experiment.trainer.layout.parts(state)

        def write() -> None:
            for run, part, now in zip(self._runs, parts, best, strict=True):
                if now:
                    run.keep_best(checkpoint.pack(part))

        hosts.on_lead(write)

    def _stop(self, state: TrainState, signals: "Signals") -> NoReturn:
        epochs, minibatch = state.position
        where = (
            f"in epoch {epochs + 1}, with {minibatch} of {self._experiment.batches} minibatches "
            f"learnt; to go on: eqprop resume {self._top}"
        )
        if signals.heard is None and signals.time_is_up:
            raise TimeUp(f"its time is up {where}")
        raise Stopped(f"stopped by {signals.name} {where}", signals.heard)

    def _diverge(
        self, order: Int[Array, "*replicas batches B"], good: TrainState, stop: int, seconds: float
    ) -> NoReturn:
        experiment = self._experiment
        minibatch, where, replica = find(experiment.trainer, experiment.train, order, good, stop)
        if len(self._runs) > 1:
            # The others have done nothing wrong: they can go on from here, each alone.
            self._save(good, seconds)
        raise Diverged(
            f"{self._name(replica)} has diverged in epoch {good.position[0] + 1}, minibatch "
            f"{minibatch + 1} of {experiment.batches}: {where} are not finite, or beyond all "
            f"bounds; {self._remedy(replica)}"
        )

    def _name(self, replica: int) -> str:
        """Which training that is."""
        if len(self._runs) == 1:
            return "the training"
        return f"the training of seed {self._runs[replica].record.seeds[0]}"

    def _remedy(self, replica: int) -> str:
        last = newest_path(self._runs[replica].checkpoints) or "none yet"
        others = [str(run.folder) for n, run in enumerate(self._runs) if n != replica]
        alone = f"; or go on with another seed alone: eqprop resume {others[0]}" if others else ""
        return f"{_calmer(self._experiment.recipe)}{alone}. Last good checkpoint: {last}"


def _calmer(recipe: Recipe) -> str:
    """What to change in a recipe that has diverged: learning rates, unless something else of it is
    extreme.
    """
    causes = []
    if abs(recipe.beta) > _LARGE_BETA and recipe.is_nudged:
        causes.append(f"a --beta nearer to 0 than {recipe.beta:g}")
    if recipe.setting == "energy" and recipe.dt > _LARGE_DT:
        causes.append(f"a smaller --dt than {recipe.dt:g}")
    if recipe.setting == "resistive" and recipe.device.levels:
        causes.append("conductances that are no longer rounded to 0, by --least or --device.levels")
    causes.append(f"lower learning rates than --lr {' '.join(map(str, recipe.lr))}")
    if recipe.model:
        causes.append(
            f"a smaller dt for {recipe.model}, or bounds on its states, should its energy have no "
            "lowest value"
        )
    return f"train with {', or '.join(causes)}"


@final
class Signals:
    """Hears SIGINT and SIGTERM for the training to heed; a second one ends it at once.

    Beyond ``until`` (``time.monotonic``) it is as if one had come.
    """

    heard: signal.Signals | None = None

    def __init__(self, until: float = math.inf) -> None:
        self._until = until

    @property
    def time_is_up(self) -> bool:
        """Whether it is later than that."""
        return time.monotonic() >= self._until

    def __enter__(self) -> "Signals":
        self._before: dict[int, Any] = {}
        # Elsewhere than in the main thread Python lets nobody listen.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def name(self) -> str:
        """Of the signal; another process may have heard it."""
        return self.heard.name if self.heard else "a signal"

    def heard_anywhere(self) -> bool:
        """Whether this process or another one of the training has heard one."""
        return hosts.any_of(self.heard is not None or self.time_is_up)

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        if self.heard:
            raise KeyboardInterrupt
        self.heard = signal.Signals(number)
