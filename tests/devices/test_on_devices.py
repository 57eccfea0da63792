"""Trainings on devices as commands run them: resumed, swept, studied."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from trainings import (
    _compile_once,  # noqa: F401
    signal_in,
)

from eqprop.cli.main import main
from eqprop.devices.record import Device
from eqprop.recipes.catalogue import RECIPES
from eqprop.reports import charts
from eqprop.sweeps.device_study import Study, tolerated
from eqprop.training.figures import new_figure
from eqprop.training.runs import read_metrics, read_record
from eqprop.training.trained_run import open_run

pytestmark = pytest.mark.usefixtures("quick_compilation")

SMALL = ["--dataset", "digits", "--hidden", "12", "--batch", "100"]
NOISY = [
    "--device", "reram", "--device.read-noise", "0.01", "--device.step-noise", "0.01",
    "--device.gain-spread", "0.1", "--device.drift", "1e-4", "--device.stuck", "0.01",
]  # fmt: skip


@pytest.mark.parametrize("rule", ["ep", "c-ep"])
def test_a_training_on_a_device_is_resumed_exactly(rule, tmp_path):
    typed = ["train", "ep-1h", *SMALL, *NOISY, "--rule", rule]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main([*typed, "--epochs", "3", "--out", str(whole)]) == 0
    assert main([*typed, "--epochs", "2", "--out", str(cut)]) == 0
    assert main(["resume", str(cut), "--epochs", "3"]) == 0
    assert read_record(whole).recipe.device.name == "reram"
    for name in ("pulses", "at_bounds", "test_error", "train_loss"):
        a, b = ([row[name] for row in read_metrics(run)] for run in (whole, cut))
        assert a == b, name
    assert read_metrics(whole)[0]["pulses"] > 0
    a, b = (open_run(run).network for run in (whole, cut))
    for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
        np.testing.assert_array_equal(x, y)
    x = np.zeros((2, 8, 8), np.uint8)
    np.testing.assert_array_equal(open_run(whole).scores(x), open_run(cut).scores(x))


@pytest.mark.parametrize(
    "recipe",
    [
        ["resistive-1h", "--hidden", "12", "--K", "2"],
        ["ep-conv", "--channels", "4", "--kernel", "3", "--hidden", "--lr", "0.1", "0.1"],
        ["ep-1h", "--hidden", "12", "--rule", "aep", "--angle", "90"],
        ["ep-1h", "--hidden", "12", "--cost", "cross-entropy"],
    ],
)
def test_any_network_trains_on_any_device(recipe, tmp_path):
    name, *fields = recipe
    typed = ["train", name, "--dataset", "digits", "--batch", "300", "--epochs", "1", *fields]
    on = ["--device", "capacitor", "--device.read-noise", "0.01", "--device.gain-spread", "0.1"]
    assert main([*typed, *on, "--T", "5", "--out", str(tmp_path / "run")]) == 0
    (row,) = read_metrics(tmp_path / "run")
    assert row["pulses"] > 0


def test_a_start_is_programmed(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["train", "ep-1h", *SMALL, "--epochs", "1", "--out", str(first)]) == 0
    on = ["--device.w-max", "0.05", "--device.w-min", "-0.05", "--epochs", "1"]
    assert main(["train", "ep-1h", *SMALL, *on, "--from", str(first), "--out", str(second)]) == 0
    weight = open_run(second).network.edges[0].connection.weight  # pyright: ignore
    assert np.abs(weight).max() <= np.float32(0.05)


def test_devices_are_swept(tmp_path):
    out = tmp_path / "sweep"
    grid = ["--grid", "device=ideal,reram", "device.adc_bits=4,8"]
    assert main(["sweep", "ep-1h", *SMALL, "--epochs", "1", *grid, "--out", str(out)]) == 0
    found = {name: read_record(out / name).recipe.device for name in (
        "device-ideal_device.adc_bits-4", "device-reram_device.adc_bits-8",
    )}  # fmt: skip
    four, eight = found.values()
    assert (four.dw_min, four.adc_bits) == (0, 4)
    assert (eight.dw_min, eight.adc_bits) == (0.002, 8)
    assert main(["sweep", "ep-1h", "--grid", "device.adc_bit=4"]) == 2


def test_a_study(tmp_path, capsys):
    out = tmp_path / "study"
    typed = [
        "device", "ep-1h", *SMALL, "--epochs", "1", "--factors", "1", "100",
        "--device.write-noise", "0.01", "--device.read-noise", "0.01", "--out", str(out),
    ]  # fmt: skip
    assert main(typed) == 0
    told = capsys.readouterr().out
    assert "It is limited most by" in told
    numbers = json.loads((out / "device.json").read_text())
    rows = {row["run"]: row for row in numbers["rows"]}
    assert set(rows) == {
        "ideal", "write_noise-x1", "write_noise-x100", "read_noise-x1", "read_noise-x100",
        "together-x1", "together-x100",
    }  # fmt: skip
    # Noise of reading is in no programmed network; noise of writing is.
    assert rows["read_noise-x100"]["offline"] == rows["ideal"]["score"]
    assert rows["write_noise-x100"]["offline"] != rows["ideal"]["score"]
    assert {row["way"] for row in numbers["ways"]} == {
        "as the recipe says", "centered", "continual", "asymmetric",
    }  # fmt: skip
    assert (out / "device.png").stat().st_size > 10_000
    page = (out / "device.md").read_text()
    assert "## What limits it" in page
    assert main(typed) == 0
    told = capsys.readouterr().out
    assert "13 trainings, 13 of them ended" in told
    assert "has not ended" not in told
    # As if trainings had diverged.
    for name, words in (
        ("together-x1", "in situ: diverged, offline"),
        (
            "write_noise-x1",
            "most by write_noise, with which alone it diverges; tolerated: not even",
        ),
        ("ideal", "Ideal: diverged; on the device, in situ: diverged."),
    ):
        (out / name / "diverged.txt").write_text("it did\n")
        assert main(typed) == 0
        assert words in capsys.readouterr().out


def test_an_interrupted_study(tmp_path, monkeypatch, capsys):
    signal_in(monkeypatch, 1)
    typed = ["--device.write-noise", "0.01", "--epochs", "1", "--out", str(tmp_path / "study")]
    assert main(["device", "ep-1h", *SMALL, *typed]) == 130
    assert "or with all of them: eqprop device ep-1h" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("scores", "percent", "scale", "ticks"),
    [
        ((3.0, 30.0), True, "log", 7),
        ((3e-6, 5e-4), False, "log", None),
        ((0.0, 30.0), True, "linear", None),
    ],
)
def test_the_chart_has_the_ticks_of_its_scores(scores, percent, scale, ticks):
    ideal, worse = scores
    row = {"imperfection": "noise", "factor": 1.0, "score_std": None, "offline_std": None}
    rows = [
        {**row, "imperfection": "none", "factor": None, "score": ideal, "offline": ideal},
        {**row, "score": worse, "offline": worse},
        {**row, "factor": 4.0, "score": worse, "offline": None},
    ]
    figure = new_figure()
    charts.over_sizes(figure, rows, "score", percent=percent)
    for axes in figure.axes:
        low, high = axes.get_ylim()
        assert axes.get_yscale() == scale
        assert low <= ideal < worse < high
        assert scale == "linear" or low > ideal / 2
        if ticks:
            assert len(axes.get_yticks()) == ticks
        else:
            assert sum(low <= tick <= high for tick in axes.get_yticks()) > 1


def test_help(capsys):
    assert main(["device", "--help"]) == 0
    told = capsys.readouterr().out
    for part in ("Start with: eqprop device ep-1h --device reram", "Every field of a recipe"):
        assert part in told


@pytest.mark.parametrize(
    ("changed", "rates"),
    [
        ({}, RECIPES["c-ep-1h"].lr),
        ({"lr": (0.5, 0.2)}, (0.05, 0.02)),
        ({"hidden": (8, 8), "lr": (0.3, 0.2, 0.1)}, (0.03, 0.02, 0.01)),
    ],
)
def test_learning_continually_on_a_device(changed, rates, tmp_path):
    device = Device(read_noise=0.01)
    recipe = dataclasses.replace(RECIPES["ep-1h"], **changed, device=device)
    ways = Study(recipe, (1.0,), (0,), tmp_path).ways()
    assert ways["continual"].lr == pytest.approx(rates)


def test_a_device_made_of_fields_alone_is_not_called_ideal():
    assert (Device().title, Device(read_noise=0.1).title) == ("ideal", "own")
    assert dataclasses.replace(Device(name="mine"), read_noise=0.1).title == "mine"


def test_a_study_needs_a_device(capsys):
    assert main(["device", "ep-1h", *SMALL]) == 2
    assert "the device is ideal" in capsys.readouterr().err
    assert main(["device", "ep-1h", "--device", "reram", "--factors", "-1"]) == 2
    assert "factors is (-1.0,)" in capsys.readouterr().err
    assert main(["device", "ep-1h", "--device", "reram", "--seeds", "0"]) == 2


def test_tolerance_lies_between_the_sizes_tried():
    def rows(*scores):
        values = (0.01, 0.1, 1.0)
        ends = ("diverged" if score is None else "" for score in scores)
        return [
            {"value": v, "score": s, "end": e} for v, s, e in zip(values, scores, ends, strict=True)
        ]

    assert tolerated(rows(2.0, 2.0, 4.0), 3.0) == "0.32"
    assert tolerated(rows(2.0, 2.1, 2.2), 3.0) == "1 and more"
    assert tolerated(rows(5.0, 6.0, 7.0), 3.0) == "not even 0.01"
    assert tolerated(rows(2.0, None, None), 3.0) == "0.01"
    assert tolerated([], 3.0) == "not known"
