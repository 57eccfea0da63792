"""Errors that a user can act on."""

import contextlib
import difflib
from collections.abc import Iterable, Iterator
from typing import final


class EqpropError(ValueError):
    """Base of every user-facing error: one line that names the value and the remedy.

    Line breaks in the message (a quoted error of another library, say) become spaces.
    """

    exit_code: int = 1
    """Of a command that ends with it."""

    def __init__(self, message: str):
        super().__init__(" ".join(line.strip() for line in message.splitlines()))


@final
class Diverged(EqpropError):
    """A training whose numbers are no longer finite; begun again it would end in the same way."""


@final
class DataUnavailable(EqpropError):
    """A data set is neither in the data folder nor in the cache, and no mirror served it."""


@final
class UsageError(EqpropError):
    """What was typed cannot be done."""

    exit_code: int = 2


@contextlib.contextmanager
def typed() -> Iterator[None]:
    """Inside, every ``EqpropError`` is a mistake in what was typed."""
    try:
        yield
    except EqpropError as error:
        raise UsageError(str(error)) from error


def suggest(name: str, known: Iterable[str]) -> str:
    """The name, with those of the known ones that are near to it or that it begins with, word by
    word, or with all of them where none is.
    """
    plain = {_plain(other): other for other in known}
    wanted = _plain(name)
    near = [other for other in plain if wanted.startswith(f"{other}-")]
    near = near or difflib.get_close_matches(wanted, plain, n=3)
    if near:
        return f"{name!r}: did you mean {' or '.join(plain[other] for other in near)}?"
    return f"{name!r}: choose one of {', '.join(plain.values())}"


def _plain(name: str) -> str:
    return name.replace("_", "-").lstrip("-").lower()
