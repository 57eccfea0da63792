"""What a recipe refuses by itself, before anything is built from it."""

import dataclasses
from typing import Any

import pytest

from eqprop.devices.record import Device
from eqprop.errors import EqpropError
from eqprop.recipes.catalogue import recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"skips": ((1, 2),)}, "skips have 1 2, but these two layers are connected already"),
        ({"skips": ((2, 1),)}, "skips have 2 1, but these two layers are connected already"),
        ({"skips": ((0, 2), (0, 2))}, "skips have 0 2, but .* name each pair once"),
        ({"lateral": (1, 1)}, r"lateral is \(1, 1\): name each layer once"),
        ({"output_slope": False}, "rule ep has nothing to do with .* in the setting prototypical"),
        ({"setting": "energy", "inside": True}, "only in discrete time is there a potential"),
        ({"hold": True, "inside": True}, "inside is True with hold"),
        ({"setting": "resistive", "output": "activation"}, "outputs .* are voltages"),
        ({"setting": "resistive", "train_input_bias": False}, "train_input_bias is False"),
        ({"setting": "resistive", "rule": "bptt", "output_slope": False}, "output_slope is False"),
        ({"rule": "bptt", "device": Device(step_noise=0.1)}, "step_noise is 0.1, but rule bptt"),
        ({"test_tolerance": -1e-4}, "test_tolerance is -0.0001: give a number above 0, or 0 for"),
    ],
)
def test_values_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EqpropError, match=message):
        dataclasses.replace(recipe("ep-2h"), **changes)


def test_skips_that_connect_what_was_not() -> None:
    assert dataclasses.replace(recipe("ep-2h"), skips=((0, 2), (1, 3))).connections == 5
