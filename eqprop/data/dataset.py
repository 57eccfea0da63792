"""A data set: labelled images for training and for testing.

Images stay unsigned bytes, 0 to 255, in the order of their files: a data set lives whole on the
device in a quarter of the memory, and the compiled step scales by 1/255 and makes one-hot targets.
"""

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from eqprop.errors import EqpropError
from eqprop.types import Shape


@final
@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images, grey or in colour, for training and for testing.

    Images are ``(N, H, W)`` or ``(N, H, W, channels)`` unsigned bytes, 0 to 255; labels are
    ``(N,)`` unsigned bytes, 0 to ``classes - 1``. ``source`` is a sentence that says where they
    came from.

    Raises:
        EqpropError: the arrays do not belong together.
    """

    name: str
    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    classes: int
    source: str

    # Users bring arrays of their own, so the shapes are checked in every run, not in tests alone.
    def __post_init__(self):
        parts = (("training", self.train_x, self.train_y), ("test", self.test_x, self.test_y))
        for part, x, y in parts:
            where = f"data set {self.name} ({self.source}), {part} part"
            if x.dtype != np.uint8 or y.dtype != np.uint8 or x.ndim not in (3, 4) or y.ndim != 1:
                raise EqpropError(
                    f"{where}: need uint8 images (N, H, W) or (N, H, W, channels) and uint8 labels "
                    f"(N,), not {x.dtype} {x.shape} and {y.dtype} {y.shape}"
                )
            if not x.size or len(x) != len(y):
                raise EqpropError(
                    f"{where}: {len(x)} images of {x.shape[1:]} and {len(y)} labels; "
                    "need as many of each, and none empty"
                )
            if y.max() >= self.classes:
                raise EqpropError(
                    f"{where}: label {y.max()}; the {self.classes} classes are 0 to "
                    f"{self.classes - 1}"
                )
        if self.train_x.shape[1:] != self.test_x.shape[1:]:
            raise EqpropError(
                f"data set {self.name} ({self.source}): training images of "
                f"{self.train_x.shape[1:]}, test images of {self.test_x.shape[1:]}; make them equal"
            )


def check_fits(dataset: Dataset, input_shape: Shape, classes: int) -> None:
    """Checks that a network with that input layer and that many output units takes the data set.

    The input layer has the shape of an image, ``(H, W)`` or ``(H, W, channels)``, or all its pixels
    in a row; that of ``(H, W)`` images may be ``(H, W, 1)``.

    Raises:
        EqpropError: it does not.
    """
    image = dataset.train_x.shape[1:]
    flat, maps = (math.prod(image),), image if len(image) == 3 else (*image, 1)
    if input_shape not in (flat, image, maps):
        raise EqpropError(
            f"the images of {dataset.name} are {'x'.join(map(str, image))}, the input layer has "
            f"shape {input_shape}; make it {flat} or {maps}"
        )
    if classes != dataset.classes:
        raise EqpropError(
            f"{dataset.name} has {dataset.classes} classes, the output layer has {classes} units; "
            "make them equal"
        )
