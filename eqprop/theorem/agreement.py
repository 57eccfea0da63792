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

from eqprop.errors import EqpropError
from eqprop.learning.baselines import StateCurves
from eqprop.networks.model import Model
from eqprop.networks.parameter_names import dynamic_names, state_names
from eqprop.theorem.curves import Changes, Source
from eqprop.types import Array, Int

_SILENCE = 1e-7
"""Curves that are smaller than the tensor's largest by this factor are taken for rounding: a fast
convolution leaves some where zeros belong, and D divides it by beta.
"""

type Picks = tuple[Int[Array | np.ndarray, "_"], ...]
"""For each parameter tensor, in the order of the leaves of a network's edges, places in the flat
tensor.
"""


@final
@dataclass(frozen=True)
class Agreement:
    """How closely D(t) follows -grad(t) in one tensor, or in all parameters taken together.

    ``relmse`` is the mean over elements of
    ``sqrt( sum_t (D + grad)^2 / max(sum_t D^2, sum_t grad^2) )``; the ``silent`` elements, for
    which both curves are zero but for rounding, have nothing to compare and are left out.
    ``sensitivity`` is the relmse that an error of 1 in every element at every step would make.
    ``cosine`` and ``angle`` (degrees) are between the sums over t, that is between the total update
    and the total gradient step. None where there is nothing to tell: all silent, or a sum that is
    zero.
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


@final
class Sums(NamedTuple):
    """Sums over t for every element of two sources' changes p and q."""

    p: Changes
    q: Changes
    p2: Changes
    q2: Changes
    difference2: Changes


@final
class Scanned(NamedTuple):
    """What one scan over two sources finds: sums, and curves over t of both."""

    sums: Sums
    states: tuple[StateCurves, StateCurves]
    synapses: tuple[list[Array], list[Array]]


@eqx.filter_jit
def _scan(p: Source, q: Source, steps: int, picks: Picks) -> Scanned:
    def add(total: Changes, change: Changes) -> Changes:
        return jax.tree.map(jnp.add, total, change)

    def add_square(total: Changes, change: Changes) -> Changes:
        return jax.tree.map(lambda s, d: s + d * d, total, change)

    def sample(network: Model) -> list[Array]:
        leaves = jax.tree.leaves(network.dynamic_parameters)
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
    (_, _, sums), curves = lax.scan(body, (*start, Sums(*[zeros] * 5)), length=steps)
    return Scanned(sums, *curves)


def _heard(p2: np.ndarray, q2: np.ndarray) -> np.ndarray:
    """Which elements of a tensor, flattened, have anything to compare."""
    size = np.ravel(np.maximum(p2, q2))
    return size > _SILENCE**2 * size.max(initial=0)


def _agreement(name: str, steps: int, tensors: Sequence[Sequence[np.ndarray]]) -> Agreement:
    """The agreement in some tensors taken together, each given by its five sums.

    Raises ``EqpropError`` where they are not finite.
    """
    p, q, p2, q2, difference2 = (np.concatenate([np.ravel(t) for t in row]) for row in tensors)
    if not all(np.isfinite(total).all() for total in (p2, q2, difference2)):
        raise EqpropError(
            f"the curves of {name} are not finite within {steps} steps: the nudged phase or the "
            "gradient diverges; lower |beta|, eta or K"
        )
    size = np.maximum(p2, q2)
    moves = np.concatenate([_heard(*pair) for pair in zip(*tensors[2:4], strict=True)])
    relative = np.sqrt(difference2[moves] / size[moves])
    sensitivity = np.sqrt(steps / size[moves])

    norms = float(np.linalg.norm(p)), float(np.linalg.norm(q))
    cosine = angle = None
    if min(norms) > 0:
        a, b = p / norms[0], q / norms[1]
        cosine = float(np.clip(a @ b, -1, 1))
        # arccos of a cosine near 1 would lose half the digits; Kahan's form keeps them.
        less, more = np.linalg.norm(a - b), np.linalg.norm(a + b)
        angle = float(np.degrees(2 * np.arctan2(less, more)))
    return Agreement(
        name=name,
        size=p.size,
        silent=int(p.size - moves.sum()),
        relmse=float(relative.mean()) if moves.any() else None,
        sensitivity=float(sensitivity.mean()) if moves.any() else 0.0,
        cosine=cosine,
        angle=angle,
        update_norm=norms[0],
        reference_norm=norms[1],
    )


def pick_synapses(relevance: Model, samples: int, seed: int) -> Picks:
    """At most ``samples`` random places of each parameter tensor, among those where ``relevance``
    is not 0.

    With a gradient for relevance, no curve is drawn for a pixel that is always dark.
    """
    generator = np.random.default_rng(seed)
    picks: list[np.ndarray] = []
    for leaf in jax.tree.leaves(relevance.dynamic_parameters):
        (alive,) = np.nonzero(np.ravel(leaf))
        picks.append(np.sort(generator.choice(alive, min(samples, alive.size), replace=False)))
    return tuple(picks)


def compare(update: Source, reference: Source, steps: int, picks: Picks) -> Comparison:
    """Run two sources for the same problem side by side for K = ``steps``.

    A readout is left out: it takes no part in the dynamics, and has no curve over the steps.

    Raises ``EqpropError``, naming the tensor, where a curve is not finite.
    """
    network = update.problem.network
    found = jax.device_get(_scan(update, reference, steps, picks))
    sums = [
        jax.tree.leaves((total.states, total.network.dynamic_parameters)) for total in found.sums
    ]
    states, parameters = state_names(network), dynamic_names(network)
    names = states + parameters

    def agreement(name: str, which: slice) -> Agreement:
        return _agreement(name, steps, [total[which] for total in sums])

    def curves(side: int) -> dict[str, np.ndarray]:
        return dict(zip(names, [*found.states[side], *found.synapses[side]], strict=True))

    places = {
        name: np.stack(np.unravel_index(at, leaf.shape or (1,)), axis=-1)
        for name, leaf, at in zip(
            parameters, jax.tree.leaves(network.dynamic_parameters), picks, strict=True
        )
    }
    return Comparison(
        tuple(agreement(name, slice(n, n + 1)) for n, name in enumerate(names)),
        agreement("all parameters", slice(len(states), None)),
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
