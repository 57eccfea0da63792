"""The fields of a recipe as options of a command line."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, final

import tyro

from eqprop.cli.arguments import parse
from eqprop.devices.presets import PRESETS, load_device
from eqprop.errors import UsageError, typed
from eqprop.recipes.recipe import Published, Recipe


@final
@dataclass(frozen=True, kw_only=True)
class RecipeOptions(Recipe):
    """A recipe of which every field is an option."""

    # A model of one's own is a function, and what was published is not up to whoever trains.
    model: tyro.conf.Suppress[tyro.conf.Fixed[str]] = ""
    published: tyro.conf.Suppress[tyro.conf.Fixed[Published | None]] = None


def as_options(recipe: Recipe) -> RecipeOptions:
    """The recipe, as the defaults of its options."""
    return RecipeOptions(**fields_of(recipe))


def changed(recipe: Recipe, words: Sequence[str], prog: str) -> Recipe:
    """The recipe with some of its options given, as ``--beta 0.2``.

    Raises ``UsageError`` for an unknown option, or a value that does not fit.
    """
    recipe, rest = _on_device(as_options(recipe), words)
    return Recipe(**fields_of(parse(RecipeOptions, rest, prog, "", recipe)))


def parse_with_fields[T](
    options: T, fields: Recipe, args: Sequence[str], prog: str, about: str
) -> tuple[T, Recipe]:
    """The options of a command, and the recipe, from what was typed in any order. What is given
    are the defaults; the class of ``fields`` says which fields of a recipe are options.

    Raises ``UsageError`` for an unknown option, or a value that does not fit.
    """
    fields, args = _on_device(fields, args)
    parts = {"options": options, "fields": fields}
    both = dataclasses.make_dataclass(
        "Typed",
        [(name, Annotated[type(it), tyro.conf.arg(name="")], it) for name, it in parts.items()],
    )
    filled = parse(both, args, prog, about, both())
    return filled.options, Recipe(**fields_of(filled.fields))


def _on_device[R: Recipe](recipe: R, words: Sequence[str]) -> tuple[R, list[str]]:
    """The recipe on the device that is named, and the other words.

    Raises ``UsageError`` where there is no such device, or it does not fit the recipe.
    """
    rest: list[str] = []
    words = list(words)
    while words:
        word = words.pop(0)
        option, equals, named = word.partition("=")
        if option != "--device":
            rest.append(word)
            continue
        if not equals:
            if not words or words[0].startswith("--"):
                raise UsageError(f"--device lacks a value: give a file, or {', '.join(PRESETS)}")
            named = words.pop(0)
        with typed():
            recipe = dataclasses.replace(recipe, device=load_device(named))
    return recipe, rest


def fields_of(recipe: Recipe) -> dict[str, Any]:
    """The fields of a recipe, by name."""
    return {field.name: getattr(recipe, field.name) for field in dataclasses.fields(Recipe)}
