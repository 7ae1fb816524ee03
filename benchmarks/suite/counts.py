"""What the work costs at least: bytes of the kernels, parameters and multiply-adds of a network.

Bytes: every cache line of the inputs that matters is read once, every output byte is written once.
Lines that a write fetches first (write-allocate) are not counted: streaming stores avoid them.
"""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeseg.models import STDCSeg

LINE = 64  # bytes of a cache line


def parameters(model: STDCSeg) -> int:
    """Of the network as it is trained: with all heads, without the text embeddings."""
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: STDCSeg, height: int, width: int) -> int:
    """Multiply-adds of one H×W frame in evaluation: convolutions, and the score map.

    The score map is a norm and K dot products over F4's channels at each of its pixels. Runs the
    network on PyTorch's meta device, without values.
    """
    counted = deepcopy(model).eval().to("meta")
    total = 0

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d)
        total += output.numel() * module.weight[0].numel()

    for module in counted.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        counted(torch.empty(1, 3, height, width, device="meta"))
    if model.text_embeddings is not None:
        classes, channels = model.text_embeddings.shape
        total += -(-height // 32) * -(-width // 32) * channels * (classes + 1)
    return total


def preprocess_bytes(
    frame: tuple[int, int], size: tuple[int, int], pixel_format: str, itemsize: int = 4
) -> int:
    """A frame of (H, W) pixels to 3×h×w values of `itemsize` bytes.

    Of the frame, the rows and in them the lines that bilinear interpolation touches: shrinking by
    more than two leaves some out.
    """
    rows = _touched(frame[0], size[0])
    columns = _touched(frame[1], size[1])
    if pixel_format == "nv12":
        # Behind the luma rows, half as many of chroma: two bytes for two columns.
        luma = len(rows) * _lines(columns, 1)
        chroma = len(np.unique(rows // 2)) * _lines(np.unique(columns // 2), 2)
        lines = luma + chroma
    else:
        lines = len(rows) * _lines(columns, 3)
    return LINE * lines + 3 * size[0] * size[1] * itemsize


def upsample_bytes(
    classes: int, grid: tuple[int, int], labels: tuple[int, int], itemsize: int = 4
) -> int:
    """Logits K×h×w in, labels H×W uint8 out."""
    return classes * grid[0] * grid[1] * itemsize + labels[0] * labels[1]


def _touched(length: int, samples: int) -> NDArray[np.int64]:
    """Indices along a side of `length` that `samples` half-pixel-centred samples read."""
    at = np.clip((np.arange(samples) + 0.5) * (length / samples) - 0.5, 0, length - 1)
    low = np.floor(at).astype(np.int64)
    return np.unique(np.concatenate([low, low[at > low] + 1]))


def _lines(columns: NDArray[np.int64], itemsize: int) -> int:
    """Cache lines of a row, beginning with one, that hold these columns."""
    first = columns * itemsize // LINE
    last = (columns * itemsize + itemsize - 1) // LINE
    return len(np.unique(np.concatenate([first, last])))
