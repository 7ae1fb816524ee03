"""The local record of code that this machine built.

TensorRT plans and AOTInductor packages are native code: whoever wrote them decides what runs. They
are loaded if their hash stands here, which is outside every engine file and thus nothing that a
file can claim, or if the caller trusts the file.

The record is a folder, `$XDG_STATE_HOME/edgeseg/built` (by default under ~/.local/state), that
only its owner may write, with an empty file for each SHA-256.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from pathlib import Path

logger = logging.getLogger("edgeseg")

_SHA256 = re.compile(r"[0-9a-f]{64}")
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def record() -> Path:
    """The folder of the record; it need not exist.

    Raises:
        RuntimeError: this user has no home folder.
    """
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():  # as the XDG specification wants it
        state = Path.home() / ".local" / "state"
    return state / "edgeseg" / "built"


def remember(sha256: str) -> bool:
    """Note that this machine built the part with that SHA-256 (64 hex digits, lower case).

    Returns:
        Whether it could be noted. If not, a warning says why: the part is good, but is loaded only
        with `trust=True`.

    Raises:
        ValueError: that is no SHA-256.
    """
    name = _checked(sha256)
    try:
        folder = record()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / name).touch(mode=0o600)  # empty: there or not there, nothing between
    except (OSError, RuntimeError) as error:
        logger.warning(
            "cannot note what was built here: %s; set XDG_STATE_HOME to a folder that can be "
            "written, or load the engine with trust=True",
            error,
        )
        return False
    return True


def built_here(sha256: str) -> bool:
    """Whether this machine built the part with that SHA-256.

    A record that other users may write proves nothing: False, and a warning.

    Raises:
        ValueError: that is no SHA-256.
    """
    name = _checked(sha256)
    try:
        folder = record()
        mode = folder.stat().st_mode
        found = stat.S_ISREG((folder / name).lstat().st_mode)
    except (OSError, RuntimeError):
        return False
    if mode & _WRITABLE_BY_OTHERS:
        logger.warning(
            "others than its owner may write %s, so it does not tell what was built here; "
            "chmod 700 %s, and build again what you do not know",
            folder,
            folder,
        )
        return False
    return found


def _checked(sha256: str) -> str:
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"{sha256!r} is no SHA-256 in 64 lower-case hex digits")
    return sha256
