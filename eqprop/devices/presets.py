"""Devices by name, and from files. Nothing here loads JAX.

The fits are those published with IBM's analog hardware kit (aihwkit), each of a measured array.
"""

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any

from eqprop.devices.record import EFFECTS, Device
from eqprop.errors import EqpropError, UsageError, suggest

_KIT = "as fitted in IBM's analog hardware kit"

PRESETS = {
    device.name: device
    for device in (
        Device(),
        Device(
            name="constant-step",
            source=f"Gokmen and Vlasov 2016, {_KIT}",
            dw_min=0.0016,
            w_max=1.0,
            w_min=-1.0,
            dw_min_spread=0.3,
            pulse_noise=0.3,
            w_max_spread=0.3,
            w_min_spread=0.3,
        ),
        Device(
            name="capacitor",
            source=f"Li 2018, {_KIT}",
            dw_min=0.005,
            slope_up=0.05,
            slope_down=0.05,
            w_max=1.0,
            w_min=-1.0,
            dw_min_spread=0.1,
            pulse_noise=0.3,
            w_max_spread=0.07,
            w_min_spread=0.07,
        ),
        Device(
            name="li-ecram",
            source=f"Tang 2018, {_KIT}",
            dw_min=0.002,
            slope_up=0.115,
            slope_down=0.509,
            w_max=1.17,
            w_min=-0.83,
            dw_min_spread=0.1,
            pulse_noise=0.3,
            w_max_spread=0.05,
            w_min_spread=0.05,
        ),
        Device(
            name="mo-ecram",
            source=f"Kim 2019, metal oxide, {_KIT}",
            dw_min=2.8e-4,
            slope_up=0.415,
            slope_down=0.734,
            w_max=1.17,
            w_min=-0.83,
            dw_min_spread=0.1,
            pulse_noise=2.0,
            w_max_spread=0.05,
            w_min_spread=0.05,
        ),
        Device(
            name="reram",
            source=f"Gong 2018, {_KIT}; write noise of 56 steps",
            dw_min=0.002,
            slope_up=1.0,
            slope_down=1.0,
            w_max=1.25,
            w_min=-0.75,
            dw_min_spread=0.3,
            pulse_noise=3.75,
            w_max_spread=0.24,
            w_min_spread=0.4,
            write_noise=56 * 0.002,
        ),
    )
}


def load_device(named: str) -> Device:
    """The device of that name, or in a ``.toml`` or ``.json`` file, which holds fields by name.

    Raises:
        UsageError: an unknown name, or a file that is not there.
        EqpropError: a file with something else in it, or values that cannot be.
    """
    path = Path(named)
    kind = path.suffix.lower()
    if kind not in (".toml", ".json"):
        if named not in PRESETS:
            raise UsageError(f"unknown device {suggest(named, PRESETS)} (or a .toml or .json file)")
        return PRESETS[named]
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): name a file") from error
    except UnicodeDecodeError as error:
        raise EqpropError(f"{path} is not text: give TOML or JSON, in UTF-8") from error
    try:
        fields = tomllib.loads(text) if kind == ".toml" else json.loads(text)
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise EqpropError(f"{path} is no {kind[1:].upper()} ({error}): mend it") from error
    device = from_fields(fields, str(path))
    if not device.effects and device.name != "ideal":
        raise EqpropError(
            f"{path} describes a device without an imperfection (it gives "
            f'{", ".join(fields) or "nothing"}): give some of {", ".join(EFFECTS)}, or name "ideal"'
        )
    return device


def from_fields(fields: Any, where: str) -> Device:
    """The device that a table of fields describes; ``where`` it was found is for errors."""
    import msgspec

    known = [field.name for field in dataclasses.fields(Device)]
    if not isinstance(fields, dict):
        raise EqpropError(f"{where} holds no table of fields: give some of {', '.join(known)}")
    for name in fields:
        if name not in known:
            raise EqpropError(f"{where}: unknown field {suggest(name, known)}")
    named = {"name": Path(where).stem, **fields}
    try:
        return msgspec.convert(named, Device)
    except msgspec.ValidationError as error:
        raise EqpropError(f"{where}: {error}: mend it") from error
    except EqpropError as error:
        raise EqpropError(f"{where}: {error}") from error
