"""Reproductions as the command runs them: what is still missing is run, then all is written.

- ``trainings/``, ``verifications/``: ordinary run directories
- ``NAME.md``, ``NAME.csv``, ``NAME.json``, ``NAME.png`` and ``NAME.svg`` of each table or figure
- ``all.md``: all that were asked for on one page

All that is known of earlier calls is what lies there, so whatever is killed, whenever, goes on.
"""

import dataclasses
import math
import re
import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import jax

from eqprop.data import named as data
from eqprop.data.dataset import Dataset
from eqprop.errors import EqpropError, UsageError, typed
from eqprop.paper import pages
from eqprop.paper.item import PaperItem, Rendered, Scope
from eqprop.paper.items import paper_items
from eqprop.paper.results import Results, read_verified
from eqprop.recipes.recipe import Recipe
from eqprop.theorem.figure import VERIFICATION
from eqprop.theorem.launch import verify
from eqprop.theorem.questions import FIGURES, Question
from eqprop.training.display import Display
from eqprop.training.planned import PlannedTraining
from eqprop.training.records import made
from eqprop.training.results import collect, label, read_run
from eqprop.training.runs import is_run, make_folder, read_record
from eqprop.training.session import Stopped, TimeUp


@final
@dataclass(frozen=True)
class Budget:
    """A time to spend in one call, as it was typed."""

    text: str
    seconds: float


@final
@dataclass(frozen=True)
class Reproduction:
    """What is to be reproduced, and how deep."""

    names: tuple[str, ...]
    scope: Scope
    seeds: int
    budget: Budget | None
    """None for as long as it takes."""
    out: Path


def reproduce(asked: Reproduction, command: Sequence[str]) -> None:
    """Runs what is missing, and writes the tables and figures.

    Raises ``Stopped`` after writing what there is by then.
    """
    display = Display()
    with typed():
        make_folder(asked.out)
    with display.doing("loading data"):
        dataset = data.load(asked.scope.dataset, fallback=asked.scope.dataset == "mnist")
    display.say(f"data: {dataset.source}")
    work = _Work(asked, dataset, command, display)
    items = paper_items(asked.scope)
    chosen = {name: items[name] for name in asked.names}
    try:
        work.verify([figure for item in chosen.values() for figure in item.verifications()])
        work.train([recipe for item in chosen.values() for recipe in item.trainings()])
    except Stopped as stop:
        work.write(chosen, "Stopped before the end.")
        stop.args = (f"{stop}; or with everything: {shlex.join(command)}",)
        raise
    work.write(chosen)


def from_records(
    asked: Reproduction, records: Sequence[Path], into: Path | None, command: Sequence[str]
) -> None:
    """Writes tables and figures from run directories that are there; runs nothing.

    ``into`` is a page that gets the tables too.
    """
    with typed():
        make_folder(asked.out)
    dataset = asked.scope.dataset
    verified = [found for root in records for found in read_verified(root)]
    results = Results(dataset, collect(records, dataset), verified)
    items = paper_items(asked.scope)
    chosen = {name: items[name] for name in asked.names}
    written = _write(chosen, results, asked.out, command, lambda _: ())
    if into is not None:
        pages.put_into(into, written)
        print(f"tables in {into}")


def _write(
    chosen: Mapping[str, PaperItem],
    results: Results,
    out: Path,
    command: Sequence[str],
    notes: Callable[[PaperItem], Sequence[str]],
) -> dict[str, Rendered]:
    """Writes tables and figures; ``notes`` are what captions say beside what the results say."""
    written: dict[str, Rendered] = {}
    now = dataclasses.asdict(made(command))
    for name, item in chosen.items():
        rendered = item.show(results)
        caption = " ".join([rendered.caption, *notes(item)])
        written[name] = dataclasses.replace(rendered, caption=caption)
        pages.write(name, item, written[name], out, now)
        print(f"{name} in {out / name}.md: {caption}")
    if len(written) > 1:
        pages.write_together(chosen, written, out)
        print(f"all of them in {out / 'all.md'}")
    return written


