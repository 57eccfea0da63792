"""What a report is about: the trainings in some run directories, the seeds of a recipe together."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from eqprop.errors import EqpropError
from eqprop.recipes.catalogue import RECIPES, published_for
from eqprop.recipes.recipe import Published, Recipe, changes, flat
from eqprop.training.metrics import OfExamples, of_examples, show_mean_and_std
from eqprop.training.results import SeedResult, groups, read_run, scores_of
from eqprop.training.runs import is_run, read_record

_ABOUT = ("name", "about", "published")
_HEADLINE = ("error", "label_error", "rmse", "r2")
"""Metrics that tell how good a network is."""


@final
@dataclass(frozen=True)
class Group:
    """The seeds of one recipe, on the same data."""

    recipe: Recipe
    members: tuple[SeedResult, ...]

    @property
    def columns(self) -> list[str]:
        """The columns of metrics that any of the seeds has."""
        return list(dict.fromkeys(name for member in self.members for name in member.columns))

    @property
    def base(self) -> Recipe | None:
        """The recipe of that name as this version of eqprop has it."""
        return RECIPES.get(self.recipe.name)

    @property
    def published(self) -> Published | None:
        """The published result, where there is one on the data that was used."""
        return published_for(self.recipe, self.members[0].record.data.name)

    @property
    def settings(self) -> dict[str, object]:
        """Every field of the recipe, and of the device where that is not ideal."""
        ideal = not self.recipe.device.effects
        return {
            name: value
            for name, value in flat(self.recipe).items()
            if name not in _ABOUT and not (ideal and name.startswith("device."))
        }

    @property
    def changes(self) -> dict[str, tuple[object, object]]:
        """Fields with other values than in the recipe of that name: (here, there)."""
        different = changes(self.recipe, self.base) if self.base else {}
        return {k: v for k, v in different.items() if k not in _ABOUT}

    @property
    def seconds_per_epoch(self) -> float:
        """Learning and evaluation of a seed, mean over epochs and seeds."""
        spent = [
            second / member.sharing
            for member in self.members
            for name, column in member.columns.items()
            if name.startswith("seconds/")  # not those before the first minibatch
            for second in column
            if not math.isnan(second)
        ]
        return math.fsum(spent) / sum(member.epochs for member in self.members)

    def final(self, metric: OfExamples, part: str) -> str:
        """The last value of a metric of the ``test`` or ``train`` part: mean, and std over the
        seeds if there are several; a dash where it is none of the group's, or not known yet.

        Raises ``EqpropError`` where a seed has none.
        """
        scores = scores_of(self.members, part, metric) if metric in self.headline else []
        return show_mean_and_std(scores, metric.form) if scores else "–"

    @property
    def headline(self) -> list[OfExamples]:
        """The metrics that tell how good it is: errors, or RMSE and R²."""
        known = [metric for metric in of_examples() if metric.name in _HEADLINE]
        # A run that should have errors and has none is refused where they are asked for.
        return [metric for metric in known if metric.keys(self.columns)] or known[:1]


def expand(folder: Path) -> list[Path]:
    """The run in a folder, or all runs below it: of a series, or seeds by themselves.

    Raises ``EqpropError`` where there is none, or a record is damaged.
    """
    found: list[Path] = []
    for path in [folder] if is_run(folder) else sorted(p.parent for p in folder.rglob("run.json")):
        # A run of several seeds knows those within it.
        if not any(outer in path.parents for outer in found):
            found.append(path)
    for path in found or [folder]:
        read_record(path)
    return found


def gather(folders: Sequence[Path]) -> tuple[list[Group], list[str]]:
    """The trainings in run directories, grouped by recipe and data; and what was passed over.

    A directory that is named twice counts once; a seed for the second time is another experiment,
    and begins a group of its own. Raises ``EqpropError`` where a directory is no run or is damaged,
    and where no epoch has been finished in any of them.
    """
    found: dict[Path, SeedResult] = {}
    for folder in (run for named in folders for run in expand(named)):
        for result in read_run(folder):
            found.setdefault(result.folder.resolve(), result)
    notes = [
        f"{result.folder}: seed {result.seed} has not finished an epoch yet"
        for result in found.values()
        if not result.epochs
    ]
    finished = [result for result in found.values() if result.epochs]
    if not finished:
        raise EqpropError(f"nothing to report: {'; '.join(notes)}")
    times = Counter[Hashable]()

    def key(result: SeedResult) -> Hashable:
        kind = result.training, result.recipe.epochs
        times[kind, result.seed] += 1
        return kind, times[kind, result.seed]

    return [_group(members) for members in groups(finished, key)], notes


def _group(members: Sequence[SeedResult]) -> Group:
    return Group(members[0].recipe, tuple(sorted(members, key=lambda member: member.seed)))
