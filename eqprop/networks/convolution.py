"""Convolutional connections between layers (height, width, channels): ``pool(conv(r, W)) + b``."""

import abc
import dataclasses
import functools
import math
from typing import ClassVar, final, override

import equinox as eqx
import jax
import jax.numpy as jnp

from eqprop.errors import EqpropError
from eqprop.networks.connections import Connection, Dense, Product
from eqprop.networks.fast_convolution import (
    Kernel,
    Maps,
    Pair,
    Tiled,
    convolve,
    convolve_by,
    positions,
    tiled_kernel,
    unstack,
)
from eqprop.networks.graphs import Build
from eqprop.types import Array, Float, Layer, PRNGKeyArray, Shape

type Size = int | Pair
"""One number for both directions, or (rows, columns)."""


class Pool(eqx.Module):
    """Abstract: makes maps of units smaller, each channel on its own.

    Windows of ``size`` x ``size`` units, without overlap. Rows and columns left over at the bottom
    and the right, where ``size`` does not divide the map, are dropped, as PyTorch does: they drive
    nothing and receive no feedback. Adding a constant before is adding it after.
    """

    size: eqx.AbstractVar[int]
    analytic: ClassVar[bool] = True
    """Whether it is an analytic function of complex maps."""

    @abc.abstractmethod
    def __call__(self, maps: Maps) -> Maps:
        """From ``(B, height, width, c)`` to ``(B, height // size, width // size, c)``."""

    def choose(self, maps: Maps, guide: Maps) -> Maps:
        """The same, but where units are chosen by their size, by that of the same units of
        ``guide``.
        """
        return self(maps)


@final
class NoPool(Pool):
    """No pooling."""

    size: int = eqx.field(static=True, default=1, init=False)

    @override
    def __call__(self, maps: Maps) -> Maps:
        return maps


@final
class AveragePool(Pool):
    """The mean of each window."""

    size: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        _check("a pooling window", self.size, least=1)

    @override
    def __call__(self, maps: Maps) -> Maps:
        units = _windows(maps, self.size)
        return functools.reduce(jnp.add, units) / len(units)


@final
class MaxPool(Pool):
    """The largest unit of each window.

    Among equals the first, row by row, wins alone, as with argmax: the feedback to a window and its
    statistics go through that one unit.
    """

    size: int = eqx.field(static=True)
    analytic: ClassVar[bool] = False

    def __check_init__(self) -> None:
        _check("a pooling window", self.size, least=1)

    @override
    def __call__(self, maps: Maps) -> Maps:
        return self.choose(maps, maps)

    @override
    def choose(self, maps: Maps, guide: Maps) -> Maps:
        best, *others = zip(_windows(guide, self.size), _windows(maps, self.size), strict=True)
        largest, chosen = best
        for size, unit in others:
            # Strictly greater keeps the first of equals; a select sends a cotangent one way only,
            # where the derivative of jnp.maximum would divide it between equals.
            larger = size > largest
            largest, chosen = jnp.where(larger, size, largest), jnp.where(larger, unit, chosen)
        return chosen


NO_POOL = NoPool()


def _windows(maps: Maps, size: int) -> list[Maps]:
    """The ``size**2`` units of all whole windows, row by row."""
    batch, height, width, channels = maps.shape
    h, w = height // size, width // size
    whole = maps[:, : h * size, : w * size].reshape(batch, h, size, w, size, channels)
    return [unit for row in unstack(whole, 2) for unit in unstack(row, 3)]


