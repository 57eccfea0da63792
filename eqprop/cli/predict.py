"""``eqprop predict``."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, final

import numpy as np
from tyro.conf import Positional, arg

from eqprop.cli.arguments import parse
from eqprop.errors import UsageError, typed


@final
@dataclass(frozen=True)
class PredictOptions:
    """What to predict, and where to write it."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Run directory, of one seed."""
    data: Path
    """Inputs as they are, not scaled: an .npz file with x, a table with the columns that were
    trained on, an image, or a folder of images.
    """
    out: Path | None = None
    """CSV file to write, over what is there; predictions.csv in the run directory when left out."""


_ABOUT = """Predict the targets of inputs by a trained network, and write them as a table: the class
and the score of each class, of which the largest is predicted; real numbers; or labels, 0 or 1, and
their scores. Rows are counted from 1; images go by the names of their files."""


def run(args: Sequence[str]) -> None:
    """Predicts what the arguments say."""
    options = parse(PredictOptions, args, "eqprop predict", _ABOUT)
    out = options.out or options.run / "predictions.csv"
    if out.suffix.lower() != ".csv":
        raise UsageError(f"--out is {out}: give a name that ends with .csv")
    if out.exists() and options.data.exists() and out.samefile(options.data):
        raise UsageError(f"--out is {out}, which is the data: give another file")

    from eqprop.data.image_folder import image_files
    from eqprop.data.paths import load_inputs
    from eqprop.training.files import write_whole, writing
    from eqprop.training.trained_run import open_run  # loads JAX

    with typed():
        trained = open_run(options.run)
        inputs = load_inputs(options.data, trained.record.data.features)
        scores = trained.scores(inputs)
    table = _columns(trained.predicted(scores), scores, trained.target.names)
    if options.data.is_dir():
        names = [str(file.relative_to(options.data)) for file in image_files(options.data)]
    else:
        names = [str(number) for number in range(1, len(inputs) + 1)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file" if options.data.is_dir() else "row", *table])
    writer.writerows(zip(names, *table.values(), strict=True))
    with writing(out, "give another"):
        write_whole(out, text.getvalue())
    print(f"{len(inputs)} predictions in {out}")


def _columns(
    predicted: np.ndarray, scores: np.ndarray, names: Sequence[str]
) -> dict[str, Sequence[object]]:
    """The columns of the table, by their heads."""
    columns = scores.T.astype(str).tolist()  # as few digits as tell them apart
    if predicted.dtype.kind == "f":
        return dict(zip(names, columns, strict=True))
    each = {f"score {name}": column for name, column in zip(names, columns, strict=True)}
    if predicted.ndim == 1:
        return {"class": predicted.tolist(), **each}
    return {**dict(zip(names, predicted.T.tolist(), strict=True)), **each}
