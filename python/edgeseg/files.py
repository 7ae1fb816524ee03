"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeseg.errors import OutputError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path` that takes its place when the block ends well.

    The temporary file keeps the suffix of `path`, since encoders choose their format by it. On any
    exception, Ctrl-C included, it is removed and `path` stays what it was; the block's own
    exceptions pass through.

    Raises:
        OutputError: the folder is missing, or no file can be made in it.
    """
    target = Path(path)
    if target.is_dir():
        raise OutputError(f"{target} is a folder, a file name was expected; add a name to it")
    if not target.parent.is_dir():
        raise OutputError(
            f"cannot write {target}: the folder {target.parent} does not exist; create it first"
        )
    try:
        handle, name = tempfile.mkstemp(
            dir=target.parent, prefix=f".{target.stem}-", suffix=target.suffix
        )
        os.close(handle)
    except OSError as error:
        raise cannot_write(target, error) from error
    temporary = Path(name)
    try:
        yield temporary
        try:
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(target)
        except OSError as error:
            raise cannot_write(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike[str], chunks: Iterable[bytes | memoryview]) -> None:
    """Write `chunks` to `path`: all of them, flushed to the disk, or none.

    Raises:
        OutputError: the file cannot be written.
    """
    with replacing(path) as temporary:
        try:
            with temporary.open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(path, error) from error


def cannot_write(path: str | os.PathLike[str], error: OSError) -> OutputError:
    """The error for a file that the system did not let be written."""
    return OutputError(
        f"cannot write {path}: {error.strerror or error}; "
        "nothing was left behind, free space or choose another place"
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
