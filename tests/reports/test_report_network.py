"""What a report shows of a network, against NumPy and finite differences; and its pictures."""

import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trainings
from test_report import Page
from trainings import digits

from eqprop.networks.connections import Dense
from eqprop.networks.convolution import MaxPool, conv
from eqprop.networks.graphs import chain
from eqprop.recipes.catalogue import RECIPES
from eqprop.recipes.recipe import Recipe
from eqprop.reports.inspection import filters, receptive_fields, relax
from eqprop.reports.svg import figure, tint

pytestmark = pytest.mark.usefixtures("quick_compilation")


@functools.cache
def small() -> Recipe:
    return dataclasses.replace(
        RECIPES["ep-1h"], dataset="digits", hidden=(16,), T=7, K=3, dtype="float64"
    )


def relaxed_by_numpy(network: Any, x: np.ndarray, steps: int) -> list[list[np.ndarray]]:
    """``s1 = rho(x W1 + b1 + s2 W2^T)``, ``s2 = rho(s1 W2 + b2)``, both at once."""
    (w1, b1), (w2, b2) = (
        (np.asarray(edge.connection.weight), np.asarray(edge.connection.bias))
        for edge in network.edges
    )

    def rho(v: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-4 * (v - 0.5)))

    states = [[np.zeros(16), np.zeros(10)]]
    for _ in range(steps):
        s1, s2 = states[-1]
        states.append([rho(x @ w1 + b1 + w2 @ s2), rho(s1 @ w2 + b2)])
    return states


def test_a_relaxation_is_that_of_numpy(x64) -> None:
    experiment = trainings.prepare(small(), digits())
    network = experiment.start(3).network
    found = relax(experiment, network, 5, digits().target)
    states = relaxed_by_numpy(network, digits().test_x[5].ravel() / 255, 7)
    for n, layer in enumerate(found.layers):
        expected = np.stack([s[n] for s in states])
        np.testing.assert_allclose(layer.states, expected, atol=1e-12)
        np.testing.assert_allclose(layer.end, expected[-1], atol=1e-12)
        moved = np.abs(np.diff(expected, axis=0)).max(axis=1)
        np.testing.assert_allclose(layer.residuals, moved, atol=1e-12)
    assert found.label == str(digits().test_y[5])
    assert found.predicted == str(states[-1][1].argmax())
    np.testing.assert_array_equal(found.image, digits().test_x[5] / 255)


def test_a_receptive_field_is_a_derivative(x64) -> None:
    experiment = trainings.prepare(small(), digits())
    network = experiment.start(3).network
    (outputs,) = receptive_fields(experiment, network, 5, digits().target.names)
    x, h = digits().test_x[5].ravel() / 255, 1e-6
    for pixel in (0, 20, 37):
        step = h * np.eye(64)[pixel]
        above, below = (relaxed_by_numpy(network, x + d, 7)[-1][1] for d in (step, -step))
        expected = (above - below) / (2 * h)
        np.testing.assert_allclose(outputs.images.reshape(10, 64)[:, pixel], expected, atol=1e-8)


def test_fields_of_convolutional_layers(x64) -> None:
    recipe = dataclasses.replace(
        small(), channels=(2, 3), hidden=(), lr=(0.1,) * 3, kernel=2, window=(1,), T=3
    )
    experiment = trainings.prepare(recipe, digits())
    network = experiment.start(0).network
    maps, outputs = receptive_fields(experiment, network, 0, digits().target.names)
    assert [len(maps.images), len(outputs.images)] == [3, 10]
    x = jnp.asarray(digits().test_x[:1, :, :, None] / 255)
    system = experiment.trainer.system

    @jax.jit
    def states(x: jax.Array) -> list[jax.Array]:
        return [s[0] for s in system.free(system.clamp(network, x), x)[0]]

    h, pixel = 1e-6, (0, 4, 4, 0)
    above, below = (states(x.at[pixel].add(d)) for d in (h, -h))
    expected = (above[1][3, 3] - below[1][3, 3]) / (2 * h)  # amid maps of 6x6
    order = [int(label.removeprefix("channel ")) for label in maps.labels]
    np.testing.assert_allclose(maps.images[:, 4, 4], np.asarray(expected)[order], atol=1e-7)


