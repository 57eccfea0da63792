"""The bare convolution, in operations whose derivatives of any order are as fast as itself.

On a CPU it runs as matrix products, at stride 1 the fewer ones of Toom-Cook (Winograd) tiles; on a
GPU as products with the patches that the outputs see; elsewhere it is XLA's own. JAX derives the
transposes and the kernel gradients from these, also as matrix products: XLA's CPU convolutions in
gradients take 20 to 50 times as long as forwards. On a GPU, those of several seeds side by side are
grouped ones, which take 2.5 times as long (docs/performance.md).
"""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jax import lax

from eqprop.networks.connections import Product, multiply
from eqprop.types import Array, Inexact

type Pair = tuple[int, int]
"""(rows, columns)."""

type Maps = Inexact[Array, "B _ _ _"]
"""``(B, height, width, channels)``."""

type Kernel = Inexact[Array, "rows columns c_in c_out"]

type Tiled = Inexact[Array, "units c_in c_out"]
"""A kernel as tiles take it, a matrix for each of their units."""


def convolve(x: Maps, w: Kernel, stride: Pair, padding: Pair, tiled: Tiled | None = None) -> Maps:
    """``y[b,i,j,o] = sum over k,l,c of x[b, i stride + k, j stride + l, c] w[k,l,c,o]``.

    ``x`` is padded with zeros on all four sides. In float32 at stride 1 on a CPU, rounding errors
    are 7 to 11 times those of the plain sum: 2e-6 of the typical output. ``tiled`` is what
    ``tiled_kernel`` makes of ``w`` and the size of ``x``, where it is at hand.
    """
    dtype = jnp.result_type(x, w)
    held = None if tiled is None else tiled.astype(dtype)
    return lax.platform_dependent(
        x.astype(dtype),
        w.astype(dtype),
        cpu=lambda x, w: _convolve_on_cpu(x, w, stride, padding, held),
        cuda=lambda x, w: convolve_by(multiply, x, w, stride, padding),
        default=lambda x, w: _convolve_by_xla(x, w, stride, padding),
    )


def convolve_by(product: Product, x: Maps, w: Kernel, stride: Pair, padding: Pair) -> Maps:
    """The same by one given product of two matrices, patches times kernel, on any device.

    The patches take ``rows columns`` times the memory of ``x``.
    """
    return _convolve_patches(_padded(x, padding), w, stride, product)


def tiled_kernel(w: Kernel, size: Pair, stride: Pair, padding: Pair) -> Tiled | None:
    """What ``convolve`` makes of ``w`` on a CPU, for maps of so many rows and columns; None where
    it takes ``w`` as it is.
    """
    if not _in_tiles(w, stride, w.dtype):
        return None
    lengths = tuple(n + 2 * p for n, p in zip(size, padding, strict=True))
    return _transform(w, positions(lengths, w.shape[:2], stride))


def positions(lengths: tuple[int, ...], taps: tuple[int, ...], stride: Pair) -> Pair:
    """How often a kernel of that many taps fits into (padded) rows and columns."""
    (rows, columns), (k, m), (s, t) = lengths, taps, stride
    return (rows - k) // s + 1, (columns - m) // t + 1


def unstack(x: Array, axis: int) -> list[Array]:
    """The slices of ``x`` along an axis, without it."""
    # The transpose of a split is one concatenation; that of slices is a sum of padded arrays.
    parts = lax.split(x, (1,) * x.shape[axis], axis)
    return [lax.squeeze(part, (axis,)) for part in parts]


def _convolve_by_xla(x: Maps, w: Kernel, stride: Pair, padding: Pair) -> Maps:
    pads = [(p, p) for p in padding]
    order, precision = ("NHWC", "HWIO", "NHWC"), lax.Precision.HIGHEST
    return lax.conv_general_dilated(
        x, w, stride, pads, dimension_numbers=order, precision=precision
    )


def _convolve_on_cpu(x: Maps, w: Kernel, stride: Pair, padding: Pair, tiled: Tiled | None) -> Maps:
    x = _padded(x, padding)
    if not _in_tiles(w, stride, x.dtype):
        return _convolve_patches(x, w, stride)
    if tiled is None:
        # This ties w to x, so that a loop over x does not hoist what is made of w. XLA would hoist
        # it once for the drive and once for the feedback, and then compute the products twice per
        # step.
        x, w = lax.optimization_barrier((x, w))
        tiled = _transform(w, positions(x.shape[1:3], w.shape[:2], stride))
    return _convolve_tiles(x, tiled, w.shape[:2])


def _in_tiles(w: Kernel, stride: Pair, dtype: jnp.dtype) -> bool:
    # Tiles trade products of channels for sums over units, and lose a digit to rounding.
    wide = min(w.shape[2:]) >= 8 and w.shape[:2] != (1, 1)
    return stride == (1, 1) and wide and jnp.finfo(dtype).bits >= 32


def _padded(x: Maps, padding: Pair) -> Maps:
    return jnp.pad(x, ((0, 0), *((p, p) for p in padding), (0, 0)))


