"""The equations of EP, C-EP, VF and C-VF, written out eagerly in NumPy.

Nothing is compiled, fused or telescoped: Python loops over time steps and connections, the input
product repeated at every step and, in continual rules, every weight rewritten at every step. It is
the baseline of ``eqprop bench`` and the oracle of the tests, so it uses nothing of the library and
is written to be obviously right. Matrix products take the whole batch; arrays keep their dtype.

- A state is a list ``s = [s0, s1, ..., sN]`` with ``s[0] = x``; layer l has the shape (B, n_l), or
  (B, channel, row, column).
- An edge is ``(pre, post)``. In a dense net its ``W`` of shape (n_pre, n_post) sends ``r_pre W +
  b`` to post and, unless pre is the input, ``r_post W^T`` (tied) or ``r_post Wb^T`` (untied) back
  to pre. ``conv_transcription.py`` has the edges of convolutional nets; all else is the same.
- Parameters and updates are ``Params(W, b, Wb)``: lists with one entry per edge, None where the
  edge has no such array. Learning rates ``eta`` are one float per edge, for all three.
"""

import abc
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final, override

import numpy as np

from eqprop.errors import EqpropError

type State = list[np.ndarray]


@final
class Activation(NamedTuple):
    """A function of an array and its derivative."""

    f: Callable[[np.ndarray], np.ndarray]
    df: Callable[[np.ndarray], np.ndarray]


def sigm(v: np.ndarray) -> np.ndarray:
    """``sigm(v) = 1 / (1 + exp(-4 (v - 1/2)))``."""
    return 1 / (1 + np.exp(-4 * (v - 0.5)))


def d_sigm(v: np.ndarray) -> np.ndarray:
    """``sigm' = 4 sigm (1 - sigm)``."""
    return 4 * sigm(v) * (1 - sigm(v))


def hardsigm(v: np.ndarray) -> np.ndarray:
    """``hardsigm(v) = clip(v, 0, 1)``."""
    return np.clip(v, 0, 1)


def d_hardsigm(v: np.ndarray) -> np.ndarray:
    """1 on the CLOSED interval [0, 1], else 0: a state that starts at 0 must be free to leave."""
    return ((v >= 0) & (v <= 1)).astype(v.dtype)


def d_tanh(v: np.ndarray) -> np.ndarray:
    """``tanh' = 1 - tanh^2``."""
    return 1 - np.tanh(v) ** 2


ACTIVATIONS = {
    "sigm": Activation(sigm, d_sigm),
    "hardsigm": Activation(hardsigm, d_hardsigm),
    "tanh": Activation(np.tanh, d_tanh),
}


# ------------------------------------------------------------------------ networks and settings


@final
class Params(NamedTuple):
    """One entry per edge: ``W`` (n_pre, n_post), ``b`` (n_post,) or None, ``Wb`` like W or None."""

    W: list[Any]
    b: list[Any]
    Wb: list[Any]


@dataclass(frozen=True)
class Net(abc.ABC):
    """Abstract: layers and edges between them. What an edge sends, and what it sees, differs from
    one kind of net to another.
    """

    edges: list[tuple[int, int]]
    params: Params
    fixed_biases: frozenset[int] = dataclasses.field(default=frozenset(), kw_only=True)
    """Edges whose bias is not trained."""

    def with_params(self, params: Params) -> "Net":
        """The same net with other parameters, but for the biases that are fixed."""
        pairs = zip(self.params.b, params.b, strict=True)
        b = [old if e in self.fixed_biases else new for e, (old, new) in enumerate(pairs)]
        return dataclasses.replace(self, params=params._replace(b=b))

    @abc.abstractmethod
    def zero_state(self, x: np.ndarray) -> State:
        """[x, 0, ..., 0]."""

    @abc.abstractmethod
    def forward(self, e: int, r_pre: np.ndarray) -> np.ndarray:
        """What edge number e sends to its post layer, without its bias."""

    @abc.abstractmethod
    def feedback(self, e: int, r_pre: np.ndarray, r_post: np.ndarray) -> np.ndarray:
        """What it sends back to its pre layer: the transpose of ``forward`` in r_pre, at r_post."""

    @abc.abstractmethod
    def product(self, e: int, r_pre: np.ndarray, r_post: np.ndarray) -> np.ndarray:
        """The transpose of ``forward`` in W, at r_post: summed over the batch, and shaped as W."""


