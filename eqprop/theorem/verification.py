"""The engine of ``eqprop verify``: Theorem 1 for any network, setting and rule.

For each beta the updates of the rule are compared with the BPTT gradients; the error must fall as
beta (beta^2 when centered, beta^N with N points on a circle), down to a floor that rounding and the
drift of the free phase set. For a continual rule the curves are also compared with those of the
same rule at eta = 0, from which they depart as eta.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from eqprop.dynamics.nudges import Holomorphic, Nudge, OneSided, Stencil
from eqprop.errors import EqpropError
from eqprop.learning.asymmetric import AsymmetricEP
from eqprop.learning.baselines import Window, truncated
from eqprop.learning.increments import Increment
from eqprop.networks.model import Model
from eqprop.numerics import numerics
from eqprop.theorem.agreement import Comparison, Order, Picks, compare, fit_order, pick_synapses
from eqprop.theorem.curves import (
    AsymmetricUpdates,
    Gradients,
    Problem,
    Source,
    Updates,
)
from eqprop.theorem.settling import Settling, examine
from eqprop.types import Array

type Progress = Callable[[str, int, int], None]
"""Told what begins now, how many stages are done, and of how many."""


def _silent(what: str, done: int, stages: int) -> None:
    """Report nothing."""


@final
@dataclass(frozen=True)
class Plan:
    """What to verify.

    The first of ``betas`` is the one asked for. ``eta`` (one rate per connection) makes the rule
    continual; it is then tried at ``eta`` times each of ``factors``, too. ``samples`` synapses of
    each tensor are kept for figures. A free phase counts as settled when no unit moves by more
    than ``tolerance`` per step (None: a thousandth of what the smallest beta does to an output
    that is wrong by 1). ``points`` are numbers of complex betas to try on a circle, with the first
    beta for its radius; 1 stands for the one-sided nudge.
    """

    betas: tuple[float, ...] = (1e-2, 1e-3, 1e-4)
    nudge: Callable[[float], Nudge] = OneSided
    eta: tuple[float, ...] | None = None
    factors: tuple[float, ...] = (1.0, 0.1, 0.01)
    points: tuple[int, ...] = ()
    samples: int = 6
    seed: int = 0
    tolerance: float | None = None

    def __post_init__(self) -> None:
        if not self.betas:
            raise EqpropError("no beta to verify with: give one at least")
        if self.tolerance is not None and not self.tolerance > 0:
            raise EqpropError(f"the tolerance is {self.tolerance}: it must be above 0")
        if self.samples < 0:
            raise EqpropError(f"samples is {self.samples}: it must be at least 0")
        if any(beta == 0 or not math.isfinite(beta) for beta in self.betas):
            raise EqpropError(f"betas are {self.betas}: each must be finite and not 0")
        if any(not math.isfinite(f) or f <= 0 for f in self.factors):
            raise EqpropError(f"factors of eta are {self.factors}: each must be finite and above 0")


@final
@dataclass(frozen=True)
class Trial:
    """One comparison, at one beta and one factor on eta; ``floors`` are by tensor.

    A relmse at its floor shows rounding, and the drift that the free phase left, not the rule.
    """

    beta: float
    factor: float
    comparison: Comparison
    floors: dict[str, float]

    def record(self) -> dict[str, Any]:
        """The numbers, ready for JSON."""
        numbers = self.comparison.record()
        return {"beta": self.beta, "factor": self.factor, **numbers, "floors": self.floors}


@final
@dataclass(frozen=True)
class Verification:
    """Everything that ``eqprop verify`` found.

    ``asked`` is the rule as asked for against BPTT, at the first beta. ``beta_trials`` are the
    same at every beta, at eta = 0: with eta fixed, a continual rule departs from BPTT as eta/beta.
    ``eta_trials`` compare a continual rule with itself at eta = 0, at the first beta.
    ``point_trials`` are the rule against BPTT for each of the plan's numbers of points.
    """

    settling: Settling
    asked: Trial
    beta_trials: tuple[Trial, ...]
    eta_trials: tuple[Trial, ...]
    beta_orders: dict[str, Order]
    eta_orders: dict[str, Order]
    point_trials: dict[int, Trial]

    def record(self) -> dict[str, Any]:
        """The numbers, ready for JSON."""
        return {
            "settling": self.settling.record(),
            "asked": self.asked.record(),
            "beta_trials": [trial.record() for trial in self.beta_trials],
            "eta_trials": [trial.record() for trial in self.eta_trials],
            "point_trials": [{"points": n, **t.record()} for n, t in self.point_trials.items()],
            "beta_orders": {name: asdict(order) for name, order in self.beta_orders.items()},
            "eta_orders": {name: asdict(order) for name, order in self.eta_orders.items()},
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """The curves of ``asked`` and the residuals of the free phase, ready for ``np.savez``."""
        return {"residuals": self.settling.residuals, **self.asked.comparison.arrays()}


def to_double(problem: Problem) -> Problem:
    """The problem in double precision, network, inputs and targets alike; within
    ``jax.enable_x64`` only.
    """

    def double(leaf: Any) -> Array:
        return jnp.asarray(leaf, jnp.float64)

    network, batch = jax.tree.map(double, (problem.network, problem.batch))
    return Problem(problem.system, network, batch)


@eqx.filter_jit
def _unroll(problem: Problem, steps: int) -> tuple[Window, Model]:
    """The end of the free phase, and the truncated BPTT gradient."""
    system, network, (x, y) = problem
    found = truncated(system, network, x, y, steps)
    return found.window, found.gradient


def _floors(
    comparison: Comparison, stencil: Stencil, residual: float, dt: float
) -> dict[str, float]:
    """The relmse that rounding and drift alone would make.

    That is what they do to D in a step, times the sensitivity. D is a weighted sum over nudged
    phases. They share the drift, so it enters with the sum of the weights (none, when centered),
    but not their rounding.
    """
    weights = np.asarray(stencil.weights)
    rounding = np.finfo(np.float64).eps * np.abs(weights).sum(axis=0)
    noise = np.max(rounding + residual * np.abs(np.real(weights.sum(axis=0))))
    # The states' curves are divided by dt, the parameters' are not.
    states = set(comparison.updates) - set(comparison.synapses)
    return {
        tensor.name: float(tensor.sensitivity * noise / (dt if tensor.name in states else 1.0))
        for tensor in (*comparison.tensors, comparison.together)
    }


def _orders(trials: Sequence[Trial], sizes: Sequence[float]) -> dict[str, Order]:
    """The order of each tensor's error, over trials at some sizes of beta or eta."""
    rows = [(*t.comparison.tensors, t.comparison.together) for t in trials]
    return {
        column[0].name: fit_order(
            sizes,
            [agreement.relmse for agreement in column],
            [t.floors[column[0].name] for t in trials],
        )
        for column in zip(*rows, strict=True)
    }


