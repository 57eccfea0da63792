"""The oracle against the authors' programs (reference vectors) and against finite differences.

What the vectors hold and how it maps onto the oracle is in vectors/README.md; what that leaves
open was found by comparison and stands in `test_theorem_curves`.
"""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import oracle
import pytest

DEFAULT_DIR = Path(__file__).parents[1] / "vectors"
VECTORS = Path(os.environ.get("EQPROP_VECTORS_DIR", DEFAULT_DIR))
TOLERANCE = 1e-10


def files(*kinds):
    """The vector files whose `kind` is one of `kinds`."""
    found = []
    for path in sorted(VECTORS.glob("*.npz")):
        with np.load(path) as z:
            if str(z["kind"]) in kinds:
                found.append(pytest.param(path, id=path.stem))
    return found


def load(path):
    with np.load(path) as z:
        return {key: z[key] for key in z.files}


def dense(v):
    """The net and dynamics of a vector file."""
    sizes = [int(n) for n in v["sizes"]]
    layers = range(1, len(sizes))
    net = oracle.make_net(
        sizes,
        [v[f"W{i}"] for i in layers],
        [v[f"b{i}"] for i in layers],
        [v.get(f"Wb{i}") for i in layers],
    )
    dyn = oracle.Dynamics(
        setting=str(v["setting"]), activation=str(v["activation"]), nudge=str(v["nudge"])
    )
    return net, dyn


def same(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE)


# ------------------------------------------------------------------------------ reference vectors


def test_every_vector_file_is_used():
    used = files("ep", "c-ep", "vf", "c-vf") + files("conv") + files("gdu")
    assert len(used) == len(list(VECTORS.glob("*.npz"))) >= 15


@pytest.mark.parametrize("path", files("ep", "c-ep", "vf", "c-vf"))
def test_rules(path):
    v = load(path)
    net, dyn = dense(v)
    rule, K, beta = str(v["rule"]), int(v["K"]), float(v["beta"])
    s = oracle.free_phase(net, dyn, v["x"], int(v["T"]))
    phase = oracle.learn(rule, net, dyn, s, v["y"], K, beta, v["lr"])
    for i in range(1, len(net.sizes)):
        same(s[i], v[f"free_{i}"])
        same(np.stack([state[i] for state in phase.states[1:]]), v[f"nudged_{i}"])
    for name in ("W", "b", "Wb"):
        for e in range(len(net.edges)):
            if f"{name}{e + 1}" not in v:
                assert getattr(phase.update, name)[e] is None
                continue
            same(getattr(phase.update, name)[e], v[f"d{name}{e + 1}"])
            same(getattr(phase.net.params, name)[e], v[f"{name}{e + 1}_new"])


@pytest.mark.parametrize("path", files("ep", "c-ep", "vf", "c-vf"))
def test_minibatch_is_the_same_training_step(path):
    v = load(path)
    net, dyn = dense(v)
    T, K, beta = int(v["T"]), int(v["K"]), float(v["beta"])
    new = oracle.minibatch(str(v["rule"]), net, dyn, v["x"], v["y"], T, K, beta, v["lr"])
    for e in range(len(net.edges)):
        same(new.params.W[e], v[f"W{e + 1}_new"])
        same(new.params.b[e], v[f"b{e + 1}_new"])
        if f"Wb{e + 1}" in v:
            same(new.params.Wb[e], v[f"Wb{e + 1}_new"])


@pytest.mark.parametrize("path", files("conv"))
def test_conv(path):
    v = load(path)
    T, K, beta = int(v["T"]), int(v["K"]), float(v["beta"])
    layers = range(1, 1 + sum(f"W{i}" in v for i in range(1, 10)))
    net = oracle.make_conv_net(
        [v[f"W{i}"] for i in layers], [v[f"b{i}"] for i in layers], int(v["pool"])
    )
    dyn = oracle.Dynamics(activation=str(v["activation"]), nudge=str(v["nudge"]))
    s = oracle.free_phase(net, dyn, v["x"], T)
    states = oracle.nudged_phase(net, dyn, s, v["y"], K, beta)
    update = oracle.ep_increment(net, dyn, s, states[-1], beta)
    new = oracle.add_scaled(net.params, v["lr"], update)
    for i in layers:
        same(s[i], v[f"free_{i}"])
        same(np.stack([state[i] for state in states]), v[f"nudged_{i}"])
        same(update.W[i - 1], v[f"dW{i}"])
        same(update.b[i - 1], v[f"db{i}"])
        same(new.W[i - 1], v[f"W{i}_new"])
        same(new.b[i - 1], v[f"b{i}_new"])


