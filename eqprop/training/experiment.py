"""An experiment: what is to be trained, and on what; and evaluation."""

import contextlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np

from eqprop.data.dataset import Dataset, check_fits
from eqprop.data.scaling import Scaling
from eqprop.data.targets import Classes, Real, Target
from eqprop.errors import EqpropError
from eqprop.networks.energy import Own
from eqprop.networks.model import Model
from eqprop.networks.parameter_names import named_parameters
from eqprop.numerics import numerics
from eqprop.recipes.build import build
from eqprop.recipes.recipe import Recipe
from eqprop.training import metrics
from eqprop.training.display import Display
from eqprop.training.records import DataUsed, Origin, Record
from eqprop.training.replicas import Layout
from eqprop.training.run_data import fit_scalings, hold_back, load_again
from eqprop.training.trainer import Examples, Trainer, TrainState
from eqprop.types import PRNGKeyArray, Shape

_EVALUATE = 2000  # examples between two looks at whether to stop


@final
@dataclass(frozen=True)
class Experiment:
    """What is to be trained, and on what; ready to start."""

    recipe: Recipe
    trainer: Trainer
    init: Callable[[PRNGKeyArray], Model]
    train: Examples
    test: Examples
    batches: int
    """Minibatches in an epoch."""
    validation: Examples | None = None
    """Held back from the training set, to measure each epoch on."""

    @property
    def parts(self) -> dict[str, Examples]:
        """All examples, by what they are for."""
        held = {} if self.validation is None else {"validation": self.validation}
        return {"test": self.test, **held, "training": self.train}

    @property
    def measured(self) -> Examples:
        """What each epoch is measured on."""
        return self.test if self.validation is None else self.validation

    def start(self, seed: int) -> TrainState:
        """The state of one network before the first minibatch."""
        return self.trainer.start(self.init, seed)

    @property
    def like(self) -> TrainState:
        """The same of any seed, as shapes: nothing is drawn."""
        return jax.eval_shape(lambda: self.start(0))

    def lay_out(self, layout: Layout) -> "Experiment":
        """The same for networks side by side, or over several devices."""
        if layout == self.trainer.layout:
            return self
        put = layout.put_everywhere
        parts = {name: put(getattr(self, name)) for name in ("train", "test", "validation")}
        return replace(self, trainer=self.trainer.lay_out(layout), **parts)


@final
class Program(NamedTuple):
    """What trains a recipe, and what draws a network."""

    trainer: Trainer
    init: Callable[[PRNGKeyArray], Model]


@final
class WarmStart(NamedTuple):
    """A trained network to start a training from, and where it is from."""

    network: Model
    origin: Origin
    data: DataUsed
    """What it was trained on."""

    def compare(self, dataset: Dataset) -> list[str]:
        """What is to be told of other data that it goes on with. Raises ``EqpropError`` where these
        have the same features or classes in another order.
        """
        told: list[str] = []
        pairs = {
            "features": (self.data.features, dataset.features),
            "targets": (self.data.names, dataset.target.names),
        }
        for what, (theirs, ours) in pairs.items():
            if theirs and ours and theirs != ours:
                if {*theirs} == {*ours}:
                    raise EqpropError(
                        f"{what} of {dataset.name} are {', '.join(ours)}, but the weights to start "
                        f"from have learnt {', '.join(theirs)}: give them in that order"
                    )
                told.append(f"{what} are others than those that were learnt: they go by place")
        return told


