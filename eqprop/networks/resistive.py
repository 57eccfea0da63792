"""Resistive networks: circuits whose voltages settle where the dissipated power is least.

Kendall et al. 2020; Scellier, arXiv:2402.11674. Nodes with voltages v are joined by conductances
``g_ij >= 0``; ``E = 1/2 sum g_ij (v_i - v_j)^2`` is half the power that they dissipate, and at its
minimum the currents into each free node add up to 0, as Kirchhoff's law has it. Diodes keep half of
the hidden nodes at 0 or above, the others at 0 or below. Since a conductance cannot be negative,
each input stands twice, as ``x`` and ``-x``, and each output is the difference of two nodes.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, final, override

import equinox as eqx
import jax
import jax.numpy as jnp

from eqprop.errors import EqpropError
from eqprop.networks.connections import multiply
from eqprop.networks.model import Model, check_shapes
from eqprop.types import Array, Float, Inexact, Inputs, Layer, PRNGKeyArray, Rates, Shape, States

type Conductances = tuple[Float[Array, "_ _"], ...]
"""``(n_pre, n_post)``, between each layer and the one before it."""


@final
class Known(NamedTuple):
    """What stands still while a clamped network settles."""

    current: Layer
    """What the sources would drive into the nodes of layer 1, were these at 0: ``(B, n_1)``."""
    totals: tuple[Float[Array, " _"], ...]
    """The sum of the conductances at each node, of layers 1 ... N."""


def _sizes(shapes: tuple[Shape, ...]) -> tuple[int, ...]:
    """How many sources there are, and how many nodes in each layer."""
    first, *others = (math.prod(shape) for shape in shapes)
    return (2 * first + 2, *others)


@final
class ResistiveNetwork(Model):
    """Layers of nodes, each joined with all nodes of the next.

    ``conductances[i]`` has shape ``(n_i, n_{i+1})``; the first layer are the voltage sources,
    ``gain`` times ``(x, -x, 1, -1)``, so of twice the size of the input, and two more. The output
    layer has two nodes for each score. After each update conductances are at least ``least``.

    Raises ``EqpropError`` where conductances don't fit the layers, and for a gain or a least
    conductance that cannot be.
    """

    shapes: tuple[Shape, ...] = eqx.field(static=True)
    conductances: Conductances
    gain: float = eqx.field(static=True, default=1.0)
    least: float = eqx.field(static=True, default=0.0)
    known: Known | None = None

    def __check_init__(self) -> None:
        check_shapes(self.shapes)
        layers = self.shapes[1:]
        if any(len(shape) != 1 for shape in layers) or layers[-1][0] % 2:
            raise EqpropError(
                f"layers have shapes {layers}: give a row of nodes for each, and of the last an "
                "even number, two for each score"
            )
        if not (self.gain > 0 and math.isfinite(self.gain)):
            raise EqpropError(f"gain is {self.gain}: give the voltage of an input of 1, above 0")
        if not (self.least >= 0 and math.isfinite(self.least)):
            raise EqpropError(f"the least conductance is {self.least}: give 0 or more")
        given = [getattr(g, "shape", None) for g in self.conductances]
        if given != (wanted := list(itertools.pairwise(_sizes(self.shapes)))):
            raise EqpropError(
                f"conductances have shapes {given}, but the layers ask for {wanted}: two sources "
                "for each input and two more, then two nodes for each score"
            )

    @classmethod
    def init(
        cls,
        layers: Sequence[int],
        key: PRNGKeyArray,
        *,
        gain: float = 1.0,
        least: float = 0.0,
    ) -> "ResistiveNetwork":
        """Conductances uniform in ``least ... least + 2/(n_pre + n_post)``.

        ``layers`` are the numbers of inputs, of hidden nodes, and of scores. Raises ``EqpropError``
        where they cannot be.
        """
        *before, scores = layers
        shapes: tuple[Shape, ...] = (*((n,) for n in before), (2 * scores,))
        check_shapes(shapes)
        sizes = _sizes(shapes)
        keys = jax.random.split(key, len(sizes) - 1)

        def draw(key: PRNGKeyArray, n_pre: int, n_post: int) -> Float[Array, "n_pre n_post"]:
            top = least + 2 / (n_pre + n_post)
            return jax.random.uniform(key, (n_pre, n_post), minval=least, maxval=top)

        drawn = tuple(map(draw, keys, sizes[:-1], sizes[1:]))
        return cls(shapes, drawn, gain, least)

    @property
    @override
    def dtype(self) -> jnp.dtype:
        return self.conductances[-1].dtype

    @property
    @override
    def parts(self) -> tuple[Any, ...]:
        return self.conductances

    @property
    @override
    def part_names(self) -> tuple[str, ...]:
        return tuple(f"conductances {n}" for n in range(1, len(self.shapes)))

    @property
    @override
    def dynamic_parameters(self) -> dict[str, Any]:
        digits = len(str(len(self.conductances)))  # names in order are layers in order
        return {f"g{n:0{digits}}": g for n, g in enumerate(self.conductances, 1)}

    def _with(self, conductances: Sequence[Array]) -> "ResistiveNetwork":
        return eqx.tree_at(lambda model: model.conductances, self, tuple(conductances))

    @override
    def projected(self) -> "ResistiveNetwork":
        return self._with([jnp.maximum(g, self.least) for g in self.conductances])

    def sources(self, x: Layer) -> Layer:
        """The voltages of the sources, ``(B, 2 n + 2)``, for an input ``(B, *shapes[0])``."""
        rows = x.reshape(len(x), -1)
        ones = jnp.ones((len(x), 1), rows.dtype)
        return self.gain * jnp.concatenate([rows, -rows, ones, -ones], axis=1)

    @property
    def totals(self) -> tuple[Float[Array, " _"], ...]:
        """The sum of the conductances at each node, of layers 1 ... N."""
        if self.known is not None:
            return self.known.totals
        before = [g.sum(axis=0) for g in self.conductances]
        after = [g.sum(axis=1) for g in self.conductances[1:]]
        return (*(a + b for a, b in zip(before, after, strict=False)), before[-1])

    @override
    def clamp(self, r_input: Layer) -> "ResistiveNetwork":
        current = multiply(self.sources(r_input), self.conductances[0])
        known = Known(current, self.totals)
        return dataclasses.replace(self, known=known)

    @override
    def map_drives(self, change: Callable[[Layer], Layer]) -> "ResistiveNetwork":
        return eqx.tree_at(lambda m: m.known.current, self, replace_fn=change)

    @override
    def unclamped(self, gradient: Any, r_input: Layer, rows: int) -> "ResistiveNetwork":
        first, *others = gradient.conductances
        current, totals = gradient.known
        each = current.reshape(rows, len(r_input), -1).sum(axis=0)
        found = [first + multiply(self.sources(r_input).T, each), *others]
        found = [g + at_post[None, :] for g, at_post in zip(found, totals, strict=True)]
        after = [g + at_pre[:, None] for g, at_pre in zip(found[1:], totals, strict=False)]
        return self._with([found[0], *after])

    @property
    @override
    def score_per_force(self) -> float:
        return 2.0  # a score is the difference of two nodes, which are pushed apart

    @override
    def drives(self, rates: Rates, layers: Sequence[int] | None = None) -> States:
        """The currents into the nodes, ``sum_j g_ij (v_j - v_i)``: minus the gradient of E."""
        layers = range(1, len(self.shapes)) if layers is None else layers
        return tuple(self._from_others(rates, n) - self.totals[n - 1] * rates[n] for n in layers)

    def _from_others(self, rates: Rates, layer: int) -> Layer:
        if layer > 1:
            total = multiply(rates[layer - 1], self.conductances[layer - 1])
        elif self.known is not None:
            total = self.known.current
        else:
            total = multiply(self.sources(rates[0]), self.conductances[0])
        if layer < len(self.conductances):
            total = total + multiply(rates[layer + 1], self.conductances[layer].T)
        return total

    @override
    def statistic(
        self, rates: Rates, weights: Inexact[Array, " rows"], r_input: Inputs
    ) -> "ResistiveNetwork":
        """``-1/2 sum over rows of weight (v_i - v_j)^2``, for each conductance."""
        grouped = weights.reshape(len(r_input), -1).sum(axis=1)
        weighted = [weights[:, None] * v for v in rates[1:]]
        first = weighted[0].reshape(len(r_input), -1, weighted[0].shape[1]).sum(axis=1)
        sources = self.sources(r_input)
        ends = [(sources, first), *zip(rates[1:], weighted[1:], strict=False)]
        squares = [
            multiply(grouped, sources**2),
            *((w * v).sum(axis=0) for w, v in zip(weighted, rates[1:], strict=True)),
        ]
        return self._with(
            [
                multiply(pre.T, post) - 0.5 * squares[n][:, None] - 0.5 * squares[n + 1][None, :]
                for n, (pre, post) in enumerate(ends)
            ]
        )

    @override
    def check_analytic(self) -> None:
        raise EqpropError(
            "diodes are not analytic, as complex voltages need it for a holomorphic nudge: use a "
            "centered nudge"
        )

    @override
    def colours(self) -> tuple[tuple[int, ...], ...]:
        layers = range(1, len(self.shapes))
        return tuple(tuple(n for n in layers if n % 2 == value) for value in (0, 1))

    @override
    def read(self, output: Layer) -> Layer:
        """Each score is the difference of two nodes."""
        plus, minus = jnp.split(output, 2, axis=-1)
        return plus - minus

    def power(self, x: Layer, states: States) -> Float[Array, " B"]:
        """The power that the conductances dissipate, ``sum g_ij (v_i - v_j)^2 = 2 E``: of each
        example. In units of a voltage squared times a conductance.
        """
        volts = (self.sources(x), *states)

        def of(g: Array, pre: Layer, post: Layer) -> Array:
            at_ends = multiply(pre**2, g.sum(axis=1)) + multiply(post**2, g.sum(axis=0))
            return at_ends - 2 * (multiply(pre, g) * post).sum(axis=1)

        pairs = zip(self.conductances, volts[:-1], volts[1:], strict=True)
        return jnp.stack([of(*each) for each in pairs]).sum(axis=0)
