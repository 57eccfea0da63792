"""Reading the IDX format of the MNIST files, without trusting them.

An IDX file (LeCun, Cortes, Burges) is a header, ``0 0 type axes`` and one big-endian 32-bit size
per axis, then the values in C order; type 8 is the unsigned byte, the only one read here. The file
may be gzip'd. A header is believed only as far as the bytes behind it go.
"""

import gzip
import hashlib
import io
import math
import os
import struct
from pathlib import Path

import numpy as np

from eqprop.data.files import damaged, reading
from eqprop.errors import EqpropError
from eqprop.types import Shape, UInt8

MAX_BYTES = 2**30
"""Largest array read, in bytes: data sets are kept whole, on the device too."""

_MAX_DEFLATE = 1032  # DEFLATE cannot compress further than 1032 to 1
_CHUNK = 2**20


def read_idx(path: Path, axes: int) -> UInt8[np.ndarray, "..."]:
    """The unsigned bytes in an IDX file, gzip'd or not, as an array with that many axes.

    Memory stays within some 1100 times the size of the file, and near `MAX_BYTES` at most.

    Raises:
        EqpropError: the file cannot be read, is not such a file, is empty or damaged.
    """
    if not os.path.isfile(path):  # a pipe would wait for ever
        raise EqpropError(f"{path} is not a file; put an IDX file there")
    with reading(path), path.open("rb") as file:
        return parse_idx(file, os.fstat(file.fileno()).st_size, axes, str(path))


def parse_idx(file: io.BufferedReader, size: int, axes: int, name: str) -> UInt8[np.ndarray, "..."]:
    """`read_idx` of an open file of ``size`` bytes, called ``name`` in errors."""
    zipped = file.peek(2)[:2] == b"\x1f\x8b"
    with reading(name, "is damaged gzip" if zipped else "cannot be read"):
        return _parse(gzip.GzipFile(fileobj=file) if zipped else file, size, axes, name)


def sha256(array: UInt8[np.ndarray, "..."]) -> str:
    """SHA-256, in hexadecimal, of the uncompressed IDX file that holds the array."""
    digest = hashlib.sha256(header(array.shape))
    digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def header(shape: Shape) -> bytes:
    """The header of an IDX file of unsigned bytes of that shape."""
    return struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape)


def _parse(stream: io.BufferedIOBase, size: int, axes: int, name: str) -> UInt8[np.ndarray, "..."]:
    head = stream.read(4 + 4 * axes)
    if len(head) != 4 + 4 * axes or head[:4] != bytes((0, 0, 8, axes)):
        raise damaged(name, f"is not an IDX file of unsigned bytes with {axes} axes")
    shape = struct.unpack(f">{axes}I", head[4:])
    promised = math.prod(shape)
    sizes = f"{' x '.join(map(str, shape))} bytes"
    if promised == 0:
        raise damaged(name, f"is empty, {sizes}")
    if promised > size * _MAX_DEFLATE:
        raise damaged(name, f"promises {sizes} and has room for fewer")
    if promised > MAX_BYTES:
        raise EqpropError(f"{name} has {sizes}; split or crop it to at most {MAX_BYTES}")
    values = bytearray()  # grows with what is there, whatever was promised
    # One byte more than promised: it shows a file too long, and brings gzip to its checksum.
    while chunk := stream.read(min(_CHUNK, promised + 1 - len(values))):
        values += chunk
    if len(values) != promised:
        found = "more" if len(values) > promised else f"only {len(values)}"
        raise damaged(name, f"promises {sizes} and holds {found}")
    return np.frombuffer(values, np.uint8).reshape(shape)