def _convolve_patches(x: Maps, w: Kernel, stride: Pair, product: Product = multiply) -> Maps:
    """One matrix product with the patches that the output units see."""
    counts = positions(x.shape[1:3], w.shape[:2], stride)
    for axis in (1, 0):
        step, last = stride[axis], (counts[axis] - 1) * stride[axis]
        shifts = range(w.shape[axis])
        seen = [lax.slice_in_dim(x, k, k + last + 1, step, axis=axis + 1) for k in shifts]
        x = jnp.stack(seen, axis=3)
    *places, _, _, _ = x.shape
    maps = product(x.reshape(math.prod(places), -1), w.reshape(-1, w.shape[3]))
    return maps.reshape(*places, w.shape[3])


def _transform(w: Kernel, outputs: Pair) -> Tiled:
    """``G w G^T`` of the tiles below, for so many rows and columns of outputs."""
    _, g_r, _, _ = _toom_cook(w.shape[0], outputs[0])
    _, g_c, _, _ = _toom_cook(w.shape[1], outputs[1])
    both = jnp.asarray(np.kron(g_r, g_c), w.dtype)
    return multiply(both, w.reshape(len(both.T), -1)).reshape(-1, *w.shape[2:])


def _convolve_tiles(x: Maps, tiled: Tiled, taps: tuple[int, ...]) -> Maps:
    """Toom-Cook: ``A^T [(G w G^T) (B^T x B)] A``, a product over channels per unit of a tile.

    A tile of m outputs of k taps takes ``m + k - 1`` products instead of ``m k``, in each direction
    (Lavin & Gray, arXiv:1509.09308).
    """
    rows, columns = positions(x.shape[1:3], taps, (1, 1))
    _, c_in, c_out = tiled.shape
    step_r, _, b_r, a_r = _toom_cook(taps[0], rows)
    step_c, _, b_c, a_c = _toom_cook(taps[1], columns)
    tiles = _combine(b_r, _tile(x, 1, rows, step_r, len(b_r)), axis=0)
    tiles = _combine(b_c, _tile(tiles, 3, columns, step_c, len(b_c)), axis=1)
    *size, batch, n_r, n_c, _ = tiles.shape
    y = multiply(tiles.reshape(math.prod(size), batch * n_r * n_c, c_in), tiled)
    y = _combine(a_r, unstack(y.reshape(*size, batch * n_r * n_c, c_out), 0), axis=0)
    y = _combine(a_c, unstack(y, 1), axis=1)
    y = y.reshape(step_r, step_c, batch, n_r, n_c, c_out).transpose(2, 3, 0, 4, 1, 5)
    return y.reshape(batch, n_r * step_r, n_c * step_c, c_out)[:, :rows, :columns]


def _tile(x: Array, axis: int, outputs: int, step: int, size: int) -> list[Array]:
    """Unit k of every tile along ``axis``, for each of the ``size`` units of a tile."""
    tiles, overlap = -(-outputs // step), -(-size // step)
    blocks = tiles + overlap - 1
    pads = [(0, 0)] * x.ndim
    pads[axis] = (0, blocks * step - x.shape[axis])
    x = jnp.pad(x, pads).reshape(*x.shape[:axis], blocks, step, *x.shape[axis + 1 :])
    units = unstack(x, axis + 1)
    starts = [divmod(k, step) for k in range(size)]
    return [lax.slice_in_dim(units[unit], b, b + tiles, axis=axis) for b, unit in starts]


def _combine(matrix: np.ndarray, parts: list[Array], axis: int) -> Array:
    """``matrix @ parts``, stacked along ``axis``; written out, so that zeros cost nothing."""

    def combine(row: np.ndarray) -> Array:
        terms = [
            part if a == 1 else a * part for a, part in zip(row.tolist(), parts, strict=True) if a
        ]
        return functools.reduce(jnp.add, terms)

    return jnp.stack([combine(row) for row in matrix], axis=axis)


@functools.cache
def _toom_cook(taps: int, outputs: int) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """The outputs m of a tile, and ``G, B^T, A^T``, where ``A^T [(G w) * (B^T x)]`` are m outputs.

    The transpose of multiplying two polynomials by way of their values at ``m + taps - 1`` points,
    one of them infinity.
    """
    points = (0, 1, -1, 2, -2, 0.5, -0.5)  # with more, rounding errors grow fast
    most = 1 if taps == 1 else max(1, len(points) + 2 - taps)  # one tap saves nothing
    m = -(-outputs // -(-outputs // most))  # as few tiles, of the smallest size
    if m == 1:
        return 1, np.eye(taps), np.eye(taps), np.ones((1, taps))
    size = m + taps - 1

    def values(terms: int) -> np.ndarray:
        finite = np.vander(points[: size - 1], terms, increasing=True)
        return np.vstack([finite, np.eye(terms)[-1:]])

    b = np.linalg.inv(values(size)).T
    scale = np.abs(b).max(axis=1, keepdims=True)
    return m, values(taps) * scale, b / scale, values(m).T
