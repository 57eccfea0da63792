"""The figures: the paper's own, and those of what lies beyond it."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final, override

from eqprop.paper.item import UNPUBLISHED, PaperItem, Rendered, Scope, run_of
from eqprop.paper.results import Results
from eqprop.recipes.catalogue import RECIPES
from eqprop.recipes.recipe import Recipe
from eqprop.recipes.series import ASYMMETRIC, CONTRASTIVE, SERIES
from eqprop.reports import charts
from eqprop.reports.tables import (
    DONE,
    PUBLISHED,
    TEST,
    TRAINING,
    Column,
    Row,
    averaged,
    field,
    summary,
    what_was_run,
)
from eqprop.theorem.figure import CURVES, draw_verification
from eqprop.theorem.questions import Question, VerifyOptions, as_verified
from eqprop.training.results import SeedResult, matching, of_equal_length

_STEPS, _SWEEPS, _FAST = "steps, as published", "sweeps", "as with --fast"


@final
@dataclass(frozen=True)
class FigureAngle(PaperItem):
    """C-VF against the initial angle Psi between forward and feedback weights: in a form in which
    free phases settle, and as published.
    """

    scope: Scope
    title = "C-VF: test error against the initial angle between forward and feedback weights"

    def _members(self) -> list[tuple[str, str, Recipe]]:
        members: list[tuple[str, str, Recipe]] = []
        for series in SERIES.values():
            published = RECIPES[series.base]
            forms = {_STEPS: published, _SWEEPS: series.settled}
            for form, base in ({_FAST: published} if self.scope.fast else forms).items():
                recipes = series.members(self.scope.of(base)).values()
                members += [(series.base, form, recipe) for recipe in recipes]
        return [member for member in members if self.scope.allows(member[0])]

    @override
    def trainings(self) -> list[Recipe]:
        return [recipe for _, _, recipe in self._members()]

    @override
    def show(self, results: Results) -> Rendered:
        rows, found = _by_angle(self._members(), results)
        # The published value is that of angle 0.
        known = [row["angle"] == 0 and row["rule"] != _SWEEPS for row in rows]
        rows = [row if it else {**row, **UNPUBLISHED} for row, it in zip(rows, known, strict=True)]
        through = [[_angles(seed) for seed in seeds] for seeds in found]
        caption = (
            f"Test error in % on {results.title} after the last epoch, mean ± standard "
            "deviation over seeds; angles in degrees, before training and (mean) after it. Blank: "
            "not run, or not published. "
        )
        return Rendered(
            caption + what_was_run(rows),
            rows,
            (*_columns_by_angle("free phase"), PUBLISHED),
            lambda figure: charts.angles_in_training(figure, rows, through),
            [seed for seeds in found for seed in seeds],
        )


def _columns_by_angle(rule: str) -> tuple[Column, ...]:
    """What ``_by_angle`` finds; ``rule`` is the title of that column."""
    return (
        field("network", "network"),
        field(rule, "rule"),
        field("initial angle", "angle", "g"),
        field("angle after", "after", ".0f"),
        *DONE,
        TEST,
    )


def _by_angle(
    members: Sequence[tuple[str, str, Recipe]], results: Results
) -> tuple[list[Row], list[list[SeedResult]]]:
    """Rows and seeds of recipes at initial angles, each with its network and rule."""
    rows: list[Row] = []
    used: list[list[SeedResult]] = []
    for network, rule, recipe in members:
        # Some were trained for longer; rules are compared at equal epochs.
        found = of_equal_length(matching(results.seeds, recipe), recipe.epochs)
        after = [angles[-1] for seed in found if (angles := _angles(seed))]
        rows.append(
            summary(recipe, found, results.dataset)
            | {"network": network, "rule": rule, "angle": recipe.angle}
            | {"after": averaged("", after)[""]}
        )
        used.append(found)
    return rows, used


def _angles(seed: SeedResult) -> list[float]:
    """Between forward and feedback weights after each epoch, in degrees: the mean over edges."""
    edges = [column for name, column in seed.columns.items() if name.startswith("angles/")]
    return [math.fsum(angles) / len(angles) for angles in zip(*edges, strict=True)]


@final
@dataclass(frozen=True)
class FigureGradientAngle(PaperItem):
    """Whether rules that leave the gradient learn less well."""

    scope: Scope
    title = "Test error against the angle between update and BPTT gradient before training"

    def _points(self) -> dict[Recipe, Recipe]:
        """What is verified, and what is trained for it."""
        published = dataclasses.replace(self.scope, fast=False)
        pairs = zip(published.base(), self.scope.base(), strict=True)
        points = {recipe: trained for recipe, trained in pairs if recipe.is_nudged}
        for series in SERIES.values():
            if self.scope.allows(series.base):
                settled = series.members(self.scope.of(series.settled))
                members = series.members(published.of(RECIPES[series.base]))
                points |= {it: settled[name] for name, it in members.items()}
        return points

    @override
    def trainings(self) -> list[Recipe]:
        return list(self._points().values())

    @override
    def verifications(self) -> list[Question]:
        return [_asked_for_an_angle(recipe) for recipe in self._points()]

    @override
    def show(self, results: Results) -> Rendered:
        rows: list[Row] = []
        used: list[SeedResult] = []
        for recipe, trained in self._points().items():
            verified = results.verification(_asked_for_an_angle(recipe))
            angle = verified.numbers["asked"]["together"]["angle"] if verified else None
            form, found = run_of(results, trained)
            turned = f", {recipe.angle:g}°" if recipe.angle else ""
            rows.append(
                summary(form, found, results.dataset)
                | {"gradient_angle": angle, "point": recipe.name + turned}
                # The published value is that of angle 0.
                | (UNPUBLISHED if turned else {})
            )
            used += found
        caption = (
            "Angle in degrees between the total update of the first minibatch (seed 0, settings as "
            "published, states not clipped) and the total BPTT gradient; test "
            f"error in % on {results.title} after the last epoch, mean ± standard deviation, of "
            "the training that is named. Blank: not run. "
        )
        angle = field("angle (degrees)", "gradient_angle", ".3g")
        return Rendered(
            caption + what_was_run(rows),
            rows,
            (field("rule", "point"), angle, field("training", "recipe"), *DONE, TEST, PUBLISHED),
            lambda figure: charts.against_gradient_angle(figure, rows),
            used,
        )


def _asked_for_an_angle(recipe: Recipe) -> Question:
    """One beta, and eta as it is, are enough."""
    return Question(as_verified(recipe), VerifyOptions(betas=(recipe.beta,), eta_factors=(1.0,)))


@final
@dataclass(frozen=True)
class FigureContrastive(PaperItem):
    """Seven algorithms that compare two phases, on a dense and a convolutional net, each with the
    settings of one recipe but for how the output is nudged.
    """

    scope: Scope
    title = "Outputs pushed or held: seven contrastive algorithms"
    beyond = True

    def _members(self) -> dict[tuple[str, str], Recipe]:
        return {
            (base, algorithm): dataclasses.replace(self.scope.of(RECIPES[base]), **fields)
            for base in ("ep-1h", "ep-conv-fast")
            if self.scope.allows(base)
            for algorithm, fields in CONTRASTIVE.items()
        }

    @override
    def trainings(self) -> list[Recipe]:
        return list(self._members().values())

    @override
    def show(self, results: Results) -> Rendered:
        found = {
            key: of_equal_length(matching(results.seeds, it)) for key, it in self._members().items()
        }
        rows = [
            summary(recipe, found[key], results.dataset) | {**UNPUBLISHED, "recipe": ", ".join(key)}
            for key, recipe in self._members().items()
        ]
        caption = (
            f"Errors in % on {results.title} after the last epoch, mean ± standard deviation over "
            "seeds. Published (arXiv:2312.15103, deep convolutional Hopfield networks): negative "
            "is better than positive, and EP, centered, is best. Blank: not run. "
        )
        columns = (field("algorithm", "recipe"), field("beta", "beta"), *DONE, TEST, TRAINING)
        return Rendered(
            caption + what_was_run(rows),
            rows,
            columns,
            lambda figure: charts.errors(figure, rows),
            [seed for seeds in found.values() for seed in seeds],
        )


@final
@dataclass(frozen=True)
class FigureAsymmetric(PaperItem):
    """AEP (arXiv:2602.03670) beside the vector field, against the initial angle."""

    scope: Scope
    title = "Asymmetric networks: test error against the initial angle between forward and feedback"
    beyond = True

    def _members(self) -> list[tuple[str, str, Recipe]]:
        return [
            (network, rule, self.scope.of(recipe))
            for network, rules in ASYMMETRIC.items()
            for rule, series in rules.items()
            for recipe in series
            if self.scope.allows(recipe.name)
        ]

    @override
    def trainings(self) -> list[Recipe]:
        return [recipe for _, _, recipe in self._members()]

    @override
    def show(self, results: Results) -> Rendered:
        rows, found = _by_angle(self._members(), results)
        rows = [{**row, **UNPUBLISHED} for row in rows]
        caption = (
            f"Errors in % on {results.title} after the last epoch, mean ± standard deviation over "
            "seeds; angles in degrees, before training and (mean) after it. Blank: not run. "
        )
        return Rendered(
            caption + what_was_run(rows),
            rows,
            (*_columns_by_angle("rule"), TRAINING),
            lambda figure: charts.against_angle(figure, rows),
            [seed for seeds in found for seed in seeds],
        )


@final
@dataclass(frozen=True)
class FigureTheorem(PaperItem):
    """The curves of Theorem 1 for one network."""

    question: Question

    @property
    def title(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What the curves are of."""
        return f"Theorem 1: {self.question.recipe.about}"

    @override
    def verifications(self) -> list[Question]:
        return [self.question]

    @override
    def show(self, results: Results) -> Rendered:
        verified = results.verification(self.question)
        columns = (
            field("tensor", "name"),
            field("elements", "size"),
            field("RelMSE", "relmse", ".2e"),
            field("cosine", "cosine", ".5f"),
            field("angle (degrees)", "angle", ".3g"),
            field("order in beta", "order", ".2f"),
        )
        if verified is None:
            return Rendered("Nothing was run.", [], columns, None)
        numbers = verified.numbers
        asked, orders = numbers["asked"], numbers["beta_orders"]
        rows = [
            tensor | {"order": orders.get(tensor["name"], {}).get("slope")}
            for tensor in (*asked["tensors"], asked["together"])
        ]
        drawable = (verified.folder / CURVES).exists()
        recipe = self.question.recipe
        shown = (
            "Updates of the rule, dashed, over BPTT gradients"
            if drawable
            else "Updates of the rule against BPTT gradients; the curves were not kept: `eqprop "
            f"verify {recipe.name} --dataset {recipe.dataset}` draws them"
        )
        caption = (
            f"{shown}. At beta {asked['beta']:g}; {numbers['data']['source']} {numbers['verdict']}"
        )
        return Rendered(
            caption,
            rows,
            columns,
            (lambda figure: draw_verification(figure, verified.folder)) if drawable else None,
        )
