"""The kernels once more: slow, obvious, in double precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


def axis_positions(
    count: int, start: float, extent: float, size: int, *, align_corners: bool
) -> Float64:
    """Where `count` output samples lie on a grid of `size` samples, inside it."""
    i = np.arange(count)
    if align_corners:
        positions = start + i * extent / max(count - 1, 1)
    else:
        positions = start + (i + 0.5) * extent / count - 0.5
    return np.clip(positions, 0, size - 1)


def bilinear(planes: Float64, y: Float64, x: Float64) -> Float64:
    """Samples planes (..., h, w) at every pair of the positions y and x."""
    top = np.floor(y).astype(int)
    left = np.floor(x).astype(int)
    bottom = np.minimum(top + 1, planes.shape[-2] - 1)
    right = np.minimum(left + 1, planes.shape[-1] - 1)
    fy = (y - top)[:, None]
    fx = x - left
    upper, lower = planes[..., top, :], planes[..., bottom, :]
    upper = upper[..., left] * (1 - fx) + upper[..., right] * fx
    lower = lower[..., left] * (1 - fx) + lower[..., right] * fx
    return upper * (1 - fy) + lower * fy


def rgb_planes(frame: NDArray[np.uint8], pixel_format: str) -> Float64:
    """A frame's channels R, G, B as 3×H×W grey levels."""
    if pixel_format != "nv12":
        planes = frame.transpose(2, 0, 1).astype(np.float64)
        return planes[::-1] if pixel_format == "bgr" else planes
    height = frame.shape[0] * 2 // 3
    luma = np.maximum(frame[:height].astype(np.int64) - 16, 0)
    chroma = frame[height:].reshape(height // 2, -1, 2).astype(np.int64) - 128
    u, v = (chroma[..., i].repeat(2, axis=0).repeat(2, axis=1) for i in (0, 1))
    # BT.601, limited range, in 20 bits of fixed point as OpenCV has it.
    grey = 1220542 * luma + (1 << 19)
    red = grey + 1673527 * v
    green = grey - 852492 * v - 409993 * u
    blue = grey + 2116026 * u
    return np.clip(np.stack([red, green, blue]) >> 20, 0, 255).astype(np.float64)


def preprocess(
    frame: NDArray[np.uint8],
    size: tuple[int, int],
    *,
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0),
    std: tuple[float, float, float] = (1.0, 1.0, 1.0),
    pixel_format: str = "bgr",
    content: tuple[int, int, int, int] | None = None,
    pad: float = 0.0,
) -> Float64:
    """Network input 3×h×w; grey levels if mean and std are left as they are."""
    planes = rgb_planes(frame, pixel_format)
    top, left, height, width = content or (0, 0, *size)
    y = axis_positions(height, 0, planes.shape[1], planes.shape[1], align_corners=False)
    x = axis_positions(width, 0, planes.shape[2], planes.shape[2], align_corners=False)
    out = np.full((3, *size), float(pad))
    out[:, top : top + height, left : left + width] = bilinear(planes, y, x)
    return (out - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))


def score_map(features: Float64, text: NDArray[np.float32]) -> Float64:
    """Cosines N×K×H×W; 0 where a pixel's features are all zero."""
    norm = np.sqrt(np.square(features).sum(axis=1, keepdims=True))
    dot = np.einsum("nchw,kc->nkhw", features, text.astype(np.float64))
    return np.divide(dot, norm, out=np.zeros_like(dot), where=norm > 0)


@dataclass(frozen=True)
class Upsampled:
    """Logits at the positions of the labels."""

    values: Float64  # N×K×H×W
    peak: Float64  # N×H×W: largest |logit| of any class at the four corners of each pixel's cell


def upsample(
    logits: Float64,
    size: tuple[int, int],
    *,
    align_corners: bool,
    source: tuple[float, float, float, float] | None = None,
) -> Upsampled:
    """Logits N×K×h×w, interpolated bilinearly."""
    h, w = logits.shape[2:]
    border = 1 if align_corners else 0
    top, left, height, width = source or (0.0, 0.0, float(h - border), float(w - border))
    y = axis_positions(size[0], top, height, h, align_corners=align_corners)
    x = axis_positions(size[1], left, width, w, align_corners=align_corners)
    size_of = np.abs(logits).max(axis=1)
    corners = [
        size_of[:, np.minimum(np.floor(y).astype(int) + i, h - 1)][
            :, :, np.minimum(np.floor(x).astype(int) + j, w - 1)
        ]
        for i in (0, 1)
        for j in (0, 1)
    ]
    return Upsampled(bilinear(logits, y, x), np.max(corners, axis=0))


def softmax_confidence(values: Float64, labels: NDArray[np.uint8]) -> Float64:
    """Softmax probability N×H×W of each label among interpolated logits N×K×H×W."""
    shifted = np.exp(values - values.max(axis=1, keepdims=True))
    chosen = np.take_along_axis(shifted, labels[:, None].astype(int), axis=1)[:, 0]
    return chosen / shifted.sum(axis=1)


def overlay(
    frame: NDArray[np.uint8], labels: NDArray[np.uint8], palette: NDArray[np.uint8], alpha: int
) -> NDArray[Any]:
    """Blended frame H×W×3 uint8."""
    blended = frame.astype(int) * (256 - alpha) + palette[labels].astype(int) * alpha + 128 >> 8
    return np.where(labels[..., None] == 255, frame, blended).astype(np.uint8)
