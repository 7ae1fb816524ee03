"""What a network sees of an image: all of it or windows, at some scales, mirrored or not."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeseg.arguments import check_integer, check_number
from edgeseg.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

MIN_SCALE, MAX_SCALE = 0.1, 8.0


@dataclass(frozen=True)
class Window:
    """A window that slides over the image; the last one in each direction ends flush with it.

    Attributes:
        size: Height and width; a side that is longer than the image's is cut to it.
        stride: Steps down and to the right; at most ``size``, so that nothing is left out.
    """

    size: tuple[int, int]
    stride: tuple[int, int]

    def __post_init__(self) -> None:
        for side, step in zip(self.size, self.stride, strict=True):
            check_integer("stride", step, 1)
            if step > side:
                raise InputError(
                    f"a window of {side} pixels with a stride of {step} leaves pixels out; "
                    "the stride must not be greater than the window"
                )


@dataclass(frozen=True)
class Views:
    """Several looks at one image; their class probabilities are averaged.

    Attributes:
        window: The network sees windows, whose logits are averaged where they overlap (as in
            mmsegmentation); None shows it the whole image.
        scales: Factors of the network's input size; a window keeps its size.
        flip: Also look at the mirrored image.
    """

    window: Window | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self) -> None:
        if not self.scales:
            raise InputError("scales are empty; name at least one, e.g. 1")
        for scale in self.scales:
            check_number("scale", scale, MIN_SCALE, MAX_SCALE)


def predict_labels(
    network: nn.Module,
    image: Tensor,
    *,
    size: tuple[int, int],
    views: Views,
    align_corners: bool,
) -> Tensor:
    """Label one image.

    Args:
        network: Images N×3×h×w → logits N×K×h'×w'.
        image: RGB 3×H×W in 0..255, on the network's device.
        size: Height and width of the network's input at scale 1.
        views: What the network sees.
        align_corners: How logits are upsampled.

    Returns:
        Class ids int64, H×W.
    """
    from edgeseg.data import normalise, resize_image

    height, width = image.shape[1:]

    def logits(scale: float, mirrored: bool) -> Tensor:
        scaled = (round(size[0] * scale), round(size[1] * scale))
        pixels = normalise(resize_image(image, scaled)[None])
        if mirrored:
            pixels = pixels.flip(-1)
        seen = _logits(network, pixels, views.window, align_corners)
        if mirrored:
            seen = seen.flip(-1)
        return _upsample(seen, (height, width), align_corners)

    looks = list(itertools.product(views.scales, (False, True) if views.flip else (False,)))
    if len(looks) == 1:
        scores = logits(*looks[0])
    else:
        scores = logits(*looks[0]).softmax(1)
        for look in looks[1:]:
            scores += logits(*look).softmax(1)
    return scores[0].argmax(0)


def _logits(
    network: nn.Module, pixels: Tensor, window: Window | None, align_corners: bool
) -> Tensor:
    """Logits float32: of the whole input as the network gives them, of windows at its size."""
    height, width = pixels.shape[2:]
    if window is None or (window.size[0] >= height and window.size[1] >= width):
        whole: Tensor = network(pixels).float()
        return whole
    total: Tensor | None = None
    count = pixels.new_zeros(height, width)
    for row, column in itertools.product(
        _spans(height, window.size[0], window.stride[0]),
        _spans(width, window.size[1], window.stride[1]),
    ):
        seen = pixels[:, :, row, column]
        piece = _upsample(network(seen).float(), seen.shape[2:], align_corners)
        if total is None:
            total = piece.new_zeros(1, piece.shape[1], height, width)
        total[:, :, row, column] += piece
        count[row, column] += 1
    assert total is not None  # there is at least one window
    return total / count


def _spans(length: int, window: int, stride: int) -> list[slice]:
    """Where a window lies along one side."""
    window = min(window, length)
    starts = [*range(0, length - window, stride), length - window]
    return [slice(start, start + window) for start in starts]


def _upsample(logits: Tensor, size: tuple[int, ...], align_corners: bool) -> Tensor:
    import torch.nn.functional as F

    return F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners)
