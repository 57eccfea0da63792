"""Models of one's own: an energy that states descend, or a map that they iterate."""

import dataclasses
import numbers
from collections.abc import Callable, Sequence
from typing import Any, final, override

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from eqprop.errors import EqpropError
from eqprop.networks.model import Model, check_shapes
from eqprop.types import Array, Float, Inexact, Inputs, Layer, PRNGKeyArray, Rates, Shape, States

type Params = Any
"""Parameters of one's own: an array, or a dict, tuple or list of arrays, nested at will."""

type EnergyFunction = Callable[[Params, Layer, States], Float[Array, " B"]]
"""``E(theta, x, s)``: a number for each example."""

type MapFunction = Callable[[Params, Layer, States], States]
"""``F(theta, x, s)``: new states, of the shapes of the old ones."""


class OwnModel(Model):
    """Abstract: parameters of one's own, and a function of them, the input and the states.

    The entries of the parameters, of the dict say, have learning rates of their own.
    """

    params: Params
    function: Callable[..., Any] = eqx.field(static=True)
    shapes: tuple[Shape, ...] = eqx.field(static=True)
    outputs: tuple[int, ...] = eqx.field(static=True, default=())  # pyright: ignore[reportIncompatibleMethodOverride,reportIncompatibleVariableOverride]
    project: Callable[[Params], Params] | None = eqx.field(static=True, default=None)
    analytic: bool = eqx.field(static=True, default=False)

    @property
    @override
    def dtype(self) -> jnp.dtype:
        return jnp.result_type(*jax.tree.leaves(self.params))

    @property
    @override
    def parts(self) -> tuple[Any, ...]:
        return tuple(self._entries.values())

    @property
    @override
    def part_names(self) -> tuple[str, ...]:
        return tuple(self._entries)

    @property
    def _entries(self) -> dict[str, Any]:
        if isinstance(self.params, dict):
            return {str(name): self.params[name] for name in sorted(self.params)}
        if isinstance(self.params, list | tuple):
            return {f"{n}": part for n, part in enumerate(self.params)}
        return {"theta": self.params}

    @property
    @override
    def dynamic_parameters(self) -> Params:
        return self.params

    @override
    def clamp(self, r_input: Layer) -> "OwnModel":
        return self

    @override
    def map_drives(self, change: Callable[[Layer], Layer]) -> "OwnModel":
        return self

    @override
    def unclamped(self, gradient: Any, r_input: Layer, rows: int) -> "OwnModel":
        return gradient

    @override
    def check_analytic(self) -> None:
        if not self.analytic:
            raise EqpropError(
                "a holomorphic nudge needs an analytic function of the states, which this one is "
                "not said to be: give analytic=True, or use a centered nudge"
            )

    @override
    def colours(self) -> tuple[tuple[int, ...], ...]:
        raise EqpropError(
            "sweeps need a graph of connections, which an energy or a map of one's own does not "
            "show: use synchronous steps (no sweeps, no nudged sweeps)"
        )

    @override
    def projected(self) -> "OwnModel":
        if self.project is None:
            return self
        return eqx.tree_at(lambda model: model.params, self, self.project(self.params))


@final
class EnergyModel(OwnModel):
    """What ``Energy.init`` makes: the parameters of an energy, as a model.

    States descend E; ``Phi`` of the other models is ``-E``.
    """

    def energies(self, x: Layer, states: States) -> Array:
        """``E`` of each example, ``(B,)``."""
        return self.function(self.params, x, states)

    @override
    def drives(self, rates: Rates, layers: Sequence[int] | None = None) -> States:
        x, *states = rates
        downhill = jax.grad(
            lambda s: -jnp.sum(self.energies(x, s)), holomorphic=jnp.iscomplexobj(states[0])
        )(tuple(states))
        return downhill if layers is None else tuple(downhill[n - 1] for n in layers)

    @override
    def statistic(
        self, rates: Rates, weights: Inexact[Array, " rows"], r_input: Inputs
    ) -> "EnergyModel":
        x, *states = rates

        complex_valued = jnp.issubdtype(self.dtype, jnp.complexfloating)

        def phi(model: "EnergyModel") -> Inexact[Array, ""]:
            total = -jnp.sum(weights * model.energies(x, tuple(states)))
            return total if complex_valued else total.real

        return jax.grad(phi, holomorphic=complex_valued)(self)