@pytest.mark.parametrize("path", files("gdu"))
def test_theorem_curves(path):
    """D(t) and grad(t) of the `gdu` files, signs as they are: D -> -grad.

    D_s[t], grad_s[t], t = 0 ... K-1: `D_s(t) = (s_{t+1} - s_t)/beta`, with s_0 = s* the state
    after T steps and s_{t+1} the state after t+1 nudged steps; `grad_s(t) = dl/ds_{T-t}`, so that
    grad_s(0) = sN - y on the output. Means over the batch, and D_s is set to zero at t < N - l,
    where the nudge has not arrived (what is left there is the drift of the free phase over beta).

    D_W[k], grad_W[k], k = 0 ... K-2, belong to t = k + 1: exactly THEORY's D_theta(t) and
    grad_theta(t), t = 1 ... K-1; only t = 0 is missing. So
    `D_W(t) = 1/(beta B) (s_pre,t+1^T s_post,t+1 - s_pre,t^T s_post,t)`, the increment between the
    states t and t+1 after s* (batch mean, no learning rate), not zeroed at small t, and
    `grad_W(t)` is dL/dW (L the batch mean) for the copy of W in the step from s_{T-t-1} to
    s_{T-t}, its forward and feedback use added together.

    For "c-ep" the states are those of the continual run, `lr` rewriting weights and biases at
    every step; its D are the increments of that run (before `lr`), its grad those of the initial
    parameters, the same as for "ep".
    """
    v = load(path)
    net, dyn = dense(v)
    T, K, beta, N = int(v["T"]), int(v["K"]), float(v["beta"]), len(net.sizes) - 1
    s = oracle.free_phase(net, dyn, v["x"], T)
    phase = oracle.learn(str(v["rule"]), net, dyn, s, v["y"], K, beta, v["lr"])
    D = oracle.d_states(dyn, phase.states, beta)
    grads = oracle.bptt(net, dyn, v["x"], v["y"], T, K)
    for i in range(1, N + 1):
        same(s[i], v[f"free_{i}"])
        D_s = np.stack([d[i].mean(axis=0) for d in D])
        same(D_s[N - i :], v[f"D_s{i}"][N - i :])
        assert not v[f"D_s{i}"][: N - i].any()
        assert np.abs(D_s[: N - i]).max(initial=0) < 1e-8
        same(np.stack([g[i].mean(axis=0) for g in grads.grad_s]), v[f"grad_s{i}"])
        same(np.stack([d.W[i - 1] for d in phase.increments[1:]]), v[f"D_W{i}"])
        same(np.stack([g.W[i - 1] for g in grads.grad_theta[1:]]), v[f"grad_W{i}"])


# ---------------------------------------------------------------------------- finite differences

# A graph with a skip (0 -> 2), one across (1 -> 3) and one backwards edge (3 -> 2) beside the
# chain, so that no formula is right for chains only. The edge (1, 3) has no bias.
SIZES = [4, 3, 5, 3]
GRAPH = [(0, 1), (1, 2), (2, 3), (0, 2), (1, 3), (3, 2)]

SETTINGS = {
    "prototypical-sigm": oracle.Dynamics(activation="sigm"),
    "prototypical-tanh": oracle.Dynamics(activation="tanh", nudge="inside"),
    "energy-sigm": oracle.Dynamics("energy", "sigm", dt=0.2),
    "energy-tanh-identity": oracle.Dynamics("energy", "tanh", dt=0.3, input_rate="identity"),
}
settings = pytest.mark.parametrize("dyn", SETTINGS.values(), ids=SETTINGS.keys())


