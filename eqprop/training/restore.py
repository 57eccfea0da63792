"""Where a run stands: the checkpoint to go on from, or to look at, and its metrics cut to that."""

import math
from collections.abc import Container, Sequence
from pathlib import Path
from typing import NamedTuple, final

import equinox as eqx

from eqprop.errors import EqpropError
from eqprop.recipes.recipe import Recipe
from eqprop.training import checkpoint, hosts
from eqprop.training.experiment import Experiment
from eqprop.training.places import Position, positions
from eqprop.training.runs import BEST, CHECKPOINTS, START, Run, read_metrics
from eqprop.training.trainer import TrainState


@final
class Start(NamedTuple):
    """A state to train from, of one network or of replicas, and the seconds that its unfinished
    epoch has taken.
    """

    state: TrainState
    seconds: float


def restore(
    experiment: Experiment, runs: Sequence[Run], seeds: Sequence[int]
) -> tuple[Start, list[str]]:
    """Where the run of a seed stands, or of each seed of replicas, with its metrics cut back to
    there; and the damage that was passed over.

    Replicas go on from the newest place that all of them have a checkpoint of: one is behind where
    they were killed while they were saved, or where a disk has damaged something.

    The first of several processes finds that out, and sends it to the others.

    Raises:
        EqpropError: as ``load`` does; the metrics end before the checkpoint; or the replicas have
            no place in common any more.
    """
    drawn = [experiment.start(seed) for seed in seeds]

    def find() -> tuple[list[TrainState], float, list[str]]:
        found, damaged = _find(experiment, runs, seeds)
        if found is not None:
            return [f.state for f in found], _seconds(found[0]), damaged
        if runs[0].record.origin is None:
            return drawn, 0.0, damaged
        return [_started(*it) for it in zip(drawn, runs, strict=True)], 0.0, damaged

    states, seconds, damaged = hosts.on_lead(find) or (drawn, 0.0, [])
    states, seconds = hosts.agree((states, seconds))
    return Start(experiment.trainer.layout.stack(states), float(seconds)), damaged


def _find(
    experiment: Experiment, runs: Sequence[Run], seeds: Sequence[int]
) -> tuple[list[checkpoint.Restored] | None, list[str]]:
    """The checkpoints to go on from, with the metrics cut back to them."""
    found, damaged = _load_common(experiment, runs, seeds)
    epochs = found[0].state.position[0] if found else 0
    for run in runs:
        if (rows := run.truncate(epochs)) < epochs:
            raise EqpropError(
                f"the metrics in {run.folder} end at epoch {rows}, but its checkpoint is of epoch "
                f"{epochs}: restore metrics.jsonl, or delete that checkpoint"
            )
    return found, damaged


def _started(state: TrainState, run: Run) -> TrainState:
    """The state from which a training starts that does not start from drawn weights."""
    # Those of several seeds are kept once, above them.
    path = next((p / START for p in (run.folder, run.folder.parent) if (p / START).is_file()), None)
    if path is None:
        raise EqpropError(f"{run.folder / START} is missing: put it back, or train again")
    kept = checkpoint.read(path, state).state
    return eqx.tree_at(lambda s: (s.network, s.memory), state, (kept.network, kept.memory))


def _seconds(found: checkpoint.Restored) -> float:
    seconds = found.notes.get("seconds")
    if not isinstance(seconds, float) or not 0 <= seconds < math.inf:
        raise EqpropError(f"{found.path} does not tell its seconds: delete it, and resume")
    return seconds


def _load_common(
    experiment: Experiment, runs: Sequence[Run], seeds: Sequence[int]
) -> tuple[list[checkpoint.Restored] | None, list[str]]:
    """The newest checkpoints of one place in the training; None where there are none."""
    damaged: list[str] = []
    found_at = [positions(run.checkpoints) for run in runs]
    among = set.intersection(*found_at)
    # Where a save was cut short, a seed has one more than others, or is the first to have one.
    alone = all(found_at) and (
        not among or any(len([p for p in own if p > max(among)]) > 1 for own in found_at)
    )
    done = max(len(read_metrics(run.folder)) for run in runs)
    if alone or (len(runs) > 1 and done > experiment.recipe.epochs):
        raise EqpropError(
            "seeds of this run have gone on alone, beyond the last place that all have a "
            f"checkpoint of: go on with each alone, eqprop resume {runs[0].folder} and so on"
        )
    while among:
        found = [
            load(experiment, run.checkpoints, s, among) for run, s in zip(runs, seeds, strict=True)
        ]
        whole = [f for f in found if f is not None]
        damaged += [fault for f in whole for fault in f.damaged if fault not in damaged]
        last = min(f.state.position for f in whole)
        if all(f.state.position == last for f in whole):
            return whole, damaged
        among = {position for position in among if position <= last}
    return None, damaged


def load(
    experiment: Experiment,
    checkpoints: Path,
    seed: int,
    among: Container[Position] | None = None,
) -> checkpoint.Restored | None:
    """The newest checkpoint in a folder that is whole, if there has been any; of some places only.

    Raises:
        EqpropError: there is one, but of another network or seed, or none is whole.
    """
    return _of_seed(checkpoint.newest(checkpoints, experiment.like, among), seed)


def _of_seed(found: checkpoint.Restored | None, seed: int) -> checkpoint.Restored | None:
    """What was found. Raises ``EqpropError`` where it is of another seed."""
    if found and (its := int(found.state.seed)) != seed:
        raise EqpropError(
            f"{found.path} is a checkpoint of seed {its}, not of seed {seed}: put back the "
            "checkpoints that belong to this run"
        )
    return found


def load_best(
    folder: Path, recipe: Recipe, like: TrainState, seed: int
) -> checkpoint.Restored | None:
    """The checkpoint that stands for a run of one seed: that of the best epoch, where the recipe
    has a validation part, else the newest one that is whole, if there has been any.

    Raises:
        EqpropError: as ``load`` does; or that of the best epoch is damaged, or not there.
    """
    if recipe.validation and read_metrics(folder):
        if not (folder / BEST).exists():
            raise EqpropError(
                f"{folder / BEST} is not there, as where a training was stopped before it was "
                f"kept: put it back, or go on with eqprop resume {folder}"
            )
        return _of_seed(checkpoint.read(folder / BEST, like), seed)
    return _of_seed(checkpoint.newest(folder / CHECKPOINTS, like), seed)
