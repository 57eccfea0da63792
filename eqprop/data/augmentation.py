"""Augmentation: images altered at random as a minibatch is fetched, on the device.

What is drawn follows from the minibatch's key, so a training that was cut and continued sees the
same images.
"""

import abc
from typing import final, override

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from eqprop.errors import EqpropError
from eqprop.types import Array, Float, PRNGKeyArray, UInt8

type Images = UInt8[Array, "B rows columns *channels"] | Float[Array, "B rows columns *channels"]

type Inputs = UInt8[Array, "B ..."] | Float[Array, "B ..."]
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


def augment(augmentations: tuple[Augmentation, ...], images: Inputs, key: PRNGKeyArray) -> Inputs:
    """The images after all augmentations, one after the other, each with random numbers of its
    own.
    """
    for number, augmentation in enumerate(augmentations):
        images = augmentation(images, jax.random.fold_in(key, number))
    return images