def prepare(recipe: Recipe, dataset: Dataset, own: Own | None = None) -> Experiment:
    """Builds what a recipe says for a data set, and puts that on the device; ``own`` is the model
    of one's own that it names, if it names one.

    Raises:
        EqpropError: values in the recipe that cannot be, or do not fit the data.
    """
    learnt = hold_back(recipe, dataset)
    batches = max(1, len(learnt.train_y) // recipe.batch)
    inputs, outputs = fit_scalings(recipe, learnt)
    # What a trainer does to bytes by itself it does in fewer operations.
    plain = recipe.scaling == "auto" and dataset.train_x.dtype == np.uint8
    scaling = None if plain else inputs
    trainer, init = plan(recipe, dataset.shape, dataset.target, batches, scaling, own)
    network = jax.eval_shape(init, jax.random.key(0))
    check_fits(dataset, network.shapes[0], network.score_shape[0])
    _check_size(recipe, network, batches)
    train, test = (put_scaled(x, y, network, outputs) for _, x, y in learnt.parts())
    validation = None
    if learnt is not dataset:
        validation, test = test, put_scaled(dataset.test_x, dataset.test_y, network, outputs)
    return Experiment(recipe, trainer, init, train, test, trainer.batches(train), validation)


def prepare_again(
    folder: Path, record: Record, recipe: Recipe, display: Display, own: Own | None = None
) -> Experiment:
    """The experiment of the run in a folder, with the data that it has used; ``own`` is the model
    of one's own that the recipe names.

    Raises ``EqpropError`` where they are not at hand, or are others.
    """
    with display.doing("loading data"):
        dataset = load_again(folder, record.data)
    return prepare(recipe, dataset, own)


def precision(recipe: Recipe) -> contextlib.AbstractContextManager[None]:
    """Numerics, with float64 exactly where the recipe asks for it."""
    return numerics(double=recipe.dtype == "float64")


def put_scaled(x: np.ndarray, y: np.ndarray, network: Model, outputs: Scaling | None) -> Examples:
    """Examples on the device, of inputs and targets in the user's numbers; ``outputs`` is the
    scaling of real targets.

    Raises ``EqpropError`` as ``Examples.put`` does.
    """
    if outputs is None:
        return Examples.put(x, y, network)
    largest = float(np.max(outputs.scale))
    parts = jnp.broadcast_to(jnp.asarray(outputs.scale / largest), network.score_shape)
    return replace(Examples.put(x, outputs.apply(y), network), parts_of_unit=parts, unit=largest)


def plan(
    recipe: Recipe,
    shape: Shape,
    target: Target,
    batches: int,
    scaling: Scaling | None,
    own: Own | None = None,
) -> Program:
    """The program of a recipe on inputs of a shape, with that many minibatches an epoch. Needs no
    data.

    Raises:
        EqpropError: values in the recipe that cannot be, or do not fit such data.
    """
    if recipe.cost == "cross-entropy" and type(target) is not Classes:
        raise EqpropError(
            f"cost {recipe.cost} is for classes, but the data have {target.about}: use --cost "
            "squared-error"
        )
    if recipe.augments and len(shape) not in (2, 3):
        raise EqpropError(
            f"shift, flip, rotate, zoom, elastic and erase alter images, but inputs have shape "
            f"{shape}: leave them out"
        )
    if recipe.augments and len(shape) == 3 and shape[0] in (1, 3, 4) and shape[2] > 4:
        raise EqpropError(
            f"inputs have shape {shape}, with their channels first: to alter images, give (rows, "
            "columns, channels), x.transpose(0, 2, 3, 1)"
        )
    real = type(target) is Real
    built = build(recipe, shape, target.width, batches, real=real, own=own)
    trainer = Trainer(
        built.system,
        built.learner,
        recipe.batch,
        built.augmentations,
        dropout=built.dropout,
        test_tolerance=recipe.test_tolerance,
        scaling=scaling,
        target=type(target),
    )
    return Program(trainer, built.init)


def _check_size(recipe: Recipe, network: Model, batches: int) -> None:
    """Before memory is asked for, or numbers that are kept in 32 bits overflow."""
    weights = sum(leaf.size for leaf in jax.tree.leaves(network))
    units = recipe.batch * sum(map(math.prod, network.shapes))
    # A training holds the weights as they are, as they were, and an update of them.
    needed = (3 * weights + 2 * units) * network.dtype.itemsize
    if needed > (there := memory()):
        raise EqpropError(
            f"{weights:.3g} weights and {units:.3g} units in a minibatch need about "
            f"{needed / 2**30:.3g} GiB, but there are {there / 2**30:.3g} GiB of memory: make "
            "layers, channels or the minibatch smaller"
        )
    if recipe.T * batches >= 2**31:
        raise EqpropError(
            f"T is {recipe.T}, which over {batches} minibatches are too many steps to be counted "
            "in 32 bits: lower T"
        )


def evaluate(
    trainer: Trainer,
    networks: Model,
    examples: Examples,
    tell: Callable[[int], None] = lambda _: None,
) -> list[dict[str, float]]:
    """The metrics of examples by name, error in % and loss, of each replica or of the one network.

    ``tell`` is told, now and then, how many examples are done; what it raises ends the evaluation.
    """
    n = len(examples)
    totals: dict[str, np.ndarray] = {}
    for start in range(0, n, _EVALUATE):
        tell(start)
        block = examples.part(start, start + _EVALUATE)
        for name, sums in trainer.test(networks, block).items():
            totals[name] = totals.get(name, 0) + np.ravel(sums).astype(float)
    replicas = trainer.layout.replicas or 1
    each = ({name: sums[n] for name, sums in totals.items()} for n in range(replicas))
    return [metrics.of_sums(sums, n, examples.unit) for sums in each]


def begin(experiment: Experiment, seed: int, trained: Model) -> TrainState:
    """The state before the first minibatch, with the weights of a network, not with drawn ones.

    Raises ``EqpropError`` where they do not fit.
    """
    like = experiment.start(seed).network
    ours, theirs = named_parameters(like), named_parameters(trained)
    for name in {**ours, **theirs}:
        here, there = (part[name].shape if name in part else "none" for part in (ours, theirs))
        if here != there:
            raise EqpropError(
                f"the weights to start from do not fit: {name} is {there} there, {here} in this "
                "recipe; give it the same layers"
            )
    leaves = [jnp.array(theirs[name], dtype=leaf.dtype, copy=True) for name, leaf in ours.items()]
    network = jax.tree.unflatten(jax.tree.structure(like), leaves)
    return experiment.trainer.start_from(network, seed)


def memory() -> int:
    """Bytes of memory that JAX's default device has, or the computer where it does not say."""
    told = jax.local_devices()[0].memory_stats() or {}
    return told.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
