"""A training as an object of Python: begun by ``fit``, opened again by ``open_run``.

What it offers comes from the run directory alone: predictions need no training data.
"""

import dataclasses
import functools
import hashlib
import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from eqprop.data.dataset import Dataset, in_order
from eqprop.data.scaling import Scaling
from eqprop.data.targets import Classes, Real, Target, as_float32
from eqprop.dynamics.relaxation import check_steps
from eqprop.dynamics.system import System
from eqprop.errors import EqpropError
from eqprop.networks.energy import Energy, Map, Own
from eqprop.networks.model import Model
from eqprop.networks.parameter_names import named_parameters
from eqprop.recipes.catalogue import recipe as recipe_of
from eqprop.recipes.recipe import Recipe, settable
from eqprop.training import checkpoint, launch, metrics, run_data
from eqprop.training.experiment import (
    Program,
    WarmStart,
    evaluate,
    plan,
    precision,
    put_scaled,
)
from eqprop.training.files import write_whole, writing
from eqprop.training.planned import PlannedTraining
from eqprop.training.records import Origin, Record
from eqprop.training.restore import load_best
from eqprop.training.results import read_run
from eqprop.training.runs import is_run, read_record, seed_folders
from eqprop.training.settled import settle_rows
from eqprop.types import Array, Layer, States


def fit(
    recipe: str | Recipe | Own,
    dataset: Dataset,
    out: Path | str,
    *,
    seed: int = 0,
    start: "TrainedRun | None" = None,
    **fields: Any,
) -> "TrainedRun":
    """Trains a recipe, of that name or an own one, on a data set, with some fields of the recipe
    changed, as ``epochs=10``; all that ``eqprop train`` leaves is in the run directory ``out``. It
    starts from drawn weights, or from those of another run, ``start``.

    In the place of a recipe stands an energy or a map of one's own. The fields that say how it
    settles and learns are then given by name: a map has rule ``aep`` unless another is given, and a
    single learning rate ``lr=(0.1,)`` is that of all its parameters.

    A run of the same training that is there already goes on where it stands, to the last epoch.

    Raises:
        EqpropError: values that cannot be, or do not fit the data; a directory that holds
            something else.
    """
    if not isinstance(dataset, Dataset):
        raise EqpropError(
            f"the data are {reprlib.repr(dataset)}: give a Dataset, as ep.load('mnist') or "
            "ep.Dataset.from_arrays(x, y)"
        )
    own = recipe if isinstance(recipe, Energy | Map) else None
    match recipe:
        case str():
            wanted = recipe_of(recipe)
        case Recipe():
            wanted = recipe
        case _:
            wanted = own_recipe(recipe)
    known = sorted(settable())
    if unknown := sorted(fields.keys() - set(known)):
        raise EqpropError(f"{unknown[0]} is no field of a recipe: choose among {known}")
    if own is not None and (there := sorted(fields.keys() & _OF_LAYERS)):
        raise EqpropError(
            f"{there[0]} is given, but {own.name} has layers and steps of its own: say it there, "
            "as ep.Energy(..., dt=...), or leave it out"
        )
    wanted = dataclasses.replace(wanted, dataset="own", published=None, **fields)
    folder, command = Path(out), ["eqprop.fit"]
    seed = int(seed) if isinstance(seed, np.integer) else seed
    warm = start and start.warm_start
    if is_run(folder):
        data = run_data.KeptData(folder, run_data.describe(dataset, wanted))
        PlannedTraining(wanted, (seed,), folder, data).check(warm and warm.origin)
        launch.resume(folder, wanted.epochs, command, own=own)
    else:
        launch.train(wanted, [seed], folder, command, dataset=dataset, start=warm, own=own)
    return open_run(folder, model=own)


_OF_LAYERS = {
    *("dt", "activation", "mean", "std", "hidden", "channels", "skips", "lateral", "inside"),
    *("output", "output_slope", "clip", "raw_input", "train_input_bias", "setting"),
}
"""Fields of a recipe that say nothing of an energy or a map of one's own."""


def own_recipe(own: Own) -> Recipe:
    """The recipe of an energy or a map of one's own, with fields that are to be changed."""
    rule = "ep" if isinstance(own, Energy) else "aep"
    return Recipe(name=own.name, about=own.about, model=own.name, rule=rule, lr=(0.1,))


def open_run(
    folder: Path | str, epoch: Literal["best", "last"] = "best", *, model: Own | None = None
) -> "TrainedRun":
    """The run in a directory, of one seed: what ``fit`` or ``eqprop train`` has made.

    Its network is that of the best epoch, where a part of the training set was held back for
    validation, else the newest one; that also where the last epoch is asked for. A run of an energy
    or a map of one's own keeps no program, so that ``model`` is given again.

    Raises ``EqpropError`` where there is none, or one of several seeds.
    """
    record = read_record(Path(folder))
    if len(record.seeds) > 1:
        first = seed_folders(Path(folder), record)[0][1]
        raise EqpropError(f"{folder} has {len(record.seeds)} seeds: open one of them, as {first}")
    return TrainedRun(Path(folder), record, last=epoch == "last", model=model)