@final
class Conv(Connection):
    """``pool(conv(r_pre, weight)) + bias``, which equals ``pool(conv(r_pre, weight) + bias)``.

    ``weight`` has shape ``(rows, columns, c_in, c_out)``, ``bias`` ``(c_out,)`` or None. The kernel
    is not flipped; ``padding`` zeros stand on each side. Feedback and statistics of a max-pool go
    to the units that are largest at the present ``r_pre``: in this connection's own drive, or in
    that of the forward weights where it is the feedback of an ``Untied`` edge. Raises
    ``EqpropError`` where sizes don't fit.
    """

    weight: Kernel
    bias: Float[Array, " c_out"] | None = None
    stride: Pair = eqx.field(static=True, default=(1, 1))
    padding: Pair = eqx.field(static=True, default=(0, 0))
    pool: Pool = NO_POOL
    product: Product | None = eqx.field(static=True, default=None)
    """None leaves the choice of the products to ``convolve``."""
    learns_bias: bool = eqx.field(static=True, default=True)
    tiled: Tiled | None = None
    """``weight`` as ``convolve`` takes it, where that has been made before."""

    def __check_init__(self) -> None:
        if self.weight.ndim != 4:
            raise EqpropError(
                f"a kernel has shape (rows, columns, c_in, c_out), not {self.weight.shape}"
            )
        if self.bias is not None and self.bias.shape != self.weight.shape[3:]:
            raise EqpropError(
                f"a bias of shape {self.bias.shape} for {self.weight.shape[3]} channels"
            )
        _check("a stride", *self.stride, least=1)
        _check("a padding", *self.padding, least=0)

    @property
    @override
    def analytic(self) -> bool:
        return self.pool.analytic

    @override
    def __call__(self, r_pre: Layer) -> Layer:
        rows, columns, c_in, c_out = self.weight.shape
        pre = r_pre.shape[1:]
        conv_shape(pre, c_out, (rows, columns), self.stride, self.padding, self.pool)
        if pre[2] != c_in:
            raise EqpropError(
                f"a kernel for {c_in} channels, but a layer {pre} of {pre[2]} channels"
            )
        maps = self.convolved(r_pre)
        return self.pooled(maps, maps)

    def convolved(self, r_pre: Layer) -> Maps:
        """``conv(r_pre, weight)``."""
        if self.product is None:
            return convolve(r_pre, self.weight, self.stride, self.padding, self.tiled)
        return convolve_by(self.product, r_pre, self.weight, self.stride, self.padding)

    def pooled(self, maps: Maps, guide: Maps) -> Layer:
        """The drive that becomes of ``maps``, where ``guide`` decides who wins in a max-pool."""
        drive = self.pool.choose(maps, guide)
        if self.bias is None:
            return drive
        return drive + (self.bias if self.learns_bias else jax.lax.stop_gradient(self.bias))

    @override
    def prepared(self, pre: Shape) -> "Conv":
        if self.product is not None:
            return self
        rows, columns, _ = pre
        tiled = tiled_kernel(self.weight, (rows, columns), self.stride, self.padding)
        return dataclasses.replace(self, tiled=tiled)

    @override
    def fix_bias(self) -> "Conv":
        return dataclasses.replace(self, learns_bias=False)

    @override
    def multiplications(self, pre: Shape) -> int:
        padded = tuple(n + 2 * p for n, p in zip(pre[:2], self.padding, strict=True))
        return self.weight.size * math.prod(positions(padded, self.weight.shape[:2], self.stride))

    @override
    def guided(self, by: Connection) -> Connection:
        if self.pool.analytic or not isinstance(by, Conv):
            return self
        ours, theirs = ((*c.weight.shape, c.stride, c.padding) for c in (self, by))
        if ours != theirs:
            raise EqpropError(
                "feedback through the winners of a max-pool: the two convolutions have kernels, "
                f"strides and paddings {ours} and {theirs}: give both the same"
            )
        return _Guided(self, by)

    @override
    def with_product(self, product: Product) -> "Conv":
        return dataclasses.replace(self, product=product)


@final
class _Guided(Connection):
    """A convolution with the winners of its max-pool chosen by the maps of another one."""

    conv: Conv
    by: Conv

    @override
    def __call__(self, r_pre: Layer) -> Layer:
        return self.conv.pooled(self.conv.convolved(r_pre), self.by.convolved(r_pre))


