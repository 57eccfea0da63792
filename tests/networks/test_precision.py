"""States in bfloat16, against NumPy with ml_dtypes' rounding and sums in double precision."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax import lax

from eqprop.benchmarks.speed import random_images
from eqprop.dynamics.activations import sigm
from eqprop.dynamics.altered import RoundedStates
from eqprop.dynamics.step import EnergyBased, Place
from eqprop.errors import EqpropError
from eqprop.networks.connections import Dense, Lateral
from eqprop.networks.connections import multiply_in_half as multiply
from eqprop.networks.convolution import Conv, MaxPool
from eqprop.networks.graphs import chain
from eqprop.recipes.build import build
from eqprop.recipes.catalogue import recipe
from eqprop.recipes.recipe import Recipe
from eqprop.training.experiment import prepare

pytestmark = pytest.mark.usefixtures("quick_compilation")


def draw(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def half(a: jax.Array) -> np.ndarray:
    """The nearest bfloat16, exactly, as a double."""
    return np.asarray(a).astype(ml_dtypes.bfloat16).astype(float)


def close(found, expected) -> None:
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * scale)


def test_products_are_of_rounded_numbers_and_summed_in_full() -> None:
    a, b, c = draw(0, 20, 300), draw(1, 300, 7), draw(2, 20, 7)
    drive, pull = jax.jit(
        lambda *args: (multiply(*args[:2]), jax.vjp(multiply, *args[:2])[1](args[2]))
    )(a, b, c)
    assert drive.dtype == jnp.float32
    close(drive, half(a) @ half(b))
    close(pull[0], half(c) @ half(b).T)
    close(pull[1], np.asarray(a, float).T @ np.asarray(c, float))


def test_every_connection_drives_and_feeds_back_by_such_products() -> None:
    r, d = draw(0, 5, 12), draw(1, 5, 8)
    dense = Dense(draw(2, 12, 8), draw(3, 8)).with_product(multiply)
    close(dense(r), half(r) @ half(dense.weight) + np.asarray(draw(3, 8)))
    close(dense.feedback(r, d), half(d) @ half(dense.weight).T)
    lateral = Lateral(draw(4, 8, 8)).with_product(multiply)
    upper = np.triu(half(lateral.weight), 1)
    close(lateral(d) + lateral.feedback(d, d), half(d) @ (upper + upper.T))


def test_so_do_convolutions(x64: None) -> None:
    rounded = lambda a: jnp.asarray(half(a))  # noqa: E731
    kernel, r, d = draw(0, 3, 3, 2, 4), draw(1, 2, 6, 6, 2), draw(2, 2, 6, 6, 4)
    plain = Conv(kernel, None, (1, 1), (1, 1))
    found = jax.jit(lambda c: (c(r), c.feedback(r, d)))(plain.with_product(multiply))

    def drive(x: jax.Array) -> jax.Array:
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            x, rounded(kernel), (1, 1), [(1, 1)] * 2, dimension_numbers=numbers
        )

    value, vjp = jax.vjp(drive, rounded(r))
    close(found[0], value)
    close(found[1], vjp(rounded(d))[0])
    pooled = Conv(kernel, None, (1, 1), (1, 1), MaxPool(2)).with_product(multiply)
    close(pooled(r), np.asarray(value).reshape(2, 3, 2, 3, 2, 4).max(axis=(2, 4)))


def test_states_are_the_nearest_after_each_step() -> None:
    exact = EnergyBased(sigm, 0.2, clip=True)
    states, drives, forces = (
        (draw(0, 3, 4), draw(1, 3, 2)),
        (draw(2, 3, 4), draw(3, 3, 2)),
        (None, draw(4, 3, 2)),
    )
    at = Place(chain([(3,), (3,), (2,)], jax.random.key(0)), (1, 2))
    found = RoundedStates(exact).react(states, drives, forces, at)
    for a, b in zip(found, exact.react(states, drives, forces, at), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_array_equal(np.asarray(a, float), half(b))
        assert not np.array_equal(a, b)


def angle(a, b) -> float:
    u, v = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (a, b))
    return float(np.degrees(np.arccos(u @ v / (np.linalg.norm(u) * np.linalg.norm(v)))))


def learnt(setup: Recipe, image: tuple[int, ...]):
    """The change of the weights by one minibatch."""
    built = build(setup, image, 4, 10)
    network = built.init(jax.random.key(0))
    x = jnp.abs(draw(0, setup.batch, *network.shapes[0])) / 2
    y = jnp.eye(4)[np.arange(setup.batch) % 4]
    learn = jax.jit(lambda n, m: built.learner.learn(built.system, n, m, (x, y), jax.random.key(0)))
    moved, *_ = learn(network, built.learner.init(network))
    assert {leaf.dtype for leaf in jax.tree.leaves(moved)} == {jnp.dtype("float32")}
    return jax.tree.map(jnp.subtract, moved, network)


@pytest.mark.parametrize(
    ("name", "image", "changes"),
    [
        ("ep-1h", (4, 4), {"hidden": (32,)}),
        ("ep-conv", (12, 12), {"channels": (4,), "kernel": 3, "lr": (0.1, 0.1)}),
    ],
)
def test_a_strong_nudge_survives_the_rounding_and_a_weak_one_does_not(
    name: str, image: tuple[int, ...], changes: dict
) -> None:
    setup = dataclasses.replace(recipe(name), T=20, K=6, batch=16, nudge="centered", **changes)

    def apart(beta: float) -> float:
        full = dataclasses.replace(setup, beta=beta)
        return angle(
            learnt(full, image), learnt(dataclasses.replace(full, states="bfloat16"), image)
        )

    assert 1e-3 < apart(0.5) < 10
    # A thousandth moves most states by less than their spacing.
    assert apart(1e-3) > 20


def test_complex_states_cannot_be_rounded() -> None:
    with pytest.raises(EqpropError, match="states are bfloat16, but a holomorphic nudge"):
        dataclasses.replace(recipe("ep-1h"), states="bfloat16", nudge="holomorphic")
    for rule in ("aep", "c-aep", "rbp"):
        with pytest.raises(EqpropError, match=f"bfloat16, but rule {rule} takes the Jacobian"):
            dataclasses.replace(recipe("ep-1h"), states="bfloat16", rule=rule)


# ------------------------------------------------------------- float32, on any device


def products(jaxpr: Any) -> Iterator[Any]:
    """All matrix products and convolutions of a program, those of its loops and branches too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in {"dot_general", "conv_general_dilated"}:
            yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, list | tuple) else (value,):
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    yield from products(getattr(inner, "jaxpr", inner))


