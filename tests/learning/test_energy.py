"""Energies and maps of one's own. Oracles: the networks of the library, written out as a user would
write them; `jax.grad` through the whole free phase; the gradient of a net without feedback.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from problems import make_network

import eqprop as ep
from eqprop.cli.main import main
from eqprop.data import named
from eqprop.dynamics.activations import tanh
from eqprop.errors import Diverged, EqpropError
from eqprop.networks.model import Model
from eqprop.networks.network import Network
from eqprop.networks.parameter_names import named_parameters

pytestmark = pytest.mark.usefixtures("quick_compilation")

SIZES = (7, 6, 5, 4)
KEY = jax.random.key(3)


def layered(params: Any, x: jax.Array, states: tuple[jax.Array, ...]) -> jax.Array:
    """``E = 1/2 sum |s|^2 - Phi(rho(s))`` of a chain, as THEORY has it."""
    rates = (jnp.tanh(x), *map(jnp.tanh, states))
    phi = sum(
        jnp.einsum("bi,ij,bj->b", pre, w, post) + post @ b
        for pre, post, (w, b) in zip(rates[:-1], rates[1:], params, strict=True)
    )
    leak = jnp.stack([0.5 * jnp.sum(s**2, axis=-1) for s in states])
    return leak.sum(axis=0) - phi


def draw(key: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    keys = jax.random.split(key, len(SIZES) - 1)
    return [
        (0.5 * jax.random.normal(k, (n, m)), 0.1 * jax.random.normal(k, (m,)))
        for k, n, m in zip(keys, SIZES[:-1], SIZES[1:], strict=True)
    ]


def as_params(network: Network) -> list[tuple[jax.Array, jax.Array]]:
    return [tuple(jax.tree.leaves(edge)) for edge in network.edges]  # weight, bias


def twins(T: int, K: int, bounds: Any = None, **fields: Any) -> tuple[Any, Any, Any]:
    """A network of the library and the same as an energy: (system, model) of each; and a batch."""
    network = make_network(SIZES, [(0, 1), (1, 2), (2, 3)], 0)
    energy = ep.Energy(layered, SIZES, draw, dt=0.3, bounds=bounds, **fields)
    drawn = energy.init(KEY)
    model = dataclasses.replace(drawn, params=as_params(network))
    cost, relax = ep.SquaredError(), ep.FixedSteps(T)
    ours = ep.System(ep.EnergyBased(tanh, 0.3, clip=bounds is not None), cost, relax, K)
    own = ep.System(ep.dynamics_of(energy), cost, relax, K)
    rng = np.random.default_rng(1)
    x, y = jnp.asarray(rng.uniform(size=(3, 7))), jnp.eye(4)[jnp.asarray([0, 3, 1])]
    return (ours, network), (own, model), (x, y)


RULES = {
    "ep": ep.AfterPhase(ep.Equilibrium(), ep.OneSided(0.1)),
    "ep-mixed": ep.AfterPhase(ep.Equilibrium(), ep.MixedSign(0.1)),
    "ep-centered": ep.AfterPhase(ep.Equilibrium(), ep.Centered(0.1)),
    "ep-holomorphic": ep.AfterPhase(ep.Equilibrium(), ep.Holomorphic(0.1, 4)),
    "aep-holomorphic": ep.AsymmetricEP(ep.Holomorphic(0.1, 4)),
    "aep": ep.AsymmetricEP(ep.Centered(0.1)),
    "bptt": ep.BPTT(),
    "rbp": ep.RecurrentBackprop(tolerance=1e-12),
}


def close(found: Any, expected: Any, atol: float = 1e-12) -> None:
    ours, theirs = jax.tree.leaves(found), jax.tree.leaves(expected)
    assert [leaf.shape for leaf in ours] == [leaf.shape for leaf in theirs]
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=atol)


@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)])
@pytest.mark.parametrize("rule", RULES)
def test_an_energy_learns_as_the_network_that_it_writes_out(
    rule: str, bounds: Any, x64: None
) -> None:
    if bounds and "holomorphic" in rule:
        pytest.skip("states within bounds are not analytic")
    (ours, network), (own, model), (x, y) = twins(30, 6, bounds, analytic=not bounds)
    expected, free = jax.jit(lambda n: RULES[rule].update(ours, n, x, y, KEY))(network)
    found, same = jax.jit(lambda m: RULES[rule].update(own, m, x, y, KEY))(model)
    close(same.states, free.states)
    close(found, expected)


@pytest.mark.parametrize("sign", [1, -1])
def test_so_it_does_continually(sign: int, x64: None) -> None:
    (ours, network), (own, model), batch = twins(30, 6)
    eta = jnp.asarray([0.02, 0.01, 0.03])

    def phase(system: ep.System, net: Model) -> Any:
        free = system.free(system.clamp(net, batch[0]), batch[0])[0]
        at = jnp.asarray(sign * 0.2), eta
        return ep.continual_phase(system, ep.Equilibrium(), net, free, batch, at)

    moved, last = jax.jit(functools.partial(phase, ours))(network)
    found, same = jax.jit(functools.partial(phase, own))(model)
    close(same, last)
    close(found, moved)
    assert not np.allclose(jax.tree.leaves(moved)[0], jax.tree.leaves(network)[0], atol=1e-4)


@pytest.mark.parametrize("increment", [ep.Equilibrium(), ep.VectorField()])
def test_examples_with_betas_of_their_own_are_for_edges_where_weights_move(increment: Any) -> None:
    """Refused in each step; after the phase EP has no need of them."""
    _, (own, model), batch = twins(3, 2)
    learner = ep.Continual(increment, ep.MixedSign(0.2), (0.1,) * 3)
    with pytest.raises(EqpropError, match=r"has no edges.* use a random-sign nudge"):
        learner.learn(own, model, learner.init(model), batch, KEY)


HELD = {1: [[np.nan, 0.3, np.nan, -0.5, np.nan, 0.1]] * 3, 3: [[0.2] * 4, [np.nan] * 4, [0.7] * 4]}


@pytest.mark.parametrize("rule", RULES)
def test_units_that_are_held_stay_and_the_others_settle_given_them(rule: str, x64: None) -> None:
    """Of both twins; in every step of every phase, however many rows it has for an example."""
    (ours, network), (own, model), (x, y) = twins(30, 6, analytic=True)
    held = {n: jnp.asarray(values) for n, values in HELD.items()}
    ours, own = ours.holding(held), own.holding(held)
    expected, free = jax.jit(lambda n: RULES[rule].update(ours, n, x, y, KEY))(network)
    found, same = jax.jit(lambda m: RULES[rule].update(own, m, x, y, KEY))(model)
    close(same.states, free.states)
    close(found, expected)
    for n, values in held.items():
        mask = ~np.isnan(values)
        np.testing.assert_array_equal(free.states[n - 1][mask], values[mask])
        moved = ours.nudged(ours.clamp(network, x), x, y, jnp.asarray(0.5), free.states)[n - 1]
        np.testing.assert_array_equal(moved[mask], values[mask])
        assert np.all(np.abs(moved[~mask] - values[mask].mean()) > 0)


def test_what_is_left_learns_by_the_gradient_given_what_is_held(x64: None) -> None:
    system, model, x, y, unheld = swirling()
    values = np.full((4, 5), np.nan)
    values[0, 1], values[2, :3] = 0.4, -0.2
    output = jnp.full((4, 3), jnp.nan).at[1, 2].set(0.6)
    given = system.holding({1: jnp.asarray(values), 2: output})
    truth = gradient(given, model, x, y)
    assert np.linalg.norm(truth - unheld) > 0.1 * np.linalg.norm(truth)
    nudge = ep.Centered(1e-2)
    rules = ep.AfterPhase(ep.Equilibrium(), nudge), ep.AsymmetricEP(nudge)
    for rule in (*rules, RULES["rbp"], RULES["bptt"]):
        found = flat(jax.jit(lambda m, rule=rule: rule.update(given, m, x, y, KEY)[0])(model))
        np.testing.assert_allclose(found, -truth, atol=2e-3 * np.abs(truth).max())


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({3: np.zeros((4, 3))}, "layer 3 cannot be held: give layers from 1 to 2"),
        ({0: np.zeros((4, 6))}, "layer 0 cannot be held"),
        ({2: np.zeros((4, 2))}, r"held in layer 2 have shape \(4, 2\).*\(4, 3\)"),
        ({2: np.zeros((3, 3))}, r"held in layer 2 have shape \(3, 3\).*\(4, 3\)"),
    ],
)
def test_what_cannot_be_held(held: dict[int, Any], message: str) -> None:
    system, model = settled(ep.Energy(swirl, (6, 5, 3), draw_swirl, dt=0.2), 3, 2)
    with pytest.raises(EqpropError, match=message):
        system.holding({n: jnp.asarray(v) for n, v in held.items()}).free(model, jnp.zeros((4, 6)))


def flat(tree: Any) -> np.ndarray:
    return np.asarray(ravel_pytree(tree)[0])


def gradient(system: ep.System, model: Model, x: Any, y: Any) -> np.ndarray:
    def loss(model: Model) -> jax.Array:
        states, _ = system.free(model, x)
        return jnp.mean(system.cost.loss(model.scores_of(states), y))

    return flat(jax.jit(jax.grad(loss))(model))


def swirl(params: Any, x: jax.Array, states: tuple[jax.Array, ...]) -> jax.Array:
    """An energy that is no ``1/2 |s|^2 - Phi``: its couplings saturate, and its leak is quartic."""
    h, o = states
    match = jnp.log(jnp.cosh(h - x @ params["in"])).sum(-1)
    match += jnp.sqrt(1 + (o - jnp.sin(h) @ params["out"]) ** 2).sum(-1)
    return match + 0.05 * (h**4).sum(-1) + params["leak"] * (o**2).sum(-1)


def draw_swirl(key: jax.Array) -> dict[str, jax.Array]:
    one, two = jax.random.split(key)
    weights = {"in": jax.random.normal(one, (6, 5)), "out": jax.random.normal(two, (5, 3))}
    return {**weights, "leak": jnp.asarray(0.3)}


def settled(own: ep.Energy | ep.Map, T: int = 400, K: int = 150) -> tuple[ep.System, Model]:
    system = ep.System(ep.dynamics_of(own), ep.SquaredError(), ep.FixedSteps(T), K)
    model = own.init(KEY)
    return system, jax.tree.map(lambda leaf: jnp.asarray(leaf, float), model)


@functools.cache
def swirling() -> tuple[ep.System, Model, jax.Array, jax.Array, np.ndarray]:
    """An energy that settles, a batch, and the gradient of its loss; in double precision."""
    system, model = settled(ep.Energy(swirl, (6, 5, 3), draw_swirl, dt=0.2))
    x = jax.random.uniform(jax.random.key(1), (4, 6))
    y = jnp.eye(3)[jnp.asarray([0, 1, 2, 0])]
    return system, model, x, y, gradient(system, model, x, y)


@pytest.mark.parametrize("rule", [ep.Equilibrium(), ep.VectorField(), "aep"])
@pytest.mark.parametrize(("nudge", "order"), [(ep.OneSided, 1), (ep.Centered, 2)])
def test_updates_of_any_energy_are_gradients_to_the_order_of_the_nudge(
    rule: Any, nudge: Any, order: int, x64: None
) -> None:
    system, model, x, y, truth = swirling()

    @jax.jit
    def update(model: Model, beta: jax.Array) -> Model:
        made = ep.AsymmetricEP(nudge(beta)) if rule == "aep" else ep.AfterPhase(rule, nudge(beta))
        return made.update(system, model, x, y, KEY)[0]

    errors = [
        np.linalg.norm(flat(update(model, beta)) + truth) / np.linalg.norm(truth)
        for beta in (1e-1, 1e-2)
    ]
    assert errors[1] < 0.02
    assert abs(np.log10(errors[0] / errors[1]) - order) < 0.25


@functools.cache
def read_at(outputs: tuple[int, ...]) -> tuple[ep.System, Model, jax.Array, jax.Array, np.ndarray]:
    """The same with a cost that reads these layers; the loss is written out here, and of two layers
    the targets stand side by side.
    """
    system, model = settled(ep.Energy(swirl, (6, 5, 3), draw_swirl, dt=0.2, outputs=outputs))
    x = jax.random.uniform(jax.random.key(1), (4, 6))
    y = jax.random.uniform(jax.random.key(2), (4, sum((6, 5, 3)[n] for n in outputs)))

    def loss(model: Model) -> jax.Array:
        states, _ = system.free(model, x)
        picked = jnp.concatenate([states[n - 1] for n in outputs], axis=1)
        return 0.5 * jnp.mean(jnp.sum((picked - y) ** 2, axis=1))

    return system, model, x, y, flat(jax.jit(jax.grad(loss))(model))


OUTPUTS = pytest.mark.parametrize("outputs", [(1, 2), (2, 1), (1,)])


@OUTPUTS
@pytest.mark.parametrize("rule", ["ep", "vf", "aep", "bptt", "rbp"])
def test_a_cost_reads_the_layers_that_it_is_told(
    rule: str, outputs: tuple[int, ...], x64: None
) -> None:
    system, model, x, y, truth = read_at(outputs)
    nudge = ep.Centered(1e-2)
    rules = {
        **RULES,
        "ep": ep.AfterPhase(ep.Equilibrium(), nudge),
        "vf": ep.AfterPhase(ep.VectorField(), nudge),
        "aep": ep.AsymmetricEP(nudge),
    }
    found = flat(jax.jit(lambda m: rules[rule].update(system, m, x, y, KEY)[0])(model))
    np.testing.assert_allclose(found, -truth, atol=2e-3 * np.abs(truth).max())


@OUTPUTS
def test_the_layers_that_a_cost_reads_are_held(outputs: tuple[int, ...], x64: None) -> None:
    """Coupled learning: another loss."""
    system, model, x, y, _ = read_at(outputs)
    system = dataclasses.replace(system, hold=True)
    free, _ = system.free(model, x)
    last = system.nudged(model, x, y, jnp.asarray(0.5), free)
    ends, start = (model.output([s[n - 1] for n in outputs]) for s in (last, free))
    np.testing.assert_allclose(ends, start + 0.5 * (y - start), rtol=1e-12)


def test_a_network_with_two_outputs_is_trained(tmp_path: Path) -> None:
    """Hidden units are to be projections of the image, outputs the label: real targets."""
    part = digits()
    x = np.asarray(part.train_x[:400]).reshape(400, 64) / 255
    seen = x @ np.random.default_rng(0).normal(size=(64, 16)) / 8
    y = np.concatenate([seen, np.eye(10)[part.train_y[:400]]], axis=1)
    data = ep.Dataset.from_arrays(x, y, test_size=0.25, seed=0)
    own = dataclasses.replace(SWIRL, outputs=(1, 2))
    run = ep.fit(own, data, tmp_path / "run", epochs=4, **FIELDS)
    assert run.scores(data.test_x[:5]).shape == (5, 26)
    assert run.metrics["test_rmse"][-1] < 0.9 * run.metrics["test_rmse"][0]
    held = np.full((5, 10), np.nan)
    held[1:3] = 0.25
    states = run.relax(data.test_x[:5], held={2: held})
    np.testing.assert_array_equal(states[1][-1][1:3], 0.25)
    assert not np.any(states[1][-1][[0, 3, 4]] == 0.25)
    free = run.relax(data.test_x[:5])
    np.testing.assert_array_equal(states[0][-1][0], free[0][-1][0])
    assert np.abs(states[0][-1][1] - free[0][-1][1]).max() > 1e-3


def test_verify_finds_order_one_for_an_energy(x64: None) -> None:
    energy = ep.Energy(swirl, (6, 5, 3), draw_swirl, dt=0.2)
    system, model = settled(energy, 400, 20)
    x = jax.random.uniform(jax.random.key(1), (4, 6))
    y = jnp.eye(3)[jnp.asarray([0, 1, 2, 0])]
    found = ep.verify(
        ep.Problem(system, model, (x, y)), ep.Equilibrium(), ep.Plan(betas=(1e-2, 1e-3, 1e-4))
    )
    names = {tensor.name for tensor in found.asked.comparison.tensors}
    assert names == {"in", "out", "leak", "s1", "s2"}
    assert "all parameters" in found.beta_orders
    for name, order in found.beta_orders.items():
        assert order.slope == pytest.approx(1, abs=0.05), name


# ------------------------------------------------------------------------------------------- maps


def one_way(params: Any, x: jax.Array, states: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """A feedforward net as a map: no energy, and no feedback."""
    h, _ = states
    return jnp.tanh(x @ params["w1"]), jax.nn.sigmoid(h @ params["w2"])


def draw_one_way(key: jax.Array) -> dict[str, jax.Array]:
    one, two = jax.random.split(key)
    return {"w1": jax.random.normal(one, (6, 5)), "w2": jax.random.normal(two, (5, 3))}


@pytest.mark.parametrize("rule", ["aep", "bptt", "rbp"])
def test_a_map_without_feedback_learns_by_the_gradient_of_backpropagation(
    rule: str, x64: None
) -> None:
    system, model = settled(ep.Map(one_way, (6, 5, 3), draw_one_way), 10, 6)
    x = jax.random.uniform(jax.random.key(1), (4, 6))
    y = jnp.eye(3)[jnp.asarray([0, 1, 2, 0])]

    def loss(params: Any) -> jax.Array:
        out = jax.nn.sigmoid(jnp.tanh(x @ params["w1"]) @ params["w2"])
        return jnp.mean(jnp.sum((out - y) ** 2, axis=-1)) / 2

    truth = flat(jax.grad(loss)(model.params))
    rules = {**RULES, "aep": ep.AsymmetricEP(ep.Centered(1e-4))}
    found = flat(rules[rule].update(system, model, x, y, KEY)[0])
    np.testing.assert_allclose(found, -truth, atol=1e-7 * np.abs(truth).max() + 1e-9)


def test_a_map_has_no_energy() -> None:
    system, model = settled(ep.Map(one_way, (6, 5, 3), draw_one_way), 10, 6)
    x, y = jnp.zeros((2, 6)), jnp.zeros((2, 3))
    with pytest.raises(EqpropError, match="a map has no energy"):
        RULES["ep"].update(system, model, x, y, KEY)


# -------------------------------------------------------------------------------------- trainings


def wide(key: jax.Array) -> dict[str, jax.Array]:
    """Parameters of ``swirl`` for the digits."""
    one, two = jax.random.split(key)
    weights = {"in": jax.random.normal(one, (64, 16)) / 4, "out": jax.random.normal(two, (16, 10))}
    return {"in": weights["in"], "out": 0.1 * weights["out"], "leak": jnp.asarray(0.1)}


def leaking(params: Any) -> Any:
    """Without a leak the outputs would have no bound below which they cannot fall."""
    return {**params, "leak": jnp.maximum(params["leak"], 0.05)}


SWIRL = ep.Energy(
    *(swirl, (64, 16, 10), wide),
    dt=0.3,
    bounds=[(-2.0, 2.0), None],
    project=leaking,
    name="swirl",
)
FIELDS = {"T": 20, "K": 5, "beta": 0.5, "lr": (0.3,)}

digits = functools.cache(functools.partial(named.load, "digits"))


@pytest.fixture(scope="module")
def swirled(tmp_path_factory: pytest.TempPathFactory) -> ep.TrainedRun:
    return ep.fit(SWIRL, digits(), tmp_path_factory.mktemp("swirl") / "run", epochs=3, **FIELDS)


def test_an_energy_is_trained_and_opened_again(swirled: ep.TrainedRun, tmp_path: Path) -> None:
    assert swirled.metrics["test_error"][-1] < 30
    again = ep.open_run(swirled.folder, model=SWIRL)
    x = digits().test_x[:7]
    np.testing.assert_array_equal(again.predict(x), swirled.predict(x))
    assert [layer.shape for layer in again.relax(x)] == [(21, 7, 16), (21, 7, 10)]
    states = again.relax(x)[0][-1]
    assert np.abs(states).max() <= 2
    with np.load(again.export(tmp_path / "w.npz")) as saved:
        np.testing.assert_array_equal(saved["in"], named_parameters(again.network)["in"])


def test_cut_and_gone_on_with_it_is_the_same(swirled: ep.TrainedRun, tmp_path: Path) -> None:
    for epochs in (1, 3):
        run = ep.fit(SWIRL, digits(), tmp_path / "run", epochs=epochs, **FIELDS)
    for name, column in swirled.metrics.items():
        if not name.startswith("seconds"):
            np.testing.assert_array_equal(run.metrics[name], column, err_msg=name)


@pytest.mark.parametrize(("rule", "rate"), [("ep", 0.05), ("c-ep", 0.03)])
def test_parameters_are_projected_after_each_update(rule: str, rate: float, tmp_path: Path) -> None:
    leaks = {}
    for name, project in (("bound", leaking), ("free", None)):
        own = dataclasses.replace(SWIRL, project=project)
        fields = {**FIELDS, "lr": (rate,), "rule": rule}
        run = ep.fit(own, digits(), tmp_path / name, epochs=1, **fields)
        leaks[name] = float(named_parameters(run.network)["leak"])
    assert leaks["bound"] == pytest.approx(0.05)
    assert leaks["free"] < 0.04


def test_a_run_that_needs_its_model_says_so(
    swirled: ep.TrainedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(EqpropError, match=r"swirl is an energy .*open_run\(folder, model"):
        _ = ep.open_run(swirled.folder).network
    other = dataclasses.replace(SWIRL, name="twirl")
    with pytest.raises(EqpropError, match="the model is twirl, but the recipe is of swirl"):
        _ = ep.open_run(swirled.folder, model=other).network
    other = dataclasses.replace(SWIRL, dt=2 * SWIRL.dt)
    with pytest.raises(EqpropError, match=f"dt {2 * SWIRL.dt:g}, but what .*dt {SWIRL.dt:g}"):
        _ = ep.open_run(swirled.folder, model=other).network
    for command in ("resume", "evaluate"):
        assert main([command, str(swirled.folder), *(["--epochs", "9"] * (command == "resume"))])
        assert "swirl is an energy or a map of one's own" in capsys.readouterr().err
    assert main(["report", str(swirled.folder), "--out", str(swirled.folder / "r.html")]) == 0


def test_an_energy_without_a_lower_bound_is_named_as_lost(tmp_path: Path) -> None:
    def falls(params: Any, x: jax.Array, states: tuple[jax.Array, ...]) -> jax.Array:
        h, o = states
        return (o @ params["w"]).sum(-1) - jnp.sum(h**2, axis=-1) + jnp.sum(x, -1) * h[:, 0]

    own = ep.Energy(falls, (64, 4, 10), lambda key: {"w": jnp.ones((10, 1))}, dt=1.0)
    with pytest.raises(Diverged, match=r"the states of layer 1, in step .* no lowest value"):
        ep.fit(own, digits(), tmp_path / "run", epochs=1, **{**FIELDS, "T": 200})


# -------------------------------------------------------------------------------------- bad input


def two_numbers(params: Any, x: jax.Array, states: tuple[jax.Array, ...]) -> jax.Array:
    return states[0][:, :2]


def one_number(params: Any, x: jax.Array, states: tuple[jax.Array, ...]) -> jax.Array:
    return jnp.sum(states[0])


def summed(params: Any, x: jax.Array, states: tuple[jax.Array, ...]) -> jax.Array:
    return swirl(params, x, states) + jnp.sum(states[0] * states[0])


def averaged(params: Any, x: jax.Array, states: tuple[jax.Array, ...]) -> jax.Array:
    return swirl(params, x, states) / len(x)


def centred(params: Any, x: jax.Array, states: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    h, o = states
    return h - h.mean(axis=0), o


def misfit(params: Any, x: jax.Array, states: tuple[jax.Array, ...]) -> jax.Array:
    return jnp.sum((x @ params["in"] - states[1]) ** 2, axis=-1)


def cone(theta: Any, x: Any, states: Any) -> Any:
    return swirl(theta, x, states) + jnp.sqrt(jnp.sum(states[0] ** 2, axis=-1))


def inverse(theta: Any, x: Any, states: Any) -> Any:
    return tuple(1 / s for s in states)


def counted(params: Any, x: jax.Array, states: tuple[jax.Array, ...]) -> jax.Array:
    return jnp.sum(states[0] > 0, axis=-1)


def absolute(params: Any, x: jax.Array, states: tuple[jax.Array, ...]) -> jax.Array:
    return jnp.sum(jnp.abs(states[0] - x @ params["in"]), axis=-1)


def halved(params: Any, x: jax.Array, states: tuple[jax.Array, ...]) -> jax.Array:
    return jnp.sum(states[0].real ** 2, axis=-1)


def refuses(params: Any, x: jax.Array, states: tuple[jax.Array, ...]) -> jax.Array:
    return jnp.sum(jnp.floor(states[0]), axis=-1)


ANALYTIC = {"analytic": True}


def shorter(params: Any, x: jax.Array, states: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    return states[0][:, 1:], states[1]


def test_an_energy_that_is_infinite_at_0_starts_from_a_bound() -> None:
    def barrier(theta: Any, x: Any, states: Any) -> Any:
        return swirl(theta, x, states) - 0.01 * jnp.sum(jnp.log(states[0]), axis=-1)

    ep.Energy(barrier, (6, 5, 3), draw_swirl, bounds=((0.01, 1.0), None))
    with pytest.raises(EqpropError, match="no finite gradient where all states are 0"):
        ep.Energy(barrier, (6, 5, 3), draw_swirl, bounds=(None, (0.01, 1.0)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ep.Energy(two_numbers, (6, 5, 3), draw_swirl), r"\(3, 2\) for 3 examples"),
        (lambda: ep.Energy(one_number, (6, 5, 3), draw_swirl), r"\(\) for 3 examples"),
        (lambda: ep.Energy(summed, (6, 5, 3), draw_swirl), "changes with the others of its batch"),
        (lambda: ep.Energy(averaged, (6, 5, 3), draw_swirl), "changes with the others"),
        (lambda: ep.Map(centred, (6, 5, 3), draw_swirl), "changes with the others"),
        (lambda: ep.Energy(misfit, (6, 5, 3), draw_swirl), "does not accept layers of shapes"),
        (lambda: ep.Energy(counted, (6, 5, 3), draw_swirl), "has no gradient"),
        (
            lambda: ep.Energy(cone, (6, 5, 3), draw_swirl),
            "no finite gradient where all states are 0",
        ),
        (lambda: ep.Map(inverse, (6, 5, 3), draw_swirl), "no finite value where all states are 0"),
        (lambda: ep.Energy(swirl, (6,), draw_swirl), "an input and an output layer"),
        (lambda: ep.Energy(swirl, (6, 0, 3), draw_swirl), "layer 1 has shape"),
        (lambda: ep.Energy(swirl, (6, 5, 3), lambda key: {}), "no parameters"),
        (lambda: ep.Energy(swirl, (6, 5, 3), lambda key: jnp.arange(3)), "int32 among"),
        (lambda: ep.Energy(swirl, (6, 5, 3), draw_swirl, dt=0.0), "dt is 0"),
        (lambda: ep.Energy(swirl, (6, 5, 3), draw_swirl, bounds=(1.0, 0.0)), "bounds are"),
        (lambda: ep.Energy(swirl, (6, 5, 3), draw_swirl, bounds=[None]), "for 2 layers"),
        (lambda: ep.Energy(swirl, (6, 5, 3), draw_swirl, outputs=(0,)), r"outputs are \(0,\)"),
        (lambda: ep.Energy(swirl, (6, 5, 3), draw_swirl, outputs=(1, 1)), "each once"),
        (lambda: ep.Energy(swirl, (6, 5, 3), draw_swirl, outputs=(3,)), "layers from 1 to 2"),
        (lambda: ep.Energy(absolute, (6, 5, 3), draw_swirl, **ANALYTIC), "analytic, but is not"),
        (lambda: ep.Energy(halved, (6, 5, 3), draw_swirl, **ANALYTIC), "analytic, but is not"),
        (lambda: ep.Energy(refuses, (6, 5, 3), draw_swirl, **ANALYTIC), "accept complex states"),
        (
            lambda: ep.Energy(swirl, (6, 5, 3), draw_swirl, bounds=(0.0, 1.0), **ANALYTIC),
            "leave bounds or analytic out",
        ),
        (lambda: ep.Map(shorter, (6, 5, 3), draw_swirl), "makes states of shapes"),
    ],
)
def test_models_that_cannot_be(make: Callable[[], object], message: str) -> None:
    with pytest.raises(EqpropError, match=message):
        make()


def test_parameters_may_be_in_any_order_and_plain_numbers() -> None:
    def draw(key: jax.Array) -> collections.OrderedDict[str, Any]:
        weights = jnp.full((3, 3), 1.0), jnp.full((3, 3), 2.0)
        return collections.OrderedDict(w=weights[0], v=weights[1], g=3.0)

    def energy(theta: Any, x: jax.Array, s: Any) -> jax.Array:
        first = jnp.sum((s[0] - x @ theta["w"]) ** 2, axis=-1)
        return first + theta["g"] * jnp.sum((s[1] - s[0] @ theta["v"]) ** 2, axis=-1)

    model = ep.Energy(energy, (3, 3, 3), draw).init(jax.random.key(0))
    assert model.part_names == ("g", "v", "w")
    scaled = model.scale(jnp.array([2.0, 3.0, 5.0]))
    assert {k: float(jnp.max(v)) for k, v in scaled.params.items()} == {"w": 5, "v": 6, "g": 6}
    assert jax.tree.structure(scaled) == jax.tree.structure(model)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cost": "cross-entropy"}, "use squared-error"),
        ({"sweeps": True}, "sweeps need a graph"),
        ({"nudge": "holomorphic"}, "use a centered nudge"),
        ({"angle": 30.0, "rule": "vf"}, "leave angle"),
        ({"lr": (0.1, 0.2)}, "2 learning rate"),
        ({"model": "other"}, "no field of a recipe"),
        ({"dt": 0.1}, "dt is given, but .* has layers and steps of its own"),
        ({"mean": (0.5,), "std": (0.2,)}, "mean is given"),
    ],
)
def test_trainings_that_cannot_be(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(EqpropError, match=message):
        ep.fit(SWIRL, digits(), tmp_path / "run", epochs=1, **{**FIELDS, **fields})


def test_data_of_another_shape_are_refused(tmp_path: Path) -> None:
    own = ep.Energy(swirl, (6, 5, 3), draw_swirl)
    with pytest.raises(EqpropError, match="the inputs of digits are 8x8"):
        ep.fit(own, digits(), tmp_path / "run", epochs=1, **FIELDS)
