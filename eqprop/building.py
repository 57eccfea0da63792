"""Building: from a recipe, which is data, to the objects that do the work."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from eqprop import learning
from eqprop.dynamics import Dynamics, EnergyBased, Prototypical, activation
from eqprop.errors import EqpropError
from eqprop.learning import Continual, Learner, Schedule, WithOptimizer
from eqprop.network import Network, chain
from eqprop.nudging import Centered, Nudge, OneSided, RandomSign, SquaredError
from eqprop.phases import System
from eqprop.recipes import Recipe
from eqprop.relaxation import FixedSteps, Relaxation, ToTolerance
from eqprop.rules import AfterPhase, Equilibrium, Increment, VectorField
from eqprop.types import PRNGKeyArray, Shape


class Built(NamedTuple):
    """What a recipe builds: the system, the learner, and the function that draws a network."""

    system: System
    learner: Learner
    init: Callable[[PRNGKeyArray], Network]


def build(recipe: Recipe, image: Shape, classes: int, batches: int) -> Built:
    """The objects of a recipe for images of a shape ``(height, width)`` and ``batches`` minibatches an epoch.

    Raises ``EqpropError`` for values that cannot be.
    """
    if recipe.dtype == "float64" and not jax.config.read("jax_enable_x64"):
        raise EqpropError("dtype is float64, but JAX computes in 32 bits: set JAX_ENABLE_X64=1")
    system = System(
        _dynamics(recipe), SquaredError(), _relaxation(recipe), recipe.K, sweeps=recipe.sweeps
    )
    shapes: tuple[Shape, ...] = ((math.prod(image),), *((n,) for n in recipe.hidden), (classes,))

    def init(key: PRNGKeyArray) -> Network:
        network = chain(shapes, key, angle=recipe.angle)
        return jax.tree.map(lambda leaf: leaf.astype(recipe.dtype), network)

    learner = _learner(recipe, batches)
    learner.init(jax.eval_shape(init, jax.random.key(0)))  # learning rates that don't match
    return Built(system, learner, init)


def _dynamics(recipe: Recipe) -> Dynamics:
    rho = activation(recipe.activation)
    if recipe.setting == "energy":
        return EnergyBased(rho, recipe.dt, recipe.clip)
    return Prototypical(rho, recipe.inside)


def _relaxation(recipe: Recipe) -> Relaxation:
    return ToTolerance(recipe.T, recipe.tolerance) if recipe.tolerance else FixedSteps(recipe.T)


def _nudge(recipe: Recipe) -> Nudge:
    match recipe.nudge:
        case "one-sided":
            return OneSided(recipe.beta)
        case "random-sign":
            return RandomSign(recipe.beta, recipe.positive)
        case "centered":
            return Centered(recipe.beta)


def _learner(recipe: Recipe, batches: int) -> Learner:
    increment: Increment = Equilibrium() if recipe.rule.endswith("ep") else VectorField()
    nudge, schedule = _nudge(recipe), _schedule(recipe, batches)
    if recipe.rule.startswith("c-"):
        return Continual(increment, nudge, recipe.lr, schedule)
    return WithOptimizer(AfterPhase(increment, nudge), recipe.lr, _optimizer(recipe), schedule)


def _optimizer(recipe: Recipe) -> optax.GradientTransformation:
    match recipe.optimizer:
        case "sgd":
            base = optax.identity()
        case "momentum":
            base = optax.trace(recipe.momentum)
        case "adam":
            base = optax.scale_by_adam()
    decay = (
        optax.add_decayed_weights(recipe.weight_decay) if recipe.weight_decay else optax.identity()
    )
    return optax.chain(base, decay)


def _schedule(recipe: Recipe, batches: int) -> Schedule:
    if recipe.schedule == "constant":
        return learning.constant
    cosine = optax.cosine_decay_schedule(1.0, recipe.epochs * batches)
    return lambda step: jnp.asarray(cosine(step))
