"""The equations of EP, C-EP, VF and C-VF, written out eagerly in NumPy for dense networks.

Nothing is compiled, fused or telescoped: Python loops over time steps and connections, the input
product repeated at every step and, in continual rules, every weight rewritten at every step. It is
the baseline of ``eqprop bench`` and the oracle of the tests, so it uses nothing of the library and
is written to be obviously right. Matrix products take the whole batch; arrays keep their dtype.

- A state is a list ``s = [s0, s1, ..., sN]`` with ``s[0] = x``; layer l has the shape (B, n_l).
- An edge is ``(pre, post)`` with ``W`` of shape (n_pre, n_post): it sends ``r_pre W + b`` to post
  and, unless pre is the input, ``r_post W^T`` (tied) or ``r_post Wb^T`` (untied) back to pre.
- Parameters and updates are ``Params(W, b, Wb)``: lists with one entry per edge, None where the
  edge has no such array. Learning rates ``eta`` are one float per edge, for all three.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from eqprop.errors import EqpropError

type State = list[np.ndarray]
type Graph = Iterable[Sequence[int]]


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


class Params(NamedTuple):
    """One entry per edge: ``W`` (n_pre, n_post), ``b`` (n_post,) or None, ``Wb`` like W or None."""

    W: list[Any]
    b: list[Any]
    Wb: list[Any]


class Net(NamedTuple):
    """A graph of dense connections; ``sizes[0]`` is the input, ``sizes[-1]`` the output."""

    sizes: list[int]
    edges: list[tuple[int, int]]
    params: Params


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


def make_net(
    sizes: Sequence[int],
    W: Sequence[Any],
    b: Sequence[Any] | None = None,
    Wb: Sequence[Any] | None = None,
    edges: Graph | None = None,
) -> Net:
    """Check the shapes and build a ``Net``; by default ``edges`` is the chain (0, 1), (1, 2), ...,
    and ``b`` and ``Wb`` are absent.

    Raises ``EqpropError`` for arrays that do not fit.
    """
    pairs = chain(sizes) if edges is None else [(i, j) for i, j in edges]
    absent = [None] * len(pairs)
    params = Params(list(W), list(absent if b is None else b), list(absent if Wb is None else Wb))
    if any(len(group) != len(pairs) for group in params):
        raise EqpropError(f"W, b and Wb need one entry for each of the {len(pairs)} edges")
    for (i, j), w, bias, back in zip(pairs, *params, strict=True):
        edge = f"edge {(i, j)}"
        if j in (i, 0):
            raise EqpropError(f"{edge}: needs pre != post, and the input receives nothing")
        if w.shape != (sizes[i], sizes[j]):
            raise EqpropError(f"{edge}: W has shape {w.shape}, not {(sizes[i], sizes[j])}")
        if bias is not None and bias.shape != (sizes[j],):
            raise EqpropError(f"{edge}: b has shape {bias.shape}, not {(sizes[j],)}")
        if back is not None and (i == 0 or back.shape != w.shape):
            raise EqpropError(f"{edge}: Wb goes with a state layer, and has the shape of W")
    return Net(list(sizes), pairs, params)


def chain(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Edges of a layered net: (0, 1), (1, 2), ..., (N-1, N)."""
    return [(i, i + 1) for i in range(len(sizes) - 1)]


def require_tied(net: Net) -> None:
    """EP needs symmetric connections; raises ``EqpropError``."""
    if any(back is not None for back in net.params.Wb):
        raise EqpropError("an EP rule needs a tied net: leave out Wb")


def require_untied(net: Net) -> None:
    """VF has separate feedback weights on every edge that feeds back; raises ``EqpropError``."""
    if any(i > 0 and back is None for (i, _), back in zip(net.edges, net.params.Wb, strict=True)):
        raise EqpropError("a VF rule needs an untied net: give Wb on every edge between layers")


# ------------------------------------------------------------------------------ steps and phases


