"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeseg.errors import OutputError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path` that takes its place when the block ends well.

    The temporary file keeps the suffix of `path`, since encoders choose their format by it, and
    the permissions of a file that was there before. On any exception, Ctrl-C included, it is
    removed and `path` stays what it was; the block's own exceptions pass through.

    Raises:
        OutputError: the folder is missing, no file can be made in it, or `path` is no file.
    """
    try:
        # Through a link: the file that it points to is replaced, not the link.
        target = Path(os.path.realpath(path))
        mode = target.stat().st_mode
    except FileNotFoundError:
        mode = None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise cannot_write(path, error) from error
    if mode is not None and not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device or pipe"
        raise OutputError(f"{path} is {kind}, the name of a file was expected; add or choose one")
    if not target.parent.is_dir():
        raise OutputError(
            f"cannot write {path}: the folder {target.parent} does not exist; create it first"
        )
    temporary = target.with_name(f".{target.stem[:40]}-{secrets.token_hex(4)}{target.suffix}")
    try:
        try:
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except OSError as error:
            raise cannot_write(path, error) from error
        yield temporary
        try:
            if mode is not None:
                temporary.chmod(stat.S_IMODE(mode))
            temporary.replace(target)
        except OSError as error:
            raise cannot_write(path, error) from error
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


def make_folder(folder: Path) -> None:
    """Make a folder for results, and those above it.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise OutputError(
            f"cannot make the folder {folder}: {reason(error)}; choose another one"
        ) from error


def cannot_write(path: str | os.PathLike[str], error: OSError | ValueError) -> OutputError:
    """The error for a file that the system did not let be written."""
    return OutputError(
        f"cannot write {path}: {reason(error)}; "
        "nothing was left behind, free space or choose another place"
    )


def reason(error: OSError | ValueError) -> str:
    """What the system says, without the number and the path that Python adds."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
