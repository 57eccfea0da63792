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
    """A recipe, and the seeds of it by a program that was committed: as it is, or with ``--fast``,
    where that went on for longer.
    """
    return _longest(results, (recipe, fast(recipe)))


def _longest(results: Results, forms: Sequence[Recipe]) -> tuple[Recipe, list[SeedResult]]:
    """The form of a training that went on for longest, and its seeds; the first of equals."""
    committed = [seed for seed in results.seeds if not seed.changed_checkout]
    runs = [(form, matching(committed, form)) for form in forms]
    return max(runs, key=lambda run: max((seed.epochs for seed in run[1]), default=0))


_STEPS = "steps, as published"


@final
@dataclass(frozen=True)
class FigureAngle(PaperItem):
    """C-VF against the initial angle Psi between forward and feedback weights: in a form in which
    free phases settle, and as published.
    """

    scope: Scope
    title = "C-VF: test error against the initial angle between forward and feedback weights"

    def _members(self) -> list[tuple[str, str, Recipe]]:
        # By recipe: with --fast, a form may be the other one.
        members = {
            recipe: (series.base, form)
            for series in SERIES.values()
            if self.scope.allows(series.base)
            for form, base in {_STEPS: RECIPES[series.base], "sweeps": series.settled}.items()
            for recipe in series.members(self.scope.of(base)).values()
        }
        return [(network, form, recipe) for recipe, (network, form) in members.items()]

    @override
    def trainings(self) -> list[Recipe]:
        return [recipe for _, _, recipe in self._members()]

    @override
    def show(self, results: Results) -> Rendered:
        rows, found = _by_angle(self._members(), results)
        # The published value is that of angle 0.
        known = {"angle": 0, "rule": _STEPS}.items()
        rows = [row if known <= row.items() else {**row, **_UNPUBLISHED} for row in rows]
        through = [[_angles(seed) for seed in seeds] for seeds in found]
        caption = (
            f"Test error in % on {results.title} after the last epoch, mean ± standard "
            "deviation over seeds; angles in degrees, before training and (mean) after it. Blank: "
            "not run, or not published. "
        )
        return Rendered(
            caption + what_was_run(rows),
            rows,
            (
                field("network", "network"),
                field("free phase", "rule"),
                field("initial angle", "angle", "g"),
                _AFTER,
                *DONE,
                TEST,
                PUBLISHED,
            ),
            lambda figure: charts.angles_in_training(figure, rows, through),
            [seed for seeds in found for seed in seeds],
        )


_AFTER = field("angle after", "after", ".0f")


def _by_angle(
    members: Sequence[tuple[str, str, Recipe]], results: Results
) -> tuple[list[Row], list[list[SeedResult]]]:
    """Rows and seeds of recipes at initial angles, each with its network and rule."""
    rows: list[Row] = []
    used: list[list[SeedResult]] = []
    for network, rule, recipe in members:
        # Some were trained for longer; rules are compared at equal epochs.
        found = [seed.until(recipe.epochs) for seed in matching(results.seeds, recipe)]
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

    def _points(self) -> dict[Recipe, tuple[Recipe, ...]]:
        """What is verified, and the forms in which it is trained, the first as wanted."""
        rules = [recipe for recipe in self.scope.base() if recipe.rule not in {"bptt", "rbp"}]
        points = {recipe: (recipe, fast(recipe)) for recipe in rules}
        for series in SERIES.values():
            if self.scope.allows(series.base):
                settled = series.members(self.scope.of(series.settled))
                published = series.members(self.scope.of(RECIPES[series.base]))
                points |= {it: (settled[name], it) for name, it in published.items()}
        return points

    @override
    def trainings(self) -> list[Recipe]:
        return [forms[0] for forms in self._points().values()]

    @override
    def verifications(self) -> list[Question]:
        return [_asked_for_an_angle(recipe) for recipe in self._points()]

    @override
    def show(self, results: Results) -> Rendered:
        rows: list[Row] = []
        used: list[SeedResult] = []
        for recipe, forms in self._points().items():
            verified = results.verification(_asked_for_an_angle(recipe))
            angle = verified.numbers["asked"]["together"]["angle"] if verified else None
            form, found = _longest(results, forms)
            turned = f", {recipe.angle:g}°" if recipe.angle else ""
            rows.append(
                summary(form, found, results.dataset)
                | {"gradient_angle": angle, "point": recipe.name + turned}
                # The published value is that of angle 0.
                | (_UNPUBLISHED if turned else {})
            )
            used += found
        caption = (
            "Angle in degrees between the total update of the first minibatch (seed 0, settings as "
            "in training, states not clipped) and the total BPTT gradient, as published; test "
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
        rows, found = _by_angle(self._members(), results)
        rows = [{**row, **_UNPUBLISHED} for row in rows]
        caption = (
            f"Errors in % on {results.title} after the last epoch, mean ± standard deviation over "
            "seeds; angles in degrees, before training and (mean) after it. Blank: not run. "
        )
        columns = (
            field("network", "network"),
            field("rule", "rule"),
            field("initial angle", "angle", "g"),
            _AFTER,
            *DONE,
            TEST,
            score("training error %", "training", "training_std"),
        )
        return Rendered(
            caption + what_was_run(rows),
            rows,
            columns,
            lambda figure: charts.against_angle(figure, rows),
            [seed for seeds in found for seed in seeds],
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
