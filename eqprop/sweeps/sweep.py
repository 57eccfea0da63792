"""Sweeps as the command runs them: members, each an ordinary run directory, and their table.

- a run directory for each member, such as ``beta-0.2_lr.0-0.05``
- ``sweep.md``, ``sweep.csv``, ``sweep.json``, ``sweep.png``, ``sweep.svg``: the results so far
"""

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from eqprop.errors import EqpropError, typed
from eqprop.reports import charts
from eqprop.reports.tables import TEST, Column, as_csv, error, field, markdown, summary
from eqprop.sweeps.cluster import Workers, work_all
from eqprop.sweeps.space import Member
from eqprop.training.figures import new_figure, save
from eqprop.training.files import write_whole
from eqprop.training.planned import PlannedTraining
from eqprop.training.records import made
from eqprop.training.results import collect, matching
from eqprop.training.runs import is_run, make_folder, read_record


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

    def planned(self) -> dict[str, PlannedTraining]:
        """The training of each member."""
        return {
            name: PlannedTraining(member.recipe, self.seeds, self.out / name)
            for name, member in self.members.items()
        }


def sweep(asked: SweepRun, command: Sequence[str]) -> None:
    """Trains every member that has not ended, and writes the table after each.

    Raises:
        EqpropError: it was stopped, or a member could not be trained; a divergence is a result.
    """
    trainings = asked.planned()
    with typed():
        for planned in trainings.values():
            planned.check()
    table = _Table(asked, trainings, command)
    ended = sum(planned.ended for planned in trainings.values())
    print(f"{len(trainings)} members, {ended} of them ended")
    try:
        if asked.workers:
            work_all(trainings, asked.workers, make_folder(asked.out), command, table.tell)
        else:
            _work_here(trainings, command, table)
    finally:
        table.write()
    print(f"table in {asked.out / 'sweep.md'}")


def _work_here(
    trainings: Mapping[str, PlannedTraining], command: Sequence[str], table: "_Table"
) -> None:
    from eqprop.training.session import Stopped  # loads JAX

    for number, (name, planned) in enumerate(trainings.items(), 1):
        if planned.ended:
            continue
        print(f"[{number}/{len(trainings)}] {name}", flush=True)
        try:
            planned.work(command)
        except Stopped as stop:
            raise EqpropError(f"{stop}; or with the sweep: {shlex.join(command)}") from stop
        table.write()


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
        row = self._row(name)
        print(f"{name}: {TEST.show(row) or '-'} % test error {row['end']}".rstrip(), flush=True)
        self.write()

    def write(self) -> None:
        """Writes the table and the plot."""
        out, fields = make_folder(self._asked.out), self._asked.fields
        rows = [self._row(name) for name in self._trainings]
        # Best first; what has no result last.
        rows.sort(key=lambda row: (row["test"] is None, row["test"]))
        columns = (
            *(field(name, name) for name in fields),
            field("epochs", "most_epochs_done"),
            field("seeds", "seeds"),
            TEST,
            error("training error %", "training", "training_std"),
            field("minutes", "minutes_a_seed", ".3g"),
            field("", "end"),
            Column("run", lambda row: f"[{row['run']}]({row['run']})"),
        )
        finished = sum(planned.ended for planned in self._trainings.values())
        caption = (
            f"{self._asked.name} over {', '.join(fields)}: {finished} of {len(rows)} "
            "members have ended. Errors in % after the last epoch, mean ± standard deviation over "
            "seeds; minutes are of one seed. The best of many test errors is lower than the test "
            "error of the best: train it again with other seeds before you report it."
        )
        title = f"Sweep of {self._asked.name}"
        page = f"# {title}\n\n![{title}](sweep.png)\n\n{caption}\n\n{markdown(rows, columns)}"
        numbers = {"format": 1, "caption": caption, "rows": rows, "made": self._made}
        figure = new_figure()
        charts.over_fields(figure, rows, fields)
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
        kept = ("test", "test_std", "training", "training_std", "minutes_a_seed", "seeds")
        end = "diverged" if planned.diverged else "" if planned.ended else "not ended"
        return {
            **self._asked.members[name].values,
            **{key: numbers.get(key) for key in (*kept, "most_epochs_done")},
            "end": end,
            "run": name,
        }