def graph_net(seed, untied=False, dtype: type = np.float64):
    rng = np.random.default_rng(seed)
    net = oracle.random_net(rng, SIZES, GRAPH, untied, dtype)
    net.params.b[GRAPH.index((1, 3))] = None
    x = rng.uniform(0, 1, (2, SIZES[0])).astype(dtype)
    y = np.eye(SIZES[-1], dtype=dtype)[rng.integers(SIZES[-1], size=2)]
    return net, x, y, rng


def random_state(rng, x):
    return [x] + [rng.uniform(0.1, 0.9, (len(x), n)) for n in SIZES[1:]]


def numerical(f, array, eps=1e-6):
    """Central differences of the scalar f() in every entry of `array` (changed in place)."""
    grad = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        value = array[index]
        array[index] = value + eps
        above = f()
        array[index] = value - eps
        below = f()
        array[index] = value
        grad[index] = (above - below) / (2 * eps)
    return grad


def close(actual, expected, atol=1e-8):
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=atol)


def arrays(params):
    return [a for group in params for a in group if a is not None]


@pytest.mark.parametrize("name", oracle.ACTIVATIONS)
def test_activation_derivatives(name):
    act = oracle.ACTIVATIONS[name]
    v = np.array([-1.3, -0.4, 0.1, 0.5, 0.85, 1.2, 2.0])
    close(act.df(v), (act.f(v + 1e-6) - act.f(v - 1e-6)) / 2e-6)
    close(act.ddf(v), (act.df(v + 1e-6) - act.df(v - 1e-6)) / 2e-6)


@settings
def test_statistic_is_the_gradient_of_phi(dyn):
    """dPhi/dtheta, in the energy setting dt times the statistic, which is -dE/dtheta."""
    net, x, _, rng = graph_net(1)
    s = random_state(rng, x)
    stat = oracle.statistic(net, dyn, s)
    scale = dyn.dt if dyn.setting == "energy" else 1.0
    for theta, value in zip(arrays(net.params), arrays(stat), strict=True):
        close(numerical(lambda: oracle.phi(net, dyn, s), theta), scale * value)
        if dyn.setting == "energy":
            close(-numerical(lambda: oracle.energy(net, dyn, s), theta), value)


@settings
def test_step_is_the_gradient_of_phi(dyn):
    """F = dPhi/ds (energy) or sigma(dPhi/ds) (prototypical)."""
    net, x, _, rng = graph_net(2)
    s = random_state(rng, x)
    new = oracle.step(net, dyn, s)
    sigma = oracle.ACTIVATIONS[dyn.activation].f
    for i in range(1, len(SIZES)):
        force = numerical(lambda: oracle.phi(net, dyn, s), s[i])
        close(new[i], force if dyn.setting == "energy" else sigma(force))


@settings
def test_nudge_is_the_gradient_of_the_loss(dyn):
    """The nudge: -beta dl/ds, times dt in the energy setting, inside or outside sigma."""
    net, x, y, rng = graph_net(3)
    s = random_state(rng, x)
    beta = -0.3
    force = -beta * numerical(lambda: oracle.loss(s, y).sum(), s[-1])
    free, nudged = oracle.step(net, dyn, s), oracle.step(net, dyn, s, y, beta)
    for i in range(1, len(SIZES) - 1):
        np.testing.assert_array_equal(nudged[i], free[i])
    if dyn.setting == "energy":
        close(nudged[-1], free[-1] + dyn.dt * force)
    elif dyn.nudge == "outside":
        close(nudged[-1], free[-1] + force)
    else:
        close(np.arctanh(nudged[-1]), np.arctanh(free[-1]) + force)