def zero_state(net: Net, x: np.ndarray) -> State:
    """[x, 0, ..., 0] with x of shape (B, n_0)."""
    return [x] + [np.zeros((len(x), n), x.dtype) for n in net.sizes[1:]]


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
    for (i, j), W, b, Wb in zip(net.edges, *net.params, strict=True):
        u[j] = u[j] + r[i] @ W
        if b is not None:
            u[j] = u[j] + b
        if i > 0:
            u[i] = u[i] + r[j] @ (W if Wb is None else Wb).T
    return u


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
        new[-1] = new[-1] + dyn.dt * force
        return [s[0]] + [np.clip(v, 0, 1) if dyn.clip else v for v in new]
    raise EqpropError(f"no such dynamics: {dyn}")


def free_phase(net: Net, dyn: Dynamics, x: np.ndarray, T: int, s: State | None = None) -> State:
    """T free steps from zero (or from ``s``): the state s_T."""
    s = zero_state(net, x) if s is None else s
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
    W = [r[i].T @ r[j] for i, j in net.edges]
    b = [
        None if b is None else r[j].sum(axis=0)
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
    for (i, j), _, b, Wb in zip(net.edges, *net.params, strict=True):
        change.W.append(r[i].T @ dr[j] / scale)
        change.b.append(None if b is None else dr[j].sum(axis=0) / scale)
        change.Wb.append(None if Wb is None else dr[i].T @ r[j] / scale)
    return change


class Phase(NamedTuple):
    """What a nudged phase did."""

    states: list[State]
    """[s_0 = s*, s_1, ..., s_K]"""
    increments: list[Params]
    """[dtheta(0), ..., dtheta(K-1)], before the learning rates"""
    update: Params
    """Their sum."""
    net: Net
    """The net with its new parameters."""


RULES = {
    "ep": (ep_increment, False),
    "c-ep": (ep_increment, True),
    "vf": (vf_increment, False),
    "c-vf": (vf_increment, True),
}
"""The increment of each rule, and whether it is applied at every step."""


def learn(rule: str, net: Net, dyn: Dynamics, s: State, y: np.ndarray, numbers: Numbers) -> Phase:
    """The nudged phase from ``s`` = s* with the rule "ep", "c-ep", "vf" or "c-vf".

    Each step: ``s_{t+1} = F(x, s_t, theta_t, beta)``, then ``dtheta(t)``; continual rules then
    write ``theta_{t+1} = theta_t + eta dtheta(t)``, the others add ``eta sum_t dtheta(t)`` after
    the phase.
    """
    increment, continual = RULES[rule]
    states, increments = [s], []
    for _ in range(numbers.K):
        s_next = step(net, dyn, s, y, numbers.beta)
        increments.append(increment(net, dyn, s, s_next, numbers.beta))
        if continual:
            net = net._replace(params=add_scaled(net.params, numbers.eta, increments[-1]))
        s = s_next
        states.append(s)
    update = total(increments)
    if not continual:
        net = net._replace(params=add_scaled(net.params, numbers.eta, update))
    return Phase(states, increments, update, net)


def minibatch(
    rule: str, net: Net, dyn: Dynamics, x: np.ndarray, y: np.ndarray, numbers: Numbers
) -> Net:
    """One training step: T free steps from zero, K nudged steps, new parameters. Returns the net.

    ``learn`` without its records. EP takes its update from the two ends of the phase (its
    definition, as in the authors' programs), not from K increments.
    """
    T, K, beta, eta = numbers
    s = free_phase(net, dyn, x, T)
    if rule == "ep":
        end = nudged_phase(net, dyn, s, y, K, beta)[-1]
        update = ep_increment(net, dyn, s, end, beta)
        return net._replace(params=add_scaled(net.params, eta, update))
    increment, continual = RULES[rule]
    update = None
    for _ in range(K):
        s_next = step(net, dyn, s, y, beta)
        change = increment(net, dyn, s, s_next, beta)
        if continual:
            net = net._replace(params=add_scaled(net.params, eta, change))
        else:
            update = change if update is None else total([update, change])
        s = s_next
    return net if update is None else net._replace(params=add_scaled(net.params, eta, update))
