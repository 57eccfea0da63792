"""Pickled dictionaries of arrays, as CIFAR's python version has them, read without unpickling.

A pickle is a program for a stack machine, and may call anything. Here its instructions are walked
through, ``pickletools.genops`` naming them, by a machine that knows numbers, text, lists, tuples
and dictionaries, and of all there is to call one thing: making a NumPy array of unsigned bytes.
"""

import math
import pickletools
import warnings
from collections.abc import Callable
from typing import Any, final

import numpy as np

from eqprop.errors import EqpropError

_RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_ARRAY, _DTYPE, _ENCODE = "numpy ndarray", "numpy dtype", "_codecs encode"
_KNOWN = (*_RECONSTRUCT, _ARRAY, _DTYPE, _ENCODE)

_VALUES = frozenset(
    {"BININT", "BININT1", "BININT2", "LONG1", "NONE", "NEWTRUE", "NEWFALSE", "SHORT_BINSTRING"}
    | {"BINSTRING", "SHORT_BINBYTES", "BINBYTES", "BINUNICODE", "SHORT_BINUNICODE"}
)
_MARK = object()


@final
class _Made:
    """What a call of ``called`` would have made: its arguments, and then its state."""

    def __init__(self, called: str, arguments: Any = ()) -> None:
        self.called, self.arguments = called, arguments
        self.state: Any = ()


@final
class _Machine:
    """The stack, the memo, and what each instruction does to them."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, name: str, argument: Any) -> None:
        """One instruction. Raises ``ValueError`` for those that are not known here, and whatever
        lists and dictionaries raise where it does not fit what is there.
        """
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _INSTRUCTIONS:
            _INSTRUCTIONS[name](self, argument)
        else:
            raise ValueError(f"it has the instruction {name}")

    def pop_to_mark(self) -> list[Any]:
        at = max(n for n, item in enumerate(self.stack) if item is _MARK)
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def gather(self, items: int) -> None:
        self.stack[-items:] = [tuple(self.stack[-items:])]

    def extend(self, items: list[Any]) -> None:
        self.stack[-1].extend(items)

    def update(self, pairs: list[Any]) -> None:
        self.stack[-1].update(zip(pairs[::2], pairs[1::2], strict=True))

    def look_up(self, named: str) -> None:
        if named not in _KNOWN:
            raise ValueError(f"it wants {named}")
        self.stack.append(_Made(named))

    def reduce(self) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        self.stack.append(_call(called.called, arguments))

    def build(self) -> None:
        state = self.stack.pop()
        self.stack[-1].state = state


_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda m, _: None,
    "FRAME": lambda m, _: None,
    "MARK": lambda m, _: m.stack.append(_MARK),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "TUPLE1": lambda m, _: m.gather(1),
    "TUPLE2": lambda m, _: m.gather(2),
    "TUPLE3": lambda m, _: m.gather(3),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_to_mark())),
    "APPEND": lambda m, _: m.extend([m.stack.pop()]),
    "APPENDS": lambda m, _: m.extend(m.pop_to_mark()),
    "SETITEM": lambda m, _: m.update([m.stack.pop(-2), m.stack.pop()]),
    "SETITEMS": lambda m, _: m.update(m.pop_to_mark()),
    "BINPUT": lambda m, at: m.memo.update({at: m.stack[-1]}),
    "LONG_BINPUT": lambda m, at: m.memo.update({at: m.stack[-1]}),
    "MEMOIZE": lambda m, _: m.memo.update({len(m.memo): m.stack[-1]}),
    "BINGET": lambda m, at: m.stack.append(m.memo[at]),
    "LONG_BINGET": lambda m, at: m.stack.append(m.memo[at]),
    "GLOBAL": lambda m, named: m.look_up(named),
    "STACK_GLOBAL": lambda m, _: m.look_up(f"{m.stack.pop(-2)} {m.stack.pop()}"),
    "REDUCE": lambda m, _: m.reduce(),
    "BUILD": lambda m, _: m.build(),
}


def read_pickled(content: bytes, name: str) -> dict[str, Any]:
    """The dictionary that a pickle of protocol 2 or later holds, its arrays uint8 only.

    Keys may be bytes in the file, and become text. ``name`` stands for the file in errors. Raises
    ``EqpropError`` where the file is damaged, or holds anything else.
    """
    machine = _Machine()
    try:
        with warnings.catch_warnings():
            # Of text with bad escapes, in an instruction that is refused once it has been read.
            warnings.simplefilter("ignore", DeprecationWarning)
            for opcode, argument, _ in pickletools.genops(content):
                if opcode.name == "STOP":
                    break
                machine.run(opcode.name, argument)
        (found,) = machine.stack
        return {_text(key): _value(item) for key, item in found.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise EqpropError(
            f"{name} is not a pickled batch of images ({error}): copy or download it again, or "
            "take the binary version of the data set, whose files end in .bin"
        ) from error


def _call(called: str, arguments: Any) -> Any:
    if called == _ENCODE:  # how Python 3 writes bytes in protocol 2
        text, encoding = arguments
        if encoding != "latin1":
            raise ValueError(f"text in {encoding}")
        return text.encode(encoding)
    return _Made(called, arguments)


def _value(item: Any) -> Any:
    """An array where one was to be made; lists and text as they are."""
    if not isinstance(item, _Made):
        return item
    if item.called not in _RECONSTRUCT:
        raise ValueError(f"it holds a {item.called}")
    _, shape, dtype, by_columns, data = item.state
    if (dtype.called, *map(_text, dtype.arguments[:1])) not in ((_DTYPE, "u1"), (_DTYPE, "uint8")):
        raise ValueError("an array of something else than unsigned bytes")
    raw = data.encode("latin1") if isinstance(data, str) else data
    # Anything else than numbers could multiply to something large.
    if not (len(shape) < 9 and all(type(n) is int for n in shape)):
        raise ValueError("an array of no shape")
    if math.prod(shape) != len(raw):
        raise ValueError(f"an array of shape {shape} in {len(raw)} bytes")
    return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if by_columns else "C")


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin1")
    if not isinstance(value, str):
        raise ValueError(f"{value!r} where text should be")
    return value
