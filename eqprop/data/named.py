"""Data sets: MNIST, Fashion-MNIST, CIFAR-10 and -100, SVHN, scikit-learn's digits, and your own
images in IDX files.
"""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from eqprop.data import cifar
from eqprop.data.dataset import Dataset
from eqprop.data.files import (
    download,
    fetch,
    first_file,
    folders,
    other_than_published,
    reading,
)
from eqprop.data.idx import header, parse_idx, read_idx, sha256
from eqprop.data.targets import Classes
from eqprop.errors import DataUnavailable, EqpropError

_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_AXES = (3, 1, 3, 1)


@final
@dataclass(frozen=True)
class _Published:
    """A data set on public mirrors; `sha256` is of the uncompressed files, in order of `_FILES`.

    The mirrors gzip the same content differently, so only the content can be checked.
    """

    title: str
    mirrors: tuple[str, ...]
    sha256: tuple[str, ...]


_PUBLISHED: Mapping[str, _Published] = {
    "mnist": _Published(
        "MNIST",
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    "fashion-mnist": _Published(
        "Fashion-MNIST",
        (
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
}

_SVHN = "http://ufldl.stanford.edu/housenumbers/"

SVHN_FILES = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}
"""The files of SVHN and their MD5, which its page does not have: those that torchvision checks."""

NAMES = (*_PUBLISHED, *cifar.CIFAR, "svhn", "digits")
"""The names that `load` knows."""


def load(name: str, *, fallback: bool = False) -> Dataset:
    """The data set of that name, one of `NAMES`, with ten classes or, ``cifar-100``, with 100.

    ``mnist`` and ``fashion-mnist`` are 60,000 + 10,000 images of 28x28. Each of their four files is
    sought in ``$EQPROP_DATA_DIR/<name>/``, then in the cache of the operating system, else
    downloaded to that cache; in all cases its content must be the published one. ``digits`` are the
    1,797 images of 8x8 that scikit-learn ships, scaled from 0 ... 16 to 0 ... 255, the first 1,500
    for training. With ``fallback`` they stand in for a data set that is unavailable, and say so in
    ``source``; a file that is there but damaged stays an error.

    ``cifar-10`` and ``cifar-100`` are 50,000 + 10,000 and ``svhn`` 73,257 + 26,032 colour images of
    32x32. They are sought in the same places in the files in which they are published: CIFAR's
    binary version, as its archive or the folder that comes out of it; SVHN's ``train_32x32.mat``
    and ``test_32x32.mat``. Of CIFAR's files the form is checked, and the checksum of an archive
    when it is downloaded.

    Debian's package ``dataset-fashion-mnist`` suits ``EQPROP_DATA_DIR=/usr/share/datasets``.

    Raises:
        DataUnavailable: a file is in neither place, and no mirror served it.
        EqpropError: unknown name; a damaged file; a file that is not the published one.
    """
    if name == "digits":
        return _digits("The 8x8 digits that scikit-learn ships.")
    if name not in NAMES:
        raise EqpropError(f"unknown data set {name!r}: the known ones are {', '.join(NAMES)}")
    try:
        if name in cifar.CIFAR:
            return _load_cifar(name, cifar.CIFAR[name])
        if name == "svhn":
            return _load_svhn()
        return _load_published(name, _PUBLISHED[name])
    except DataUnavailable:
        if not fallback:
            raise
        titles = {key: it.title for key, it in (*_PUBLISHED.items(), *cifar.CIFAR.items())}
        return _digits(
            "The 8x8 digits that scikit-learn ships, standing in for "
            f"{titles.get(name, 'SVHN')}, which was neither found nor downloaded."
        )


def has_idx(folder: Path) -> bool:
    """Whether one of the files that ``load_idx`` reads is there."""
    return any(_find(folder, stem) for stem in _FILES)


def load_idx(folder: Path | str, name: str | None = None) -> Dataset:
    """Your own data set: four IDX files in a folder, named as those of MNIST, gzip'd or not.

    Images may have any size and number, up to 1 GiB a file; ``classes`` is the largest label plus
    one. The name is the folder's unless given.

    Raises:
        EqpropError: a missing or damaged file, or files that do not belong together.
    """
    folder = Path(folder)
    paths = [_find(folder, stem) or folder / stem for stem in _FILES]
    train_x, train_y, test_x, test_y = map(read_idx, paths, _AXES)
    parts = ((train_x, train_y, *paths[:2]), (test_x, test_y, *paths[2:]))
    for images, labels, images_path, labels_path in parts:
        if len(images) != len(labels):
            raise EqpropError(
                f"{labels_path} has {len(labels)} labels for the {len(images)} images of "
                f"{images_path}; copy or download both again"
            )
    classes = 1 + int(max(train_y.max(), test_y.max()))
    source = f"IDX files in {folder}."
    target, name = Classes.of(classes), name or folder.name
    return Dataset(name, train_x, train_y, test_x, test_y, target, source)


def _find(folder: Path, stem: str) -> Path | None:
    return first_file((folder / stem, folder / f"{stem}.gz"))


def _load_published(name: str, published: _Published) -> Dataset:
    places = folders(name)
    arrays: list[np.ndarray] = []
    used: dict[Path, None] = {}  # ordered and without repeats
    for stem, axes, expected in zip(_FILES, _AXES, published.sha256, strict=True):
        found = next(filter(None, (_find(folder, stem) for folder in places)), None)
        path = found or _download(published, places[-1] / stem, axes, expected)
        array = read_idx(path, axes)
        if (actual := sha256(array)) != expected:
            raise other_than_published(path, published.title, actual, expected)
        arrays.append(array)
        used[path.parent] = None
    train_x, train_y, test_x, test_y = arrays
    source = f"{published.title}, IDX files in {' and '.join(map(str, used))}."
    return Dataset(name, train_x, train_y, test_x, test_y, Classes.of(10), source)


def _download(published: _Published, to: Path, axes: int, expected: str) -> Path:
    # Pooch checks and keeps what a downloader stores: the uncompressed content.
    def unpack(url: str, output: str, _pooch: object) -> None:
        packed = fetch(url)
        array = parse_idx(io.BufferedReader(io.BytesIO(packed)), len(packed), axes, url)
        Path(output).write_bytes(header(array.shape) + array.tobytes())

    urls = (f"{mirror}{to.name}.gz" for mirror in published.mirrors)
    return download(urls, f"sha256:{expected}", to, published.title, unpack)


def _load_cifar(name: str, parts: cifar.Cifar) -> Dataset:
    places = folders(name)
    path = cifar.find(parts, places) or download(
        [parts.url], f"md5:{parts.md5}", places[-1] / parts.archive, parts.title
    )
    (train_x, train_y), (test_x, test_y) = cifar.read(parts, path)
    source = f"{parts.title}, {path}."
    return Dataset(name, train_x, train_y, test_x, test_y, Classes.of(parts.classes), source)


def _load_svhn() -> Dataset:
    places = folders("svhn")
    paths = [
        first_file(folder / name for folder in places)
        or download([f"{_SVHN}{name}"], f"md5:{md5}", places[-1] / name, "SVHN")
        for name, md5 in SVHN_FILES.items()
    ]
    (train_x, train_y), (test_x, test_y) = map(_read_svhn, paths)
    where = dict.fromkeys(str(path.parent) for path in paths)
    source = f"SVHN, cropped digits in {' and '.join(where)}."
    return Dataset("svhn", train_x, train_y, test_x, test_y, Classes.of(10), source)


def _read_svhn(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images ``(N, 32, 32, 3)`` and labels ``(N,)``, the digits themselves, from a MATLAB file with
    ``X`` of ``(32, 32, 3, N)`` and ``y`` of ``(N, 1)``, which has 10 for the digit 0.

    SciPy's reader crashes on some damaged files, so it gets to see the published ones only.
    """
    from scipy.io import loadmat  # a slow import, for this data set only

    with reading(path), path.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != SVHN_FILES[path.name]:
        raise other_than_published(path, "SVHN", found, SVHN_FILES[path.name])
    content = loadmat(path, variable_names=["X", "y"])
    images = np.ascontiguousarray(content["X"].transpose(3, 0, 1, 2))
    return images, (content["y"][:, 0] % 10).astype(np.uint8)


def _digits(source: str) -> Dataset:
    from sklearn.datasets import load_digits  # a slow import, for this data set only

    x, y = load_digits(return_X_y=True)
    images = np.rint(np.reshape(x, (-1, 8, 8)) * (255 / 16)).astype(np.uint8)
    labels = np.asarray(y, np.uint8)
    train, test = (images[:1500], labels[:1500]), (images[1500:], labels[1500:])
    return Dataset("digits", *train, *test, Classes.of(10), source)
