"""``eqprop evaluate``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, final

from tyro.conf import Positional, arg

from eqprop.cli.arguments import parse
from eqprop.errors import typed
from eqprop.training.runs import read_record


@final
@dataclass(frozen=True)
class EvaluateOptions:
    """What to evaluate."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Run directory."""


_ABOUT = """Print loss and error of a run's newest checkpoint, on the test and the training set."""


def run(args: Sequence[str]) -> None:
    """Evaluates the run that the arguments name."""
    options = parse(EvaluateOptions, args, "eqprop evaluate", _ABOUT)
    with typed():
        read_record(options.run)

    from eqprop.training.launch import evaluate_run  # loads JAX

    evaluate_run(options.run)
