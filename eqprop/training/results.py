"""What trainings have come to, read from run directories: no network is touched."""

import dataclasses
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from eqprop.data.targets import KINDS
from eqprop.errors import EqpropError
from eqprop.recipes.catalogue import RECIPES
from eqprop.recipes.recipe import Recipe, changes
from eqprop.training.metrics import OfExamples, flat, primary
from eqprop.training.records import Record
from eqprop.training.runs import is_run, read_metrics, read_record, read_result, seed_folders
from eqprop.training.selection import best_epoch

type Curve = tuple[float, ...]
"""A number for each finished epoch; NaN where that epoch has none."""


@final
@dataclass(frozen=True)
class SeedResult:
    """What one seed has come to: its record, and its metrics epoch by epoch."""

    folder: Path
    seed: int
    record: Record
    epochs: int
    """Epochs finished."""
    columns: Mapping[str, Curve] = dataclasses.field(default_factory=dict)
    """The metrics by the names of their columns (``metrics.py``), such as ``test_error``, or
    ``angles/1-2``; what the run does not have is not there.
    """
    sharing: int = 1
    """Seeds that were trained together, and share the seconds measured."""
    chosen: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """The metrics of the best epoch, those of the test set among them, where there is a validation
    part to choose it by.
    """

    @property
    def recipe(self) -> Recipe:
        """What was trained."""
        return self.record.recipe

    @property
    def training(self) -> Hashable:
        """Equal for seeds of the same training: what was trained, on which data."""
        return self.recipe.essence, self.record.data.sha256, self.record.origin

    @property
    def length(self) -> int:
        """Epochs that it was begun for, or has gone on to."""
        return max(self.recipe.epochs, self.epochs)

    @property
    def changed_checkout(self) -> bool:
        """Whether the repository around it had changes that no commit holds."""
        return bool(self.record.started.git and self.record.started.git.get("dirty"))

    @property
    def accelerator(self) -> str | None:
        """The device that it was trained on, or None where that was a CPU."""
        device = self.record.started.device
        return None if device.get("platform", "cpu") == "cpu" else str(device["kind"])

    @property
    def primary(self) -> OfExamples:
        """The metric that tells how good it is."""
        return primary(KINDS[self.record.data.target])

    def score(self, part: str, metric: OfExamples | None = None) -> float | None:
        """A metric, or the primary one, of the ``train``, ``validation`` or ``test`` part, after
        the last epoch, or the best one where there is a validation part. None where there is no
        such part, the test waits until an end has been reached, or the metric is undefined, as R²
        is of equal targets.

        Raises ``EqpropError`` where it should be there, and is not.
        """
        metric = metric or self.primary
        column, held_back = f"{part}_{metric.name}", self.recipe.validation > 0
        waits = part == "test" and held_back and column not in self.chosen
        undefined = metric is not self.primary and not {column} & {*self.columns, *self.chosen}
        if waits or undefined or (part == "validation" and not held_back):
            return None
        return self.last(column)

    def last(self, column: str) -> float:
        """A number of the last finished epoch, or of the best one where there is a validation part.

        Raises ``EqpropError`` where there is none.
        """
        value = self.chosen.get(column, self.columns.get(column, (math.nan,))[-1])
        if math.isnan(value):
            raise EqpropError(
                f"{self.folder / 'metrics.jsonl'} has no {column} for the last epoch: restore it, "
                "or name another run"
            )
        return value

    def until(self, epochs: int) -> "SeedResult":
        """What it had come to by then, for comparisons at equal epochs; itself where it had ended
        before.
        """
        if self.epochs <= epochs or self.chosen:
            return self
        columns = {name: column[:epochs] for name, column in self.columns.items()}
        return dataclasses.replace(self, epochs=epochs, columns=columns)

    @property
    def seconds(self) -> float:
        """Of all epochs, with their tests, and what came before the first: reading the data and
        compiling, where the run tells of it. Its share of them, if seeds were trained together.
        """
        spent = [self.columns[name] for name in self.columns if name.startswith("seconds")]
        return math.fsum(x for column in spent for x in column if not math.isnan(x)) / self.sharing

    @property
    def seconds_to_start(self) -> float:
        """Before its first minibatch; not a number, where the run does not tell."""
        return self.columns.get("seconds_to_start", (math.nan,))[0]

    @property
    def lowest(self) -> tuple[float, int]:
        """The lowest that the primary metric was on the way, on the part that it is measured on
        in each epoch, and in which epoch.
        """
        column = self.columns[f"{self.recipe.measured_part}_{self.primary.name}"]
        return min((error, n) for n, error in enumerate(column, 1) if not math.isnan(error))


