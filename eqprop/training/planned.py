"""A training that a sweep or a table asks for: not begun, begun, or at its end.

What it has come to is read off its run directory alone, so that whatever is killed, whenever, goes
on where it was.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

from eqprop.errors import Diverged, EqpropError
from eqprop.recipes.recipe import Recipe
from eqprop.training.files import write_whole
from eqprop.training.records import Origin
from eqprop.training.runs import is_run, read_metrics, read_record, seed_folders
from eqprop.training.selection import has_ended

if TYPE_CHECKING:
    from eqprop.training.run_data import KeptData

_DIVERGED = "diverged.txt"


@final
@dataclass(frozen=True)
class PlannedTraining:
    """A training and its run directory."""

    recipe: Recipe
    seeds: tuple[int, ...]
    folder: Path
    data: "KeptData | None" = None
    """Data of one's own; None for those that the recipe names."""

    def check(self, origin: Origin | None = None) -> None:
        """Raises ``EqpropError`` where the directory holds another training, or one that has not
        started from that network; None: from a drawn one.
        """
        if not is_run(self.folder):
            return
        record = read_record(self.folder)
        if self.data and not record.data.same(self.data.used):
            raise EqpropError(
                f"{self.folder} is a run on other data ({record.data.source}) than it would be "
                "here: give another directory with --out"
            )
        wanted = self.recipe.essence, self.seeds, Origin.of(origin)
        if (record.recipe.essence, record.seeds, Origin.of(record.origin)) != wanted:
            raise EqpropError(
                f"{self.folder} is a run of another recipe, of other seeds, or from another start, "
                "than it would be here: give another directory with --out"
            )

    def epochs_done(self) -> int:
        """Epochs that all seeds have finished."""
        return min((len(read_metrics(place)) for place in self._seeds()), default=0)

    def _seeds(self) -> list[Path]:
        """The run directory of each seed, once it has been begun."""
        if not is_run(self.folder):
            return []
        return [place for _, place in seed_folders(self.folder, read_record(self.folder))]

    @property
    def diverged(self) -> str | None:
        """How the training ended early, if it did."""
        path = self.folder / _DIVERGED
        return path.read_text(encoding="utf-8") or None if path.exists() else None

    @property
    def ended(self) -> bool:
        """Whether there is nothing to do."""
        if self.diverged is not None:
            return True
        begun = self._seeds()
        return bool(begun) and all(has_ended(self.recipe, place) for place in begun)

    @property
    def end(self) -> str:
        """What a table says of it: diverged, not ended, or nothing."""
        return "diverged" if self.diverged else "" if self.ended else "not ended"

    def work(self, command: Sequence[str], until: float = math.inf) -> None:
        """Trains to the end, or ``until`` that time of ``time.monotonic``; loads JAX.

        A divergence is noted in the directory, for going on would only repeat it; delete
        ``diverged.txt`` to do so anyway.

        Raises:
            EqpropError: as ``launch.train`` and ``launch.resume`` do, but for a divergence.
        """
        self.check()
        if self.ended:
            return
        from eqprop.training.launch import resume, train

        try:
            if is_run(self.folder):
                resume(self.folder, self.recipe.epochs, command, until=until)
            else:
                dataset = self.data and self.data.read()
                where = self.folder, command
                train(self.recipe, self.seeds, *where, until=until, dataset=dataset)
        except Diverged as error:
            write_whole(self.folder / _DIVERGED, f"{error}\n")
            print(f"NOTE: {error}", flush=True)


def check_all(trainings: Mapping[str, PlannedTraining], origin: Origin | None = None) -> None:
    """Checks each before the first is begun, as ``PlannedTraining.check`` does. Raises
    ``EqpropError``, too, where the objects of a recipe cannot be made for such data. Loads JAX, and
    the data sets that recipes name.
    """
    from eqprop.data.named import load
    from eqprop.training.experiment import plan, precision
    from eqprop.training.run_data import target

    named = functools.cache(load)
    for name, planned in trainings.items():
        planned.check(origin)
        if is_run(planned.folder):
            continue
        recipe = planned.recipe
        if planned.data:
            shape, learnt = planned.data.used.image, target(planned.data.used)
        else:
            dataset = named(recipe.dataset, fallback=recipe.dataset == "mnist")
            shape, learnt = dataset.shape, dataset.target
        try:
            with precision(recipe):
                plan(recipe, shape, learnt, 1, None)
        except EqpropError as error:
            raise EqpropError(f"{name}: {error}") from error
