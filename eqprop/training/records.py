"""The record of a run, ``run.json``: frozen data, strictly read back."""

import dataclasses
import importlib.metadata
import os
import platform
import reprlib
import subprocess
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, final

from eqprop.errors import EqpropError
from eqprop.recipes.recipe import Recipe

FORMAT = 1
"""Version of the layout of ``run.json``."""

type Replicas = Literal["auto", "together", "in-turn"]
"""Whether several seeds are trained together in one program, or one after the other."""

_MISFIT = object()
_PACKAGES = ("eqprop", "jax", "jaxlib", "equinox", "optax", "orbax-checkpoint", "numpy")


@final
@dataclasses.dataclass(frozen=True)
class DataUsed:
    """The data set a run has really used: it may stand in for the one that its recipe asks for."""

    name: str
    source: str
    train: int
    test: int
    image: tuple[int, ...]
    sha256: str
    """Of the training images and labels."""


@final
@dataclasses.dataclass(frozen=True)
class Made:
    """When, where, and with what a run was started, or gone on with."""

    time: str
    command: tuple[str, ...]
    versions: dict[str, Any]
    device: dict[str, Any]
    machine: dict[str, Any]
    git: dict[str, Any] | None
    """Commit of the repository in the working directory, if there is one."""
    epoch: int = 0
    """Epochs that had been finished."""
    batch: int = 0
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
    format: int = FORMAT

    def __post_init__(self) -> None:
        different = len(set(self.seeds)) == len(self.seeds) > 0
        if not different or not all(0 <= seed < 2**31 for seed in self.seeds):
            raise EqpropError(
                f"seeds is {reprlib.repr(self.seeds)}: it must be one or more different numbers "
                f"from 0 to {2**31 - 1}"
            )


def to_json(record: Record) -> dict[str, Any]:
    """The record as JSON can hold it."""
    return dataclasses.asdict(record)


def from_json(value: Any) -> Record:
    """The record in what JSON has held. Raises ``ValueError`` that says what is wrong with it."""
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise ValueError(f"it is not of format {FORMAT}")
    return _fit(Record, value, "")


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


def _commit(folder: Path) -> dict[str, Any] | None:
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


_ONCE_NUMBERS = frozenset({"recipe.padding", "recipe.window"})
"""One number in older records, where there can now be one for each layer."""


def _fit(kind: Any, value: Any, name: str) -> Any:
    """The value as that type: lists as tuples, objects as dataclasses; nothing is guessed."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    result = _MISFIT
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        result = _fit_fields(kind, value, name)
    elif origin is types.UnionType and type(None) in arguments:
        (other,) = (argument for argument in arguments if argument is not type(None))
        result = None if value is None else _fit(other, value, name)
    elif origin is tuple and name in _ONCE_NUMBERS and type(value) is int:
        result = (value,)
    elif origin is tuple and isinstance(value, list):
        if arguments[-1] is Ellipsis:
            result = tuple(_fit(arguments[0], item, name) for item in value)
        elif len(arguments) == len(value):
            result = tuple(_fit(k, item, name) for k, item in zip(arguments, value, strict=True))
    elif kind is float and type(value) is int and abs(value) <= sys.float_info.max:
        result = float(value)
    elif origin is dict and isinstance(value, dict):
        # What is kept in these is flat.
        flat = all(type(item) in (str, int, float, bool, type(None)) for item in value.values())
        result = value if flat else _MISFIT
    elif (origin is Literal and value in arguments) or type(value) is kind:
        result = value
    if result is _MISFIT:
        raise ValueError(f"{name} is {reprlib.repr(value)}")
    return result


def _fit_fields(kind: Any, value: Mapping[str, Any], name: str) -> Any:
    kinds = typing.get_type_hints(kind)
    prefix = f"{name}." if name else ""
    for unknown in value.keys() - kinds.keys():
        raise ValueError(f"{prefix}{unknown} is unknown to this version of eqprop")
    for field in dataclasses.fields(kind):
        if field.name not in value and field.default is dataclasses.MISSING:
            raise ValueError(f"{prefix}{field.name} is missing")
    return kind(**{key: _fit(kinds[key], item, prefix + key) for key, item in value.items()})
