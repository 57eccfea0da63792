"""Augmentations, against slices cut by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqprop.data.augmentation import Flip, Shift, augment
from eqprop.errors import EqpropError


@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_shift_moves_each_image_as_one_and_every_way_as_often(channels: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, size=(2000, 5, 4, *channels), dtype=np.uint8)
    moved = np.asarray(jax.jit(Shift(1))(images, jax.random.key(0)))
    frame = [(1, 1), (1, 1), *[(0, 0)] * len(channels)]
    ways = {}
    for before, after in zip(images, moved, strict=True):
        padded = np.pad(before, frame)
        fits = [
            (i, j)
            for i in range(3)
            for j in range(3)
            if np.array_equal(after, padded[i : i + 5, j : j + 4])
        ]
        assert len(fits) == 1
        ways[fits[0]] = ways.get(fits[0], 0) + 1
    assert len(ways) == 9
    # 2000/9 = 222 each, with a standard deviation of 14.
    assert 150 < min(ways.values()) <= max(ways.values()) < 300


def test_a_shift_by_nothing_and_by_less() -> None:
    images = jnp.arange(24, dtype=jnp.uint8).reshape(2, 4, 3)
    np.testing.assert_array_equal(Shift(0)(images, jax.random.key(0)), images)
    with pytest.raises(EqpropError, match="shift is -1"):
        Shift(-1)


@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_flip_mirrors_half_of_the_images(channels: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, size=(1000, 5, 4, *channels), dtype=np.uint8)
    after = np.asarray(jax.jit(Flip())(images, jax.random.key(0)))
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(after, images, strict=True)]
    same = [np.array_equal(a, b) for a, b in zip(after, images, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    # 500, with a standard deviation of 16.
    assert 430 < sum(mirrored) < 570


def test_augmentations_draw_apart_from_each_other() -> None:
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (64, 5, 4), np.uint8))
    twice = augment((Flip(), Flip()), images, jax.random.key(0))
    same = [np.array_equal(a, b) for a, b in zip(np.asarray(twice), images, strict=True)]
    assert 10 < sum(same) < 54
