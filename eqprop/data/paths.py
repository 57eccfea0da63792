"""Data sets of your own from a path: arrays, a table, images in folders or IDX files.

Nothing that is read can run anything: no pickles.
"""

import functools
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from eqprop.data.dataset import Dataset, as_inputs, as_names, in_order
from eqprop.data.files import damaged
from eqprop.data.image_folder import image_files, read_image_folder, read_images
from eqprop.data.named import NAMES, has_idx, load_idx
from eqprop.data.tables import SUFFIXES, read_features, read_table
from eqprop.data.targets import Classes, Target
from eqprop.errors import EqpropError

MAX_FILE = 2**31
"""Largest file read, and largest array in one, in bytes: data sets are kept whole."""

_WHOLE, _SPLIT = ("x", "y"), ("x_train", "y_train", "x_test", "y_test")
_NAMES = ("features", "names")
# What zipfile and NumPy raise for files that are not what they say, or too large.
_DAMAGED = (
    OSError,
    EOFError,
    KeyError,
    MemoryError,
    RuntimeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


def load_path(
    path: Path | str,
    *,
    target: str | None = None,
    without: str | None = None,
    kind: type[Target] | None = None,
    test_size: float | int = 0.2,
    seed: int = 0,
) -> Dataset:
    """The data set at a path.

    - ``.npz``: arrays ``x`` and ``y``, or ``x_train``, ``y_train``, ``x_test`` and ``y_test``; and,
      if you like, ``features`` and ``names``, those of ``Dataset.from_arrays``.
    - ``.csv``, ``.tsv``, ``.parquet``: a table with a header. ``target`` names the column of the
      targets, or several with commas between; without it, that is one called target, label, class
      or y, else the last. ``without`` names those that are left out. Text and up to 20 different
      whole numbers are classes by name. A column of text among the others is a feature for each of
      its values, ``colour=red``.
    - A folder with a folder of images for each class, or with such in ``train`` and in ``test``;
      what is beside these two is not read.
    - A folder of IDX files, as those of MNIST.

    ``kind`` is the kind of target of arrays and tables where another is wanted. What is not split
    yet is, as ``Dataset.from_arrays`` says.

    Raises:
        EqpropError: in one line, what is wrong in which file.
    """
    path = _existing(path)
    suffix = path.suffix.lower()
    for what, columns in (("target", target), ("without", without)):
        if columns is not None and suffix not in SUFFIXES:
            raise EqpropError(
                f"{path} is no table ({', '.join(SUFFIXES)}): leave out {what} {columns!r}"
            )
    if kind not in (None, Classes) and path.is_dir():
        raise EqpropError(
            f"{path} is a folder, whose targets are classes: leave out the kind of target"
        )
    # Never the name of another data set, by which runs would find that one.
    name = path.resolve().stem
    name = f"own-{name}" if name in NAMES else name
    split = functools.partial(
        Dataset.from_arrays, test_size=test_size, seed=seed, name=name, target=kind
    )
    ready = functools.partial(Dataset.from_splits, name=name, target=kind)
    if has_idx(path):
        dataset = load_idx(path, name)
        dataset.check_learnable()
        return dataset
    if path.is_dir():
        source = f"Images in {path}."
        match read_image_folder(path):
            case (train, test):
                return ready(*train, *test, source=source)
            case (images,):
                return split(*images, source=source)
    if suffix == ".npz":
        arrays = _read_npz(path, _WHOLE, _SPLIT)
        features, names = (np.ravel(arrays.pop(key, ())) for key in _NAMES)
        make = split if "x" in arrays else ready
        return make(*arrays.values(), source=f"{path}.", features=features, names=names)
    if suffix not in SUFFIXES:
        raise EqpropError(
            f"{path} is no .npz file, table ({', '.join(SUFFIXES)}) or folder: save the data as one"
        )
    table = read_table(path, target, kind, without)
    source = f"{path}, target {', '.join(table.targets)}."
    if counting := ", ".join(table.counting):
        source += f" NOTE: {counting} counts the rows, and is learnt from: leave it out (--without)"
        source += " unless that is meant."
    return split(
        table.x,
        table.y,
        target=table.kind,
        source=source,
        features=table.features,
        names=table.names,
    )


def load_inputs(path: Path | str, features: tuple[str, ...] = ()) -> np.ndarray:
    """Inputs alone, to predict the targets of: ``x`` of an ``.npz`` file, whose columns go by their
    names, ``features``, if it has them; the columns of a table with these features, or all where
    none are named; an image, or those in a folder, by name.

    Raises:
        EqpropError: in one line, what is wrong in which file.
    """
    path = _existing(path)
    if path.is_dir():
        if not (files := image_files(path)):
            raise EqpropError(f"{path} is empty: put images there")
        return read_images(files)
    if path.suffix.lower() in SUFFIXES:
        return read_features(path, features)
    if path.suffix.lower() == ".npz":
        arrays, where = _read_npz(path, ("x",)), str(path)
        names = as_names(np.ravel(arrays.get("features", ())), where)
        return in_order(as_inputs(arrays["x"], where, names), features, where, names)
    return read_images([path])


def _existing(path: Path | str) -> Path:
    """The path, of a folder or of a file of a kind and size that is read."""
    path = Path(path)
    # Unlike those of pathlib, these bear a name that is too long.
    if not (os.path.isdir(path) or os.path.isfile(path)):
        raise EqpropError(f"{path} is no file and no folder: correct the path")
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise EqpropError(f"the name {str(path)!r} is not in UTF-8: rename it") from error
    if path.is_file() and (size := path.stat().st_size) > MAX_FILE:
        raise EqpropError(f"{path} has {size} bytes: split it or thin it out, to {MAX_FILE}")
    return path


def _read_npz(path: Path, *choices: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The arrays of the first of the choices that an ``.npz`` file has, in order, and of names."""
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {i.filename.removesuffix(".npy"): i.file_size for i in archive.infolist()}
            wanted = next((names for names in choices if sizes.keys() >= {*names}), ())
            wanted = [*wanted, *(name for name in _NAMES if name in sizes)]
            arrays: dict[str, np.ndarray] = {}
            for name in wanted:
                if sizes[name] > MAX_FILE:
                    raise MemoryError(f"{name} has more than {MAX_FILE} bytes")
                with archive.open(f"{name}.npy") as file:
                    arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
    except _DAMAGED as error:
        raise damaged(path, f"cannot be read as .npz ({error})") from error
    if not arrays.keys() - {*_NAMES}:
        needed = " or with ".join(map(", ".join, choices))
        raise EqpropError(f"{path} has arrays {', '.join(sizes) or 'none'}: save it with {needed}")
    if more := {*sizes} & {name for names in choices for name in names} - {*wanted}:
        raise EqpropError(
            f"{path} has {', '.join(wanted)}, but {', '.join(sorted(more))}, too: save it without "
            "one or the other"
        )
    return arrays
