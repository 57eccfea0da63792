"""What of the paper can be reproduced: for each table and figure what it takes, and what it shows.

Nothing here loads JAX: results come from run directories, figures are drawn by charts.py.
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final, override

from eqprop.paper.results import Results
from eqprop.recipes.catalogue import ASYMMETRIC, CONTRASTIVE, GOALS, RECIPES, SERIES, Goal, fast
from eqprop.recipes.recipe import Recipe
from eqprop.reports import charts
from eqprop.reports.tables import (
    DONE,
    MINUTES,
    PUBLISHED,
    TEST,
    Column,
    Row,
    averaged,
    field,
    score,
    summary,
    what_was_run,
)
from eqprop.theorem.figure import CURVES, draw_verification
from eqprop.theorem.questions import FIGURES, Question, VerifyOptions, as_verified
from eqprop.training.results import SeedResult, groups, matching

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

    def of(self, recipe: Recipe) -> Recipe:
        """The recipe as it is to be trained."""
        recipe = dataclasses.replace(recipe, dataset=self.dataset)
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
    """None where there is nothing to draw."""
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


_TABLE = (
    *(field(name, name) for name in ("recipe", "T", "K", "beta")),
    *DONE,
    TEST,
    PUBLISHED,
    score("training error %", "training", "training_std"),
    score("published %", "published_training"),
    MINUTES,
)


_UNPUBLISHED = dict.fromkeys(
    ("published_test", "published_std", "published_training", "published_seeds")
)
"""Of a row whose training is not the one that the published values of its recipe are of."""


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
        trained = [_run_of(results, recipe) for recipe in self.trainings()]
        rows = [summary(recipe, found, results.dataset) for recipe, found in trained]
        caption = (
            f"Errors in % on {results.title} after the last epoch, mean ± standard deviation "
            "over seeds; minutes are of one seed, tests included. Published: as reported in "
            "arXiv:2005.04169, mean ± std of 5 runs. A row with settings beside its name was run "
            "with these, those of `--fast`. Blank: not run, or not published. "
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
            for seed in _run_of(results, recipe)[1]
        }
        # What other papers' figures show, unless it is a recipe of its own, or went on for longer.
        figures = (FigureAsymmetric(self.scope), FigureContrastive(self.scope))
        shown = {recipe.essence: recipe.epochs for item in figures for recipe in item.trainings()}
        for recipe in RECIPES.values():
            shown.pop(self.scope.of(recipe).essence, None)
        alike = groups(
            [
                seed
                for seed in results.seeds
                if id(seed) not in published and seed.epochs > shown.get(seed.recipe.essence, 0)
            ],
            lambda seed: (seed.recipe.essence, seed.changed_checkout),
        )
        left = [found for group in alike if (found := matching(group, group[0].recipe))]
        # In the order of the catalogue, so that what belongs together stands together.
        order = {name: place for place, name in enumerate(RECIPES)}
        left.sort(key=lambda group: order.get(group[0].recipe.name, len(order)))
        rows: list[Row] = []
        for group in left:
            row = summary(group[0].recipe, group, results.dataset)
            if any(seed.changed_checkout for seed in group):
                row["recipe"] += ", changed checkout"
            rows.append(row)
        caption = (
            f"Errors in % on {results.title} after the last epoch, as above. Settings that differ "
            "from the recipe's are told. Changed checkout: run by a program that was not committed."
        )
        return Rendered(
            caption,
            rows,
            _TABLE,
            (lambda figure: charts.errors(figure, rows)) if rows else None,
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
        trained = [_run_of(results, recipe) for recipe in recipes]
        rows = [summary(recipe, found, results.dataset) for recipe, found in trained if found]
        return Rendered(
            f"Test error in % on {results.title} after the last epoch, mean ± standard deviation "
            "over seeds; published: as reported in arXiv:2005.04169.",
            rows,
            (field("recipe", "recipe"), *DONE, TEST, PUBLISHED),
            None,
        )


def _run_of(results: Results, recipe: Recipe) -> tuple[Recipe, list[SeedResult]]:
    """A recipe, and the seeds of it by a program that was committed: as it is, or, where it was not
    run so, with ``--fast``.
    """
    committed = [seed for seed in results.seeds if not seed.changed_checkout]
    runs = [(form, matching(committed, form)) for form in (recipe, fast(recipe))]
    return next((run for run in runs if run[1]), runs[0])


@final
@dataclass(frozen=True)
class FigureAngle(PaperItem):
    """C-VF against the initial angle Psi between forward and feedback weights."""

    scope: Scope
    title = "C-VF: test error against the initial angle between forward and feedback weights"

    def _members(self) -> dict[str, list[Recipe]]:
        return {
            series.base: list(series.members(self.scope.of(RECIPES[series.base])).values())
            for series in SERIES.values()
            if self.scope.allows(series.base)
        }

    @override
    def trainings(self) -> list[Recipe]:
        return [recipe for members in self._members().values() for recipe in members]

    @override
    def show(self, results: Results) -> Rendered:
        rows = [
            {"network": name, "rule": "C-VF", "angle": recipe.angle}
            | summary(recipe, matching(results.seeds, recipe), results.dataset)
            # The published value is that of angle 0.
            | ({} if recipe.angle == 0 else {"published_test": None, "published_std": None})
            for name, members in self._members().items()
            for recipe in members
        ]
        columns = (field("network", "network"), field("angle (degrees)", "angle", "g"))
        caption = (
            f"Test error in % on {results.title} after the last epoch, mean ± standard "
            "deviation over seeds. Blank: not run, or not published. "
        )
        return Rendered(
            caption + what_was_run(rows),
            rows,
            (*columns, *DONE, TEST, PUBLISHED),
            lambda figure: charts.against_angle(figure, rows),
            [s for recipe in self.trainings() for s in matching(results.seeds, recipe)],
        )


@final
@dataclass(frozen=True)
class FigureGradientAngle(PaperItem):
    """Whether rules that leave the gradient learn less well."""

    scope: Scope
    title = "Test error against the angle between update and BPTT gradient before training"

    @override
    def trainings(self) -> list[Recipe]:
        return [recipe for recipe in self.scope.base() if recipe.rule not in {"bptt", "rbp"}]

    @override
    def verifications(self) -> list[Question]:
        # One beta, and eta as it is, are enough for an angle.
        return [
            Question(as_verified(recipe), VerifyOptions(betas=(recipe.beta,), eta_factors=(1.0,)))
            for recipe in self.trainings()
        ]

    @override
    def show(self, results: Results) -> Rendered:
        rows: list[Row] = []
        for recipe, question in zip(self.trainings(), self.verifications(), strict=True):
            verified = results.verification(question)
            angle = verified.numbers["asked"]["together"]["angle"] if verified else None
            row = summary(recipe, matching(results.seeds, recipe), results.dataset)
            rows.append({"gradient_angle": angle} | row)
        caption = (
            "Angle in degrees between the total update of the first minibatch (seed 0, settings as "
            "in training, states not clipped) and the total BPTT gradient; test error in % on "
            f"{results.title} after the last epoch, mean ± standard deviation. Blank: not run. "
        )
        angle = field("angle (degrees)", "gradient_angle", ".3g")
        return Rendered(
            caption + what_was_run(rows),
            rows,
            (field("recipe", "recipe"), angle, *DONE, TEST, PUBLISHED),
            lambda figure: charts.against_gradient_angle(figure, rows),
            [s for recipe in self.trainings() for s in matching(results.seeds, recipe)],
        )


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
        found = {key: matching(results.seeds, it) for key, it in self._members().items()}
        rows = [
            summary(recipe, found[key], results.dataset)
            | {**_UNPUBLISHED, "recipe": ", ".join(key)}
            for key, recipe in self._members().items()
        ]
        caption = (
            f"Errors in % on {results.title} after the last epoch, mean ± standard deviation over "
            "seeds. Published (arXiv:2312.15103, deep convolutional Hopfield networks): negative "
            "is better than positive, and EP, centered, is best. Blank: not run. "
        )
        training = score("training error %", "training", "training_std")
        columns = (field("algorithm", "recipe"), field("beta", "beta"), *DONE, TEST, training)
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
        rows: list[Row] = []
        used: list[SeedResult] = []
        for network, rule, recipe in self._members():
            # Some were trained for longer; rules are compared at equal epochs.
            found = [seed.until(recipe.epochs) for seed in matching(results.seeds, recipe)]
            names = [(seed, name) for seed in found for name in seed.columns]
            after = [seed.last(name) for seed, name in names if name.startswith("angles/")]
            rows.append(
                summary(recipe, found, results.dataset)
                | _UNPUBLISHED
                | {"network": network, "rule": rule, "angle": recipe.angle}
                | {"after": averaged("", after)[""]}
            )
            used += found
        caption = (
            f"Errors in % on {results.title} after the last epoch, mean ± standard deviation over "
            "seeds; angles in degrees, before training and (mean) after it. Blank: not run. "
        )
        columns = (
            field("network", "network"),
            field("rule", "rule"),
            field("initial angle", "angle", "g"),
            field("angle after", "after", ".0f"),
            *DONE,
            TEST,
            score("training error %", "training", "training_std"),
        )
        return Rendered(
            caption + what_was_run(rows),
            rows,
            columns,
            lambda figure: charts.against_angle(figure, rows),
            used,
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
            # Of runs begun before it was measured nobody knows how long they took to begin.
            found = [
                s for s in matching(results.seeds, recipe) if not math.isnan(s.seconds_to_start)
            ]
            rows.append(
                summary(recipe, found, results.dataset)
                | _UNPUBLISHED
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
            score("seconds", "seconds", "seconds_std", 0),
            field("wanted s", "goal_seconds", "g"),
            score("to start", "to_start", digits=1),
            field("on", "accelerator"),
        )
        return Rendered(caption + what_was_run(rows), rows, columns, None, used)


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
        caption = (
            f"Updates of the rule, dashed, over BPTT gradients, at beta {asked['beta']:g}; "
            f"{numbers['data']['source']} {numbers['verdict']}"
        )
        drawable = (verified.folder / CURVES).exists()
        return Rendered(
            caption,
            rows,
            columns,
            (lambda figure: draw_verification(figure, verified.folder)) if drawable else None,
        )


def paper_items(scope: Scope) -> dict[str, PaperItem]:
    """All there are, by the name under which they are asked for."""
    theorem = {f"figure-theorem-{n.removeprefix('fig-')}": q for n, q in FIGURES.items()}
    return {
        "table-mnist": TableMnist(scope),
        "table-others": TableOthers(scope),
        "table-short": TableShort(scope),
        "figure-angle": FigureAngle(scope),
        "figure-gradient-angle": FigureGradientAngle(scope),
        "figure-contrastive": FigureContrastive(scope),
        "figure-asymmetric": FigureAsymmetric(scope),
        "table-time": TableTime(scope),
        **{
            name: FigureTheorem(
                dataclasses.replace(
                    question,
                    recipe=dataclasses.replace(question.recipe, dataset=scope.dataset),
                )
            )
            for name, question in theorem.items()
        },
    }
