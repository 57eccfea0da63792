"""The range of the states, and the power of a circuit. Oracle: NumPy, on the states of `relax`."""

import re

import jax
import numpy as np

import eqprop as ep
from eqprop.cli.main import main
from eqprop.data import named


def told(out: str) -> list[list[float]]:
    """The rows of the table: lowest and highest of each layer."""
    table = out[out.index("layer  units") :].splitlines()[1:]
    return [[float(word) for word in line.split()[2:]] for line in table if line.strip()]


def test_evaluate_tells_where_states_end_up(tmp_path, capsys) -> None:
    digits = named.load("digits")
    run = ep.fit("ep-1h", digits, tmp_path / "run", epochs=1, hidden=(12,), T=60)
    assert main(["evaluate", str(run.folder)]) == 0
    found = told(capsys.readouterr().out)
    ends = [layer[-1] for layer in run.relax(digits.test_x)]
    expected = [[layer.min(), layer.max()] for layer in ends]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_and_what_a_circuit_dissipates(tmp_path, capsys) -> None:
    digits = named.load("digits")
    run = ep.fit("resistive-1h", digits, tmp_path / "run", epochs=1, hidden=(12,), T=60)
    assert main(["evaluate", str(run.folder)]) == 0
    out = capsys.readouterr().out
    assert "voltages at the end of a free phase" in out
    ends = [layer[-1].astype(float) for layer in run.relax(digits.test_x)]
    np.testing.assert_allclose(told(out), [[v.min(), v.max()] for v in ends], rtol=1e-3, atol=1e-2)
    x = np.asarray(digits.test_x).reshape(len(digits.test_x), -1) / 255
    assert isinstance(run.network, ep.ResistiveNetwork)
    sources = np.asarray(run.network.sources(jax.numpy.asarray(x, np.float32)), float)
    volts = [sources, *ends]
    spent = np.zeros(len(x))
    for g, pre, post in zip(run.network.conductances, volts[:-1], volts[1:], strict=True):
        spent += np.einsum("ij,bij->b", g, (pre[:, :, None] - post[:, None, :]) ** 2)
    mean, most = map(float, re.findall(r"power (\S+) on average, (\S+) at most", out)[0])
    np.testing.assert_allclose([mean, most], [spent.mean(), spent.max()], rtol=1e-2)
