"""Image files: whole ones become BGR pixels, and pixels become whole ones."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import InputError, OutputError
from edgeseg.files import reason, write_atomically

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""File names ending so, in any case, are taken for images."""


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Decode an image file.

    Returns:
        H×W×3 uint8 BGR, upright as EXIF says; grey becomes three equal channels, transparency is
        dropped, 16 bits become 8.

    Raises:
        InputError: the file is missing, a folder, unreadable, no image, or cut off.
    """
    file = Path(path)
    try:
        is_device = file.is_char_device()
        data = b"" if is_device else file.read_bytes()  # /dev/zero would never end
    except IsADirectoryError as error:
        raise InputError(
            f"{file} is a folder, an image file was expected; name a file in it"
        ) from error
    except FileNotFoundError as error:
        raise InputError(f"the image file {file} does not exist; check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise InputError(
            f"the image file {file} cannot be read: {reason(error)}; "
            "check the path and its permissions"
        ) from error
    if is_device:
        raise InputError(
            f"{file} is a device, an image file was expected; open a camera with Runtime.stream"
        )
    return decode_image(data, str(file))


def decode_image(data: bytes | bytearray, name: str = "the image") -> NDArray[np.uint8]:
    """Decode the bytes of an image file; `name` is what messages call it.

    Returns:
        See `read_image`.

    Raises:
        InputError: the bytes are no image, or not all of one.
    """
    encoded = np.frombuffer(data, np.uint8)
    if encoded.size == 0:
        raise InputError(f"{name} is empty (0 bytes), an image file was expected; copy it again")
    if _is_truncated_jpeg(bytes(data)):
        raise InputError(
            f"{name} is a truncated JPEG: its end marker is missing, part of the picture would be "
            "grey; copy the whole file again"
        )
    try:
        pixels = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    except cv2.error as error:  # e.g. more pixels than OpenCV's limit against decompression bombs
        raise InputError(f"{name} cannot be decoded: {error}; convert it to PNG or JPEG") from error
    if pixels is None:
        raise InputError(
            f"{name} cannot be decoded: {encoded.size:,} bytes that are damaged, cut off, or in a "
            "format that this OpenCV does not read; open it in a viewer, convert it to PNG or JPEG"
        )
    return pixels.astype(np.uint8, copy=False)


def write_image(path: str | os.PathLike[str], pixels: NDArray[np.uint8]) -> None:
    """Write H×W×3 BGR or H×W grey uint8 pixels; the suffix chooses the format.

    The file appears whole or not at all; one that was there before is replaced.

    Raises:
        OutputError: no such folder, unknown suffix, a size that the format cannot hold, or the disk
            does not take it.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise OutputError(
            f"cannot write {path}: {suffix or 'no suffix'!r} is no image format known here; "
            "end the name in .png or .jpg"
        )
    height, width = pixels.shape[:2]
    refused = f"cannot write {path}: {width}×{height} pixels do not fit {suffix}; use .png"
    try:
        done, encoded = cv2.imencode(suffix, pixels)
    except cv2.error as error:
        raise OutputError(f"{refused} ({error})") from error
    if not done:
        raise OutputError(refused)
    write_atomically(path, [encoded.tobytes()])


def _is_truncated_jpeg(data: bytes) -> bool:
    """Whether a JPEG lacks the end marker after its scan (OpenCV 4 fills the rest with grey)."""
    if not data.startswith(b"\xff\xd8\xff"):
        return False
    # Over the segments before the scan by their lengths: a thumbnail in one has an end of its own.
    start = 2
    while data[start : start + 1] == b"\xff":
        marker = data[start + 1 : start + 2]
        if marker == b"\xda":
            return data.find(b"\xff\xd9", start) < 0
        if marker == b"\xff":  # padding before a marker
            start += 1
            continue
        start += 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    return start >= len(data)