def read_run(folder: Path) -> list[SeedResult]:
    """Every seed of the run in a folder, those that have not finished an epoch included.

    Raises ``EqpropError`` where there is no run, or its files are damaged.
    """
    record = read_record(folder)
    above = read_record(folder.parent) if is_run(folder.parent) else record
    sharing = len(above.seeds) if above.together else 1
    found: list[SeedResult] = []
    for seed, place in seed_folders(folder, record):
        own = read_record(place) if is_run(place) else record
        if own is not record and len(own.seeds) != 1:
            raise EqpropError(f"{place} is a run of {len(own.seeds)} seeds within another: move it")
        rows = read_metrics(place)
        columns, chosen = _columns(place, rows), _chosen(place, rows)
        found.append(SeedResult(place, seed, own, len(rows), columns, sharing, chosen))
    return found


def scores_of(
    results: Iterable[SeedResult], part: str, metric: OfExamples | None = None
) -> list[float]:
    """``SeedResult.score`` of each; none at all where one of them has none, for a mean over some of
    the seeds is not theirs. Raises ``EqpropError`` as that does.
    """
    scores = [result.score(part, metric) for result in results]
    return [] if None in scores else [score for score in scores if score is not None]


def collect(roots: Iterable[Path], dataset: str) -> list[SeedResult]:
    """Every seed under some folders that has finished an epoch on a data set.

    Raises ``EqpropError`` where a folder is not there, or a run in it is damaged.
    """
    found: dict[Path, SeedResult] = {}
    for root in roots:
        if not root.is_dir():
            raise EqpropError(f"{root} is no folder: name one that holds run directories")
        for path in sorted(root.rglob("run.json")):
            if read_record(path.parent).data.name != dataset:
                continue
            for result in read_run(path.parent):
                # The run of several seeds comes before those within it, and knows more of them.
                if result.epochs:
                    found.setdefault(result.folder, result)
    return list(found.values())


def matching(results: Iterable[SeedResult], recipe: Recipe) -> list[SeedResult]:
    """Those of a recipe, whatever its epochs; one for each seed, the one that has come furthest."""
    wanted = recipe.essence
    best: dict[int, SeedResult] = {}
    for result in results:
        if result.recipe.essence == wanted and result.record.origin is None:
            other = best.get(result.seed)
            if other is None or other.epochs < result.epochs:
                best[result.seed] = result
    return [best[seed] for seed in sorted(best)]


def of_equal_length(results: Iterable[SeedResult], epochs: int | None = None) -> list[SeedResult]:
    """Those that were begun for as many epochs as the one that has come furthest, all of them or
    what they had come to after ``epochs``: a mean over trainings of other lengths tells nothing.
    """
    limit = math.inf if epochs is None else epochs
    cut = [(min(it.length, limit), it if epochs is None else it.until(epochs)) for it in results]
    length = max(cut, key=lambda it: it[1].epochs, default=(limit, None))[0]
    return [result for own, result in cut if own == length]


def groups(
    results: Iterable[SeedResult], key: Callable[[SeedResult], Hashable]
) -> list[list[SeedResult]]:
    """Results of an equal ``key`` together, in the order in which their first ones come."""
    found: dict[Hashable, list[SeedResult]] = {}
    for result in results:
        found.setdefault(key(result), []).append(result)
    return list(found.values())


def catalogued(recipe: Recipe) -> Recipe | None:
    """The recipe of the catalogue that this one comes down to, or is a change of."""
    own = RECIPES.get(recipe.name)
    same = [it for it in (own, *RECIPES.values()) if it and it.essence == recipe.essence]
    return same[0] if same else own


def label(recipe: Recipe) -> str:
    """The name of a recipe in the catalogue, and what is not as that one says."""
    base = catalogued(recipe)
    if base is None:
        return recipe.name
    different = changes(recipe.essence, base.essence)
    words = (_words(name.replace("_", "-"), value) for name, (value, _) in different.items())
    return ", ".join((base.name, *words))


def _words(name: str, value: object) -> str:
    if isinstance(value, bool):
        return name if value else f"no {name}"
    if isinstance(value, tuple):
        return " ".join((name, *map(str, value)))
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"


def _chosen(folder: Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    if not (best := best_epoch(rows)):
        return {}
    tested = read_result(folder)
    # A test of an epoch that was the best one before is of no use.
    return flat({**rows[best - 1], **(tested if tested and tested["epoch"] == best else {})})


def _columns(folder: Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    """The rows as columns. Raises ``EqpropError`` for a metric that changes its parts."""
    parts: dict[str, frozenset[str] | None] = {}
    for number, row in enumerate(rows, 1):
        for name, value in row.items():
            own = frozenset(value) if isinstance(value, dict) else None
            if parts.setdefault(name, own) != own:
                raise EqpropError(
                    f"{folder / 'metrics.jsonl'}, line {number}: {name} is {value!r:.80}, not what "
                    "eqprop writes there: restore that line"
                )
    tables = [flat(row) for row in rows]
    names = dict.fromkeys(name for table in tables for name in table)
    return {name: tuple(table.get(name, math.nan) for table in tables) for name in names}
