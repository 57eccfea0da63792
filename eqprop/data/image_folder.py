"""Images in folders: one folder for each class, all in one, or in ``train`` and in ``test``."""

from pathlib import Path

import numpy as np

from eqprop.data.idx import MAX_BYTES
from eqprop.errors import EqpropError

_FORMATS = ("PNG", "JPEG", "BMP", "GIF")
_MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}  # what an image is read as

type Part = tuple[np.ndarray, np.ndarray]
"""Images ``(N, rows, columns)`` or ``(N, rows, columns, 3)``, unsigned bytes, and the names of
their classes.
"""


def read_image_folder(folder: Path) -> tuple[Part] | tuple[Part, Part]:
    """The images of all classes; of the training and the test part where there are such folders.

    Raises:
        EqpropError: a file is no image, or of another size or mode than the first one.
    """
    parts = folder / "train", folder / "test"
    if all(part.is_dir() for part in parts):
        train, test = map(_read_part, parts)
        return train, test
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
    """The files in the folders in this one, by name, or in this one where there are none; without
    hidden ones.
    """
    inside = sorted(path for path in folder.iterdir() if path.name[0] != ".")
    folders = [path for path in inside if path.is_dir()]
    return [f for place in folders for f in image_files(place)] or [
        path for path in inside if path.is_file()
    ]


def _read_part(folder: Path) -> Part:
    files = image_files(folder)
    if not files or files[0].parent == folder:
        raise EqpropError(
            f"{folder} has no folders of images: put those of each class into a folder of its name "
            "in there"
        )
    names = [file.relative_to(folder).parts[0] for file in files]
    return read_images(files), np.array(names)


def _read(file: Path) -> np.ndarray:
    from PIL import Image  # a slow import

    try:
        with Image.open(file, formats=_FORMATS) as image:
            mode = _MODES.get(image.mode)
            pixels = np.asarray(image.convert(mode)) if mode else None
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
