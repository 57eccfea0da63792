"""Files of data sets: where they are sought, how they are downloaded, what is wrong with them."""

import contextlib
import io
import os
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pooch

from eqprop.errors import DataUnavailable, EqpropError

DATA_DIR = "EQPROP_DATA_DIR"
"""The environment variable that names a folder with one folder per data set."""

_TIMEOUT = 10.0  # seconds without an answer, per mirror

type Downloader = Callable[[str, str, Any], object]
"""Fetches an address to a path, as Pooch calls it."""


def folders(name: str) -> tuple[Path, ...]:
    """Where the files of a data set may be; the last is the cache.

    Raises:
        EqpropError: `DATA_DIR` names no folder.
    """
    cache = Path(pooch.os_cache("eqprop")) / name
    root = os.environ.get(DATA_DIR)
    if not root:
        return (cache,)
    if not os.path.isdir(root):
        raise EqpropError(f"{DATA_DIR} is {root!r}, not a folder; correct or unset it")
    return Path(root) / name, cache


def first_file(paths: Iterable[Path]) -> Path | None:
    """The first of these paths at which there is a file."""
    return next((path for path in paths if os.path.isfile(path)), None)


def damaged(where: object, what: str) -> EqpropError:
    """The error for a file that is not what it should be."""
    return EqpropError(f"{where} {what}; copy or download it again")


def other_than_published(path: Path, title: str, found: str, expected: str) -> EqpropError:
    """The error for a file whose checksum is not that of the published one of its name."""
    return EqpropError(
        f"{path} is not the {path.name.removesuffix('.gz')} of {title} (checksum {found[:8]}..., "
        f"not {expected[:8]}...): put the original there, or delete it to have it downloaded; "
        "ep.load_path, or --data FOLDER, reads data of your own"
    )


@contextlib.contextmanager
def reading(where: object, what: str = "cannot be read") -> Iterator[None]:
    """Inside, what the system, gzip or tar find wrong is an ``EqpropError`` that says where."""
    try:
        yield
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise damaged(where, f"{what} ({error})") from error


def download(
    urls: Iterable[str],
    checksum: str,
    to: Path,
    title: str,
    downloader: Downloader | None = None,
) -> Path:
    """Fetches a file from the first address that serves it, whole and checked or not at all.

    The checksum is of what is stored, as ``md5:...`` or ``sha256:...``.

    Raises:
        DataUnavailable: no address serves a file with that checksum, or it cannot be written.
    """
    downloader = downloader or pooch.HTTPDownloader(timeout=_TIMEOUT, progressbar=False)
    failures: list[Exception] = []
    for url in urls:
        try:
            # Pooch's protocol gives arguments names that the downloader does not use.
            pooch.retrieve(url, checksum, to.name, to.parent, downloader=downloader)  # pyright: ignore[reportArgumentType]
        except (OSError, ValueError) as error:
            failures.append(error)
        else:
            return to
    reasons = ", ".join(type(failure).__name__ for failure in failures)
    raise DataUnavailable(
        f"{to.name} of {title} is not in {DATA_DIR} or the cache {to.parent}, and was not served "
        f"({reasons}); connect to the network, or put the original files into that cache or into "
        f"{to.parent.name}/ in a folder that {DATA_DIR} names"
    ) from failures[-1]


def fetch(url: str) -> bytes:
    """What an address serves, in memory. Raises ``OSError`` where it serves nothing."""
    content = io.BytesIO()
    # Streamed, a refused request would leave its connection open.
    pooch.HTTPDownloader(timeout=_TIMEOUT, stream=False)(url, content, None)
    return content.getvalue()