@final
class MapModel(OwnModel):
    """What ``Map.init`` makes: the parameters of a map, as a model. It need have no energy."""

    @override
    def drives(self, rates: Rates, layers: Sequence[int] | None = None) -> States:
        """The states that F leads to."""
        x, *states = rates
        new = self.function(self.params, x, tuple(states))
        return tuple(new) if layers is None else tuple(new[n - 1] for n in layers)

    @override
    def statistic(
        self, rates: Rates, weights: Inexact[Array, " rows"], r_input: Inputs
    ) -> "MapModel":
        raise EqpropError(
            "a map has no energy, so dPhi/dtheta does not exist: use rule vf, c-vf, aep, bptt or "
            "rbp, or give an energy"
        )


type Bounds = tuple[float, float] | None
"""The lowest and the highest state of a layer; None: there are none."""


@final
@dataclasses.dataclass(frozen=True)
class Energy:
    """An energy of one's own, ready to be trained: ``ep.fit(energy, dataset, out=...)``.

    Args:
        function: ``E(theta, x, states)``, a number for each example: ``(B,)``, of an input
            ``(B, *layers[0])`` and the states of the layers 1 ... N.
        layers: The shapes of the layers, the input first, the output last; a number is a row.
        draw: Draws the parameters from a key of JAX.
        dt: The time of a step, ``s <- s - dt dE/ds``.
        bounds: Lowest and highest state, one pair for all layers or one for each, None for none:
            states are projected on them after each step.
        project: Brings parameters back to where they may be, after each update.
        outputs: The layers that the cost reads, from 1 to N; the last one when empty. Several are
            read side by side, flattened, as targets are then to be given, ``(B, all units)``.
        analytic: The function is an analytic one of the states, as holomorphic nudges need: it is
            tried on circles in the complex plane, which does not find every kink.
        name: What runs call it.

    Raises:
        EqpropError: layers that cannot be, an energy that is not one number per example, that
            changes with the other examples of a batch (it is tried with three), that does not
            accept the layers, or has no gradient, or none at states of 0, where it starts.
    """

    function: EnergyFunction
    layers: Sequence[int | Shape]
    draw: Callable[[PRNGKeyArray], Params]
    dt: float = 0.1
    bounds: Bounds | Sequence[Bounds] = None
    project: Callable[[Params], Params] | None = None
    outputs: Sequence[int] = ()
    analytic: bool = False
    name: str = "own-energy"

    def __post_init__(self) -> None:
        bounds = self.bounds_of_layers
        _check(self)
        model, rates = _abstract(self)
        energies = _evaluated(lambda m, x, *s: m.energies(x, s), self, model, *rates)
        if not isinstance(energies, jax.ShapeDtypeStruct) or energies.shape != (_ROWS,):
            shape = getattr(energies, "shape", type(energies).__name__)
            raise EqpropError(
                f"{self.name} gives {shape} for {_ROWS} examples: an energy is one number for each "
                f"example, ({_ROWS},), summed over its units"
            )
        _evaluated(lambda m, *rates: m.drives(rates), self, model, *rates)
        _check_rows(self, lambda m, x, s: m.energies(x, s))
        _check_start(self)
        if self.analytic:
            if any(bounds):
                raise EqpropError(
                    "states kept within bounds are no analytic functions of beta: leave bounds or "
                    "analytic out"
                )
            _check_analytic(self, lambda m, x, s: m.energies(x, s))

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Of all layers, the input first."""
        return _shapes(self.layers)

    @property
    def about(self) -> str:
        """What a record says of it."""
        return f"energy of one's own, {_in_words(self.shapes)}, dt {self.dt:g}"

    @property
    def bounds_of_layers(self) -> tuple[Bounds, ...]:
        """Of the layers 1 ... N. Raises ``EqpropError`` for bounds that cannot be."""
        return _bounds(self.bounds, len(self.layers) - 1)

    def init(self, key: PRNGKeyArray) -> EnergyModel:
        """A model with parameters drawn from a key."""
        return EnergyModel(params=_parameters(self, key), **_fields(self))


@final
@dataclasses.dataclass(frozen=True)
class Map:
    """A map of one's own, ready to be trained: ``ep.fit(map, dataset, out=..., rule="aep")``.

    It takes the arguments of ``Energy``, but ``function`` is a step, ``F(theta, x, states)``: new
    states, of the shapes of the old ones. There is no dt, and there are no bounds: they are up to
    the step. It need have no energy; EP, which needs one, is refused.
    """

    function: MapFunction
    layers: Sequence[int | Shape]
    draw: Callable[[PRNGKeyArray], Params]
    project: Callable[[Params], Params] | None = None
    outputs: Sequence[int] = ()
    analytic: bool = False
    name: str = "own-map"

    def __post_init__(self) -> None:
        _check(self)
        model, rates = _abstract(self)
        new = _evaluated(lambda m, *rates: m.drives(rates), self, model, *rates)
        made = [getattr(layer, "shape", None) for layer in new]
        if made != (wanted := [s.shape for s in rates[1:]]):
            raise EqpropError(
                f"{self.name} makes states of shapes {made} from states of shapes {wanted}: give "
                "new states of the same"
            )

        def by_row(m: MapModel, x: Layer, s: States) -> Array:
            return jnp.concatenate([new.reshape(len(x), -1) for new in m.drives((x, *s))], axis=1)

        _check_rows(self, by_row)
        _check_start(self)
        if self.analytic:
            _check_analytic(self, by_row)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Of all layers, the input first."""
        return _shapes(self.layers)

    @property
    def about(self) -> str:
        """What a record says of it."""
        return f"map of one's own, {_in_words(self.shapes)}"

    def init(self, key: PRNGKeyArray) -> MapModel:
        """A model with parameters drawn from a key."""
        return MapModel(params=_parameters(self, key), **_fields(self))


