"""The oracle of the tests: every equation that `eqprop` implements, transcribed in NumPy.

The training programs are `eqprop/benchmarks/transcription.py` and `conv_transcription.py`,
re-exported here. What only tests need stands below: nets that are checked, the records of a nudged
phase, Phi and the energy, BPTT by hand, the measures of Theorem 1. It judges the JAX library
(float64, to 1e-12), so it uses nothing else of it and is written to be obviously right. Conventions
are those of `transcription.py`; beyond them, the loss per example is `l = 1/2 |y - sN|^2`, and `L`
its mean over the batch.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from eqprop.benchmarks import transcription
from eqprop.benchmarks.conv_transcription import (
    ConvNet,
    conv,
    conv_weight_vjp,
    pool_indices,
    pooled_indices,
    unpool,
    windows,
)
from eqprop.benchmarks.transcription import (
    RULES,
    DenseNet,
    Dynamics,
    Net,
    Numbers,
    Params,
    State,
    add_scaled,
    bias_sum,
    combine,
    d_hardsigm,
    drives,
    ep_increment,
    free_phase,
    nudged_phase,
    nudged_steps,
    rates,
    require_tied,
    sigm,
    statistic,
    step,
    total,
    vf_increment,
)

__all__ = ["Dynamics", "ep_increment", "pool_indices", "unpool", "vf_increment"]  # for tests alone


# ------------------------------------------------------------------------ dense nets and updates


def chain(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Edges of a layered net: (0, 1), (1, 2), ..., (N-1, N)."""
    return [(i, i + 1) for i in range(len(sizes) - 1)]


def make_net(
    sizes: Sequence[int],
    W: Sequence[Any],
    b: Sequence[Any] | None = None,
    Wb: Sequence[Any] | None = None,
    edges: Iterable[Sequence[int]] | None = None,
) -> DenseNet:
    """Check the shapes and build a dense net; by default `edges` is the chain (0, 1), (1, 2), ...,
    and `b` and `Wb` are absent. Raises `ValueError` for arrays that do not fit.
    """
    pairs = chain(sizes) if edges is None else [(i, j) for i, j in edges]
    absent = [None] * len(pairs)
    params = Params(list(W), list(absent if b is None else b), list(absent if Wb is None else Wb))
    if any(len(group) != len(pairs) for group in params):
        raise ValueError(f"W, b and Wb need one entry for each of the {len(pairs)} edges")
    for (i, j), w, bias, back in zip(pairs, *params, strict=True):
        edge = f"edge {(i, j)}"
        if j in (i, 0):
            raise ValueError(f"{edge}: needs pre != post, and the input receives nothing")
        if w.shape != (sizes[i], sizes[j]):
            raise ValueError(f"{edge}: W has shape {w.shape}, not {(sizes[i], sizes[j])}")
        if bias is not None and bias.shape != (sizes[j],):
            raise ValueError(f"{edge}: b has shape {bias.shape}, not {(sizes[j],)}")
        if back is not None and (i == 0 or back.shape != w.shape):
            raise ValueError(f"{edge}: Wb goes with a state layer, and has the shape of W")
    return DenseNet(pairs, params, list(sizes))


def make_conv_net(W: list[np.ndarray], b: list[np.ndarray], pool: int) -> ConvNet:
    """The net of these weights and biases, one of each for every layer but the input."""
    return ConvNet(chain([0, *W]), Params(W, b, [None] * len(W)), pool)


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


def learn(rule, net, dyn, s, y, K, beta, eta) -> Phase:
    """The nudged phase from `s` = s* with the rule "ep", "c-ep", "vf" or "c-vf", and its records.

    Rules that are not continual add `eta sum_t dtheta(t)` after the phase.
    """
    steps = list(nudged_steps(rule, net, dyn, s, y, Numbers(0, K, beta, eta)))
    states, increments = [s, *(state for state, _, _ in steps)], [step for _, step, _ in steps]
    update = total(increments)
    if RULES[rule][1]:
        _, _, moved = steps[-1]
    else:
        moved = net.with_params(add_scaled(net.params, eta, update))
    return Phase(states, increments, update, moved)