@settings
@pytest.mark.parametrize("untied", [False, True], ids=["tied", "untied"])
def test_bptt_is_the_gradient_of_the_loss_step_by_step(dyn, untied):
    """grad_s(t): perturb s_{T-t}; grad_theta(t): perturb theta in the step to s_{T-t} alone."""
    net, x, y, _ = graph_net(4, untied)
    T, K = 6, 4
    grads = oracle.bptt(net, dyn, x, y, T, K)
    for t in range(K):
        s = oracle.free_phase(net, dyn, x, T - t)
        for i in range(1, len(SIZES)):
            close(
                numerical(
                    lambda s=s, t=t: oracle.loss(oracle.free_phase(net, dyn, x, t, s), y).sum(),
                    s[i],
                ),
                grads.grad_s[t][i],
            )
        before = oracle.free_phase(net, dyn, x, T - t - 1)
        copy = net.with_params(oracle.combine(lambda _, a: a.copy(), net.params))

        def mean_loss(copy=copy, before=before, t=t):
            s = oracle.step(copy, dyn, before)
            return oracle.loss(oracle.free_phase(net, dyn, x, t, s), y).mean()

        for theta, grad in zip(arrays(copy.params), arrays(grads.grad_theta[t]), strict=True):
            close(numerical(mean_loss, theta), grad)


@pytest.mark.parametrize("untied", [False, True], ids=["tied", "untied"])
def test_bptt_with_clipped_states(untied):
    """Some states are clipped at 0 or 1 and some are not; the sum over t is dL/dtheta."""
    net, x, y, _ = graph_net(5, untied)
    dyn = oracle.Dynamics("energy", "sigm", dt=0.4, clip=True)
    for e in range(len(GRAPH)):
        net.params.W[e][:] *= 6
    T = 5
    s = oracle.free_phase(net, dyn, x, T)
    clipped = np.concatenate([((v == 0) | (v == 1)).ravel() for v in s[1:]])
    assert 0 < clipped.sum() < clipped.size
    gradient = oracle.total(oracle.bptt(net, dyn, x, y, T, T).grad_theta)
    for theta, grad in zip(arrays(net.params), arrays(gradient), strict=True):
        close(
            numerical(lambda: oracle.loss(oracle.free_phase(net, dyn, x, T), y).mean(), theta),
            grad,
        )


# ----------------------------------------------------------- the rules, beyond what vectors cover


@settings
def test_ep_telescopes(dyn):
    net, x, y, _ = graph_net(6)
    K, beta, eta = 5, 0.2, [0.1] * len(GRAPH)
    s = oracle.free_phase(net, dyn, x, 20)
    phase = oracle.learn("ep", net, dyn, s, y, K, beta, eta)
    ends = oracle.stencil_update(net, dyn, s, y, K, (beta,), (1 / beta,))
    for a, b in zip(arrays(phase.update), arrays(ends), strict=True):
        same(a, b)
    new = oracle.minibatch("ep", net, dyn, x, y, 20, K, beta, eta)
    for a, b in zip(arrays(phase.net.params), arrays(new.params), strict=True):
        same(a, b)


@settings
def test_continual_ep_telescopes(dyn):
    """theta_K = theta_0 + eta/(beta B) (dPhi/dtheta(s_K) - dPhi/dtheta(s*)), states included."""
    net, x, y, _ = graph_net(7)
    K, beta, eta = 6, 0.2, [0.3, 0.1, 0.05, 0.2, 0.1, 0.02]
    s = oracle.free_phase(net, dyn, x, 20)
    phase = oracle.learn("c-ep", net, dyn, s, y, K, beta, eta)
    now = net
    for t in range(K):
        for a, b in zip(
            oracle.step(now, dyn, phase.states[t], y, beta), phase.states[t + 1], strict=True
        ):
            same(a, b)
        change = oracle.combine(
            lambda _, a, b: (a - b) / (beta * len(x)),
            oracle.statistic(net, dyn, phase.states[t + 1]),
            oracle.statistic(net, dyn, s),
        )
        now = net.with_params(oracle.add_scaled(net.params, eta, change))
    for a, b in zip(arrays(phase.net.params), arrays(now.params), strict=True):
        same(a, b)
    plain = oracle.learn("ep", net, dyn, s, y, K, beta, eta)
    same(phase.states[1][-1], plain.states[1][-1])  # the first step still has theta_0
    assert np.abs(phase.states[-1][-1] - plain.states[-1][-1]).max() > 1e-6


