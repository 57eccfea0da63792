"""Fields of records have the types that they are annotated with, whoever made the record."""

import subprocess
import sys
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pytest

from eqprop.devices.record import IDEAL, Device
from eqprop.errors import EqpropError
from eqprop.fields import conform


@dataclass(frozen=True)
class Plan:
    """What jaxtyping, which checks the records of the library in tests, does not check first."""

    epochs: int = 1
    beta: float = 0.1
    angle: float | None = None
    sweeps: bool = False
    rule: Literal["ep", "c-ep", "vf"] = "ep"
    name: str = ""
    rates: tuple[float, ...] = ()
    hidden: tuple[int, ...] = ()
    skips: tuple[tuple[int, int], ...] = ()
    device: Device = IDEAL

    def __post_init__(self) -> None:
        conform(self, "plan.")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 1.5}, r"plan\.epochs is 1\.5: give int"),
        ({"epochs": True}, "epochs is True: give int"),
        ({"epochs": "30"}, "epochs is '30': give int"),
        ({"epochs": None}, "epochs is None: give int"),
        ({"angle": "90"}, r"angle is '90': give float \| None"),
        ({"rates": 0.1}, r"rates is 0\.1: give tuple\[float, \.\.\.\], as \(0\.1,\)"),
        ({"hidden": 64}, "hidden is 64: give tuple"),
        ({"hidden": (64.0,)}, r"hidden is \(64\.0,\): give tuple"),
        ({"hidden": np.zeros((2, 2), int)}, "give tuple"),
        ({"skips": ((1, 2, 3),)}, r"skips is \(\(1, 2, 3\),\): give tuple"),
        ({"rule": "epp"}, "rule is 'epp': did you mean ep"),
        ({"rule": 3}, "rule is 3: give Literal"),
        ({"sweeps": 1}, "sweeps is 1: give bool"),
        ({"name": 1}, "name is 1: give str"),
        ({"device": "rram"}, "device is 'rram': give .*Device"),
        ({"rule": IDEAL}, r"rule is Device\(.*: give Literal"),
        ({"beta": IDEAL}, r"beta is Device\(.*: give float"),
    ],
)
def test_values_of_other_types(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EqpropError, match=message):
        replace(Plan(), **changes)


@pytest.mark.parametrize(
    ("field", "given", "kept"),
    [
        ("rates", [0.1, 1], (0.1, 1.0)),
        ("rates", np.array([0.25, 0.5], np.float32), (0.25, 0.5)),
        ("hidden", (np.int64(7),), (7,)),
        ("skips", [[0, 2]], ((0, 2),)),
        ("epochs", np.int32(3), 3),
        ("angle", np.float64(30), 30.0),
        ("sweeps", np.True_, True),
        ("beta", 1, 1.0),
        ("device", {"adc_bits": 4}, Device(adc_bits=4)),
    ],
)
def test_lists_and_numbers_of_numpy_become_those_of_python(
    field: str, given: Any, kept: Any
) -> None:
    """So that a record is the same after it was written as JSON, and read."""
    found = getattr(replace(Plan(), **{field: given}), field)
    assert found == kept
    assert type(found) is type(kept)
    assert not isinstance(kept, tuple) or [*map(type, found)] == [*map(type, kept)]


WITHOUT_JAXTYPING = """
from dataclasses import replace
from eqprop.devices.record import IDEAL, Device
from eqprop.errors import EqpropError
from eqprop.recipes.catalogue import recipe
known = recipe("ep-1h")
assert replace(known, lr=[*known.lr]) == known
for make in (lambda: replace(known, epochs=1.5), lambda: Device(adc_bits=4.5)):
    try:
        make()
    except EqpropError as error:
        print(error)
"""


def test_recipes_and_devices_are_such_records() -> None:
    """A training of 1.5 epochs would never end, for one."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_JAXTYPING], capture_output=True, text=True, check=True
    )
    said = ["epochs is 1.5: give int", "device.adc_bits is 4.5: give int"]
    assert done.stdout.splitlines() == said