@final
@dataclass(frozen=True)
class DenseNet(Net):
    """A graph of dense edges; ``sizes[0]`` is the input, ``sizes[-1]`` the output."""

    sizes: list[int]

    @override
    def zero_state(self, x: np.ndarray) -> State:
        return [x] + [np.zeros((len(x), n), x.dtype) for n in self.sizes[1:]]

    @override
    def forward(self, e: int, r_pre: np.ndarray) -> np.ndarray:
        return r_pre @ self.params.W[e]

    @override
    def feedback(self, e: int, r_pre: np.ndarray, r_post: np.ndarray) -> np.ndarray:
        W, Wb = self.params.W[e], self.params.Wb[e]
        return r_post @ (W if Wb is None else Wb).T

    @override
    def product(self, e: int, r_pre: np.ndarray, r_post: np.ndarray) -> np.ndarray:
        return r_pre.T @ r_post


@final
class Dynamics(NamedTuple):
    """Which step F is meant."""

    setting: str = "prototypical"
    """"prototypical" or "energy"."""
    activation: str = "sigm"
    """"sigm", "hardsigm" or "tanh": sigma (prototypical), rho (energy)."""
    nudge: str = "outside"
    """Prototypical only: "outside" or "inside" the activation."""
    dt: float = 1.0
    """Energy only: the time step."""
    input_rate: str = "rho"
    """Energy only: what the input sends, "rho" for rho(x) (as in E) or "identity" for x."""
    clip: bool = False
    """Energy only: clip the states to [0, 1] after each step."""
    output_slope: bool = True
    """Energy only: whether the output's drive is multiplied by rho', as that of the others."""


@final
class Numbers(NamedTuple):
    """The numbers of a training step."""

    T: int
    """Free steps."""
    K: int
    """Nudged steps."""
    beta: float
    """Nudging strength, with its sign."""
    eta: Sequence[float] | np.ndarray
    """Learning rates, one per edge."""


def require_tied(net: Net) -> None:
    """EP needs symmetric connections; raises ``EqpropError``."""
    if any(back is not None for back in net.params.Wb):
        raise EqpropError("an EP rule needs a tied net: leave out Wb")


def require_untied(net: Net) -> None:
    """VF has separate feedback weights on every edge that feeds back; raises ``EqpropError``."""
    if any(i > 0 and back is None for (i, _), back in zip(net.edges, net.params.Wb, strict=True)):
        raise EqpropError("a VF rule needs an untied net: give Wb on every edge between layers")


# ------------------------------------------------------------------------------ steps and phases


def rates(dyn: Dynamics, s: State) -> State:
    """What each layer sends: ``s`` itself (prototypical) or rho(s) (energy)."""
    if dyn.setting == "prototypical":
        return list(s)
    rho = ACTIVATIONS[dyn.activation].f
    x = {"rho": rho, "identity": np.array}[dyn.input_rate](s[0])
    return [x] + [rho(layer) for layer in s[1:]]


def drives(net: Net, r: State) -> list[Any]:
    """``u_j = sum_{(i, j)} (r_i W + b) + sum_{(j, k)} r_k Wb^T``, one (B, n_j) per layer; u_0 is
    None. Tied edges have Wb = W.
    """
    u: list[Any] = [None] + [np.zeros_like(layer) for layer in r[1:]]
    for e, (i, j) in enumerate(net.edges):
        u[j] = u[j] + net.forward(e, r[i])
        b = net.params.b[e]
        if b is not None:
            u[j] = u[j] + b.reshape(-1, *[1] * (u[j].ndim - 2))
        if i > 0:
            u[i] = u[i] + net.feedback(e, r[i], r[j])
    return u