@settings
def test_vf_against_ep(dyn):
    """With Wb = W: dW_ep = dWf + dWb + 1/(beta B) dr_pre^T dr_post, and the biases are equal."""
    net, x, y, _ = graph_net(8)
    Wb = [None if i == 0 else W for (i, _), W in zip(GRAPH, net.params.W, strict=True)]
    untied = net.with_params(net.params._replace(Wb=Wb))
    beta = 0.2
    s = oracle.free_phase(net, dyn, x, 20)
    s_next = oracle.step(net, dyn, s, y, beta)
    for a, b in zip(s_next, oracle.step(untied, dyn, s, y, beta), strict=True):
        same(a, b)
    s, s_next = s_next, oracle.step(net, dyn, s_next, y, beta)
    ep = oracle.ep_increment(net, dyn, s, s_next, beta)
    vf = oracle.vf_increment(untied, dyn, s, s_next, beta)
    before, after = oracle.rates(dyn, s), oracle.rates(dyn, s_next)
    for e, (i, j) in enumerate(GRAPH):
        second = (after[i] - before[i]).T @ (after[j] - before[j]) / (beta * len(x))
        same(ep.W[e], vf.W[e] + (0 if i == 0 else vf.Wb[e]) + second)
        if ep.b[e] is not None:
            same(ep.b[e], vf.b[e])


def test_what_the_input_sends():
    """E has rho(s0) with s0 = x; "identity" sends x; the prototypical setting always sends x."""
    _, x, _, rng = graph_net(14)
    s = random_state(rng, x)
    for dyn, sent in (
        (oracle.Dynamics("energy", "tanh"), np.tanh(x)),
        (oracle.Dynamics("energy", "tanh", input_rate="identity"), x),
        (oracle.Dynamics(activation="tanh"), x),
    ):
        r = oracle.rates(dyn, s)
        np.testing.assert_array_equal(r[0], sent)
        np.testing.assert_array_equal(r[1], np.tanh(s[1]) if dyn.setting == "energy" else s[1])


def test_measures():
    """By hand: element 0 is off by 1 of |(3, 4)| = 5, element 1 is exact, element 2 silent."""
    D = np.array([[3.0, 1.0, 0.0], [4.0, -1.0, 0.0]])
    grad = np.array([[-3.0, -1.0, 0.0], [-3.0, 1.0, 0.0]])
    same(oracle.relmse(D, grad), (1 / 5 + 0 + 0) / 3)
    same(oracle.angle(np.array([1.0, 0.0]), np.array([1.0, 1.0])), 45)
    one, other = (oracle.Params([np.array([[v]])], [np.array([1.0])], [None]) for v in (1.0, -1.0))
    same(oracle.angle(one, other), 90)


def total_error(update, gradient):
    """|update + gradient| / |gradient|, everything concatenated."""
    a, b = (np.concatenate([v.ravel() for v in arrays(p)]) for p in (update, gradient))
    return np.linalg.norm(a + b) / np.linalg.norm(b)


def order(errors, at_most):
    """The power p in error ~ beta^p, of the errors at some beta and at beta/10."""
    assert errors[1] < at_most
    return np.log10(errors[0] / errors[1])


CONVERGED = {
    "prototypical": oracle.Dynamics(activation="tanh", nudge="inside"),
    "energy": oracle.Dynamics("energy", "tanh", dt=0.3),
}


def halved(net):
    """Weights halved, so that the free dynamics contract to a fixed point in a few steps."""
    return net.with_params(net.params._replace(W=[0.5 * W for W in net.params.W]))


