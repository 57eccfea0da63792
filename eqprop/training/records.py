"""The record of a run, ``run.json``: frozen data, strictly read back."""

import dataclasses
import importlib.metadata
import os
import platform
import reprlib
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, final

from eqprop.errors import EqpropError
from eqprop.recipes.recipe import Recipe

FORMAT = 1
"""Version of the layout of ``run.json``."""

type Replicas = Literal["auto", "together", "processes", "in-turn"]
"""Whether several seeds are trained together in one program, as processes of this machine, or one
after the other.
"""

_PACKAGES = ("eqprop", "jax", "jaxlib", "equinox", "optax", "numpy")

type Kind = Literal["classes", "real", "labels"]
"""What is learnt, by its name in ``data.targets.KINDS``."""

type Facts = Mapping[str, str | int | float | bool | None]


@final
@dataclasses.dataclass(frozen=True)
class Scaled:
    """How numbers were scaled, ``(x - shift) / scale``: one number each, or one for each feature
    in a row.
    """

    shift: tuple[float, ...]
    scale: tuple[float, ...]


@final
@dataclasses.dataclass(frozen=True)
class DataUsed:
    """The data set a run has really used: it may stand in for the one that its recipe asks for."""

    name: str
    source: str
    train: int
    test: int
    image: tuple[int, ...]
    """The shape of an input."""
    sha256: str
    """Of the training inputs and targets."""
    target: Kind = "classes"
    names: tuple[str, ...] = ()
    """Of the classes, or of the outputs; unknown to older versions."""
    features: tuple[str, ...] = ()
    """Names of the columns of inputs, where these have names."""
    input_scaling: Scaled | None = None
    """None, of older versions: bytes by 1/255."""
    target_scaling: Scaled | None = None
    """Of real targets."""
    validation: int = 0
    """Examples that were held back from those for training, beside which they are counted."""
    sha256_test: str = ""
    """Of the test inputs and targets; unknown to older versions."""

    def same(self, other: "DataUsed") -> bool:
        """Whether these are the same data, whatever they were read from; what an older record does
        not tell is taken for the same.
        """
        ours, theirs = ((d.names, d.features, d.sha256_test) for d in (self, other))
        told = all(a == b for a, b in zip(ours, theirs, strict=True) if a and b)
        whole = (self.sha256, self.image, self.target) == (other.sha256, other.image, other.target)
        return whole and told


@final
@dataclasses.dataclass(frozen=True)
class Origin:
    """The trained network that a training has started from."""

    run: str
    epoch: int
    minibatch: int
    sha256: str
    """Of its weights."""

    @staticmethod
    def of(origin: "Origin | None") -> "tuple[int, int, str] | None":
        """What tells a start from others, wherever its run is now."""
        return origin and (origin.epoch, origin.minibatch, origin.sha256)


@final
@dataclasses.dataclass(frozen=True)
class Made:
    """When, where, and with what a run was started, or gone on with."""

    time: str
    command: tuple[str, ...]
    versions: Facts
    device: Facts
    machine: Facts
    git: Facts | None
    """Commit of the repository in the working directory, if there is one."""
    epoch: int = 0
    """Epochs that had been finished."""
    minibatch: int = 0
    """Minibatches of the next epoch that had been learnt."""


@final
@dataclasses.dataclass(frozen=True)
class Record:
    """What is written in ``run.json``."""

    recipe: Recipe
    seeds: tuple[int, ...]
    data: DataUsed
    started: Made
    resumed: tuple[Made, ...] = ()
    together: bool = False
    """Whether the seeds are replicas in one program; else they are trained one after the other."""
    origin: Origin | None = None
    """Other weights than drawn ones to start from."""
    format: int = FORMAT

    def __post_init__(self) -> None:
        different = len(set(self.seeds)) == len(self.seeds) > 0
        whole = all(isinstance(seed, int) and 0 <= seed < 2**31 for seed in self.seeds)
        if not different or not whole:
            raise EqpropError(
                f"seeds is {reprlib.repr(self.seeds)}: it must be one or more different whole "
                f"numbers from 0 to {2**31 - 1}"
            )


def to_json(record: Record) -> dict[str, Any]:
    """The record as JSON can hold it."""
    return dataclasses.asdict(record)


def from_json(value: Any) -> Record:
    """The record in what JSON has held. Raises ``ValueError`` that says what is wrong with it."""
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise ValueError(f"it is not of format {FORMAT}")
    import msgspec  # not needed to write one

    value = _renewed(value)
    try:
        record = msgspec.convert(value, Record)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
    if unknown := _unknown(value, to_json(record)):
        raise ValueError(f"{unknown} is unknown to this version of eqprop")
    return record


def made(command: Sequence[str]) -> Made:
    """A description of this process, started by ``command``."""
    import jax  # slow, and not needed to read a record

    device = jax.local_devices()[0]
    return Made(
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        command=tuple(command),
        versions={"python": platform.python_version()} | {p: _version(p) for p in _PACKAGES},
        device={
            "platform": device.platform,
            "kind": device.device_kind,
            "count": jax.device_count(),
        },
        machine={"platform": platform.platform(), "cpus": os.cpu_count()},
        git=_commit(Path.cwd()),
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit(folder: Path) -> Facts | None:
    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _renewed(value: dict[str, Any]) -> dict[str, Any]:
    """What older versions wrote, as this one writes it."""
    value = dict(value)
    if isinstance(recipe := value.get("recipe"), dict):
        # One number then, where there can now be one for each layer.
        once = {k: [v] for k in ("padding", "window") if type(v := recipe.get(k)) is int}
        value["recipe"] = recipe | once
    if "started" in value:
        value["started"] = _renamed(value["started"])
    if isinstance(resumed := value.get("resumed"), list):
        value["resumed"] = [_renamed(made) for made in resumed]
    return value


def _renamed(made: Any) -> Any:
    if not isinstance(made, dict) or "batch" not in made:
        return made
    return {"minibatch" if name == "batch" else name: value for name, value in made.items()}


def _unknown(value: Any, known: Any, name: str = "") -> str | None:
    """The name of something in a record that what was read of it does not hold, if there is any."""
    if isinstance(value, list):
        value, known = dict(enumerate(value)), dict(enumerate(known))
    if not isinstance(value, dict):
        return None
    within = f"{name}." if name else ""
    new = (f"{within}{key}" for key in value if key not in known)
    deeper = (_unknown(item, known[key], f"{within}{key}") for key, item in value.items())
    return next(new, None) or next(filter(None, deeper), None)
