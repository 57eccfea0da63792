"""Training: a state that is all there is to a run, compiled stretches of an epoch, evaluation.

Nothing here touches files or the screen. Every random number follows from the seed and the place in
the run, so a training cut anywhere and continued is the training that was not cut.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from eqprop.data.augmentation import Augmentation, Images, augment
from eqprop.dynamics.system import System
from eqprop.errors import EqpropError
from eqprop.learning.learners import Learner
from eqprop.networks.edges import Untied, realised_angle
from eqprop.networks.network import Network
from eqprop.training.replicas import DATA, Layout
from eqprop.types import Array, Float, Int, Layer, PRNGKeyArray, Targets, UInt8


class Totals(NamedTuple):
    """Sums over the minibatches of the epoch so far."""

    loss: Float[Array, ""]
    errors: Int[Array, ""]
    steps: Int[Array, ""]
    residual: Float[Array, ""]
    """Largest residual of a free phase."""


class TrainState(eqx.Module):
    """All that changes while a network is trained: what a checkpoint holds.

    The state of replicas has their axis in front of the shapes given here; they are all at the same
    place in the training.
    """

    network: Network
    memory: optax.OptState
    seed: Int[Array, ""]
    epoch: Int[Array, ""]
    """Epochs finished."""
    batch: Int[Array, ""]
    """Minibatches of the current epoch learnt."""
    totals: Totals

    @property
    def place(self) -> tuple[int, int]:
        """Epochs finished, and minibatches of the current one learnt."""
        return _first(self.epoch), _first(self.batch)


def _first(counts: Int[Array, "*replicas"]) -> int:
    # Of those on a device of this host: the others may be out of reach.
    here = counts.addressable_shards[0].data if isinstance(counts, jax.Array) else counts
    return int(np.ravel(here)[0])


def _no_totals(dtype: jnp.dtype) -> Totals:
    # A buffer each: what is donated must not be shared.
    dtypes = (dtype, jnp.int32, jnp.int32, dtype)
    return Totals(*(jnp.zeros((), d) for d in dtypes))


class Examples(NamedTuple):
    """Images as bytes, and labels, on the device."""

    images: UInt8[Array, "n rows columns *channels"]
    labels: Int[Array, " n"]

    @staticmethod
    def put(images: np.ndarray, labels: np.ndarray, network: Network) -> "Examples":
        """Examples on the device.

        Raises ``EqpropError`` where images or labels do not fit the network.
        """
        shape, (classes,) = network.shapes[0], network.scores
        if images[0].size != np.prod(shape):
            raise EqpropError(
                f"images of shape {images.shape[1:]} do not fit a network with an input of shape "
                f"{shape}"
            )
        if labels.max() >= classes:
            raise EqpropError(f"label {labels.max()} does not fit a network with {classes} outputs")
        return Examples(jnp.asarray(images), jnp.asarray(labels.astype(np.int32)))


def fetch(
    examples: Examples,
    rows: Int[Array, " B"],
    network: Network,
    alter: Callable[[Images], Images] = lambda images: images,
) -> tuple[Layer, Targets]:
    """The input, pixels in [0, 1] in the shape of the network's input, and the one-hot targets of
    some examples, their images altered.
    """
    images = alter(examples.images[rows]).reshape(-1, *network.shapes[0])
    x = images.astype(network.dtype) / 255
    return x, jax.nn.one_hot(examples.labels[rows], network.scores[0], dtype=network.dtype)


_SETTLED = 1e-4
"""An evaluation goes on until no unit moves by this much in a step, or for T steps."""


class Trainer:
    """The compiled functions of one training; holds no state of it.

    ``batch`` is the number of examples in a minibatch; ``augmentations`` alter those learnt from.
    ``layout`` says whether a state is that of one network or of replicas, and where it lies.
    """

    def __init__(
        self,
        system: System,
        learner: Learner,
        batch: int,
        augmentations: tuple[Augmentation, ...] = (),
        layout: Layout | None = None,
    ) -> None:
        self.system, self.learner, self.batch = system, learner, batch
        self.augmentations = augmentations
        self.layout = layout or Layout()
        settle = system.relaxation.until(_SETTLED)
        self._evaluated = dataclasses.replace(system, relaxation=settle)
        # The state is donated: weights are updated where they lie.
        self._advance = jax.jit(self._advance_plain, donate_argnums=0)
        self._evaluate = jax.jit(self._evaluate_plain, static_argnums=2)
        self._order = jax.jit(self._order_plain, static_argnums=2)

    def start(self, init: Callable[[PRNGKeyArray], Network], seed: int) -> TrainState:
        """The state of one network before the first minibatch.

        Raises ``EqpropError`` where the learner or the sweeps don't fit the network.
        """
        network = init(jax.random.key(seed))
        self.system.check_sweeps(network)
        n, epoch, batch = (jnp.asarray(n, jnp.int32) for n in (seed, 0, 0))
        memory = self.learner.init(network)
        return TrainState(network, memory, n, epoch, batch, _no_totals(network.dtype))

    def batches(self, examples: Examples) -> int:
        """Minibatches in an epoch; examples left over sit out the epoch.

        Raises ``EqpropError`` when there is not one.
        """
        n = len(examples.labels)
        if n < self.batch:
            raise EqpropError(f"a minibatch of {self.batch} does not fit {n} training examples")
        return n // self.batch

    def order(self, state: TrainState, examples: Examples) -> Int[Array, "*replicas batches B"]:
        """The rows of each minibatch of the state's epoch: a permutation that seed and epoch
        decide.
        """
        rows = self._order(state.seed, state.epoch, len(examples.labels))
        n = self.batches(examples)
        return rows[..., : n * self.batch].reshape(*rows.shape[:-1], n, self.batch)

    def fetch(
        self, state: TrainState, examples: Examples, rows: Int[Array, " B"]
    ) -> tuple[Layer, Targets]:
        """The state's next minibatch: those rows, altered by the augmentations."""
        key = jax.random.fold_in(minibatch_key(state.seed, state.epoch, state.batch), 1)
        fetched = fetch(
            examples, rows, state.network, lambda images: augment(self.augmentations, images, key)
        )
        return self.layout.over_rows(fetched)

    def advance(
        self,
        state: TrainState,
        examples: Examples,
        order: Int[Array, "*replicas batches B"],
        stop: int,
    ) -> TrainState:
        """Learn the minibatches ``state.batch`` up to ``stop`` of the current epoch. Consumes
        ``state``.
        """
        return self._advance(state, examples, order, np.int32(stop))

    def next_epoch(self, state: TrainState) -> TrainState:
        """The same state at the beginning of the next epoch."""
        # A buffer each: what is donated must not be shared.
        zeros = jax.tree.map(jnp.zeros_like, (state.batch, state.totals))
        start = self.layout.over_replicas((state.epoch + 1, *zeros))
        return eqx.tree_at(lambda s: (s.epoch, s.batch, s.totals), state, start)

    def evaluate(
        self, network: Network, examples: Examples, rows: int = 200
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean loss and number of errors over all examples, ``rows`` at a time; of each replica.

        Rows that have settled after fewer than T steps are not iterated on.
        """
        loss, errors = self._evaluate(network, examples, min(rows, len(examples.labels)))
        return np.asarray(loss), np.asarray(errors)

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
        def body(batch: Int[Array, ""], state: TrainState) -> TrainState:
            here = eqx.tree_at(lambda s: s.batch, state, jnp.full_like(state.batch, batch))
            return self.layout.over_replicas(learn(here, examples, order[..., batch, :]))

        return lax.fori_loop(state.batch.ravel()[0], stop, body, state)

    def _learn(self, state: TrainState, examples: Examples, rows: Int[Array, " B"]) -> TrainState:
        batch = self.fetch(state, examples, rows)
        key = minibatch_key(state.seed, state.epoch, state.batch)
        network, memory, (free, settled) = self.learner.learn(
            self.system, state.network, state.memory, batch, key
        )
        loss, wrong = _score(self.system, state.network.read(free[-1]), batch[1])
        totals = Totals(
            state.totals.loss + jnp.sum(loss),
            state.totals.errors + jnp.sum(wrong, dtype=jnp.int32),
            state.totals.steps + settled.steps.astype(jnp.int32),
            jnp.maximum(state.totals.residual, settled.residual),
        )
        return TrainState(network, memory, state.seed, state.epoch, state.batch + 1, totals)

    def _order_plain(
        self, seed: Int[Array, "*replicas"], epoch: Int[Array, "*replicas"], n: int
    ) -> Int[Array, "*replicas n"]:
        rows = self.layout.lift(functools.partial(_order, n=n), (0, 0))(seed, epoch)
        return self.layout.over_replicas(rows)

    def _evaluate_plain(
        self, network: Network, examples: Examples, rows: int
    ) -> tuple[Float[Array, "*replicas"], Int[Array, "*replicas"]]:
        score = self.layout.lift(functools.partial(self._score_all, rows=rows), (0, None))
        return self.layout.everywhere(score(network, examples))

    def _score_all(
        self, network: Network, examples: Examples, *, rows: int
    ) -> tuple[Float[Array, ""], Int[Array, ""]]:
        n, along = len(examples.labels), self.layout.devices[DATA]
        rows = -(-rows // along) * along
        blocks = -(-n // rows)
        # The last block is filled up with rows that do not count.
        index = jnp.arange(blocks * rows).reshape(blocks, rows)

        def block(index: Int[Array, " rows"]) -> tuple[Float[Array, ""], Int[Array, ""]]:
            x, y = self.layout.over_rows(fetch(examples, jnp.minimum(index, n - 1), network))
            states, _ = self._evaluated.free(self._evaluated.clamp(network, x), x)
            loss, wrong = _score(self.system, network.read(states[-1]), y)
            counts = index < n
            return jnp.sum(jnp.where(counts, loss, 0)), jnp.sum(wrong & counts)

        loss, errors = lax.map(block, index)
        return jnp.sum(loss) / n, jnp.sum(errors)


def _order(seed: Int[Array, ""], epoch: Int[Array, ""], n: int) -> Int[Array, " n"]:
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 0), epoch)
    return jax.random.permutation(key, n).astype(jnp.int32)


def minibatch_key(
    seed: Int[Array, ""], epoch: Int[Array, ""], batch: Int[Array, ""]
) -> PRNGKeyArray:
    """What a minibatch draws its random numbers from: a random-sign nudge from the key itself,
    augmentations from a key folded from it.
    """
    key = jax.random.fold_in(jax.random.key(seed), 1)
    return jax.random.fold_in(jax.random.fold_in(key, epoch), batch)


def _score(system: System, scores: Layer, y: Targets) -> tuple[Float[Array, " B"], Array]:
    """Loss of each example, and whether its largest score is not its class."""
    wrong = jnp.argmax(system.cost.predict(scores), axis=-1) != jnp.argmax(y, axis=-1)
    return system.cost.loss(scores, y), wrong


def angles(network: Network) -> dict[str, float]:
    """Realised angle in degrees between forward and feedback weights, of each untied edge."""
    return {
        f"{e.pre}-{e.post}": float(realised_angle(e))
        for e in network.edges
        if isinstance(e, Untied)
    }
