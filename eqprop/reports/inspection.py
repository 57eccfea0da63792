"""What a report shows of the network of a run: its filters, a free phase, what its units see.

From the run's checkpoint, or else why not. Everything leaves here as NumPy arrays; nothing is
drawn.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from eqprop.data.scaling import Scaling
from eqprop.data.targets import Classes, Labels, Real, Target
from eqprop.dynamics.relaxation import iterate, largest_change
from eqprop.dynamics.system import System
from eqprop.errors import EqpropError
from eqprop.networks.model import Model
from eqprop.networks.parameter_names import named_parameters
from eqprop.reports.groups import Group
from eqprop.theorem.trained import Theorem, examine
from eqprop.training.display import Display
from eqprop.training.experiment import Experiment, precision, prepare_again
from eqprop.training.metrics import predicted
from eqprop.training.mistakes import Mistakes, find
from eqprop.training.places import newest_path
from eqprop.training.restore import load_best
from eqprop.training.results import SeedResult
from eqprop.training.run_data import scalings, target
from eqprop.training.runs import CHECKPOINTS
from eqprop.training.settled import settle
from eqprop.training.trainer import fetch
from eqprop.types import Array, Float, Int, Layer, Shape, States

_TILES = 32  # kernels, or hidden units, whose weights are shown
_CHANNELS = 16  # channels of a convolutional layer whose receptive fields are shown
_UNITS = 64  # units of a layer whose states are traced


@final
class Tiles(NamedTuple):
    """Small signed images, each with a label."""

    caption: str
    labels: list[str]
    images: Float[np.ndarray, "n rows columns"]


@final
class Trace(NamedTuple):
    """A layer in a free phase of T steps."""

    shape: Shape
    states: Float[np.ndarray, "times units"]
    """Of some units, from ``s = 0`` to step T."""
    residuals: Float[np.ndarray, " T"]
    """Largest change of any unit of the layer in each step."""
    end: np.ndarray
    """The whole layer after T steps, in its own shape."""


@final
class Relaxed(NamedTuple):
    """The free phase for one test example."""

    image: Float[np.ndarray, "rows columns"]
    """As the network gets it; of numbers that are no picture, a row."""
    label: str
    predicted: str
    marked: dict[int, str]
    """Outputs that are told apart from the others, with their names."""
    levels: tuple[float, ...]
    """What outputs should come to, where targets are real."""
    layers: list[Trace]
    outputs: bool
    """Whether the last layer is the output; else the scores are read from it."""


NO_CHECKPOINT = "no checkpoint has been kept with this run"


@final
@dataclass(frozen=True)
class Inspection:
    """A network looked into; ``missing`` says why the rest is not there."""

    origin: str = ""
    """Of which seed, and from when."""
    filters: tuple[Tiles, ...] = ()
    fields: tuple[Tiles, ...] = ()
    relaxed: Relaxed | None = None
    mistakes: Mistakes | None = None
    theorem: Theorem | None = None
    missing: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """By part, ``network`` and ``theorem``."""


def inspect(
    group: Group, example: int, theorem: bool, mistakes: bool, display: Display
) -> Inspection:
    """The network of the first seed of a group that has a checkpoint.

    Without one, Theorem 1 is measured on the network as it was before training. What cannot be had
    (a checkpoint, the data, a free phase that settles) is left out.
    """
    kept = [m for m in group.members if newest_path(m.folder / CHECKPOINTS)]
    member = (kept or group.members)[0]
    if not kept and not theorem:
        return Inspection(missing={"network": NO_CHECKPOINT})
    with precision(group.recipe):
        try:
            experiment = prepare_again(member.folder, member.record, group.recipe, display)
        except EqpropError as error:
            missing = {"network": str(error) if kept else NO_CHECKPOINT}
            return Inspection(missing=missing | ({"theorem": str(error)} if theorem else {}))
        with display.doing("looking into the network"):
            network, found = _look(experiment, member, example)
        if mistakes and found.relaxed is not None:
            with display.doing("looking at mistakes") as tell:
                test, cost = experiment.test, experiment.trainer.system.cost
                settled = settle(experiment, network, test, lambda n: tell(f"{n}/{len(test)}"))
                seen = find(member.record.data, test, settled.scores, cost)
            found = dataclasses.replace(found, mistakes=seen)
        if not theorem:
            return found
        with display.doing("verifying Theorem 1") as tell:
            try:
                measured = examine(experiment, network, member.seed, tell)
            except EqpropError as error:
                missing = {**found.missing, "theorem": str(error)}
                return dataclasses.replace(found, missing=missing)
        return dataclasses.replace(found, theorem=measured)


def _look(experiment: Experiment, member: SeedResult, example: int) -> tuple[Model, Inspection]:
    """The trained network, with what it shows; else the untrained one."""
    reason = NO_CHECKPOINT
    try:
        found = load_best(member.folder, experiment.recipe, experiment.like, member.seed)
    except EqpropError as error:
        found, reason = None, str(error)
    if found is None:
        origin = f"seed {member.seed}, before training"
        return experiment.start(member.seed).network, Inspection(
            origin, missing={"network": reason}
        )
    network = found.state.network
    epochs, minibatches = found.state.position
    within = f" and {minibatches} minibatches" if minibatches else ""
    used = member.record.data
    learnt = target(used)
    return network, Inspection(
        f"seed {member.seed}, after {epochs} epoch{'s' if epochs != 1 else ''}{within}",
        tuple(filters(network, used.image)),
        tuple(receptive_fields(experiment, network, example, learnt.names)),
        relax(experiment, network, example, learnt, scalings(used)[1]),
    )


def filters(network: Model, image: Shape) -> list[Tiles]:
    """Kernels, and the weights from all numbers of an input, an ``image`` or a row, to hidden
    units; the strongest of each.
    """
    found: list[Tiles] = []
    for name, leaf in named_parameters(network).items():
        weight = np.asarray(leaf, np.float64)
        if weight.ndim == 4:
            kind = "kernels"
            tiles = np.moveaxis(weight, (2, 3), (0, 1)).reshape(-1, *weight.shape[:2])
        # From the input alone: other dense weights are no pictures.
        elif name == "W1" and weight.shape[0] == math.prod(image):
            kind, tiles = "hidden units", np.stack([_grey(w, image) for w in weight.T])
        else:
            continue
        strongest = np.argsort(-np.linalg.norm(tiles, axis=(1, 2)), kind="stable")[:_TILES]
        labels = [_label(int(index), weight.shape) for index in strongest]
        how_many = f"all {len(tiles)}" if len(tiles) <= _TILES else f"{_TILES} of {len(tiles)}"
        caption = f"{name}: {how_many} {kind}, strongest first"
        found.append(Tiles(caption, labels, tiles[strongest]))
    return found


def relax(
    experiment: Experiment,
    network: Model,
    example: int,
    learnt: Target,
    outputs: Scaling | None = None,
) -> Relaxed:
    """T free steps for a row of the test set, as in training, but without a tolerance.

    ``outputs`` is the scaling of real targets. Of a large layer the states shown are of units
    evenly spaced in the order in which they end.
    """
    x, y = fetch(experiment.test, jnp.asarray([example]), network, experiment.trainer.scaling)
    system = experiment.trainer.system
    end = [np.asarray(layer[0]) for layer in _settle(system, network, x)]
    picks = tuple(jnp.asarray(_spread(layer.ravel())) for layer in end)
    traces, residuals = jax.device_get(_trace(system, network, x, picks))
    layers = [
        Trace(layer.shape, np.concatenate([np.zeros_like(states[:1]), states]), moved, layer)
        for layer, states, moved in zip(end, traces, residuals.T, strict=True)
    ]
    scores = network.scores_of(tuple(jnp.asarray(layer[None]) for layer in end))
    (best,) = predicted(system.cost, scores)
    said = _READINGS[type(learnt)](learnt.names, np.asarray(y[0]), np.asarray(scores[0]), int(best))
    if outputs is not None:
        values = (np.ravel(outputs.undo(np.asarray(part[0]))) for part in (y, scores))
        label, taken = (" ".join(f"{value:.4g}" for value in each) for each in values)
        said = said._replace(label=label, predicted=taken)
    if network.readout is not None:  # its scores are no states
        said = said._replace(marked={}, levels=())
    shape = experiment.test.inputs.shape[1:]
    image = _grey(np.asarray(x[0], np.float64), shape)
    return Relaxed(image, *said, layers, outputs=network.readout is None)


@final
class _Reading(NamedTuple):
    """What an example is, and what a network takes it for, as ``Relaxed`` has it."""

    label: str
    predicted: str
    marked: dict[int, str]
    levels: tuple[float, ...]


def _class(names: tuple[str, ...], y: np.ndarray, scores: np.ndarray, best: int) -> _Reading:
    label = int(y.argmax())
    marked = {best: f"{names[best]}: predicted"} | {label: f"{names[label]}: the label"}
    return _Reading(names[label], names[best], marked, ())


def _labels(names: tuple[str, ...], y: np.ndarray, scores: np.ndarray, best: int) -> _Reading:
    label, taken = (" + ".join(np.asarray(names)[part > 0.5]) or "no label" for part in (y, scores))
    return _Reading(label, taken, {n: names[n] for n in np.nonzero(y > 0.5)[0].tolist()}, ())


def _numbers(names: tuple[str, ...], y: np.ndarray, scores: np.ndarray, best: int) -> _Reading:
    return _Reading("", "", dict(enumerate(names)), tuple(y.tolist()))


_READINGS: dict[
    type[Target], Callable[[tuple[str, ...], np.ndarray, np.ndarray, int], _Reading]
] = {Classes: _class, Labels: _labels, Real: _numbers}


def receptive_fields(
    experiment: Experiment, network: Model, example: int, outputs: tuple[str, ...]
) -> list[Tiles]:
    """``ds_i / dx`` after T free steps at a row of the test set: what raises the state of a unit.

    Of all outputs, and of units amid the maps of convolutional layers beyond the first, in the most
    active channels. A field is zero where the unit is saturated. ``outputs`` are their names.
    """
    x, _ = fetch(experiment.test, jnp.asarray([example]), network, experiment.trainer.scaling)
    system, last = experiment.trainer.system, len(network.shapes) - 1
    units = network.readout is None  # else outputs have no states
    chosen = {last: jnp.arange(network.shapes[last][0])} if units else {}
    captions = dict.fromkeys(chosen, "outputs")
    end = _settle(system, network, x)
    for layer, shape in enumerate(network.shapes[2:], 2):
        if len(shape) == 3 and layer not in chosen:
            rows, columns, channels = shape
            middle = (rows // 2 * columns + columns // 2) * channels
            active = np.asarray(end[layer - 1][0]).max(axis=(0, 1))
            order = np.sort(np.argsort(-active, kind="stable")[:_CHANNELS])
            chosen[layer] = jnp.asarray(middle + order)
            captions[layer] = f"layer {layer}, units amid the maps of the most active channels"
    fields = jax.device_get(_jacobian(system, network, x, chosen)) if chosen else {}
    return [
        Tiles(
            captions[layer],
            [_unit(int(unit), network.shapes[layer], outputs) for unit in chosen[layer]],
            np.stack([_grey(field, experiment.test.inputs.shape[1:]) for field in fields[layer]]),
        )
        for layer in sorted(fields)
    ]


def _grey(values: np.ndarray, image: Shape) -> Float[np.ndarray, "rows columns"]:
    """Pixels as an image, the mean over its colours; other numbers as a row."""
    return values.reshape(*((1, *image) if len(image) == 1 else image[:2]), -1).mean(axis=-1)


def _label(index: int, shape: Shape) -> str:
    """Which kernel, or hidden unit, of a weight of that shape."""
    if len(shape) == 2:
        return f"unit {index}"
    pre, post = divmod(index, shape[3])
    return f"kernel from channel {pre} to channel {post}"


def _unit(unit: int, shape: Shape, outputs: tuple[str, ...]) -> str:
    if len(shape) > 1:
        return f"channel {unit % shape[-1]}"
    return f"output {outputs[unit] if shape == (len(outputs),) else unit}"


def _spread(values: np.ndarray) -> Int[np.ndarray, " units"]:
    order = np.argsort(values, kind="stable")
    if values.size <= _UNITS:
        return np.arange(values.size)
    return order[np.linspace(0, values.size - 1, _UNITS).round().astype(int)]


@eqx.filter_jit
def _settle(system: System, network: Model, x: Layer) -> States:
    clamped = system.clamp(network, x)
    start = clamped.zeros(x.shape[0])
    return iterate(system.free_step(clamped, x), start, system.relaxation.steps)


@eqx.filter_jit
def _trace(
    system: System, network: Model, x: Layer, picks: tuple[Int[Array, " _"], ...]
) -> tuple[tuple[Float[Array, "T _"], ...], Float[Array, "T N"]]:
    """The states of some units of each layer, and each layer's residual, after every free step."""
    clamped = system.clamp(network, x)
    step = system.free_step(clamped, x)

    def body(s: States, _: None) -> tuple[States, tuple[tuple[Array, ...], Array]]:
        new = step(s)
        moved = [largest_change((a,), (b,)) for a, b in zip(new, s, strict=True)]
        shown = tuple(layer[0].ravel()[at] for layer, at in zip(new, picks, strict=True))
        return new, (shown, jnp.stack(moved))

    return lax.scan(body, clamped.zeros(1), length=system.relaxation.steps)[1]


@eqx.filter_jit
def _jacobian(
    system: System, network: Model, x: Layer, chosen: Mapping[int, Int[Array, " _"]]
) -> dict[int, Float[Array, "_ 1 ..."]]:
    """By backpropagation through all free steps."""

    def states(x: Layer) -> dict[int, Array]:
        s = _settle(system, network, x)
        return {layer: s[layer - 1][0].ravel()[units] for layer, units in chosen.items()}

    return jax.jacrev(states)(x)
