"""What a report is about: the trainings in some run directories, the seeds of a recipe together."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from eqprop.errors import EqpropError
from eqprop.recipes.catalogue import RECIPES
from eqprop.recipes.recipe import Published, Recipe, changes
from eqprop.training.records import Record
from eqprop.training.runs import is_run, places, read_metrics, read_record

SERIES = (
    "test_error",
    "train_error",
    "test_loss",
    "train_loss",
    "residual",
    "free_steps",
    "nudged_steps",
)
"""What the metrics tell of every epoch, besides seconds and angles."""


@final
@dataclass(frozen=True)
class Trained:
    """One seed of a recipe: its record, and its metrics epoch by epoch."""

    folder: Path
    record: Record
    series: Mapping[str, tuple[float, ...]]
    """By name, ``SERIES``."""
    angles: Mapping[str, tuple[float, ...]]
    """Degrees between forward and feedback weights, by edge; of untied edges."""
    seconds: Mapping[str, tuple[float, ...]]
    """What learning (``train``) and evaluation (``test``) took."""

    @property
    def seed(self) -> int:
        """The seed."""
        return self.record.seeds[0]

    @property
    def epochs(self) -> int:
        """Epochs finished."""
        return len(self.series["test_error"])


@final
@dataclass(frozen=True)
class Group:
    """The seeds of one recipe, on the same data."""

    recipe: Recipe
    members: tuple[Trained, ...]

    @property
    def base(self) -> Recipe | None:
        """The recipe of that name as this version of eqprop has it."""
        return RECIPES.get(self.recipe.name)

    @property
    def published(self) -> Published | None:
        """The published result, where there is one on the data that was used."""
        if self.base and self.members[0].record.data.name == self.base.dataset:
            return self.base.published
        return None

    @property
    def changes(self) -> dict[str, tuple[object, object]]:
        """Fields with other values than in the recipe of that name: (here, there)."""
        different = changes(self.recipe, self.base) if self.base else {}
        return {k: v for k, v in different.items() if k not in {"about", "published"}}

    @property
    def seconds_per_epoch(self) -> float:
        """Learning and evaluation, mean over epochs and seeds."""
        spent = sum(sum(part) for m in self.members for part in m.seconds.values())
        return spent / sum(member.epochs for member in self.members)

    def final(self, name: str) -> str:
        """The last value of a series: mean, and std over the seeds if there are several."""
        return mean_and_std([member.series[name][-1] for member in self.members])


def mean_and_std(values: Sequence[float], digits: int = 2) -> str:
    """``2.01 ± 0.10``; a single value as it is."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def expand(folder: Path) -> list[Path]:
    """The run in a folder, or the runs in the folders within it: of a series, or seeds by
    themselves.

    Raises ``EqpropError`` where there is none, or a record is damaged.
    """
    within = sorted(path.parent for path in folder.glob("*/run.json"))
    found = [folder] if is_run(folder) or not within else within
    for path in found:
        read_record(path)
    return found


def gather(folders: Sequence[Path]) -> tuple[list[Group], list[str]]:
    """The trainings in run directories, grouped by recipe and data; and what was passed over.

    A directory that is named twice counts once. Raises ``EqpropError`` where a directory is no run
    or is damaged, and where no epoch has been finished in any of them.
    """
    found, notes = list[Trained](), list[str]()
    for folder in (run for named in folders for run in expand(named)):
        record = read_record(folder)
        for seed, place in places(folder, record):
            if any(place.resolve() == member.folder.resolve() for member in found):
                continue
            member = _read(place) if is_run(place) else None
            if member and member.epochs:
                found.append(member)
            else:
                notes.append(f"{place}: seed {seed} has not finished an epoch yet")
    if not found:
        raise EqpropError(f"nothing to report: {'; '.join(notes)}")
    groups: list[list[Trained]] = []
    for member in found:
        # A seed for the second time is another experiment, on another machine perhaps.
        mates = (g for g in groups if _alike(g[0], member) and member.seed not in _seeds(g))
        if (group := next(mates, None)) is None:
            groups.append([member])
        else:
            group.append(member)
    return [_group(group) for group in groups], notes


def _group(members: Sequence[Trained]) -> Group:
    return Group(members[0].record.recipe, tuple(sorted(members, key=lambda m: m.seed)))


def _seeds(members: Sequence[Trained]) -> list[int]:
    return [member.seed for member in members]


def _alike(a: Trained, b: Trained) -> bool:
    def key(record: Record) -> object:
        return dataclasses.replace(record.recipe, about="", published=None), record.data.sha256

    return key(a.record) == key(b.record)


def _read(folder: Path) -> Trained:
    record = read_record(folder)
    if len(record.seeds) != 1:
        raise EqpropError(f"{folder} is a run of {len(record.seeds)} seeds within another: move it")
    rows = read_metrics(folder)
    columns = {name: _column(folder, rows, name) for name in SERIES}
    return Trained(
        folder,
        record,
        columns,
        _columns(folder, rows, "angles"),
        _columns(folder, rows, "seconds"),
    )


def _columns(
    folder: Path, rows: Sequence[Mapping[str, Any]], name: str
) -> dict[str, tuple[float, ...]]:
    """The columns of an object within the rows."""
    objects = [row.get(name) for row in rows]
    for number, value in enumerate(objects, 1):
        if not isinstance(value, dict):
            raise _damaged(folder, number, name, value)
    keys = (objects[0] if objects else None) or {}
    return {key: _column(folder, objects, key) for key in keys}


def _column(folder: Path, rows: Sequence[Any], name: str) -> tuple[float, ...]:
    """A number of every row; those that are there have been found to be finite."""
    values = [row.get(name) for row in rows]
    for number, value in enumerate(values, 1):
        if not isinstance(value, int | float):
            raise _damaged(folder, number, name, value)
    return tuple(map(float, values))


def _damaged(folder: Path, epoch: int, name: str, value: object) -> EqpropError:
    return EqpropError(
        f"{folder / 'metrics.jsonl'}, line {epoch}: {name} is {value!r:.80}, not what eqprop "
        "writes there: restore that line"
    )
