"""What tables and figures rest on: trainings and verifications that have left their directories."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from eqprop.recipes.recipe import Recipe
from eqprop.theorem.figure import NUMBERS
from eqprop.theorem.questions import Figure
from eqprop.training.results import Outcome

_IDLE = ("name", "about", "published", "dataset")
"""Fields of a recipe that have no say in what a verification finds; its data is told apart."""


@final
@dataclass(frozen=True)
class Verified:
    """What a verification has left in its directory."""

    folder: Path
    numbers: Mapping[str, Any]

    def answers(self, figure: Figure, dataset: str) -> bool:
        """Whether it is of that network and minibatch, whatever the further betas were."""
        options, recipe = self.numbers["options"], dict(self.numbers["recipe"])
        wanted = dataclasses.asdict(figure.recipe)
        for fields in (recipe, wanted):
            for name in _IDLE:
                fields.pop(name, None)
        same = all(
            _plain(wanted[name]) == recipe.get(name, _plain(wanted[name])) for name in wanted
        )
        random = figure.options.random
        data = "random" if random else dataset
        return (
            same
            and options["seed"] == figure.options.seed
            and options["random"] == _plain(random)
            and self.numbers["data"]["name"] == data
        )


def _plain(value: Any) -> Any:
    """As JSON has it."""
    return list(value) if isinstance(value, tuple) else value


_DEFAULTS = {
    field.name: _plain(field.default)
    for field in dataclasses.fields(Recipe)
    if field.name not in _IDLE
}


@final
@dataclass(frozen=True)
class Evidence:
    """What was run, on one data set."""

    dataset: str
    outcomes: Sequence[Outcome]
    verified: Sequence[Verified]

    @property
    def title(self) -> str:
        """The data set for readers."""
        return self.dataset.replace("mnist", "MNIST").replace("fashion", "Fashion")

    def verification(self, figure: Figure) -> Verified | None:
        """The last one of a question."""
        found = [v for v in self.verified if v.answers(figure, self.dataset)]
        return found[-1] if found else None


def read_verified(root: Path) -> list[Verified]:
    """All verifications under a folder; what a crash has cut short is none."""
    found = []
    for path in sorted(root.rglob(NUMBERS)):
        try:
            numbers = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            continue
        found.append(Verified(path.parent, numbers))
    return found
