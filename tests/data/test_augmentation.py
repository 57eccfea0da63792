"""Augmentations, against slices cut by hand."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqprop.data.augmentation import Erase, Flip, Shift, Warp, augment
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


def places_seen(warp: Warp, images: int, size: tuple[int, int]) -> np.ndarray:
    """The places (row, column) that the pixels of warped images show; NaN outside of the image.

    The channels of the image are the numbers of its rows and columns: linear interpolation between
    pixels leaves them exact.
    """
    image = np.stack([*np.indices(size), np.ones(size)], axis=-1).astype(np.float32)
    batch = np.broadcast_to(image, (images, *image.shape))
    seen = np.asarray(jax.jit(warp)(batch, jax.random.key(0)))
    return np.where(seen[..., 2:] > 1 - 3e-6, seen[..., :2], np.nan)


def test_a_rotation_turns_about_the_middle() -> None:
    size, middle = (9, 12), np.array([4, 5.5])
    seen = places_seen(Warp(degrees=30.0), 500, size)
    turns = []
    for places in seen:
        inside = ~np.isnan(places[..., 0])
        p, q = np.argwhere(inside) - middle, places[inside] - middle
        turn = np.arctan2(np.sum(q[:, 1] * p[:, 0] - q[:, 0] * p[:, 1]), np.sum(p * q))
        rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        np.testing.assert_allclose(q, p @ rotation, atol=1e-4)
        turns.append(np.rad2deg(turn))
    assert 29 < max(turns) <= 30
    assert -30 <= min(turns) < -29
    assert abs(np.mean(turns)) < 3  # 0, with a standard deviation of 0.8
    np.testing.assert_allclose(np.std(turns), 60 / 12**0.5, rtol=0.1)


def test_zoom_stretches_rows_and_columns_apart() -> None:
    seen = places_seen(Warp(zoom=0.2), 500, (9, 12))
    factors = []
    for places in seen:
        rows, columns = np.indices((9, 12)) - np.array([4, 5.5]).reshape(2, 1, 1)
        middle = slice(3, 6), slice(4, 8)  # which every image of these shows
        q = places[middle] - [4, 5.5]
        row = (rows[middle] ** 2).sum() / (rows[middle] * q[..., 0]).sum()
        column = (columns[middle] ** 2).sum() / (columns[middle] * q[..., 1]).sum()
        np.testing.assert_allclose(q[..., 0], rows[middle] / row, atol=1e-4)
        np.testing.assert_allclose(q[..., 1], columns[middle] / column, atol=1e-4)
        factors.append((row, column))
    low, high = np.min(factors, axis=0), np.max(factors, axis=0)
    assert np.all((low >= 0.8 - 1e-4) & (low < 0.81) & (high <= 1.2 + 1e-4) & (high > 1.19))
    assert abs(np.corrcoef(np.transpose(factors))[0, 1]) < 0.2  # std 0.045


def test_elastic_displacements_are_as_large_and_as_smooth_as_they_say() -> None:
    seen = places_seen(Warp(elastic=0.7), 800, (20, 18))
    middle = slice(None), slice(6, 14), slice(6, 13)
    moved = (seen - np.stack(np.indices((20, 18)), -1))[middle]
    assert not np.isnan(moved).any()
    np.testing.assert_allclose(np.sqrt(np.mean(moved**2, axis=(0, 1, 2))), 0.7, rtol=0.05)
    assert abs(np.corrcoef(moved[..., 0].ravel(), moved[..., 1].ravel())[0, 1]) < 0.1
    # A Gaussian of 4 pixels, twice: one of sqrt(2) times that.
    near = np.mean(moved[:, 4:] * moved[:, :-4]) / np.mean(moved**2)
    np.testing.assert_allclose(near, np.exp(-(4**2) / (4 * 4**2)), atol=0.08)


def test_warped_bytes_are_the_rounded_warped_numbers_and_none_leaves_all_as_it_is() -> None:
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (20, 7, 8), np.uint8))
    warp, key = Warp(20.0, 0.1, 0.5), jax.random.key(3)
    bytes_, numbers = warp(images, key), warp(images.astype(jnp.float32), key)
    assert bytes_.dtype == np.uint8
    np.testing.assert_array_equal(bytes_, np.rint(numbers))
    assert not np.array_equal(bytes_, images)
    np.testing.assert_array_equal(Warp()(images, key), images)


@pytest.mark.parametrize("channels", [(), (3,)])
def test_an_erased_square_is_black_and_nothing_else(channels: tuple[int, ...]) -> None:
    images = np.full((2000, 6, 5, *channels), 7, np.uint8)
    after = np.asarray(jax.jit(Erase(3))(images, jax.random.key(0)))
    if channels:
        assert np.all(after == after[..., :1])
        after = after[..., 0]
    ways = {}
    for image in after:
        middles = [
            (i, j)
            for i in range(6)
            for j in range(5)
            if np.array_equal(
                image == 0,
                np.outer(abs(np.arange(6) - i) <= 1, abs(np.arange(5) - j) <= 1),
            )
        ]
        assert len(middles) == 1
        ways[middles[0]] = ways.get(middles[0], 0) + 1
    # 2000/30 = 67 each, with a standard deviation of 8.
    assert len(ways) == 30
    assert 30 < min(ways.values()) <= max(ways.values()) < 110


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Warp(degrees=181.0), "rotate is 181"),
        (lambda: Warp(zoom=1.0), "zoom is 1"),
        (lambda: Warp(elastic=-0.5), "elastic is -0.5"),
        (lambda: Erase(-1), "erase is -1"),
    ],
)
def test_augmentations_that_cannot_be(make: Callable[[], object], message: str) -> None:
    with pytest.raises(EqpropError, match=message):
        make()
