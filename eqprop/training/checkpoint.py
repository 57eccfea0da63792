"""Checkpoints: the state of a training on disk, exactly; never half-written, nor read when damaged.

A checkpoint is one safetensors file, named by its place in the training (places.py), with the
arrays by name, ``network.edges.0.connection.weight`` and the like. Its metadata are the
``format``, ``notes`` in JSON, and the ``sha256`` of all names, types, shapes, values and notes. It
is written under a hidden name, flushed, and renamed. So whatever is killed whenever, the
checkpoints that are there are whole; and what a disk did to one later shows in its sum.
"""

import hashlib
import json
import reprlib
import shutil
from collections.abc import Container, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from eqprop.errors import EqpropError
from eqprop.training import files, metrics, old_checkpoint
from eqprop.training.old_checkpoint import Damaged
from eqprop.training.places import Position, is_name, name_of, newest_path, paths, position_of
from eqprop.training.trainer import TrainState

KEEP = 3
"""Checkpoints kept: the newest, and those that stand in should it be damaged."""

_FORMAT = "eqprop 1"


@final
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
    path = root / name_of(state.position)
    try:
        root.mkdir(parents=True, exist_ok=True)
        for left_over in root.glob(".*"):
            if is_name(left_over.name[1:].removesuffix(".partial")):
                _remove(left_over)
        files.write_whole(path, pack(state, notes))
        before = [other for other in paths(root) if position_of(other) < state.position]
        for other in paths(root):
            if other != path and other not in before[1 - KEEP :]:
                _remove(other)
    except OSError as error:
        there = "earlier checkpoints are intact, and `eqprop resume` goes on from them"
        none = "there is no earlier one, and `eqprop resume` begins again"
        raise EqpropError(
            f"the checkpoint {path} could not be written ({error.strerror or error}); make room or "
            f"mend the disk: {there if newest_path(root) else none}"
        ) from error
    return path


def pack(state: TrainState, notes: Mapping[str, Any] = MappingProxyType({})) -> bytes:
    """What the file of a checkpoint holds."""
    arrays = {name: np.asarray(leaf, order="C") for name, leaf in _leaves(state).items()}
    return safetensors.numpy.save(arrays, _sealed(arrays, _FORMAT, json.dumps(dict(notes))))


def read(path: Path, like: TrainState) -> Restored:
    """One checkpoint, wherever it is, into what is ``like`` it.

    Raises:
        EqpropError: it is not there, damaged, or of another network.
    """
    try:
        return Restored(*_read(path, like), path, ())
    except (Damaged, OSError) as fault:
        raise EqpropError(f"{path} is damaged ({fault}): put it back, or train again") from fault


def newest(
    root: Path, like: TrainState, among: Container[Position] | None = None
) -> Restored | None:
    """The newest checkpoint in the folder ``root`` that is whole; None when there has been none.

    Only those of the positions in ``among`` count, where it is given. ``like`` has the structure,
    shapes and types to be restored, as ``jax.eval_shape`` finds them. Totals of metrics that the
    version which wrote it did not know are restored as unknown.

    Raises:
        EqpropError: no checkpoint is whole, or the newest whole one is of another network.
    """
    damaged: list[str] = []
    for path in reversed(paths(root)):
        if among is not None and position_of(path) not in among:
            continue
        try:
            state, notes = _read(path, like)
        except (Damaged, OSError) as fault:
            damaged.append(f"{path} is damaged ({fault})")
            continue
        if (holds := state.position) != position_of(path):
            damaged.append(f"{path} is damaged (it is of {holds}, under another name)")
            continue
        return Restored(state, notes, path, tuple(damaged))
    if damaged:
        raise EqpropError(
            f"no checkpoint is whole: {'; '.join(damaged)}. Delete {root} to start all over"
        )
    return None


def _remove(path: Path) -> None:
    """Deletes a checkpoint, of today or of the old kind, or what has come in the place of one."""
    if path.is_dir() and not path.is_symlink():
        # Out of sight first: one that is half-deleted is no checkpoint.
        shutil.rmtree(path.rename(path.with_name(f".{path.name.removeprefix('.')}")))
    else:
        path.unlink()


def _leaves(state: TrainState) -> dict[str, Any]:
    """Arrays by name."""
    leaves = jax.tree.leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _sealed(arrays: Mapping[str, np.ndarray], form: str, notes: str) -> dict[str, str]:
    """The metadata that belong to arrays, their sum among them."""
    digest = hashlib.sha256(f"{form}\n{notes}\n".encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return {"format": form, "notes": notes, "sha256": digest.hexdigest()}


def _read(path: Path, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """A checkpoint's state and notes.

    Raises:
        Damaged: it is not as it was written.
        EqpropError: it is of another network, or of no version that is known.
    """
    wanted = _leaves(like)
    arrays, text = _unpacked(path) if path.suffix else old_checkpoint.read(path)
    _compare(path, arrays, wanted)
    # Copies: training writes over the memory of its state.
    leaves = [
        jnp.array(arrays[name] if name in arrays else metrics.unknown(leaf.dtype), copy=True)
        for name, leaf in wanted.items()
    ]
    try:
        notes = json.loads(text)
    except (ValueError, RecursionError):
        notes = None
    if not isinstance(notes, dict):
        raise EqpropError(f"the notes in {path} are no JSON object: delete it, and resume")
    return jax.tree.unflatten(jax.tree.structure(like), leaves), notes


def _unpacked(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """The arrays of a file, and its notes, after its sum has been found right."""
    if not path.is_file():  # a pipe would wait for ever
        raise Damaged("it is no file")
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in sorted(file.keys())}
        form, notes = metadata["format"], metadata["notes"]
    except (SafetensorError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise Damaged(f"it is no such file: {reprlib.repr(str(error))}") from error
    if metadata != _sealed(arrays, form, notes):
        raise Damaged("it is not as it was written")
    if form != _FORMAT:
        raise EqpropError(
            f"{path} cannot be read, though it is whole: it is of format {form!r:.20}, so go on "
            "with the version of eqprop that wrote it"
        )
    return arrays, notes


def _compare(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    def show(name: str, leaves: Mapping[str, Any]) -> str:
        if name not in leaves:
            return "missing"
        return f"{leaves[name].shape} {np.dtype(leaves[name].dtype)}"

    for name in (*wanted, *found):
        there, here = show(name, found), show(name, wanted)
        # Metrics come and go from one version to the next.
        if there != here and not (name.startswith("totals.") and "missing" in (there, here)):
            raise EqpropError(
                f"{path} is a checkpoint of another network: {name} is {there} there, {here} in "
                "the network of this run's recipe; restore the run.json that belongs to it"
            )
