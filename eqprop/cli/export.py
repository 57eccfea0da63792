"""``eqprop export``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, final

from tyro.conf import Positional, arg

from eqprop.cli.arguments import parse
from eqprop.errors import typed


@final
@dataclass(frozen=True)
class ExportOptions:
    """What to write, and where."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Run directory, of one seed."""
    file: Annotated[Positional[Path], arg(metavar="FILE")]
    """File to write, over what is there: .safetensors or .npz."""


_ABOUT = """Write the weights of a trained network with their names, W1, b1 and so on, what inputs
and targets were scaled by, and the recipe, as .safetensors or as .npz of NumPy."""


def run(args: Sequence[str]) -> None:
    """Exports the run that the arguments name."""
    options = parse(ExportOptions, args, "eqprop export", _ABOUT)

    from eqprop.training.trained_run import open_run  # loads JAX

    with typed():
        file = open_run(options.run).export(options.file)
    print(f"weights in {file}")
