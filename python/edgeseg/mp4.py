"""How long the picture of an MP4 or QuickTime file lasts, by its own header (ISO/IEC 14496-12).

OpenCV tells how many frames such a file stores; an edit list may leave out some of them, as in a
clip that was trimmed without encoding it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def picture_seconds(path: Path) -> float | None:
    """Longest time that a picture track is shown, edits applied.

    Returns:
        Seconds; None for any other file, and where the header does not say.
    """
    timescale, longest = 0, 0
    for kind, body in _boxes(_movie_header(path)):
        if kind == b"mvhd":
            timescale = _number(body[20:24] if body[0] else body[12:16])
        if kind == b"trak":
            for inner, track in _boxes(body):
                # The last eight bytes are width and height; a sound track has none.
                if inner == b"tkhd" and any(track[-8:]):
                    duration = track[28:36] if track[0] else track[20:24]
                    if duration != b"\xff" * len(duration):  # all ones: unknown
                        longest = max(longest, _number(duration))
    return longest / timescale if timescale and longest else None


def _movie_header(path: Path) -> bytes:
    """Contents of the file's moov box; empty if there is none, or not all of it."""
    end = path.stat().st_size
    with path.open("rb") as file:
        while (start := file.tell()) + 8 <= end:
            head = file.read(8)
            size = _number(head[:4])
            if size == 1:  # a 64-bit size follows
                size = _number(file.read(8))
            elif size == 0:  # up to the end of the file
                size = end - start
            if start + size > end or size < file.tell() - start:
                break
            if head[4:] == b"moov":
                return file.read(start + size - file.tell())
            file.seek(start + size)
    return b""


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and contents of each box in `data`."""
    start = 0
    while (size := _number(data[start : start + 4])) > 8:
        yield data[start + 4 : start + 8], data[start + 8 : start + size]
        start += size


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")
