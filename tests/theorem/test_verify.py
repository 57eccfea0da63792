"""``eqprop verify``: its files against the definitions, its verdicts against Theorem 1."""

import dataclasses
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trainings import one_line

from eqprop.cli.main import main
from eqprop.errors import EqpropError
from eqprop.learning.baselines import BPTT, RecurrentBackprop
from eqprop.learning.rules import Rule
from eqprop.recipes.build import build
from eqprop.recipes.catalogue import RECIPES
from eqprop.theorem import agreement as diagnostics
from eqprop.theorem.figure import VERIFICATION, draw_verification, verification_figure
from eqprop.theorem.questions import FIGURES
from eqprop.training.figures import new_figure
from eqprop.training.runs import read_metrics

TINY = ("--random", "10", "5", "--hidden", "8")


def verify(out: Path, typed: Sequence[str], expected: int = 0) -> dict[str, Any]:
    assert main(["verify", *typed, "--out", str(out)]) == expected
    return json.loads((out / "verification.json").read_text()) if not expected else {}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("toy") / "run"
    verify(out, ["fig-toy", "--T", "2000", "--K", "30"])
    return out


def read(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with np.load(folder / "curves.npz", allow_pickle=False) as curves:
        return json.loads((folder / "verification.json").read_text()), dict(curves)


# ------------------------------------------------------------------------------------- what is left


def test_numbers_are_those_of_the_curves(toy: Path) -> None:
    numbers, curves = read(toy)
    tensors = {tensor["name"]: tensor for tensor in numbers["asked"]["tensors"]}
    assert list(tensors) == ["s1", "s2", "W1", "b1", "W2", "b2"]
    for name in ("s1", "s2"):
        d, minus_grad = curves[f"D_{name}"], curves[f"reference_{name}"]
        size = np.maximum((d**2).sum(axis=0), (minus_grad**2).sum(axis=0))
        relmse = np.sqrt(((d - minus_grad) ** 2).sum(axis=0) / size).mean()
        np.testing.assert_allclose(tensors[name]["relmse"], relmse, rtol=1e-10)
        p, q = d.sum(axis=0).ravel(), minus_grad.sum(axis=0).ravel()
        cosine = p @ q / np.linalg.norm(p) / np.linalg.norm(q)
        np.testing.assert_allclose(tensors[name]["cosine"], cosine, rtol=1e-10)
        np.testing.assert_allclose(np.cos(np.radians(tensors[name]["angle"])), cosine, rtol=1e-10)


def test_theorem_1_on_the_toy_net(toy: Path) -> None:
    numbers, curves = read(toy)
    assert numbers["verdict"].startswith("Theorem 1 holds: ")
    assert numbers["settling"]["settled"]
    assert [trial["beta"] for trial in numbers["beta_trials"]] == pytest.approx([1e-2, 1e-3, 1e-4])
    assert all(0.95 < order["slope"] < 1.05 for order in numbers["beta_orders"].values())
    together = [trial["together"] for trial in numbers["beta_trials"]]
    assert together[0]["angle"] < 1
    assert together[-1]["relmse"] < 1e-3
    assert numbers["eta_trials"] == []
    assert curves["D_s1"].shape == (30, 1, 50)
    assert curves["D_W2"].shape == (30, 5)
    assert (curves["D_s1"][0] == 0).all()  # out of the nudge's reach
    assert (curves["D_s2"][0] != 0).all()


def test_the_record_says_what_was_done(toy: Path) -> None:
    numbers, _ = read(toy)
    assert numbers["recipe"]["T"] == 2000
    assert numbers["recipe"]["clip"] is False
    assert numbers["options"]["random"] == [10, 5]
    assert numbers["made"]["command"][:3] == ["eqprop", "verify", "fig-toy"]
    assert numbers["data"]["name"] == "random"
    assert numbers["data"]["rows"] == [0]


def test_the_figure_needs_the_saved_files_alone(toy: Path, tmp_path: Path) -> None:
    for name in ("verification.json", "curves.npz"):
        shutil.copy(toy / name, tmp_path)
    code = (
        "import sys; from pathlib import Path\n"
        "from eqprop.theorem.figure import verification_figure\n"
        f"verification_figure(Path({str(tmp_path)!r})); sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert (tmp_path / VERIFICATION).read_bytes() == (toy / VERIFICATION).read_bytes()


@pytest.mark.parametrize("name", ["verification.json", "curves.npz"])
def test_a_damaged_file(name: str, toy: Path, tmp_path: Path) -> None:
    for file in ("verification.json", "curves.npz"):
        shutil.copy(toy / file, tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(EqpropError, match=rf"{name} cannot be read.*eqprop verify again"):
        verification_figure(tmp_path)


# ----------------------------------------------------------------------------------------- verdicts


def test_the_place_of_the_nudge_in_discrete_time(tmp_path: Path, capsys) -> None:
    typed = ["ep-1h", "--dataset", "digits", "--hidden", "9", "--batch", "3", "--T", "200"]
    outside = verify(tmp_path / "outside", typed)
    assert outside["verdict"].startswith("The updates do NOT tend to the BPTT gradients")
    assert "--inside mends that" in outside["verdict"]
    assert "  all  " in capsys.readouterr().out
    inside = verify(tmp_path / "inside", [*typed, "--inside"])
    assert inside["verdict"].startswith("Theorem 1 holds")
    assert inside["verdict"].endswith("weights do not.")
    assert inside["beta_orders"]["W1"]["slope"] == pytest.approx(1, abs=0.1)
    # The same network and minibatch: those of a training with this seed.
    assert inside["data"]["rows"] == outside["data"]["rows"]
    assert len(inside["data"]["rows"]) == 3
    assert inside["asked"]["together"]["reference_norm"] == pytest.approx(
        outside["asked"]["together"]["reference_norm"], rel=1e-9
    )


def test_centered_and_at_betas_of_choice(tmp_path: Path) -> None:
    typed = ["fig-toy", "--hidden", "8", "--T", "1500", "--K", "20", "--nudge", "centered"]
    found = verify(tmp_path, [*typed, "--beta", "0.1", "--betas", "0.03", "0.1", "0.01"])
    assert [trial["beta"] for trial in found["beta_trials"]] == [0.1, 0.03, 0.01]
    assert found["beta_orders"]["all parameters"]["slope"] == pytest.approx(2, abs=0.1)
    assert "vanishes as beta^2" in found["verdict"]


def test_weights_that_stay_apart_are_not_said_to_come_together(tmp_path: Path) -> None:
    typed = ["ep-1h", *TINY, "--T", "400", "--rule", "vf", "--inside", "--activation", "tanh"]
    verdict = verify(tmp_path, [*typed, "--feedback", "none"])["verdict"]
    assert verdict.startswith("The updates do NOT tend to the BPTT gradients")
    assert verdict.endswith("Without feedback weights no error is sent back.")


def test_two_betas_of_one_size_do_not_hide_the_order(tmp_path: Path) -> None:
    typed = ["fig-toy", "--hidden", "8", "--T", "1500", "--K", "20", "--beta", "0.01"]
    found = verify(tmp_path, [*typed, "--betas", "0.001", "-0.001"])
    assert "vanishes as beta (order 1.0" in found["verdict"]


def test_one_beta_is_not_called_noise(tmp_path: Path) -> None:
    """Neither is a beta and its opposite."""
    for betas in ("0.1", "-0.1"):
        typed = ["ep-1h", *TINY, "--beta", "0.1", "--betas", betas]
        verdict = verify(tmp_path / betas, typed)["verdict"]
        assert verdict.endswith("does not show: only one beta was tried: give others with --betas.")


def test_a_single_step_is_seen(tmp_path: Path) -> None:
    verify(tmp_path, ["fig-toy", *TINY, "--T", "500", "--K", "1"])
    figure = new_figure()
    draw_verification(figure, tmp_path)
    curves = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 1]
    assert len(curves) == 2 * 5
    assert all(line.get_marker() == "o" for line in curves)
    labels = figure.axes[-1].get_legend_handles_labels()[1]
    assert "all parameters" in labels


def test_no_number_is_lost_on_a_narrow_terminal(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    numbers = verify(tmp_path, ["fig-c-ep", *TINY, "--K", "20"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    for tensor in numbers["asked"]["tensors"]:
        (row,) = (words for words in lines if words[:1] == [tensor["name"]])
        assert row[2:4] == [f"{tensor['relmse']:.2e}", f"{tensor['cosine']:.6f}"]
        assert len(row) == 7  # with both orders


def test_with_a_readout(tmp_path: Path) -> None:
    typed = ("ep-1h", *TINY, "--cost", "cross-entropy", "--inside", "--T", "500")
    numbers = verify(tmp_path / "run", typed)
    # The readout has no part in the dynamics, and no curve.
    assert [t["name"] for t in numbers["asked"]["tensors"]] == ["s1", "W1", "b1"]
    assert numbers["verdict"].startswith("Theorem 1 holds")
    assert numbers["beta_orders"]["all parameters"]["slope"] == pytest.approx(1, abs=0.1)


def test_holomorphic(tmp_path: Path, capsys) -> None:
    typed = ["fig-toy", "--hidden", "8", "--T", "600", "--K", "20", "--nudge", "holomorphic"]
    found = verify(tmp_path, [*typed, "--points", "3", "--beta", "0.2", "--betas", "0.1"])
    assert found["beta_orders"]["all parameters"]["slope"] == pytest.approx(3, abs=0.2)
    assert "vanishes as beta^3" in found["verdict"]
    by_points = {t["points"]: t["together"]["relmse"] for t in found["point_trials"]}
    assert list(by_points) == [1, 2, 3, 4, 6, 8]
    assert by_points[3] == found["beta_trials"][0]["together"]["relmse"]
    assert all(b < a / 2 for a, b in itertools.pairwise(by_points.values()))
    assert "N betas on a circle of radius 0.2" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / VERIFICATION).is_file()


def test_continual_and_untied(tmp_path: Path, capsys) -> None:
    typed = ["fig-c-vf-45", *TINY, "--K", "20"]
    found = verify(tmp_path, typed)
    assert found["eta_orders"]["all parameters"]["slope"] == pytest.approx(1, abs=0.1)
    assert "Feedback weights that differ" in found["verdict"]
    assert "vanishes as eta" in found["verdict"]
    assert [trial["factor"] for trial in found["eta_trials"]] == [1, 0.1, 0.01]
    assert 5 < found["angles"]["1-2"] < 90
    assert "forward and feedback weights 1-2" in capsys.readouterr().out
    assert (tmp_path / VERIFICATION).is_file()


def test_an_unfinished_free_phase_is_told_with_what_would_do(tmp_path: Path, capsys) -> None:
    typed = ["eb-1h", *TINY, "--batch", "2", "--beta", "0.01", "--lr", "3", "--dataset", "digits"]
    found = verify(tmp_path / "short", [*typed, "--T", "20"])
    assert "does not show" in found["verdict"]
    assert found["recipe"]["clip"] is False
    output = capsys.readouterr().out
    assert "note: states are not kept in [0, 1]" in output
    assert "note: lr has no effect" in output
    assert "note: dataset has no effect" in output
    assert "NOT converged far enough" in output
    needed = found["settling"]["needed"]
    assert f"--T {needed} reaches" in output
    found = verify(tmp_path / "long", [*typed, "--T", str(needed)])
    assert found["settling"]["settled"]
    assert found["verdict"].startswith("Theorem 1 holds")


@pytest.mark.slow
def test_an_unfinished_free_phase_may_be_why_the_limit_is_missed(tmp_path: Path) -> None:
    typed = ["ep-1h-few", "--inside", *TINY]
    found = verify(tmp_path / "short", [*typed, "--T", "6", "--K", "2"])
    needed = found["settling"]["needed"]
    assert found["verdict"].startswith("The updates do NOT tend")
    assert f"had not settled, which may be why: try --T {needed}." in found["verdict"]
    found = verify(tmp_path / "long", [*typed, "--T", str(2 * needed), "--K", "2"])
    assert found["verdict"].startswith("Theorem 1 holds")


def test_sweeps_are_verified_in_as_many_steps_as_they_stand_for(tmp_path: Path, capsys) -> None:
    recipe = verify(tmp_path, ["ep-1h-few", "--inside", *TINY])["recipe"]
    few = RECIPES["ep-1h-few"]
    assert (recipe["T"], recipe["K"]) == (2 * few.T, 2 * few.K)
    assert f"note: T {2 * few.T} free and K {2 * few.K} nudged" in capsys.readouterr().out


def test_an_output_without_its_slope_is_named(tmp_path: Path) -> None:
    typed = ["eb-1h", "--no-output-slope", *TINY, "--T", "400"]
    verdict = verify(tmp_path, typed)["verdict"]
    assert verdict.startswith("The updates do NOT tend")
    assert verdict.endswith("follows no energy: --output-slope mends that.")


def test_rounding_where_zeros_belong_is_no_error(tmp_path: Path) -> None:
    """A fast convolution leaves 1e-17 in the statistics of units that are 0 (hardsigm)."""
    typed = ["fig-ep-conv", "--inside", "--dataset", "digits", "--channels", "8", "8", "--T", "200"]
    found = verify(tmp_path, [*typed, "--kernel", "3", "--pool", "none", "--beta", "0.001"])
    tensors = {tensor["name"]: tensor for tensor in found["asked"]["tensors"]}
    assert tensors["W2"]["silent"] > 50
    assert tensors["W2"]["relmse"] < 2e-3
    assert found["verdict"].startswith("Theorem 1 holds")


def test_silent_elements_are_left_out() -> None:
    d, minus_grad = np.array([1.0, 3e-12, 0.0, 1e-3]), np.array([1.1, -1e-17, 0.0, 2e-3])
    sums = [[d], [minus_grad], [d**2], [minus_grad**2], [(d - minus_grad) ** 2]]
    agreement = diagnostics._agreement("W1", 1, sums)
    assert agreement.silent == 2
    assert agreement.relmse == pytest.approx((0.1 / 1.1 + 0.5) / 2)


def test_nothing_moves(tmp_path: Path) -> None:
    """Both outputs are shut: no gradient, and no nudge from inside opens them."""
    typed = ["ep-1h", "--random", "10", "2", "--hidden", "8", "--activation", "hardsigm"]
    found = verify(tmp_path, [*typed, "--inside", "--batch", "1", "--seed", "1"])
    assert found["asked"]["together"]["reference_norm"] == 0
    assert found["verdict"].startswith("There is nothing to verify")
    assert (tmp_path / VERIFICATION).is_file()


# ---------------------------------------------------------------------------------------- bad input

# What is typed, the exit code, and what the error must name.
BAD: dict[str, tuple[list[str], int, list[str]]] = {
    "beta 0": (["fig-toy", "--beta", "0"], 2, ["beta is 0", "not 0"]),
    "a further beta of 0": (["fig-toy", "--betas", "0.1", "0"], 2, ["beta is 0", "not 0"]),
    "beta nan": (["fig-toy", "--beta", "nan"], 2, ["nan", "finite"]),
    "K > T": (["ep-1h", "--T", "7"], 2, ["K is 10", "T is 7", "lower K, or raise T"]),
    "K 0": (["fig-toy", "--K", "0"], 2, ["K is 0", "at least 1"]),
    "factor 0": (["fig-c-ep", *TINY, "--eta-factors", "0"], 2, ["(0.0,)", "above 0"]),
    "samples": (["fig-toy", "--samples", "-1"], 2, ["samples is -1"]),
    "random": (["fig-toy", "--random", "0", "5"], 2, ["random is 0 5", "at least 1 input"]),
    "seed": (["fig-toy", "--seed", "-1"], 2, ["seed is -1"]),
    "recipe": (["fig-tow"], 2, ["'fig-tow'", "fig-toy"]),
    "an option first": (["--beta", "1"], 2, ["recipe comes first"]),
    "a baseline": (["bptt-1h"], 2, ["bptt-1h", "nudged"]),
    "field": (["fig-toy", "--bete", "1"], 2, ["'--bete'", "--beta"]),
    "epochs": (["fig-toy", "--epochs", "1"], 2, ["--epochs", "nothing is trained"]),
    "dtype": (["fig-toy", "--dtype=float32"], 2, ["--dtype", "float64"]),
    "tolerance": (["ep-1h", "--tolerance", "1"], 2, ["--tolerance", "T steps"]),
    "test tolerance": (["ep-1h", "--test-tolerance", "1"], 2, ["--test-tolerance", "nothing is"]),
    "patience": (["ep-1h", "--patience", "1"], 2, ["--patience", "nothing is trained"]),
    "dropout": (["ep-1h", "--dropout=.5"], 2, ["--dropout", "nothing is trained"]),
    "a device": (["ep-1h", "--device.write-noise", "1"], 2, ["--device.write-noise", "is ideal"]),
    "no sweeps": (["ep-1h", "--no-sweeps"], 2, ["--no-sweeps", "synchronous"]),
    "rates": (["c-ep-1h", *TINY, "--lr", "1"], 2, ["1 learning rate", "2 sets of weights"]),
    "angle": (["fig-toy", "--angle", "45"], 2, ["angle is 45", "vf"]),
    "centered": (["c-ep-1h", *TINY, "--nudge", "centered"], 2, ["Centered", "one-sided"]),
    "a cycle": (
        [
            *("ep-3h", "--random", "10", "5", "--hidden", "40", "40", "40", "40", "--K", "5"),
            *("--activation", "tanh", "--rule", "vf", "--angle", "180", "--batch", "1"),
        ],
        1,
        ["free phase oscillates", "layer 2", "moves by 1.9"],
    ),
    "a runaway": (
        ["ep-1h", *TINY, "--beta", "1e30", "--betas", "1e30", "--K", "20"],
        1,
        ["not finite", "lower |beta|"],
    ),
}


@pytest.mark.parametrize(("typed", "code", "named"), BAD.values(), ids=BAD.keys())
def test_bad_input(typed, code, named, tmp_path: Path, capsys) -> None:
    out = tmp_path / "run"
    verify(out, typed, expected=code)
    line = one_line(capsys.readouterr().err)
    for part in named:
        assert part in line
    assert not list(out.glob("*"))


def test_a_directory_that_is_taken(toy: Path, capsys) -> None:
    before = sorted(path.name for path in toy.iterdir())
    verify(toy, ["fig-toy"], expected=2)
    assert "is not empty: give another with --out" in one_line(capsys.readouterr().err)
    assert sorted(path.name for path in toy.iterdir()) == before


def test_directories_are_numbered_where_none_is_given(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(3):
        assert main(["verify", "fig-toy", *TINY, "--T", "40", "--K", "2"]) == 0
    made = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert made == ["verify-fig-toy", "verify-fig-toy-2", "verify-fig-toy-3"]


def test_a_directory_that_cannot_be_made(tmp_path: Path, capsys) -> None:
    (tmp_path / "file").touch()
    verify(tmp_path / "file" / "run", ["fig-toy"], expected=1)
    assert "cannot be made" in one_line(capsys.readouterr().err)


def test_help(capsys) -> None:
    assert main(["verify"]) == main(["verify", "--help"]) == 0
    output = capsys.readouterr().out
    assert all(f"  {name} " in output for name in (*FIGURES, "ep-1h", "c-vf-2h"))
    assert main(["verify", "fig-toy", "--help"]) == 0
    output = capsys.readouterr().out
    assert all(f"--{option} " in output for option in ("beta", "T", "K", "batch", "activation"))
    assert "--epochs" not in output


# ------------------------------------------------------------------------------------------ recipes

# THEORY: name, setting, hidden layers, beta, T, K.
PUBLISHED = [
    ("fig-toy", "energy", 1, 0.01, 5000, 80),
    ("fig-eb-1h", "energy", 1, 0.005, 800, 80),
    ("fig-eb-2h", "energy", 2, 0.01, 5000, 150),
    ("fig-eb-3h", "energy", 3, 0.02, 30000, 200),
    ("fig-ep-1h", "prototypical", 1, 0.01, 150, 10),
    ("fig-ep-2h", "prototypical", 2, 0.01, 1500, 40),
    ("fig-ep-3h", "prototypical", 3, 0.015, 5000, 40),
    ("fig-ep-conv", "prototypical", 0, 0.02, 5000, 10),
    ("fig-c-ep", "energy", 1, 0.005, 800, 80),
    ("fig-c-vf", "energy", 1, 0.005, 800, 80),
    ("fig-c-vf-45", "energy", 1, 0.005, 800, 80),
]


def test_figures_have_the_published_settings() -> None:
    recipes = {name: figure.recipe for name, figure in FIGURES.items()}
    found = [(n, r.setting, len(r.hidden), r.beta, r.T, r.K) for n, r in recipes.items()]
    assert found == PUBLISHED
    for name, recipe in recipes.items():
        assert recipe.activation == ("hardsigm" if "conv" in name else "tanh")
        assert (recipe.batch, recipe.clip, recipe.dataset) == (1, False, "mnist")
        assert recipe.setting == "prototypical" or recipe.dt == 0.08
        assert not recipe.rule.startswith("c-") or recipe.lr == (2e-5, 2e-5)
    assert [recipes[f"fig-c-{end}"].angle for end in ("ep", "vf", "vf-45")] == [None, 0, 45]


def test_baselines_train(tmp_path: Path) -> None:
    assert RECIPES["bptt-1h"].lr == RECIPES["ep-1h"].lr
    typed = ["--dataset", "digits", "--hidden", "16", "--epochs", "3", "--out", str(tmp_path)]
    assert main(["train", "bptt-1h", *typed]) == 0
    first, *_, last = read_metrics(tmp_path)
    assert last["train_error"] < 0.7 * first["train_error"]


def test_rules_of_baselines() -> None:
    def rule(name: str) -> Rule:
        recipe = dataclasses.replace(RECIPES["ep-1h"], rule=name)
        return build(recipe, (4, 4), 10, 1).learner.rule

    assert rule("bptt") == BPTT()
    assert rule("rbp") == RecurrentBackprop()
