"""An eager NumPy transcription of the equations that `eqprop` implements (docs: THEORY).

It is the judge of the JAX library (float64, to 1e-12) and the eager baseline of its benchmarks, so
it imports nothing of the library and is written to be obviously right: Python loops over time
steps and connections, the input product repeated and, in continual rules, every weight rewritten
at every step. Matrix products take the whole batch. Arrays keep the dtype of the inputs.

Conventions
-----------
- A state is a list `s = [s0, s1, ..., sN]` with `s[0] = x`, so `s[l]` is layer l, shape (B, n_l).
- An edge is `(pre, post)` with `W` of shape (n_pre, n_post): it sends `r_pre W + b` to post and,
  unless pre is the input, `r_post W^T` (tied) or `r_post Wb^T` (untied) back to pre.
- Parameters, updates and gradients are `Params(W, b, Wb)`: lists with one entry per edge, None
  where the edge has no such array. Learning rates `eta` are one float per edge, for all three.
- Loss per example `l = 1/2 |y - sN|^2`, `L` its mean over the batch.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

# --------------------------------------------------------------------------------- activations


class Activation(NamedTuple):
    """A function `f` of an array with its first and second derivatives."""

    f: Callable[[np.ndarray], np.ndarray]
    df: Callable[[np.ndarray], np.ndarray]
    ddf: Callable[[np.ndarray], np.ndarray]


def sigm(v):
    """sigm(v) = 1 / (1 + exp(-4 (v - 1/2)))."""
    return 1 / (1 + np.exp(-4 * (v - 0.5)))


def d_sigm(v):
    """sigm' = 4 sigm (1 - sigm)."""
    return 4 * sigm(v) * (1 - sigm(v))


def dd_sigm(v):
    """sigm'' = 16 sigm (1 - sigm) (1 - 2 sigm)."""
    return 16 * sigm(v) * (1 - sigm(v)) * (1 - 2 * sigm(v))


def hardsigm(v):
    """hardsigm(v) = clip(v, 0, 1)."""
    return np.clip(v, 0, 1)


def d_hardsigm(v):
    """1 on the CLOSED interval [0, 1], else 0: a state that starts at 0 must be free to leave."""
    return ((v >= 0) & (v <= 1)).astype(v.dtype)


def dd_hardsigm(v):
    """Zero (almost everywhere)."""
    return np.zeros_like(v)


def d_tanh(v):
    """tanh' = 1 - tanh^2."""
    return 1 - np.tanh(v) ** 2


def dd_tanh(v):
    """tanh'' = -2 tanh (1 - tanh^2)."""
    return -2 * np.tanh(v) * (1 - np.tanh(v) ** 2)


ACTIVATIONS = {
    "sigm": Activation(sigm, d_sigm, dd_sigm),
    "hardsigm": Activation(hardsigm, d_hardsigm, dd_hardsigm),
    "tanh": Activation(np.tanh, d_tanh, dd_tanh),
}


# ------------------------------------------------------------------------ networks and settings


class Params(NamedTuple):
    """One entry per edge: `W` (n_pre, n_post), `b` (n_post,) or None, `Wb` like `W` or None."""

    W: list
    b: list
    Wb: list


class Net(NamedTuple):
    """A graph of dense connections; `sizes[0]` is the input, `sizes[-1]` the output."""

    sizes: list
    edges: list
    params: Params


class Dynamics(NamedTuple):
    """Which step F is meant.

    setting     "prototypical" or "energy"
    activation  "sigm", "hardsigm" or "tanh": sigma (prototypical), rho (energy)
    nudge       prototypical only: "outside" or "inside" the activation
    dt          energy only: the time step
    input_rate  energy only: what the input sends, "rho" for rho(x) (as in E) or "identity" for x
    clip        energy only: clip the states to [0, 1] after each step
    """

    setting: str = "prototypical"
    activation: str = "sigm"
    nudge: str = "outside"
    dt: float = 1.0
    input_rate: str = "rho"
    clip: bool = False


