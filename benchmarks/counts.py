"""What both suites count: multiply-adds of a network, and bytes that interpolation touches."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgeseg.models import STDCSeg


def macs(model: STDCSeg, height: int, width: int) -> int:
    """Multiply-adds of one H×W frame in evaluation mode: convolutions, and the score map.

    The score map is a norm and K dot products over F4's channels at each of its pixels. Runs the
    network without values, on PyTorch's meta device.
    """
    import torch
    from torch import nn

    counted = deepcopy(model).eval().to("meta")
    total = 0

    def count(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
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


def touched(length: int, samples: int) -> NDArray[np.int64]:
    """Indices along a side of `length` that `samples` half-pixel-centred samples read."""
    at = np.clip((np.arange(samples) + 0.5) * (length / samples) - 0.5, 0, length - 1)
    low = np.floor(at).astype(np.int64)
    return np.unique(np.concatenate([low, low[at > low] + 1]))


def blocks(columns: NDArray[np.int64], itemsize: int, block: int) -> int:
    """Blocks of `block` bytes of a row, which starts with one, that hold these columns."""
    first = columns * itemsize // block
    last = (columns * itemsize + itemsize - 1) // block
    return len(np.unique(np.concatenate([first, last])))
