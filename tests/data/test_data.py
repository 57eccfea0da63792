"""Data sets, against tiny IDX files packed here with `struct` and `gzip`; no test is on line."""

import functools
import gzip
import hashlib
import http.server
import os
import pickle
import socket
import struct
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pooch
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from eqprop.data import named as data
from eqprop.data.dataset import check_fits
from eqprop.data.idx import read_idx, sha256
from eqprop.data.targets import Classes
from eqprop.errors import DataUnavailable, EqpropError

STEMS = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def pack(array: np.ndarray) -> bytes:
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return head + array.astype(np.uint8).tobytes()


def tiny() -> list[np.ndarray]:
    """Seven training and three test images of 4x5 with labels 0 to 3."""
    rng = np.random.default_rng(0)
    sizes = ((7, 4, 5), (7,), (3, 4, 5), (3,))
    arrays = [rng.integers(0, 256 if len(s) > 1 else 4, s, dtype=np.uint8) for s in sizes]
    arrays[1][0] = 3
    return arrays


def write(folder: Path, arrays: list[np.ndarray], zipped: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for stem, array in zip(STEMS, arrays, strict=True):
        content = pack(array)
        if zipped:
            (folder / f"{stem}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / stem).write_bytes(content)
    return folder


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name but this machine's resolves."""
    resolve = socket.getaddrinfo

    def local_only(host, *args, **kwargs):
        if host != "127.0.0.1":
            raise socket.gaierror(socket.EAI_NONAME, "no network in tests")
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", local_only)
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no data folder."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(pooch, "os_cache", lambda project: folder)
    monkeypatch.delenv("EQPROP_DATA_DIR", raising=False)
    return folder


Publish = Callable[..., list[np.ndarray]]


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Makes the tiny arrays what `mnist` has to be, on the given mirrors."""

    def put(*mirrors: str) -> list[np.ndarray]:
        arrays = tiny()
        hashes = tuple(hashlib.sha256(pack(array)).hexdigest() for array in arrays)
        mirrors = mirrors or ("https://mirror.invalid/",)
        monkeypatch.setattr(data, "_PUBLISHED", {"mnist": data._Published("M", mirrors, hashes)})
        return arrays

    return put


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    """Serves a folder on this machine and gives its address."""
    servers: list[http.server.ThreadingHTTPServer] = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            pass

    def start(folder: Path) -> str:
        handler = functools.partial(Quiet, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def holds(dataset: data.Dataset, arrays: list[np.ndarray]) -> bool:
    got = (dataset.train_x, dataset.train_y, dataset.test_x, dataset.test_y)
    pairs = zip(got, arrays, strict=True)
    return all(a.dtype == np.uint8 and np.array_equal(a, b) for a, b in pairs)


def says(error: pytest.ExceptionInfo[BaseException], *parts: object) -> bool:
    message = str(error.value)
    return "\n" not in message and all(str(part) in message for part in parts)


# ------------------------------------------------------------------------------------ IDX files


@given(
    array=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, max_side=6)),
    zipped=st.booleans(),
)
def test_idx_round_trip(tmp_path_factory, array, zipped):
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(gzip.compress(pack(array)) if zipped else pack(array))
    assert np.array_equal(read_idx(path, array.ndim), array)
    assert sha256(array) == hashlib.sha256(pack(array)).hexdigest()


def _mutate(content: bytes, edits: list[tuple[int, bytes, int]]) -> bytes:
    for place, new, skip in edits:
        at = place % (len(content) + 1)
        content = content[:at] + new + content[at + skip :]
    return content


EDITS = st.lists(
    st.tuples(st.integers(0, 300), st.binary(max_size=6), st.integers(0, 300)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(inside=st.just([]) | EDITS, outside=st.just([]) | EDITS, zipped=st.booleans())
def test_mutated_idx_is_right_or_a_clear_error(tmp_path, inside, outside, zipped):
    """The oracle reads the format by its definition, without care for memory."""
    content = _mutate(pack(tiny()[0]), inside)
    stored = _mutate(gzip.compress(content) if zipped else content, outside)
    path = tmp_path / "mutated"
    path.write_bytes(stored)
    try:
        plain = gzip.decompress(stored) if stored[:2] == b"\x1f\x8b" else stored
    except (OSError, EOFError, zlib.error):
        plain = b""
    if _is_idx(plain):
        assert pack(read_idx(path, 3)) == plain
    else:
        with pytest.raises(EqpropError) as error:
            read_idx(path, 3)
        assert says(error, path)


def _is_idx(content: bytes) -> bool:
    if len(content) < 16 or content[:4] != b"\0\0\x08\x03":
        return False
    a, b, c = struct.unpack(">3I", content[4:16])
    return 0 < a * b * c == len(content) - 16


def zipped(content: bytes) -> bytes:
    """Without the time, or parameters of tests would differ from one process to the next."""
    return gzip.compress(content, mtime=0)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not an IDX file"),
        (b"\0\0\x08\x01" + struct.pack(">3I", 1, 1, 1) + b"0", "not an IDX file"),
        (b"\0\0\x0d\x03" + struct.pack(">3I", 1, 1, 1) + b"0000", "not an IDX file"),
        (pack(np.zeros((3, 2, 2)))[:-1], "3 x 2 x 2 bytes and holds only 11"),
        (pack(np.zeros((3, 2, 2))) + b"0", "holds more"),
        (zipped(pack(np.zeros((3, 2, 2)))[:-1]), "holds only 11"),
        (zipped(pack(np.zeros((3, 2, 2))) + b"0"), "holds more"),
        (zipped(pack(np.zeros((3, 2, 2))))[:-9], "damaged gzip"),
        (zipped(pack(np.zeros((3, 2, 2))))[:-8] + b"12345678", "damaged gzip"),
        (zipped(pack(np.zeros((3, 2, 2)))) + b"trailing", "damaged gzip"),
        (pack(np.zeros((0, 28, 28))), "is empty, 0 x 28 x 28"),
        (pack(np.zeros((3, 0, 28))), "is empty"),
        (b"\0\0\x08\x03" + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1) + b"0", "room for"),
    ],
)
def test_damaged_idx_names_file_and_reason(tmp_path, content, reason):
    path = tmp_path / "broken-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(EqpropError) as error:
        read_idx(path, 3)
    assert says(error, path, reason, "copy or download it again")


def _peak_bytes(path: Path) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(EqpropError):
            read_idx(path, 3)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_header_alone_allocates_nothing(tmp_path):
    """A file of 1 MB that promises 1 GB, plain: within what DEFLATE could do, but not there."""
    path = tmp_path / "promise"
    path.write_bytes(b"\0\0\x08\x03" + struct.pack(">3I", 1000, 1000, 1000) + bytes(10**6))
    assert _peak_bytes(path) < 8 * 2**20


def test_gzip_bomb_stops_at_the_promise(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(pack(np.zeros((1, 10, 10))) + bytes(64 * 2**20)))
    assert _peak_bytes(path) < 4 * 2**20


def test_more_than_the_device_should_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("eqprop.data.idx.MAX_BYTES", 11)
    path = tmp_path / "large"
    path.write_bytes(pack(np.zeros((3, 2, 2))))
    with pytest.raises(EqpropError) as error:
        read_idx(path, 3)
    assert says(error, path, "at most 11")


def test_folder_missing_file_and_pipe_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "pipe"):
        with pytest.raises(EqpropError) as error:
            read_idx(path, 3)
        assert says(error, path, "is not a file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_unreadable_file_is_a_clear_error(tmp_path):
    path = write(tmp_path, tiny()) / STEMS[0]
    path.chmod(0)
    with pytest.raises(EqpropError) as error:
        read_idx(path, 3)
    assert says(error, path, "cannot be read")


# -------------------------------------------------------------------------------- your own data


@pytest.mark.parametrize("zipped", [False, True])
def test_load_idx(tmp_path, zipped):
    folder = write(tmp_path / "letters", tiny(), zipped)
    dataset = data.load_idx(folder)
    assert holds(dataset, tiny())
    assert (dataset.name, dataset.classes) == ("letters", 4)
    assert str(folder) in dataset.source
    assert data.load_idx(str(folder), "mine").name == "mine"


def test_gzip_is_known_by_its_content(tmp_path):
    folder = write(tmp_path, tiny())
    (folder / STEMS[0]).write_bytes(gzip.compress(pack(tiny()[0])))
    (folder / STEMS[1]).rename(folder / f"{STEMS[1]}.gz")
    assert holds(data.load_idx(folder), tiny())


def test_load_idx_names_the_missing_file(tmp_path):
    folder = write(tmp_path, tiny())
    (folder / STEMS[2]).unlink()
    with pytest.raises(EqpropError) as error:
        data.load_idx(folder)
    assert says(error, folder / STEMS[2])


@pytest.mark.parametrize("part", [1, 3])
def test_label_count_must_match(tmp_path, part):
    arrays = tiny()
    arrays[part] = arrays[part][:-1]
    folder = write(tmp_path, arrays)
    with pytest.raises(EqpropError) as error:
        data.load_idx(folder)
    assert says(error, folder / STEMS[part], folder / STEMS[part - 1], len(arrays[part]))


def test_image_sizes_must_match(tmp_path):
    arrays = tiny()
    arrays[2] = arrays[2][:, :3]
    with pytest.raises(EqpropError) as error:
        data.load_idx(write(tmp_path, arrays))
    assert says(error, tmp_path, "(4, 5)", "(3, 5)")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"train_x": np.zeros((7, 4, 5))}, "need uint8"),
        ({"test_y": np.zeros((3, 1), np.uint8)}, "need uint8"),
        ({"train_y": np.zeros(6, np.uint8)}, "7 inputs of (4, 5) and 6 targets"),
        ({"test_x": np.zeros((0, 4, 5), np.uint8), "test_y": np.zeros(0, np.uint8)}, "none empty"),
        ({"target": Classes.of(3)}, "label 3; the 3 classes are 0 to 2"),
    ],
)
def test_dataset_checks_its_arrays(change, reason):
    fields = dict(zip(("train_x", "train_y", "test_x", "test_y"), tiny(), strict=True))
    with pytest.raises(EqpropError) as error:
        data.Dataset(
            **({**fields, "name": "own", "target": Classes.of(4), "source": "Mine."} | change)
        )
    assert says(error, "own (Mine)", reason)


def test_check_fits(tmp_path):
    dataset = data.load_idx(write(tmp_path / "own", tiny()))
    for shape in ((20,), (4, 5), (4, 5, 1)):
        check_fits(dataset, shape, 4)
    for shape in ((784,), (5, 4), (1, 20), (4, 5, 3), ()):
        with pytest.raises(EqpropError) as error:
            check_fits(dataset, shape, 4)
        assert says(error, "own", "4x5", shape, "(20,)", "(4, 5, 1)")
    with pytest.raises(EqpropError) as error:
        check_fits(dataset, (20,), 10)
    assert says(error, "4 classes", "10 units")


# --------------------------------------------------------------------------- published data sets


@pytest.mark.parametrize("zipped", [False, True])
def test_data_folder_comes_before_the_cache(cache, publish, tmp_path, monkeypatch, zipped):
    arrays = publish()
    folder = write(tmp_path / "sets" / "mnist", arrays, zipped)
    write(cache / "mnist", [array[:1] for array in arrays])
    monkeypatch.setenv("EQPROP_DATA_DIR", str(tmp_path / "sets"))
    dataset = data.load("mnist")
    assert holds(dataset, arrays)
    assert (dataset.name, dataset.classes) == ("mnist", 10)
    assert dataset.source == f"M, IDX files in {folder}."


def test_cache_completes_the_data_folder(cache, publish, tmp_path, monkeypatch):
    arrays = publish()
    folder = write(tmp_path / "mnist", arrays)
    (folder / STEMS[1]).unlink()
    write(cache / "mnist", arrays)
    monkeypatch.setenv("EQPROP_DATA_DIR", str(tmp_path))
    dataset = data.load("mnist")
    assert holds(dataset, arrays)
    assert str(folder) in dataset.source
    assert str(cache / "mnist") in dataset.source


def test_other_content_under_a_published_name(cache, publish, tmp_path, monkeypatch):
    arrays = publish()
    arrays[2][0, 0, 0] ^= 1
    folder = write(tmp_path / "mnist", arrays)
    monkeypatch.setenv("EQPROP_DATA_DIR", str(tmp_path))
    for fallback in (False, True):
        with pytest.raises(EqpropError) as error:
            data.load("mnist", fallback=fallback)
        assert says(error, folder / STEMS[2], "original", "delete it", "ep.load_path")
    assert holds(data.load_idx(folder), arrays)


def test_damaged_file_does_not_fall_back(cache, publish):
    folder = write(cache / "mnist", publish())
    (folder / STEMS[0]).write_bytes(b"<html>Not here</html>")
    with pytest.raises(EqpropError) as error:
        data.load("mnist", fallback=True)
    assert says(error, folder / STEMS[0], "not an IDX file")
    assert not isinstance(error.value, DataUnavailable)


def test_data_folder_that_is_none(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("EQPROP_DATA_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(EqpropError) as error:
        data.load("mnist", fallback=True)
    assert says(error, "EQPROP_DATA_DIR", tmp_path / "nowhere", "correct or unset it")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_no_data_and_no_network(cache, name):
    with pytest.raises(DataUnavailable) as error:
        data.load(name)
    assert says(error, STEMS[0], cache / name, "EQPROP_DATA_DIR", "ConnectionError", f"{name}/")
    assert not list((cache / name).glob("*"))


def test_cache_that_cannot_be_written(cache, publish, serve, tmp_path):
    mirror = write(tmp_path / "mirror", publish(), zipped=True)
    publish(serve(mirror))
    cache.write_text("a file where the cache should be")
    with pytest.raises(DataUnavailable):
        data.load("mnist")


def test_download_tries_mirrors_in_order(cache, publish, serve, tmp_path):
    """Absent, no gzip'd IDX file, a wrong one, then the right content in another gzip wrapper."""
    arrays = publish()
    absent, garbage, wrong, right = (tmp_path / name for name in ("a", "g", "w", "r"))
    absent.mkdir()
    garbage.mkdir()
    for stem in STEMS:
        (garbage / f"{stem}.gz").write_bytes(b"\x1f\x8b<html>")
    write(wrong, [array ^ 1 for array in arrays], zipped=True)
    write(right, arrays, zipped=True)
    publish(*map(serve, (absent, garbage, wrong, right)))
    assert holds(data.load("mnist"), arrays)
    kept = sorted(path.name for path in (cache / "mnist").iterdir())
    assert kept == sorted(STEMS)
    publish()  # no mirror any more: the cache serves
    assert holds(data.load("mnist"), arrays)


def test_no_right_file_on_any_mirror(cache, publish, serve, tmp_path):
    wrong = write(tmp_path / "w", [array ^ 1 for array in publish()], zipped=True)
    publish(serve(wrong))
    with pytest.raises(DataUnavailable):
        data.load("mnist")
    assert not list((cache / "mnist").iterdir())


def test_digits():
    dataset = data.load("digits")
    assert dataset.train_x.shape == (1500, 8, 8)
    assert dataset.test_x.shape == (297, 8, 8)
    assert dataset.classes == 10
    assert (dataset.train_x.min(), dataset.train_x.max()) == (0, 255)
    assert set(np.unique(dataset.test_y)) == set(range(10))

    from sklearn.datasets import load_digits

    first = load_digits().images[0]  # type: ignore[union-attr]
    assert np.abs(dataset.train_x[0] * (16 / 255) - first).max() <= 16 / 255 / 2


def test_fallback_says_so(cache):
    dataset = data.load("mnist", fallback=True)
    assert dataset.name == "digits"
    assert "standing in for MNIST" in dataset.source
    assert np.array_equal(dataset.train_x, data.load("digits").train_x)
    assert "standing in" not in data.load("digits").source


def test_unknown_name():
    with pytest.raises(EqpropError) as error:
        data.load("mnits")
    assert says(error, "'mnits'", *data.NAMES)


def test_errors_are_one_line_and_survive_pickling():
    error = pickle.loads(pickle.dumps(DataUnavailable("first\n  second\r\nthird")))
    assert type(error) is DataUnavailable
    assert str(error) == "first second third"
    assert isinstance(error, ValueError)


# The published test labels: 980 zeros, 1135 ones, ... (LeCun, Cortes, Burges), the first five.
@pytest.mark.parametrize(
    ("name", "first", "counts"),
    [
        ("mnist", [7, 2, 1, 0, 4], [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
        ("fashion-mnist", [9, 2, 1, 1, 6], [1000] * 10),
    ],
)
def test_the_real_one(name, first, counts):
    try:
        dataset = data.load(name)
    except DataUnavailable:
        pytest.skip(f"{name} is neither in EQPROP_DATA_DIR nor in the cache")
    assert dataset.train_x.shape == (60000, 28, 28)
    assert dataset.test_x.shape == (10000, 28, 28)
    assert dataset.test_y[:5].tolist() == first
    assert np.bincount(dataset.test_y).tolist() == counts