@final
class _Trials:
    """The trials of a plan, one after the other, from one free phase and its BPTT gradient."""

    def __init__(
        self, problem: Problem, rule: Increment | AsymmetricEP, plan: Plan, progress: Progress
    ) -> None:
        self.problem, self.rule, self.plan, self.progress = problem, rule, plan, progress
        self.steps = problem.system.nudged_steps
        continual = plan.eta is not None
        self.stages = 1 + len(plan.betas) + (1 + len(plan.factors)) * continual + len(plan.points)
        self.done = 0
        self.begin("free phase")
        self.window, gradient = _unroll(problem, self.steps)
        dt = problem.system.dynamics.dt
        tolerance = plan.tolerance or 1e-3 * min(abs(beta) for beta in plan.betas) * dt
        self.settling = examine(problem, self.window, max(tolerance, 1e-14))
        self.picks: Picks = pick_synapses(gradient, plan.samples, plan.seed)

    def begin(self, what: str) -> None:
        self.progress(what, self.done, self.stages)
        self.done += 1

    def against_bptt(self, what: str, beta: float, nudge: Nudge, factor: float = 0.0) -> Trial:
        """The rule with that nudge against BPTT."""
        self.begin(what)
        drift = float(self.settling.residuals[-1].max())
        gradients = Gradients(self.problem, self.window)
        return self._trial((beta, factor), self._updates(nudge, factor), gradients, drift)

    def against_itself(self, beta: float, factor: float) -> Trial:
        """A continual rule against itself at eta = 0: both see the same drift."""
        self.begin(f"eta x {factor:g} against eta = 0")
        moving, still = (self._updates(self.plan.nudge(beta), f) for f in (factor, 0.0))
        return self._trial((beta, factor), moving, still, 0.0)

    def _updates(self, nudge: Nudge, factor: float) -> Updates | AsymmetricUpdates:
        rows = len(self.problem.batch[0])
        stencil = nudge.of_batch(jax.random.key(self.plan.seed), rows)
        eta = self.plan.eta or (0.0,) * _in_dynamics(self.problem.network)
        rates = factor * jnp.asarray(eta, float)
        problem, free = self.problem, self.window.last
        if isinstance(self.rule, AsymmetricEP):
            return AsymmetricUpdates(problem=problem, free=free, stencil=stencil, eta=rates)
        rule = self.rule
        return Updates(problem=problem, increment=rule, free=free, stencil=stencil, eta=rates)

    def _trial(
        self,
        at: tuple[float, float],
        updates: Updates | AsymmetricUpdates,
        reference: Source,
        drift: float,
    ) -> Trial:
        found = compare(updates, reference, self.steps, self.picks)
        dt = self.problem.system.dynamics.dt
        return Trial(*at, found, _floors(found, updates.stencil, drift, dt))


