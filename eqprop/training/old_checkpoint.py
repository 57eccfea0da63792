"""Checkpoints as this library wrote them at first: folders of Zarr arrays, by Orbax.

``arrays/<name>/.zarray`` says what the file beside it holds, ``notes.json`` goes with them, and
``SHA256SUMS`` is over all of that. Nothing is unpickled, unpacked or run.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import final

import numpy as np

from eqprop.errors import EqpropError

_SUMS = "SHA256SUMS"
_RENAMED = {"batch": "minibatch"}


@final
class Damaged(Exception):
    """A checkpoint is not as it was written; the message says what is wrong with it."""


def read(folder: Path) -> tuple[dict[str, np.ndarray], str]:
    """The arrays of a checkpoint by their names of today, and its notes.

    Raises:
        Damaged: its sums are not right.
        EqpropError: they are, but it is no such checkpoint.
    """
    _check(folder)
    try:
        found = sorted((folder / "arrays").glob("*/.zarray"))
        arrays = {file.parent.name: _array(file.parent) for file in found}
        notes = (folder / "notes.json").read_text()
    except Exception as error:  # files that are no checkpoint may raise anything
        raise EqpropError(
            f"{folder} cannot be read ({str(error)[:200]}), though it is whole: was it written by "
            "another version of eqprop?"
        ) from error
    return {_RENAMED.get(name, name): array for name, array in arrays.items()}, notes


def _array(folder: Path) -> np.ndarray:
    zarray = json.loads((folder / ".zarray").read_text())
    shape, dtype = tuple(zarray["shape"]), np.dtype(zarray["dtype"])
    file = folder / (".".join("0" * len(shape)) or "0")
    plain = zarray["compressor"] is None and not zarray["filters"] and zarray["order"] == "C"
    whole = not shape or tuple(zarray["chunks"]) == shape
    if not (plain and whole and file.stat().st_size == math.prod(shape) * dtype.itemsize):
        raise ValueError(f"{folder.name} is not one plain file")
    return np.fromfile(file, dtype).reshape(shape)


def _check(folder: Path) -> None:
    """Raises ``Damaged`` unless all files are as their sums say."""
    if not (folder / _SUMS).is_file():  # a pipe would wait for ever
        raise Damaged(f"{_SUMS} is missing")
    lines = (folder / _SUMS).read_text(errors="replace").splitlines()
    expected = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    there = (p for p in folder.rglob("*") if p.is_file() and p.name != _SUMS)
    actual = {p.relative_to(folder).as_posix(): _sha256(p) for p in there}
    for name in sorted(expected.keys() | actual.keys()):
        if expected.get(name) != actual.get(name):
            where = "is missing" if name not in actual else "is not as it was written"
            raise Damaged(f"{name} {where}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