@final
class _Work:
    """What one call does in its folder."""

    def __init__(
        self, asked: Reproduction, dataset: Dataset, command: Sequence[str], display: Display
    ) -> None:
        self._asked, self._dataset, self._command = asked, dataset, command
        self._display, self._out = display, asked.out
        self._missing: dict[str, str] = {}  # why some trainings and verifications were not run
        self._begin = time.monotonic()

    def verify(self, figures: Sequence[Question]) -> None:
        """Answers the questions that have no answer yet; with a budget, in half of it."""
        for figure in figures:
            if self._answered(figure):
                continue
            if self._left(0.5) <= 0:
                self._missing[label(figure.recipe)] = self._too_dear
                continue
            try:
                verify(figure.recipe, figure.options, self._verification(figure), self._command)
            except EqpropError as error:
                self._missing[label(figure.recipe)] = f"cannot be verified: {error}"
                self._display.say(f"NOTE: {error}")

    def train(self, recipes: Iterable[Recipe]) -> None:
        """Trains what is missing; with a budget, until that is spent.

        Then every training gets an equal part of the time that is left for its first seed: what
        one does not need, those after it have. Further seeds of the trainings that are complete
        begin where there is as much time left as the first one took.
        """
        trainings = {self._folder(recipe): recipe for recipe in recipes}
        if self._asked.budget is None:
            for folder, recipe in trainings.items():
                for planned in self._planned(folder, recipe, self._asked.seeds):
                    self._run(planned)
            return
        firsts = {
            folder: self._planned(folder, recipe, 1)[0] for folder, recipe in trainings.items()
        }
        waiting = [first for first in firsts.values() if not first.ended]
        for number, first in enumerate(waiting):
            self._run(first, self._left() / (len(waiting) - number))
        for seeds in range(2, self._asked.seeds + 1) if _in_turn() else [self._asked.seeds]:
            for folder, recipe in trainings.items():
                for planned in self._planned(folder, recipe, seeds) if firsts[folder].ended else ():
                    if self._fits(planned, firsts[folder]):
                        self._run(planned, self._left())
        for first in firsts.values():
            if not first.epochs_done():
                self._missing.setdefault(label(first.recipe), self._too_dear)

    def write(self, chosen: Mapping[str, PaperItem], *more: str) -> None:
        """The tables and figures, of what there is now; ``more`` is for every caption."""
        trainings = self._out / "trainings"
        trainings.mkdir(exist_ok=True)
        name = self._dataset.name
        verified = read_verified(self._out / "verifications")
        results = Results(name, collect([trainings], name), verified)
        with self._display.doing("drawing"):
            _write(chosen, results, self._out, self._command, lambda it: [*self._notes(it), *more])

    def _run(self, planned: PlannedTraining, seconds: float = math.inf) -> None:
        """Trains to the end, or for so long."""
        if planned.ended or seconds <= 0:
            return
        self._display.say(f"training {planned.folder.relative_to(self._out / 'trainings')}")
        try:
            planned.work(self._command, time.monotonic() + seconds)
        except TimeUp as end:
            self._display.say(f"{end}")
        except UsageError as error:  # the recipe's values, or its size, do not fit
            self._missing[label(planned.recipe)] = f"cannot be trained: {error}"
            self._display.say(f"NOTE: {error}")

    def _left(self, share: float = 1.0) -> float:
        """Seconds that are left of the budget, or of a share of it."""
        budget = self._asked.budget
        end = self._begin + share * (budget.seconds if budget else math.inf)
        return end - time.monotonic()

    def _fits(self, planned: PlannedTraining, first: PlannedTraining) -> bool:
        """Whether there is time for a training, going by what its first seed took."""
        took = sum(seed.seconds for seed in read_run(first.folder))
        missing = planned.recipe.epochs - planned.epochs_done()
        return took * missing / planned.recipe.epochs <= self._left()

    @property
    def _too_dear(self) -> str:
        budget = self._asked.budget
        return f"not within the budget of {budget.text}" if budget else ""

    def _notes(self, item: PaperItem) -> list[str]:
        """What a caption has to say beside what the results say."""
        notes: list[str] = []
        dataset, budget = self._dataset, self._asked.budget
        trainings = item.trainings()
        if trainings and dataset.name != "mnist":
            notes.append(f"NOT MNIST: {dataset.source}")
        all_of_it = [
            planned
            for recipe in trainings
            for planned in self._planned(self._folder(recipe), recipe, self._asked.seeds)
        ]
        if budget and not all(planned.ended for planned in all_of_it):
            notes.append(f"Epochs and seeds are those that a budget of {budget.text} allowed.")
        lost = [
            f"{label(planned.recipe)}, seed {' '.join(map(str, planned.seeds))}"
            for planned in all_of_it
            if planned.diverged
        ]
        if lost:
            notes.append(f"Diverged, and shown as far as they came: {'; '.join(lost)}.")
        needed = [*trainings, *(figure.recipe for figure in item.verifications())]
        reasons: dict[str, list[str]] = {}
        for name in dict.fromkeys(map(label, needed)):
            if reason := self._missing.get(name):
                reasons.setdefault(reason, []).append(name)
        notes += [f"Not run: {'; '.join(names)} ({reason})." for reason, names in reasons.items()]
        return notes

    def _answered(self, figure: Question) -> bool:
        folder = self._verification(figure)
        # The image is what a verification writes last.
        return (folder / VERIFICATION).exists() and any(
            found.answers(figure, self._dataset.name) for found in read_verified(folder)
        )

    def _verification(self, figure: Question) -> Path:
        recipe = figure.recipe
        # A label does not tell the data set of a figure of the papers, which is in no catalogue.
        own = FIGURES.get(recipe.name, figure).recipe.dataset
        return self._out / "verifications" / self._named(label(recipe), own)

    def _folder(self, recipe: Recipe) -> Path:
        return self._out / "trainings" / self._named(label(recipe), recipe.dataset)

    def _named(self, name: str, dataset: str) -> str:
        """A name for a directory, that tells the data set where it is not that one."""
        on = "" if self._dataset.name == dataset else f", on {self._dataset.name}"
        return re.sub(r"[^\w.+-]+", "-", name + on)

    def _planned(self, folder: Path, recipe: Recipe, seeds: int) -> list[PlannedTraining]:
        """The runs that make up a training: those that were begun, and others for missing seeds."""
        begun = [
            PlannedTraining(recipe, read_record(path).seeds, path)
            for path in sorted(folder.glob("seeds-*"))
            if is_run(path)
        ]
        wanted = set(range(seeds))
        found = [planned for planned in begun if wanted & set(planned.seeds)]
        missing = sorted(wanted.difference(*(planned.seeds for planned in found)))
        # In turn, each in a run of its own, so that one that diverges does not end the others.
        together = [(seed,) for seed in missing] if _in_turn() else [tuple(missing)][: len(missing)]
        for group in together:
            name = "-".join(map(str, dict.fromkeys((group[0], group[-1]))))
            found.append(PlannedTraining(recipe, group, folder / f"seeds-{name}"))
        return found


def _in_turn() -> bool:
    """Whether seeds are trained one after the other: together they are no faster on a CPU."""
    return jax.default_backend() == "cpu"