def chain(sizes):
    """Edges of a layered net: (0, 1), (1, 2), ..., (N-1, N)."""
    return [(i, i + 1) for i in range(len(sizes) - 1)]


def make_net(sizes, W, b=None, Wb=None, edges=None):
    """Check the shapes and build a `Net`; `edges` is a chain, `b` and `Wb` absent, by default."""
    edges = chain(sizes) if edges is None else [tuple(e) for e in edges]
    absent: list = [None] * len(edges)
    b = absent if b is None else list(b)
    Wb = absent if Wb is None else list(Wb)
    if not len(W) == len(b) == len(Wb) == len(edges):
        raise ValueError("W, b and Wb need one entry per edge")
    for e, (i, j) in enumerate(edges):
        if j in (i, 0):
            raise ValueError(f"edge {(i, j)}: needs pre != post, and the input receives nothing")
        if W[e].shape != (sizes[i], sizes[j]):
            raise ValueError(f"edge {(i, j)}: W has shape {W[e].shape}")
        if b[e] is not None and b[e].shape != (sizes[j],):
            raise ValueError(f"edge {(i, j)}: b has shape {b[e].shape}")
        if Wb[e] is not None and (i == 0 or Wb[e].shape != W[e].shape):
            raise ValueError(f"edge {(i, j)}: Wb goes with a state layer, with the shape of W")
    return Net(list(sizes), edges, Params(list(W), list(b), list(Wb)))


def random_net(rng, sizes, edges=None, untied=False, dtype: type = np.float64):
    """U(-1/sqrt(n_pre), 1/sqrt(n_pre)) weights and biases; `untied` draws Wb apart from W."""
    edges = chain(sizes) if edges is None else edges

    def draw(pre, *shape):
        bound = 1 / np.sqrt(sizes[pre])
        return rng.uniform(-bound, bound, shape).astype(dtype)

    W = [draw(i, sizes[i], sizes[j]) for i, j in edges]
    b = [draw(i, sizes[j]) for i, j in edges]
    Wb = [draw(i, sizes[i], sizes[j]) if untied and i > 0 else None for i, j in edges]
    return make_net(sizes, W, b, Wb, edges)


def zero_state(net, x):
    """[x, 0, ..., 0] with x of shape (B, n_0)."""
    return [x] + [np.zeros((len(x), n), x.dtype) for n in net.sizes[1:]]


# ------------------------------------------------------------------------------------- one step


def rates(dyn, s):
    """What each layer sends: `s` itself (prototypical) or rho(s) (energy)."""
    if dyn.setting == "prototypical":
        return list(s)
    rho = ACTIVATIONS[dyn.activation].f
    x = {"rho": rho, "identity": np.array}[dyn.input_rate](s[0])
    return [x] + [rho(layer) for layer in s[1:]]


def drives(net, r):
    """u_j = sum_{(i, j)} (r_i W + b) + sum_{(j, k)} r_k Wb^T, one (B, n_j) per layer; u_0 is None.

    Tied edges have Wb = W.
    """
    u: list = [None] + [np.zeros_like(layer) for layer in r[1:]]
    for e, (i, j) in enumerate(net.edges):
        W, b, Wb = (group[e] for group in net.params)
        u[j] = u[j] + r[i] @ W
        if b is not None:
            u[j] = u[j] + b
        if i > 0:
            u[i] = u[i] + r[j] @ (W if Wb is None else Wb).T
    return u


