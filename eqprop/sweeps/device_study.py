"""What a network would learn on a device: ``eqprop device``.

Each imperfection alone, less and more of it, and all together; trained on the device (in situ), and
trained without it and then programmed (offline); and the rules that a device might use. Every
training is an ordinary run directory, so the study goes on where it was stopped:

- a run directory for each training, such as ``write_noise-x4``
- ``device.md``, ``device.csv``, ``device.json``, ``device.png``, ``device.svg``: what was found
"""

import dataclasses
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from eqprop.data.dataset import Dataset
from eqprop.data.targets import Classes
from eqprop.devices.record import IDEAL, Device
from eqprop.devices.severity import alone, scaled, together
from eqprop.errors import EqpropError, typed
from eqprop.recipes.catalogue import RECIPES
from eqprop.recipes.recipe import Recipe
from eqprop.reports import charts
from eqprop.reports.tables import Row, as_csv, averaged, field, markdown, score
from eqprop.sweeps.here import work_here
from eqprop.training.figures import new_figure, save
from eqprop.training.files import write_whole
from eqprop.training.metrics import OfExamples, primary
from eqprop.training.planned import PlannedTraining, check_all
from eqprop.training.records import made
from eqprop.training.results import read_run, scores_of
from eqprop.training.run_data import keep
from eqprop.training.runs import is_run, make_folder

TOLERATED = 1.5
"""Times the error of the ideal device that are still borne."""


@final
@dataclass(frozen=True)
class Study:
    """What is to be studied, and where."""

    recipe: Recipe
    """With its device."""
    factors: tuple[float, ...]
    """Sizes of each imperfection, relative to the device's own."""
    seeds: tuple[int, ...]
    out: Path
    dataset: Dataset | None = None
    """Data of one's own; None for those that the recipe names."""

    def __post_init__(self) -> None:
        if not self.recipe.device.effects:
            raise EqpropError(
                "the device is ideal, and nothing is to be found out about it: name one, as "
                "--device reram, or give its fields"
            )
        if not self.factors or any(not math.isfinite(f) or f <= 0 for f in self.factors):
            raise EqpropError(f"factors is {self.factors}: give numbers above 0")

    def members(self) -> dict[str, Recipe]:
        """What is trained, by the name of its directory."""
        recipe, device = self.recipe, self.recipe.device
        found = {"ideal": _on(recipe, IDEAL)}
        # The device as it is comes first: some sizes can be no larger, or no smaller.
        factors = [1.0, *sorted({*self.factors} - {1.0})]
        for name in (*device.effects, "together"):
            for factor in factors:
                part = _on(recipe, _part(device, name, factor))
                if part not in found.values():
                    found[f"{name}-x{factor:g}"] = part
        for way, other in self.ways().items():
            found |= {f"{way}-ideal": _on(other, IDEAL), f"{way}-device": other}
        return found

    def ways(self) -> dict[str, Recipe]:
        """Other ways to learn on the device, as far as the recipe can take them: with a centered
        nudge, continually, with asymmetric EP.
        """
        recipe = self.recipe
        found: dict[str, Recipe] = {}
        for way, fields in _ways(recipe).items():
            try:
                other = dataclasses.replace(recipe, **fields)
            except EqpropError:
                continue
            if other.essence != recipe.essence:
                found[way] = other
        return found


def _part(device: Device, name: str, factor: float) -> Device:
    return together(device, factor) if name == "together" else alone(device, name, factor)


def _on(recipe: Recipe, device: Device) -> Recipe:
    return dataclasses.replace(recipe, device=device)


def _ways(recipe: Recipe) -> dict[str, dict[str, Any]]:
    # The rates of continual rules are others: those that were published with these, or a tenth.
    base, continual = RECIPES.get(recipe.name), RECIPES.get(f"c-{recipe.name}")
    lr = tuple(rate / 10 for rate in recipe.lr)
    if base and continual and recipe.lr == base.lr:
        lr = continual.lr
    alike = {"lr": lr, "nudge": "one-sided", "nudged_sweeps": False, "hold": False}
    plain = {"optimizer": "sgd", "weight_decay": 0.0}
    return {
        "centered": {"nudge": "centered"},
        "one-sided": {"nudge": "one-sided"},
        "continual": {"rule": f"c-{recipe.rule}", **alike, **plain},
        "asymmetric": {"rule": "aep", "nudged_sweeps": False, "hold": False},
    }


