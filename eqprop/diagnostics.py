"""How closely two sources of changes agree: RelMSE, cosines, angles, and orders of convergence.

``compare`` runs both side by side in one scan and keeps sums over t, so that its memory does not
grow with K times the parameters.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from eqprop.baselines import StateCurves
from eqprop.curves import Changes, Source
from eqprop.errors import EqpropError
from eqprop.names import parameter_names, state_names
from eqprop.network import Network
from eqprop.types import Array, Int

type Picks = tuple[Int[np.ndarray, " samples"], ...]
"""For each parameter tensor, in the order of a network's leaves, places in the flat tensor."""


@final
@dataclass(frozen=True)
class Agreement:
    """How closely D(t) follows -grad(t) in one tensor, or in all parameters taken together.

    ``relmse`` is the mean over elements of
    ``sqrt( sum_t (D + grad)^2 / max(sum_t D^2, sum_t grad^2) )``; the ``silent`` elements, for
    which both curves are zero throughout, have nothing to compare and are left out. ``sensitivity``
    is the relmse that an error of 1 in every element at every step would make. ``cosine`` and
    ``angle`` (degrees) are between the sums over t, that is between the total update and the total
    gradient step. None where there is nothing to tell: all silent, or a sum that is zero.
    """

    name: str
    size: int
    silent: int
    relmse: float | None
    sensitivity: float
    cosine: float | None
    angle: float | None
    update_norm: float
    reference_norm: float


