"""``eqprop report``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, final

from tyro.conf import Positional, arg

from eqprop.cli.arguments import parse
from eqprop.errors import UsageError, typed
from eqprop.reports.groups import expand


@final
@dataclass(frozen=True)
class ReportOptions:
    """What to report."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN ...")]
    """Run directories, or directories of these. Runs of one recipe, on the same data, are taken
    together as its seeds.
    """
    out: Path | None = None
    """HTML file to write, over what is there; report.html in the (first) run directory when left
    out.
    """
    theorem: bool = True
    """Measure Theorem 1 on each network, which takes some seconds."""
    mistakes: bool = True
    """Test each network again, for the confusion matrix and the worst mistakes."""
    example: int = 0
    """Test example, from 0, whose relaxation is shown."""


_ABOUT = """Write one HTML page on runs, to be read anywhere, without a network: results beside the
published ones, training curves, mistakes, Theorem 1, angles, filters and receptive fields, a
relaxation, the configuration, and how to reproduce it all. What needs a checkpoint is left out
where there is none."""


def run(args: Sequence[str]) -> None:
    """Reports on the runs that the arguments name."""
    options = parse(ReportOptions, args, "eqprop report", _ABOUT)
    if not options.runs:
        raise UsageError("name a run directory: eqprop report RUN ... (see eqprop report --help)")
    if options.example < 0:
        raise UsageError(f"example is {options.example}: count from 0")
    out = options.out or options.runs[0] / "report.html"
    if out.suffix.lower() not in {".html", ".htm"}:
        raise UsageError(f"--out is {out}: give a name that ends with .html")
    with typed():
        for folder in options.runs:
            expand(folder)

    from eqprop.reports.page import compose, make_place, write  # loads JAX
    from eqprop.training.display import Display, Stopwatch

    with typed():
        make_place(out)
    display, watch = Display(), Stopwatch()
    command = ["eqprop", "report", *args]
    page = compose(
        options.runs,
        command,
        display,
        example=options.example,
        theorem=options.theorem,
        mistakes=options.mistakes,
    )
    write(page, out)
    display.say(f"report in {out}; {watch.seconds:.1f} s")
