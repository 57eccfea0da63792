"""States and updates against vectors that other programs computed (see tests/vectors/README.md).

Every ``.npz`` in the folder named by ``EQPROP_VECTORS_DIR`` is read; sizes, hyperparameters,
setting and rule come from the file.
"""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradients import trace, unroll

from eqprop.dynamics.activations import activation
from eqprop.dynamics.costs import SquaredError
from eqprop.dynamics.nudges import OneSided
from eqprop.dynamics.relaxation import FixedSteps
from eqprop.dynamics.step import Dynamics, EnergyBased, Prototypical
from eqprop.dynamics.system import System
from eqprop.learning.continual import continual_step
from eqprop.learning.increments import Equilibrium, Increment, VectorField
from eqprop.learning.learners import Continual, Learner, WithOptimizer
from eqprop.learning.rules import AfterPhase
from eqprop.networks.connections import Connection, Dense
from eqprop.networks.convolution import Conv, MaxPool
from eqprop.networks.edges import Edge, Tied, Untied
from eqprop.networks.network import Network
from eqprop.theorem.curves import Gradients, Problem, Updates

FOLDER = Path(os.environ.get("EQPROP_VECTORS_DIR", Path(__file__).parents[1] / "vectors"))
FILES = sorted(FOLDER.glob("*.npz"))
pytestmark = pytest.mark.usefixtures("x64")


class Vectors:
    """One file: its arrays, and the objects of the library that it describes."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as file:
            self.arrays = {key: file[key] for key in file.files}

    def text(self, key: str) -> str:
        return str(self.arrays[key])

    @property
    def layers(self) -> range:
        return range(1, sum(key.startswith("free_") for key in self.arrays) + 1)

    @property
    def rates(self) -> tuple[float, ...]:
        return tuple(np.atleast_1d(self.arrays["lr"]).tolist())

    @property
    def theorem(self) -> bool:
        """Whether the file holds curves of Theorem 1 rather than a batch learnt."""
        return any(key.startswith("grad_s") for key in self.arrays)

    @property
    def batch(self) -> tuple[jax.Array, jax.Array]:
        return jnp.asarray(ours(self.arrays["x"])), jnp.asarray(self.arrays["y"])

    def connection(self, layer: int) -> Connection:
        weight, bias = (jnp.asarray(self.arrays[f"{name}{layer}"]) for name in "Wb")
        if weight.ndim == 4:
            pool = MaxPool(int(self.arrays["pool"]))
            return Conv(weight.transpose(2, 3, 1, 0), bias, pool=pool)
        return Dense(weight[self.rows(layer)], bias)

    def rows(self, layer: int) -> np.ndarray:
        """Where each row of a dense weight stands in the file, whose maps flatten channels
        first.
        """
        pre = self.arrays[f"free_{layer - 1}" if layer > 1 else "x"].shape[1:]
        return ours(np.arange(np.prod(pre)).reshape(1, *pre)).ravel()

    def edge(self, layer: int) -> Edge:
        if f"Wb{layer}" not in self.arrays:
            return Tied(layer - 1, layer, self.connection(layer))
        back = Dense(jnp.asarray(self.arrays[f"Wb{layer}"]))
        return Untied(layer - 1, layer, self.connection(layer), back)

    def network(self) -> Network:
        layers = [self.arrays["x"], *(self.arrays[f"free_{n}"] for n in self.layers)]
        shapes = tuple(ours(layer).shape[1:] for layer in layers)
        return Network(shapes, tuple(self.edge(n) for n in self.layers))

    def dynamics(self) -> Dynamics:
        rho = activation(self.text("activation"))
        if self.text("setting").startswith("energy"):
            return EnergyBased(rho, float(self.arrays["dt"]))
        return Prototypical(rho, inside=self.text("nudge") == "inside")

    def system(self) -> System:
        relaxation = FixedSteps(int(self.arrays["T"]))
        return System(self.dynamics(), SquaredError(), relaxation, int(self.arrays["K"]))

    @property
    def continual(self) -> bool:
        return self.text("rule").startswith("c-")

    def increment(self) -> Increment:
        return VectorField() if self.text("rule").endswith("vf") else Equilibrium()

    def learner(self) -> Learner:
        nudge = OneSided(float(self.arrays["beta"]))
        if self.continual:
            return Continual(self.increment(), nudge, self.rates)
        return WithOptimizer(AfterPhase(self.increment(), nudge), self.rates, optax.identity())

    def compare(self, key: str, value: jax.Array | np.ndarray) -> None:
        np.testing.assert_allclose(value, self.arrays[key], rtol=0, atol=1e-10, err_msg=key)

    def compare_states(self, pattern: str, states: tuple[jax.Array, ...]) -> None:
        """``pattern`` makes a key of a layer's number, as in ``free_{}``."""
        for layer, values in zip(self.layers, states, strict=True):
            self.compare(pattern.format(layer), theirs(values))

    def compare_parameters(self, network: Network, pattern: str) -> None:
        """``pattern`` makes a key of a parameter's name, as in ``{}_new`` or ``d{}``.

        Parameters may have a leading axis of time. Those that the file does not hold are passed
        over.
        """
        for layer, edge in zip(self.layers, network.edges, strict=True):
            for name, value in parameters(edge, layer).items():
                if value is not None and pattern.format(name) in self.arrays:
                    self.compare(pattern.format(name), self.restore(name, layer, value))

    def restore(self, name: str, layer: int, value: jax.Array) -> np.ndarray:
        """A parameter as the file orders it."""
        if name.startswith("b"):
            return np.asarray(value)
        if self.arrays[f"W{layer}"].ndim == 4:
            return np.moveaxis(np.asarray(value), (-4, -3, -2, -1), (-2, -1, -3, -4))
        return np.asarray(value)[..., np.argsort(self.rows(layer)), :]


