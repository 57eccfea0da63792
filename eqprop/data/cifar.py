"""CIFAR-10 and CIFAR-100 in the files in which they are published.

The binary version has records of one label byte (CIFAR-100: the coarse label, then the fine one)
and 3072 pixels, three planes of 32 rows: red, green, blue (https://www.cs.toronto.edu/~kriz/
cifar.html). The python version has the same in pickled dictionaries, read by ``pickled.py``.
Either is read from its folder or straight from its archive.
"""

import tarfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, final

import numpy as np

from eqprop.data.pickled import read_pickled
from eqprop.errors import EqpropError

_PIXELS = 3 * 32 * 32
_AGAIN = "copy or download it again"


@final
@dataclass(frozen=True)
class Cifar:
    """What one of the two data sets is made of. The files are named without ``.bin``."""

    title: str
    classes: int
    train: tuple[str, ...]
    test: str
    images: tuple[int, int]
    """In each training file, in the test file."""
    label_bytes: int
    """Before the pixels of a record; the last of them is the class."""
    key: str
    """Of the labels in the python version."""
    binary: str
    """The folder of the binary version."""
    python: str
    """The folder of the python version."""
    archives: tuple[str, str]
    """Of these folders."""
    url: str
    md5: str
    """Of the binary version's archive, as the page of the data set has it."""


_PAGE = "https://www.cs.toronto.edu/~kriz/"

CIFAR: Mapping[str, Cifar] = {
    "cifar-10": Cifar(
        title="CIFAR-10",
        classes=10,
        train=tuple(f"data_batch_{n}" for n in range(1, 6)),
        test="test_batch",
        images=(10_000, 10_000),
        label_bytes=1,
        key="labels",
        binary="cifar-10-batches-bin",
        python="cifar-10-batches-py",
        archives=("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"),
        url=f"{_PAGE}cifar-10-binary.tar.gz",
        md5="c32a1d4ab5d03f1284b67883e8d87530",
    ),
    "cifar-100": Cifar(
        title="CIFAR-100",
        classes=100,
        train=("train",),
        test="test",
        images=(50_000, 10_000),
        label_bytes=2,
        key="fine_labels",
        binary="cifar-100-binary",
        python="cifar-100-python",
        archives=("cifar-100-binary.tar.gz", "cifar-100-python.tar.gz"),
        url=f"{_PAGE}cifar-100-binary.tar.gz",
        md5="03b5dce01913d631647c71ecec9e9cb8",
    ),
}

type Part = tuple[np.ndarray, np.ndarray]
"""Images ``(N, 32, 32, 3)`` and labels ``(N,)``, unsigned bytes."""

type _Decode = Callable[[bytes, Cifar, int, str], Part]


class Place(NamedTuple):
    """Where a data set is, and how it is written there."""

    path: Path
    suffix: str
    decode: _Decode


def find(cifar: Cifar, folders: Iterable[Path]) -> Place | None:
    """The first of these folders with the data set in it: in either version, unpacked or not, also
    with the files of the binary version laid in the folder itself.
    """
    for folder in folders:
        places = (
            Place(folder / cifar.binary, ".bin", decode_binary),
            Place(folder / cifar.archives[0], ".bin", decode_binary),
            Place(folder / cifar.python, "", decode_python),
            Place(folder / cifar.archives[1], "", decode_python),
        )
        if (folder / f"{cifar.test}.bin").is_file():
            return Place(folder, ".bin", decode_binary)
        for place in places:
            if place.path.is_file() if place.path.suffix else place.path.is_dir():
                return place
    return None


def read(cifar: Cifar, place: Place) -> tuple[Part, Part]:
    """Training and test part. Raises ``EqpropError`` for files that are missing or damaged."""
    counts = dict.fromkeys(cifar.train, cifar.images[0]) | {cifar.test: cifar.images[1]}
    names = {stem: f"{stem}{place.suffix}" for stem in counts}
    # The python version spells out file names and labels: some 50 bytes an image.
    limit = max(cifar.images) * (_PIXELS + 1000)
    try:
        contents = _contents(place.path, list(names.values()), limit)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise EqpropError(f"{place.path} cannot be read ({error}); {_AGAIN}") from error
    if missing := [name for name in names.values() if name not in contents]:
        raise EqpropError(f"{place.path} has no file {missing[0]}; {_AGAIN}")
    parts = {
        stem: place.decode(contents.pop(name), cifar, counts[stem], f"{place.path}, {name}")
        for stem, name in names.items()
    }
    test = parts.pop(cifar.test)
    images, labels = zip(*parts.values(), strict=True)
    return (np.concatenate(images), np.concatenate(labels)), test


def _contents(place: Path, names: Sequence[str], limit: int) -> dict[str, bytes]:
    """The named files of a folder or of an archive: of each its last path component counts."""
    if place.is_dir():
        found = {name: place / name for name in names if (place / name).is_file()}
        sizes = {name: path.stat().st_size for name, path in found.items()}
        _check_sizes(place, sizes, limit)
        return {name: path.read_bytes() for name, path in found.items()}
    contents: dict[str, bytes] = {}
    with tarfile.open(place, "r:gz") as archive:
        for member in archive:
            name = Path(member.name).name
            if name in names and member.isfile():
                _check_sizes(place, {name: member.size}, limit)
                file = archive.extractfile(member)
                contents[name] = file.read() if file else b""
    return contents


def _check_sizes(place: Path, sizes: Mapping[str, int], limit: int) -> None:
    for name, size in sizes.items():
        if size > limit:
            raise EqpropError(f"{place}, {name} has {size} bytes, more than {limit}; {_AGAIN}")


def decode_binary(content: bytes, cifar: Cifar, images: int, name: str) -> Part:
    """Images and labels from the records of a file of the binary version."""
    record = cifar.label_bytes + _PIXELS
    if len(content) != images * record:
        raise EqpropError(
            f"{name} has {len(content)} bytes, not {images * record}: {images} records of "
            f"{record}; {_AGAIN}"
        )
    records = np.frombuffer(content, np.uint8).reshape(images, record)
    return _images(records[:, cifar.label_bytes :]), records[:, cifar.label_bytes - 1].copy()


def decode_python(content: bytes, cifar: Cifar, images: int, name: str) -> Part:
    """Images and labels from a file of the python version."""
    batch = read_pickled(content, name)
    pixels, labels = batch.get("data"), batch.get(cifar.key)
    if not isinstance(pixels, np.ndarray) or pixels.shape != (images, _PIXELS):
        found = getattr(pixels, "shape", None)
        raise EqpropError(f"{name} has data of shape {found}, not ({images}, {_PIXELS}); {_AGAIN}")
    fits = isinstance(labels, list) and len(labels) == images
    if not fits or not all(type(n) is int and 0 <= n < cifar.classes for n in labels or ()):
        raise EqpropError(
            f"{name} has no list {cifar.key!r} of {images} labels from 0 to {cifar.classes - 1}; "
            f"{_AGAIN}"
        )
    return _images(pixels), np.array(labels, np.uint8)


def _images(pixels: np.ndarray) -> np.ndarray:
    """From planes to ``(N, 32, 32, 3)``."""
    return np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
