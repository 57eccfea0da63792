"""What tables and figures rest on: trainings and verifications that have left their directories."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import msgspec

from eqprop.recipes.recipe import Recipe
from eqprop.theorem.figure import NUMBERS
from eqprop.theorem.questions import Question
from eqprop.training.results import SeedResult


@final
@dataclass(frozen=True)
class Verified:
    """What a verification has left in its directory."""

    folder: Path
    numbers: Mapping[str, Any]
    recipe: Recipe

    def answers(self, figure: Question, dataset: str) -> bool:
        """Whether it is of that network and minibatch, whatever the further betas were."""
        options, random = self.numbers["options"], figure.options.random
        # The data set that was used is told apart, for it may stand in for the recipe's.
        wanted = dataclasses.replace(figure.recipe, dataset=self.recipe.dataset)
        return (
            self.recipe.essence == wanted.essence
            and options["seed"] == figure.options.seed
            and options["random"] == (random and list(random))
            and self.numbers["data"]["name"] == ("random" if random else dataset)
        )


@final
@dataclass(frozen=True)
class Results:
    """What was run, on one data set."""

    dataset: str
    seeds: Sequence[SeedResult]
    verified: Sequence[Verified]

    @property
    def title(self) -> str:
        """The data set for readers."""
        return self.dataset.replace("mnist", "MNIST").replace("fashion", "Fashion")

    def verification(self, figure: Question) -> Verified | None:
        """The last one of a question."""
        found = (v for v in self.verified if v.answers(figure, self.dataset))
        return max(found, key=lambda v: v.numbers["made"]["time"], default=None)


def read_verified(root: Path) -> list[Verified]:
    """All verifications under a folder; what a crash has cut short, or a version of eqprop that
    had other recipes has written, is none.
    """
    found = []
    for path in sorted(root.rglob(NUMBERS)):
        try:
            numbers = json.loads(path.read_text(encoding="utf-8"))
            recipe = msgspec.convert(numbers["recipe"], Recipe)
        except (ValueError, LookupError, TypeError):
            continue
        found.append(Verified(path.parent, numbers, recipe))
    return found
