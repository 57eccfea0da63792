"""Why c-vf-1h dies: the examples whose free phase cycles, and a training that leaves them out.

    python examples/c_vf_death.py [SEED [FROM [UNTIL]]]

Trains the recipe, on MNIST, to epoch FROM; then on to UNTIL twice, from the same state and with the
same minibatches: as published, and with each example that still moves after the free phase replaced
by the one of its minibatch that moves least. If those few examples are what kills it, the second
training lives. Prints Markdown: after each epoch the test errors of both, and of the first how many
of the training examples cycle, and how large an update each asks for, beside those that settle.
"""

import sys
from typing import Any, override

import jax
import jax.numpy as jnp
import numpy as np

from eqprop.data import named
from eqprop.dynamics.nudges import OneSided
from eqprop.dynamics.system import Free, System
from eqprop.learning.increments import VectorField
from eqprop.learning.learners import Learner, Memory
from eqprop.learning.rules import AfterPhase
from eqprop.networks.model import Model
from eqprop.recipes.catalogue import recipe
from eqprop.training.experiment import Experiment, evaluate, prepare
from eqprop.training.trainer import Trainer, TrainState, fetch
from eqprop.types import Array, Layer, PRNGKeyArray, States, Targets

MOVES = 0.1  # of a unit in one more step: far beyond what slow settling leaves
_ROWS = 1000


def largest_move(system: System, network: Model, x: Layer) -> tuple[States, Array]:
    """The states after the free phase, and how far any unit of each example moves in one more
    step.
    """
    clamped = system.clamp(network, x)
    states, _ = system.free(clamped, x)
    after = system.dynamics.step(clamped, x, states)
    moves = [jnp.max(jnp.abs(a - b), axis=-1) for a, b in zip(after, states, strict=True)]
    return states, jnp.max(jnp.stack(moves), axis=0)


class WithoutCycling(Learner):
    """Another learner, whose minibatches have no example that has not settled."""

    inner: Learner

    @override
    def init(self, network: Model) -> Memory:
        return self.inner.init(network)

    @override
    def learn(
        self,
        system: System,
        network: Model,
        memory: Memory,
        batch: tuple[Layer, Targets],
        key: PRNGKeyArray,
    ) -> tuple[Model, Memory, Free]:
        x, y = batch
        _, moves = largest_move(system, network, x)
        rows = jnp.where(moves > MOVES, jnp.argmin(moves), jnp.arange(len(x)))
        return self.inner.learn(system, network, memory, (x[rows], y[rows]), key)


def epoch(experiment: Experiment, trainer: Trainer, state: TrainState) -> TrainState:
    """The state after one more epoch."""
    order = trainer.order(state, experiment.train)
    state = trainer.advance(state, experiment.train, order, experiment.batches)
    return trainer.next_epoch(state)


def moves_of_all(experiment: Experiment, network: Model) -> np.ndarray:
    """How far each training example moves after its free phase."""
    system, train = experiment.trainer.system, experiment.train

    @jax.jit
    def of(network: Model, rows: Array) -> Array:
        return largest_move(system, network, fetch(train, rows, network)[0])[1]

    blocks = np.arange(len(train)).reshape(-1, _ROWS)
    return np.concatenate([np.asarray(of(network, jnp.asarray(rows))) for rows in blocks])


def update_sizes(experiment: Experiment, network: Model, rows: np.ndarray) -> float:
    """The median, over examples, of the norm of the vector-field update of the output weights."""
    system, train = experiment.trainer.system, experiment.train
    rule = AfterPhase(VectorField(), OneSided(experiment.recipe.beta))

    def of(row: Array) -> Array:
        x, y = fetch(train, row[None], network)
        update, _ = rule.update(system, network, x, y, jax.random.key(0))
        (weight, *_) = jax.tree.leaves(update.parts[-1])
        return jnp.linalg.norm(weight)

    return float(np.median(jax.jit(jax.vmap(of))(jnp.asarray(rows)))) if len(rows) else np.nan


def error(experiment: Experiment, trainer: Trainer, state: TrainState) -> float:
    """The test error in %."""
    (scores,) = evaluate(trainer, state.network, experiment.test)
    return scores["error"]


def main(seed: int, first: int, last: int) -> None:
    """Trains, and tells."""
    experiment = prepare(recipe("c-vf-1h"), named.load("mnist"))
    trainer = experiment.trainer
    without = Trainer(
        *(trainer.system, WithoutCycling(trainer.learner), trainer.batch),
        test_tolerance=trainer.test_tolerance,
    )
    state = experiment.start(seed)
    for _ in range(first):
        state = epoch(experiment, trainer, state)
    print("| epoch | cycling | update, cycling | update, settled | test %, published | left out |")
    print("|---|---|---|---|---|---|")
    both: list[Any] = [state, jax.tree.map(jnp.copy, state)]
    for number in range(first, last + 1):
        network = both[0].network
        moves = moves_of_all(experiment, network)
        cycling, settled = np.flatnonzero(moves > MOVES), np.flatnonzero(moves < MOVES / 100)
        sizes = [update_sizes(experiment, network, rows[:200]) for rows in (cycling, settled)]
        errors = [error(experiment, t, s) for t, s in zip((trainer, without), both, strict=True)]
        numbers = " | ".join(f"{value:.3g}" for value in (*sizes, *errors))
        print(f"| {number} | {len(cycling)} | {numbers} |", flush=True)
        if number < last:
            both = [epoch(experiment, *pair) for pair in zip((trainer, without), both, strict=True)]


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:4]]
    main(*given, *(4, 54, 72)[len(given) :])
