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

from eqprop.continual import continual_step
from eqprop.dynamics import Dynamics, EnergyBased, Prototypical, activation
from eqprop.learning import Continual, Learner, WithOptimizer
from eqprop.network import Connection, Dense, Edge, Network, Tied, Untied
from eqprop.nudging import OneSided, SquaredError
from eqprop.phases import System
from eqprop.relaxation import FixedSteps
from eqprop.rules import AfterPhase, Equilibrium, Increment, VectorField

FOLDER = Path(os.environ.get("EQPROP_VECTORS_DIR", Path(__file__).parent / "vectors"))
FILES = sorted(FOLDER.glob("*.npz"))
UNSUPPORTED = {"conv", "gdu"}
"""Kinds that the library cannot run yet."""

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
    def batch(self) -> tuple[jax.Array, jax.Array]:
        return jnp.asarray(self.arrays["x"]), jnp.asarray(self.arrays["y"])

    def connection(self, layer: int) -> Connection:
        return Dense(jnp.asarray(self.arrays[f"W{layer}"]), jnp.asarray(self.arrays[f"b{layer}"]))

    def edge(self, layer: int) -> Edge:
        if f"Wb{layer}" not in self.arrays:
            return Tied(layer - 1, layer, self.connection(layer))
        back = Dense(jnp.asarray(self.arrays[f"Wb{layer}"]))
        return Untied(layer - 1, layer, self.connection(layer), back)

    def network(self) -> Network:
        shapes = tuple(self.arrays[f"free_{n}"].shape[1:] for n in self.layers)
        edges = tuple(self.edge(n) for n in self.layers)
        return Network((self.arrays["x"].shape[1:], *shapes), edges)

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

    def compare(self, key: str, value: jax.Array) -> None:
        np.testing.assert_allclose(value, self.arrays[key], rtol=0, atol=1e-10, err_msg=key)

    def compare_parameters(self, network: Network, pattern: str) -> None:
        """``pattern`` makes a key of a parameter's name, as in ``{}_new`` or ``d{}``."""
        for layer, edge in zip(self.layers, network.edges, strict=True):
            for name, value in parameters(edge, layer).items():
                self.compare(pattern.format(name), value)


def parameters(edge: Edge, layer: int) -> dict[str, jax.Array]:
    """The parameters of an edge under their names in the files."""
    if isinstance(edge, Untied):
        ahead, back = edge.ahead, {f"Wb{layer}": edge.back.weight}
    else:
        ahead, back = edge.connection, {}
    return {f"W{layer}": ahead.weight, f"b{layer}": ahead.bias} | back


def test_the_folder_holds_vectors() -> None:
    assert FILES, f"no .npz in {FOLDER}: set EQPROP_VECTORS_DIR to a folder of reference vectors"


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def vectors(request: pytest.FixtureRequest) -> Vectors:
    vectors = Vectors(request.param)
    if vectors.text("kind") in UNSUPPORTED:
        pytest.skip(f"kind {vectors.text('kind')} is not supported yet")
    return vectors


def test_states_and_increments_at_every_step(vectors: Vectors) -> None:
    system, network, (x, y) = vectors.system(), vectors.network(), vectors.batch
    free, _ = jax.jit(lambda n: system.free(system.clamp(n, x), x))(network)
    for layer, states in zip(vectors.layers, free, strict=True):
        vectors.compare(f"free_{layer}", states)

    eta = jnp.asarray(vectors.rates if vectors.continual else np.zeros(len(vectors.rates)))
    rates = (jnp.asarray(vectors.arrays["beta"]), eta)

    def body(carry, _):
        moved, s, dtheta = continual_step(system, vectors.increment(), *carry, (x, y), rates)
        return (moved, s), (s, dtheta)

    steps = int(vectors.arrays["K"])
    phase = jax.jit(lambda n: jax.lax.scan(body, (n, free), length=steps))
    _, (nudged, dtheta) = phase(network)
    for layer, states in zip(vectors.layers, nudged, strict=True):
        vectors.compare(f"nudged_{layer}", states)
    vectors.compare_parameters(jax.tree.map(lambda leaf: leaf.sum(0), dtheta), "d{}")


def test_parameters_after_a_batch(vectors: Vectors) -> None:
    system, network, learner = vectors.system(), vectors.network(), vectors.learner()
    memory = learner.init(network)
    learn = jax.jit(lambda n: learner.learn(system, n, memory, vectors.batch, jax.random.key(0)))
    new, _, free = learn(network)
    for layer, states in zip(vectors.layers, free.states, strict=True):
        vectors.compare(f"free_{layer}", states)
    vectors.compare_parameters(new, "{}_new")
