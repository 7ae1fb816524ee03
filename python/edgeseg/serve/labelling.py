"""From the bytes of a picture to the bytes of an answer, a few pictures at a time."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from edgeseg.errors import InputError
from edgeseg.images import decode_image
from edgeseg.runtime import Result, Runtime, Timings

Output = Literal["json", "labels", "overlay", "overlay.png", "geojson"]

CONTENT_TYPES = ("image/jpeg", "image/png", "image/webp", "image/bmp", "application/octet-stream")
"""What a body may be; its first bytes decide which picture format it is."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
_MOST_SCANS = 64  # of a progressive JPEG, which is decoded anew with each; encoders make ten
_AT_ONCE = 2  # one in the network, one being decoded or encoded
_WAITING = 16


class RefusedError(Exception):
    """A request that is answered by an error.

    Attributes:
        status: HTTP status.
        sentence: what was found, what was expected, what to do.
        retry_after: seconds after which it may go better.
    """

    def __init__(self, status: int, sentence: str, retry_after: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.retry_after = retry_after


@dataclass(frozen=True)
class Answer:
    """What is sent for a picture."""

    body: bytes
    media_type: str
    timings: Timings


class Desk:
    """Labels pictures in `_AT_ONCE` threads, lets `_WAITING` wait, and refuses more."""

    def __init__(self, runtime: Runtime, max_pixels: int) -> None:
        self._runtime = runtime
        self._max_pixels = max_pixels
        self._workers = ThreadPoolExecutor(_AT_ONCE, "edgeseg-serve")
        self.pending = 0  # of the event loop alone

    def submit(self, body: bytearray, output: Output) -> asyncio.Future[Answer]:
        """Begin to label a picture; cancel the future to leave the queue.

        Raises:
            RefusedError: 429, too many wait. The future raises it with 413 and 422.
        """
        if self.pending >= _AT_ONCE + _WAITING:
            raise RefusedError(
                429, f"{self.pending} pictures are waiting; try again in a second", 1
            )
        loop = asyncio.get_running_loop()
        work = self._workers.submit(label, self._runtime, body, output, self._max_pixels)
        self.pending += 1

        def over(_: Future[Answer]) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody counts any more
                loop.call_soon_threadsafe(self._leave)

        work.add_done_callback(over)
        return asyncio.wrap_future(work)

    def _leave(self) -> None:
        self.pending -= 1

    def close(self) -> None:
        """Let go of what waits; what is in work ends by itself."""
        self._workers.shutdown(wait=False, cancel_futures=True)


def label(runtime: Runtime, body: bytearray, output: Output, max_pixels: int) -> Answer:
    """Label the picture whose file `body` holds.

    Raises:
        RefusedError: 413 for too many pixels, told by the header; 422 for what is no picture.
    """
    _check_header(body, max_pixels)
    try:
        result = runtime.predict(decode_image(body, "the body"))
    except InputError as error:
        if isinstance(error.__cause__, cv2.error):  # quotes where OpenCV was built
            raise RefusedError(
                422, "the picture cannot be decoded; convert it to JPEG or PNG"
            ) from None
        raise RefusedError(422, str(error)) from error
    encoded, media_type = _encode(result, output)
    return Answer(encoded, media_type, result.timings)


def _check_header(body: bytearray, max_pixels: int) -> None:
    """Refuse a picture before its pixels are given memory.

    Formats of which Pillow's header and OpenCV's decoder might tell two sizes (TIFF, AVIF) are not
    taken.
    """
    try:
        with Image.open(BytesIO(body), formats=_FORMATS) as picture:
            width, height = picture.size
    except Image.DecompressionBombError:
        raise RefusedError(413, _too_many("hundreds of megapixels", max_pixels)) from None
    except UnidentifiedImageError:
        raise RefusedError(
            422,
            f"the body ({len(body):,} bytes) is no picture that is known here; send a whole JPEG, "
            "PNG, WebP or BMP file",
        ) from None
    except Exception as error:  # whatever a parser makes of a stranger's bytes
        raise RefusedError(
            422, "the picture's header is damaged; send the whole file again"
        ) from error
    if body.startswith(b"\xff\xd8") and body.count(b"\xff\xda") > _MOST_SCANS:
        raise RefusedError(
            422, f"the JPEG has more than {_MOST_SCANS} scans; save it anew with another program"
        )
    if width * height > max_pixels:
        raise RefusedError(413, _too_many(f"{width}×{height} pixels", max_pixels))


def _too_many(found: str, max_pixels: int) -> str:
    return (
        f"the picture has {found}, at most {max_pixels / 1e6:g} megapixels are taken "
        "(--max-megapixels); make it smaller"
    )


def _encode(result: Result, output: Output) -> tuple[bytes, str]:
    """The answer's body and its type."""
    match output:
        case "labels":
            return _picture(".png", result.labels), "image/png"
        case "overlay":
            return _picture(".jpg", result.overlay()), "image/jpeg"
        case "overlay.png":
            return _picture(".png", result.overlay()), "image/png"
        case "geojson":
            return _json(result.geojson()), "application/geo+json"
        case "json":
            return _json(facts(result)), "application/json"


def facts(result: Result) -> dict[str, Any]:
    """What JSON says of a result."""
    height, width = result.labels.shape
    return {
        "width": width,
        "height": height,
        "classes": result.classes,
        "areas": {name: round(area, 6) for name, area in result.areas().items()},
        "timings_ms": stages(result.timings),
    }


def stages(timings: Timings) -> dict[str, float]:
    """Milliseconds of each stage, in order, and their total."""
    return {name: round(ms, 3) for name, ms in timings.stages().items()}


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _picture(suffix: str, pixels: NDArray[np.uint8]) -> bytes:
    done, encoded = cv2.imencode(suffix, pixels)
    assert done
    return encoded.tobytes()
