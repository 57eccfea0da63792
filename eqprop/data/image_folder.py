"""Images in folders: one folder for each class, all in one, or in ``train`` and in ``test``."""

from pathlib import Path

import numpy as np

from eqprop.data.idx import MAX_BYTES
from eqprop.errors import EqpropError

_FORMATS = ("PNG", "JPEG", "BMP", "GIF")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
_PARTS = {"train", "training", "val", "valid", "validation", "test", "testing"}
_MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}  # what an image is read as

type Part = tuple[np.ndarray, np.ndarray]
"""Images ``(N, rows, columns)`` or ``(N, rows, columns, 3)``, unsigned bytes, and the names of
their classes.
"""


def read_image_folder(folder: Path) -> tuple[Part] | tuple[Part, Part]:
    """The images of all classes; of the training and the test part where there are folders
    ``train`` and ``test``, of any case.

    Raises:
        EqpropError: a file is no image, of another size or mode than the first one, or in the
            folder of no class; or a class is called as a part.
    """
    inside = {path.name.lower(): path for path in folder.iterdir() if path.is_dir()}
    if {"train", "test"} <= inside.keys():
        return _read_part(inside["train"]), _read_part(inside["test"])
    return (_read_part(folder),)


def read_images(files: list[Path]) -> np.ndarray:
    """Images of one size, all grey or all in colour, from files, as unsigned bytes.

    Raises:
        EqpropError: a file is no image, or of another size or mode than the first one.
    """
    images: list[np.ndarray] = []
    for file in files:
        images.append(_read(file))
        shape, first = images[-1].shape, images[0].shape
        if shape != first:
            raise EqpropError(
                f"{file} is {_size(shape)}, {files[0]} is {_size(first)}: make all images alike"
            )
        if len(files) * images[0].size > MAX_BYTES:
            raise EqpropError(
                f"{file.parent} and its like have {len(files)} images of {_size(first)}; make "
                f"them fewer or smaller, at most {MAX_BYTES} bytes"
            )
    return np.stack(images)


def image_files(folder: Path) -> list[Path]:
    """The files in this folder and in those in it, by name; without hidden ones, and, beside
    folders with files, without those in this one whose names do not end as those of images.
    """
    files = _all_files(folder)
    flat = all(file.parent == folder for file in files)
    return [f for f in files if flat or f.parent != folder or f.suffix.lower() in _SUFFIXES]


def _all_files(folder: Path) -> list[Path]:
    inside = sorted(path for path in folder.iterdir() if path.name[0] != ".")
    return [f for path in inside for f in (_all_files(path) if path.is_dir() else [path])]


def _read_part(folder: Path) -> Part:
    files = image_files(folder)
    loose = [file for file in files if file.parent == folder]
    if files == loose:
        raise EqpropError(
            f"{folder} has no folders of images: put those of each class into a folder of its name "
            "in there"
        )
    if loose:
        raise EqpropError(f"{loose[0]} is in the folder of no class: put it into one")
    names = [file.relative_to(folder).parts[0] for file in files]
    if parts := [name for name in names if name.lower() in _PARTS]:
        raise EqpropError(
            f"{folder} has a folder {parts[0]}, which is no class: call the parts of the data "
            "train and test, or give the folder of one of them"
        )
    return read_images(files), np.array(names)


def _read(file: Path) -> np.ndarray:
    from PIL import Image, ImageOps  # a slow import

    try:
        with Image.open(file, formats=_FORMATS) as image:
            mode = _MODES.get(image.mode)
            # Cameras say in EXIF which side is up.
            pixels = np.asarray(ImageOps.exif_transpose(image).convert(mode)) if mode else None
    except Exception as error:  # Pillow raises errors of many kinds for what is damaged
        raise EqpropError(
            f"{file} cannot be read as an image, {', '.join(_FORMATS)} ({error}): repair it, or "
            "take it away"
        ) from error
    if pixels is None:
        raise EqpropError(f"{file} has pixels of {image.mode}: save it as grey or RGB, 8 bits each")
    return pixels


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} x {shape[1]} in {'colour' if len(shape) == 3 else 'grey'}"
