"""CIFAR and SVHN, against small files written here in the formats in which they are published."""

import dataclasses
import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pooch
import pytest
from scipy.io import savemat

from eqprop.data import cifar
from eqprop.data import named as data
from eqprop.errors import DataUnavailable, EqpropError

TEN, HUNDRED = (
    dataclasses.replace(cifar.CIFAR[name], images=(4, 3)) for name in ("cifar-10", "cifar-100")
)
KINDS = {"cifar-10": TEN, "cifar-100": HUNDRED}


def draw(n: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images as people see them, (n, row, column, colour), and labels."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 32, 32, 3), np.uint8), rng.integers(0, classes, n, np.uint8)


def parts(kind: cifar.Cifar) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    stems = dict.fromkeys(kind.train, kind.images[0]) | {kind.test: kind.images[1]}
    return {stem: draw(n, kind.classes, k) for k, (stem, n) in enumerate(stems.items())}


def record_file(kind: cifar.Cifar, images: np.ndarray, labels: np.ndarray) -> bytes:
    """As the page of the data sets describes it, pixel by pixel."""
    content = bytearray()
    for image, label in zip(images, labels, strict=True):
        content += bytes([*([7] if kind.label_bytes == 2 else []), label])
        for colour in range(3):
            content += bytes(image[:, :, colour].ravel())
    return bytes(content)


def files(kind: cifar.Cifar) -> dict[str, bytes]:
    """All files of the binary version by name."""
    return {name: record_file(kind, *part) for name, part in parts(kind).items()}


def put(folder: Path, contents: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def pack(path: Path, folder: str, contents: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in ({"readme.html": b"Read me"} | contents).items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder, with an empty cache, and the small data sets as what CIFAR is."""
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache")
    monkeypatch.setattr(cifar, "CIFAR", KINDS)

    def refuse(*args, **kwargs):
        raise OSError("no network in tests")

    monkeypatch.setattr(pooch, "retrieve", refuse)
    folder = tmp_path / "sets"
    folder.mkdir()
    monkeypatch.setenv("EQPROP_DATA_DIR", str(folder))
    return folder


def assert_holds(dataset: data.Dataset, kind: cifar.Cifar) -> None:
    expected = parts(kind)
    test = expected.pop(kind.test)
    train = [np.concatenate(arrays) for arrays in zip(*expected.values(), strict=True)]
    found = (dataset.train_x, dataset.train_y, dataset.test_x, dataset.test_y)
    for a, b in zip(found, (*train, *test), strict=True):
        np.testing.assert_array_equal(a, b, strict=True)
    assert dataset.classes == kind.classes


def says(error: pytest.ExceptionInfo[BaseException], *words: object) -> bool:
    message = str(error.value)
    return "\n" not in message and all(str(word) in message for word in words)


# -------------------------------------------------------------------------------------------- CIFAR


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_packed_or_not(sets: Path, name: str, packed: bool) -> None:
    kind = KINDS[name]
    if packed:
        place = pack(sets / name / kind.archive, kind.folder, files(kind))
    else:
        place = put(sets / name / kind.folder, files(kind))
    dataset = data.load(name)
    assert_holds(dataset, kind)
    assert str(place) in dataset.source


def test_files_of_the_binary_version_in_the_folder_itself(sets: Path) -> None:
    put(sets / "cifar-10", files(TEN))
    assert_holds(data.load("cifar-10"), TEN)


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_the_python_version_is_refused_by_name(sets: Path, packed: bool) -> None:
    folder, archive = TEN.python
    if packed:
        place = pack(sets / "cifar-10" / archive, folder, {"test_batch": b"(dp1\n."})
    else:
        place = put(sets / "cifar-10" / folder, {"test_batch": b"(dp1\n."})
    for fallback in (False, True):
        with pytest.raises(EqpropError) as error:
            data.load("cifar-10", fallback=fallback)
        assert says(error, place, "python version", "binary version", TEN.url)
    put(sets.parent / "cache" / "cifar-10" / TEN.folder, files(TEN))
    assert_holds(data.load("cifar-10"), TEN)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"test_batch.bin": b"short"}, "test_batch.bin has 5 bytes, not 9219"),
        ({"data_batch_2.bin": bytes(5 * 3073)}, "data_batch_2.bin has 15365 bytes, not 12292"),
        ({"data_batch_2.bin": bytes(10**6)}, "data_batch_2.bin has 1000000 bytes, not 12292"),
        ({"data_batch_2.bin": b"\xff" * (4 * 3073)}, "label 255; the 10 classes"),
    ],
)
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_damaged_binary_files(sets: Path, change, reason: str, packed: bool) -> None:
    contents = files(TEN) | change
    if packed:
        place = pack(sets / "cifar-10" / TEN.archive, TEN.folder, contents)
    else:
        place = put(sets / "cifar-10" / TEN.folder, contents)
    with pytest.raises(EqpropError) as error:
        data.load("cifar-10")
    assert says(error, place, reason)


def test_a_missing_file_and_a_damaged_archive(sets: Path) -> None:
    contents = files(TEN)
    del contents["data_batch_4.bin"]
    put(sets / "cifar-10" / TEN.folder, contents)
    with pytest.raises(EqpropError, match=r"has no file data_batch_4\.bin; copy or download"):
        data.load("cifar-10")
    archive = sets / "cifar-100" / HUNDRED.archive
    whole = pack(archive, HUNDRED.folder, files(HUNDRED)).read_bytes()
    for content in (b"", b"<html>", whole[: len(whole) // 2], gzip.compress(b"no tar" * 200)):
        archive.write_bytes(content)
        with pytest.raises(EqpropError) as error:
            data.load("cifar-100")
        assert says(error, archive, "copy or download it again")


# --------------------------------------------------------------------------------------------- SVHN


def mat(path: Path, x: np.ndarray, y: np.ndarray) -> str:
    """Writes images and labels as SVHN has them, and gives the MD5."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tens = np.where(y == 0, 10, y)[:, None]
    savemat(path, {"X": np.moveaxis(x, 0, -1), "y": tens}, do_compression=True)
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_svhn_is_read_where_it_is_the_published_one(sets: Path, monkeypatch) -> None:
    train, test = draw(6, 10, 0), draw(4, 10, 1)
    train[1][0] = 0
    paths = [sets / "svhn" / f"{part}_32x32.mat" for part in ("train", "test")]
    sums = [mat(path, *part) for path, part in zip(paths, (train, test), strict=True)]
    with pytest.raises(EqpropError) as error:
        data.load("svhn")
    assert says(error, paths[0], "not the train_32x32.mat of SVHN", sums[0][:8], "original")
    names = [path.name for path in paths]
    monkeypatch.setattr(data, "SVHN_FILES", dict(zip(names, sums, strict=True)))
    dataset = data.load("svhn")
    found = (dataset.train_x, dataset.train_y, dataset.test_x, dataset.test_y)
    for a, b in zip(found, (*train, *test), strict=True):
        np.testing.assert_array_equal(a, b, strict=True)
    assert str(sets / "svhn") in dataset.source
    paths[1].write_bytes(paths[1].read_bytes()[:-1])
    with pytest.raises(EqpropError) as error:
        data.load("svhn")
    assert says(error, paths[1], "not the test_32x32.mat of SVHN")


def test_where_there_is_neither_file_nor_network(sets: Path) -> None:
    for name in ("cifar-10", "cifar-100", "svhn"):
        with pytest.raises(DataUnavailable) as error:
            data.load(name)
        assert says(error, "EQPROP_DATA_DIR", f"into {name}/", "OSError")


def test_an_archive_is_downloaded_with_its_checksum(sets: Path, monkeypatch) -> None:
    asked: list[tuple[str, str]] = []

    def retrieve(url: str, known_hash: str, name: str, folder: Path, **_) -> str:
        asked.append((url, known_hash))
        return str(pack(Path(folder) / name, TEN.folder, files(TEN)))

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    assert_holds(data.load("cifar-10"), TEN)
    assert_holds(data.load("cifar-10"), TEN)  # from the cache
    assert asked == [(TEN.url, f"md5:{TEN.md5}")]
