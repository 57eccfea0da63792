"""The equations of EP in a convolutional network, written out eagerly in NumPy; see eager.py.

Prototypical and tied. Arrays are channel first, states a list ``[x, s1, ..., sN]`` of shapes
(B, channel, row, column), the last ones (B, n). Connection c joins layer c to layer c + 1.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from eqprop.benchmarks.transcription import ACTIVATIONS, Dynamics, Numbers, State


class ConvNet(NamedTuple):
    """Conv layers (k x k, stride 1, no padding, bias, max-pool p), then dense layers.

    ``W[c]`` is (out, in, row, column) for a conv connection, (n_pre, n_post) for a dense one, which
    sees its presynaptic layer flattened channel first. Biases everywhere.
    """

    W: list[np.ndarray]
    b: list[np.ndarray]
    pool: int


def conv(x: np.ndarray, W: np.ndarray) -> np.ndarray:
    """Cross-correlation, (B, in, H, W) with (out, in, k, k) -> (B, out, H-k+1, W-k+1)."""
    k = W.shape[-1]
    rows, columns = x.shape[2] - k + 1, x.shape[3] - k + 1
    out = np.zeros((len(x), len(W), rows, columns), x.dtype)
    for i in range(k):
        for j in range(k):
            patch = x[:, :, i : i + rows, j : j + columns]
            out += np.einsum("bchw,oc->bohw", patch, W[:, :, i, j], optimize=True)
    return out


def conv_transpose(v: np.ndarray, W: np.ndarray) -> np.ndarray:
    """The transpose of ``conv`` in x: (B, out, h, w) -> (B, in, h+k-1, w+k-1)."""
    k = W.shape[-1]
    rows, columns = v.shape[2:]
    out = np.zeros((len(v), W.shape[1], rows + k - 1, columns + k - 1), v.dtype)
    for i in range(k):
        for j in range(k):
            patch = np.einsum("bohw,oc->bchw", v, W[:, :, i, j], optimize=True)
            out[:, :, i : i + rows, j : j + columns] += patch
    return out


def conv_kernel_vjp(x: np.ndarray, v: np.ndarray, k: int) -> np.ndarray:
    """The transpose of ``conv`` in W: sum over batch and places of v times the patch it saw."""
    rows, columns = v.shape[2:]
    out = np.zeros((v.shape[1], x.shape[1], k, k), x.dtype)
    for i in range(k):
        for j in range(k):
            patch = x[:, :, i : i + rows, j : j + columns]
            out[:, :, i, j] = np.einsum("bohw,bchw->oc", v, patch, optimize=True)
    return out


def windows(v: np.ndarray, p: int) -> np.ndarray:
    """(B, C, H, W) -> (B, C, H//p, W//p, p*p), each window in row-major order."""
    B, C, H, W = v.shape
    v = v[:, :, : H // p * p, : W // p * p].reshape(B, C, H // p, p, W // p, p)
    return v.transpose(0, 1, 2, 4, 3, 5).reshape(B, C, H // p, W // p, p * p)


def pool_indices(v: np.ndarray, p: int) -> np.ndarray:
    """Place of the maximum in each window; of equal maxima the FIRST in row-major order."""
    return windows(v, p).argmax(axis=-1)


def pool_at(v: np.ndarray, indices: np.ndarray, p: int) -> np.ndarray:
    """Take from each window the entry at ``indices`` (max-pooling, given its own indices)."""
    return np.take_along_axis(windows(v, p), indices[..., None], axis=-1)[..., 0]


def unpool(v: np.ndarray, indices: np.ndarray, p: int, shape: tuple[int, ...]) -> np.ndarray:
    """The transpose of ``pool_at``: put each entry of v at its index, zero elsewhere."""
    out = np.zeros(shape, v.dtype)
    for i in range(p):
        for j in range(p):
            here = np.where(indices == i * p + j, v, 0)
            out[:, :, i : v.shape[2] * p : p, j : v.shape[3] * p : p] = here
    return out


# A connection at fixed pooling indices is bilinear in W and s_pre: A(W, s_pre) below. Feedback and
# statistic are its transposes. A dense connection has indices None.


def pooled_indices(W: np.ndarray, s_pre: np.ndarray, p: int) -> Any:
    """The pooling indices of a connection at the state s_pre (None for a dense connection)."""
    return pool_indices(conv(s_pre, W), p) if W.ndim == 4 else None


def conv_forward(W: np.ndarray, s_pre: np.ndarray, indices: Any, p: int) -> np.ndarray:
    """A(W, s_pre), without the bias (which commutes with the pooling)."""
    if W.ndim == 2:
        return s_pre.reshape(len(s_pre), -1) @ W
    return pool_at(conv(s_pre, W), indices, p)


def conv_feedback(
    W: np.ndarray, s_post: np.ndarray, indices: Any, p: int, shape: tuple[int, ...]
) -> np.ndarray:
    """The transpose of A in s_pre (of this ``shape``): conv_transpose(unpool(s_post), W)."""
    if W.ndim == 2:
        return (s_post @ W.T).reshape(shape)
    k = W.shape[-1]
    before_pool = (shape[0], len(W), shape[2] - k + 1, shape[3] - k + 1)
    return conv_transpose(unpool(s_post, indices, p, before_pool), W)


def conv_weight_vjp(
    W: np.ndarray, s_pre: np.ndarray, s_post: np.ndarray, indices: Any, p: int
) -> np.ndarray:
    """The transpose of A in W, at s_post, summed over the batch."""
    if W.ndim == 2:
        return s_pre.reshape(len(s_pre), -1).T @ s_post
    k = W.shape[-1]
    before_pool = (len(s_pre), len(W), s_pre.shape[2] - k + 1, s_pre.shape[3] - k + 1)
    return conv_kernel_vjp(s_pre, unpool(s_post, indices, p, before_pool), k)


def sum_per_channel(v: np.ndarray) -> np.ndarray:
    """The VJP of adding a bias: (B, C, H, W) -> (C,) or (B, n) -> (n,)."""
    return v.sum(axis=(0, 2, 3)) if v.ndim == 4 else v.sum(axis=0)


def conv_zero_state(net: ConvNet, x: np.ndarray) -> State:
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


def conv_drives(net: ConvNet, s: State) -> tuple[list[Any], list[Any]]:
    """``u_l = pool(conv(s_{l-1}, W_l) + b_l)`` + feedback from layer l+1 at its current indices.

    Returns u (with u[0] None) and the indices of each connection.
    """
    u: list[Any] = [None] + [np.zeros_like(layer) for layer in s[1:]]
    all_indices = []
    for c, (W, b) in enumerate(zip(net.W, net.b, strict=True)):
        indices = pooled_indices(W, s[c], net.pool)
        bias = b[:, None, None] if W.ndim == 4 else b
        u[c + 1] = u[c + 1] + conv_forward(W, s[c], indices, net.pool) + bias
        if c > 0:
            u[c] = u[c] + conv_feedback(W, s[c + 1], indices, net.pool, s[c].shape)
        all_indices.append(indices)
    return u, all_indices


def conv_step(
    net: ConvNet, dyn: Dynamics, s: State, y: np.ndarray | None = None, beta: float = 0.0
) -> State:
    """``s_l <- sigma(u_l)``, output nudged outside or inside sigma."""
    f = ACTIVATIONS[dyn.activation].f
    u, _ = conv_drives(net, s)
    force = 0.0 if y is None else float(beta) * (y - s[-1])
    output = f(u[-1] + force) if dyn.nudge == "inside" else f(u[-1]) + force
    return [s[0]] + [f(v) for v in u[1:-1]] + [output]


def conv_free_phase(net: ConvNet, dyn: Dynamics, x: np.ndarray, T: int) -> State:
    """T free steps from zero."""
    s = conv_zero_state(net, x)
    for _ in range(T):
        s = conv_step(net, dyn, s)
    return s


def conv_nudged_phase(
    net: ConvNet, dyn: Dynamics, s: State, y: np.ndarray, K: int, beta: float
) -> list[State]:
    """K nudged steps from ``s``: the list [s_1, ..., s_K]."""
    states: list[State] = []
    for _ in range(K):
        s = conv_step(net, dyn, s, y, beta)
        states.append(s)
    return states


def conv_statistic(net: ConvNet, s: State) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """dPhi/dW and dPhi/db of every connection, summed over the batch: two lists."""
    dW, db = [], []
    for c, W in enumerate(net.W):
        indices = pooled_indices(W, s[c], net.pool)
        dW.append(conv_weight_vjp(W, s[c], s[c + 1], indices, net.pool))
        db.append(sum_per_channel(s[c + 1]))
    return dW, db


def conv_ep_update(
    net: ConvNet, before: State, after: State, beta: float
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """``1/(beta B) (dPhi/dtheta(after) - dPhi/dtheta(before))``: two lists, weights and biases.

    The increment dtheta(t) for before = s_t, after = s_{t+1}; the update for s* and s_K.
    """
    scale = float(beta) * len(before[0])
    groups = zip(conv_statistic(net, after), conv_statistic(net, before), strict=True)
    dW, db = ([(a - b) / scale for a, b in zip(*group, strict=True)] for group in groups)
    return dW, db


def conv_apply(
    net: ConvNet,
    dW: Sequence[np.ndarray],
    db: Sequence[np.ndarray],
    lr: Sequence[float] | np.ndarray,
) -> ConvNet:
    """``theta + lr * update``, with one rate per connection."""
    W = [w + float(eta) * d for w, eta, d in zip(net.W, lr, dW, strict=True)]
    b = [w + float(eta) * d for w, eta, d in zip(net.b, lr, db, strict=True)]
    return net._replace(W=W, b=b)


def conv_minibatch(
    net: ConvNet, dyn: Dynamics, x: np.ndarray, y: np.ndarray, numbers: Numbers
) -> ConvNet:
    """One training step by EP: T free steps from zero, K nudged steps, new parameters."""
    T, K, beta, eta = numbers
    s = conv_free_phase(net, dyn, x, T)
    end = conv_nudged_phase(net, dyn, s, y, K, beta)[-1]
    return conv_apply(net, *conv_ep_update(net, s, end, beta), eta)
