"""Models: what settles and learns, as phases, rules, baselines and trainings see it.

``Network``, wired of connections, is one; others are energies and maps of one's own (``energy.py``)
and circuits (``resistive.py``). Nothing above this folder knows more of a model than what stands
here, but for what is about connections, increments of an edge and the shortcuts of continual rules,
and about circuits, block descent and the power that they dissipate.
"""

import abc
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from eqprop.errors import EqpropError
from eqprop.networks.connections import Connection
from eqprop.types import Array, Float, Inexact, Inputs, Layer, Rates, Shape, States


class Model(eqx.Module):
    """Abstract: layers 0 ... N of given shapes that settle, and parameters that learn.

    A model *is* its parameters, a pytree: gradients and updates are models, too. Layer 0 is the
    input, layer N the output, where ``outputs`` says no other. A ``readout`` turns what the output
    is into scores; it takes no part in the dynamics, but a nudge comes back through it.
    """

    shapes: eqx.AbstractVar[tuple[Shape, ...]]

    @property
    def readout(self) -> Connection | None:
        """What turns the output layer into scores; None: it is the scores."""
        return None

    @property
    @abc.abstractmethod
    def dtype(self) -> jnp.dtype:
        """Floating-point type of the parameters."""

    @property
    @abc.abstractmethod
    def parts(self) -> tuple[Any, ...]:
        """What has a learning rate of its own, each a pytree of parameters."""

    @property
    @abc.abstractmethod
    def part_names(self) -> tuple[str, ...]:
        """What the parts are called in a sentence."""

    @property
    @abc.abstractmethod
    def dynamic_parameters(self) -> Any:
        """The parameters that take part in the dynamics, all but those of a readout: a pytree."""

    def scale(self, factors: Float[Array, " parts"]) -> "Model":
        """The parameters of each part times its own factor."""

        def times(part: Any, factor: Float[Array, ""]) -> Any:
            return jax.tree.map(lambda leaf: leaf * factor.astype(leaf.dtype), part)

        scaled = tuple(times(part, f) for part, f in zip(self.parts, factors, strict=True))
        return eqx.tree_at(lambda model: model.parts, self, scaled)

    def with_readout(self, readout: Connection | None) -> "Model":
        """An update, with that of the readout in its place, where there is one; None: the readout
        stays as it is.
        """
        return self

    @abc.abstractmethod
    def clamp(self, r_input: Layer) -> "Model":
        """The same model with everything that the static input, ``(B, *shapes[0])``, contributes
        computed once; itself where that is nothing.
        """

    @abc.abstractmethod
    def map_drives(self, change: Callable[[Layer], Layer]) -> "Model":
        """The same clamped model with another contribution of its input: for more rows, say."""

    @abc.abstractmethod
    def drives(self, rates: Rates, layers: Sequence[int] | None = None) -> States:
        """``dPhi/dr_i`` for the layers 1 ... N, or for those named in ``layers``, in that order; of
        an energy ``-dE/ds_i``.
        """

    @abc.abstractmethod
    def statistic(self, rates: Rates, weights: Inexact[Array, " rows"], r_input: Inputs) -> "Model":
        """``sum over rows of weight dPhi/dtheta``, the real part of it; Phi is ``-E`` of an energy.

        ``rates`` may have several rows for each of ``r_input``, side by side.

        Raises ``EqpropError`` where there is no Phi.
        """

    @abc.abstractmethod
    def unclamped(self, gradient: Any, r_input: Layer, rows: int) -> "Model":
        """The gradient in the parameters of this model, from that in those of the clamped one with
        its input repeated: ``rows`` groups of a row for each of ``r_input``.
        """

    @abc.abstractmethod
    def check_analytic(self) -> None:
        """Raises ``EqpropError`` where a drive is not an analytic function of the rates."""

    @abc.abstractmethod
    def colours(self) -> tuple[tuple[int, ...], ...]:
        """Two groups of layers with no connection inside a group, for sweeps over one group after
        the other. Raises ``EqpropError`` where there are none.
        """

    def projected(self) -> "Model":
        """The same model with its parameters where they may be, as after each update."""
        return self

    @property
    def outputs(self) -> tuple[int, ...]:
        """The layers that a cost reads: the last one."""
        return (len(self.shapes) - 1,)

    @property
    def score_shape(self) -> Shape:
        """The shape of an example's scores, ``(classes,)``."""
        layers = [jax.ShapeDtypeStruct((1, *self.shapes[n]), jnp.float32) for n in self.outputs]
        read = eqx.filter_eval_shape(lambda model, s: model.read(model.output(s)), self, layers)
        return tuple(read.shape[1:])

    def output(self, layers: Sequence[Layer]) -> Layer:
        """What a cost reads, of the states of the layers ``outputs``: the one, as it is, or several
        side by side, each flattened, ``(B, units)``.
        """
        if len(layers) == 1:
            return layers[0]
        return jnp.concatenate([layer.reshape(len(layer), -1) for layer in layers], axis=1)

    def read(self, output: Layer) -> Layer:
        """The scores, ``(B, classes)``, of an output: itself, where there is no readout."""
        return output if self.readout is None else self.readout(output)

    @property
    def score_per_force(self) -> float:
        """By how much a score moves where the output moves by the force on it."""
        return 1.0

    def scores_of(self, states: States) -> Layer:
        """The scores, ``(B, classes)``, of the states of layers 1 ... N."""
        return self.read(self.output([states[n - 1] for n in self.outputs]))

    def zeros(self, batch: int) -> States:
        """The states ``s = 0`` of layers 1 ... N, where every free phase starts."""
        return tuple(jnp.zeros((batch, *shape), self.dtype) for shape in self.shapes[1:])


def check_shapes(shapes: tuple[Shape, ...]) -> None:
    """Raises ``EqpropError`` unless there are two layers at least, and every size is a positive
    integer.
    """
    if len(shapes) < 2:
        raise EqpropError(
            f"a network needs an input and an output layer, not {len(shapes)} layer(s)"
        )
    for index, shape in enumerate(shapes):
        if not shape or any(not isinstance(n, int) or n < 1 for n in shape):
            raise EqpropError(
                f"layer {index} has shape {shape}: every size must be an integer >= 1"
            )
