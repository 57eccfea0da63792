"""The fields of a recipe as options of a command line."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tyro

from eqprop.cli.arguments import parse
from eqprop.recipes.recipe import Published, Recipe


@dataclass(frozen=True, kw_only=True)
class RecipeOptions(Recipe):
    """A recipe of which every field is an option."""

    # What was published is not up to whoever trains.
    published: tyro.conf.Suppress[tyro.conf.Fixed[Published | None]] = None


def as_options(recipe: Recipe) -> RecipeOptions:
    """The recipe, as the defaults of its options."""
    return RecipeOptions(**_values(recipe))


def as_recipe(options: RecipeOptions) -> Recipe:
    """The recipe that options have come to."""
    return Recipe(**_values(options))


def changed(recipe: Recipe, words: Sequence[str], prog: str) -> Recipe:
    """The recipe with some of its options given, as ``--beta 0.2``.

    Raises ``UsageError`` for an unknown option, or a value that does not fit.
    """
    return as_recipe(parse(RecipeOptions, words, prog, "", as_options(recipe)))


def _values(recipe: Recipe) -> dict[str, Any]:
    return {field.name: getattr(recipe, field.name) for field in dataclasses.fields(Recipe)}