def minibatch(rule, net, dyn, x, y, T, K, beta, eta):
    """`transcription.minibatch`, its numbers one by one."""
    return transcription.minibatch(rule, net, dyn, x, y, Numbers(T, K, beta, eta))


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


# ---------------------------------------------------------------------------- second derivatives


class Activation(NamedTuple):
    """A function `f` of an array with its first and second derivatives."""

    f: Callable[[np.ndarray], np.ndarray]
    df: Callable[[np.ndarray], np.ndarray]
    ddf: Callable[[np.ndarray], np.ndarray]


def dd_sigm(v):
    """sigm'' = 16 sigm (1 - sigm) (1 - 2 sigm)."""
    return 16 * sigm(v) * (1 - sigm(v)) * (1 - 2 * sigm(v))


def dd_hardsigm(v):
    """Zero (almost everywhere)."""
    return np.zeros_like(v)


def dd_tanh(v):
    """tanh'' = -2 tanh (1 - tanh^2)."""
    return -2 * np.tanh(v) * (1 - np.tanh(v) ** 2)


ACTIVATIONS = {
    "sigm": Activation(*transcription.ACTIVATIONS["sigm"], dd_sigm),
    "hardsigm": Activation(*transcription.ACTIVATIONS["hardsigm"], dd_hardsigm),
    "tanh": Activation(*transcription.ACTIVATIONS["tanh"], dd_tanh),
}


# ---------------------------------------------------------------------------- energy and potential


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
    pull_back = step_vjp if isinstance(net, DenseNet) else conv_step_vjp
    trajectory = [free_phase(net, dyn, x, T - K)]
    for _ in range(K):
        trajectory.append(step(net, dyn, trajectory[-1]))  # s_{T-K}, ..., s_T
    g = [None] + [np.zeros_like(layer) for layer in trajectory[-1][1:]]
    g[-1] = trajectory[-1][-1] - y
    grad_s, grad_theta = [], []
    for t in range(K):
        grad_s.append(g)
        g, grad = pull_back(net, dyn, trajectory[K - 1 - t], g)
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


def conv_phi(net, s):
    """Phi = sum_l s_l . (pool(conv(s_{l-1}, W_l)) + b_l) + dense terms, summed over the batch."""
    total = 0.0
    for e, b in enumerate(net.params.b):
        drive = net.forward(e, s[e])
        total = total + np.sum(s[e + 1] * (drive + (b[:, None, None] if drive.ndim == 4 else b)))
    return total


def pool_at(v: np.ndarray, indices: np.ndarray, p: int) -> np.ndarray:
    """Take from each window the entry at ``indices`` (max-pooling, given its own indices)."""
    return np.take_along_axis(windows(v, p), indices[..., None], axis=-1)[..., 0]


def conv_forward(W: np.ndarray, s_pre: np.ndarray, indices: Any, p: int) -> np.ndarray:
    """What an edge sends at fixed pooling indices, without its bias."""
    if W.ndim == 2:
        return s_pre.reshape(len(s_pre), -1) @ W
    return pool_at(conv(s_pre, W), indices, p)


def conv_step_vjp(net, dyn, s, g):
    """As `step_vjp`, from s = s_t: dl/ds_t, and dl/dtheta summed over the batch.

    The indices are locally constant, so the feedback is differentiated at fixed indices.
    """
    u = drives(net, s)
    df = ACTIVATIONS[dyn.activation].df
    delta = [None] + [v * df(w) for v, w in zip(g[1:], u[1:], strict=True)]
    g_s: list = [None] + [np.zeros_like(layer) for layer in s[1:]]
    grad = Params([], [], [None] * len(net.edges))
    for e, W in enumerate(net.params.W):
        indices = pooled_indices(W, s[e], net.pool)
        grad_W = conv_weight_vjp(W, s[e], delta[e + 1], indices, net.pool)
        if e > 0:
            grad_W = grad_W + conv_weight_vjp(W, delta[e], s[e + 1], indices, net.pool)
            g_s[e] = g_s[e] + net.feedback(e, s[e], delta[e + 1])
            g_s[e + 1] = g_s[e + 1] + conv_forward(W, delta[e], indices, net.pool)
        grad.W.append(grad_W)
        grad.b.append(bias_sum(delta[e + 1]))
    return g_s, grad
