"""What trainings have come to, read from run directories: no network is touched."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from eqprop.errors import EqpropError
from eqprop.recipes.catalogue import RECIPES
from eqprop.recipes.recipe import Recipe, changes
from eqprop.training.planned import essence
from eqprop.training.records import Record
from eqprop.training.runs import is_run, places, read_metrics, read_record


@final
@dataclass(frozen=True)
class Outcome:
    """The last epoch of one seed; errors in %."""

    record: Record
    seed: int
    folder: Path
    epochs: int
    test: float
    training: float
    seconds: float
    """Of all epochs, with their tests; its share of them, if seeds were trained together."""
    lowest: tuple[float, int]
    """Test error of the best epoch on the way, and that epoch."""

    @property
    def recipe(self) -> Recipe:
        """What was trained."""
        return self.record.recipe

    @property
    def changed_checkout(self) -> bool:
        """Whether the repository around it had changes that no commit holds."""
        return bool(self.record.started.git and self.record.started.git.get("dirty"))


def collect(roots: Iterable[Path], dataset: str) -> list[Outcome]:
    """Every seed under some folders that has finished an epoch on a data set.

    Raises ``EqpropError`` where a folder is not there, or a run in it is damaged.
    """
    found: dict[Path, Outcome] = {}
    for root in roots:
        if not root.is_dir():
            raise EqpropError(f"{root} is no folder: name one that holds run directories")
        for path in sorted(root.rglob("run.json")):
            record = read_record(path.parent)
            if record.data.name != dataset:
                continue
            for seed, place in places(path.parent, record):
                # The run of several seeds comes before those within it, and knows more of them.
                if place not in found and (rows := read_metrics(place)):
                    own = read_record(place) if is_run(place) else record
                    sharing = len(record.seeds) if record.together else 1
                    found[place] = _outcome(own, (seed, place), rows, sharing)
    return list(found.values())


def _outcome(
    record: Record, where: tuple[int, Path], rows: Sequence[dict[str, Any]], sharing: int
) -> Outcome:
    seed, folder = where
    last = rows[-1]
    return Outcome(
        record=record,
        seed=seed,
        folder=folder,
        epochs=len(rows),
        test=last["test_error"],
        training=last["train_error"],
        seconds=sum(sum(row["seconds"].values()) for row in rows) / sharing,
        lowest=min((row["test_error"], row["epoch"]) for row in rows),
    )


def matching(outcomes: Iterable[Outcome], recipe: Recipe) -> list[Outcome]:
    """Those of a recipe, whatever its epochs; one for each seed, the one that has come furthest."""
    wanted = essence(recipe)
    best: dict[int, Outcome] = {}
    for outcome in outcomes:
        if essence(outcome.recipe) == wanted:
            other = best.get(outcome.seed)
            if other is None or other.epochs < outcome.epochs:
                best[outcome.seed] = outcome
    return [best[seed] for seed in sorted(best)]


def label(recipe: Recipe) -> str:
    """The name of a recipe, and what in it is not as the recipe of that name says."""
    base = RECIPES.get(recipe.name)
    if base is None:
        return recipe.name
    different = changes(essence(recipe), essence(base))
    words = (_words(name.replace("_", "-"), value) for name, (value, _) in different.items())
    return ", ".join((recipe.name, *words))


def _words(name: str, value: object) -> str:
    if isinstance(value, bool):
        return name if value else f"no {name}"
    if isinstance(value, tuple):
        return " ".join((name, *map(str, value)))
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"


def groups(outcomes: Iterable[Outcome]) -> list[list[Outcome]]:
    """Outcomes by what was trained, a changed checkout being something else than a commit."""
    kinds: dict[tuple[Recipe, bool], list[Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda outcome: outcome.changed_checkout):
        kinds.setdefault((essence(outcome.recipe), outcome.changed_checkout), []).append(outcome)
    return [matching(members, members[0].recipe) for members in kinds.values()]