def study(asked: Study, command: Sequence[str]) -> None:
    """Trains what has not ended, programs the ideal network, and writes the page after each.

    Raises:
        Stopped: a signal came.
        EqpropError: a member could not be trained; a divergence is a result.
    """
    members = asked.members()
    data = asked.dataset and keep(asked.dataset, asked.recipe, asked.out)
    trainings = {
        name: PlannedTraining(recipe, asked.seeds, asked.out / name, data)
        for name, recipe in members.items()
    }
    with typed():
        check_all(trainings)
    ended = sum(planned.ended for planned in trainings.values())
    print(f"{len(trainings)} trainings, {ended} of them ended", flush=True)
    page = _Page(asked, trainings, command)
    work_here(trainings, command, page.write)
    if not trainings["ideal"].diverged:
        print("programming the ideal network", flush=True)
        page.program()
    page.write()
    for line in page.verdict():
        print(line)
    print(f"all of it in {asked.out / 'device.md'}")


@final
class _Page:
    """What a study has found so far."""

    def __init__(
        self, asked: Study, trainings: Mapping[str, PlannedTraining], command: Sequence[str]
    ) -> None:
        self._asked, self._trainings = asked, trainings
        self._command, self._made = shlex.join(command), dataclasses.asdict(made(command))
        self._offline: dict[str, list[float]] = {}

    def program(self) -> None:
        """Sets devices to the weights of the ideal network, and tests them."""
        from eqprop.training.evaluation import program_run  # loads JAX

        ideal = self._trainings["ideal"]
        for name, planned in self._trainings.items():
            if not _is_way(name) and name != "ideal":
                self._offline[name] = program_run(ideal.folder, planned.recipe)

    def write(self) -> None:
        """Writes the page, the numbers and the curves."""
        out, rows, ways = make_folder(self._asked.out), self._rows(), self._ways()
        metric = self._metric
        title = f"{self._asked.recipe.name} on {self._asked.recipe.device.title}"
        what = metric.title or metric.name
        device = self._asked.recipe.device
        columns = (
            field("imperfection", "imperfection"),
            field("times the device's", "factor", "g"),
            field("value", "value", ".4g"),
            score(f"in situ, {what}", "score", "score_std", metric.form),
            score(f"offline, {what}", "offline", "offline_std", metric.form),
            field("", "end"),
        )
        of_ways = (
            field("way to learn", "way"),
            score(f"ideal, {what}", "ideal", "ideal_std", metric.form),
            score(f"on the device, {what}", "score", "score_std", metric.form),
        )
        limits = (
            field("imperfection", "imperfection"),
            field("the device's", "value", ".4g"),
            field("tolerated", "tolerated"),
            score(f"alone, {what}", "score", None, metric.form),
        )
        epochs, seeds = self._asked.recipe.epochs, len(self._asked.seeds)
        page = "\n\n".join(
            [
                f"# {title}",
                f"![{title}](device.png)",
                f"{device.title}{f' ({device.source})' if device.source else ''}; {epochs} "
                f"epoch{'s' * (epochs > 1)}, {seeds} seed{'s' * (seeds > 1)}: a short study tells "
                "an order, not an end. In situ: trained on the device. Offline: trained on an "
                "ideal one, then programmed.",
                *self.verdict(),
                f"## What limits it\n\n{markdown(self._limits(rows), limits)}",
                f"Tolerated is the size at which the error is {TOLERATED:g} times the ideal one, "
                "between the sizes that were tried.",
                f"## Ways to learn\n\n{markdown(ways, of_ways)}",
                f"## Every training\n\n{markdown(rows, columns)}",
                f"Made by `{self._command}`.\n",
            ]
        )
        figure = new_figure()
        charts.over_sizes(figure, rows, what, percent="%" in metric.unit)
        save(figure, out / "device.png", out / "device.svg")
        numbers = {"format": 1, "rows": rows, "ways": ways, "made": self._made}
        write_whole(out / "device.csv", as_csv(rows))
        write_whole(out / "device.json", json.dumps(numbers, indent=2, allow_nan=False) + "\n")
        write_whole(out / "device.md", page)

    def verdict(self) -> list[str]:
        """What it comes to, in words."""
        rows, metric = self._rows(), self._metric

        def said(score: float | None) -> str:
            return "diverged" if score is None else f"{score:{metric.form}}{metric.unit}"

        if any(row["end"] == "not ended" for row in rows):
            return ["The study has not ended."]
        ideal, whole = _row_of(rows, "none", None), _row_of(rows, "together", 1.0)
        lines = [f"Ideal: {said(ideal['score'])}; on the device, in situ: {said(whole['score'])}"]
        lines[0] += "." if whole["offline"] is None else f", offline: {said(whole['offline'])}."
        if ideal["score"] is None:
            return [*lines, "There is nothing to compare with: lower the learning rates."]
        worst = self._limits(rows)[0]
        alone = "diverges" if worst["score"] is None else f"comes to {said(worst['score'])}"
        lines.append(
            f"It is limited most by {worst['imperfection']}, with which alone it {alone}; "
            f"tolerated: {worst['tolerated']}."
            if worst["score"] is None or worst["score"] > ideal["score"]
            else "No imperfection alone makes it worse than the ideal one."
        )
        scored = [way for way in self._ways() if way["score"] is not None]
        best = min(scored, key=lambda way: way["score"], default=None)
        if best and (whole["score"] is None or best["score"] < whole["score"]):
            lines.append(
                f"Of the ways to learn, {best['way']} does best on it, {said(best['score'])}."
            )
        return lines

    @property
    def _metric(self) -> OfExamples:
        dataset = self._asked.dataset
        return primary(type(dataset.target) if dataset else Classes)

    def _score(self, name: str) -> dict[str, Any]:
        planned = self._trainings[name]
        seeds = read_run(planned.folder) if is_run(planned.folder) else []
        finished = [seed for seed in seeds if seed.epochs]
        found = averaged("score", scores_of(finished, self._asked.recipe.measured_part))
        if planned.diverged:
            found["score"] = None
        return {**found, "end": planned.end}

    def _rows(self) -> list[dict[str, Any]]:
        device, rows = self._asked.recipe.device, list[dict[str, Any]]()
        for name in self._trainings:
            if _is_way(name):
                continue
            what, _, factor = name.partition("-x")
            sized = what in device.effects
            rows.append(
                {
                    "imperfection": "none" if what == "ideal" else what,
                    "factor": float(factor) if factor else None,
                    "value": scaled(device, what, float(factor)) if sized else None,
                    **self._score(name),
                    **averaged("offline", self._offline.get(name, [])),
                    "run": name,
                }
            )
        order = list(dict.fromkeys(row["imperfection"] for row in rows))
        rows.sort(key=lambda row: (order.index(row["imperfection"]), row["factor"] or 0.0))
        return rows

    def _ways(self) -> list[dict[str, Any]]:
        rows = [{"way": "as the recipe says", **self._pair("ideal", "together-x1")}]
        names = self._asked.ways()
        return rows + [{"way": n, **self._pair(f"{n}-ideal", f"{n}-device")} for n in names]

    def _pair(self, ideal: str, device: str) -> dict[str, Any]:
        without = self._score(ideal)
        return {"ideal": without["score"], "ideal_std": without["score_std"], **self._score(device)}

    def _limits(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """The imperfections, the one that alone does most harm first."""
        ideal = _row_of(rows, "none", None)["score"]
        found: list[dict[str, Any]] = []
        for name in self._asked.recipe.device.effects:
            own = [row for row in rows if row["imperfection"] == name]
            here = _row_of(rows, name, 1.0)
            limit = "not known" if ideal is None else tolerated(own, TOLERATED * ideal)
            found.append(
                {
                    "imperfection": name,
                    "value": here["value"],
                    "tolerated": limit,
                    "score": here["score"],
                    "end": here["end"],
                }
            )
        # What has diverged has no score, and does most harm.
        found.sort(key=lambda row: (row["end"] != "diverged", -(row["score"] or 0.0)))
        return found


def _is_way(name: str) -> bool:
    return name.endswith(("-ideal", "-device"))


def _row_of(rows: Sequence[Row], name: str, factor: float | None) -> Row:
    return next(row for row in rows if row["imperfection"] == name and row["factor"] == factor)


def tolerated(rows: Sequence[Row], limit: float) -> str:
    """The value at which the error crosses a limit, between those of some rows, from the least size
    of an imperfection to the largest, in words; on a logarithmic axis.
    """
    rows = [row for row in rows if row["score"] is not None or row["end"] == "diverged"]
    if not rows:
        return "not known"
    scores = [math.inf if row["score"] is None else row["score"] for row in rows]
    above = [n for n, score in enumerate(scores) if score > limit]
    if not above:
        least, most = rows[0]["value"], rows[-1]["value"]
        return f"{most:.3g} and {'more' if abs(most) >= abs(least) else 'less'}"
    first = above[0]
    if first == 0:
        return f"not even {rows[0]['value']:.3g}"
    before, after = rows[first - 1]["value"], rows[first]["value"]
    if math.isinf(scores[first]) or scores[first] == scores[first - 1]:
        return f"{before:.3g}"
    share = (limit - scores[first - 1]) / (scores[first] - scores[first - 1])
    sign = math.copysign(1, before)
    crossing = sign * math.exp((1 - share) * math.log(abs(before)) + share * math.log(abs(after)))
    return f"{crossing:.2g}"
