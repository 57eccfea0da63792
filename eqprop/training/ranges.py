"""Where states end up: the range that each layer needs, and the power that a circuit dissipates."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from eqprop.dynamics.system import System
from eqprop.networks.model import Model
from eqprop.networks.resistive import ResistiveNetwork
from eqprop.training.experiment import Experiment
from eqprop.training.mistakes import Table, blocks
from eqprop.training.trainer import Examples, fetch
from eqprop.types import Array, Layer, States


def ranges(experiment: Experiment, network: Model, examples: Examples) -> Table:
    """The lowest and the highest state of each layer at the end of a free phase, as in a test, over
    some examples; of a resistive network voltages, and the power that it dissipates.
    """
    ends: list[np.ndarray] = []
    powers: list[np.ndarray] = []
    for rows in blocks(len(examples)):
        x, _ = fetch(examples, rows, network, experiment.trainer.scaling)
        states, power = _settled(experiment.trainer.tested, network, x)
        ends.append(np.array([[layer.min(), layer.max()] for layer in states]))
        powers.append(np.asarray(power))
    low, high = np.min(ends, axis=0)[:, 0], np.max(ends, axis=0)[:, 1]
    sizes = ("x".join(map(str, shape)) for shape in network.shapes[1:])
    what = "states"
    if isinstance(network, ResistiveNetwork):
        spent = np.concatenate(powers)[: len(examples)]
        what = (
            f"power {spent.mean():.3g} on average, {spent.max():.3g} at most, in units of a "
            "voltage squared times a conductance; voltages"
        )
    return Table(
        f"{what} at the end of a free phase",
        ("layer", "units", "lowest", "highest"),
        [
            (str(n), size, f"{a:.4g}", f"{b:.4g}")
            for n, (size, a, b) in enumerate(zip(sizes, low, high, strict=True), 1)
        ],
    )


@eqx.filter_jit
def _settled(system: System, network: Model, x: Layer) -> tuple[States, Array]:
    """The states, and the power of each example."""
    states, _ = system.free(system.clamp(network, x), x)
    circuit = isinstance(network, ResistiveNetwork)
    return states, network.power(x, states) if circuit else jnp.zeros(len(x))
