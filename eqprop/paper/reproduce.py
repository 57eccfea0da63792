"""Reproductions as the command runs them: what is still missing is run, then all is written.

- ``trainings/``, ``verifications/``: ordinary run directories
- ``progress.json``: how far a budget goes (ledger.py)
- ``NAME.md``, ``NAME.csv``, ``NAME.json``, ``NAME.png`` and ``NAME.svg`` of each table or figure
"""

import dataclasses
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import jax

from eqprop.data import named as data
from eqprop.data.named import Dataset
from eqprop.errors import EqpropError, UsageError, typed
from eqprop.paper import pace
from eqprop.paper import pages as sections
from eqprop.paper.budget import NOTHING, Demand, Share, share_out
from eqprop.paper.items import Choice, Exhibit, exhibits
from eqprop.paper.ledger import Ledger
from eqprop.paper.pace import Pace
from eqprop.paper.results import Evidence, read_verified
from eqprop.recipes.recipe import Recipe
from eqprop.theorem.figure import VERIFICATION
from eqprop.theorem.launch import verify
from eqprop.theorem.questions import Figure
from eqprop.training.display import Display, Stopwatch
from eqprop.training.planned import Part
from eqprop.training.records import made
from eqprop.training.results import collect, label
from eqprop.training.runs import is_run, make_folder, read_record
from eqprop.training.session import Stopped


@final
@dataclass(frozen=True)
class Budget:
    """A time, as it was typed."""

    text: str
    seconds: float


@final
@dataclass(frozen=True)
class Request:
    """What is to be reproduced, and how deep."""

    names: tuple[str, ...]
    choice: Choice
    seeds: int
    epochs: int | None
    """None for those of each recipe."""
    budget: Budget | None
    out: Path

    def identity(self) -> dict[str, Any]:
        """What decides how a budget is shared out, as JSON has it."""
        asked = {
            "names": self.names,
            "choice": dataclasses.asdict(self.choice),
            "seeds": self.seeds,
            "epochs": self.epochs,
            "budget": self.budget and self.budget.seconds,
        }
        return json.loads(json.dumps(asked))


def reproduce(request: Request, command: Sequence[str]) -> None:
    """Runs what is missing, and writes the tables and figures.

    Raises ``EqpropError`` where it was stopped, after writing what there is by then.
    """
    display = Display()
    with typed():
        make_folder(request.out)
    with display.doing("loading data"):
        dataset = data.load(request.choice.dataset, fallback=request.choice.dataset == "mnist")
    display.say(f"data: {dataset.source}")
    work = _Work(request, dataset, command, display)
    wanted = exhibits(request.choice)
    chosen = {name: wanted[name] for name in request.names}
    try:
        work.verify([figure for e in chosen.values() for figure in e.verifications()])
        work.train([recipe for e in chosen.values() for recipe in e.trainings()])
    except Stopped as stop:
        work.write(chosen, "Stopped before the end.")
        raise EqpropError(f"{stop}; or with everything: {shlex.join(command)}") from stop
    work.write(chosen)


def from_records(
    request: Request, records: Sequence[Path], into: Path | None, command: Sequence[str]
) -> None:
    """Writes tables and figures from run directories that are there; runs nothing.

    ``into`` is a page that gets the tables too.
    """
    display, out = Display(), request.out
    with typed():
        make_folder(out)
    dataset = request.choice.dataset
    verified = [found for root in records for found in read_verified(root)]
    evidence = Evidence(dataset, collect(records, dataset), verified)
    wanted = exhibits(request.choice, others=True)
    chosen = {name: wanted[name] for name in request.names}
    now = dataclasses.asdict(made(command))
    texts: dict[str, str] = {}
    for name, exhibit in chosen.items():
        shown = exhibit.show(evidence)
        sections.write(name, exhibit, shown, out, now)
        display.say(f"{name} in {out / name}.md")
        if into is not None:
            texts[name] = sections.body(shown, into.parent)
    if into is not None:
        sections.put_into(into, texts)
        display.say(f"tables in {into}")


