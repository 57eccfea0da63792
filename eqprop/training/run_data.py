"""The data of a run: what its record says of them, and how they are found again.

Data that have a name are found by it. All others, of one's own, are kept in the run directory, as
``data.npz``: so a run goes on wherever it is, whatever became of the file they were read from.
"""

import contextlib
import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import final

import msgspec
import numpy as np

from eqprop.data import named
from eqprop.data.dataset import Dataset
from eqprop.data.scaling import Scaling
from eqprop.data.targets import KINDS, Real, Target
from eqprop.errors import EqpropError
from eqprop.recipes.recipe import Recipe
from eqprop.training.files import write_whole
from eqprop.training.records import DataUsed, Scaled
from eqprop.training.runs import DATA, is_run, make_folder

_ABOUT = "data.json"
_PARTS = ("train_x", "train_y", "test_x", "test_y")


def describe(dataset: Dataset, recipe: Recipe) -> DataUsed:
    """What the record of a run of a recipe says of its data."""
    learnt = hold_back(recipe, dataset)
    inputs, outputs = fit_scalings(recipe, learnt)
    return DataUsed(
        dataset.name,
        dataset.source,
        len(learnt.train_y),
        len(dataset.test_y),
        dataset.shape,
        _digest(dataset.train_x, dataset.train_y),
        next(name for name, kind in KINDS.items() if type(dataset.target) is kind),
        dataset.target.names,
        dataset.features,
        _scaled(inputs),
        None if outputs is None else _scaled(outputs),
        len(dataset.train_y) - len(learnt.train_y),
        _digest(dataset.test_x, dataset.test_y),
    )


def hold_back(recipe: Recipe, dataset: Dataset) -> Dataset:
    """What is learnt from and, as its test part, what each epoch is measured on: the validation
    part where the recipe has one. That is drawn in the same way for all seeds.
    """
    return dataset.hold_back(recipe.validation) if recipe.validation else dataset


def fit_scalings(recipe: Recipe, dataset: Dataset) -> tuple[Scaling, Scaling | None]:
    """The scaling of the inputs, as the recipe has it, and that of the targets, where these are
    real: to mean 0 and standard deviation 1. Both are fitted on the training part alone.
    """
    inputs = Scaling.fit(recipe.scaling, dataset.train_x)
    if type(dataset.target) is not Real:
        return inputs, None
    return inputs, Scaling.fit("standard", dataset.train_y)


def target(used: DataUsed) -> Target:
    """What a run has learnt. Older records do not name the classes: then the data set does.

    Raises ``EqpropError`` where that is not at hand.
    """
    if not used.names:
        return named.load(used.name).target
    return KINDS[used.target](used.names)


def scalings(used: DataUsed) -> tuple[Scaling, Scaling | None]:
    """The scaling of the inputs of a run, and that of its targets, where these are real."""
    # Older records are of images as bytes, by 1/255.
    inputs = _scaling(used.input_scaling or Scaled((0.0,), (255.0,)), used.image)
    return inputs, used.target_scaling and _scaling(used.target_scaling, (len(used.names),))


def pack(dataset: Dataset) -> bytes | None:
    """What is kept of data of one's own; None for those that are found by their name."""
    if dataset.name in named.NAMES:
        with contextlib.suppress(EqpropError):  # not at hand, so these are others
            published = named.load(dataset.name)
            if all(np.array_equal(getattr(published, n), getattr(dataset, n)) for n in _PARTS):
                return None
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **{n: getattr(dataset, n) for n in _PARTS})
    return file.getvalue()


def load_again(folder: Path, used: DataUsed) -> Dataset:
    """The data of the run in a folder.

    Raises ``EqpropError`` where they are not at hand, are damaged, or are others.
    """
    # Those of several seeds are kept once, above them.
    above = [folder.parent] if is_run(folder.parent) or (folder.parent / _ABOUT).is_file() else []
    kept = [place / DATA for place in (folder, *above) if (place / DATA).is_file()]
    if not kept and used.name in named.NAMES:
        dataset = named.load(used.name)
    else:
        place = kept[0] if kept else folder / DATA
        try:
            with place.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                train_x, train_y, test_x, test_y = (arrays[name] for name in _PARTS)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise EqpropError(
                f"{place} cannot be read ({error}): put back the data of this run"
            ) from error
        parts = (train_x, train_y, test_x, test_y)
        dataset = Dataset(used.name, *parts, target(used), used.source, used.features)
    train, test = _digest(dataset.train_x, dataset.train_y), _digest(dataset.test_x, dataset.test_y)
    if train != used.sha256 or test != (used.sha256_test or test):
        raise EqpropError(
            f"the data set {used.name} is not the one that the run was trained on "
            f"({used.source}): put that back"
        )
    return dataset


@final
@dataclass(frozen=True)
class KeptData:
    """Data of one's own that several trainings share, as a folder above them keeps them."""

    folder: Path
    used: DataUsed

    def read(self) -> Dataset:
        """The data. Raises ``EqpropError`` where they are damaged."""
        return load_again(self.folder, self.used)


def keep(dataset: Dataset, recipe: Recipe, folder: Path) -> KeptData:
    """Keeps data in a folder, for trainings of recipes like that one.

    Raises ``EqpropError`` where it keeps others.
    """
    used, about = describe(dataset, recipe), make_folder(folder) / _ABOUT
    if about.exists():
        try:
            before = msgspec.json.decode(about.read_bytes(), type=DataUsed)
        except msgspec.MsgspecError as error:
            raise EqpropError(
                f"{about} is damaged ({error}): give another directory with --out"
            ) from error
        if not before.same(used):
            raise EqpropError(
                f"{folder} was begun with other data ({before.source}), or these have changed "
                f"since ({used.source}): put those back, or give another directory with --out"
            )
        return KeptData(folder, before)
    if (packed := pack(dataset)) is not None:
        path = folder / DATA
        # What a crash has left of the same is no other's.
        if path.exists() and path.read_bytes() != packed:
            raise EqpropError(
                f"{path} is there already, and was not put there by eqprop: give another directory "
                "with --out"
            )
        write_whole(path, packed)
    write_whole(about, msgspec.json.encode(used))
    return KeptData(folder, used)


def _digest(inputs: np.ndarray, targets: np.ndarray) -> str:
    """SHA-256 of a part of the data."""
    digest = hashlib.sha256(np.ascontiguousarray(inputs))
    digest.update(np.ascontiguousarray(targets))
    return digest.hexdigest()


def _scaled(scaling: Scaling) -> Scaled:
    shift, scale = (tuple(np.ravel(part).tolist()) for part in scaling)
    return Scaled(shift, scale)


def _scaling(scaled: Scaled, shape: tuple[int, ...]) -> Scaling:
    parts = (np.asarray(part, np.float32) for part in (scaled.shift, scaled.scale))
    return Scaling(*(part.reshape(shape if part.size > 1 else ()) for part in parts))
