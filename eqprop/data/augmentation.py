"""Augmentation: images altered at random as a minibatch is fetched, on the device.

What is drawn follows from the minibatch's key, so a training that was cut and continued sees the
same images.
"""

import abc
import math
from typing import final, override

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy import ndimage

from eqprop.errors import EqpropError
from eqprop.types import Array, Float, PRNGKeyArray, UInt8

type Images = UInt8[Array, "B rows columns *channels"] | Float[Array, "B rows columns *channels"]

type RawInputs = UInt8[Array, "B ..."] | Float[Array, "B ..."]
"""Images, or inputs of any shape where there is nothing to alter them."""


class Augmentation(eqx.Module):
    """Abstract: a random change of images that leaves their class as it is."""

    @abc.abstractmethod
    def __call__(self, images: Images, key: PRNGKeyArray) -> Images:
        """Images altered, each in its own way; of the same shape."""


@final
class Shift(Augmentation):
    """Each image moved by up to ``pixels`` rows and as many columns, every whole number as likely;
    what comes in is 0.
    """

    pixels: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        if self.pixels < 0:
            raise EqpropError(f"shift is {self.pixels}: give a number of pixels, at least 0")

    @override
    def __call__(self, images: Images, key: PRNGKeyArray) -> Images:
        n = self.pixels
        padded = jnp.pad(images, ((0, 0), (n, n), (n, n), *[(0, 0)] * (images.ndim - 3)))
        corners = jax.random.randint(key, (len(images), 2), 0, 2 * n + 1)

        def cut(image: Array, corner: Array) -> Array:
            start = (*corner, *[0] * (image.ndim - 2))
            return lax.dynamic_slice(image, start, images.shape[1:])

        return jax.vmap(cut)(padded, corners)


@final
class Flip(Augmentation):
    """Each image mirrored, left to right, or not, the one as likely as the other."""

    @override
    def __call__(self, images: Images, key: PRNGKeyArray) -> Images:
        flips = jax.random.bernoulli(key, shape=(len(images), *[1] * (images.ndim - 1)))
        return jnp.where(flips, images[:, :, ::-1], images)


@final
class Warp(Augmentation):
    """Each image turned about its middle, stretched, and bent.

    It is turned by up to ``degrees`` either way, and rows and columns are stretched apart, by
    factors of ``1 - zoom`` to ``1 + zoom``. It is bent by displacements of ``elastic`` pixels (root
    mean square) in each direction: white noise, smoothed by a Gaussian of 4 pixels (Simard et al.,
    ICDAR 2003). Between pixels it is interpolated linearly; what comes in is 0.
    """

    degrees: float = eqx.field(static=True, default=0.0)
    zoom: float = eqx.field(static=True, default=0.0)
    elastic: float = eqx.field(static=True, default=0.0)

    def __check_init__(self) -> None:
        if not 0 <= self.degrees <= 180:
            raise EqpropError(f"rotate is {self.degrees}: give an angle from 0 to 180 degrees")
        if not 0 <= self.zoom < 1:
            raise EqpropError(f"zoom is {self.zoom}: give a part, from 0 to below 1")
        if not 0 <= self.elastic < math.inf:
            raise EqpropError(f"elastic is {self.elastic}: give a number of pixels, at least 0")

    @override
    def __call__(self, images: Images, key: PRNGKeyArray) -> Images:
        _, rows, columns, *_ = images.shape

        def one(image: Array, key: PRNGKeyArray) -> Array:
            places = list(self._seen_from((rows, columns), key))

            def warp(channel: Array) -> Array:
                return ndimage.map_coordinates(channel, places, order=1)

            # Arithmetic on bytes would wrap around.
            values = image.astype(jnp.promote_types(image.dtype, jnp.float32))
            return warp(values) if image.ndim == 2 else jax.vmap(warp, -1, -1)(values)

        warped = jax.vmap(one)(images, jax.random.split(key, len(images)))
        if images.dtype == jnp.uint8:
            warped = jnp.rint(warped)
        return warped.astype(images.dtype)

    def _seen_from(self, size: tuple[int, int], key: PRNGKeyArray) -> Float[Array, "2 r c"]:
        """The places in the image, in pixels, that the pixels of the warped one show."""
        turn_key, zoom_key, bend_key = jax.random.split(key, 3)
        turn = jnp.deg2rad(jax.random.uniform(turn_key, (), minval=-1, maxval=1) * self.degrees)
        cos, sin = jnp.cos(turn), jnp.sin(turn)
        stretch = 1 + self.zoom * jax.random.uniform(zoom_key, (2, 1, 1), minval=-1, maxval=1)
        middle = jnp.reshape((jnp.asarray(size) - 1) / 2, (2, 1, 1))
        rows, columns = (jnp.stack(jnp.indices(size)) - middle) / stretch
        places = jnp.stack([cos * rows - sin * columns, sin * rows + cos * columns]) + middle
        if self.elastic:
            noise = jax.random.normal(bend_key, (2, *size))
            along_rows, along_columns = (_smoothing(n) for n in size)
            places += self.elastic * jnp.einsum(
                "ij,djk,lk->dil", along_rows, noise, along_columns, precision=lax.Precision.HIGHEST
            )
        return places


def _smoothing(n: int) -> np.ndarray:
    """``(n, n)``: smooths n independent numbers of variance 1 to others of variance 1."""
    distance = np.subtract.outer(np.arange(n), np.arange(n))
    gaussian = np.exp(-(distance**2) / (2 * 4.0**2))
    return (gaussian / np.linalg.norm(gaussian, axis=1, keepdims=True)).astype(np.float32)


@final
class Erase(Augmentation):
    """A square of ``pixels`` rows and columns of each image is made 0, its middle anywhere in the
    image (DeVries & Taylor, arXiv:1708.04552).
    """

    pixels: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        if self.pixels < 0:
            raise EqpropError(f"erase is {self.pixels}: give a number of pixels, at least 0")

    @override
    def __call__(self, images: Images, key: PRNGKeyArray) -> Images:
        n, size = len(images), images.shape[1:3]
        keys = jax.random.split(key)

        def inside(key: PRNGKeyArray, length: int) -> Array:
            first = jax.random.randint(key, (n, 1), 0, length) - self.pixels // 2
            place = jnp.arange(length)
            return (place >= first) & (place < first + self.pixels)

        rows, columns = (inside(*one) for one in zip(keys, size, strict=True))
        square = rows[:, :, None] & columns[:, None, :]
        square = square.reshape(*square.shape, *[1] * (images.ndim - 3))
        return jnp.where(square, jnp.zeros((), images.dtype), images)


def augment(
    augmentations: tuple[Augmentation, ...], images: RawInputs, key: PRNGKeyArray
) -> RawInputs:
    """The images after all augmentations, one after the other, each with random numbers of its
    own.
    """
    for number, augmentation in enumerate(augmentations):
        images = augmentation(images, jax.random.fold_in(key, number))
    return images
