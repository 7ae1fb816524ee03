"""What the work costs at least: bytes of the kernels, and a network's parameters.

Bytes: every cache line of the inputs that matters is read once, every output byte is written once.
Lines that a write fetches first (write-allocate) are not counted: streaming stores avoid them.
"""

from __future__ import annotations

import numpy as np
from benchmarks.counts import blocks, touched

from edgeseg.models import STDCSeg

LINE = 64  # bytes of a cache line


def parameters(model: STDCSeg) -> int:
    """Of the network as it is trained: with all heads, without the text embeddings."""
    return sum(parameter.numel() for parameter in model.parameters())


def preprocess_bytes(
    frame: tuple[int, int], size: tuple[int, int], pixel_format: str, itemsize: int = 4
) -> int:
    """A frame of (H, W) pixels to 3×h×w values of `itemsize` bytes.

    Of the frame, the rows and in them the lines that bilinear interpolation touches: shrinking by
    more than two leaves some out.
    """
    rows = touched(frame[0], size[0])
    columns = touched(frame[1], size[1])
    if pixel_format == "nv12":
        # Behind the luma rows, half as many of chroma: two bytes for two columns.
        luma = len(rows) * blocks(columns, 1, LINE)
        chroma = len(np.unique(rows // 2)) * blocks(np.unique(columns // 2), 2, LINE)
        lines = luma + chroma
    else:
        lines = len(rows) * blocks(columns, 3, LINE)
    return LINE * lines + 3 * size[0] * size[1] * itemsize


def upsample_bytes(
    classes: int, grid: tuple[int, int], labels: tuple[int, int], itemsize: int = 4
) -> int:
    """Logits K×h×w in, labels H×W uint8 out."""
    return classes * grid[0] * grid[1] * itemsize + labels[0] * labels[1]
