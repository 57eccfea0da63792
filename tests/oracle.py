"""The oracle of the tests: every equation that `eqprop` implements, transcribed in NumPy.

The training program for dense nets is `eqprop/eager.py`, re-exported here. What only tests need
stands below: Phi and the energy, BPTT by hand, the measures of Theorem 1, convolutional nets. It is
the judge of the JAX library (float64, to 1e-12), so it uses nothing else of it and is written to be
obviously right. Conventions are those of `eqprop/eager.py`; beyond them, the loss per example is
`l = 1/2 |y - sN|^2`, and `L` its mean over the batch.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from eqprop import eager
from eqprop.eager import (
    RULES,
    Dynamics,
    Net,
    Params,
    Phase,
    add_scaled,
    chain,
    combine,
    d_hardsigm,
    d_sigm,
    d_tanh,
    drives,
    ep_increment,
    free_phase,
    hardsigm,
    make_net,
    nudged_phase,
    rates,
    require_tied,
    require_untied,
    sigm,
    statistic,
    step,
    total,
    vf_increment,
    zero_state,
)

__all__ = [  # of eqprop.eager, beside what is defined here
    "RULES",
    "Dynamics",
    "Net",
    "Params",
    "Phase",
    "add_scaled",
    "chain",
    "combine",
    "d_hardsigm",
    "d_sigm",
    "d_tanh",
    "drives",
    "ep_increment",
    "free_phase",
    "hardsigm",
    "make_net",
    "nudged_phase",
    "rates",
    "require_tied",
    "require_untied",
    "sigm",
    "statistic",
    "step",
    "total",
    "vf_increment",
    "zero_state",
]


# ------------------------------------------------------------------------ dense nets and updates


def learn(rule, net, dyn, s, y, K, beta, eta):
    """`eager.learn`, its numbers one by one."""
    return eager.learn(rule, net, dyn, s, y, eager.Numbers(0, K, beta, eta))


def minibatch(rule, net, dyn, x, y, T, K, beta, eta):
    """`eager.minibatch`, its numbers one by one."""
    return eager.minibatch(rule, net, dyn, x, y, eager.Numbers(T, K, beta, eta))


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
    "sigm": Activation(*eager.ACTIVATIONS["sigm"], dd_sigm),
    "hardsigm": Activation(*eager.ACTIVATIONS["hardsigm"], dd_hardsigm),
    "tanh": Activation(*eager.ACTIVATIONS["tanh"], dd_tanh),
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