@final
class TrainedRun:
    """A run directory, and the network that it has come to: see ``open_run``."""

    def __init__(
        self, folder: Path, record: Record, *, last: bool = False, model: Own | None = None
    ) -> None:
        self.folder, self.record, self._last, self._own = folder, record, last, model

    def __repr__(self) -> str:
        return f"TrainedRun({str(self.folder)!r}, {self.recipe.name})"

    @property
    def recipe(self) -> Recipe:
        """What was trained."""
        return self.record.recipe

    @functools.cached_property
    def target(self) -> Target:
        """What was learnt."""
        return run_data.target(self.record.data)

    @functools.cached_property
    def metrics(self) -> dict[str, np.ndarray]:
        """The metrics by column, ``test_error``, ``train_loss`` ..., each with a number an epoch;
        NaN where an epoch has none. With a validation part they are ``validation_error`` ..., and
        ``tested`` has those of the test set.
        """
        (result,) = read_run(self.folder)
        return {name: np.asarray(column) for name, column in result.columns.items()}

    @property
    def tested(self) -> dict[str, float]:
        """What the test set has shown: at the last epoch, or of the best one at the end of a
        training with a validation part; empty before that.
        """
        (result,) = read_run(self.folder)
        numbers = {name: column[-1] for name, column in result.columns.items()} | {**result.chosen}
        return {name: n for name, n in numbers.items() if name.startswith("test_")}

    @property
    def network(self) -> Model:
        """The trained network. Raises ``EqpropError`` where there is no checkpoint."""
        return self._restored.state.network

    @property
    def warm_start(self) -> WarmStart:
        """What another training begins with that starts from this one."""
        (epoch, minibatch), network = self._restored.state.position, self.network
        digest = hashlib.sha256()
        for leaf in jax.tree.leaves(network):
            digest.update(np.asarray(leaf, order="C"))
        where = str(self.folder.absolute())
        origin = Origin(where, epoch, minibatch, digest.hexdigest())
        return WarmStart(network, origin, self.record.data)

    @functools.cached_property
    def _restored(self) -> checkpoint.Restored:
        program, (seed,) = self._program, self.record.seeds
        recipe = dataclasses.replace(self.recipe, validation=0.0, patience=0)
        with precision(self.recipe):
            like = jax.eval_shape(lambda: program.trainer.start(program.init, seed))
            found = load_best(self.folder, recipe if self._last else self.recipe, like, seed)
        if found is None:
            raise EqpropError(f"{self.folder} has no checkpoint yet: eqprop resume {self.folder}")
        return found

    @property
    def system(self) -> System:
        """What settles, and how, in a test."""
        return self._program.trainer.tested

    def scores(self, x: Any) -> np.ndarray:
        """The outputs ``(n, outputs)`` for raw inputs ``(n, *shape)``: of classes the largest is
        predicted; real numbers are in the units of the targets. Columns of a table are found by
        name, whatever else it has.
        """
        x = self._raw(x)
        with precision(self.recipe):
            scores = settle_rows(
                self.system, self.network, lambda rows: self._scaled(x[rows]), len(x)
            ).scores
        outputs = self._scalings[1]
        return scores if outputs is None else outputs.undo(scores)

    def predict(self, x: Any) -> np.ndarray:
        """What is predicted for raw inputs ``(n, *shape)``: classes ``(n,)``, by name, or by number
        where the names of all are whole numbers; real numbers ``(n,)`` or ``(n, outputs)``; labels
        ``(n, labels)`` of 0 and 1.
        """
        return self.predicted(self.scores(x))

    def predicted(self, scores: np.ndarray) -> np.ndarray:
        """What ``predict`` makes of these scores."""
        if isinstance(self.target, Real):
            return scores[:, 0] if scores.shape[1] == 1 else scores
        if not isinstance(self.target, Classes):
            return (scores > 0.5).astype(int)
        numbers = np.asarray(metrics.predicted(self.system.cost, jnp.asarray(scores)))
        return self.target.values[numbers]

    def evaluate(self, dataset: Dataset) -> dict[str, float]:
        """The metrics of the test part of a data set, by name: ``error`` in % and ``loss``, or
        ``rmse`` and ``r2``, as trainings measure them.

        Raises ``EqpropError`` where it does not fit, in its inputs, their range, or its targets.
        """
        if dataset.target != self.target:
            raise EqpropError(
                f"{dataset.name} has {dataset.target.about} ({', '.join(dataset.target.names)}), "
                f"but the run has learnt {self.target.about} ({', '.join(self.target.names)}): "
                "give data with the same targets, in the same order"
            )
        features, shape = self.record.data.features, self.record.data.image
        if dataset.shape != shape:
            raise EqpropError(
                f"inputs of {dataset.name} have shape {dataset.shape}, but the run has learnt from "
                f"inputs of shape {shape}: give these"
            )
        if features and dataset.features and dataset.features != features:
            raise EqpropError(
                f"{dataset.name} has the features {', '.join(dataset.features)}, but the run has "
                f"learnt from {', '.join(features)}: give these, in the same order"
            )
        self._scalings[0].check_range(dataset.test_x)
        with precision(self.recipe):
            examples = put_scaled(dataset.test_x, dataset.test_y, self.network, self._scalings[1])
            (scores,) = evaluate(self._program.trainer, self.network, examples)
        return scores

    def relax(
        self, x: Any, held: Mapping[int, Any] | None = None, steps: int | None = None
    ) -> list[np.ndarray]:
        """The states of a free phase from 0 for raw inputs ``(n, *shape)``, step by step: of each
        layer, ``(steps + 1, n, *units)``; T steps, unless others are given.

        ``held`` puts units where they stay, by layer, ``(n, *units)``, NaN where they are free: an
        output that is given, say, for the states that go with it. Raises ``EqpropError`` for values
        that do not fit.
        """
        x = self._raw(x)
        system = self._program.trainer.system
        if held:
            dtype = self.network.dtype
            system = system.holding({n: jnp.asarray(v, dtype) for n, v in held.items()})
        with precision(self.recipe):
            steps = system.relaxation.steps if steps is None else steps
            check_steps(steps)
            states = _relax(system, self.network, self._scaled(x), steps)
            return [np.asarray(layer) for layer in states]

    def export(self, path: Path | str) -> Path:
        """Writes the weights, and what an input and an output have to be scaled by, as
        ``.safetensors`` or ``.npz``: arrays ``W1``, ``b1`` ..., ``input.shift``, ``input.scale``
        and, of real targets, ``target.shift``, ``target.scale``; the recipe, the features and the
        names of classes or outputs as JSON.

        Raises ``EqpropError`` for another ending, or where it cannot be written.
        """
        path = Path(path)
        arrays = {name: np.asarray(leaf) for name, leaf in named_parameters(self.network).items()}
        inputs, outputs = self._scalings
        for what, scaling in (("input", inputs), ("target", outputs)):
            if scaling is not None:
                arrays |= {f"{what}.shift": scaling.shift, f"{what}.scale": scaling.scale}
        about = {
            "recipe": json.dumps(dataclasses.asdict(self.recipe)),
            "shapes": json.dumps(self.network.shapes),
            "target": self.record.data.target,
            "names": json.dumps(self.target.names),
            "features": json.dumps(self.record.data.features),
        }
        with writing(path, "give another file"):
            write_whole(path, _packed(path, arrays, about))
        return path

    @functools.cached_property
    def _program(self) -> Program:
        used = self.record.data
        batches = max(1, used.train // self.recipe.batch)
        with precision(self.recipe):
            return plan(self.recipe, used.image, self.target, batches, self._scalings[0], self._own)

    @functools.cached_property
    def _scalings(self) -> tuple[Scaling, Scaling | None]:
        return run_data.scalings(self.record.data)

    def _raw(self, x: Any) -> np.ndarray:
        """Inputs as an array. Raises ``EqpropError`` for others than the run was trained on."""
        used = self.record.data
        x, shape = in_order(x, used.features, str(self.folder)), used.image
        if x.dtype.kind not in "biuf" or x.shape[1:] != shape or not len(x):
            raise EqpropError(
                f"inputs are {x.dtype} of shape {x.shape}: give numbers of shape (n, "
                f"{', '.join(map(str, shape))}), as in training"
            )
        finite = np.isfinite(as_float32(x))
        if not finite.all():
            row = int(np.argmin(finite.reshape(len(x), -1).all(axis=1)))
            raise EqpropError(
                f"input {row} has a number that is NaN, infinite, or too large for float32: mend it"
            )
        self._scalings[0].check_range(x)
        return x

    def _scaled(self, x: np.ndarray) -> Layer:
        values = self._scalings[0].apply(jnp.asarray(x.astype(self.network.dtype)))
        return values.astype(self.network.dtype).reshape(len(x), *self.network.shapes[0])


@eqx.filter_jit
def _relax(system: System, network: Model, x: Layer, steps: int) -> tuple[Array, ...]:
    """Of each layer, ``(steps + 1, n, *units)``."""
    clamped = system.clamp(network, x)
    step, start = system.free_step(clamped, x), clamped.zeros(len(x))

    def body(s: States, _: None) -> tuple[States, States]:
        new = step(s)
        return new, new

    _, states = lax.scan(body, start, length=steps)
    return tuple(jnp.concatenate([s[None], on]) for s, on in zip(start, states, strict=True))


def _packed(path: Path, arrays: dict[str, np.ndarray], about: dict[str, str]) -> bytes:
    """The content of a file with that ending."""
    if path.suffix == ".safetensors":
        from safetensors.numpy import save

        return save({k: np.ascontiguousarray(v) for k, v in arrays.items()}, metadata=about)
    if path.suffix == ".npz":
        import io

        if taken := sorted({*about, "file", "allow_pickle"} & arrays.keys()):
            raise EqpropError(
                f"the parameter {taken[0]} has a name that .npz files need: export as .safetensors"
            )
        file = io.BytesIO()
        words = {name: np.asarray(text) for name, text in about.items()}
        np.savez(file, allow_pickle=False, **arrays, **words)
        return file.getvalue()
    raise EqpropError(f"{path} is neither .safetensors nor .npz: give one of these endings")
