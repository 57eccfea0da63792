"""SVHN, street view house numbers, cropped digits, in the MATLAB files in which it is published.

``train_32x32.mat`` and ``test_32x32.mat`` hold ``X``, unsigned bytes ``(32, 32, 3, N)``, and ``y``,
``(N, 1)``, with the label 10 for the digit 0 (http://ufldl.stanford.edu/housenumbers/).
"""

import hashlib
from pathlib import Path

import numpy as np

from eqprop.data.files import other_than_published, reading

TITLE = "SVHN"
URL = "http://ufldl.stanford.edu/housenumbers/"

FILES = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}
"""The files and their MD5. The page of the data set has none: these are what torchvision checks."""


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images ``(N, 32, 32, 3)`` and labels ``(N,)``, the digits themselves, as unsigned bytes.

    SciPy's reader crashes on some damaged files, so it gets to see the published ones only.

    Raises:
        EqpropError: the file cannot be read, or is not the published one of its name.
    """
    from scipy.io import loadmat  # a slow import, for this data set only

    with reading(path), path.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != FILES[path.name]:
        raise other_than_published(path, TITLE, found, FILES[path.name])
    content = loadmat(path, variable_names=["X", "y"])
    images = np.ascontiguousarray(content["X"].transpose(3, 0, 1, 2))
    return images, (content["y"][:, 0] % 10).astype(np.uint8)
