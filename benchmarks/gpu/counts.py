"""What the work costs at least: bytes and operations, counted, and the time that they take.

Bytes: every input byte that matters is read from device memory once, every output byte written
once. A multiply-add counts as two operations, and integer arithmetic of NV12 and of the overlay
counts like float32's. Where the work depends on the data, the count is of what no data avoids. No
version is faster than the larger of both times plus one launch: the floor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from benchmarks.counts import blocks, touched

SECTOR = 32  # bytes; what device memory hands out at least
_LERP = 3  # a subtraction and a multiply-add
_YUV_TO_RGB = 16  # for one tap: 5 multiplications, 8 sums, 3 shifts


@dataclass(frozen=True)
class Work:
    """What one launch must do.

    Attributes:
        bytes: of device memory, read or written.
        operations: of arithmetic.
        unit: the fastest that can do it, a key of `Ceilings.operations`.
    """

    bytes: int
    operations: int
    unit: str = "float32"


@dataclass(frozen=True)
class Ceilings:
    """What the GPU was measured to reach.

    Attributes:
        bandwidth: of a large copy on the device, in bytes read plus written per second.
        launch_us: one launch of a kernel that does next to nothing, inside a CUDA graph.
        operations: per second in a large matrix product, by number format; "tfloat32" is float32
            on the matrix units.
    """

    bandwidth: float
    launch_us: float
    operations: dict[str, float]


def floor_us(work: Work, ceilings: Ceilings) -> float:
    """Microseconds below which no kernel comes that reads its inputs from device memory."""
    moving = work.bytes / ceilings.bandwidth
    computing = work.operations / ceilings.operations[work.unit]
    return 1e6 * max(moving, computing) + ceilings.launch_us


def score_map_concat(n: int, c: int, h: int, w: int, classes: int, itemsize: int) -> Work:
    """Features in, features and scores out, float32 text once; `itemsize` bytes a feature.

    A product of matrices, so matrix units could do it: of two bytes, or in TF32.
    """
    pixels = n * h * w
    moved = pixels * (c + c + classes) * itemsize + 4 * classes * c
    # The norm and every class: a dot product each; then a root, and a division for every class.
    operations = pixels * (2 * c * (1 + classes) + 1 + classes)
    return Work(moved, operations, "tfloat32" if itemsize == 4 else "float16")


def preprocess(
    frame: tuple[int, int], size: tuple[int, int], pixel_format: str, itemsize: int
) -> Work:
    """A frame of (H, W) pixels stretched to 3×h×w values of `itemsize` bytes.

    Of the frame, the rows that a sample touches and in these the 32-byte sectors: bilinear
    interpolation that shrinks by more than two leaves rows out.
    """
    rows, columns = (touched(full, count) for full, count in zip(frame, size, strict=True))
    if pixel_format == "nv12":
        # Chroma: one pair of bytes for two columns, in rows of its own for two rows.
        luma = len(rows) * blocks(columns, 1, SECTOR)
        read = luma + len(np.unique(rows // 2)) * blocks(columns // 2, 2, SECTOR)
    else:
        read = len(rows) * blocks(columns, 3, SECTOR)
    pixels = size[0] * size[1]
    convert = 4 * _YUV_TO_RGB if pixel_format == "nv12" else 0
    return Work(
        SECTOR * read + 3 * pixels * itemsize,
        pixels * (convert + 3 * (3 * _LERP + 2)),  # and the normalisation: two
    )


def upsample_argmax(
    n: int,
    classes: int,
    h: int,
    w: int,
    size: tuple[int, int],
    itemsize: int,
    *,
    confidence: bool = False,
) -> Work:
    """Logits N×K×h×w in, labels N×H×W uint8 out, and float32 probabilities if wanted.

    Operations: one comparison for every logit. With confidence every class of every pixel is
    interpolated, shifted, exponentiated and added.
    """
    labels = n * size[0] * size[1]
    logits = n * classes * h * w
    if not confidence:
        return Work(logits * itemsize + labels, logits)
    return Work(logits * itemsize + 5 * labels, logits + labels * (classes * (3 * _LERP + 3) + 1))


def overlay(size: tuple[int, int]) -> Work:
    """Frame and labels in, frame out, and a palette of 256 colours."""
    pixels = size[0] * size[1]
    return Work(pixels * (3 + 1 + 3) + 3 * 256, pixels * 3 * 5)


def network_floor_ms(macs: int, operations_per_second: float) -> float:
    """Milliseconds of the multiply-adds alone."""
    return 1e3 * 2 * macs / operations_per_second
