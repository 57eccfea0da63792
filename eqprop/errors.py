"""Errors that a user can act on."""


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
