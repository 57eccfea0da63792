"""What was typed: options from dataclasses, by tyro, with one line for each mistake."""

import dataclasses
import itertools
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import tyro

# Tyro has its errors as data in this module only, which it may change: pyproject.toml bounds it.
from tyro import _errors as tyro_errors
from tyro.conf import Positional, Suppress

from eqprop.errors import UsageError, suggest, typed

# Fields that are no options.
_HIDDEN = {*typing.get_args(Positional[int])[1:], *typing.get_args(Suppress[int])[1:]}
HELP = {"-h", "--help"}
"""What asks for help."""
# What other programs call an option, so that it is suggested.
_SYNONYMS = {
    "--learning-rate": "--lr",
    "--learning-rates": "--lr",
    "--eta": "--lr",
    "--wd": "--weight-decay",
    "--layers": "--hidden",
    "--output": "--out",
}


def parse[T](
    kind: type[T], args: Sequence[str], prog: str, about: str, default: T | None = None
) -> T:
    """The dataclass filled in from options, whose help its docstrings are.

    A boolean ``x`` is ``--x`` or ``--no-x``, or ``--x true`` or ``--x false``.

    Raises:
        UsageError: an unknown option, or a value that does not fit.
        SystemExit: with code 0, after ``--help``.
    """

    def refuse(event: tyro_errors.ParseErrorEvent) -> None:
        raise UsageError(f"{_explain(event)} (see {prog} --help)")

    kinds = dict(_options(kind))
    with tyro_errors.on_parse_error(refuse), typed():
        filled, unknown = tyro.cli(
            kind,
            prog=prog,
            description=about,
            args=_flags(args, {name for name, hint in kinds.items() if hint is bool}),
            default=tyro.MISSING_NONPROP if default is None else default,
            return_unknown_args=True,
        )
    if unknown:
        name = unknown[0].partition("=")[0]
        if not name.startswith("--"):
            raise UsageError(f"unexpected {name!r} (see {prog} --help)")
        meant = _SYNONYMS.get(name.replace("_", "-"))
        hint = f"{name!r}: did you mean {meant}?" if meant in kinds else suggest(name, kinds)
        raise UsageError(f"unknown option {hint} (see {prog} --help)")
    return filled


def show_help(kind: type, prog: str, about: str) -> NoReturn:
    """Prints the help of a command, with its options and their defaults, and ends it."""
    parse(kind, ["--help"], prog, about, kind())
    raise SystemExit(0)


def split_name(
    args: Sequence[str], known: Collection[str], prog: str, options: type, about: str
) -> tuple[str, list[str]]:
    """The recipe's name, which comes first in what was typed, and the rest.

    Raises:
        UsageError: something else comes first.
        SystemExit: with code 0, after the help, where nothing or ``--help`` comes first.
    """
    if not args or args[0] in HELP:
        show_help(options, f"{prog} RECIPE", about)
    name, *rest = args
    if name.startswith("-"):
        raise UsageError(f"the recipe comes first: {prog} RECIPE {name} ...")
    require_known("recipe", name, known, f"{prog} --help")
    return name, rest


def require_known(what: str, name: str, known: Collection[str], see: str) -> None:
    """Raises ``UsageError`` for a name that is not among those known."""
    if name not in known:
        raise UsageError(f"unknown {what} {suggest(name, known)} (see {see})")


def require_at_least(least: int, numbers: Mapping[str, int | None]) -> None:
    """Raises ``UsageError`` for the first of these numbers, by option, that is given and lower."""
    for name, number in numbers.items():
        if number is not None and number < least:
            raise UsageError(f"{name} is {number}: give at least {least}")


def listing(abouts: Mapping[str, str]) -> list[str]:
    """A line for each name, with what it is about, for a help text."""
    width = max(map(len, abouts))
    return [f"  {name:{width}}  {about}" for name, about in abouts.items()]


def _explain(event: tyro_errors.ParseErrorEvent) -> str:
    """What is wrong with what was typed, in one line."""
    match event:
        case tyro_errors.InvalidChoice(argument=argument, value=value, choices=choices):
            return f"{argument.display_name()} is {value!r}: choose one of {', '.join(choices)}"
        case tyro_errors.BadValue(argument=argument):
            return f"{argument.display_name()} lacks a value: give {_values(argument)}"
        case tyro_errors.MissingArgs(missing_arguments=missing):
            return f"{', '.join(_missing(it.arg) for it in missing)} is missing: name it"
        case tyro_errors.InstantiationFailure(message=message, argument=argument):
            takes = f"{argument.display_name()} takes {_values(argument)}: " if argument else ""
            return takes + message.partition("\n")[0]
        case _:
            return "that cannot be understood"


def _missing(argument: Any) -> str:
    """What should have been typed, as its help has it: RUN, or --data PATH."""
    flags = () if argument.is_positional() else argument.lowered.name_or_flags[-1:]
    return " ".join((*flags, str(argument.lowered.metavar)))


def _values(argument: Any) -> str:
    """What an option takes, as its help has it."""
    return argument.lowered.metavar.removeprefix("{None}|")


def _options(kind: Any) -> Iterator[tuple[str, Any]]:
    """The options of a dataclass, and of dataclasses in it, with their types."""
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint, *marks = _unwrap(hints[field.name])
        names = (mark.name for mark in marks if getattr(mark, "name", None) is not None)
        called = next(names, field.name).replace("_", "-")
        if _is_hidden(marks):
            continue
        if dataclasses.is_dataclass(hint):
            within = called and f"{called}."
            yield from ((f"--{within}{name[2:]}", inner) for name, inner in _options(hint))
        else:
            yield "--" + called, hint


def hidden_fields(kind: type) -> set[str]:
    """The fields of a dataclass that are no options."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {name for name, hint in hints.items() if _is_hidden(_unwrap(hint)[1:])}


def _is_hidden(marks: Sequence[Any]) -> bool:
    return bool(_HIDDEN.intersection(mark for mark in marks if mark.__hash__))


def _unwrap(hint: Any) -> tuple[Any, ...]:
    """A type, and what it is annotated with."""
    return typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint,)


def _flags(args: Sequence[str], booleans: Collection[str]) -> list[str]:
    """``--x true`` as the flag ``--x``, ``--x false`` as ``--no-x``, where x is boolean."""
    flags: list[str] = []
    for arg in itertools.chain.from_iterable(_split(arg, booleans) for arg in args):
        if flags and flags[-1] in booleans and arg.lower() in {"true", "false"}:
            if arg.lower() == "false":
                flags[-1] = "--no-" + flags[-1].removeprefix("--")
        else:
            flags.append(arg)
    return flags


def _split(arg: str, booleans: Collection[str]) -> tuple[str, ...]:
    name, equals, value = arg.partition("=")
    name = name.replace("_", "-")
    return (name, value) if equals and name in booleans else (arg,)
