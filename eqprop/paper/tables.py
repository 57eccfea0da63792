"""The tables: the paper's own, and ours."""

import math
from dataclasses import dataclass
from typing import final, override

from eqprop.paper.figures import FigureAngle, FigureAsymmetric, FigureContrastive
from eqprop.paper.item import UNPUBLISHED, PaperItem, Rendered, Scope, run_of
from eqprop.paper.results import Results
from eqprop.recipes.catalogue import RECIPES
from eqprop.recipes.recipe import Recipe
from eqprop.recipes.series import GOALS, Goal
from eqprop.reports import charts
from eqprop.reports.tables import (
    DONE,
    MINUTES,
    PUBLISHED,
    TEST,
    TRAINING,
    Row,
    averaged,
    field,
    score,
    summary,
    what_was_run,
)
from eqprop.training.results import SeedResult, groups, matching, of_equal_length

_TABLE = (
    *(field(name, name) for name in ("recipe", "T", "K", "beta")),
    *DONE,
    TEST,
    PUBLISHED,
    TRAINING,
    score("published %", "published_training"),
    MINUTES,
)


@final
@dataclass(frozen=True)
class TableMnist(PaperItem):
    """Every published recipe, with its published settings."""

    scope: Scope
    title = "Test errors"

    @override
    def trainings(self) -> list[Recipe]:
        return self.scope.base()

    @override
    def show(self, results: Results) -> Rendered:
        trained = [run_of(results, recipe) for recipe in self.trainings()]
        rows = [summary(recipe, found, results.dataset) for recipe, found in trained]
        caption = (
            f"Errors in % on {results.title} after the last epoch, mean ± standard deviation "
            "over seeds; minutes are of one seed, tests included. Published: as reported in "
            "arXiv:2005.04169, mean ± std of 5 runs. A row with settings beside its name was run "
            "with these for longer than as published. Blank: not run, or not published. "
        )
        return Rendered(
            caption + what_was_run(rows),
            rows,
            _TABLE,
            lambda figure: charts.errors(figure, rows),
            [seed for _, found in trained for seed in found],
        )


@final
@dataclass(frozen=True)
class TableOthers(PaperItem):
    """Trainings that are no published recipe with its published settings: it asks for none."""

    scope: Scope
    title = "Our own recipes, and published ones with other settings"

    @override
    def show(self, results: Results) -> Rendered:
        published = {
            id(seed)
            for recipe in TableMnist(self.scope).trainings()
            for seed in run_of(results, recipe)[1]
        }
        # What figures show, unless it is a recipe of its own, or went on for longer.
        figures = (FigureAsymmetric, FigureContrastive, FigureAngle)  # the longest last
        shown = {
            recipe.essence: recipe.epochs
            for figure in figures
            for recipe in figure(self.scope).trainings()
        }
        for recipe in RECIPES.values():
            shown.pop(self.scope.of(recipe).essence, None)
        alike = groups(
            [
                seed
                for seed in results.seeds
                if self.scope.allows(seed.recipe.name)
                and id(seed) not in published
                and seed.epochs > shown.get(seed.recipe.essence, 0)
            ],
            lambda seed: (seed.recipe.essence, seed.changed_checkout, seed.length),
        )
        left = [found for group in alike if (found := matching(group, group[0].recipe))]
        # In the order of the catalogue, so that what belongs together stands together.
        order = {name: place for place, name in enumerate(RECIPES)}
        left.sort(key=lambda group: order.get(group[0].recipe.name, len(order)))
        rows: list[Row] = [summary(group[0].recipe, group, results.dataset) for group in left]
        caption = (
            f"Errors in % on {results.title} after the last epoch, as above. Settings that differ "
            "from the recipe's are told."
        )
        return Rendered(
            caption,
            rows,
            _TABLE,
            lambda figure: charts.errors(figure, rows),
            [seed for group in left for seed in group],
        )


@final
@dataclass(frozen=True)
class TableShort(PaperItem):
    """The recipes that were run as they are, for a first look: it asks for none."""

    scope: Scope
    title = "Recipes that were run"

    @override
    def show(self, results: Results) -> Rendered:
        recipes = [
            self.scope.of(recipe) for name, recipe in RECIPES.items() if self.scope.allows(name)
        ]
        trained = [run_of(results, recipe) for recipe in recipes]
        rows = [summary(recipe, found, results.dataset) for recipe, found in trained if found]
        return Rendered(
            f"Test error in % on {results.title} after the last epoch, mean ± standard deviation "
            "over seeds; published: as reported in arXiv:2005.04169.",
            rows,
            (field("recipe", "recipe"), *DONE, TEST, PUBLISHED),
            None,
        )


@final
@dataclass(frozen=True)
class TableTime(PaperItem):
    """How long our own recipes take to an error."""

    scope: Scope
    title = "Time to an error"
    beyond = True

    def _members(self) -> list[tuple[Goal, Recipe]]:
        goals = [goal for goal in GOALS if self.scope.allows(goal.recipe)]
        return [(goal, self.scope.of(RECIPES[goal.recipe])) for goal in goals]

    @override
    def trainings(self) -> list[Recipe]:
        return [recipe for _, recipe in self._members()]

    @override
    def show(self, results: Results) -> Rendered:
        rows: list[Row] = []
        used: list[SeedResult] = []
        for goal, recipe in self._members():
            found = of_equal_length(matching(filter(_timed, results.seeds), recipe))
            rows.append(
                summary(recipe, found, results.dataset)
                | UNPUBLISHED
                | {"goal": goal.error, "goal_seconds": goal.seconds}
                | averaged("seconds", [seed.seconds for seed in found])
                | averaged("to_start", [seed.seconds_to_start for seed in found])
            )
            used += found
        caption = (
            f"Errors in % on {results.title} after the last epoch, and seconds from the start of a "
            "seed to its end: data, compilation and tests included; mean ± standard deviation over "
            "seeds. Wanted: on two cores of a CPU that do nothing else. Blank: not run. "
        )
        columns = (
            field("recipe", "recipe"),
            *DONE,
            TEST,
            field("wanted %", "goal", "g"),
            score("seconds", "seconds", "seconds_std", ".0f"),
            field("wanted s", "goal_seconds", "g"),
            score("to start", "to_start", form=".1f"),
            field("on", "accelerator"),
        )
        return Rendered(caption + what_was_run(rows), rows, columns, None, used)


def _timed(seed: SeedResult) -> bool:
    """Whether its seconds are known: those before its first minibatch were not measured at first,
    and seeds that were trained together have none of their own.
    """
    return seed.sharing == 1 and not math.isnan(seed.seconds_to_start)
