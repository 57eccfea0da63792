"""Training: a state that is all there is to a run, compiled stretches of an epoch, evaluation.

Nothing here touches files or the screen. Every random number follows from the seed and the place in
the run, so a training cut anywhere and continued is the training that was not cut.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from eqprop.data.augmentation import Augmentation, RawInputs, augment
from eqprop.data.scaling import Scaling
from eqprop.data.targets import Classes, Target
from eqprop.dynamics.dropout import Dropout
from eqprop.dynamics.relaxation import FixedSteps, ToTolerance
from eqprop.dynamics.system import Free, System
from eqprop.errors import EqpropError
from eqprop.learning.learners import Learner, writing_key
from eqprop.networks.model import Model
from eqprop.training import metrics
from eqprop.training.replicas import DATA, Layout
from eqprop.types import Array, Float, Int, Layer, PRNGKeyArray, Shape, Targets, UInt8

ROWS = 200
"""As a test takes them: rows that are iterated together stop together."""


@final
class TrainState(eqx.Module):
    """All that changes while a network is trained: what a checkpoint holds.

    The state of replicas has their axis in front of the shapes given here; they are all at the same
    place in the training.
    """

    network: Model
    memory: optax.OptState
    seed: Int[Array, ""]
    epoch: Int[Array, ""]
    """Epochs finished."""
    minibatch: Int[Array, ""]
    """Minibatches of the current epoch learnt."""
    totals: metrics.Totals
    """What the metrics keep of these."""

    @property
    def position(self) -> tuple[int, int]:
        """Epochs finished, and minibatches of the current one learnt."""
        return _first(self.epoch), _first(self.minibatch)


def _first(counts: Int[Array, "*replicas"]) -> int:
    # Of those on a device of this host: the others may be out of reach.
    here = counts.addressable_shards[0].data if isinstance(counts, jax.Array) else counts
    return int(np.ravel(here)[0])


@final
class Examples(eqx.Module):
    """Inputs and targets on the device."""

    inputs: UInt8[Array, "n *shape"] | Float[Array, "n *shape"]
    targets: Int[Array, " n"] | Float[Array, "n outputs"]
    variance: Float[Array, " outputs"] | None = None
    """Of real targets, over these examples."""
    parts_of_unit: Float[Array, " outputs"] | None = None
    """What 1 is, of each real target, as a part of the unit."""
    unit: float = eqx.field(static=True, default=1.0)
    """What 1 is of the target that varies most, in the numbers of the user: their squares may be
    too small, or too large, for single precision.
    """

    def __len__(self) -> int:
        """How many there are."""
        return len(self.targets)

    def part(self, start: int, stop: int) -> "Examples":
        """Some of them, one after another."""
        some = {"inputs": self.inputs[start:stop], "targets": self.targets[start:stop]}
        return dataclasses.replace(self, **some)

    @staticmethod
    def put(inputs: np.ndarray, targets: np.ndarray, network: Model) -> "Examples":
        """Examples on the device: inputs ``(n, *shape)``, and labels ``(n,)`` or, where they are
        floating-point numbers or bytes, outputs ``(n, outputs)``.

        Unsigned bytes, as those of images, stand for 0 to 1, unless a ``Trainer`` has another
        scaling; floating-point numbers are taken as they are. An input has the shape of the
        network's, but for a last axis of one channel, or any shape where that is a row.

        Raises ``EqpropError`` where they are something else, or do not fit the network.
        """
        _check_inputs(inputs, network.shapes[0])
        (outputs,) = network.score_shape
        if targets.ndim == 2 and targets.dtype in (np.uint8, np.float32, np.float64):
            if targets.shape != (len(inputs), outputs):
                raise EqpropError(
                    f"targets have shape {targets.shape} for {len(inputs)} inputs and a network "
                    f"with {outputs} outputs: give a row of {outputs} for each input"
                )
            y = jnp.asarray(targets.astype(np.float32))
            # The variance of equal numbers is their rounding.
            variance = jnp.where(jnp.ptp(y, axis=0) > 0, jnp.var(y, axis=0), 0)
            return Examples(jnp.asarray(inputs), y, variance, jnp.ones(outputs))
        _check_labels(targets, len(inputs), outputs)
        return Examples(jnp.asarray(inputs), jnp.asarray(targets.astype(np.int32)))


def _check_inputs(inputs: np.ndarray, shape: Shape) -> None:
    one, n = inputs.shape[1:], len(inputs)
    if inputs.dtype != np.uint8 and not np.issubdtype(inputs.dtype, np.floating):
        raise EqpropError(
            f"inputs are {inputs.dtype}: give unsigned bytes, 0 to 255, as uint8, or "
            "floating-point numbers"
        )
    flat = len(shape) == 1 and math.prod(one) == shape[0]
    if not n or not (flat or shape in (one, (*one, 1))):
        raise EqpropError(
            f"{n} inputs of shape {one} do not fit a network with an input of shape {shape}: "
            "give some of that shape, or another network"
        )


def _check_labels(labels: np.ndarray, n: int, classes: int) -> None:
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        raise EqpropError(
            f"labels are {labels.dtype} of shape {labels.shape} for {n} inputs: give an integer "
            f"for each, 0 to {classes - 1}"
        )
    for label in (labels.min(), labels.max()):
        if not 0 <= label < classes:
            raise EqpropError(
                f"label {label} does not fit a network with {classes} outputs: give 0 to "
                f"{classes - 1}"
            )


def fetch(
    examples: Examples,
    rows: Int[Array, " B"],
    network: Model,
    scaling: Scaling | None = None,
    alter: Callable[[RawInputs], RawInputs] = lambda images: images,
) -> tuple[Layer, Targets]:
    """The input, scaled, in the shape of the network's, and the targets, classes as one-hot ones,
    of some examples; images altered.

    Without a scaling, bytes become 0 to 1, and other numbers stay as they are.
    """
    raw, y = alter(examples.inputs[rows]), examples.targets[rows]
    values = raw.astype(network.dtype)
    if scaling is not None:
        values = scaling.apply(values).astype(network.dtype)
    elif raw.dtype == jnp.uint8:
        values = values / 255
    x = values.reshape(-1, *network.shapes[0])
    if y.ndim == 2:
        return x, y.astype(network.dtype)
    return x, jax.nn.one_hot(y, network.score_shape[0], dtype=network.dtype)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Trainer:
    """The compiled functions of one training; holds no state of it.

    ``batch`` is the number of examples in a minibatch; ``augmentations`` alter those learnt from,
    and ``dropout`` silences units meanwhile. ``layout`` says whether a state is that of one network
    or of replicas, and where it lies. An evaluation stops iterating when no unit moves faster than
    ``test_tolerance`` per unit of time; where that is 0, it relaxes as in training. ``scaling`` is
    that of the inputs, as ``fetch`` has it, and ``target`` says what is learnt, and so what is
    measured.
    """

    system: System
    learner: Learner
    batch: int
    augmentations: tuple[Augmentation, ...] = ()
    layout: Layout = dataclasses.field(default_factory=Layout)
    _: dataclasses.KW_ONLY
    dropout: Dropout = dataclasses.field(default_factory=Dropout)
    test_tolerance: float = 1e-4
    scaling: Scaling | None = None
    target: type[Target] = Classes

    @functools.cached_property
    def tested(self) -> System:
        """The system as it settles in tests."""
        settle = self.system.relaxation
        if self.test_tolerance:
            settle = settle.until(self.test_tolerance * self.system.dynamics.dt)
        elif isinstance(settle, ToTolerance):
            settle = FixedSteps(settle.steps)
        return dataclasses.replace(self.system, relaxation=settle)

    @functools.cached_property
    def _advance(self) -> Any:
        # The state is donated: weights are updated where they lie.
        return jax.jit(self._advance_plain, donate_argnums=0)

    @functools.cached_property
    def _test(self) -> Any:
        return jax.jit(self._test_plain, static_argnums=2)

    @functools.cached_property
    def _order(self) -> Any:
        return jax.jit(self._order_plain, static_argnums=2)

    def lay_out(self, layout: Layout) -> "Trainer":
        """The same for networks side by side, or over several devices."""
        return dataclasses.replace(self, layout=layout)

    def start(self, init: Callable[[PRNGKeyArray], Model], seed: int) -> TrainState:
        """The state of one network before the first minibatch.

        Raises ``EqpropError`` where the learner or the sweeps don't fit the network.
        """
        return self._begun(init(jax.random.key(seed)), seed)

    def start_from(self, network: Model, seed: int) -> TrainState:
        """The same with weights from elsewhere, which are set on the device."""
        if (writing := self.learner.writing) is not None:
            network = writing.program(network, writing_key(jax.random.key(seed)))
        return self._begun(network, seed)

    def _begun(self, network: Model, seed: int) -> TrainState:
        """The state with a network that has been programmed."""
        self.system.check_sweeps(network)
        # A buffer each: what is donated must not be shared.
        n, epoch, minibatch = (jnp.asarray(n, jnp.int32) for n in (seed, 0, 0))
        memory = self.learner.init(network)
        if (writing := self.learner.writing) is not None:
            network = writing.shown(network, writing_key(jax.random.key(seed)))
        totals = metrics.start(network.dtype, self.target, written=writing is not None)
        return TrainState(network, memory, n, epoch, minibatch, totals)

    def batches(self, examples: Examples) -> int:
        """Minibatches in an epoch; examples left over sit out the epoch.

        Raises ``EqpropError`` when there is not one.
        """
        n = len(examples)
        if n < self.batch:
            raise EqpropError(
                f"a minibatch of {self.batch} does not fit {n} training examples: make batch at "
                f"most {n}"
            )
        return n // self.batch

    def order(self, state: TrainState, examples: Examples) -> Int[Array, "*replicas batches B"]:
        """The rows of each minibatch of the state's epoch: a permutation that seed and epoch
        decide.
        """
        rows = self._order(state.seed, state.epoch, len(examples))
        n = self.batches(examples)
        return rows[..., : n * self.batch].reshape(*rows.shape[:-1], n, self.batch)

    def fetch(
        self, state: TrainState, examples: Examples, rows: Int[Array, " B"]
    ) -> tuple[Layer, Targets]:
        """The state's next minibatch: those rows, altered by the augmentations."""
        key = jax.random.fold_in(minibatch_key(state.seed, state.epoch, state.minibatch), 1)
        fetched = fetch(
            examples,
            rows,
            state.network,
            self.scaling,
            lambda images: augment(self.augmentations, images, key),
        )
        return self.layout.over_rows(fetched)

    def advance(
        self,
        state: TrainState,
        examples: Examples,
        order: Int[Array, "*replicas batches B"],
        stop: int,
    ) -> TrainState:
        """Learn the minibatches ``state.minibatch`` up to ``stop`` of the current epoch. Consumes
        ``state``.
        """
        return self._advance(state, examples, order, np.int32(stop))

    def next_epoch(self, state: TrainState) -> TrainState:
        """The same state at the beginning of the next epoch."""
        # A buffer each: what is donated must not be shared.
        zeros = jax.tree.map(jnp.zeros_like, (state.minibatch, state.totals))
        start = self.layout.over_replicas((state.epoch + 1, *zeros))
        return eqx.tree_at(lambda s: (s.epoch, s.minibatch, s.totals), state, start)

    def evaluate(
        self, network: Model, examples: Examples, rows: int = ROWS
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean loss and number of errors over all examples, ``rows`` at a time; of each replica.

        Raises ``EqpropError`` where the target is not classes: use ``test``.
        """
        sums = self.test(network, examples, rows)
        if "error" not in sums:
            raise EqpropError(
                f"errors are counted of classes, but the target is {self.target.__name__}: use test"
            )
        return np.asarray(sums["loss"] / len(examples)), sums["error"]

    def test(
        self, network: Model, examples: Examples, rows: int = ROWS
    ) -> dict[str, Float[np.ndarray, "*replicas"] | Int[np.ndarray, "*replicas"]]:
        """The sums over all examples, ``rows`` at a time, that ``metrics.of_sums`` takes; of each
        replica.

        Rows that have settled after fewer than T steps are not iterated on.
        """
        return jax.device_get(self._test(network, examples, min(rows, len(examples))))

    def _advance_plain(
        self,
        state: TrainState,
        examples: Examples,
        order: Int[Array, "*replicas batches B"],
        stop: Int[Array, ""],
    ) -> TrainState:
        learn = self.layout.lift(self._learn, (0, None, 0))

        # A traced bound: one program serves a stretch of any length. The loop is around the
        # replicas, not within: with bounds of their own each step would copy all that they hold.
        def body(n: Int[Array, ""], state: TrainState) -> TrainState:
            here = eqx.tree_at(lambda s: s.minibatch, state, jnp.full_like(state.minibatch, n))
            return self.layout.over_replicas(learn(here, examples, order[..., n, :]))

        return lax.fori_loop(state.minibatch.ravel()[0], stop, body, state)

    def _learn(self, state: TrainState, examples: Examples, rows: Int[Array, " B"]) -> TrainState:
        x, y = self.fetch(state, examples, rows)
        key = minibatch_key(state.seed, state.epoch, state.minibatch)
        system, x = self.dropout(self.system.at(key), state.network, x, key)
        network, memory, free = self.learner.learn(system, state.network, state.memory, (x, y), key)
        seen = self._seen(state.network, free, y, examples)
        totals = metrics.add(state.totals, seen._replace(written=self.learner.seen(memory)))
        return TrainState(network, memory, state.seed, state.epoch, state.minibatch + 1, totals)

    def _seen(self, network: Model, free: Free, y: Targets, examples: Examples) -> metrics.Seen:
        scores = network.scores_of(free.states)
        real = examples.variance, examples.parts_of_unit
        return metrics.Seen(self.system.cost, scores, free.states, y, free.settled, *real)

    def _order_plain(
        self, seed: Int[Array, "*replicas"], epoch: Int[Array, "*replicas"], n: int
    ) -> Int[Array, "*replicas n"]:
        rows = self.layout.lift(functools.partial(_order, n=n), (0, 0))(seed, epoch)
        return self.layout.over_replicas(rows)

    def _test_plain(self, network: Model, examples: Examples, rows: int) -> metrics.Totals:
        test = self.layout.lift(functools.partial(self._test_one, rows=rows), (0, None))
        return self.layout.everywhere(test(network, examples))

    def _test_one(self, network: Model, examples: Examples, *, rows: int) -> metrics.Totals:
        n, along = len(examples), self.layout.devices[DATA]
        rows = -(-rows // along) * along
        blocks = -(-n // rows)
        # The last block is filled up with rows that do not count.
        index = jnp.arange(blocks * rows).reshape(blocks, rows)

        def block(index: Int[Array, " rows"]) -> metrics.Totals:
            rows = jnp.minimum(index, n - 1)
            x, y = self.layout.over_rows(fetch(examples, rows, network, self.scaling))
            free = self.tested.free(self.tested.clamp(network, x), x)
            return metrics.sums(self._seen(network, free, y, examples), index < n, self.target)

        return jax.tree.map(functools.partial(jnp.sum, axis=0), lax.map(block, index))


def _order(seed: Int[Array, ""], epoch: Int[Array, ""], n: int) -> Int[Array, " n"]:
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 0), epoch)
    return jax.random.permutation(key, n).astype(jnp.int32)


def minibatch_key(
    seed: Int[Array, ""], epoch: Int[Array, ""], minibatch: Int[Array, ""]
) -> PRNGKeyArray:
    """What a minibatch draws its random numbers from: a random-sign nudge from the key itself,
    augmentations and dropout from keys folded from it.
    """
    key = jax.random.fold_in(jax.random.key(seed), 1)
    return jax.random.fold_in(jax.random.fold_in(key, epoch), minibatch)
