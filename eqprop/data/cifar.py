"""CIFAR-10 and CIFAR-100 in the binary version, from its folder or straight from its archive.

A file is a row of records, of one label byte (CIFAR-100: the coarse label, then the fine one) and
3072 pixels, three planes of 32 rows: red, green, blue (https://www.cs.toronto.edu/~kriz/cifar.html).
The python version has the same as pickles, which could run anything, and is not read.
"""

import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from eqprop.data.files import damaged, reading
from eqprop.errors import EqpropError

_PIXELS = 3 * 32 * 32


@final
@dataclass(frozen=True)
class Cifar:
    """What one of the two data sets is made of, and where it is published."""

    title: str
    classes: int
    train: tuple[str, ...]
    test: str
    images: tuple[int, int]
    """In each training file, in the test file."""
    label_bytes: int
    """Before the pixels of a record; the last of them is the class."""
    folder: str
    """What the archive unpacks to."""
    python: tuple[str, str]
    """Folder and archive of the python version."""
    url: str
    """Of the archive."""
    md5: str
    """Of the archive, as the page of the data set has it."""

    @property
    def archive(self) -> str:
        """The name of the archive."""
        return self.url.rpartition("/")[2]


_PAGE = "https://www.cs.toronto.edu/~kriz/"

CIFAR: Mapping[str, Cifar] = {
    "cifar-10": Cifar(
        title="CIFAR-10",
        classes=10,
        train=tuple(f"data_batch_{n}.bin" for n in range(1, 6)),
        test="test_batch.bin",
        images=(10_000, 10_000),
        label_bytes=1,
        folder="cifar-10-batches-bin",
        python=("cifar-10-batches-py", "cifar-10-python.tar.gz"),
        url=f"{_PAGE}cifar-10-binary.tar.gz",
        md5="c32a1d4ab5d03f1284b67883e8d87530",
    ),
    "cifar-100": Cifar(
        title="CIFAR-100",
        classes=100,
        train=("train.bin",),
        test="test.bin",
        images=(50_000, 10_000),
        label_bytes=2,
        folder="cifar-100-binary",
        python=("cifar-100-python", "cifar-100-python.tar.gz"),
        url=f"{_PAGE}cifar-100-binary.tar.gz",
        md5="03b5dce01913d631647c71ecec9e9cb8",
    ),
}

type Part = tuple[np.ndarray, np.ndarray]
"""Images ``(N, 32, 32, 3)`` and labels ``(N,)``, unsigned bytes."""


def find(cifar: Cifar, folders: Iterable[Path]) -> Path | None:
    """The folder or the archive of the data set in the first of these folders that has one; the
    files may also lie in the folder itself.

    Raises:
        EqpropError: there is nothing but the python version.
    """
    python: list[Path] = []
    for folder in folders:
        unpacked, archive = folder / cifar.folder, folder / cifar.archive
        if (folder / cifar.test).is_file():
            return folder
        if unpacked.is_dir():
            return unpacked
        if archive.is_file():
            return archive
        python += [folder / name for name in cifar.python if (folder / name).exists()]
    if python:
        raise EqpropError(
            f"{python[0]} is the python version of {cifar.title}, pickles that are not read: "
            f"download the binary version, {cifar.url}, and put that archive beside it"
        )
    return None


def read(cifar: Cifar, path: Path) -> tuple[Part, Part]:
    """Training and test part from the folder or the archive. Raises ``EqpropError`` for files that
    are missing or damaged.
    """
    images = dict.fromkeys(cifar.train, cifar.images[0]) | {cifar.test: cifar.images[1]}
    record = cifar.label_bytes + _PIXELS
    with reading(path):
        contents = _contents(path, {name: n * record for name, n in images.items()})
    if missing := [name for name in images if name not in contents]:
        raise damaged(path, f"has no file {missing[0]}")
    *train, test = (_decode(contents[name], cifar.label_bytes) for name in images)
    train_x, train_y = map(np.concatenate, zip(*train, strict=True))
    return (train_x, train_y), test


def _contents(path: Path, sizes: Mapping[str, int]) -> dict[str, bytes]:
    """The files of these names and sizes in a folder or an archive, of which nothing else is read:
    of each its last path component counts.
    """

    def check(name: str, size: int) -> None:
        if size != sizes[name]:
            raise damaged(f"{path}, {name}", f"has {size} bytes, not {sizes[name]}")

    contents: dict[str, bytes] = {}
    if path.is_dir():
        for file in (path / name for name in sizes if (path / name).is_file()):
            check(file.name, file.stat().st_size)
            contents[file.name] = file.read_bytes()
        return contents
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            name = Path(member.name).name
            if name in sizes and member.isfile():
                check(name, member.size)
                file = archive.extractfile(member)
                contents[name] = file.read() if file else b""
    return contents


def _decode(content: bytes, label_bytes: int) -> Part:
    records = np.frombuffer(content, np.uint8).reshape(-1, label_bytes + _PIXELS)
    planes = records[:, label_bytes:].reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, label_bytes - 1].copy()
