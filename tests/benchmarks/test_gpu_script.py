"""The script for a lent accelerator, rehearsed on whatever is here."""

import json
import os
import subprocess
import sys
from pathlib import Path

from eqprop.training.results import read_run

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def rehearse(out: Path, minutes: str) -> dict:
    command = [sys.executable, str(SCRIPT), "--rehearse", "--minutes", minutes, "--out", str(out)]
    environment = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert "| recipe | seeds |" in done.stdout
    return json.loads((out / "gpu.json").read_text())


def test_it_measures_then_trains_and_goes_on_when_called_again(tmp_path: Path) -> None:
    found = rehearse(tmp_path, "0.25")
    first = found["timed"][0]
    assert (first["recipe"], first["seeds"]) == ("ep-1h", 1)
    assert first["seconds"] > 0
    assert found["trained"]
    again = rehearse(tmp_path, "0.15")
    ended = [row["recipe"] for row in again["trained"] if row["end"] == "finished"]
    assert "ep-1h" in ended
    results = read_run(tmp_path / "ep-1h")
    assert [result.epochs for result in results] == [1] * 5
    assert [result.sharing for result in results] == [5] * 5
    (alone,) = read_run(tmp_path / "ep-1h" / "seed-1")
    assert (alone.sharing, alone.seconds) == (5, results[1].seconds)
