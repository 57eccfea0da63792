"""Many devices: one program over 8 simulated ones. Oracle: the same training on one device."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from eqprop.errors import EqpropError
from eqprop.training.replicas import divide

PROGRAM = Path(__file__).parents[1] / "on_devices.py"


def run(*arguments: str) -> str:
    """The program's output, on 8 devices that share this machine's processors."""
    flags = "--xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *arguments],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1"},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def test_each_rule_on_8_devices_is_that_on_1() -> None:
    """The program compares; here, that it has compared all, and what it says of messages."""
    lines = run("equal").splitlines()
    assert len(lines) == 7
    assert all(re.fullmatch(r"\S.*: same after 2 epochs, .*", line) for line in lines), lines


def test_messages_are_those_of_docs_scaling() -> None:
    """Floats in the operations between devices of a compiled program, for a 30-7-4 net and batches
    of 8.
    """
    ep, c_vf = map(json.loads, run("messages").splitlines())
    first, second = 30 * 7 + 7, 7 * 4 + 4
    # The gradient; and of the totals the loss, the residual and their like.
    figures = ep.pop("all-reduce") - (first + second)
    assert 0 < figures <= 4
    assert ep == {"rule": "ep"}
    figures = c_vf.pop("all-reduce") - (first + second + 7 * 4)  # feedback weights
    assert 0 < figures <= 4
    # For the first layer's drive: the inputs, once, and at each step the states.
    assert c_vf == {"rule": "c-vf", "all-gather": 8 * 30 + 8 * 7}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((1, 1, 20, None), (1, 1)),
        ((8, 1, 20, None), (1, 1)),  # too few rows to be worth it
        ((8, 1, 256, None), (1, 8)),
        ((8, 1, 96, None), (1, 3)),
        ((8, 5, 20, None), (5, 1)),
        ((8, 4, 64, None), (4, 2)),
        ((4, 6, 20, None), (3, 1)),
        ((8, 1, 20, 4), (1, 4)),
        ((8, 6, 20, 6), (6, 1)),
        ((8, 3, 20, 4), (1, 4)),
        ((8, 2, 20, 8), (2, 4)),
        ((8, 1, 20, 1), (1, 1)),
    ],
)
def test_how_a_training_is_divided(asked, expected) -> None:
    assert divide(*asked) == expected


def test_what_does_not_divide() -> None:
    with pytest.raises(EqpropError, match=r"1 seed\(s\) in minibatches of 20 .* over 8 devices"):
        divide(8, 1, 20, 8)
    with pytest.raises(EqpropError, match="devices is 9, but this program sees 8"):
        divide(8, 1, 20, 9)
    with pytest.raises(EqpropError, match="devices is 0"):
        divide(8, 1, 20, 0)