@pytest.mark.parametrize("rule", ["ep", "c-ep", "vf", "c-vf", "aep", "c-aep", "bptt", "rbp"])
@pytest.mark.parametrize("base", ["ep-2h", "eb-1h", "ep-conv"])
def test_no_product_is_left_to_the_precision_of_a_device(base: str, rule: str) -> None:
    """A GPU would round float32 factors to 10 bits, without a word."""
    untied = {"angle": 30.0} if rule in {"vf", "c-vf", "aep", "c-aep"} else {}
    fields = {"hidden": (8, 7) if base == "ep-2h" else (8,), "channels": ()}
    if base == "ep-conv":
        fields = {"channels": (8, 9), "hidden": (), "kernel": 3}
    made = dataclasses.replace(
        recipe(base), rule=rule, batch=4, T=3, K=2, rotate=5.0, elastic=0.5, **fields, **untied
    )
    if not made.channels:
        made = dataclasses.replace(made, lr=(0.1,) * made.connections)
    experiment = prepare(made, random_images(8, 4))
    state = experiment.start(0)
    order = experiment.trainer.order(state, experiment.train)
    program = jax.make_jaxpr(experiment.trainer._advance_plain)(state, experiment.train, order, 1)
    found = list(products(program.jaxpr))
    assert len(found) >= 4
    highest = lax.Precision.HIGHEST
    loose = [str(e) for e in found if e.params["precision"] != (highest, highest)]
    assert not loose, loose[0]


def test_nor_one_of_an_accelerated_phase() -> None:
    made = dataclasses.replace(
        recipe("ep-1h"), hidden=(8,), relaxation="anderson", tolerance=1e-3, batch=4
    )
    experiment = prepare(made, random_images(8, 4))
    program = jax.make_jaxpr(experiment.trainer._test_plain, static_argnums=2)(
        experiment.start(0).network, experiment.test, 4
    )
    for product in products(program.jaxpr):
        assert product.params["precision"] == (lax.Precision.HIGHEST,) * 2, str(product)