def ours(layer: np.ndarray) -> np.ndarray:
    """Maps ``(..., channels, height, width)`` of the files with channels last, as the library has
    them.
    """
    return np.moveaxis(layer, -3, -1) if layer.ndim == 4 else layer


def theirs(layer: jax.Array) -> np.ndarray:
    """Maps of the library, ``(..., height, width, channels)``, with the channels where the files
    have them.
    """
    return np.moveaxis(layer, -1, -3) if layer.ndim >= 4 else np.asarray(layer)


def parameters(edge: Edge, layer: int) -> dict[str, jax.Array | None]:
    """The parameters of an edge under their names in the files."""
    if isinstance(edge, Untied):
        ahead, back = edge.ahead, {f"Wb{layer}": edge.back.weight}
    else:
        ahead, back = edge.connection, {}
    return {f"W{layer}": ahead.weight, f"b{layer}": ahead.bias} | back


def test_the_folder_holds_vectors() -> None:
    assert FILES, f"no .npz in {FOLDER}: set EQPROP_VECTORS_DIR to a folder of reference vectors"


def is_theorem(path: Path) -> bool:
    return Vectors(path).theorem


def by_file(files: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", files, ids=lambda path: path.stem)


@by_file([path for path in FILES if not is_theorem(path)])
def test_states_and_increments_at_every_step(path: Path) -> None:
    vectors = Vectors(path)
    system, network, (x, y) = vectors.system(), vectors.network(), vectors.batch
    free, _ = jax.jit(lambda n: system.free(system.clamp(n, x), x))(network)
    vectors.compare_states("free_{}", free)

    eta = jnp.asarray(vectors.rates if vectors.continual else np.zeros(len(vectors.rates)))
    rates = (jnp.asarray(vectors.arrays["beta"]), eta)

    def body(carry, _):
        moved, s, dtheta = continual_step(system, vectors.increment(), *carry, (x, y), rates)
        return (moved, s), (s, dtheta)

    steps = int(vectors.arrays["K"])
    phase = jax.jit(lambda n: jax.lax.scan(body, (n, free), length=steps))
    _, (nudged, dtheta) = phase(network)
    vectors.compare_states("nudged_{}", nudged)
    vectors.compare_parameters(jax.tree.map(lambda leaf: leaf.sum(0), dtheta), "d{}")


@by_file([path for path in FILES if not is_theorem(path)])
def test_parameters_after_a_batch(path: Path) -> None:
    vectors = Vectors(path)
    system, network, learner = vectors.system(), vectors.network(), vectors.learner()
    memory = learner.init(network)
    learn = jax.jit(lambda n: learner.learn(system, n, memory, vectors.batch, jax.random.key(0)))
    new, _, free = learn(network)
    vectors.compare_states("free_{}", free.states)
    vectors.compare_parameters(new, "{}_new")


@by_file([path for path in FILES if is_theorem(path)])
def test_curves_of_the_theorem(path: Path) -> None:
    """D and grad at every step; states as batch means, weights for t = 1 ... K-1."""
    vectors = Vectors(path)
    system, steps = vectors.system(), int(vectors.arrays["K"])
    problem = Problem(system, vectors.network(), vectors.batch)
    eta = jnp.asarray(vectors.rates if vectors.continual else np.zeros(len(vectors.rates)))
    stencil = OneSided(float(vectors.arrays["beta"])).stencil(jax.random.key(0))

    @jax.jit
    def curves(problem: Problem):
        window = unroll(system, problem.network, problem.batch[0], steps)
        updates = Updates(problem, vectors.increment(), window.last, stencil, eta)
        return window.last, trace(updates, steps), trace(Gradients(problem, window), steps)

    free, updates, ascents = curves(problem)
    vectors.compare_states("free_{}", free)
    gradients = jax.tree.map(jnp.negative, ascents)
    for name, changes in (("D", updates), ("grad", gradients)):
        means = tuple(
            mute(curve.mean(1), len(free) - n) for n, curve in enumerate(changes.states, 1)
        )
        vectors.compare_states(name + "_s{}", means)
        late = jax.tree.map(lambda leaf: leaf[1:], changes.network)
        vectors.compare_parameters(late, name + "_{}")


def mute(curve: jax.Array, steps: int) -> jax.Array:
    """The files hold zeros where nothing can have arrived yet; so do we, but for the free drift."""
    assert float(jnp.max(jnp.abs(curve[:steps]), initial=0)) < 1e-6
    return curve.at[:steps].set(0)
