"""Trainings as commands run them: data, run directories, seeds, reports."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import jax

from eqprop.data import named as data
from eqprop.data.dataset import Dataset
from eqprop.errors import EqpropError, UsageError, typed
from eqprop.networks.energy import Own
from eqprop.recipes.recipe import Recipe
from eqprop.training import checkpoint, hosts, seed_processes
from eqprop.training.announcements import (
    compare,
    describe_devices,
    introduce,
    report,
    tell_damage,
)
from eqprop.training.display import Display
from eqprop.training.experiment import (
    Experiment,
    WarmStart,
    begin,
    evaluate,
    precision,
    prepare,
    prepare_again,
)
from eqprop.training.hardware import DEFAULT, Hardware
from eqprop.training.places import newest_path, positions
from eqprop.training.records import Made, Record, Replicas, made
from eqprop.training.replicas import arrange
from eqprop.training.restore import restore
from eqprop.training.run_data import describe, pack
from eqprop.training.runs import (
    BEST,
    CHECKPOINTS,
    START,
    Run,
    is_run,
    read_metrics,
    read_record,
    read_result,
    seed_folders,
)
from eqprop.training.runs import DATA as DATA_FILE
from eqprop.training.selection import best_epoch, has_ended, has_waited
from eqprop.training.session import Session
from eqprop.training.trainer import TrainState


def train(  # noqa: PLR0913 (what the command line says, and how long it may take)
    recipe: Recipe,
    seeds: Sequence[int],
    out: Path,
    command: Sequence[str],
    replicas: Replicas = "auto",
    hardware: Hardware = DEFAULT,
    *,
    until: float = math.inf,
    dataset: Dataset | None = None,
    start: WarmStart | None = None,
    own: Own | None = None,
) -> None:
    """Trains a recipe from the beginning, once for each seed, as long as ``Session.train`` says; on
    the data set of the recipe, or on another one; from drawn weights, or from others. ``own`` is
    the model of one's own that the recipe names, if it names one.

    ``replicas`` says whether seeds are trained together in one program, as processes, or in turn.
    Together is no faster on a CPU; other devices a small net leaves idle.
    """
    hosts.join(hardware)
    display = Display(jax.process_index(), jax.process_count())
    with precision(recipe):
        display.say(f"{recipe.name}: {recipe.about}")
        if dataset is None:
            with display.doing("loading data"):
                dataset = data.load(recipe.dataset, fallback=recipe.dataset == "mnist")
        elif recipe.dataset != "own":
            recipe = dataclasses.replace(recipe, dataset="own")
        introduce(dataset, recipe, display)
        with typed():
            experiment = prepare(recipe, dataset, own)
            for line in start.compare(dataset) if start else ():
                display.say(f"NOTE: {line}")
            together = len(seeds) > 1 and (
                replicas == "together"
                or (replicas == "auto" and not recipe.patience and _is_parallel())
            )
            if together and recipe.patience:
                raise EqpropError(
                    f"patience is {recipe.patience}, and seeds end at different epochs: leave out "
                    "--replicas together"
                )
            layout = arrange(len(seeds) if together else None, recipe.batch, hardware.devices)
            used = describe(dataset, recipe)
            kept = pack(dataset) if recipe.dataset == "own" else None
            begun = start and checkpoint.pack(begin(experiment, seeds[0], start.network))
            files = {name: it for name, it in ((DATA_FILE, kept), (START, begun)) if it is not None}
            origin = start and start.origin
            now = made(command)
            record = Record(recipe, tuple(seeds), used, now, together=together, origin=origin)
            run = hosts.on_lead(lambda: Run.create(out, record, files)) or Run.watch(out, record)
        with run:
            laid_out = experiment.lay_out(layout)
            _train_seeds(laid_out, run, run.record.started, display, until, replicas)


def resume(
    folder: Path,
    epochs: int | None,
    command: Sequence[str],
    hardware: Hardware = DEFAULT,
    *,
    until: float = math.inf,
    own: Own | None = None,
) -> None:
    """Goes on with a training, up to the epochs of its recipe or to others."""
    hosts.join(hardware)
    display = Display(jax.process_index(), jax.process_count())
    with hosts.on_lead(lambda: Run.resume(folder)) or Run.watch(folder, read_record(folder)) as run:
        recipe = run.record.recipe
        if epochs is not None:
            with typed():
                recipe = dataclasses.replace(recipe, epochs=epochs)
            _check_epochs(run, epochs)
        with precision(recipe):
            display.say(f"{recipe.name}: {recipe.about}")
            experiment = prepare_again(folder, run.record, recipe, display, own)
            now = made(command)
            compare(run.record, now, display)
            if epochs is not None:
                if recipe.schedule != "constant":
                    display.say(f"note: the {recipe.schedule} schedule now ends at epoch {epochs}")
                record = dataclasses.replace(run.record, recipe=recipe)
                hosts.on_lead(lambda: run.rewrite(record))
            replicas = len(run.record.seeds) if run.record.together else None
            with typed():
                layout = arrange(replicas, recipe.batch, hardware.devices)
            _train_seeds(experiment.lay_out(layout), run, now, display, until)


def _is_parallel() -> bool:
    """Whether there is more at hand than one small network keeps busy."""
    return jax.default_backend() != "cpu" or jax.device_count() > 1


def _check_epochs(run: Run, epochs: int) -> None:
    folders = [place for _, place in seed_folders(run.folder, run.record)]
    measured = max((len(read_metrics(place)), 0) for place in folders)
    saved = {position for place in folders for position in positions(place / CHECKPOINTS)}
    done, minibatches = max({measured, *saved})
    if (epochs, 0) < (done, minibatches):
        more = f" and {minibatches} minibatches" if minibatches else ""
        raise UsageError(
            f"epochs is {epochs}, but {done}{more} are done: give more, or leave it out"
        )


def _train_seeds(
    experiment: Experiment,
    run: Run,
    now: Made,
    display: Display,
    until: float,
    replicas: Replicas = "auto",
) -> None:
    """Trains all seeds from where they stand, and reports."""
    if experiment.trainer.layout.mesh is not None:
        display.say(describe_devices(experiment))
    seeds = seed_folders(run.folder, run.record)
    if run.record.together:
        _train_some(experiment, run, seeds, now, display, until)
    elif len(pending := _pending(experiment, seeds)) > 1 and _in_processes(experiment, replicas):
        for seed, folder in pending:
            with _open(run, seed, folder, now):
                pass  # it is there now, for its process to go on with
        numbers = [seed for seed, _ in pending]
        seed_processes.train_side_by_side(run.folder, numbers, now.command, display, until)
    else:
        for seed in seeds:
            _train_some(experiment, run, [seed], now, display, until)
    hosts.on_lead(lambda: report(run, display))


def _pending(experiment: Experiment, seeds: Sequence[tuple[int, Path]]) -> list[tuple[int, Path]]:
    """The seeds that are not at their end, with a network to show for it."""
    return [
        (seed, place)
        for seed, place in seeds
        if not (has_ended(experiment.recipe, place) and newest_path(place / CHECKPOINTS))
    ]


def _in_processes(experiment: Experiment, replicas: Replicas) -> bool:
    """Whether seeds are trained as processes. Raises ``EqpropError`` where that cannot be."""
    recipe, examples = experiment.recipe, len(experiment.train)
    if replicas == "processes" and (recipe.model or _is_parallel()):
        why = "a model of one's own cannot be sent to them" if recipe.model else "there is a GPU"
        raise EqpropError(f"seeds cannot be trained as processes, for {why}: use --replicas auto")
    if replicas != "auto" or recipe.model or _is_parallel():
        return replicas == "processes"
    return seed_processes.is_worth_it(examples, recipe.epochs)


def work_on_seed() -> NoReturn:
    """The main program of a process that trains one seed: see ``seed_processes``."""

    def train_one(folder: Path, seed: int, command: Sequence[str]) -> None:
        record, display = read_record(folder), Display()
        recipe, place = record.recipe, dict(seed_folders(folder, record))[seed]
        with precision(recipe), Run.resume(place) as run:
            experiment = prepare_again(folder, record, recipe, display)
            _train_some(experiment, run, [(seed, place)], made(command), display, math.inf)

    seed_processes.work(train_one)


def _train_some(
    experiment: Experiment,
    run: Run,
    those: Sequence[tuple[int, Path]],
    now: Made,
    display: Display,
    until: float,
) -> None:
    """Trains one seed, or several at the same time, in their run directories."""
    epochs, seeds = experiment.recipe.epochs, [seed for seed, _ in those]
    with contextlib.ExitStack() as stack:
        runs = [stack.enter_context(_open(run, seed, folder, now)) for seed, folder in those]
        start, damaged = restore(experiment, runs, seeds)
        # The first process alone reads files.
        rows = hosts.on_lead(lambda: [read_metrics(own.folder) for own in runs]) or [[]]
        waited = bool(hosts.agree(all(has_waited(experiment.recipe, own) for own in rows)))
        tell_damage(damaged, display)
        where = runs[0].folder if len(runs) == 1 else run.folder
        done, minibatch = start.state.position
        session = Session(experiment, runs, display, str(run.folder))
        if waited or done >= epochs:
            why = f"{done} epochs are done (eqprop resume --epochs E adds some)"
            if waited:
                why = f"stopped after {done} epochs, as its patience says"
            display.say(f"{where}: {why}")
            session.catch_up(start.state)
        else:
            line = f"run {where}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
            if len(seeds) > 1:
                line += " together"
            if done or minibatch:
                line += f", from epoch {done + 1}, minibatch {minibatch + 1}"
                again = dataclasses.replace(now, epoch=done, minibatch=minibatch)
                hosts.on_lead(lambda: [_note(own, experiment.recipe, again) for own in runs])
            display.say(line)
            session.train(start, epochs, until)
        _conclude(experiment, runs, seeds, display)


def _conclude(
    experiment: Experiment, runs: Sequence[Run], seeds: Sequence[int], display: Display
) -> None:
    """With a validation part: looks at the test set, once, with the best network of each seed."""
    if experiment.validation is None:
        return

    def find() -> list[TrainState] | None:
        best = [best_epoch(read_metrics(run.folder)) for run in runs]
        tested = [read_result(run.folder) for run in runs]
        if all(row and row["epoch"] == epoch for row, epoch in zip(tested, best, strict=True)):
            return None
        return [_best(*it) for it in zip(runs, begun, best, strict=True)]

    begun = [experiment.start(seed) for seed in seeds]
    found = hosts.on_lead(find)
    if hosts.agree(found is None):  # as the first process says
        return
    states = hosts.agree(found or begun)
    networks = experiment.trainer.layout.stack([state.network for state in states])
    with display.doing("testing"):
        scores = evaluate(experiment.trainer, networks, experiment.test)

    def write() -> None:
        for run, state, score in zip(runs, states, scores, strict=True):
            run.conclude(state.position[0], score)

    hosts.on_lead(write)


def _best(run: Run, like: TrainState, epoch: int) -> TrainState:
    """The state of the best epoch of a run. Raises ``EqpropError`` where what is kept is not it."""
    path = run.folder / BEST
    state = checkpoint.read(path, like).state
    if state.position != (epoch, 0):
        raise EqpropError(
            f"{path} is of epoch {state.position[0]}, but the best one was {epoch}: put that back, "
            "or train again"
        )
    return state


def _note(run: Run, recipe: Recipe, resumed: Made) -> None:
    """Writes into the record of a run that it is gone on with."""
    record = dataclasses.replace(run.record, recipe=recipe)
    run.rewrite(dataclasses.replace(record, resumed=(*record.resumed, resumed)))


@contextlib.contextmanager
def _open(run: Run, seed: int, folder: Path, now: Made) -> Iterator[Run]:
    """The run of one seed: the run itself, or one within it, begun if need be."""
    if folder == run.folder:
        yield run
        return
    own = dataclasses.replace(run.record, seeds=(seed,), started=now, resumed=(), together=False)

    def hold() -> Run:
        return Run.resume(folder) if is_run(folder) else Run.create(folder, own)

    with hosts.on_lead(hold) or Run.watch(folder, own) as within:
        yield within
