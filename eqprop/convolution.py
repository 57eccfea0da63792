"""Convolutional connections, ``pool(conv(r_pre, W)) + b``, between layers ``(height, width, channels)``.

Every map here is written in operations that JAX differentiates well, to any order, so that feedback
and statistics come from ``Connection``. On a CPU a convolution runs as matrix products, at stride 1
the fewer ones of Toom-Cook (Winograd) tiles; elsewhere it is XLA's own.
"""

import abc
import functools
import math
from typing import override

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from eqprop.errors import EqpropError
from eqprop.network import Build, Connection
from eqprop.types import Array, Float, Inexact, Layer, PRNGKeyArray, Shape

type Pair = tuple[int, int]
type Size = int | Pair
"""One number for both directions, or (rows, columns)."""

type Maps = Inexact[Array, "B height width channels"]


class Pool(eqx.Module):
    """Abstract: a map from maps of units to smaller ones, each channel on its own.

    Windows of ``size`` x ``size`` do not overlap. Rows and columns left over at the bottom and the right,
    where ``size`` does not divide the map, are dropped, as PyTorch does: they drive nothing and receive
    no feedback. A constant passes through, so a bias may be added before or after.
    """

    size: eqx.AbstractVar[int]

    @abc.abstractmethod
    def __call__(self, maps: Maps) -> Maps:
        """Pool ``(B, height, width, channels)`` to ``(B, height // size, width // size, channels)``."""


class NoPool(Pool):
    """No pooling."""

    size: int = eqx.field(static=True, default=1, init=False)

    @override
    def __call__(self, maps: Maps) -> Maps:
        return maps


class AveragePool(Pool):
    """The mean of each window."""

    size: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        _check_counts("pooling window", self.size, least=1)

    @override
    def __call__(self, maps: Maps) -> Maps:
        values = _windows(maps, self.size)
        return functools.reduce(jnp.add, values) / len(values)


class MaxPool(Pool):
    """The largest unit of each window (of complex values, the one with the largest real part).

    Among equals the first, row by row, wins alone: a window's feedback and its statistics go through
    that one unit, as with argmax.
    """

    size: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        _check_counts("pooling window", self.size, least=1)

    @override
    def __call__(self, maps: Maps) -> Maps:
        best, *rest = _windows(maps, self.size)
        for value in rest:
            # Strictly greater keeps the first of equals, and a select sends all of a cotangent one way.
            best = jnp.where(value.real > best.real, value, best)
        return best


_NO_POOL = NoPool()


def _windows(maps: Maps, size: int) -> list[Maps]:
    """The ``size**2`` units of every whole window, row by row."""
    batch, height, width, channels = maps.shape
    h, w = height // size, width // size
    whole = maps[:, : h * size, : w * size].reshape(batch, h, size, w, size, channels)
    return [unit for row in _unstack(whole, 2) for unit in _unstack(row, 3)]


def _unstack(x: Array, axis: int) -> list[Array]:
    # The transpose of a split is one concatenation; that of slices, a sum of padded arrays.
    parts = lax.split(x, (1,) * x.shape[axis], axis)
    return [lax.squeeze(part, (axis,)) for part in parts]


def convolve(
    x: Maps, w: Float[Array, "rows columns c_in c_out"], stride: Pair, padding: Pair
) -> Maps:
    """``y[b,i,j,o] = sum over k,l,c of x[b, i stride + k, j stride + l, c] w[k,l,c,o]``, x padded with 0.

    At stride 1 on a CPU, the rounding error in float32 is about 5 times that of the plain sum.
    """
    dtype = jnp.result_type(x, w)
    # XLA's CPU convolutions are slow, and their gradients 20 to 50 times slower still.
    return lax.platform_dependent(
        x.astype(dtype),
        w.astype(dtype),
        cpu=functools.partial(_convolve_on_cpu, stride=stride, padding=padding),
        default=functools.partial(_convolve_by_xla, stride=stride, padding=padding),
    )