@final
@dataclass(frozen=True)
class Comparison:
    """Two sources compared: numbers for each tensor, and curves over t = 0 ... K-1.

    ``updates`` and ``references`` hold ``s1 ...`` whole, ``(K, B, *units)``, and a few synapses of
    each parameter tensor, ``(K, samples)``; ``synapses`` says which, ``(samples, axes)``. Against
    BPTT the references are ``-grad(t)``, so that the two curves are to coincide.
    """

    tensors: tuple[Agreement, ...]
    together: Agreement
    updates: dict[str, np.ndarray]
    references: dict[str, np.ndarray]
    synapses: dict[str, np.ndarray]

    def __getitem__(self, name: str) -> Agreement:
        return next(tensor for tensor in self.tensors if tensor.name == name)

    def record(self) -> dict[str, Any]:
        """The numbers, ready for JSON."""
        return {
            "tensors": [asdict(tensor) for tensor in self.tensors],
            "together": asdict(self.together),
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """The curves, ready for ``np.savez``: ``D_s1``, ``reference_s1``, ``synapses_W1`` ..."""
        groups = {"D": self.updates, "reference": self.references, "synapses": self.synapses}
        return {f"{k}_{name}": v for k, group in groups.items() for name, v in group.items()}


class Sums(NamedTuple):
    """Sums over t for every element of two sources' changes p and q."""

    p: Changes
    q: Changes
    p2: Changes
    q2: Changes
    difference2: Changes


class Measures(NamedTuple):
    """What the sums say about some tensors; all scalars."""

    heard: Array
    relmse: Array
    sensitivity: Array
    p_norm: Array
    q_norm: Array
    cosine: Array
    angle: Array


class Scanned(NamedTuple):
    """What one scan over two sources finds."""

    tensors: list[Measures]
    together: Measures
    states: tuple[StateCurves, StateCurves]
    synapses: tuple[list[Array], list[Array]]


def _dot(a: list[Array], b: list[Array]) -> Array:
    return jnp.sum(jnp.stack([jnp.sum(u * v) for u, v in zip(a, b, strict=True)]))


def _measure(steps: int, tensors: list[tuple[Array, ...]]) -> Measures:
    """The measures of some tensors together, each given by its five sums."""
    zero = jnp.zeros(())
    heard, relative, sensitivity = zero, zero, zero
    for _, _, p2, q2, difference2 in tensors:
        size = jnp.maximum(p2, q2)
        moves = size > 0
        safe = jnp.where(moves, size, 1)
        heard += jnp.sum(moves)
        relative += jnp.sum(jnp.where(moves, jnp.sqrt(difference2 / safe), 0))
        sensitivity += jnp.sum(jnp.where(moves, jnp.sqrt(steps / safe), 0))
    some = jnp.maximum(heard, 1)

    p, q = ([row[side] for row in tensors] for side in (0, 1))
    p_norm, q_norm = jnp.sqrt(_dot(p, p)), jnp.sqrt(_dot(q, q))
    a = [leaf / jnp.where(p_norm > 0, p_norm, 1) for leaf in p]
    b = [leaf / jnp.where(q_norm > 0, q_norm, 1) for leaf in q]
    # arccos of a cosine near 1 would lose half the digits; Kahan's form of the angle keeps them.
    less, more = (jax.tree.map(operation, a, b) for operation in (jnp.subtract, jnp.add))
    angle = 2 * jnp.arctan2(jnp.sqrt(_dot(less, less)), jnp.sqrt(_dot(more, more)))
    return Measures(
        heard, relative / some, sensitivity / some, p_norm, q_norm, _dot(a, b), jnp.degrees(angle)
    )


@eqx.filter_jit
def _scan(p: Source, q: Source, steps: int, picks: Picks) -> Scanned:
    def add(total: Changes, change: Changes) -> Changes:
        return jax.tree.map(jnp.add, total, change)

    def add_square(total: Changes, change: Changes) -> Changes:
        return jax.tree.map(lambda s, d: s + d * d, total, change)

    def sample(network: Network) -> list[Array]:
        leaves = jax.tree.leaves(network)
        return [leaf.ravel()[jnp.asarray(at)] for leaf, at in zip(leaves, picks, strict=True)]

    def body(carry: tuple[Any, Any, Sums], _: None) -> tuple[Any, Any]:
        at_p, at_q, sums = carry
        at_p, dp = p.step(at_p)
        at_q, dq = q.step(at_q)
        difference = jax.tree.map(jnp.subtract, dp, dq)
        sums = Sums(
            add(sums.p, dp),
            add(sums.q, dq),
            add_square(sums.p2, dp),
            add_square(sums.q2, dq),
            add_square(sums.difference2, difference),
        )
        return (at_p, at_q, sums), (
            (dp.states, dq.states),
            (sample(dp.network), sample(dq.network)),
        )

    start = p.start(), q.start()
    shapes = jax.eval_shape(lambda carry: p.step(carry)[1], start[0])
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    (_, _, sums), (states, synapses) = lax.scan(body, (*start, Sums(*[zeros] * 5)), length=steps)

    rows = list(zip(*(jax.tree.leaves(total) for total in sums), strict=True))
    together = _measure(steps, rows[len(states[0]) :])
    return Scanned([_measure(steps, [row]) for row in rows], together, states, synapses)


def pick_synapses(relevance: Network, samples: int, seed: int) -> Picks:
    """At most ``samples`` random places of each parameter tensor, among those where ``relevance``
    is not 0.

    With a gradient for relevance, no curve is drawn for a pixel that is always dark.
    """
    generator = np.random.default_rng(seed)
    picks: list[np.ndarray] = []
    for leaf in jax.tree.leaves(relevance):
        (alive,) = np.nonzero(np.ravel(leaf))
        picks.append(np.sort(generator.choice(alive, min(samples, alive.size), replace=False)))
    return tuple(picks)


def compare(update: Source, reference: Source, steps: int, picks: Picks) -> Comparison:
    """Run two sources for the same problem side by side for K = ``steps``.

    Raises ``EqpropError``, naming the tensor, where a curve is not finite.
    """
    network = update.problem.network
    found = jax.device_get(_scan(update, reference, steps, picks))
    leaves, parameters = jax.tree.leaves(network), parameter_names(network)
    names = state_names(network) + parameters
    sizes = [curve[0].size for curve in found.states[0]] + [leaf.size for leaf in leaves]

    def agreement(name: str, size: int, measures: Measures) -> Agreement:
        if not np.all(np.isfinite(measures)):
            raise EqpropError(
                f"the curves of {name} are not finite within {steps} steps: the nudged phase or "
                "the gradient diverges; lower |beta|, eta or K"
            )
        heard = int(measures.heard)
        directed = bool(measures.p_norm > 0 and measures.q_norm > 0)
        return Agreement(
            name=name,
            size=size,
            silent=size - heard,
            relmse=float(measures.relmse) if heard else None,
            sensitivity=float(measures.sensitivity),
            cosine=float(np.clip(measures.cosine, -1, 1)) if directed else None,
            angle=float(measures.angle) if directed else None,
            update_norm=float(measures.p_norm),
            reference_norm=float(measures.q_norm),
        )

    def curves(side: int) -> dict[str, np.ndarray]:
        return dict(zip(names, [*found.states[side], *found.synapses[side]], strict=True))

    tensors = [agreement(*row) for row in zip(names, sizes, found.tensors, strict=True)]
    total = sum(leaf.size for leaf in leaves)
    places = {
        name: np.stack(np.unravel_index(at, leaf.shape), axis=-1)
        for name, leaf, at in zip(parameters, leaves, picks, strict=True)
    }
    return Comparison(
        tuple(tensors),
        agreement("all parameters", total, found.together),
        curves(0),
        curves(1),
        places,
    )


@final
@dataclass(frozen=True)
class Order:
    """The order of convergence: the slope of log error against log size, by least squares.

    ``points`` says how many were above round-off and entered the fit; None for a slope with fewer
    than 2.
    """

    slope: float | None
    points: int


def fit_order(
    sizes: Sequence[float], errors: Sequence[float | None], floors: Sequence[float]
) -> Order:
    """Fit ``error ~ size^order`` to the points whose error is more than three times its floor."""
    kept = [
        (np.log(abs(size)), np.log(error))
        for size, error, floor in zip(sizes, errors, floors, strict=True)
        if error is not None and error > 3 * floor and error > 0
    ]
    if len({size for size, _ in kept}) < 2:
        return Order(None, len(kept))
    x, y = np.transpose(kept)
    x = x - x.mean()
    return Order(float(x @ y / (x @ x)), len(kept))
