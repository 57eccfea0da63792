"""Errors that a user can act on."""


class EqpropError(ValueError):
    """Base of every user-facing error: one line that names the value and the remedy."""
