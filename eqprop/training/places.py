"""Where in a training its checkpoints are, by the names of their files; nothing is read.

A checkpoint is ``<epochs finished>-<minibatches learnt>.safetensors``; a folder of such a name is
one of an older version.
"""

import re
from pathlib import Path

type Position = tuple[int, int]
"""Epochs finished, and minibatches of the next one learnt."""

_NAME = re.compile(r"(\d{4,})-(\d{5,})(\.safetensors)?")


def name_of(position: Position) -> str:
    """The file of a checkpoint."""
    return "{:04d}-{:05d}.safetensors".format(*position)


def is_name(name: str) -> bool:
    """Whether a file of that name is a checkpoint."""
    return _NAME.fullmatch(name) is not None


def position_of(path: Path) -> Position:
    """Where in the training a checkpoint is."""
    epochs, minibatches = path.name.partition(".")[0].split("-")
    return int(epochs), int(minibatches)


def paths(root: Path) -> list[Path]:
    """The checkpoints in a folder, whole or not, from the oldest to the newest."""
    found = [path for path in root.glob("*") if is_name(path.name)]
    return sorted(found, key=lambda path: (position_of(path), path.suffix))


def positions(root: Path) -> set[Position]:
    """The positions in the training that a folder has checkpoints of, whole or not."""
    return set(map(position_of, paths(root)))


def newest_path(root: Path) -> Path | None:
    """Where the newest checkpoint is, whole or not."""
    return next(reversed(paths(root)), None)