@final
class _Work:
    """What one call does in its folder; all it knows of earlier ones is what lies there."""

    def __init__(
        self, request: Request, dataset: Dataset, command: Sequence[str], display: Display
    ) -> None:
        self._request, self._dataset, self._command = request, dataset, command
        self._display = display
        self._out = request.out
        self._missing: dict[str, str] = {}  # why some trainings and verifications were not run
        self._ledger = Ledger(self._out, request.identity() | {"data": dataset.name})

    def verify(self, figures: Sequence[Figure]) -> None:
        """Answers the questions that have no answer yet, as far as the budget allows."""
        missing = [f for f in figures if not self._answered(f)]
        budget = self._request.budget
        for figure in missing:
            name = label(figure.recipe)
            # Trainings get the rest: no less than half.
            if budget and self._ledger.spent >= budget.seconds / 2:
                self._missing[name] = f"not within the budget of {budget.text}"
                continue
            watch = Stopwatch()
            try:
                verify(figure.recipe, figure.options, self._verification(figure), self._command)
            except EqpropError as error:
                self._missing[name] = f"cannot be verified: {error}"
                self._display.say(f"NOTE: {error}")
            self._ledger.spend(watch.seconds)

    def train(self, recipes: Sequence[Recipe]) -> None:
        """Trains what is missing, as far as the budget allows."""
        trainings = {self._folder(recipe).name: self._deep(recipe) for recipe in recipes}
        shares = self._shares(trainings)
        for number, (name, recipe) in enumerate(trainings.items(), 1):
            share = shares[name]
            for part in self._parts(recipe, share):
                depth = f"{share.epochs} of {recipe.epochs} epochs, seed {_listed(part.seeds)}"
                self._display.say(f"[{number}/{len(trainings)}] {name}: {depth}")
                try:
                    part.work(self._command)
                except UsageError as error:  # the recipe's values, or its size, do not fit
                    self._missing[label(recipe)] = f"cannot be trained: {error}"
                    self._display.say(f"NOTE: {error}")

    def write(self, chosen: Mapping[str, Exhibit], *more: str) -> None:
        """The tables and figures, of what there is now; ``more`` is for every caption."""
        trainings = self._out / "trainings"
        trainings.mkdir(exist_ok=True)
        name = self._dataset.name
        found = collect([trainings], name)
        evidence = Evidence(name, found, read_verified(self._out / "verifications"))
        now = dataclasses.asdict(made(self._command))
        for name, exhibit in chosen.items():
            shown = exhibit.show(evidence)
            caption = " ".join([shown.caption, *self._notes(exhibit), *more])
            shown = dataclasses.replace(shown, caption=caption)
            with self._display.doing("drawing"):
                sections.write(name, exhibit, shown, self._out, now)
            self._display.say(f"{name} in {self._out / name}.md: {caption}")

    def _notes(self, exhibit: Exhibit) -> list[str]:
        """What a caption has to say beside what the evidence says."""
        notes: list[str] = []
        dataset, budget = self._dataset, self._request.budget
        trainings = exhibit.trainings()
        if trainings and dataset.name != "mnist":
            notes.append(f"NOT MNIST: {dataset.source}")
        if trainings and budget:
            notes.append(f"Epochs and seeds are those that a budget of {budget.text} allowed.")
        needed = [*trainings, *(figure.recipe for figure in exhibit.verifications())]
        reasons: dict[str, list[str]] = {}
        for name in dict.fromkeys(map(label, needed)):
            if reason := self._missing.get(name):
                reasons.setdefault(reason, []).append(name)
        notes += [f"Not run: {'; '.join(names)} ({reason})." for reason, names in reasons.items()]
        return notes

    def _answered(self, figure: Figure) -> bool:
        folder = self._verification(figure)
        # The figure is what a verification writes last.
        return (folder / VERIFICATION).exists() and any(
            found.answers(figure, self._dataset.name) for found in read_verified(folder)
        )

    def _verification(self, figure: Figure) -> Path:
        return self._out / "verifications" / self._folder(figure.recipe).name

    def _folder(self, recipe: Recipe) -> Path:
        name = label(recipe)
        if self._dataset.name != recipe.dataset:
            name += f", on {self._dataset.name}"
        return self._out / "trainings" / re.sub(r"[^\w.+-]+", "-", name)

    def _deep(self, recipe: Recipe) -> Recipe:
        """The recipe with no more epochs than were asked for."""
        epochs = self._request.epochs
        return dataclasses.replace(recipe, epochs=min(recipe.epochs, epochs or recipe.epochs))

    def _shares(self, trainings: Mapping[str, Recipe]) -> dict[str, Share]:
        """How much of each training to do."""
        request, budget = self._request, self._request.budget
        if budget is None:
            return {n: Share(recipe.epochs, request.seeds) for n, recipe in trainings.items()}
        shares = self._ledger.shares
        if shares is None:
            watch = Stopwatch()
            demands: dict[str, Demand] = {}
            for name, recipe in trainings.items():
                # What there is no time to time there is no time to train.
                enough = watch.seconds < budget.seconds / 4
                if found := self._measure(name, recipe) if enough else None:
                    demands[name] = self._demand(recipe, found)
            self._ledger.spend(watch.seconds)
            shares = share_out(demands, max(0.0, budget.seconds - self._ledger.spent))
            self._ledger.decide(shares)
        shares = {name: shares.get(name, NOTHING) for name in trainings}
        for name, share in shares.items():
            if share == NOTHING:
                reason = self._ledger.unfit.get(name)
                dear = f"not within the budget of {budget.text}"
                self._missing[label(trainings[name])] = (
                    f"cannot be trained: {reason}" if reason else dear
                )
        return shares

    def _measure(self, name: str, recipe: Recipe) -> Pace | None:
        """Seconds per epoch, measured once for all calls in this folder; None if it cannot be."""
        ledger = self._ledger
        if not ledger.pace(name) and name not in ledger.unfit:
            with self._display.doing(f"timing {name}"):
                try:
                    ledger.set_pace(name, pace.measure(recipe, self._dataset))
                except EqpropError as error:
                    ledger.refuse(name, str(error))
        if found := ledger.pace(name):
            self._display.say(f"{name}: {found.epoch:.3g} s per epoch here")
        return found

    def _demand(self, recipe: Recipe, pace: Pace) -> Demand:
        """What is left to do of a training, at that pace."""
        seeds = self._request.seeds
        parts = self._parts(recipe, Share(recipe.epochs, seeds))
        done = {
            seed: recipe.epochs if part.diverged else part.epochs_done()
            for part in parts
            for seed in part.seeds
        }
        first = next(part for part in parts if 0 in part.seeds)
        return Demand(
            recipe.epochs,
            seeds,
            pace.epoch,
            pace.start,
            tuple(done[seed] for seed in range(seeds)),
            min(seeds, len(first.seeds)) if is_run(first.folder) else 1,
        )

    def _parts(self, recipe: Recipe, share: Share) -> list[Part]:
        """The runs that make up a training: those that were begun, and others for missing seeds."""
        if share == NOTHING:
            return []
        recipe = dataclasses.replace(recipe, epochs=share.epochs)
        folder = self._folder(recipe)
        begun = [
            Part(recipe, read_record(path).seeds, path)
            for path in sorted(folder.glob("seeds-*"))
            if is_run(path)
        ]
        wanted = set(range(share.seeds))
        parts = [part for part in begun if wanted & set(part.seeds)]
        missing = sorted(wanted.difference(*(part.seeds for part in parts)))
        if jax.default_backend() == "cpu":
            # In turn, each in a run of its own, so that one that diverges does not end the others.
            return parts + [Part(recipe, (seed,), folder / f"seeds-{seed}") for seed in missing]
        if missing:
            place = folder / f"seeds-{missing[0]}-{missing[-1]}"
            parts.append(Part(recipe, tuple(missing), place))
        return parts


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
