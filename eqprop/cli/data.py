"""``eqprop data``."""

import dataclasses
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, final

from tyro.conf import Positional, arg

from eqprop.cli.arguments import parse
from eqprop.cli.recipe_options import changed
from eqprop.errors import UsageError, typed
from eqprop.recipes.catalogue import RECIPES
from eqprop.recipes.recipe import Recipe

if TYPE_CHECKING:
    from eqprop.data.dataset import Dataset

_COLUMNS = 80
_MOST_ROWS = 20  # of a table


@final
@dataclass(frozen=True)
class SplitOptions:
    """What is learnt of data of one's own, and on which part it is tested."""

    target: str | None = None
    """Column of the targets in a table, or several with commas between. Left out: one called
    target, label, class or y, else the last one.
    """
    without: str | None = None
    """Columns of a table that are not learnt from, with commas between."""
    target_kind: Literal["auto", "classes", "real", "labels"] = "auto"
    """What the targets of arrays and tables are, where they do not tell: up to 20 different
    integers may be real numbers.
    """
    test_size: float = 0.2
    """Part that is drawn for testing, or number of examples, where the data are not split."""
    split_seed: int = 0
    """The seed of that draw."""


DEFAULT_SPLIT = SplitOptions()


@final
@dataclass(frozen=True)
class DataOptions:
    """What to show."""

    path: Annotated[Positional[str], arg(metavar="PATH")]
    """Data of your own, or the name of a data set."""
    split: Annotated[SplitOptions, arg(name="")] = DEFAULT_SPLIT


_ABOUT = """Show what would be trained on. PATH is an .npz file (x and y, or x_train, y_train,
x_test and y_test), a table with a header (.csv, .tsv, .parquet), a folder with a folder of images
for each class, or a folder of IDX files, as those of MNIST."""


def run(args: Sequence[str]) -> None:
    """Prints what is at the path that the arguments name."""
    options = parse(DataOptions, args, "eqprop data", _ABOUT)

    import numpy as np

    from eqprop.data.named import load
    from eqprop.data.targets import summary_of

    name = options.path
    dataset = load(name) if is_name(name) else load_own(name, options.split)
    x, bytes_ = dataset.train_x, dataset.train_x.dtype == np.uint8
    shape = " x ".join(map(str, dataset.shape))
    scaled = "0 ... 255 to 0 ... 1" if bytes_ else "each feature to mean 0, standard deviation 1"
    _say("data", f"{dataset.name}: {dataset.source}")
    _say("target", dataset.target.about)
    _say("inputs", f"{shape} {'bytes' if bytes_ else 'numbers'}")
    _say("examples", f"{len(x)} for training, {len(dataset.test_x)} for testing")
    _say("scaling", f"{scaled}, unless another is chosen")
    _table(dataset.target.summary(dataset.train_y, dataset.test_y))
    features = dataset.features or tuple(f"x{n}" for n in range(x.shape[1]))
    inputs, names = (x, features) if x.ndim == 2 else (x.reshape(-1, 1), ("all",))
    _table(summary_of("input", names, inputs))


def is_name(typed_: str) -> bool:
    """Whether what was typed for data is the name of a data set, and no path."""
    from eqprop.data.named import NAMES

    return typed_ in NAMES and not Path(typed_).exists()


def choose_data(
    path: str | None, split: SplitOptions, recipe: Recipe, command: str
) -> tuple[Recipe, "Dataset | None"]:
    """What ``--data`` and its options make of a recipe: the recipe with the data set that is named,
    or on data of one's own, and these.

    Raises ``UsageError`` where they are no data, or the options do not go together.
    """
    if path is not None and recipe.dataset not in {path, "own", RECIPES[recipe.name].dataset}:
        raise UsageError(
            f"--data {path} and --dataset {recipe.dataset} name two data sets: leave one out"
        )
    if path is not None and not is_name(path):
        return dataclasses.replace(recipe, dataset="own"), load_own(path, split)
    if split != DEFAULT_SPLIT:
        raise UsageError(
            "--target, --without, --target-kind, --test-size and --split-seed are for a file: "
            "--data PATH"
        )
    if path is not None:
        recipe = changed(recipe, ["--dataset", path], command)
    if recipe.dataset == "own":
        raise UsageError("the data set is own: name its file, --data PATH")
    return recipe, None


def load_own(path: str, split: SplitOptions) -> "Dataset":
    """The data at a path. Raises ``UsageError`` that says what is wrong with them, and where."""
    from eqprop.data.paths import load_path
    from eqprop.data.targets import KINDS

    with typed():
        return load_path(
            path,
            target=split.target,
            without=split.without,
            kind=None if split.target_kind == "auto" else KINDS[split.target_kind],
            test_size=split.test_size,
            seed=split.split_seed,
        )


def _say(what: str, text: str) -> None:
    print(textwrap.fill(f"{what:10}{text}", _COLUMNS, subsequent_indent=" " * 10))


def _table(rows: Sequence[Sequence[str]]) -> None:
    """A table with its heads; the first rows of many, and long names cut."""
    few = rows[: _MOST_ROWS + 1]
    widths = [max(map(len, column)) for column in zip(*few, strict=True)]
    widths[0] = min(widths[0], _COLUMNS - sum(widths[1:]) - 2 * len(widths))
    print()
    for name, *numbers in few:
        print("  ".join([f"{name[: widths[0]]:{widths[0]}}", *map(str.rjust, numbers, widths[1:])]))
    if len(rows) > len(few):
        print(f"... and {len(rows) - len(few)} more")
