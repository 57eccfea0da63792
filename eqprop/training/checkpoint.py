"""Checkpoints: the state of a training on disk, exactly; never half-written, nor read when damaged.

A checkpoint is a folder named ``<epochs finished>-<minibatches learnt>`` with the arrays as Orbax
writes them, read as the plain Zarr that they are (nothing is unpickled, unpacked or run, and of
what Orbax notes besides nothing is believed), ``notes.json``, and
``SHA256SUMS`` over all of that, as ``sha256sum --check`` reads it. It is written under a hidden
name, flushed, and renamed at the end. So whatever is killed whenever, the checkpoints that are
there are whole; and what a disk did to one later shows in its sums.
"""

import hashlib
import json
import logging
import math
import os
import re
import reprlib
import shutil
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts

from eqprop.errors import EqpropError
from eqprop.training.trainer import TrainState

KEEP = 3
"""Checkpoints kept: the newest, and those that stand in should it be damaged."""

type Place = tuple[int, int]
"""Epochs finished, and minibatches of the next one learnt."""

_ARRAYS, _NOTES, _SUMS = "arrays", "notes.json", "SHA256SUMS"
_NAME = re.compile(r"\d{4,}-\d{5,}")


class Restored(NamedTuple):
    """A checkpoint as it was read, and what is wrong with the newer ones that could not be."""

    state: TrainState
    notes: dict[str, Any]
    path: Path
    damaged: tuple[str, ...]


def save(root: Path, state: TrainState, notes: Mapping[str, Any]) -> Path:
    """Writes a checkpoint into the folder ``root``, and deletes all but the newest few there.

    ``notes`` is JSON to go with it. Checkpoints from further on in the training are deleted too:
    they were passed over as damaged, else the training would have gone on from them.

    Raises:
        EqpropError: it could not be written; the earlier checkpoints are still there.
    """
    name = "{:04d}-{:05d}".format(*state.place)
    hidden, final = root / f".{name}", root / name
    try:
        root.mkdir(parents=True, exist_ok=True)
        for left_over in root.glob(".*"):
            if _NAME.fullmatch(left_over.name[1:]):
                _remove(left_over)
        hidden.mkdir()
        _write(hidden / _ARRAYS, state)
        (hidden / _NOTES).write_text(json.dumps(notes))
        _seal(hidden)
        for path in _names(root):
            if _place(path.name) >= _place(name):
                _remove(path)
        hidden.rename(final)
        _flush(root)
        for path in _names(root)[:-KEEP]:
            # Out of sight first: one that is half-deleted is no checkpoint.
            _remove(path.rename(root / f".{path.name}"))
    except (OSError, ValueError, RuntimeError) as error:  # what Orbax and TensorStore raise
        shutil.rmtree(hidden, ignore_errors=True)
        # TensorStore names the file two or three times, and what happened at the end.
        reason = getattr(error, "strerror", None) or str(error).rsplit(": ", 1)[-1]
        raise EqpropError(
            f"the checkpoint {final} could not be written ({reason}); make room or mend the disk: "
            "earlier checkpoints are intact, and `eqprop resume` goes on from them"
        ) from error
    return final


def newest(root: Path, like: TrainState, among: Container[Place] | None = None) -> Restored | None:
    """The newest checkpoint in the folder ``root`` that is whole; None when there has been none.

    Only those of the places in ``among`` count, where it is given. ``like`` has the structure,
    shapes and types to be restored, as ``jax.eval_shape`` finds them.

    Raises:
        EqpropError: no checkpoint is whole, or the newest whole one is of another network.
    """
    damaged: list[str] = []
    for path in reversed(_names(root)):
        if among is not None and _place(path.name) not in among:
            continue
        if fault := _fault(path):
            damaged.append(f"{path} is damaged ({fault})")
            continue
        state = _read(path, like)
        if (holds := state.place) != _place(path.name):
            damaged.append(f"{path} is damaged (it is of {holds}, under another name)")
            continue
        return Restored(state, _notes(path), path, tuple(damaged))
    if damaged:
        raise EqpropError(
            f"no checkpoint is whole: {'; '.join(damaged)}. Delete {root} to start all over"
        )
    return None


def newest_path(root: Path) -> Path | None:
    """Where the newest checkpoint is, whole or not."""
    return next(reversed(_names(root)), None)


def places(root: Path) -> set[Place]:
    """The places in the training that a folder has checkpoints of, whole or not."""
    return {_place(path.name) for path in _names(root)}


def _names(root: Path) -> list[Path]:
    paths = [path for path in root.glob("*") if _NAME.fullmatch(path.name)]
    return sorted(paths, key=lambda path: _place(path.name))


def _place(name: str) -> Place:
    epochs, minibatches = map(int, name.split("-"))
    return epochs, minibatches


