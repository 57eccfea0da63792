"""Networks: layers of units and a graph of connections between them.

A connection is one function, ``drive = connection(r_pre)``. Everything else follows from
``Phi = sum over edges of r_post . connection(r_pre)``: feedback is its vector-Jacobian product in
``r_pre``, the local weight statistic ``dPhi/dtheta`` its vector-Jacobian product in the parameters.
A network *is* its parameters (a pytree), so gradients and updates are networks too.
"""

from collections.abc import Callable, Sequence
from typing import Any, final, override

import equinox as eqx
import jax
import jax.numpy as jnp

from eqprop.errors import EqpropError
from eqprop.networks.connections import Connection
from eqprop.networks.edges import INPUT, Clamped, Edge, OneWay, Plastic
from eqprop.networks.model import Model, check_shapes
from eqprop.types import Array, Float, Inexact, Inputs, Layer, Rates, Shape, States


@final
class Network(Model):
    """Layers 0 ... N of the given shapes and the edges between them; layer 0 is the input, N the
    output.

    Any graph will do: skip edges ``(0, 2)``, lateral edges ``(1, 1)``. A ``readout`` turns what the
    output layer is into scores of classes; it takes no part in the dynamics, but a nudge comes back
    through it (arXiv:2006.03824). Raises ``EqpropError`` when an edge names a layer that is not
    there, when a drive does not fit the layer that receives it, or when a layer receives nothing.
    """

    shapes: tuple[Shape, ...] = eqx.field(static=True)
    edges: tuple[Edge, ...]
    readout: Connection | None = None  # pyright: ignore[reportIncompatibleVariableOverride,reportIncompatibleMethodOverride]

    def __check_init__(self) -> None:
        check_shapes(self.shapes)
        for edge in self.edges:
            _check_edge(edge, self.shapes)
        back = (edge.pre for edge in self.edges if not isinstance(edge, OneWay))
        receives = {edge.post for edge in self.edges}.union(back)
        if silent := set(range(1, len(self.shapes))) - receives:
            raise EqpropError(f"layer {min(silent)} has no connection: add an edge to it")
        if self.readout is not None and len(self.score_shape) != 1:
            raise EqpropError(
                f"scores have shape {self.score_shape}: give a readout that makes a row of them "
                "for each example, such as a dense one"
            )

    @property
    def plastic(self) -> tuple[Plastic, ...]:
        """The edges, all of which have parameters that learn.

        Raises ``EqpropError`` where one has none, as in a clamped network.
        """
        plastic = tuple(edge for edge in self.edges if isinstance(edge, Plastic))
        if len(plastic) < len(self.edges):
            raise EqpropError(
                "this network is clamped, and a clamped drive has no parameters: learn from the "
                "network that it was made of"
            )
        return plastic

    @property
    @override
    def parts(self) -> tuple[Edge | Connection, ...]:
        """What has a learning rate of its own: the edges, and after them the readout."""
        return self.edges if self.readout is None else (*self.edges, self.readout)

    @property
    @override
    def part_names(self) -> tuple[str, ...]:
        edges = tuple(f"from layer {e.pre} to layer {e.post}" for e in self.edges)
        return edges if self.readout is None else (*edges, "of the readout")

    @property
    @override
    def dynamic_parameters(self) -> tuple[Edge, ...]:
        return self.edges

    @property
    @override
    def dtype(self) -> jnp.dtype:
        return jnp.result_type(*jax.tree.leaves(self.edges))

    def replace_edges(self, edges: Sequence[Edge]) -> "Network":
        """The same layers with other edges."""
        return eqx.tree_at(lambda n: n.edges, self, tuple(edges))

    def update(self, edges: Sequence[Plastic], readout: Connection | None = None) -> "Network":
        """An update of this network's parameters: that of each edge, and that of its readout (None:
        the readout stays as it is).
        """
        same = jax.tree.map(jnp.zeros_like, self.readout) if readout is None else readout
        network = self.replace_edges(edges)
        # None where there is no readout: no leaf to replace.
        return network if self.readout is None else eqx.tree_at(lambda n: n.readout, network, same)

    @override
    def with_readout(self, readout: Connection | None) -> "Network":
        return self.update(self.plastic, readout)

    @override
    def statistic(
        self, rates: Rates, weights: Inexact[Array, " rows"], r_input: Inputs
    ) -> "Network":
        batch = len(r_input)

        def of_edge(edge: Plastic) -> Plastic:
            post = jax.vmap(jnp.multiply)(rates[edge.post], weights)
            if edge.from_input:
                total = post.reshape(batch, -1, *post.shape[1:]).sum(axis=1)
                return edge.statistic(r_input, total.real)
            edge.check_reciprocal()
            # Of complex rates it is the real part, since the parameters are real.
            return edge.statistic(rates[edge.pre], post)

        return self.update([of_edge(edge) for edge in self.plastic])

    @override
    def unclamped(self, gradient: "Network", r_input: Layer, rows: int) -> "Network":
        def of_edge(edge: Plastic, by_edge: Any) -> Any:
            if not edge.from_input:
                _, pull = jax.vjp(lambda e: e.prepared(self.shapes[e.pre]), edge)
                return pull(by_edge)[0]
            (drive,) = jax.tree.leaves(by_edge)  # all that a clamped edge has
            each = drive.reshape(rows, len(r_input), *drive.shape[1:])
            return edge.statistic(r_input, each.sum(axis=0))

        pairs = zip(self.plastic, gradient.edges, strict=True)
        return self.update([of_edge(*pair) for pair in pairs])

    @override
    def clamp(self, r_input: Layer) -> "Network":
        """The same network with the drives of its static input, ``(B, *shapes[0])``, computed
        once, and its other connections prepared for many steps.
        """

        def of_edge(edge: Edge) -> Edge:
            if edge.from_input:
                return Clamped(INPUT, edge.post, edge.forward(r_input))
            return edge.prepared(self.shapes[edge.pre]) if isinstance(edge, Plastic) else edge

        return self.replace_edges([of_edge(edge) for edge in self.edges])

    @override
    def map_drives(self, change: Callable[[Layer], Layer]) -> "Network":
        return self.replace_edges(
            [jax.tree.map(change, e) if e.from_input else e for e in self.edges]
        )

    @override
    def drives(self, rates: Rates, layers: Sequence[int] | None = None) -> States:
        """``dPhi/dr_i``, as of any model: what the edges send, summed."""
        layers = range(1, len(self.shapes)) if layers is None else layers
        total: dict[int, Layer] = {}

        def add(layer: int, drive: Layer) -> None:
            total[layer] = total[layer] + drive if layer in total else drive

        for edge in self.edges:
            if edge.post in layers:
                add(edge.post, edge.forward(rates[edge.pre]))
            if edge.pre in layers:
                add(edge.pre, edge.feedback(rates[edge.pre], rates[edge.post]))
        return tuple(total[layer] for layer in layers)

    def phi(self, rates: Rates) -> Float[Array, ""]:
        """``Phi = sum over edges of r_post . connection(r_pre)``, summed over the batch (tied
        edges).
        """
        terms = [jnp.sum(rates[e.post] * e.forward(rates[e.pre])) for e in self.edges]
        return jnp.sum(jnp.stack(terms))

    @override
    def check_analytic(self) -> None:
        def is_connection(node: object) -> bool:
            return isinstance(node, Connection)

        for edge in self.edges:
            parts = jax.tree.leaves(edge, is_leaf=is_connection)
            if not all(part.analytic for part in parts if is_connection(part)):
                raise EqpropError(
                    f"the edge {edge.pre}->{edge.post} is not analytic, as complex states need it "
                    "for a holomorphic nudge: take average pooling instead of max-pooling, or a "
                    "centered nudge"
                )

    @override
    def colours(self) -> tuple[tuple[int, ...], ...]:
        """In a chain the even layers come first: then both halves of a sweep take the drives of the
        odd layers' present states, and compute them once.

        Raises ``EqpropError`` where the connection graph has an odd cycle.
        """
        colour: dict[int, int] = {}

        def visit(layer: int, value: int) -> None:
            if layer in colour:
                if colour[layer] != value:
                    raise EqpropError(
                        f"layers cannot be swept in two groups: layer {layer} lies on an odd cycle "
                        "of connections; use synchronous steps (no sweeps, no nudged sweeps)"
                    )
                return
            colour[layer] = value
            for edge in self.edges:
                if not edge.from_input and layer in (edge.pre, edge.post):
                    visit(edge.post if edge.pre == layer else edge.pre, 1 - value)

        for layer in range(1, len(self.shapes)):
            if layer not in colour:
                visit(layer, layer % 2)
        return tuple(tuple(n for n in sorted(colour) if colour[n] == value) for value in (0, 1))


def _check_edge(edge: Edge, shapes: tuple[Shape, ...]) -> None:
    name = f"the edge {edge.pre}->{edge.post}"
    last = len(shapes) - 1
    if not (0 <= edge.pre <= last and 1 <= edge.post <= last):
        raise EqpropError(f"{name} names a layer that is not there: layers run from 0 to {last}")

    def check(drive: Callable[..., Layer], source: int, driven: int, *rates: Any) -> Any:
        try:
            made = eqx.filter_eval_shape(drive, edge, *rates)
        except EqpropError:
            raise
        except (TypeError, ValueError) as error:
            raise EqpropError(
                f"{name} does not accept layer {source} of shape {shapes[source]}: {error}"
            ) from error
        if made.shape[1:] != shapes[driven]:
            raise EqpropError(
                f"{name} drives units of shape {made.shape[1:]}, but layer {driven} has shape "
                f"{shapes[driven]}"
            )
        return made

    r_pre = jax.ShapeDtypeStruct((1, *shapes[edge.pre]), jnp.float32)
    r_post = check(type(edge).forward, edge.pre, edge.post, r_pre)
    if not edge.from_input:
        check(type(edge).feedback, edge.post, edge.pre, r_pre, r_post)