def step(net, dyn, s, y=None, beta=0.0):
    """s_{t+1} = F(x, s_t, theta, beta): every layer at once, from the states at t.

    prototypical  s_i <- sigma(u_i); nudge on the output: `+ beta (y - sN)` outside or inside sigma
    energy        s_i <- s_i + dt (-s_i + rho'(s_i) u_i), `+ dt beta (y - sN)` on the output
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
        new = [s[0]] + [
            v + dyn.dt * (-v + act.df(v) * w) for v, w in zip(s[1:], u[1:], strict=True)
        ]
        new[-1] = new[-1] + dyn.dt * force
        return [s[0]] + [np.clip(v, 0, 1) for v in new[1:]] if dyn.clip else new
    raise ValueError(f"no such dynamics: {dyn}")


def free_phase(net, dyn, x, T, s=None):
    """T free steps from zero (or from `s`): the state s_T."""
    s = zero_state(net, x) if s is None else s
    for _ in range(T):
        s = step(net, dyn, s)
    return s


def nudged_phase(net, dyn, s, y, K, beta):
    """K nudged steps from `s` at fixed parameters: the list [s_1, ..., s_K] of states."""
    states = []
    for _ in range(K):
        s = step(net, dyn, s, y, beta)
        states.append(s)
    return states


# ------------------------------------------------------------------- energy and local statistics


def interaction(net, dyn, s):
    """sum over edges and batch of r_post . (r_pre W + b); an untied net has no energy."""
    require_tied(net)
    r = rates(dyn, s)
    total = 0.0
    for e, (i, j) in enumerate(net.edges):
        drive = r[i] @ net.params.W[e]
        if net.params.b[e] is not None:
            drive = drive + net.params.b[e]
        total = total + np.sum(r[j] * drive)
    return total


def energy(net, dyn, s):
    """E = 1/2 sum_i |s_i|^2 - sum_edges rho(s_post) . (rho(s_pre) W + b), summed over the batch."""
    if dyn.setting != "energy":
        raise ValueError("the prototypical setting has a potential Phi, no energy")
    return 0.5 * sum(np.sum(layer**2) for layer in s[1:]) - interaction(net, dyn, s)


def phi(net, dyn, s):
    """Summed over the batch.

    prototypical  Phi = sum_edges s_post . (s_pre W + b), and F = sigma(dPhi/ds)
    energy        Phi = 1/2 |s|^2 - dt E, and F = dPhi/ds
    """
    if dyn.setting == "prototypical":
        return interaction(net, dyn, s)
    return 0.5 * sum(np.sum(layer**2) for layer in s[1:]) - dyn.dt * energy(net, dyn, s)


def require_tied(net):
    """EP needs symmetric connections."""
    if any(Wb is not None for Wb in net.params.Wb):
        raise ValueError("needs a tied net")


def require_untied(net):
    """VF has separate feedback weights on every edge that feeds back."""
    if any(i > 0 and net.params.Wb[e] is None for e, (i, _) in enumerate(net.edges)):
        raise ValueError("needs an untied net")


def statistic(net, dyn, s):
    """r_pre^T r_post and sum_batch r_post: dPhi/dtheta (prototypical), -dE/dtheta (energy)."""
    require_tied(net)
    r = rates(dyn, s)
    W = [r[i].T @ r[j] for i, j in net.edges]
    b = [
        None if b is None else r[j].sum(axis=0)
        for b, (_, j) in zip(net.params.b, net.edges, strict=True)
    ]
    return Params(W, b, [None] * len(net.edges))


# ----------------------------------------------------------------------------- parameter algebra


def combine(f, *params):
    """f applied to matching arrays of `params`, with the number of the edge as first argument."""

    def at(e, group):
        return None if group[0] is None else f(e, *group)

    groups = (
        [at(e, arrays) for e, arrays in enumerate(zip(*group, strict=True))]
        for group in zip(*params, strict=True)
    )
    return Params(*groups)


def add_scaled(params, eta, update):
    """theta + eta * update, with one eta per edge."""
    return combine(lambda e, p, d: p + float(eta[e]) * d, params, update)


def total(list_of_params):
    """The sum of a list of `Params`, first to last."""
    result = list_of_params[0]
    for p in list_of_params[1:]:
        result = combine(lambda _, a, b: a + b, result, p)
    return result


# ------------------------------------------------------------------------------------- the rules


def ep_increment(net, dyn, s, s_next, beta):
    """dtheta(t) = 1/(beta B) (dPhi/dtheta(s_{t+1}) - dPhi/dtheta(s_t))."""
    scale = float(beta) * len(s[0])
    return combine(
        lambda _, after, before: (after - before) / scale,
        statistic(net, dyn, s_next),
        statistic(net, dyn, s),
    )


def vf_increment(net, dyn, s, s_next, beta):
    """Presynaptic rate now times postsynaptic change, with `dr = r_{t+1} - r_t`.

    dW = 1/(beta B) r_pre^T dr_post,  dWb = 1/(beta B) dr_pre^T r_post,  db = 1/(beta B) sum dr_post
    """
    require_untied(net)
    scale = float(beta) * len(s[0])
    r = rates(dyn, s)
    dr = [after - before for after, before in zip(rates(dyn, s_next), r, strict=True)]
    W, b, Wb = [], [], []
    for e, (i, j) in enumerate(net.edges):
        W.append(r[i].T @ dr[j] / scale)
        b.append(None if net.params.b[e] is None else dr[j].sum(axis=0) / scale)
        Wb.append(None if net.params.Wb[e] is None else dr[i].T @ r[j] / scale)
    return Params(W, b, Wb)


class Phase(NamedTuple):
    """What a nudged phase did.

    states      [s_0 = s*, s_1, ..., s_K]
    increments  [dtheta(0), ..., dtheta(K-1)], before the learning rates
    update      their sum
    net         the net with its new parameters
    """

    states: list
    increments: list
    update: Params
    net: Net


RULES = {
    "ep": (ep_increment, False),
    "c-ep": (ep_increment, True),
    "vf": (vf_increment, False),
    "c-vf": (vf_increment, True),
}


def learn(rule, net, dyn, s, y, K, beta, eta):
    """The nudged phase from `s` = s* with the rule "ep", "c-ep", "vf" or "c-vf".

    Each step: `s_{t+1} = F(x, s_t, theta_t, beta)`, then `dtheta(t)`; continual rules then write
    `theta_{t+1} = theta_t + eta dtheta(t)`, the others add `eta sum_t dtheta(t)` after the phase.
    """
    increment, continual = RULES[rule]
    states, increments = [s], []
    for _ in range(K):
        s_next = step(net, dyn, s, y, beta)
        increments.append(increment(net, dyn, s, s_next, beta))
        if continual:
            net = net._replace(params=add_scaled(net.params, eta, increments[-1]))
        s = s_next
        states.append(s)
    update = total(increments)
    if not continual:
        net = net._replace(params=add_scaled(net.params, eta, update))
    return Phase(states, increments, update, net)


def stencil_update(net, dyn, s, y, K, betas, weights):
    """EP from several nudged phases: 1/B sum_k w_k (dPhi/dtheta(s_K^{beta_k}) - dPhi/dtheta(s*)).

    All phases start from `s` = s*. One-sided EP is betas (beta,), weights (1/beta,). With weights
    that add up to zero the term in s* drops out, as in centered nudging.
    """
    free = statistic(net, dyn, s)
    terms = []
    for beta, weight in zip(betas, weights, strict=True):
        nudged = statistic(net, dyn, nudged_phase(net, dyn, s, y, K, beta)[-1])
        scale = float(weight) / len(s[0])
        terms.append(combine(lambda _, a, b, c=scale: c * (a - b), nudged, free))
    return total(terms)


def centered_update(net, dyn, s, y, K, beta):
    """1/(2 beta B) (dPhi/dtheta(s_K^{+beta}) - dPhi/dtheta(s_K^{-beta}))."""
    return stencil_update(net, dyn, s, y, K, (beta, -beta), (1 / (2 * beta), -1 / (2 * beta)))


def minibatch(rule, net, dyn, x, y, T, K, beta, eta):
    """One training step: T free steps from zero, K nudged steps, new parameters. Returns the net.

    The benchmark baseline: `learn` without its records. EP takes its update from the two ends of
    the phase (its definition, as in the authors' programs), not from K increments.
    """
    s = free_phase(net, dyn, x, T)
    if rule == "ep":
        update = stencil_update(net, dyn, s, y, K, (beta,), (1 / beta,))
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
    return net if continual else net._replace(params=add_scaled(net.params, eta, update))


# -------------------------------------------------------------------------------- BPTT, Theorem 1


def loss(s, y):
    """l = 1/2 |y - sN|^2 per example, shape (B,)."""
    return 0.5 * np.sum((y - s[-1]) ** 2, axis=1)


class Bptt(NamedTuple):
    """Gradients of the free dynamics through its last K steps, index t = 0 ... K-1 backwards.

    grad_s[t][l]   dl/ds_{T-t} of each example, layer l, shape (B, n_l); grad_s[t][0] is None
    grad_theta[t]  dL/dtheta for the copy of theta in the step s_{T-t-1} -> s_{T-t}, a batch mean
    """

    grad_s: list
    grad_theta: list


def step_vjp(net, dyn, s, g):
    """Pull `g` = dl/ds_{t+1} back through s_{t+1} = F(s_t, theta), free step, from s = s_t.

    Returns dl/ds_t (one array per layer) and dl/dtheta summed over the batch. With `u` the drives
    and `delta_j = dl/du_j`, an edge gives, as u_j = ... + r_i W + b and u_i = ... + r_j Wb^T:
      dl/dW = r_i^T delta_j,  dl/dWb = delta_i^T r_j  (tied: dl/dW is their sum),
      dl/db = sum delta_j,    dl/dr_i += delta_j W^T,  dl/dr_j += delta_i Wb.
    """
    act = ACTIVATIONS[dyn.activation]
    r = rates(dyn, s)
    u = drives(net, r)
    layers = range(1, len(s))
    if dyn.setting == "prototypical":
        delta = [None] + [g[j] * act.df(u[j]) for j in layers]
    else:
        if dyn.clip:  # the derivative of the clip is 1 on the closed interval [0, 1]
            v = step(net, dyn._replace(clip=False), s)
            g = [None] + [g[j] * d_hardsigm(v[j]) for j in layers]
        delta = [None] + [g[j] * dyn.dt * act.df(s[j]) for j in layers]

    g_r: list = [None] + [np.zeros_like(s[j]) for j in layers]
    grad_W, grad_b, grad_Wb = [], [], []
    for e, (i, j) in enumerate(net.edges):
        W, b, Wb = (group[e] for group in net.params)
        forward = r[i].T @ delta[j]
        grad_b.append(None if b is None else delta[j].sum(axis=0))
        if i == 0:
            grad_W.append(forward)
            grad_Wb.append(None)
            continue
        backward = delta[i].T @ r[j]
        grad_W.append(forward + backward if Wb is None else forward)
        grad_Wb.append(None if Wb is None else backward)
        g_r[i] = g_r[i] + delta[j] @ W.T
        g_r[j] = g_r[j] + delta[i] @ (W if Wb is None else Wb)

    if dyn.setting == "prototypical":
        g_s = g_r
    else:  # s_j enters by itself, through rho'(s_j), and through its rate
        g_s = [None] + [
            g[j] * (1 - dyn.dt + dyn.dt * act.ddf(s[j]) * u[j]) + act.df(s[j]) * g_r[j]
            for j in layers
        ]
    return g_s, Params(grad_W, grad_b, grad_Wb)


def bptt(net, dyn, x, y, T, K):
    """Truncated BPTT of T free steps from zero, loss at s_T. See `Bptt`; requires K <= T."""
    trajectory = [free_phase(net, dyn, x, T - K)]
    for _ in range(K):
        trajectory.append(step(net, dyn, trajectory[-1]))  # s_{T-K}, ..., s_T
    g = [None] + [np.zeros_like(layer) for layer in trajectory[-1][1:]]
    g[-1] = trajectory[-1][-1] - y
    grad_s, grad_theta = [], []
    for t in range(K):
        grad_s.append(g)
        g, grad = step_vjp(net, dyn, trajectory[K - 1 - t], g)
        grad_theta.append(combine(lambda _, a: a / len(x), grad))
    return Bptt(grad_s, grad_theta)


def d_states(dyn, states, beta) -> list:
    """D_s(t) = (s_{t+1} - s_t)/beta, or /(beta dt) in the energy setting; like `Bptt.grad_s`.

    `states` = [s*, s_1, ..., s_K] as in `Phase`. D_theta(t) is `Phase.increments[t]`.
    """
    scale = float(beta) * (dyn.dt if dyn.setting == "energy" else 1.0)
    return [
        [None] + [(b - a) / scale for a, b in zip(before[1:], after[1:], strict=True)]
        for before, after in pairwise(states)
    ]


def relmse(D, grad):
    """mean over elements of sqrt( sum_t (D + grad)^2 / max(sum_t D^2, sum_t grad^2) ).

    `D` and `grad` have time first. An element with D = grad = 0 at all times counts as 0.
    """
    error = np.sum((D + grad) ** 2, axis=0)
    size = np.maximum(np.sum(D**2, axis=0), np.sum(grad**2, axis=0))
    return np.mean(np.sqrt(error / np.where(size > 0, size, 1)))


def angle(a, b):
    """The angle in degrees between two `Params` (or arrays), everything concatenated."""
    a, b = (
        np.concatenate([v.ravel() for group in p for v in group if v is not None])
        if isinstance(p, Params)
        else np.ravel(p)
        for p in (a, b)
    )
    cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


# --------------------------------------------------------------------- convolutional, prototypical


class ConvNet(NamedTuple):
    """Conv layers (k x k, stride 1, no padding, bias, max-pool p), then dense layers; tied.

    `W[c]` is (out, in, row, column) for a conv connection, (n_pre, n_post) for a dense one, which
    sees its presynaptic layer flattened channel first. `pool` is p. Biases everywhere.
    """

    W: list
    b: list
    pool: int


def conv(x, W):
    """Cross-correlation, (B, in, H, W) with (out, in, k, k) -> (B, out, H-k+1, W-k+1)."""
    k = W.shape[-1]
    rows, columns = x.shape[2] - k + 1, x.shape[3] - k + 1
    out = np.zeros((len(x), len(W), rows, columns), x.dtype)
    for i in range(k):
        for j in range(k):
            patch = x[:, :, i : i + rows, j : j + columns]
            out += np.einsum("bchw,oc->bohw", patch, W[:, :, i, j])
    return out


def conv_transpose(v, W):
    """The transpose of `conv` in x: (B, out, h, w) -> (B, in, h+k-1, w+k-1)."""
    k = W.shape[-1]
    rows, columns = v.shape[2:]
    out = np.zeros((len(v), W.shape[1], rows + k - 1, columns + k - 1), v.dtype)
    for i in range(k):
        for j in range(k):
            patch = np.einsum("bohw,oc->bchw", v, W[:, :, i, j])
            out[:, :, i : i + rows, j : j + columns] += patch
    return out


def conv_kernel_vjp(x, v, k):
    """The transpose of `conv` in W: sum over batch and places of v times the patch it saw."""
    rows, columns = v.shape[2:]
    out = np.zeros((v.shape[1], x.shape[1], k, k), x.dtype)
    for i in range(k):
        for j in range(k):
            patch = x[:, :, i : i + rows, j : j + columns]
            out[:, :, i, j] = np.einsum("bohw,bchw->oc", v, patch)
    return out


def windows(v, p):
    """(B, C, H, W) -> (B, C, H//p, W//p, p*p), each window in row-major order."""
    B, C, H, W = v.shape
    v = v[:, :, : H // p * p, : W // p * p].reshape(B, C, H // p, p, W // p, p)
    return v.transpose(0, 1, 2, 4, 3, 5).reshape(B, C, H // p, W // p, p * p)


def pool_indices(v, p):
    """Place of the maximum in each window; of equal maxima the FIRST in row-major order."""
    return windows(v, p).argmax(axis=-1)


def pool_at(v, indices, p):
    """Take from each window the entry at `indices` (max-pooling, given its own indices)."""
    return np.take_along_axis(windows(v, p), indices[..., None], axis=-1)[..., 0]


def unpool(v, indices, p, shape):
    """The transpose of `pool_at`: put each entry of v at its index, zero elsewhere."""
    out = np.zeros(shape, v.dtype)
    for i in range(p):
        for j in range(p):
            here = np.where(indices == i * p + j, v, 0)
            out[:, :, i : v.shape[2] * p : p, j : v.shape[3] * p : p] = here
    return out


# A connection at fixed pooling indices is bilinear in W and s_pre: A(W, s_pre) below. Feedback and
# statistic are its transposes. A dense connection has indices None.


def pooled_indices(W, s_pre, p):
    """The pooling indices of a connection at the state s_pre (None for a dense connection)."""
    return pool_indices(conv(s_pre, W), p) if W.ndim == 4 else None


def conv_forward(W, s_pre, indices, p):
    """A(W, s_pre), without the bias (which commutes with the pooling)."""
    if W.ndim == 2:
        return s_pre.reshape(len(s_pre), -1) @ W
    return pool_at(conv(s_pre, W), indices, p)


def conv_feedback(W, s_post, indices, p, shape):
    """The transpose of A in s_pre (of this `shape`): conv_transpose(unpool(s_post), W)."""
    if W.ndim == 2:
        return (s_post @ W.T).reshape(shape)
    k = W.shape[-1]
    before_pool = (shape[0], len(W), shape[2] - k + 1, shape[3] - k + 1)
    return conv_transpose(unpool(s_post, indices, p, before_pool), W)


def conv_weight_vjp(W, s_pre, s_post, indices, p):
    """The transpose of A in W, at s_post, summed over the batch."""
    if W.ndim == 2:
        return s_pre.reshape(len(s_pre), -1).T @ s_post
    k = W.shape[-1]
    before_pool = (len(s_pre), len(W), s_pre.shape[2] - k + 1, s_pre.shape[3] - k + 1)
    return conv_kernel_vjp(s_pre, unpool(s_post, indices, p, before_pool), k)


def sum_per_channel(v):
    """The VJP of adding a bias: (B, C, H, W) -> (C,) or (B, n) -> (n,)."""
    return v.sum(axis=(0, 2, 3)) if v.ndim == 4 else v.sum(axis=0)


def conv_zero_state(net, x):
    """[x, 0, ..., 0] with x of shape (B, channel, row, column)."""
    s = [x]
    for W in net.W:
        if W.ndim == 2:
            shape = (len(x), W.shape[1])
        else:
            size = [(n - W.shape[-1] + 1) // net.pool for n in s[-1].shape[2:]]
            shape = (len(x), len(W), *size)
        s.append(np.zeros(shape, x.dtype))
    return s


def conv_drives(net, s):
    """u_l = pool(conv(s_{l-1}, W_l) + b_l) + feedback from layer l+1 at its current indices.

    Returns u (with u[0] None) and the indices of each connection. Connection c joins c to c+1.
    """
    u: list = [None] + [np.zeros_like(layer) for layer in s[1:]]
    all_indices = []
    for c, (W, b) in enumerate(zip(net.W, net.b, strict=True)):
        indices = pooled_indices(W, s[c], net.pool)
        bias = b[:, None, None] if W.ndim == 4 else b
        u[c + 1] = u[c + 1] + conv_forward(W, s[c], indices, net.pool) + bias
        if c > 0:
            u[c] = u[c] + conv_feedback(W, s[c + 1], indices, net.pool, s[c].shape)
        all_indices.append(indices)
    return u, all_indices


def conv_step(net, dyn, s, y=None, beta=0.0):
    """s_l <- sigma(u_l), output nudged outside or inside sigma; prototypical only."""
    f = ACTIVATIONS[dyn.activation].f
    u, _ = conv_drives(net, s)
    force = 0.0 if y is None else float(beta) * (y - s[-1])
    output = f(u[-1] + force) if dyn.nudge == "inside" else f(u[-1]) + force
    return [s[0]] + [f(v) for v in u[1:-1]] + [output]


def conv_free_phase(net, dyn, x, T):
    """T free steps from zero."""
    s = conv_zero_state(net, x)
    for _ in range(T):
        s = conv_step(net, dyn, s)
    return s


def conv_nudged_phase(net, dyn, s, y, K, beta):
    """K nudged steps from `s`: the list [s_1, ..., s_K]."""
    states = []
    for _ in range(K):
        s = conv_step(net, dyn, s, y, beta)
        states.append(s)
    return states


def conv_phi(net, s):
    """Phi = sum_l s_l . (pool(conv(s_{l-1}, W_l)) + b_l) + dense terms, summed over the batch."""
    total = 0.0
    for c, (W, b) in enumerate(zip(net.W, net.b, strict=True)):
        drive = conv_forward(W, s[c], pooled_indices(W, s[c], net.pool), net.pool)
        total = total + np.sum(s[c + 1] * (drive + (b[:, None, None] if W.ndim == 4 else b)))
    return total


def conv_statistic(net, s):
    """dPhi/dW and dPhi/db of every connection, summed over the batch: two lists."""
    dW, db = [], []
    for c, W in enumerate(net.W):
        indices = pooled_indices(W, s[c], net.pool)
        dW.append(conv_weight_vjp(W, s[c], s[c + 1], indices, net.pool))
        db.append(sum_per_channel(s[c + 1]))
    return dW, db


def conv_ep_update(net, before, after, beta):
    """1/(beta B) (dPhi/dtheta(after) - dPhi/dtheta(before)): two lists, weights and biases.

    The increment dtheta(t) for before = s_t, after = s_{t+1}; the update for s* and s_K.
    """
    scale = float(beta) * len(before[0])
    groups = zip(conv_statistic(net, after), conv_statistic(net, before), strict=True)
    dW, db = ([(a - b) / scale for a, b in zip(*group, strict=True)] for group in groups)
    return dW, db


def conv_apply(net, dW, db, lr):
    """theta + lr * update, with one rate per connection."""
    W = [w + float(eta) * d for w, eta, d in zip(net.W, lr, dW, strict=True)]
    b = [w + float(eta) * d for w, eta, d in zip(net.b, lr, db, strict=True)]
    return net._replace(W=W, b=b)


def conv_step_vjp(net, dyn, s, g):
    """As `step_vjp`, from s = s_t: dl/ds_t, and dl/dW, dl/db summed over the batch.

    The indices are locally constant, so the feedback is differentiated at fixed indices.
    """
    u, all_indices = conv_drives(net, s)
    df = ACTIVATIONS[dyn.activation].df
    delta = [None] + [v * df(w) for v, w in zip(g[1:], u[1:], strict=True)]
    g_s: list = [None] + [np.zeros_like(layer) for layer in s[1:]]
    grad_W, grad_b = [], []
    for c, (W, indices) in enumerate(zip(net.W, all_indices, strict=True)):
        grad = conv_weight_vjp(W, s[c], delta[c + 1], indices, net.pool)
        grad_b.append(sum_per_channel(delta[c + 1]))
        if c > 0:
            grad = grad + conv_weight_vjp(W, delta[c], s[c + 1], indices, net.pool)
            g_s[c] = g_s[c] + conv_feedback(W, delta[c + 1], indices, net.pool, s[c].shape)
            g_s[c + 1] = g_s[c + 1] + conv_forward(W, delta[c], indices, net.pool)
        grad_W.append(grad)
    return g_s, grad_W, grad_b


def conv_bptt(net, dyn, x, y, T, K):
    """As `bptt`, but grad_theta[t] is a pair of lists (grad_W, grad_b), batch means."""
    trajectory = [conv_free_phase(net, dyn, x, T - K)]
    for _ in range(K):
        trajectory.append(conv_step(net, dyn, trajectory[-1]))
    g = [None] + [np.zeros_like(layer) for layer in trajectory[-1][1:]]
    g[-1] = trajectory[-1][-1] - y
    grad_s, grad_theta = [], []
    for t in range(K):
        grad_s.append(g)
        g, grad_W, grad_b = conv_step_vjp(net, dyn, trajectory[K - 1 - t], g)
        grad_theta.append(([v / len(x) for v in grad_W], [v / len(x) for v in grad_b]))
    return Bptt(grad_s, grad_theta)
