"""Building: from a recipe, which is data, to the objects that do the work."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple, final

import jax
import jax.numpy as jnp
import optax

from eqprop.data.augmentation import Augmentation, Erase, Flip, Shift, Warp
from eqprop.devices.feedback import with_copies
from eqprop.devices.neurons import ImperfectNeurons
from eqprop.devices.reading import ImperfectReading
from eqprop.devices.synapses import pulsed
from eqprop.dynamics.activations import activation
from eqprop.dynamics.altered import RoundedStates
from eqprop.dynamics.anderson import Anderson
from eqprop.dynamics.costs import CrossEntropy, SquaredError
from eqprop.dynamics.dropout import Dropout
from eqprop.dynamics.nudges import Centered, Holomorphic, MixedSign, Nudge, OneSided, RandomSign
from eqprop.dynamics.relaxation import FixedSteps, Relaxation, ToTolerance
from eqprop.dynamics.step import (
    BlockDescent,
    Dynamics,
    EnergyBased,
    Prototypical,
    dynamics_of,
)
from eqprop.dynamics.system import System
from eqprop.errors import EqpropError
from eqprop.learning.asymmetric import AsymmetricEP, ContinualAsymmetricEP
from eqprop.learning.baselines import BPTT, RecurrentBackprop
from eqprop.learning.increments import Equilibrium, Increment, VectorField
from eqprop.learning.learners import (
    Continual,
    Learner,
    Schedule,
    WithOptimizer,
    constant,
    writing_key,
)
from eqprop.learning.rules import AfterPhase, Rule
from eqprop.learning.writing import Writing
from eqprop.networks.connections import Connection, Dense, Lateral, multiply_in_half
from eqprop.networks.convolution import (
    AveragePool,
    MaxPool,
    NoPool,
    Pool,
    conv,
    conv_shape,
    shortcut,
)
from eqprop.networks.energy import Own
from eqprop.networks.graphs import Build, Link, graph, in_a_row
from eqprop.networks.model import Model
from eqprop.networks.network import Network
from eqprop.networks.normalisation import Normalised
from eqprop.networks.parameter_names import learning
from eqprop.networks.resistive import ResistiveNetwork
from eqprop.recipes.recipe import Recipe
from eqprop.types import PRNGKeyArray, Shape


@final
class Built(NamedTuple):
    """What a recipe builds: the system, the learner, the function that draws a network, how
    training images are altered, and what is silenced.
    """

    system: System
    learner: Learner
    init: Callable[[PRNGKeyArray], Model]
    augmentations: tuple[Augmentation, ...]
    dropout: Dropout


def build(
    recipe: Recipe,
    image: Shape,
    outputs: int,
    batches: int,
    *,
    real: bool = False,
    own: Own | None = None,
) -> Built:
    """The objects of a recipe, for inputs of a shape, ``(height, width)`` or
    ``(height, width, channels)`` where there are convolutions, that many outputs, of ``real``
    numbers or of scores, and ``batches`` minibatches an epoch. ``own`` is the model that the recipe
    names, if it names one: that has the layers.

    Raises ``EqpropError`` for values that cannot be.
    """
    if recipe.dtype == "float64" and not jax.config.read("jax_enable_x64"):
        raise EqpropError("dtype is float64, but JAX computes in 32 bits: set JAX_ENABLE_X64=1")
    linear = recipe.output == "linear" or (real and recipe.output == "auto")
    if linear:
        recipe.check_converter()
    _check_own(recipe, own)
    chip = jax.random.key(recipe.device.chip)
    exact = _dynamics(recipe, linear=linear) if own is None else dynamics_of(own)
    computes = recipe.device.computes
    system = System(
        ImperfectNeurons(exact, recipe.device, chip) if computes else exact,
        SquaredError() if recipe.cost == "squared-error" else CrossEntropy(),
        _relaxation(recipe),
        recipe.K,
        sweeps=recipe.sweeps,
        nudged_sweeps=recipe.nudged_sweeps,
        hold=recipe.hold,
        reading=ImperfectReading(recipe.device, chip) if recipe.device.reads else None,
    )
    draw = _drawn(recipe, image, outputs) if own is None else own.init

    def ideal(key: PRNGKeyArray) -> Model:
        return jax.tree.map(lambda leaf: leaf.astype(recipe.dtype), draw(key))

    network = jax.eval_shape(ideal, jax.random.key(0))
    if own is not None and len(recipe.lr) == 1:
        recipe = dataclasses.replace(recipe, lr=recipe.lr * len(network.parts))
    writing = None
    if recipe.device.writes:
        writing = pulsed(recipe.device, network, non_negative=recipe.setting == "resistive")
    learner = _learner(recipe, batches, writing)

    def init(key: PRNGKeyArray) -> Model:
        drawn = ideal(key)
        return drawn if writing is None else writing.program(drawn, writing_key(key))

    jax.eval_shape(learner.init, network)  # learning rates that don't match
    system.check_sweeps(network)
    if recipe.nudge == "holomorphic" and recipe.rule in {"ep", "vf", "aep"}:
        system.check_analytic(network)
    dropout = Dropout(recipe.dropout, recipe.input_dropout)
    return Built(system, learner, init, _augmentations(recipe), dropout)


def _drawn(recipe: Recipe, image: Shape, outputs: int) -> Callable[[PRNGKeyArray], Model]:
    """What draws the network of a recipe."""
    if recipe.setting == "resistive":
        layers = (math.prod(image), *recipe.hidden, outputs)
        limits = {"gain": recipe.gain, "least": recipe.least}
        return functools.partial(ResistiveNetwork.init, layers, **limits)
    shapes, links = _layers(recipe, image, outputs)
    read: Build | None = None
    if recipe.cost == "cross-entropy":
        shapes, links, read = _read_out(shapes, links)

    def draw(key: PRNGKeyArray) -> Network:
        network = graph(shapes, links, key, angle=recipe.angle, feedback=recipe.feedback)
        if recipe.device.feedback_spread:
            network = with_copies(network, recipe.device)
        if read is None:
            return network
        readout = read(network.shapes[-1], (outputs,), jax.random.fold_in(key, len(links)))
        return Network(network.shapes, network.edges, readout)

    return draw


def _check_own(recipe: Recipe, own: Own | None) -> None:
    """Raises ``EqpropError`` unless it is the model of the recipe, and fits the rest of it."""
    name = "" if own is None else own.name
    if recipe.model and own is None:
        raise EqpropError(
            f"{recipe.model} is an energy or a map of one's own, and a run keeps no program: give "
            "it again, in Python, to ep.fit, or as ep.open_run(folder, model=...)"
        )
    if recipe.model != name:
        wanted = recipe.model or "no model of one's own"
        raise EqpropError(f"the model is {name}, but the recipe is of {wanted}: give that")
    # Older records do not tell dt.
    if own and ", dt " in recipe.about and recipe.about != own.about:
        raise EqpropError(f"{name} is {own.about}, but what was trained {recipe.about}: give that")
    if name and recipe.cost != "squared-error":
        raise EqpropError(
            f"cost {recipe.cost} reads out a network, and {name} is none: use squared-error"
        )
    untied = recipe.angle is not None or recipe.feedback != "trained"
    if name and (untied or recipe.states != "full"):
        raise EqpropError(
            f"{name} has no feedback weights, and its states are not rounded: leave angle, "
            "feedback and states out"
        )


def _augmentations(recipe: Recipe) -> tuple[Augmentation, ...]:
    # Each draws by its place among them, so new ones come last.
    wanted = (
        (recipe.shift, Shift(recipe.shift)),
        (recipe.flip, Flip()),
        (recipe.warps, Warp(recipe.rotate, recipe.zoom, recipe.elastic)),
        (recipe.erase, Erase(recipe.erase)),
    )
    return tuple(augmentation for is_wanted, augmentation in wanted if is_wanted)


def _layers(recipe: Recipe, image: Shape, outputs: int) -> tuple[list[Shape], list[Link]]:
    """The shapes of all layers, and the connections between them: those of the chain first."""
    shapes: list[Shape] = [(math.prod(image),)]
    if recipe.channels:
        if len(image) not in (2, 3):
            raise EqpropError(
                f"convolutions need images, (height, width) or (height, width, channels), but "
                f"inputs have shape {image}: use a recipe without --channels"
            )
        shapes = [image if len(image) == 3 else (*image, 1)]
    layers = len(recipe.channels)
    paddings, windows = (
        values * layers if len(values) == 1 else values
        for values in (recipe.padding, recipe.window)
    )
    builds: list[Build] = []
    for n, padding, window in zip(recipe.channels, paddings, windows, strict=True):
        pool = _pool(recipe, window)
        shapes.append(conv_shape(shapes[-1], n, recipe.kernel, 1, padding, pool))
        builds.append(conv(recipe.kernel, 1, padding, pool))
    dense = [(n,) for n in (*recipe.hidden, outputs)]
    links = [
        *in_a_row([*builds, *[Dense.init] * len(dense)]),
        *((pre, post, shortcut) for pre, post in recipe.skips),
        *((layer, layer, Lateral.init) for layer in recipe.lateral),
    ]
    return [*shapes, *dense], [(i, j, _finished(recipe, i, build)) for i, j, build in links]


def _finished(recipe: Recipe, layer: int, build: Build) -> Build:
    """Makes what ``build`` does, with what the recipe says of all connections, or of those from the
    input, layer 0.
    """

    def made(pre: Shape, post: Shape, key: PRNGKeyArray) -> Connection:
        connection = build(pre, post, key)
        if recipe.states == "bfloat16":
            connection = connection.with_product(multiply_in_half)
        if layer == 0 and not recipe.train_input_bias:
            connection = connection.fix_bias()
        if layer == 0 and (recipe.mean or recipe.std):
            connection = Normalised(connection, recipe.mean, recipe.std)
        return connection

    return made


def _read_out(shapes: list[Shape], links: list[Link]) -> tuple[list[Shape], list[Link], Build]:
    """Layers and links without the output layer, and the connection into it, a readout now."""
    output = len(shapes) - 1
    inner = [link for link in links if output not in link[:2]]
    outer = [link for link in links if output in link[:2]]
    if [link[:2] for link in outer] != [(output - 1, output)]:
        raise EqpropError(
            f"layer {output} is a readout with cost cross-entropy, and no part of the dynamics: "
            "it cannot have skips or lateral connections"
        )
    return shapes[:-1], inner, outer[0][2]


def _pool(recipe: Recipe, window: int) -> Pool:
    if recipe.pool == "none" or window <= 1:
        return NoPool()
    return MaxPool(window) if recipe.pool == "max" else AveragePool(window)


def _dynamics(recipe: Recipe, *, linear: bool) -> Dynamics:
    if recipe.setting == "resistive":
        return BlockDescent()
    rho = activation(recipe.activation)
    exact = (
        EnergyBased(
            rho, recipe.dt, recipe.clip, recipe.raw_input, recipe.output_slope, linear_output=linear
        )
        if recipe.setting == "energy"
        else Prototypical(rho, recipe.inside, recipe.output_slope, linear_output=linear)
    )
    return RoundedStates(exact) if recipe.states == "bfloat16" else exact


def _relaxation(recipe: Recipe) -> Relaxation:
    match recipe.relaxation:
        case "anderson":
            return Anderson(recipe.T, recipe.tolerance)
        case "steps" if recipe.tolerance:
            return ToTolerance(recipe.T, recipe.tolerance)
        case "steps":
            return FixedSteps(recipe.T)


def nudge(recipe: Recipe) -> Nudge:
    """How a recipe nudges the output."""
    match recipe.nudge:
        case "one-sided" | "positive":
            return OneSided(recipe.beta)
        case "negative":
            return OneSided(-recipe.beta)
        case "random-sign":
            return RandomSign(recipe.beta, recipe.positive)
        case "mixed-sign":
            return MixedSign(recipe.beta)
        case "centered":
            return Centered(recipe.beta)
        case "holomorphic":
            return Holomorphic(recipe.beta, recipe.points)


def increment(recipe: Recipe) -> Increment:
    """What the synapses of a recipe add up. Raises ``EqpropError`` where its rule has none."""
    match recipe.rule:
        case "ep" | "c-ep":
            return Equilibrium()
        case "vf" | "c-vf":
            return VectorField()
        case "bptt" | "rbp" | "aep" | "c-aep":
            raise EqpropError(
                f"rule {recipe.rule} has no nudged phase whose steps synapses add up: choose ep, "
                "c-ep, vf or c-vf"
            )


def nudged_rule(recipe: Recipe) -> Increment | AsymmetricEP:
    """What a verification compares with BPTT. Raises ``EqpropError`` for a rule without a nudged
    phase.
    """
    return AsymmetricEP(nudge(recipe)) if recipe.is_asymmetric else increment(recipe)


def _rule(recipe: Recipe) -> Rule:
    match recipe.rule:
        case "bptt":
            return BPTT()
        case "rbp":
            return RecurrentBackprop()
        case "aep":
            return AsymmetricEP(nudge(recipe))
        case _:
            return AfterPhase(increment(recipe), nudge(recipe))


def _learner(recipe: Recipe, batches: int, writing: Writing | None) -> Learner:
    schedule = _schedule(recipe, batches)
    if recipe.rule == "c-aep":
        return ContinualAsymmetricEP(nudge(recipe), recipe.lr, schedule, writing=writing)
    if recipe.is_continual:
        return Continual(increment(recipe), nudge(recipe), recipe.lr, schedule, writing=writing)
    return WithOptimizer(_rule(recipe), recipe.lr, _optimizer(recipe), schedule, writing=writing)


def _optimizer(recipe: Recipe) -> optax.GradientTransformation:
    match recipe.optimizer:
        case "sgd":
            base = optax.identity()
        case "momentum":
            base = optax.trace(recipe.momentum)
        case "adam":
            base = optax.scale_by_adam()
    decay = optax.identity()
    if recipe.weight_decay:
        decay = optax.add_decayed_weights(recipe.weight_decay, mask=learning)
    return optax.chain(base, decay)


def _schedule(recipe: Recipe, batches: int) -> Schedule:
    if recipe.schedule == "constant":
        return constant
    cosine = optax.cosine_decay_schedule(1.0, recipe.epochs * batches)
    return lambda step: jnp.asarray(cosine(step))
