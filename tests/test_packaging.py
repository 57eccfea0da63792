"""The wheel and the source archive hold what they should, and the wheel works where no clone is."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from email import message_from_string
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parent.parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def files(folder: str) -> set[str]:
    caches = {"__pycache__", ".ipynb_checkpoints"}
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not caches.intersection(path.parts)
    }


def run(*command: object, **options) -> str:
    result = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, **options
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make build` makes: the source archive, and the wheel built from that archive."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, cwd=ROOT)
    assert {path.name for path in out.iterdir()} == {
        f"eqprop-{VERSION}.tar.gz",
        f"eqprop-{VERSION}-py3-none-any.whl",
    }
    return out


def test_the_wheel_holds_the_package_and_nothing_else(dist: Path) -> None:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        info = f"eqprop-{VERSION}.dist-info"
        names = {name for name in wheel.namelist() if not name.startswith(info)}
        metadata = message_from_string(wheel.read(f"{info}/METADATA").decode())
        assert f"{info}/licenses/LICENSE" in wheel.namelist()
        assert "eqprop = eqprop.cli.main:main" in wheel.read(f"{info}/entry_points.txt").decode()
    assert names == files("eqprop")
    assert "eqprop/py.typed" in names
    assert metadata["Version"] == VERSION
    # Jupyter, pytest and the like are for developers.
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert not [line for line in required if line.startswith(("pytest", "mkdocs", "nbclient"))]


def test_the_source_archive_holds_what_its_tests_and_pages_need(dist: Path) -> None:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        names = {
            PurePosixPath(*PurePosixPath(member.name).parts[1:]).as_posix()
            for member in archive
            if member.isfile()
        }
    needed = {"pyproject.toml", "mkdocs.yml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md"}
    needed |= {"Makefile", "requirements.lock", ".ci/run"}
    for folder in ("eqprop", "tests", "docs", "examples", "benchmarks"):
        needed |= files(folder)
    assert needed <= names


def test_an_installed_wheel_lists_and_trains(dist: Path, tmp_path: Path) -> None:
    """In an environment of its own that sees the dependencies of this one, and no clone."""
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = ("install", "--quiet", "--no-deps", "--no-index", next(dist.glob("*.whl")))
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, *install)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # A folder named here is searched, but its own .pth files, that of a clone say, are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")

    options = {
        "cwd": tmp_path,
        "env": {
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        },
    }
    home = run(python, "-c", "import eqprop; print(eqprop.__version__, eqprop.__file__)", **options)
    assert home.split() == [VERSION, str(site / "eqprop" / "__init__.py")]
    eqprop = python.with_name("eqprop")
    assert run(eqprop, "--version", **options) == f"eqprop {VERSION}\n"
    assert "ep-1h" in run(eqprop, "list", **options)
    train = ("train", "ep-1h", "--dataset", "digits", "--hidden", "32", "--epochs", "4")
    told = run(eqprop, *train, "--out", "run", **options)
    error = float(told.split("test error ")[1].split(" %")[0])
    assert error < 45  # chance is 90
    assert (tmp_path / "run" / "training.png").exists()
