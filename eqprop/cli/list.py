"""``eqprop list``."""

from collections.abc import Sequence
from dataclasses import dataclass

from eqprop.cli.arguments import parse
from eqprop.recipes.catalogue import RECIPES, SERIES
from eqprop.recipes.recipe import Published


@dataclass(frozen=True)
class Options:
    """No options."""


def run(args: Sequence[str]) -> None:
    """Prints the recipes with the results published for them."""
    parse(Options, args, "eqprop list", "List the recipes, with the published results.", Options())
    wide = max(map(len, [*RECIPES, *SERIES]))
    width = max(len(recipe.about) for recipe in RECIPES.values())
    heads = f"{'epochs':>6}  {'test error':>13}  {'train error':>11}"
    print(f"{'recipe':{wide}}  {'what':{width}}  {heads}")
    for name, recipe in RECIPES.items():
        test, train = errors(recipe.published)
        print(f"{name:{wide}}  {recipe.about:{width}}  {recipe.epochs:6}  {test:>13}  {train:>11}")
    for name, series in SERIES.items():
        print(f"{name:{wide}}  {series.about}")
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