def bias_sum(v: np.ndarray) -> np.ndarray:
    """The transpose of adding a bias: (B, n) -> (n,), (B, channel, row, column) -> (channel,)."""
    return v.sum(axis=(0, *range(2, v.ndim)))


def step(
    net: Net, dyn: Dynamics, s: State, y: np.ndarray | None = None, beta: float = 0.0
) -> State:
    """``s_{t+1} = F(x, s_t, theta, beta)``: every layer at once, from the states at t.

    prototypical  s_i <- sigma(u_i); nudge on the output: ``+ beta (y - sN)`` outside or inside
    energy        s_i <- s_i + dt (-s_i + rho'(s_i) u_i), ``+ dt beta (y - sN)`` on the output
    """
    act = ACTIVATIONS[dyn.activation]
    u = drives(net, rates(dyn, s))
    force = 0.0 if y is None else float(beta) * (y - s[-1])
    if dyn.setting == "prototypical":
        if dyn.nudge == "inside":
            return [s[0]] + [act.f(v) for v in u[1:-1]] + [act.f(u[-1] + force)]
        if dyn.nudge == "outside":
            return [s[0]] + [act.f(v) for v in u[1:-1]] + [act.f(u[-1]) + force]
    if dyn.setting == "energy":
        new = [v + dyn.dt * (-v + act.df(v) * w) for v, w in zip(s[1:], u[1:], strict=True)]
        if not dyn.output_slope:
            new[-1] = s[-1] + dyn.dt * (-s[-1] + u[-1])
        new[-1] = new[-1] + dyn.dt * force
        return [s[0]] + [np.clip(v, 0, 1) if dyn.clip else v for v in new]
    raise EqpropError(f"no such dynamics: {dyn}")


def free_phase(net: Net, dyn: Dynamics, x: np.ndarray, T: int, s: State | None = None) -> State:
    """T free steps from zero (or from ``s``): the state s_T."""
    s = net.zero_state(x) if s is None else s
    for _ in range(T):
        s = step(net, dyn, s)
    return s


def nudged_phase(
    net: Net, dyn: Dynamics, s: State, y: np.ndarray, K: int, beta: float
) -> list[State]:
    """K nudged steps from ``s`` at fixed parameters: the list [s_1, ..., s_K] of states."""
    states: list[State] = []
    for _ in range(K):
        s = step(net, dyn, s, y, beta)
        states.append(s)
    return states


# ----------------------------------------------------------------------------- parameter algebra


def combine(f: Callable[..., np.ndarray], *params: Params) -> Params:
    """``f(edge, *arrays)`` for the matching arrays of ``params``."""

    def at(e: int, arrays: Sequence[Any]) -> np.ndarray | None:
        return None if arrays[0] is None else f(e, *arrays)

    groups = (
        [at(e, arrays) for e, arrays in enumerate(zip(*group, strict=True))]
        for group in zip(*params, strict=True)
    )
    return Params(*groups)


def add_scaled(params: Params, eta: Sequence[float] | np.ndarray, update: Params) -> Params:
    """``theta + eta update``, with one eta per edge."""
    return combine(lambda e, p, d: p + float(eta[e]) * d, params, update)


def total(list_of_params: Sequence[Params]) -> Params:
    """The sum of ``Params``, first to last."""
    result = list_of_params[0]
    for p in list_of_params[1:]:
        result = combine(lambda _, a, b: a + b, result, p)
    return result


# ------------------------------------------------------------------------------------- the rules