def _convolve_by_xla(x: Maps, w: Array, *, stride: Pair, padding: Pair) -> Maps:
    pads = [(p, p) for p in padding]
    return lax.conv_general_dilated(x, w, stride, pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _convolve_on_cpu(x: Maps, w: Array, *, stride: Pair, padding: Pair) -> Maps:
    x = jnp.pad(x, ((0, 0), *((p, p) for p in padding), (0, 0)))
    # Tiles trade products of channels for sums over units, and lose a digit to rounding.
    in_tiles = stride == (1, 1) and min(w.shape[2:]) >= 8 and jnp.finfo(x.dtype).bits >= 32
    return _convolve_tiles(x, w) if in_tiles else _convolve_patches(x, w, stride)


def _convolve_patches(x: Maps, w: Array, stride: Pair) -> Maps:
    """One matrix product with the patches that the output units see."""
    rows, columns, c_in, c_out = w.shape
    (h, v), (s, t) = _positions(x.shape[1:3], w.shape[:2], stride), stride
    patches = [
        x[:, k : k + (h - 1) * s + 1 : s, m : m + (v - 1) * t + 1 : t]
        for k in range(rows)
        for m in range(columns)
    ]
    return jnp.concatenate(patches, axis=-1) @ w.reshape(rows * columns * c_in, c_out)


def _convolve_tiles(x: Maps, w: Array) -> Maps:
    """Toom-Cook: ``A^T [(G w G^T) (B^T x B)] A`` on tiles, one matrix product of channels per tile unit.

    A tile of ``m`` outputs of ``k`` taps takes ``m + k - 1`` products instead of ``m k``, in each
    direction (Lavin & Gray, arXiv:1509.09308).
    """
    (h, v), c_out = _positions(x.shape[1:3], w.shape[:2], (1, 1)), w.shape[3]
    (m, g_rows, b_rows, a_rows), (l, g_columns, b_columns, a_columns) = (
        _toom_cook(k, n) for k, n in zip(w.shape[:2], (h, v), strict=True)
    )
    # Ties w to x, so that a loop over x does not hoist what is made of w: XLA would do so once for the
    # forward drive and once for the feedback, and then compute the drive twice in every step.
    x, w = lax.optimization_barrier((x, w))
    kernel = jnp.asarray(np.kron(g_rows, g_columns), w.dtype) @ w.reshape(-1, w.shape[2] * c_out)
    tiles = jnp.stack(_combine(b_rows, _tile(x, 1, m, h, len(b_rows))), axis=0)
    tiles = jnp.stack(_combine(b_columns, _tile(tiles, 3, l, v, len(b_columns))), axis=1)
    size, (batch, t, u) = tiles.shape[:2], tiles.shape[2:5]
    products = lax.batch_matmul(
        tiles.reshape(math.prod(size), batch * t * u, -1), kernel.reshape(math.prod(size), -1, c_out)
    )
    y = jnp.stack(_combine(a_rows, _unstack(products.reshape(*size, -1, c_out), 0)), axis=0)
    y = jnp.stack(_combine(a_columns, _unstack(y, 1)), axis=1)
    y = y.reshape(m, l, batch, t, u, c_out).transpose(2, 3, 0, 4, 1, 5)
    return y.reshape(batch, t * m, u * l, c_out)[:, :h, :v]


def _tile(x: Array, axis: int, step: int, outputs: int, size: int) -> list[Array]:
    """Unit k of every tile along ``axis``, for each k of the ``size`` units of a tile."""
    tiles, overlap = -(-outputs // step), -(-size // step)
    blocks = tiles + overlap - 1
    pad = [(0, blocks * step - x.shape[axis] if n == axis else 0) for n in range(x.ndim)]
    x = jnp.pad(x, pad).reshape(*x.shape[:axis], blocks, step, *x.shape[axis + 1 :])
    units = _unstack(x, axis + 1)
    return [
        lax.slice_in_dim(units[k % step], k // step, k // step + tiles, axis=axis) for k in range(size)
    ]


def _combine(matrix: np.ndarray, parts: list[Array]) -> list[Array]:
    """``matrix @ parts``, written out so that zeros and ones cost nothing."""
    rows = [[part * float(a) if a != 1 else part for a, part in zip(row, parts, strict=True) if a] for row in matrix]
    return [functools.reduce(jnp.add, row) for row in rows]


@functools.cache
def _toom_cook(taps: int, outputs: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Outputs per tile m, then ``G``, ``B^T``, ``A^T`` for that many taps: ``y = A^T [(G w) * (B^T x)]``.

    The transpose of multiplying polynomials by their values at m + taps - 1 points, infinity among them.
    """
    points = (0, 1, -1, 2, -2, 0.5, -0.5)
    most = max(1, len(points) + 2 - taps)  # beyond 8 points the rounding error grows fast
    m = -(-outputs // -(-outputs // most))  # the smallest tiles that are as few
    size = m + taps - 1
    if m == 1:
        return m, np.eye(taps), np.eye(taps), np.ones((1, taps))

    def values(terms: int) -> np.ndarray:
        at_infinity = np.eye(terms)[-1:]
        return np.vstack([np.vander(points[: size - 1], terms, increasing=True), at_infinity])

    b = np.linalg.inv(values(size)).T
    scale = np.abs(b).max(axis=1, keepdims=True)
    return m, values(taps) * scale, b / scale, values(m).T


class Conv(Connection):
    """``pool(conv(r_pre, weight)) + bias``, equal to ``pool(conv(r_pre, weight) + bias)``.

    ``weight`` has shape ``(rows, columns, c_in, c_out)``, ``bias`` ``(c_out,)`` or None; layers are
    ``(height, width, channels)``. No flip of the kernel, zeros as padding. Raises ``EqpropError`` where
    the sizes don't fit. The feedback of a max-pool goes where this connection's own drive is largest.
    """

    weight: Float[Array, "rows columns c_in c_out"]
    bias: Float[Array, " c_out"] | None = None
    stride: Pair = eqx.field(static=True, default=(1, 1))
    padding: Pair = eqx.field(static=True, default=(0, 0))
    pool: Pool = _NO_POOL

    @override
    def __call__(self, r_pre: Layer) -> Layer:
        rows, columns, c_in, c_out = self.weight.shape
        pre = r_pre.shape[1:]
        conv_shape(pre, c_out, (rows, columns), self.stride, self.padding, self.pool)
        if pre[2] != c_in:
            raise EqpropError(f"kernels {rows}x{columns} for {c_in} channels, but the layer is {pre}")
        drive = self.pool(convolve(r_pre, self.weight, self.stride, self.padding))
        return drive if self.bias is None else drive + self.bias


def conv(
    kernel: Size,
    stride: Size = 1,
    padding: Size = 0,
    pool: Pool = _NO_POOL,
    *,
    bias: bool = True,
) -> Build:
    """How to make a ``Conv``, for ``chain``; the shape of the layer it drives is ``conv_shape(...)``.

    Kernels and biases start uniform in ``+-1/sqrt(fan_in)``, ``fan_in = rows columns c_in``. "Same"
    padding is ``kernel // 2``, for odd kernels at stride 1.
    """
    taps = _pair(kernel)

    def build(pre: Shape, post: Shape, key: PRNGKeyArray) -> Conv:
        fits = conv_shape(pre, post[-1], kernel, stride, padding, pool)
        if fits != post:
            raise EqpropError(
                f"{_describe(taps, stride, padding, pool)} makes {fits} of a layer {pre}, not {post}: give "
                "the layer the shape that conv_shape returns"
            )
        w_key, b_key = jax.random.split(key)
        bound = (taps[0] * taps[1] * pre[2]) ** -0.5
        shape = (*taps, pre[2], post[2])
        weight = jax.random.uniform(w_key, shape, minval=-bound, maxval=bound)
        b = jax.random.uniform(b_key, post[2:], minval=-bound, maxval=bound) if bias else None
        return Conv(weight, b, _pair(stride), _pair(padding), pool)

    return build


def conv_shape(
    pre: Shape,
    channels: int,
    kernel: Size,
    stride: Size = 1,
    padding: Size = 0,
    pool: Pool = _NO_POOL,
) -> Shape:
    """The layer ``(height, width, channels)`` that a convolution, then ``pool``, drives from ``pre``.

    Both round down: what does not fill a stride or a window is dropped. Raises ``EqpropError`` where
    nothing is left, or where a size makes no sense.
    """
    _check_counts("number of channels", channels, least=1)
    for name, value, least in (("kernel", kernel, 1), ("stride", stride, 1), ("padding", padding, 0)):
        _check_counts(name, *_pair(value), least=least)
    if len(pre) != 3:
        raise EqpropError(
            f"a convolution needs a layer of shape (height, width, channels), not {pre}: reshape the data, or "
            "use a dense connection"
        )
    p, taps = _pair(padding), _pair(kernel)
    padded = (pre[0] + 2 * p[0], pre[1] + 2 * p[1])
    maps = _positions(padded, taps, _pair(stride))
    if min(maps) < 1 or min(maps) < pool.size:
        raise EqpropError(
            f"{_describe(taps, stride, padding, pool)} leaves nothing of a layer {pre}: the map has "
            f"{max(maps[0], 0)}x{max(maps[1], 0)} units before pooling; use a smaller kernel or window, or pad"
        )
    return (maps[0] // pool.size, maps[1] // pool.size, channels)


def _positions(length: Pair, taps: Pair, stride: Pair) -> Pair:
    """How often a kernel fits, in each direction."""
    return (length[0] - taps[0]) // stride[0] + 1, (length[1] - taps[1]) // stride[1] + 1


def _pair(size: Size) -> Pair:
    return (size, size) if isinstance(size, int) else size


def _describe(taps: Pair, stride: Size, padding: Size, pool: Pool) -> str:
    """One phrase with all the sizes, for errors."""
    rest = "" if isinstance(pool, NoPool) else f", {type(pool).__name__}({pool.size})"
    return f"a kernel {taps[0]}x{taps[1]}, stride {stride}, padding {padding}{rest}"


def _check_counts(name: str, *counts: int, least: int) -> None:
    if any(not isinstance(n, int) or n < least for n in counts):
        raise EqpropError(f"{name} {counts}: give whole numbers, at least {least}")
