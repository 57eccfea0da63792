"""Evaluations as commands run them, of what a run directory holds."""

from collections.abc import Iterator
from pathlib import Path

from eqprop.errors import EqpropError
from eqprop.networks.model import Model
from eqprop.recipes.recipe import Recipe
from eqprop.training import metrics
from eqprop.training.announcements import tell_damage
from eqprop.training.checkpoint import Restored
from eqprop.training.display import Display
from eqprop.training.experiment import (
    Experiment,
    begin,
    evaluate,
    precision,
    prepare_again,
)
from eqprop.training.figures import mistakes_figure
from eqprop.training.mistakes import find
from eqprop.training.records import Record
from eqprop.training.restore import load_best
from eqprop.training.runs import read_record, seed_folders
from eqprop.training.settled import ranges, settle
from eqprop.training.trainer import Examples


def evaluate_run(folder: Path, figure: Path | None) -> None:
    """Prints loss and error of the newest checkpoint of a run, or of that of its best epoch where
    it has a validation part, on each part of the data; and what it takes for what in the test set;
    that also as a ``figure``, of the first seed.
    """
    display = Display()
    record = read_record(folder)
    with precision(record.recipe):
        experiment = prepare_again(folder, record, record.recipe, display)
        for seed, place, found in _trained(experiment, folder, record):
            tell_damage(found.damaged, display)
            shown = "; ".join(
                f"{name} {_evaluate(experiment, found.state.network, part, display)}"
                for name, part in experiment.parts.items()
            )
            epochs, minibatches = found.state.position
            done = f"{epochs} epochs" + (f" and {minibatches} minibatches" if minibatches else "")
            display.say(f"{place}, seed {seed}, after {done}: {shown}")
            with display.doing("looking at mistakes"):
                network, cost = found.state.network, experiment.trainer.system.cost
                settled = settle(experiment, network, experiment.test)
                mistakes = find(record.data, experiment.test, settled.scores, cost)
                states = ranges(network, settled)
            for table in (*mistakes.tables, mistakes.worst, states):
                for line in ("", *table.lines()) if table.rows else ():
                    display.say(line)
            if figure is not None and seed == record.seeds[0]:
                display.say(f"\nfigure in {mistakes_figure(mistakes, figure)}")


def program_run(folder: Path, recipe: Recipe) -> list[float]:
    """The test errors, or what else the target is measured by, of the trained networks of a run
    once their weights have been set on the device of ``recipe``; of each seed.

    Raises ``EqpropError`` where a seed has no checkpoint, or the network does not fit.
    """
    record, display = read_record(folder), Display()
    found: list[float] = []
    with precision(recipe):
        source = prepare_again(folder, record, record.recipe, display)
        device = prepare_again(folder, record, recipe, display)
        for seed, _, restored in _trained(source, folder, record):
            programmed = begin(device, seed, restored.state.network).network
            (scores,) = evaluate(device.trainer, programmed, device.measured)
            found.append(scores[metrics.primary(device.trainer.target).name])
    return found


def _trained(
    experiment: Experiment, folder: Path, record: Record
) -> Iterator[tuple[int, Path, Restored]]:
    """Each seed of a run, its run directory, and the checkpoint that stands for it.

    Raises ``EqpropError`` where there is none.
    """
    for seed, place in seed_folders(folder, record):
        found = load_best(place, record.recipe, experiment.like, seed)
        if found is None:
            raise EqpropError(f"{place} has no checkpoint yet: eqprop resume {folder}")
        yield seed, place, found


def _evaluate(experiment: Experiment, network: Model, examples: Examples, display: Display) -> str:
    """The metrics of examples, in words."""
    n = len(examples)
    with display.doing("evaluating") as tell:
        (scores,) = evaluate(
            experiment.trainer, network, examples, lambda done: tell(f"{done}/{n}")
        )
    own = [metric for metric in metrics.of_examples() if metric.name in scores]
    return ", ".join(f"{m.name} {scores[m.name]:{m.form}}{m.unit}" for m in own)