def statistic(net: Net, dyn: Dynamics, s: State) -> Params:
    """dPhi/dtheta (prototypical), -dE/dtheta (energy): ``r_pre^T r_post``, ``sum_batch r_post``."""
    require_tied(net)
    r = rates(dyn, s)
    W = [net.product(e, r[i], r[j]) for e, (i, j) in enumerate(net.edges)]
    b = [
        None if b is None else bias_sum(r[j])
        for b, (_, j) in zip(net.params.b, net.edges, strict=True)
    ]
    return Params(W, b, [None] * len(net.edges))


def ep_increment(net: Net, dyn: Dynamics, s: State, s_next: State, beta: float) -> Params:
    """``dtheta(t) = 1/(beta B) (dPhi/dtheta(s_{t+1}) - dPhi/dtheta(s_t))``."""
    scale = float(beta) * len(s[0])
    return combine(
        lambda _, after, before: (after - before) / scale,
        statistic(net, dyn, s_next),
        statistic(net, dyn, s),
    )


def vf_increment(net: Net, dyn: Dynamics, s: State, s_next: State, beta: float) -> Params:
    """Presynaptic rate now times postsynaptic change, with ``dr = r_{t+1} - r_t``.

    ``dW = 1/(beta B) r_pre^T dr_post``, ``dWb = 1/(beta B) dr_pre^T r_post``,
    ``db = 1/(beta B) sum dr_post``
    """
    require_untied(net)
    scale = float(beta) * len(s[0])
    r = rates(dyn, s)
    dr = [after - before for after, before in zip(rates(dyn, s_next), r, strict=True)]
    change = Params([], [], [])
    for e, ((i, j), _, b, Wb) in enumerate(zip(net.edges, *net.params, strict=True)):
        change.W.append(net.product(e, r[i], dr[j]) / scale)
        change.b.append(None if b is None else bias_sum(dr[j]) / scale)
        change.Wb.append(None if Wb is None else net.product(e, dr[i], r[j]) / scale)
    return change


RULES = {
    "ep": (ep_increment, False),
    "c-ep": (ep_increment, True),
    "vf": (vf_increment, False),
    "c-vf": (vf_increment, True),
}
"""The increment of each rule, and whether it is applied at every step."""


def nudged_steps(
    rule: str, net: Net, dyn: Dynamics, s: State, y: np.ndarray, numbers: Numbers
) -> Iterator[tuple[State, Params, Net]]:
    """The K steps of a nudged phase from ``s`` = s*; yields s_{t+1}, dtheta(t), and the net after
    the step.

    Each step: ``s_{t+1} = F(x, s_t, theta_t, beta)``, then ``dtheta(t)``; continual rules then
    write ``theta_{t+1} = theta_t + eta dtheta(t)``, the others leave the net as it is.
    """
    increment, continual = RULES[rule]
    for _ in range(numbers.K):
        s_next = step(net, dyn, s, y, numbers.beta)
        change = increment(net, dyn, s, s_next, numbers.beta)
        if continual:
            net = net.with_params(add_scaled(net.params, numbers.eta, change))
        s = s_next
        yield s, change, net


def minibatch(
    rule: str, net: Net, dyn: Dynamics, x: np.ndarray, y: np.ndarray, numbers: Numbers
) -> Net:
    """One training step: T free steps from zero, K nudged steps, new parameters. Returns the net.

    VF adds ``eta sum_t dtheta(t)`` after the phase. EP takes its update from the two ends of the
    phase (its definition, as in the authors' programs), not from K increments.
    """
    T, K, beta, eta = numbers
    s = free_phase(net, dyn, x, T)
    if rule == "ep":
        end = nudged_phase(net, dyn, s, y, K, beta)[-1]
        update = ep_increment(net, dyn, s, end, beta)
        return net.with_params(add_scaled(net.params, eta, update))
    update, continual = None, RULES[rule][1]
    for _, change, moved in nudged_steps(rule, net, dyn, s, y, numbers):
        net = moved
        if not continual:
            update = change if update is None else total([update, change])
    return net if update is None else net.with_params(add_scaled(net.params, eta, update))
