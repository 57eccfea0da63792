"""``eqprop evaluate``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, final

from tyro.conf import Positional, arg

from eqprop.cli.arguments import parse
from eqprop.errors import UsageError, typed
from eqprop.training.runs import read_record


@final
@dataclass(frozen=True)
class EvaluateOptions:
    """What to evaluate."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Run directory."""
    figure: Annotated[Path | None, arg(metavar="FILE")] = None
    """Image to write (.png or .svg): the confusion matrix, or predicted against true values, and
    the worst mistakes, where inputs are pictures.
    """


_ABOUT = """Print loss and error of a run on the test and the training set; the confusion matrix,
the errors by class, and the worst mistakes in the test set. Of its newest checkpoint or, where a
part is held back for validation, of its best epoch."""


def run(args: Sequence[str]) -> None:
    """Evaluates the run that the arguments name."""
    options = parse(EvaluateOptions, args, "eqprop evaluate", _ABOUT)
    if options.figure is not None and options.figure.suffix not in {".png", ".svg"}:
        raise UsageError(f"--figure is {options.figure}: give a name that ends with .png or .svg")
    with typed():
        read_record(options.run)

    from eqprop.training.evaluation import evaluate_run  # loads JAX

    evaluate_run(options.run, options.figure)
