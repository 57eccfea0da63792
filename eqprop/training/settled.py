"""Examples settled as in a test: what comes out, and where states end up."""

from collections.abc import Callable
from typing import NamedTuple, final

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from eqprop.dynamics.system import System
from eqprop.networks.model import Model
from eqprop.networks.resistive import ResistiveNetwork
from eqprop.training.experiment import Experiment
from eqprop.training.mistakes import Table
from eqprop.training.trainer import ROWS, Examples, fetch
from eqprop.types import Array, Float, Int, Layer


@final
class Outcome(NamedTuple):
    """What free phases of n examples ended in."""

    scores: Float[np.ndarray, "n outputs"]
    lowest: Float[np.ndarray, " layers"]
    """The lowest state of each layer, over its units and the examples."""
    highest: Float[np.ndarray, " layers"]
    power: Float[np.ndarray, " n"] | None
    """What a resistive network dissipates, in units of a voltage squared times a conductance."""


def settle(
    experiment: Experiment,
    network: Model,
    examples: Examples,
    tell: Callable[[int], None] = lambda _: None,
) -> Outcome:
    """The free phases of examples of the data of a run, as in a test.

    ``tell`` is told, now and then, how many are done.
    """

    def inputs(rows: Int[np.ndarray, " rows"]) -> Layer:
        return fetch(examples, jnp.asarray(rows), network, experiment.trainer.scaling)[0]

    return settle_rows(experiment.trainer.tested, network, inputs, len(examples), tell=tell)


def settle_rows(
    system: System,
    network: Model,
    inputs: Callable[[Int[np.ndarray, " rows"]], Layer],
    n: int,
    *,
    block: int | None = None,
    tell: Callable[[int], None] = lambda _: None,
) -> Outcome:
    """The free phases of n examples: ``inputs`` gives the scaled inputs of those of some numbers.

    ``block`` of them settle together, ``ROWS`` or all n where it is None. The last block is filled
    up with the last example, so that one program serves all.
    """
    parts, block = [], block or min(ROWS, n)
    for start in range(0, n, block):
        tell(start)
        x = inputs(np.minimum(np.arange(start, start + block), n - 1))
        parts.append(_settle(system, network, x))
    scores, lows, highs, powers = zip(*parts, strict=True)
    power = np.concatenate(powers)[:n] if isinstance(network, ResistiveNetwork) else None
    return Outcome(np.concatenate(scores)[:n], np.min(lows, axis=0), np.max(highs, axis=0), power)


def ranges(network: Model, found: Outcome) -> Table:
    """The lowest and the highest state of each layer; of a resistive network voltages, and the
    power that it dissipates.
    """
    sizes = ("x".join(map(str, shape)) for shape in network.shapes[1:])
    what = "states"
    if found.power is not None:
        what = (
            f"power {found.power.mean():.3g} on average, {found.power.max():.3g} at most, in "
            "units of a voltage squared times a conductance; voltages"
        )
    rows = enumerate(zip(sizes, found.lowest, found.highest, strict=True), 1)
    return Table(
        f"{what} at the end of a free phase",
        ("layer", "units", "lowest", "highest"),
        [(str(n), size, f"{low:.4g}", f"{high:.4g}") for n, (size, low, high) in rows],
    )


@eqx.filter_jit
def _settle(system: System, network: Model, x: Layer) -> tuple[Array, Array, Array, Array]:
    """Scores, the lowest and the highest state of each layer, and the power of each example."""
    states, _ = system.free(system.clamp(network, x), x)
    low, high = (jnp.stack([end(s) for s in states]) for end in (jnp.min, jnp.max))
    circuit = isinstance(network, ResistiveNetwork)
    power = network.power(x, states) if circuit else jnp.zeros(len(x))
    return network.scores_of(states), low, high, power
