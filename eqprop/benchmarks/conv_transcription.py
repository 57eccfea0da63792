"""Convolutional nets for ``transcription.py``: what their edges send and see, eagerly in NumPy.

Prototypical and tied. Layers are channel first, (B, channel, row, column), the last ones (B, n).
"""

from dataclasses import dataclass
from typing import Any, final, override

import numpy as np

from eqprop.benchmarks.transcription import Net, State


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


def unpool(v: np.ndarray, indices: np.ndarray, p: int, shape: tuple[int, ...]) -> np.ndarray:
    """The transpose of taking what is at ``indices``: each entry of v there, zero elsewhere."""
    out = np.zeros(shape, v.dtype)
    for i in range(p):
        for j in range(p):
            here = np.where(indices == i * p + j, v, 0)
            out[:, :, i : v.shape[2] * p : p, j : v.shape[3] * p : p] = here
    return out


# An edge at fixed pooling indices is bilinear in W and s_pre: A(W, s_pre), without the bias, which
# commutes with the pooling. Feedback and statistic are its transposes.


def pooled_indices(W: np.ndarray, s_pre: np.ndarray, p: int) -> Any:
    """The pooling indices of an edge at the state s_pre (None for a dense one)."""
    return pool_indices(conv(s_pre, W), p) if W.ndim == 4 else None


def conv_weight_vjp(
    W: np.ndarray, s_pre: np.ndarray, s_post: np.ndarray, indices: Any, p: int
) -> np.ndarray:
    """The transpose of A in W, at s_post, summed over the batch."""
    if W.ndim == 2:
        return s_pre.reshape(len(s_pre), -1).T @ s_post
    k = W.shape[-1]
    before_pool = (len(s_pre), len(W), s_pre.shape[2] - k + 1, s_pre.shape[3] - k + 1)
    return conv_kernel_vjp(s_pre, unpool(s_post, indices, p, before_pool), k)


@final
@dataclass(frozen=True)
class ConvNet(Net):
    """A chain of conv layers (k x k, stride 1, no padding, max-pool ``pool``), then dense layers.

    ``W[e]`` is (out, in, row, column) for a conv edge, (n_pre, n_post) for a dense one, which sees
    its presynaptic layer flattened channel first. Biases everywhere, no feedback weights.
    """

    pool: int

    @override
    def zero_state(self, x: np.ndarray) -> State:
        s = [x]
        for W in self.params.W:
            if W.ndim == 2:
                shape = (len(x), W.shape[1])
            else:
                size = [(n - W.shape[-1] + 1) // self.pool for n in s[-1].shape[2:]]
                shape = (len(x), len(W), *size)
            s.append(np.zeros(shape, x.dtype))
        return s

    @override
    def forward(self, e: int, r_pre: np.ndarray) -> np.ndarray:
        W = self.params.W[e]
        if W.ndim == 2:
            return r_pre.reshape(len(r_pre), -1) @ W
        return windows(conv(r_pre, W), self.pool).max(axis=-1)

    @override
    def feedback(self, e: int, r_pre: np.ndarray, r_post: np.ndarray) -> np.ndarray:
        W = self.params.W[e]
        if W.ndim == 2:
            return (r_post @ W.T).reshape(r_pre.shape)
        before_pool = conv(r_pre, W)
        indices = pool_indices(before_pool, self.pool)
        return conv_transpose(unpool(r_post, indices, self.pool, before_pool.shape), W)

    @override
    def product(self, e: int, r_pre: np.ndarray, r_post: np.ndarray) -> np.ndarray:
        W = self.params.W[e]
        indices = pooled_indices(W, r_pre, self.pool)
        return conv_weight_vjp(W, r_pre, r_post, indices, self.pool)
