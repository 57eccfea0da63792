"""Errors that a user can act on."""

import contextlib
import difflib
from collections.abc import Iterable, Iterator


class EqpropError(ValueError):
    """Base of every user-facing error: one line that names the value and the remedy.

    Line breaks in the message (a quoted error of another library, say) become spaces.
    """

    def __init__(self, message: str):
        super().__init__(" ".join(line.strip() for line in message.splitlines()))


class Diverged(EqpropError):
    """A training whose numbers are no longer finite; begun again it would end in the same way."""


class DataUnavailable(EqpropError):
    """A data set is neither in the data folder nor in the cache, and no mirror served it."""


class UsageError(EqpropError):
    """What was typed cannot be done: exit code 2."""


@contextlib.contextmanager
def typed() -> Iterator[None]:
    """Inside, every ``EqpropError`` is a mistake in what was typed."""
    try:
        yield
    except EqpropError as error:
        raise UsageError(str(error)) from error


def suggest(name: str, known: Iterable[str]) -> str:
    """The name, with the nearest of those known, or with all of them where none is near."""
    known = list(known)
    near = difflib.get_close_matches(name.replace("_", "-"), known, n=3)
    if near:
        return f"{name!r}: did you mean {' or '.join(near)}?"
    return f"{name!r}: choose one of {', '.join(known)}"
