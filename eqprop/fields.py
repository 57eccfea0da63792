"""Fields of records: of the types that they are annotated with, whoever made the record."""

import dataclasses
import functools
import inspect
import typing
from typing import Any

from eqprop.errors import EqpropError, suggest


def conform(record: Any, within: str = "") -> None:
    """Gives each field of a frozen dataclass the type that it is annotated with: lists become
    tuples, whole numbers real ones, and numbers and arrays of NumPy those of Python.

    To be called in its ``__post_init__``. Raises ``EqpropError`` for a value of another type, under
    the name of its field after ``within``.
    """
    import msgspec  # which checks records as they are read, too

    for name, kind in _kinds(type(record)).items():
        value = getattr(record, name)
        if dataclasses.is_dataclass(value) and type(value) in (kind, *typing.get_args(kind)):
            continue  # it has seen to itself
        try:
            object.__setattr__(record, name, msgspec.convert(_plain(value), kind))
        except msgspec.ValidationError as error:
            choices = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
            wrong = f"{value!r}: give {inspect.formatannotation(kind)}"
            if kind == tuple[type(value), ...]:
                wrong += f", as ({value!r},)"
            if choices and isinstance(value, str):
                wrong = suggest(value, choices)
            raise EqpropError(f"{within}{name} is {wrong}") from error


@functools.cache
def _kinds(record: type) -> dict[str, Any]:
    """The types of the fields of a dataclass, by name."""
    hints = typing.get_type_hints(record)
    return {field.name: hints[field.name] for field in dataclasses.fields(record)}


def _plain(value: Any) -> Any:
    """Numbers and arrays of NumPy and JAX as those of Python, in tuples and lists, too."""
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value