def _in_dynamics(network: Model) -> int:
    """How many parts take part in the dynamics: all but a readout."""
    return len(network.parts) - (network.readout is not None)


def verify(
    problem: Problem,
    rule: Increment | AsymmetricEP,
    plan: Plan,
    progress: Progress = _silent,
) -> Verification:
    """Whether the updates of a rule are the gradients of BPTT, in double precision whatever the
    problem comes in.

    ``problem`` has the system (its T and K are taken), the network, and a batch of inputs
    ``(B, *shapes[0])`` and targets ``(B, classes)``; ``rule`` is the increment, or AEP, whose own
    nudge the plan replaces; ``plan`` says at which betas, and for a continual rule at which
    learning rates. ``progress`` is told what begins, how many stages are done, and of how many.

    Raises ``EqpropError`` when K > T, when ``eta`` does not match the connections, when the free
    phase or a curve diverges or oscillates, and for a rule that is neither of these.
    """
    if not isinstance(rule, Increment | AsymmetricEP):
        raise EqpropError(
            f"{type(rule).__name__} is neither an increment nor AEP: give the increment of the "
            "rule, as ep.Equilibrium()"
        )
    edges = _in_dynamics(problem.network)
    if plan.eta is not None and len(plan.eta) != edges:
        raise EqpropError(
            f"{len(plan.eta)} learning rate(s) for {edges} connections: give one for each"
        )
    first, at_rest = plan.betas[0], "" if plan.eta is None else ", eta x 0"
    with numerics(double=True):
        trials = _Trials(to_double(problem), rule, plan, progress)
        betas = tuple(
            trials.against_bptt(f"beta {beta:g}{at_rest}", beta, plan.nudge(beta))
            for beta in plan.betas
        )
        asked, etas = betas[0], ()
        if plan.eta is not None:
            asked = trials.against_bptt(f"beta {first:g}, eta x 1", first, plan.nudge(first), 1.0)
            etas = tuple(trials.against_itself(first, factor) for factor in plan.factors)
        circles = {
            n: trials.against_bptt(
                f"beta {first:g}, {n} point(s)",
                first,
                OneSided(first) if n == 1 else Holomorphic(first, n),
            )
            for n in plan.points
        }
        return Verification(
            trials.settling,
            asked,
            betas,
            etas,
            _orders(betas, plan.betas),
            _orders(etas, plan.factors) if etas else {},
            circles,
        )