type Own = Energy | Map
"""An energy or a map of one's own."""

type _Function = Callable[[Any, Layer, States], Array]
"""Of a model, an input and the states: a row, or a number, for each example."""

_CIRCLES = 4  # on which a function is tried that is said to be analytic
_ROWS = 3  # of the batch that a function is tried with: no likely size of a layer


def _shapes(layers: Sequence[int | Shape]) -> tuple[Shape, ...]:
    return tuple((int(n),) if isinstance(n, int | np.integer) else tuple(n) for n in layers)


def _in_words(shapes: Sequence[Shape]) -> str:
    return f"layers {' '.join('x'.join(map(str, shape)) for shape in shapes)}"


def _parameters(own: Own, key: PRNGKeyArray) -> Params:
    """Drawn ones, all of them arrays."""
    return jax.tree.map(jnp.asarray, own.draw(key))


def _fields(own: Own) -> dict[str, Any]:
    """The fields of its model, but for the parameters."""
    of = {"function": own.function, "shapes": own.shapes, "project": own.project}
    return of | {"outputs": _outputs(own), "analytic": own.analytic}


def _outputs(own: Own) -> tuple[int, ...]:
    return tuple(own.outputs) or (len(own.layers) - 1,)


def _bounds(bounds: Bounds | Sequence[Bounds], layers: int) -> tuple[Bounds, ...]:
    one = bounds is None or _is_pair(bounds)
    each: Any = (bounds,) * layers if one else bounds
    if not isinstance(each, Sequence) or len(each) != layers:
        raise EqpropError(
            f"bounds are {bounds} for {layers} layers: give one pair, or one for each layer after "
            "the input"
        )
    for pair in each:
        if pair is not None and not (_is_pair(pair) and pair[0] < pair[1]):
            raise EqpropError(f"bounds are {bounds}: give the lowest state, then a higher one")
    return tuple(each)


def _is_pair(bounds: Any) -> bool:
    return (
        isinstance(bounds, Sequence)
        and len(bounds) == 2
        and all(isinstance(end, numbers.Real) for end in bounds)
    )


def _check(own: Own) -> None:
    check_shapes(own.shapes)
    if isinstance(own, Energy) and not 0 < own.dt < float("inf"):
        raise EqpropError(f"dt is {own.dt}: the time of a step must be above 0")
    outputs, last = _outputs(own), len(own.layers) - 1
    if len(set(outputs)) < len(outputs) or not all(1 <= n <= last for n in outputs):
        raise EqpropError(f"outputs are {outputs}: give layers from 1 to {last}, each once")
    leaves = jax.tree.leaves(jax.eval_shape(own.draw, jax.random.key(0)))
    wrong = [leaf.dtype for leaf in leaves if not jnp.issubdtype(leaf.dtype, jnp.floating)]
    if wrong or not leaves:
        what = f"{wrong[0]} among its parameters" if wrong else "no parameters"
        raise EqpropError(f"{own.name} has {what}: draw arrays of floating-point numbers")