def test_filters() -> None:
    pool = MaxPool(2)
    network = chain(
        [(8, 8, 1), (3, 3, 2), (1, 1, 5), (10,)],
        jax.random.key(0),
        [conv(3, 1, 0, pool), conv(2, 1, 0, pool), Dense.init],
    )
    first, second = filters(network, (8, 8))
    assert first.images.shape == (2, 3, 3)
    assert second.images.shape == (10, 2, 2)
    weight = np.asarray(network.edges[1].connection.weight)
    for label, image in zip(second.labels, second.images, strict=True):
        pre, post = map(int, re.findall(r"\d+", label))
        np.testing.assert_array_equal(image, weight[:, :, pre, post])
    sizes = np.linalg.norm(second.images, axis=(1, 2))
    assert (np.diff(sizes) <= 0).all()

    dense = chain([(64,), (40,), (10,)], jax.random.key(0))
    (units,) = filters(dense, (8, 8))
    weight = np.asarray(dense.edges[0].connection.weight)
    assert len(units.images) == 32
    for label, image in zip(units.labels, units.images, strict=True):
        np.testing.assert_array_equal(image.ravel(), weight[:, int(label.removeprefix("unit "))])
    shown = np.linalg.norm(units.images, axis=(1, 2)).min()
    assert (np.linalg.norm(weight.astype(float), axis=0) >= shown - 1e-12).sum() == 32


def test_weights_from_the_pixels_of_colour_images() -> None:
    network = chain([(4 * 3 * 3,), (6,), (10,)], jax.random.key(0))
    (units,) = filters(network, (4, 3, 3))
    weight = np.asarray(network.edges[0].connection.weight, np.float64)
    for label, image in zip(units.labels, units.images, strict=True):
        unit = weight[:, int(label.removeprefix("unit "))]
        np.testing.assert_allclose(image, unit.reshape(4, 3, 3).mean(axis=2), rtol=1e-12)


def test_tint() -> None:
    colours = tint(np.array([[2.0, -1.0], [0.0, np.nan]]))
    assert colours[..., 3].tolist() == [[255, 128], [0, 0]]
    (red, _, blue), (red_too, _, blue_too) = colours[0, :, :3].tolist()
    assert blue > red
    assert red_too > blue_too
    assert (tint(np.zeros((2, 2)))[..., 3] == 0).all()


def test_figures_are_in_the_colours_of_the_page() -> None:
    def draw(drawn: Any) -> None:
        axes = drawn.subplots()
        for n in range(6):
            axes.plot([0, 1], [0, n + 1], "o-", mfc="white", color=f"C{n}", label=f"<{n}>")
        axes.plot([0, 1], [1, 1], color="black")
        axes.plot([0, 1], [2, 2], color="grey")
        axes.legend()

    svg = figure(draw, 'a "label" <b>', "name")
    assert not re.findall(r"#[0-9a-fA-F]{6}\b|http|font-family|<style|<metadata", svg)
    assert {f"var(--c{n})" for n in range(6)} <= set(re.findall(r"var\([^)]*\)", svg))
    for name in ("ink", "muted", "surface"):
        assert f"var(--{name})" in svg
    parsed = Page(svg)
    assert parsed.labels() == ['a "label" <b>']
    assert "<3>" in parsed.text
    assert not any(tag in {"b", "3"} for tag, _ in parsed.elements)
    ids = {a["id"] for _, a in parsed.elements if "id" in a}
    used = {a["href"][1:] for _, a in parsed.elements if "href" in a}
    used |= {m for _, a in parsed.elements for m in re.findall(r"url\(#(.*?)\)", str(a))}
    assert used
    assert used <= ids
    assert all(name.startswith("name-") for name in ids)