def conv(
    kernel: Size,
    stride: Size = 1,
    padding: Size = 0,
    pool: Pool = NO_POOL,
    *,
    bias: bool = True,
) -> Build:
    """Makes a ``Conv``, as ``chain`` wants it, for a layer of the shape that ``conv_shape`` gives.

    Kernels and biases are uniform in ``+-1/sqrt(fan_in)``, ``fan_in = rows columns c_in``. With
    odd kernels and stride 1, a padding of ``kernel // 2`` keeps the size of the maps.
    """

    def build(pre: Shape, post: Shape, key: PRNGKeyArray) -> Conv:
        made = conv_shape(pre, post[-1], kernel, stride, padding, pool)
        if made != post:
            raise EqpropError(
                f"{_describe(kernel, stride, padding, pool)} makes of a layer {pre} one of {made}, "
                f"not {post}: take the shape that conv_shape gives"
            )
        rows, columns = _pair(kernel)
        bound = (rows * columns * pre[2]) ** -0.5
        w_key, b_key = jax.random.split(key)
        shape = (rows, columns, pre[2], post[2])
        weight = jax.random.uniform(w_key, shape, minval=-bound, maxval=bound)
        b = jax.random.uniform(b_key, post[2:], minval=-bound, maxval=bound) if bias else None
        return Conv(weight, b, _pair(stride), _pair(padding), pool)

    return build


def shortcut(pre: Shape, post: Shape, key: PRNGKeyArray) -> Connection:
    """A skip connection, made for any two layers but from dense ones to maps.

    Between maps of different depth and size it is a 1x1 convolution, averaged over windows as wide
    as the maps are apart, in rows and columns alike; into a dense layer it is dense. There is no
    bias: the layer has that of its other edge. Raises ``EqpropError`` where no window fits.
    """
    if len(post) == 1:
        return Dense.init(pre, post, key, bias=False)
    if len(pre) != 3 or len(post) != 3:
        raise EqpropError(
            f"a skip from a layer {pre} to one of {post}: both must be (height, width, channels), "
            "or the second one dense"
        )
    size = max(1, pre[0] // post[0])
    pool = AveragePool(size) if size > 1 else NO_POOL
    return conv(1, pool=pool, bias=False)(pre, post, key)


def conv_shape(
    pre: Shape,
    channels: int,
    kernel: Size,
    stride: Size = 1,
    padding: Size = 0,
    pool: Pool = NO_POOL,
) -> Shape:
    """The layer (height, width, channels) that a convolution and its pooling drive from ``pre``.

    Both round down: what does not fill a last stride or window is dropped. Raises ``EqpropError``
    where nothing is left, and for sizes that make no sense.
    """
    _check("a number of channels", channels, least=1)
    _check("a kernel", *_pair(kernel), least=1)
    _check("a stride", *_pair(stride), least=1)
    _check("a padding", *_pair(padding), least=0)
    if len(pre) != 3:
        raise EqpropError(
            f"a convolution from a layer of shape {pre}: it takes (height, width, channels)"
        )
    above, left = _pair(padding)
    padded = (pre[0] + 2 * above, pre[1] + 2 * left)
    height, width = positions(padded, _pair(kernel), _pair(stride))
    if min(height, width) < pool.size:
        raise EqpropError(
            f"{_describe(kernel, stride, padding, pool)} leaves nothing of a layer {pre}: take a "
            f"smaller kernel or window, or pad (before pooling: {max(height, 0)}x{max(width, 0)})"
        )
    return (height // pool.size, width // pool.size, channels)


def _pair(size: Size) -> Pair:
    return (size, size) if isinstance(size, int) else size


def _describe(kernel: Size, stride: Size, padding: Size, pool: Pool) -> str:
    """All the sizes, for an error."""
    rows, columns = _pair(kernel)
    window = "" if pool.size == 1 else f", {type(pool).__name__}({pool.size})"
    return f"a kernel {rows}x{columns}, stride {stride}, padding {padding}{window}"


def _check(name: str, *counts: int, least: int) -> None:
    if any(not isinstance(n, int) or n < least for n in counts):
        given = counts[0] if len(set(counts)) == 1 else counts
        raise EqpropError(f"{name} of {given}: give a whole number, at least {least}")
