"""What every table and figure of the paper has: what it takes, and what it shows.

Nothing here loads JAX: results come from run directories, figures are drawn by charts.py.
"""

import abc
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from eqprop.paper.results import Results
from eqprop.recipes.catalogue import RECIPES
from eqprop.recipes.fast import fast
from eqprop.recipes.recipe import Recipe, changes
from eqprop.reports.tables import Column, Row
from eqprop.theorem.questions import Question
from eqprop.training.results import SeedResult, matching, of_equal_length

if TYPE_CHECKING:
    import matplotlib.figure


type Draw = Callable[["matplotlib.figure.Figure"], None]
"""Draws on an empty figure."""


@final
@dataclass(frozen=True)
class Scope:
    """Which recipes, and in which form."""

    names: tuple[str, ...] = ()
    """Of recipes; all that were published when empty."""
    dataset: str = "mnist"
    fast: bool = False
    epochs: int | None = None
    """At most; None for those of each recipe."""

    def of(self, recipe: Recipe) -> Recipe:
        """The recipe as it is to be trained."""
        epochs = min(recipe.epochs, self.epochs or recipe.epochs)
        recipe = dataclasses.replace(recipe, dataset=self.dataset, epochs=epochs)
        return fast(recipe) if self.fast else recipe

    def base(self) -> list[Recipe]:
        """The recipes chosen, as they are to be trained."""
        names = self.names or [n for n, recipe in RECIPES.items() if recipe.published]
        return [self.of(RECIPES[name]) for name in names]

    def allows(self, name: str) -> bool:
        """Whether a recipe is among those chosen."""
        return not self.names or name in self.names


@final
@dataclass(frozen=True)
class Rendered:
    """A table or a figure, ready to be written."""

    caption: str
    rows: Sequence[Row]
    columns: Sequence[Column]
    draw: Draw | None
    """None where there is nothing to draw; not called where there are no rows."""
    used: Sequence[SeedResult] = ()
    """The trainings behind the numbers."""


class PaperItem(abc.ABC):
    """Abstract: a table or a figure of the paper."""

    title: str
    beyond: ClassVar[bool] = False
    """Whether it is of another paper, and made only where it is asked for by its name."""

    def trainings(self) -> list[Recipe]:
        """What has to be trained for it."""
        return []

    def verifications(self) -> list[Question]:
        """What has to be verified for it."""
        return []

    @abc.abstractmethod
    def show(self, results: Results) -> Rendered:
        """What the results say; blank where there are none."""


UNPUBLISHED = dict.fromkeys(
    ("published_test", "published_std", "published_training", "published_seeds")
)
"""Of a row whose training is not the one that the published values of its recipe are of."""


_PHASES = (
    *("T", "K", "dt", "nudge", "sweeps", "nudged_sweeps"),
    *("relaxation", "tolerance", "test_tolerance"),
)
"""The fields that say how phases settle, not what is learnt from them."""


def run_of(results: Results, recipe: Recipe) -> tuple[Recipe, list[SeedResult]]:
    """A recipe and its seeds: as it is, or where that went on for longer, as with ``--fast``, in
    phases that settle in another way; of equally long ones that of ``--fast``. Seeds that were
    begun for fewer epochs are left out.

    Seeds by a program that was not committed count where there are no others.
    """
    free = {*_PHASES, "about", "published", "epochs"}
    others = [
        dataclasses.replace(seed.recipe, epochs=recipe.epochs)
        for seed in results.seeds
        if seed.recipe.name == recipe.name and changes(seed.recipe, recipe).keys() <= free
    ]
    committed = [seed for seed in results.seeds if not seed.changed_checkout]
    runs = [
        (form, matching(committed, form) or matching(results.seeds, form))
        for form in dict.fromkeys((recipe, fast(recipe), *others))
    ]
    form, seeds = max(runs, key=lambda run: max((seed.epochs for seed in run[1]), default=0))
    return form, of_equal_length(seeds)
