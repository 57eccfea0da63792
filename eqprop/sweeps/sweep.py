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
from eqprop.recipes.recipe import Recipe
from eqprop.reports import charts
from eqprop.reports.result_rows import TEST, error, summary
from eqprop.reports.tables import Column, as_csv, field, markdown
from eqprop.sweeps.cluster import Place, work_all
from eqprop.sweeps.space import Sweep
from eqprop.training.planned import Part
from eqprop.training.records import made
from eqprop.training.results import collect, matching
from eqprop.training.runs import is_run, make_folder, read_record, write_whole


@final
@dataclass(frozen=True)
class Request:
    """What is to be swept, and where."""

    recipe: Recipe
    sweep: Sweep
    seeds: tuple[int, ...]
    out: Path
    place: Place | None
    """None for here, one after another."""


def sweep(request: Request, command: Sequence[str]) -> None:
    """Trains every member that has not ended, and writes the table after each.

    Raises:
        EqpropError: it was stopped, or a member could not be trained; a divergence is a result.
    """
    members = request.sweep.members(request.recipe)
    parts = {
        name: Part(recipe, request.seeds, request.out / name)
        for name, (_, recipe) in members.items()
    }
    with typed():
        for part in parts.values():
            part.check()
    values = {name: values for name, (values, _) in members.items()}
    table = _Table(request, parts, values, command)
    print(f"{len(parts)} members, {sum(part.ended for part in parts.values())} of them ended")
    try:
        if request.place:
            work_all(parts, request.place, make_folder(request.out), command, table.tell)
        else:
            _work_here(parts, command, table)
    finally:
        table.write()
    print(f"table in {request.out / 'sweep.md'}")


def _work_here(parts: Mapping[str, Part], command: Sequence[str], table: "_Table") -> None:
    from eqprop.training.session import Stopped  # loads JAX

    for number, (name, part) in enumerate(parts.items(), 1):
        if part.ended:
            continue
        print(f"[{number}/{len(parts)}] {name}", flush=True)
        try:
            part.work(command)
        except Stopped as stop:
            raise EqpropError(f"{stop}; or with the sweep: {shlex.join(command)}") from stop
        table.write()


@final
class _Table:
    """The results of the members, of however many there are."""

    def __init__(
        self,
        request: Request,
        parts: Mapping[str, Part],
        values: Mapping[str, Mapping[str, str]],
        command: Sequence[str],
    ) -> None:
        self._request, self._parts, self._values = request, parts, values
        self._made = dataclasses.asdict(made(command))

    def tell(self, name: str) -> None:
        """Says what a member has come to, and writes the table."""
        row = self._row(name)
        print(f"{name}: {TEST.show(row) or '-'} % test error {row['end']}".rstrip(), flush=True)
        self.write()

    def write(self) -> None:
        """Writes the table and the plot."""
        out = make_folder(self._request.out)
        rows = [self._row(name) for name in self._parts]
        # Best first; what has no result last.
        rows.sort(key=lambda row: (row["test"] is None, row["test"]))
        fields = self._request.sweep.fields
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
        finished = sum(part.ended for part in self._parts.values())
        caption = (
            f"{self._request.recipe.name} over {', '.join(fields)}: {finished} of {len(rows)} "
            "members have ended. Errors in % after the last epoch, mean ± standard deviation over "
            "seeds; minutes are of one seed. The best of many test errors is lower than the test "
            "error of the best: train it again with other seeds before you report it."
        )
        title = f"Sweep of {self._request.recipe.name}"
        page = f"# {title}\n\n![{title}](sweep.png)\n\n{caption}\n\n{markdown(rows, columns)}"
        numbers = {"format": 1, "caption": caption, "rows": rows, "made": self._made}
        figure = charts.new_figure()
        charts.over_fields(figure, rows, fields)
        charts.save(figure, out / "sweep")
        write_whole(out / "sweep.csv", as_csv(rows))
        write_whole(out / "sweep.json", json.dumps(numbers, indent=2, allow_nan=False) + "\n")
        write_whole(out / "sweep.md", page)

    def _row(self, name: str) -> dict[str, Any]:
        part = self._parts[name]
        numbers = {}
        if is_run(part.folder):
            dataset = read_record(part.folder).data.name
            found = matching(collect([part.folder], dataset), part.recipe)
            numbers = summary(part.recipe, found, dataset)
        kept = ("test", "test_std", "training", "training_std", "minutes_a_seed", "seeds")
        end = "diverged" if part.diverged else "" if part.ended else "not ended"
        return {
            **self._values[name],
            **{key: numbers.get(key) for key in (*kept, "most_epochs_done")},
            "end": end,
            "run": name,
        }
