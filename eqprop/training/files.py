"""Files: each is written whole or not at all, whatever is killed or filled up meanwhile."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from eqprop.errors import EqpropError


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file, in the place of what is there; text as UTF-8.

    It is written under a hidden name, ``partial``, flushed to the disk, and renamed.

    Raises:
        OSError: it could not be written, and names the file; what was there before is still there.
    """
    # Names of files may hold what is no UTF-8.
    content = content.encode(errors="replace") if isinstance(content, str) else content
    hidden = partial(path)
    try:
        with hidden.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        hidden.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        error.filename = str(path)
        with contextlib.suppress(OSError):
            hidden.unlink()
        raise


@contextlib.contextmanager
def writing(where: object, remedy: str) -> Iterator[None]:
    """Inside, an ``OSError`` is an ``EqpropError`` that says where, and what to do."""
    try:
        yield
    except OSError as error:
        raise EqpropError(
            f"{where} cannot be written ({error.strerror or error}): {remedy}"
        ) from error


def partial(path: Path) -> Path:
    """Where a file is while it is written; a crash may leave that behind."""
    return path.with_name(f".{path.name}.partial")
