"""Sweeps as the command runs them: members, each an ordinary run directory, and their table.

- a run directory for each member, such as ``beta-0.2_lr.0-0.05``
- ``sweep.md``, ``sweep.csv``, ``sweep.json``, ``sweep.png``, ``sweep.svg``: the results so far
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from eqprop.data.dataset import Dataset
from eqprop.data.targets import Classes
from eqprop.errors import typed
from eqprop.reports import charts
from eqprop.reports.tables import MINUTES, Column, as_csv, field, markdown, score, summary
from eqprop.sweeps.cluster import Workers, work_all
from eqprop.sweeps.here import work_here
from eqprop.sweeps.space import Member
from eqprop.training.figures import new_figure, save
from eqprop.training.files import write_whole
from eqprop.training.metrics import OfExamples, primary, shown
from eqprop.training.planned import PlannedTraining, check_all
from eqprop.training.records import made
from eqprop.training.results import collect, matching
from eqprop.training.run_data import keep
from eqprop.training.runs import is_run, make_folder, read_record

_WHEN = {
    "test": "After the last epoch",
    "validation": "After the epoch that was the best on the part held back for validation",
}
_CHOICE = {
    "test": "The best of many test errors is lower than the test error of the best: train it again "
    "with other seeds before you report it, or choose with --validation.",
    "validation": "The best is first, by the validation part: its test error is an honest one, as "
    "long as none of the others is looked at to choose.",
}


@final
@dataclass(frozen=True)
class SweepRun:
    """What is to be swept, and where."""

    name: str
    """Of the recipe."""
    fields: Sequence[str]
    """What is swept."""
    members: Mapping[str, Member]
    seeds: tuple[int, ...]
    out: Path
    workers: Workers | None
    """None for here, one after another."""
    dataset: Dataset | None = None
    """Data of one's own; None for those that the recipes name."""


def sweep(asked: SweepRun, command: Sequence[str]) -> None:
    """Trains every member that has not ended, and writes the table after each.

    Raises:
        EqpropError: it was stopped, or a member could not be trained; a divergence is a result.
    """
    first = next(iter(asked.members.values())).recipe
    with typed():
        data = asked.dataset and keep(asked.dataset, first, asked.out)
        trainings = {
            name: PlannedTraining(member.recipe, asked.seeds, asked.out / name, data)
            for name, member in asked.members.items()
        }
        check_all(trainings)
    table = _Table(asked, trainings, command)
    ended = sum(planned.ended for planned in trainings.values())
    print(f"{len(trainings)} members, {ended} of them ended")
    try:
        if asked.workers:
            work_all(trainings, asked.workers, make_folder(asked.out), command, table.tell)
        else:
            work_here(trainings, command, table.write)
    finally:
        table.write()
    print(f"table in {asked.out / 'sweep.md'}")


@final
class _Table:
    """The results of the members, of however many there are."""

    def __init__(
        self, asked: SweepRun, trainings: Mapping[str, PlannedTraining], command: Sequence[str]
    ) -> None:
        self._asked, self._trainings = asked, trainings
        self._made = dataclasses.asdict(made(command))

    def tell(self, name: str) -> None:
        """Says what a member has come to, and writes the table."""
        row, metric = self._row(name), self._metric
        found = shown(row["score"], row["score_std"], metric.form) or "-"
        print(f"{name}: {self._part} {metric.title} {found} {row['end']}".rstrip(), flush=True)
        self.write()

    @property
    def _part(self) -> str:
        """Where members are compared: on the part that some hold back, else on the test set."""
        held_back = any(member.recipe.validation for member in self._asked.members.values())
        return "validation" if held_back else "test"

    @property
    def _metric(self) -> OfExamples:
        """What members are compared by: that of the data."""
        dataset = self._asked.dataset
        return primary(type(dataset.target) if dataset else Classes)

    def write(self) -> None:
        """Writes the table and the plot."""
        out, fields = make_folder(self._asked.out), [*map(_column, self._asked.fields)]
        part, metric = self._part, self._metric
        rows = [self._row(name) for name in self._trainings]
        # Best first; what has no result last.
        rows.sort(key=lambda row: (row["score"] is None, row["score"]))

        def scores(head: str, name: str) -> Column:
            return score(f"{head} {metric.title}", name, f"{name}_std", metric.form)

        columns = (
            *(field(name, name) for name in fields),
            field("epochs", "most_epochs_done"),
            field("seeds", "seeds"),
            *([scores("validation", "validation")] if part == "validation" else []),
            scores("test", "test"),
            scores("training", "training"),
            MINUTES,
            field("", "end"),
            Column("run", lambda row: f"[{row['run']}]({row['run']})"),
        )
        finished = sum(planned.ended for planned in self._trainings.values())
        caption = (
            f"{self._asked.name} over {', '.join(fields)}: {finished} of {len(rows)} "
            f"members have ended. {_WHEN[part]}, mean ± standard deviation over seeds; minutes are "
            f"of one seed. {_CHOICE[part]}"
        )
        title = f"Sweep of {self._asked.name}"
        page = f"# {title}\n\n![{title}](sweep.png)\n\n{caption}\n\n{markdown(rows, columns)}"
        numbers = {"format": 1, "caption": caption, "rows": rows, "made": self._made}
        figure = new_figure()
        charts.over_fields(figure, rows, fields, f"{part} {metric.title}")
        save(figure, out / "sweep.png", out / "sweep.svg")
        write_whole(out / "sweep.csv", as_csv(rows))
        write_whole(out / "sweep.json", json.dumps(numbers, indent=2, allow_nan=False) + "\n")
        write_whole(out / "sweep.md", page)

    def _row(self, name: str) -> dict[str, Any]:
        planned = self._trainings[name]
        numbers = {}
        if is_run(planned.folder):
            dataset = read_record(planned.folder).data.name
            found = matching(collect([planned.folder], dataset), planned.recipe)
            numbers = summary(planned.recipe, found, dataset)
        scores = [f"{of}{std}" for of in ("validation", "test", "training") for std in ("", "_std")]
        kept = (*scores, "minutes_a_seed", "accelerator", "seeds", "most_epochs_done")
        part = self._part
        # What a training was worth before it diverged is no result of it.
        compared = {} if planned.diverged else numbers
        return {
            **{_column(k): value for k, value in self._asked.members[name].values.items()},
            **{key: numbers.get(key) for key in kept},
            "score": compared.get(part),
            "score_std": compared.get(f"{part}_std"),
            "end": planned.end,
            "run": name,
        }


def _column(field: str) -> str:
    """The column of what is swept: ``validation`` is that of what was found on that part."""
    return "validation_part" if field == "validation" else field
