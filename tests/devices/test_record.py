"""Devices as data: presets, files, and what is wrong with them in one line."""

import dataclasses
import json
import re

import pytest

from eqprop.cli.main import main
from eqprop.devices.presets import PRESETS, from_fields, load_device
from eqprop.devices.record import IDEAL, NEEDS, Device
from eqprop.devices.severity import alone, scaled, together
from eqprop.errors import EqpropError
from eqprop.recipes.build import build
from eqprop.recipes.catalogue import recipe
from eqprop.recipes.recipe import changes


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"w_min": -1.0, "w_max": -2.0}, r"w_max is -2\.0: give a number above 0"),
        ({"w_min": 0.5}, r"w_min is 0\.5: give a number below 0"),
        ({"dw_min": 3.0, "w_max": 1.0, "w_min": -1.0}, r"dw_min is 3\.0: give a step within"),
        ({"stuck": 1.5}, r"stuck is 1\.5: give a part, from 0 to 1"),
        ({"drift": -0.1}, r"drift is -0\.1: give at least 0"),
        ({"pulse_noise": 0.3}, r"pulse_noise is 0\.3: give dw_min too"),
        ({"dw_min_spread": -0.3, "dw_min": 0.1}, r"dw_min_spread is -0\.3: give at least 0"),
        ({"w_max_spread": 0.3}, r"w_max_spread is 0\.3: give w_max too"),
        ({"slope_up": 2.0, "w_max": 1.0, "dw_min": 0.1}, r"slope_up is 2\.0: give 0 to 1"),
        ({"slope_down": 1.0, "dw_min": 0.1}, r"slope_down is 1\.0: give w_min too"),
        ({"levels": 1, "w_max": 1.0, "w_min": -1.0}, "levels is 1: give at least 2"),
        ({"levels": 8, "w_max": 1.0}, "levels is 8: give w_min too"),
        ({"levels": 8, "w_max": 1.0, "w_min": -1.0, "dw_min": 0.1}, "levels is 8: leave dw_min"),
        (
            {"levels": 8, "w_max": 1.0, "w_min": -1.0, "slope_up": 0.5},
            "slope_up is 0.5: levels, 8, are exact: leave it out, or give dw_min for them",
        ),
        ({"adc_bits": 60}, "adc_bits is 60: give at most 24"),
        ({"adc_low": 2.0}, r"adc_low is 2\.0: give less than 1\.0"),
        ({"samples": 0}, "samples is 0: give at least 1"),
        ({"scale": (0.0,)}, r"scale is \(0\.0,\): give numbers above 0"),
        ({"read_noise": float("nan")}, "read_noise is nan: give 0, or a size from 1e-12 to 1e12"),
        ({"dw_min": 1e-300}, "dw_min is 1e-300: give 0, or a size"),
        ({"chip": 2**40}, "chip is 1099511627776: give less than 2.31"),
        ({"chip": -1}, "chip is -1: give at least 0"),
    ],
)
def test_what_cannot_be_is_one_line_that_names_the_field(fields, told):
    with pytest.raises(EqpropError, match=f"^device.{told}"):
        Device(**fields)


def test_presets_are_those_of_the_fits():
    assert list(PRESETS) == [
        "ideal", "constant-step", "capacitor", "li-ecram", "mo-ecram", "reram",
    ]  # fmt: skip
    assert not PRESETS["ideal"].effects
    assert PRESETS["reram"].write_noise == pytest.approx(0.112)
    for name, device in PRESETS.items():
        assert name == "ideal" or (device.source and device.dw_min and device.w_max)


