"""Does an engine still compute what was trained? Ask its golden sample."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.engine_file import EngineFile, open_engine
from edgeseg.errors import EngineError
from edgeseg.runtime.runtime import Precision, Runtime, packaged_engine

# Below this the engine does not compute the trained network. Rounding alone moves a few pixels on
# class borders; the float32 figure stays above 0.998, bfloat16's is in the manifest. What INT8 is
# to reach is there too: it depends on the network.
LOWEST_AGREEMENT = 0.97

MAX_GOLDEN_PIXELS = 1 << 22  # a PNG of a few kilobytes could claim gigabytes
_PNG = struct.Struct(">8sI4sII")  # signature; the first chunk's length and name; width and height


@dataclass(frozen=True)
class Verification:
    """Outcome of `verify`.

    Attributes:
        runtime: what ran, in words.
        parts: number of parts whose SHA-256 was checked.
        agreement: share of the golden frame's pixels with the trained network's label, 0..1.
        ok: whether that is enough.
    """

    runtime: str
    parts: int
    agreement: float
    ok: bool


def verify(
    engine: str | os.PathLike[str] | None = None,
    *,
    device: str = "auto",
    threads: int | None = None,
    precision: Precision = "auto",
    trust: bool = False,
) -> Verification:
    """Check every part's hash and run the golden sample on this machine.

    Arguments are those of `Runtime`, which runs here with `strict=True`.

    Raises:
        EngineError: the file is damaged or cannot run here.
    """
    path = packaged_engine() if engine is None else engine
    with open_engine(path) as file:
        for name in file.manifest.parts:
            file.part(name)
        frame = _decode(file, file.manifest.golden.frame, cv2.IMREAD_COLOR)
        expected = _decode(file, file.manifest.golden.labels, cv2.IMREAD_GRAYSCALE)
        parts = len(file.manifest.parts)
    if expected.shape != frame.shape[:2]:
        raise EngineError(
            f"the golden sample of {path} has a frame of {frame.shape[:2]} and labels of "
            f"{expected.shape}; export the engine again"
        )
    runtime = Runtime(path, device, threads=threads, precision=precision, strict=True, trust=trust)
    labels = runtime.predict(frame).labels
    agreement = float(np.mean(labels == expected))
    made = runtime.quantization
    lowest = LOWEST_AGREEMENT if made is None else made.golden - made.golden_tolerance
    return Verification(repr(runtime), parts, agreement, agreement >= lowest)


def _decode(engine: EngineFile, name: str, flags: int) -> NDArray[np.uint8]:
    content = engine.part(name)
    start = bytes(content[: _PNG.size]).ljust(_PNG.size, b"\0")
    signature, _, chunk, width, height = _PNG.unpack(start)
    if (signature, chunk) != (b"\x89PNG\r\n\x1a\n", b"IHDR"):
        raise EngineError(f"{name} in {engine.path} is not a PNG image; export the engine again")
    if width * height > MAX_GOLDEN_PIXELS:
        raise EngineError(
            f"{name} in {engine.path} claims {width}×{height} pixels, a golden sample has "
            f"{MAX_GOLDEN_PIXELS} at most; export the engine again"
        )
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:
        raise EngineError(
            f"{name} in {engine.path} cannot be decoded: {error}; export the engine again"
        ) from error
    if image is None:
        raise EngineError(f"{name} in {engine.path} is a damaged PNG; export the engine again")
    return image.astype(np.uint8, copy=False)