@pytest.mark.parametrize("dyn", CONVERGED.values(), ids=CONVERGED.keys())
def test_theorem_one(dyn):
    """D(t) -> -grad(t) at every t, first order in beta; centered nudging is second order."""
    net, x, y, _ = graph_net(9)
    net = halved(net)
    T, K, eta = 300, 8, [0.0] * len(GRAPH)
    grads = oracle.bptt(net, dyn, x, y, T, K)
    gradient = oracle.total(grads.grad_theta)
    s = oracle.free_phase(net, dyn, x, T)
    for a, b in zip(oracle.step(net, dyn, s), s, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-14)
    per_step, one_sided, centered = [], [], []
    for beta in (1e-2, 1e-3):
        phase = oracle.learn("ep", net, dyn, s, y, K, beta, eta)
        errors = [
            oracle.relmse(np.stack(d), np.stack(g))
            for d, g in zip(
                zip(*map(arrays, phase.increments), strict=True),
                zip(*map(arrays, grads.grad_theta), strict=True),
                strict=True,
            )
        ]
        if dyn.setting == "energy":  # ds = -grad_s there; with sigma there is a factor sigma'
            D = oracle.d_states(dyn, phase.states, beta)
            errors += [
                oracle.relmse(np.stack([d[i] for d in D]), np.stack([g[i] for g in grads.grad_s]))
                for i in range(1, len(SIZES))
            ]
        per_step.append(max(errors))
        one_sided.append(total_error(phase.update, gradient))
        centered.append(total_error(oracle.centered_update(net, dyn, s, y, K, beta), gradient))
    assert order(per_step, at_most=5e-3) == pytest.approx(1, abs=0.05)
    assert order(one_sided, at_most=5e-3) == pytest.approx(1, abs=0.05)
    assert order(centered, at_most=1e-5) == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("dyn", CONVERGED.values(), ids=CONVERGED.keys())
def test_continual_error_is_of_order_eta_over_beta(dyn):
    """eta moves the states by O(eta), and D divides that by beta: so eta must vanish FASTER."""
    net, x, y, _ = graph_net(13)
    net = halved(net)
    K = 6
    s = oracle.free_phase(net, dyn, x, 300)

    def gap(beta, eta):
        """|D_c-ep - D_ep| / |D_ep|, over the whole phase."""
        plain, continual = (
            oracle.learn(rule, net, dyn, s, y, K, beta, [eta] * len(GRAPH))
            for rule in ("ep", "c-ep")
        )
        minus = oracle.combine(lambda _, a: -a, plain.update)
        return total_error(continual.update, minus)

    both_over_ten = [gap(1e-2, 1e-4), gap(1e-3, 1e-5)]
    eta_over_ten = [gap(1e-2, 1e-4), gap(1e-2, 1e-5)]
    assert order(both_over_ten, at_most=1) == pytest.approx(0, abs=0.05)
    assert order(eta_over_ten, at_most=1) == pytest.approx(1, abs=0.05)


@settings
@pytest.mark.parametrize("rule", oracle.RULES)
def test_dtype_is_kept(rule, dyn):
    """float32 in, float32 out, whatever the type of beta and of the learning rates."""
    net, x, y, _ = graph_net(10, untied="vf" in rule, dtype=np.float32)
    s = oracle.free_phase(net, dyn, x, 3)
    eta = np.full(len(GRAPH), 0.1)
    phase = oracle.learn(rule, net, dyn, s, y, 3, np.float64(0.1), eta)
    new = oracle.minibatch(rule, net, dyn, x, y, 3, 3, np.float64(0.1), eta)
    everything = [*phase.states[-1], *arrays(phase.update), *arrays(phase.net.params)]
    everything += arrays(new.params)
    assert {a.dtype for a in everything} == {np.dtype(np.float32)}