def _leaves(state: TrainState) -> dict[str, Any]:
    """Arrays by name, ``network.edges.0.connection.weight`` and the like."""
    leaves = jax.tree.leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _read(path: Path, like: TrainState) -> TrainState:
    wanted = _leaves(like)
    arrays = path.absolute() / _ARRAYS
    try:
        found = {f.parent.name: _array(f.parent) for f in sorted(arrays.glob("*/.zarray"))}
        _compare(path, found, wanted)
        read = {name: _values(arrays / name, found[name]) for name in wanted}
    except EqpropError:
        raise
    except Exception as error:  # files that are no checkpoint may raise anything
        raise EqpropError(
            f"{path} cannot be read ({reprlib.repr(str(error))}), though it is whole: was it "
            "written by another version of eqprop?"
        ) from error
    # A copy: training writes over the memory of its state.
    leaves = [jnp.array(read[name], copy=True) for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


class _Array(NamedTuple):
    """What ``.zarray`` says."""

    shape: tuple[int, ...]
    dtype: np.dtype
    chunks: tuple[int, ...]
    packed: bool


def _array(folder: Path) -> _Array:
    zarray = json.loads((folder / ".zarray").read_text())
    shape, chunks = tuple(zarray["shape"]), tuple(zarray["chunks"])
    packed = zarray["compressor"] is not None or bool(zarray["filters"])
    return _Array(shape, np.dtype(zarray["dtype"]), chunks, packed)


def _values(folder: Path, array: _Array) -> np.ndarray:
    """The values, of files that have as many bytes as these take: no more memory than they."""
    shape, dtype, chunks, packed = array
    if packed or not all(
        type(c) is int and 1 <= c <= n for c, n in zip(chunks, shape, strict=True)
    ):
        raise ValueError(f"{folder.name} is not stored in plain chunks")
    count = math.prod(-(-n // c) for c, n in zip(chunks, shape, strict=True))
    files = [file for file in folder.iterdir() if file.name != ".zarray"]
    size = math.prod(chunks) * dtype.itemsize
    if len(files) != count or any(file.stat().st_size != size for file in files):
        raise ValueError(f"{folder.name} is not {count} file(s) of {size} bytes")
    store = {"driver": "file", "path": f"{folder}/"}
    return ts.open({"driver": "zarr", "kvstore": store}, read=True).result().read().result()


def _compare(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    def show(name: str, leaves: Mapping[str, Any]) -> str:
        if name not in leaves:
            return "missing"
        return f"{leaves[name].shape} {np.dtype(leaves[name].dtype)}"

    for name in (*wanted, *found):
        there, here = show(name, found), show(name, wanted)
        if there != here:
            raise EqpropError(
                f"{path} is a checkpoint of another network: {name} is {there} there, {here} in "
                "the network of this run's recipe; restore the run.json that belongs to it"
            )


def _notes(path: Path) -> dict[str, Any]:
    try:
        notes = json.loads((path / _NOTES).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise EqpropError(f"{path / _NOTES} cannot be read ({error}); delete {path}") from error
    if not isinstance(notes, dict):
        raise EqpropError(f"{path / _NOTES} is no JSON object; delete {path}")
    return notes


def _seal(folder: Path) -> None:
    """Writes the sums of all files, and flushes everything to the disk."""
    lines = [f"{digest}  {name}\n" for name, digest in _digests(folder).items()]
    (folder / _SUMS).write_text("".join(lines))
    for path in folder.rglob("*"):
        _flush(path)
    _flush(folder)


def _fault(folder: Path) -> str | None:
    """What is wrong with a checkpoint's files."""
    try:
        if not (folder / _SUMS).is_file():  # a pipe would wait for ever
            return f"{_SUMS} is missing"
        lines = (folder / _SUMS).read_text().splitlines()
        expected = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        actual = _digests(folder)
    except (OSError, UnicodeDecodeError) as error:
        return str(error)
    for name in sorted(expected.keys() | actual.keys()):
        if expected.get(name) != actual.get(name):
            where = "is missing" if name not in actual else "is not as it was written"
            return f"{name} {where}"
    return None


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != _SUMS)
    return {p.relative_to(folder).as_posix(): _sha256(p) for p in files}


def _remove(path: Path) -> None:
    """Deletes a checkpoint, or what has come in the place of one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(folder: Path, state: TrainState) -> None:
    """The arrays by Orbax's lightest writer for small states: synchronous, and a file per array."""
    # By itself: of several processes one alone writes.
    alone = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(),
        active_processes={jax.process_index()},
        barrier_sync_key_prefix="eqprop",
    )
    handler = ocp.PyTreeCheckpointHandler(
        use_ocdbt=False, use_compression=False, multiprocessing_options=alone
    )
    logger = logging.getLogger("absl")
    level = logger.level
    # It tells of each step it takes; and errors, with their tracebacks, are raised besides.
    logger.setLevel(logging.CRITICAL)
    try:
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
            # The absolute path is Orbax's demand.
            checkpointer.save(folder.absolute(), args=ocp.args.PyTreeSave(_leaves(state)))
    finally:
        logger.setLevel(level)
