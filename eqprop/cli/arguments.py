"""What was typed: options from dataclasses, by tyro, with one line for each mistake."""

import contextlib
import dataclasses
import io
import itertools
import typing
from collections.abc import Iterator, Sequence
from typing import Any

import tyro

from eqprop.errors import UsageError, suggest, typed


def parse[T](
    kind: type[T], args: Sequence[str], prog: str, about: str, default: T | None = None
) -> T:
    """The dataclass filled in from options, whose help its docstrings are.

    A boolean ``x`` is ``--x`` or ``--no-x``, or ``--x true`` or ``--x false``.

    Raises:
        UsageError: an unknown option, or a value that does not fit.
        SystemExit: with code 0, after ``--help``.
    """
    kinds = dict(_options(kind))
    errors = io.StringIO()
    try:
        # Tyro's own messages are boxes of several lines.
        with contextlib.redirect_stderr(errors), typed():
            filled, unknown = tyro.cli(
                kind,
                prog=prog,
                description=about,
                args=_flags(args, kinds),
                default=tyro.MISSING_NONPROP if default is None else default,
                return_unknown_args=True,
            )
    except SystemExit as end:
        if not end.code:
            raise
        raise UsageError(f"{_unbox(errors.getvalue())} (see {prog} --help)") from None
    if unknown:
        name = unknown[0].partition("=")[0]
        if not name.startswith("--"):
            raise UsageError(f"unexpected {name!r} (see {prog} --help)")
        raise UsageError(f"unknown option {suggest(name, kinds)} (see {prog} --help)")
    return filled


def _options(kind: Any) -> Iterator[tuple[str, Any]]:
    """The options of a dataclass, and of dataclasses in it, with their types."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from _options(hints[field.name])
        else:
            yield "--" + field.name.replace("_", "-"), hints[field.name]


def _flags(args: Sequence[str], kinds: dict[str, Any]) -> list[str]:
    """``--x true`` as the flag ``--x``, ``--x false`` as ``--no-x``, where x is boolean."""
    flags: list[str] = []
    for arg in itertools.chain.from_iterable(_split(arg, kinds) for arg in args):
        if flags and kinds.get(flags[-1]) is bool and arg.lower() in {"true", "false"}:
            if arg.lower() == "false":
                flags[-1] = "--no-" + flags[-1].removeprefix("--")
        else:
            flags.append(arg)
    return flags


def _split(arg: str, kinds: dict[str, Any]) -> tuple[str, ...]:
    name, equals, value = arg.partition("=")
    name = name.replace("_", "-")
    return (name, value) if equals and kinds.get(name) is bool else (arg,)


def _unbox(text: str) -> str:
    """What a box of tyro's says between its title and the next rule, in one line."""
    lines = [line.strip("│|╭╮╰╯ ") for line in text.strip().splitlines()[1:]]
    # Where the terminal has no UTF-8 there is a rule below the title, and no frame.
    words = itertools.dropwhile(_is_rule, lines)
    message = " ".join(itertools.takewhile(lambda line: not _is_rule(line), words))
    return message.removesuffix(".") or "that cannot be understood"


def _is_rule(line: str) -> bool:
    return set(line) <= {"─", "-"}
