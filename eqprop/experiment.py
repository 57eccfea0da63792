"""An experiment: what is to be trained, and on what; evaluation; and where a run of it stands."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, final

import jax

from eqprop import checkpoint
from eqprop.building import build
from eqprop.data import Dataset, check_fits
from eqprop.errors import EqpropError
from eqprop.network import Network
from eqprop.recipes import Recipe
from eqprop.runs import Run
from eqprop.training import Examples, Trainer, TrainState
from eqprop.types import PRNGKeyArray

_EVALUATE = 2000  # examples between two looks at whether to stop


@final
@dataclass(frozen=True)
class Job:
    """What is to be trained, and on what; ready to start."""

    recipe: Recipe
    trainer: Trainer
    init: Callable[[PRNGKeyArray], Network]
    train: Examples
    test: Examples
    batches: int
    """Minibatches in an epoch."""

    def start(self, seed: int) -> TrainState:
        """The state before the first minibatch."""
        return self.trainer.start(self.init, seed)


class Score(NamedTuple):
    """Mean loss, and error in %."""

    loss: float
    error: float


class Start(NamedTuple):
    """A state to train from, and the seconds that its unfinished epoch has taken."""

    state: TrainState
    seconds: float


def prepare(recipe: Recipe, dataset: Dataset) -> Job:
    """Builds what a recipe says for a data set, and puts that on the device.

    Raises:
        EqpropError: values in the recipe that cannot be, or do not fit the data.
    """
    batches = max(1, len(dataset.train_y) // recipe.batch)
    built = build(recipe, dataset.train_x.shape[1:], dataset.classes, batches)
    trainer = Trainer(built.system, built.learner, recipe.batch, built.augmentations)
    network = jax.eval_shape(built.init, jax.random.key(0))
    check_fits(dataset, network.shapes[0], network.shapes[-1][0])
    train = Examples.put(dataset.train_x, dataset.train_y, network)
    test = Examples.put(dataset.test_x, dataset.test_y, network)
    return Job(recipe, trainer, built.init, train, test, trainer.batches(train))


def evaluate(
    job: Job, network: Network, examples: Examples, go_on: Callable[[int], bool] = lambda _: True
) -> Score | None:
    """Loss and error over examples; None where ``go_on``, told how many are done, says to stop."""
    n = len(examples.labels)
    loss, errors = 0.0, 0
    for start in range(0, n, _EVALUATE):
        if not go_on(start):
            return None
        block = Examples(*(part[start : start + _EVALUATE] for part in examples))
        block_loss, block_errors = job.trainer.evaluate(network, block)
        loss, errors = loss + block_loss * len(block.labels), errors + block_errors
    return Score(loss / n, 100 * errors / n)


def load(job: Job, checkpoints: Path, seed: int) -> checkpoint.Restored | None:
    """The newest checkpoint in a folder that is whole, if there has been any.

    Raises:
        EqpropError: there is one, but of another network, or none is whole.
    """
    return checkpoint.newest(checkpoints, jax.eval_shape(lambda: job.start(seed)))


def restore(job: Job, run: Run, seed: int) -> tuple[Start, tuple[str, ...]]:
    """Where a run stands, with its metrics cut back to there; and the damage that was passed over.

    Raises:
        EqpropError: as ``load`` does; or the metrics end before the checkpoint.
    """
    found = load(job, run.checkpoints, seed)
    epochs = int(found.state.epoch) if found else 0
    if found and (rows := run.truncate(epochs)) < epochs:
        raise EqpropError(
            f"the metrics in {run.folder} end at epoch {rows}, but {found.path} is of epoch "
            f"{epochs}: restore metrics.jsonl, or delete that checkpoint"
        )
    if found is None:
        run.truncate(0)
        return Start(job.start(seed), 0.0), ()
    return Start(found.state, found.notes["seconds"]), found.damaged
