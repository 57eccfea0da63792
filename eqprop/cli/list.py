"""``eqprop list``."""

import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from eqprop.cli.arguments import parse
from eqprop.recipes.catalogue import RECIPES
from eqprop.recipes.recipe import Published
from eqprop.recipes.series import SERIES

_NOT_A_TERMINAL = 1000  # columns: what reads a pipe takes lines of any length


@final
@dataclass(frozen=True)
class ListOptions:
    """No options."""


def run(args: Sequence[str]) -> None:
    """Prints the recipes with the results published for them."""
    about = "List the recipes, with the published results."
    parse(ListOptions, args, "eqprop list", about, ListOptions())
    rows = [("recipe", "what", f"{'epochs':>6}  {'test error':>13}  {'train error':>11}")]
    for name, recipe in RECIPES.items():
        test, train = errors(recipe.published)
        rows.append((name, recipe.about, f"{recipe.epochs:6}  {test:>13}  {train:>11}"))
    rows += [(name, series.about, "") for name, series in SERIES.items()]
    wide, width, _ = (max(len(row[column]) for row in rows) for column in range(3))
    columns = shutil.get_terminal_size((_NOT_A_TERMINAL, 0)).columns
    for name, what, numbers in rows:
        if wide + width + len(rows[0][2]) + 4 <= columns:
            print(f"{name:{wide}}  {what:{width}}  {numbers}".rstrip())
        else:
            print(f"{name:{wide}}  {numbers}".rstrip())
            print(
                textwrap.fill(what, max(columns, 20), initial_indent="  ", subsequent_indent="  ")
            )
    print("\nErrors as reported in arXiv:2005.04169, mean ± std of 5 runs on MNIST.")
    print("Train one: eqprop train RECIPE; its settings: eqprop train RECIPE --help")
    print("All in a table, and the paper's figures: eqprop reproduce --help")
    print("The papers' figures on Theorem 1: eqprop verify --help")


def errors(published: Published | None) -> tuple[str, str]:
    """Published test and training error."""
    if published is None:
        return "-", "-"
    train = "-" if published.train is None else f"{published.train:.2f} %"
    return f"{published.test:.2f} ± {published.std:.2f} %", train
