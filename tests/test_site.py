"""The site builds without a warning, holds every public name, and loads nothing from elsewhere."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import eqprop

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stderr
    return out


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (site / "api").glob("*.html"))
    documented = set(re.findall(r'id="eqprop(?:\.\w+)+\.(\w+)"', pages))
    assert set(eqprop.__all__) <= documented


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    loads = re.compile(r'<(?:script|img|iframe|link)\b[^>]*?(?:src|href)="?(?:https?:)?//[^>]*>')
    found = {
        tag
        for page in site.rglob("*.html")
        for tag in loads.findall(page.read_text(encoding="utf-8"))
    }
    assert not found


def test_the_contract_on_imports_is_the_one_that_is_checked() -> None:
    told = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").split("```")[1].split("\n")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = project["tool"]["importlinter"]["contracts"]
    assert [line for line in told if line] == contract["layers"]


def test_the_table_of_speeds_is_the_record() -> None:
    record = json.loads((ROOT / "docs/records/bench.json").read_text(encoding="utf-8"))
    text = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\w-]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| (\d+) % \|", text, re.M)
    assert len(rows) == len(record["results"])
    for row, result in zip(rows, record["results"], strict=True):
        name, *shown = row
        assert name == result["recipe"]["name"]
        exact = (
            result["speed"]["epoch_seconds"]["minimum"],
            result["numpy"]["epoch_seconds"]["minimum"],
            result["ratio"],
            100 * result["share_of_peak"],
        )
        for number, value in zip(shown, exact, strict=True):
            decimals = len(number.partition(".")[2])
            assert float(number) == pytest.approx(value, abs=0.51 * 10**-decimals)