def test_files(tmp_path):
    toml, json_ = tmp_path / "mine.toml", tmp_path / "mine.json"
    toml.write_text("dw_min = 0.01\nw_max = 1\nw_min = -1.0\nscale = [0.5, 1]\n# a comment\n")
    json_.write_text(json.dumps({"name": "other", "read_noise": 0.1, "samples": 4}))
    assert load_device(str(toml)) == Device(
        name="mine", dw_min=0.01, w_max=1.0, w_min=-1.0, scale=(0.5, 1.0)
    )
    assert load_device(str(json_)) == Device(name="other", read_noise=0.1, samples=4)
    shouted = json_.rename(tmp_path / "mine.JSON")
    assert load_device(str(shouted)).name == "other"
    shouted.write_text('{"name": "ideal"}')
    assert load_device(str(shouted)) == Device()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("dw_min = [1, 2]", "mine.toml: .*dw_min"),
        ("dwmin = 0.1", "unknown field 'dwmin': did you mean dw_min"),
        ("dw_min = ", "is no TOML"),
        ("stuck = 7.0", r"mine.toml: .*device.stuck is 7\.0"),
        ("samples = 1.5", "mine.toml: .*samples"),
        ("", "without an imperfection .*gives nothing.*dw_min"),
        ("name = 'reram'", "without an imperfection .*gives name"),
        ("samples = 16", "without an imperfection .*gives samples"),
    ],
)
def test_files_that_cannot_be(content, told, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(content)
    with pytest.raises(EqpropError, match=told):
        load_device(str(path))


def test_names_that_are_not_there(tmp_path):
    with pytest.raises(EqpropError, match=r"unknown device 'rerm': did you mean reram"):
        load_device("rerm")
    with pytest.raises(EqpropError, match="cannot be read"):
        load_device(str(tmp_path / "none.toml"))
    with pytest.raises(EqpropError, match="holds no table"):
        from_fields([1], "here")


def test_devices_that_do_not_fit_a_recipe():
    base = recipe("ep-1h")
    noisy = Device(read_noise=0.1)
    with pytest.raises(EqpropError, match="a holomorphic nudge makes complex ones"):
        dataclasses.replace(base, nudge="holomorphic", device=noisy)
    with pytest.raises(EqpropError, match=r"device.adc_low is 0\.0, but states go below 0"):
        dataclasses.replace(base, activation="tanh", device=Device(adc_bits=8))
    with pytest.raises(EqpropError, match="states go below 0"):
        dataclasses.replace(base, setting="energy", clip=False, device=Device(adc_bits=8))
    converted = dataclasses.replace(base, device=Device(adc_bits=8))
    with pytest.raises(EqpropError, match="states go below 0"):
        build(converted, (6,), 1, 1, real=True)
    with pytest.raises(EqpropError, match="feedback goes through no copies"):
        dataclasses.replace(recipe("resistive-1h"), device=Device(feedback_spread=0.1))


def test_a_name_makes_no_other_training():
    base = recipe("ep-1h")
    named = dataclasses.replace(base, device=Device(name="mine", chip=5, samples=3))
    assert named.essence == base.essence
    noisy = dataclasses.replace(base, device=Device(read_noise=0.1))
    assert noisy.essence != base.essence
    assert changes(noisy, base) == {"device.read_noise": (0.1, 0.0)}


def test_parts_of_a_device():
    device = dataclasses.replace(PRESETS["reram"], adc_bits=8, stuck=0.4)
    only = alone(device, "pulse_noise", 2.0)
    assert only.effects == ("dw_min", "pulse_noise")
    assert only.pulse_noise == 7.5
    assert only.dw_min == device.dw_min
    assert alone(device, "w_max").effects == ("w_max",)
    worse = together(device, 4.0)
    assert worse.effects == device.effects
    assert (worse.adc_bits, worse.stuck, worse.w_max) == (6, 1.0, 1.25)
    assert together(PRESETS["reram"], 4.0).w_max == 1.25 / 4
    assert together(device, 1.0) == device
    wide = Device(dw_min=0.1, w_max=1.0, w_min=-1.0)
    assert together(wide, 5.0) == dataclasses.replace(wide, dw_min=0.4, w_max=0.2, w_min=-0.2)
    stuck = Device(stuck=0.1, w_max=1.0, w_min=-0.5)
    assert alone(stuck, "stuck", 2.0).effects == ("w_max", "w_min", "stuck")
    assert together(stuck, 0.5) == dataclasses.replace(stuck, stuck=0.05)
    assert scaled(Device(levels=17, w_max=1.0, w_min=-1.0), "levels", 4.0) == 5
    for name in device.effects:
        about = ("w_max", "w_min") if name == "stuck" else NEEDS.get(name, ())
        assert set(alone(device, name).effects) == {name, *about}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--device", "rerm"], "unknown device 'rerm': did you mean reram"),
        (["--device"], "--device lacks a value: give a file, or ideal"),
        (["--device", "reram", "--device.w-max", "-1"], "device.w_max is -1.0"),
        (["--device.adc-bit", "8"], "did you mean --device.adc-bits"),
        (["--device.stuck", "2"], "device.stuck is 2.0"),
    ],
)
def test_what_is_typed_wrongly(options, told, capsys):
    assert main(["train", "ep-1h", *options]) == 2
    assert told in capsys.readouterr().err


def test_a_verification_is_of_an_ideal_device(capsys):
    for option in (["--device", "reram"], ["--device.adc-bits", "8"]):
        assert main(["verify", "ep-1h", *option]) == 2
        assert re.search("--device.* has no place in a verification", capsys.readouterr().err)
    assert Device() == IDEAL