def _check_rows(own: Own, function: _Function) -> None:
    """Raises ``EqpropError`` where what is found for an example is another one in another batch."""
    model = own.init(jax.random.key(0))
    x, *states = _drawn(own, model.dtype, np.random.default_rng(0))
    batch, smaller = (
        np.asarray(function(model, x[:rows], tuple(s[:rows] for s in states)))
        for rows in (_ROWS, _ROWS - 1)
    )
    if np.any(np.abs(batch[:-1] - smaller) > 1e-3 * (1 + np.abs(batch).max())):
        raise EqpropError(
            f"{own.name} does not treat examples alone: what it gives for one changes with the "
            "others of its batch, as where a sum or a mean is over the rows, too. Sum over the "
            "units, axis=-1"
        )


def _check_start(own: Own) -> None:
    """Raises ``EqpropError`` where no free phase can start, as all do where states are 0."""
    model = own.init(jax.random.key(0))
    x, *states = _drawn(own, model.dtype, np.random.default_rng(0))
    drives = model.drives((x, *map(jnp.zeros_like, states)))
    # What is infinite comes to rest at a bound.
    bounds = own.bounds_of_layers if isinstance(own, Energy) else (None,) * len(drives)
    sound = (
        np.isfinite(drive).all() if bound is None else not np.isnan(drive).any()
        for drive, bound in zip(drives, bounds, strict=True)
    )
    if not all(sound):
        what = "gradient" if isinstance(own, Energy) else "value"
        raise EqpropError(
            f"{own.name} has no finite {what} where all states are 0, in which free phases start: "
            "add a small number under a root or a logarithm, say"
        )


def _check_analytic(own: Own, function: _Function) -> None:
    """Raises ``EqpropError`` where the values on small circles of states do not have that at the
    centre for their mean, as by Cauchy they must; or do not accept complex states at all.
    """
    try:
        with jax.enable_x64(True):
            off = max(_off_circles(own, function))
    except (TypeError, ValueError) as error:
        line = str(error).strip().splitlines()[0]
        raise EqpropError(
            f"{own.name} is said to be analytic, but does not accept complex states: {line}"
        ) from error
    if off > 1e-6:
        raise EqpropError(
            f"{own.name} is said to be analytic, but is not: on circles in the complex plane it is "
            f"{off:.1g} off, as an absolute value, a maximum or a real part would be. Leave "
            "analytic out"
        )


def _off_circles(own: Own, function: _Function) -> list[float]:
    """By how much the mean of a function is off its value at the centre, and its integral off 0,
    relative to that value: over circles of states in random directions.
    """
    model, random = own.init(jax.random.key(0)), np.random.default_rng(0)
    model = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), model)
    circle, found = np.exp(2j * np.pi * np.arange(8) / 8), []
    for _ in range(_CIRCLES):
        x, *centre = _drawn(own, float, random)
        way = [0.03 * random.normal(size=s.shape) for s in centre]
        points = [tuple(s + z * d for s, d in zip(centre, way, strict=True)) for z in circle]
        values = np.stack([np.asarray(function(model, x, s)) for s in points])
        middle = np.asarray(function(model, x, tuple(centre)))
        off = values.mean(axis=0) - middle, np.tensordot(circle / len(circle), values, axes=1)
        found.append(float(np.abs(off).max() / (1 + np.abs(middle).max())))
    return found


def _drawn(own: Own, dtype: Any, random: np.random.Generator) -> list[Array]:
    """A batch of the input and of states, drawn."""
    return [jnp.asarray(random.uniform(size=(_ROWS, *shape)), dtype) for shape in own.shapes]


def _abstract(own: Own) -> tuple[Any, list[jax.ShapeDtypeStruct]]:
    """The model and a batch of the input and of states, as shapes."""
    model = jax.eval_shape(own.init, jax.random.key(0))
    return model, [jax.ShapeDtypeStruct((_ROWS, *shape), model.dtype) for shape in own.shapes]


def _evaluated(function: Callable[..., Any], own: Own, model: OwnModel, *rates: Any) -> Any:
    try:
        return jax.eval_shape(function, model, *rates)
    except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
        shapes = ", ".join(map(str, own.shapes))
        line = str(error).strip().splitlines()[0]
        raise EqpropError(
            f"{own.name} does not accept layers of shapes {shapes} (the input first), or has no "
            f"gradient there: {line}"
        ) from error