def test_learning_leaves_its_arguments_alone():
    net, x, y, _ = graph_net(11)
    before = [a.copy() for a in arrays(net.params)]
    s = oracle.free_phase(net, oracle.Dynamics(), x, 3)
    oracle.learn("c-ep", net, oracle.Dynamics(), s, y, 3, 0.1, [0.1] * len(GRAPH))
    for a, b in zip(arrays(net.params), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_wrong_nets_are_refused():
    tied, x, y, _ = graph_net(12)
    untied, *_ = graph_net(12, untied=True)
    dyn, eta = oracle.Dynamics(), [0.1] * len(GRAPH)
    s = tied.zero_state(x)
    with pytest.raises(ValueError, match="tied net"):
        oracle.learn("ep", untied, dyn, s, y, 1, 0.1, eta)
    with pytest.raises(ValueError, match="untied net"):
        oracle.learn("vf", tied, dyn, s, y, 1, 0.1, eta)
    for edge in ((1, 1), (1, 0)):
        with pytest.raises(ValueError, match="pre != post"):
            oracle.make_net([2, 2], [np.zeros((2, 2))], edges=[edge])


# ------------------------------------------------------------------------------------------- conv


def small_conv(seed):
    """12x12 -> conv 3, pool 2 -> 5x5 -> conv 2, pool 2 (last row and column unused) -> 1x1 -> 3."""
    rng = np.random.default_rng(seed)
    shapes = [(2, 1, 3, 3), (3, 2, 3, 3), (3, 4)]
    W = [rng.uniform(-0.5, 0.5, shape) for shape in shapes]
    b = [rng.uniform(-0.5, 0.5, n) for n in (2, 3, 4)]
    x = rng.uniform(0, 1, (2, 1, 12, 12))
    y = np.eye(4)[[0, 2]]
    return oracle.make_conv_net(W, b, 2), x, y, rng


def test_conv_step_and_statistic_are_gradients_of_phi():
    net, x, _, rng = small_conv(1)
    dyn = oracle.Dynamics(activation="tanh")
    s = [x] + [rng.uniform(0, 1, v.shape) for v in net.zero_state(x)[1:]]
    assert [v.shape[1:] for v in s] == [(1, 12, 12), (2, 5, 5), (3, 1, 1), (4,)]
    new = oracle.step(net, dyn, s)
    for i in range(1, len(s)):
        close(new[i], np.tanh(numerical(lambda: oracle.conv_phi(net, s), s[i])))
    values = oracle.statistic(net, dyn, s)
    for theta, value in zip(arrays(net.params), arrays(values), strict=True):
        close(numerical(lambda: oracle.conv_phi(net, s), theta), value)


def test_conv_bptt_is_the_gradient_of_the_loss():
    net, x, y, _ = small_conv(2)
    dyn = oracle.Dynamics(activation="tanh")
    T = 4
    grads = oracle.bptt(net, dyn, x, y, T, T)
    for c in range(3):
        for group, theta in enumerate((net.params.W[c], net.params.b[c])):
            close(
                numerical(lambda: oracle.loss(oracle.free_phase(net, dyn, x, T), y).mean(), theta),
                sum(g[group][c] for g in grads.grad_theta),
            )


def test_conv_theorem_one():
    """Inside nudging: the increment of every kernel and bias is -grad(t), first order in beta."""
    net, x, y, _ = small_conv(3)
    net = halved(net)
    # With tanh most such nets end in a cycle of period 2, between two choices of the maxima.
    dyn = oracle.Dynamics(activation="sigm", nudge="inside")
    T, K = 150, 6
    grads = oracle.bptt(net, dyn, x, y, T, K)
    s = oracle.free_phase(net, dyn, x, T)
    for a, b in zip(oracle.step(net, dyn, s), s, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-14)
    worst = []
    for beta in (1e-3, 1e-4):
        states = [s, *oracle.nudged_phase(net, dyn, s, y, K, beta)]
        D = [
            oracle.ep_increment(net, dyn, before, after, beta) for before, after in pairwise(states)
        ]
        worst.append(
            max(
                oracle.relmse(
                    np.stack([d[group][c] for d in D]),
                    np.stack([g[group][c] for g in grads.grad_theta]),
                )
                for group in range(2)
                for c in range(3)
            )
        )
    assert order(worst, at_most=1e-3) == pytest.approx(1, abs=0.05)


def test_first_of_equal_maxima_is_pooled():
    """A choice, which the reference vectors (no window of theirs has equal maxima) leave open."""
    v = np.array([[[[1.0, 1.0], [1.0, 0.0]]]])
    indices = oracle.pool_indices(v, 2)
    assert indices.item() == 0
    out = oracle.unpool(np.array([[[[3.0]]]]), indices, 2, v.shape)
    np.testing.assert_array_equal(out, [[[[3.0, 0.0], [0.0, 0.0]]]])
