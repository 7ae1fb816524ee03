"""What reading a file may do: nothing but read it, in memory that its size accounts for."""

from __future__ import annotations

import os
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.fuzz.fuzzing import BrokenPromiseError

from edgeseg.errors import EdgesegError
from edgeseg.runtime.verification import MAX_GOLDEN_PIXELS

# Python's objects for a manifest, and beside them the golden sample's two pictures.
BYTES_PER_FILE_BYTE = 40
BYTES_OF_ANY_FILE = 4 * MAX_GOLDEN_PIXELS + (8 << 20)

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_NEVER = (
    *("os.mkdir", "os.rename", "os.remove", "os.link", "os.symlink", "os.system", "os.exec"),
    *("os.posix_spawn", "os.fork", "subprocess.Popen", "socket.", "pickle.find_class", "shutil."),
)
_readable: list[Path] = []  # while one of them is read


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _readable:
        return
    if event.startswith(_NEVER):
        raise BrokenPromiseError(f"{event}{arguments!r} while {_readable[0]} was read")
    if event == "open":
        path, _, flags = arguments
        imported = str(path).endswith((".py", ".pyc"))
        own = not isinstance(path, str) or imported or Path(path) in _readable
        if flags & _WRITING or not own:
            raise BrokenPromiseError(
                f"{path!r} was opened, flags {flags:#x}, while {_readable[0]} was read"
            )


sys.addaudithook(_audit)  # for good: it cannot be taken away


@contextmanager
def only_reading(*paths: Path) -> Iterator[None]:
    """Python opens no other file, writes none, and starts nothing."""
    _readable.extend(paths)
    try:
        yield
    finally:
        _readable.clear()


@contextmanager
def bounded_memory(size: int) -> Iterator[None]:
    """What Python and NumPy hold at once is in proportion to the size of what is read."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    allowed = BYTES_PER_FILE_BYTE * size + BYTES_OF_ANY_FILE
    if peak > allowed:
        raise BrokenPromiseError(
            f"{peak} bytes were held for a file of {size}, {allowed} at most were expected"
        )


def check_message(error: EdgesegError) -> None:
    """One sentence that a terminal can show."""
    text = str(error)
    if not 20 < len(text) < 2500:
        raise BrokenPromiseError(f"a message of {len(text)} characters: {text[:200]}") from error
    if any(ord(c) < 32 and c != "\n" for c in text):
        raise BrokenPromiseError(f"control characters in a message: {text[:200]!r}") from error
