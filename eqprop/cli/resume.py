"""``eqprop resume``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, final

from tyro.conf import Positional, arg

from eqprop.cli.arguments import parse
from eqprop.errors import typed
from eqprop.training.hardware import DEFAULT, Hardware
from eqprop.training.runs import read_record


@final
@dataclass(frozen=True)
class ResumeOptions:
    """What to go on with."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Run directory."""
    epochs: int | None = None
    """Train up to this many epochs in all, instead of what the recipe says."""
    hardware: Annotated[Hardware, arg(name="")] = DEFAULT


_ABOUT = """Go on with a training that was stopped, from its newest checkpoint. The result is, to
the last bit, that of a training that was not stopped."""


def run(args: Sequence[str]) -> None:
    """Resumes the run that the arguments name."""
    options = parse(ResumeOptions, args, "eqprop resume", _ABOUT)
    with typed():
        read_record(options.run)

    from eqprop.training.launch import resume  # loads JAX

    resume(options.run, options.epochs, ["eqprop", "resume", *args], options.hardware)
