"""Networks: layers of units and a graph of connections between them.

A connection is one function, ``drive = connection(r_pre)``. Everything else follows from
``Phi = sum over edges of r_post . connection(r_pre)``: feedback is its vector-Jacobian product in
``r_pre``, the local weight statistic ``dPhi/dtheta`` its vector-Jacobian product in the parameters.
A network *is* its parameters (a pytree), so gradients and updates are networks too.
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, override

import equinox as eqx
import jax
import jax.numpy as jnp

from eqprop.errors import EqpropError
from eqprop.types import Array, Float, Layer, PRNGKeyArray, Rates, Shape, States

type Product = Callable[[Array, Array], Array]
"""How two matrices are multiplied."""


class Connection(eqx.Module):
    """Abstract: a differentiable map from the rates of one layer to a drive on another.

    Subclasses write ``__call__`` alone. The feedback and the statistics below are derived from it,
    so they cannot disagree with it.
    """

    @property
    def analytic(self) -> bool:
        """Whether the drive is an analytic function of the rates, as holomorphic nudges need."""
        return True

    @abc.abstractmethod
    def __call__(self, r_pre: Layer) -> Layer:
        """Drive on the postsynaptic layer, ``(B, *post)``, for presynaptic rates ``(B, *pre)``."""

    def feedback(self, r_pre: Layer, r_post: Layer) -> Layer:
        """Drive on the presynaptic layer, ``dPhi/dr_pre``, shape ``(B, *pre)``."""
        _, vjp = jax.vjp(self.__call__, r_pre)
        return vjp(r_post)[0]

    def statistic(self, r_pre: Layer, r_post: Layer) -> "Connection":
        """``dPhi/dtheta`` summed over the batch; linear in ``r_post``."""
        _, vjp = jax.vjp(lambda connection: connection(r_pre), self)
        return vjp(r_post)[0]

    def feedback_statistic(self, r_pre: Layer, d_pre: Layer, r_post: Layer) -> "Connection":
        """Gradient in theta of ``d_pre . feedback(r_pre, r_post)``, summed over the batch."""
        _, vjp = jax.vjp(lambda connection: connection.feedback(r_pre, r_post), self)
        return vjp(d_pre)[0]

    def kernel(self, r_pre: Layer, other: Layer) -> Float[Array, "B other"] | None:
        """The matrix ``k`` with ``drive(theta + statistic(other, d)) = drive(theta) + k d`` at
        ``r_pre``.

        It lets a rank-B change of theta act without being written out. None, unless the drive is
        linear in theta with one such factor for all postsynaptic units.
        """
        return None

    def guided(self, by: "Connection") -> "Connection":
        """The same connection, but what it chooses by the size of drives, as a max-pool does, is
        chosen by those of another one; itself where it chooses nothing.
        """
        return self

    def with_product(self, product: Product) -> "Connection":
        """The same connection with another way to multiply rates with weights; itself where it has
        no product to replace.
        """
        return self


class Dense(Connection):
    """All-to-all connection ``r_pre W + b``; a layer with several axes is flattened.

    ``weight`` has shape ``(n_pre, n_post)``, ``bias`` ``(n_post,)`` or None.
    """

    weight: Float[Array, "n_pre n_post"]
    bias: Float[Array, " n_post"] | None = None
    product: Product = eqx.field(static=True, default=jnp.matmul)

    @override
    def __call__(self, r_pre: Layer) -> Layer:
        drive = self.product(r_pre.reshape(r_pre.shape[0], -1), self.weight)
        return drive if self.bias is None else drive + self.bias

    @override
    def kernel(self, r_pre: Layer, other: Layer) -> Float[Array, "B other"]:
        a, b = r_pre.reshape(r_pre.shape[0], -1), other.reshape(other.shape[0], -1)
        return a @ b.T if self.bias is None else a @ b.T + 1

    @override
    def with_product(self, product: Product) -> "Dense":
        return dataclasses.replace(self, product=product)

    @classmethod
    def init(cls, pre: Shape, post: Shape, key: PRNGKeyArray, *, bias: bool = True) -> "Dense":
        """Weights and biases uniform in ``+-1/sqrt(fan_in)``."""
        n_pre, (n_post,) = math.prod(pre), post
        w_key, b_key = jax.random.split(key)
        bound = n_pre**-0.5
        weight = jax.random.uniform(w_key, (n_pre, n_post), minval=-bound, maxval=bound)
        b = jax.random.uniform(b_key, (n_post,), minval=-bound, maxval=bound) if bias else None
        return cls(weight, b)


class Edge(eqx.Module):
    """Abstract: a connection between the layers ``pre`` and ``post`` of a network."""

    pre: eqx.AbstractVar[int]
    post: eqx.AbstractVar[int]

    @abc.abstractmethod
    def forward(self, r_pre: Layer) -> Layer:
        """Drive on layer ``post``."""

    @abc.abstractmethod
    def feedback(self, r_pre: Layer, r_post: Layer) -> Layer:
        """Drive on layer ``pre``."""

    @abc.abstractmethod
    def statistic(self, r_pre: Layer, r_post: Layer) -> "Edge":
        """``dPhi/dtheta``, summed over the batch and linear in ``r_post``."""

    @abc.abstractmethod
    def vector_field(self, r_pre: Layer, d_pre: Layer, r_post: Layer, d_post: Layer) -> "Edge":
        """Presynaptic rate times postsynaptic change, for each parameter; summed over the batch."""

    def kernel(self, r_pre: Layer, other: Layer) -> Float[Array, "B other"] | None:
        """``Connection.kernel``, where one connection serves both directions; else None."""
        return None


class Tied(Edge):
    """One set of weights used in both directions: ``dPhi/dtheta`` exists."""

    pre: int = eqx.field(static=True)
    post: int = eqx.field(static=True)
    connection: Connection

    @override
    def forward(self, r_pre: Layer) -> Layer:
        return self.connection(r_pre)

    @override
    def feedback(self, r_pre: Layer, r_post: Layer) -> Layer:
        return self.connection.feedback(r_pre, r_post)

    @override
    def statistic(self, r_pre: Layer, r_post: Layer) -> "Tied":
        return Tied(self.pre, self.post, self.connection.statistic(r_pre, r_post))

    @override
    def vector_field(self, r_pre: Layer, d_pre: Layer, r_post: Layer, d_post: Layer) -> "Tied":
        ahead = self.connection.statistic(r_pre, d_post)
        back = self.connection.feedback_statistic(r_pre, d_pre, r_post)
        return Tied(self.pre, self.post, jax.tree.map(jnp.add, ahead, back))

    @override
    def kernel(self, r_pre: Layer, other: Layer) -> Float[Array, "B other"] | None:
        return self.connection.kernel(r_pre, other)


class Untied(Edge):
    """Forward weights ``ahead`` and separate feedback weights ``back`` (of the same shape, no
    bias).

    The feedback goes to the units from which the forward drive comes: where there is max-pooling,
    to its winners.
    """

    pre: int = eqx.field(static=True)
    post: int = eqx.field(static=True)
    ahead: Connection
    back: Connection

    @override
    def forward(self, r_pre: Layer) -> Layer:
        return self.ahead(r_pre)

    @override
    def feedback(self, r_pre: Layer, r_post: Layer) -> Layer:
        return self.back.guided(self.ahead).feedback(r_pre, r_post)

    @override
    def statistic(self, r_pre: Layer, r_post: Layer) -> "Untied":
        raise EqpropError(
            f"the edge {self.pre}->{self.post} is untied, so dPhi/dtheta does not exist: "
            "use a vector-field rule (vf, c-vf), or tied weights"
        )

    @override
    def vector_field(self, r_pre: Layer, d_pre: Layer, r_post: Layer, d_post: Layer) -> "Untied":
        def feedback(back: Connection) -> Layer:
            return dataclasses.replace(self, back=back).feedback(r_pre, r_post)

        _, vjp = jax.vjp(feedback, self.back)
        return Untied(self.pre, self.post, self.ahead.statistic(r_pre, d_post), *vjp(d_pre))


class Clamped(Edge):
    """An edge from the static input: its drive, computed once, stands in for its weights."""

    pre: int = eqx.field(static=True)
    post: int = eqx.field(static=True)
    drive: Layer

    @override
    def forward(self, r_pre: Layer) -> Layer:
        return self.drive

    @override
    def feedback(self, r_pre: Layer, r_post: Layer) -> Layer:
        raise NotImplementedError("the input receives no feedback")

    @override
    def statistic(self, r_pre: Layer, r_post: Layer) -> "Clamped":
        raise NotImplementedError("a clamped drive has no parameters")

    @override
    def vector_field(self, r_pre: Layer, d_pre: Layer, r_post: Layer, d_post: Layer) -> "Clamped":
        raise NotImplementedError("a clamped drive has no parameters")


class Network(eqx.Module):
    """Layers 0 ... N of the given shapes and the edges between them; layer 0 is the input, N the
    output.

    Any graph will do: skip edges ``(0, 2)``, lateral edges ``(1, 1)``. A ``readout`` turns what the
    output layer is into scores of classes; it takes no part in the dynamics, but a nudge comes back
    through it (arXiv:2006.03824). Raises ``EqpropError`` when an edge names a layer that is not
    there, when a drive does not fit the layer that receives it, or when a layer receives nothing.
    """

    shapes: tuple[Shape, ...] = eqx.field(static=True)
    edges: tuple[Edge, ...]
    readout: Connection | None = None

    def __check_init__(self) -> None:
        check_shapes(self.shapes)
        for edge in self.edges:
            _check_edge(edge, self.shapes)
        receives = {edge.post for edge in self.edges} | {edge.pre for edge in self.edges}
        if silent := set(range(1, len(self.shapes))) - receives:
            raise EqpropError(f"layer {min(silent)} has no connection: add an edge to it")
        if self.readout is not None and len(self.scores) != 1:
            raise EqpropError(
                f"scores have shape {self.scores}: give a readout that makes a row of them for "
                "each example, such as a dense one"
            )

    @property
    def parts(self) -> tuple[Edge | Connection, ...]:
        """What has a learning rate of its own: the edges, and after them the readout."""
        return self.edges if self.readout is None else (*self.edges, self.readout)

    @property
    def scores(self) -> Shape:
        """The shape of an example's scores, ``(classes,)``."""
        if self.readout is None:
            return self.shapes[-1]
        output = jax.ShapeDtypeStruct((1, *self.shapes[-1]), jnp.float32)
        read = eqx.filter_eval_shape(type(self.readout).__call__, self.readout, output)
        return tuple(read.shape[1:])

    def read(self, output: Layer) -> Layer:
        """The scores, ``(B, classes)``, of states of the output layer: these themselves, where
        there is no readout.
        """
        return output if self.readout is None else self.readout(output)

    @property
    def dtype(self) -> jnp.dtype:
        """Floating-point type of the parameters."""
        return jnp.result_type(*jax.tree.leaves(self.edges))

    def zeros(self, batch: int) -> States:
        """The states ``s = 0`` of layers 1 ... N, where every free phase starts."""
        return tuple(jnp.zeros((batch, *shape), self.dtype) for shape in self.shapes[1:])

    def replace_edges(self, edges: Sequence[Edge]) -> "Network":
        """The same layers with other edges."""
        return eqx.tree_at(lambda n: n.edges, self, tuple(edges))

    def change(self, edges: Sequence[Edge], readout: Connection | None = None) -> "Network":
        """A change of this network's parameters: those edges; ``readout``, or none of it."""
        same = jax.tree.map(jnp.zeros_like, self.readout) if readout is None else readout
        network = self.replace_edges(edges)
        # None where there is no readout: no leaf to replace.
        return network if self.readout is None else eqx.tree_at(lambda n: n.readout, network, same)

    def clamp(self, r_input: Layer) -> "Network":
        """The same network with the drives of its static input, ``(B, *shapes[0])``, computed
        once.
        """
        return self.replace_edges(
            [e if e.pre else Clamped(0, e.post, e.forward(r_input)) for e in self.edges]
        )

    def change_drives(self, change: Callable[[Layer], Layer]) -> "Network":
        """The same clamped network with other drives of its input: repeated for more rows, say."""
        return self.replace_edges([e if e.pre else jax.tree.map(change, e) for e in self.edges])

    def drives(self, rates: Rates, layers: Sequence[int] | None = None) -> States:
        """``dPhi/dr_i`` for the layers 1 ... N, or for those named in ``layers`` only, in that
        order.
        """
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

    def check_analytic(self) -> None:
        """Raises ``EqpropError`` where a drive is not an analytic function of the rates."""

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

    def colours(self) -> tuple[tuple[int, ...], ...]:
        """Two groups of layers with no edge inside a group, for sweeps over one group after the
        other.

        In a chain the even layers come first: then both halves of a sweep take the drives of the
        odd layers' present states, and compute them once.

        Raises ``EqpropError`` when there is none: the connection graph has an odd cycle.
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
                if edge.pre and layer in (edge.pre, edge.post):
                    visit(edge.post if edge.pre == layer else edge.pre, 1 - value)

        for layer in range(1, len(self.shapes)):
            if layer not in colour:
                visit(layer, layer % 2)
        return tuple(tuple(n for n in sorted(colour) if colour[n] == value) for value in (0, 1))


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
    if edge.pre:
        check(type(edge).feedback, edge.post, edge.pre, r_pre, r_post)
