"""The kernel cases that all tests share: those of the CPU, of the GPU and of its emulation.

Benchmarks take their sizes from the engine at hand and from a table of cameras; of this they share
the normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

DType = Literal["float32", "float16", "bfloat16", "uint8"]

# ImageNet's, in grey levels.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class PreprocessCase:
    """A frame of `frame` = (H, W) pixels to a network input of `size` = (h, w)."""

    name: str
    frame: tuple[int, int]
    size: tuple[int, int]
    pixel_format: Literal["bgr", "rgb", "nv12"] = "bgr"
    dtype: DType = "float32"
    layout: Literal["nchw", "nhwc"] = "nchw"
    content: tuple[int, int, int, int] | None = None
    pad: float = 0.0
    row_padding: int = 0  # bytes behind every row of the frame
    full_size: bool = False

    def make_frame(self) -> NDArray[np.uint8]:
        """Noise with every grey level in it; a view into wider rows if `row_padding`."""
        rows, row_bytes = self.frame[0], self.frame[1] * 3
        if self.pixel_format == "nv12":
            rows, row_bytes = rows * 3 // 2, self.frame[1]
        buffer = _rng(self).integers(0, 256, (rows, row_bytes + self.row_padding), dtype=np.uint8)
        pixels = buffer[:, :row_bytes]
        if self.pixel_format == "nv12":
            return pixels
        return np.lib.stride_tricks.as_strided(
            pixels, (*self.frame, 3), (buffer.strides[0], 3, 1), writeable=False
        )


@dataclass(frozen=True)
class ScoreMapCase:
    """Features `shape` = (N, C, H, W) against `classes` text vectors."""

    name: str
    shape: tuple[int, int, int, int]
    classes: int
    dtype: DType = "float32"
    channels_last: bool = False
    full_size: bool = False

    def make_features(self) -> NDArray[np.float32]:
        return _rng(self).normal(size=self.shape).astype(np.float32)

    def make_text(self) -> NDArray[np.float32]:
        text = _rng(self).normal(size=(self.classes, self.shape[1]))
        return (text / np.linalg.norm(text, axis=1, keepdims=True)).astype(np.float32)


@dataclass(frozen=True)
class UpsampleCase:
    """Logits `shape` = (N, K, h, w) to labels of `size` = (H, W).

    `smooth` logits vary over many cells, so that most cells have one winner, like a network's; the
    others are noise, in which hardly any has.
    """

    name: str
    shape: tuple[int, int, int, int]
    size: tuple[int, int]
    align_corners: bool = True
    source: tuple[float, float, float, float] | None = None
    dtype: DType = "float32"
    smooth: bool = False
    channels_last: bool = False
    full_size: bool = False

    def make_logits(self) -> NDArray[np.float32]:
        n, k, h, w = self.shape
        if not self.smooth:
            return _rng(self).normal(size=self.shape).astype(np.float32)
        coarse = (
            _rng(self).normal(size=(n * k, -(-h // 16) + 1, -(-w // 16) + 1)).astype(np.float32)
        )
        fine = [cv2.resize(plane, (w, h), interpolation=cv2.INTER_CUBIC) for plane in coarse]
        return 4 * np.stack(fine).reshape(self.shape)


@dataclass(frozen=True)
class OverlayCase:
    """A frame of `size` = (H, W) pixels under labels."""

    name: str
    size: tuple[int, int]
    alpha: int
    row_padding: int = 0
    full_size: bool = False


PREPROCESS_CASES = (
    PreprocessCase("half", (1024, 2048), (512, 1024), full_size=True),
    PreprocessCase("half-f16", (1024, 2048), (512, 1024), dtype="float16", full_size=True),
    PreprocessCase(
        "half-nhwc-u8", (1024, 2048), (512, 1024), dtype="uint8", layout="nhwc", full_size=True
    ),
    PreprocessCase("half-nv12", (1024, 2048), (512, 1024), "nv12", full_size=True),
    PreprocessCase(
        "hd-letterbox",
        (1080, 1920),
        (512, 1024),
        content=(0, 57, 512, 910),
        pad=114,
        full_size=True,
    ),
    PreprocessCase("identity", (720, 960), (720, 960), full_size=True),
    PreprocessCase("odd", (33, 47), (29, 31)),
    PreprocessCase("odd-rgb-padded-rows", (33, 47), (19, 61), "rgb", row_padding=5),
    PreprocessCase("enlarge", (17, 13), (64, 50), "rgb"),
    PreprocessCase("narrow", (40, 1), (20, 7)),
    PreprocessCase("one-row", (1, 40), (3, 22)),
    PreprocessCase("one-pixel", (1, 1), (5, 6)),
    PreprocessCase("to-one-pixel", (9, 7), (1, 1)),
    PreprocessCase("bf16", (33, 47), (16, 24), dtype="bfloat16"),
    PreprocessCase("f16-nhwc", (33, 47), (16, 23), dtype="float16", layout="nhwc"),
    PreprocessCase("bf16-nhwc", (33, 47), (16, 23), dtype="bfloat16", layout="nhwc"),
    PreprocessCase("f32-nhwc", (33, 47), (16, 23), layout="nhwc"),
    PreprocessCase("u8", (33, 47), (16, 23), dtype="uint8"),
    PreprocessCase("letterbox-columns", (48, 32), (40, 64), content=(0, 17, 40, 27), pad=127.5),
    PreprocessCase(
        "letterbox-rows-u8",
        (32, 64),
        (50, 40),
        dtype="uint8",
        layout="nhwc",
        content=(15, 0, 20, 40),
        pad=114,
    ),
    PreprocessCase("nv12-odd-size", (34, 46), (21, 33), "nv12", row_padding=3),
    PreprocessCase("nv12-identity", (34, 46), (34, 46), "nv12", dtype="uint8"),
    PreprocessCase("nv12-enlarge-bf16", (8, 10), (31, 17), "nv12", dtype="bfloat16"),
)

SCORE_MAP_CASES = (
    ScoreMapCase("cityscapes", (1, 1024, 16, 32), 19, full_size=True),
    ScoreMapCase("cityscapes-bf16", (1, 1024, 16, 32), 19, "bfloat16", full_size=True),
    ScoreMapCase(
        "cityscapes-channels-last", (1, 1024, 16, 32), 19, channels_last=True, full_size=True
    ),
    ScoreMapCase("camvid-f16", (1, 1024, 23, 30), 11, "float16", full_size=True),
    ScoreMapCase("odd", (2, 37, 5, 7), 3),
    ScoreMapCase("odd-f16-channels-last", (2, 37, 5, 7), 6, "float16", channels_last=True),
    ScoreMapCase("odd-bf16", (3, 130, 3, 11), 9, "bfloat16"),
    ScoreMapCase("one-of-everything", (1, 1, 1, 1), 1),
    ScoreMapCase("one-class", (1, 64, 9, 9), 1, "float16"),
    ScoreMapCase("many-pixels", (1, 8, 40, 37), 4, channels_last=True),
    ScoreMapCase("one-row", (2, 9, 1, 70), 5, "float16"),
    ScoreMapCase("one-column", (2, 9, 70, 1), 5),
    ScoreMapCase("one-column-channels-last", (1, 130, 41, 1), 2, "bfloat16", channels_last=True),
)

UPSAMPLE_CASES = (
    UpsampleCase("cityscapes", (1, 19, 64, 128), (1024, 2048), smooth=True, full_size=True),
    UpsampleCase("cityscapes-noise", (1, 19, 64, 128), (1024, 2048), full_size=True),
    UpsampleCase(
        "cityscapes-half-pixel", (1, 19, 64, 128), (1024, 2048), False, smooth=True, full_size=True
    ),
    UpsampleCase("camvid", (1, 11, 90, 120), (720, 960), smooth=True, full_size=True),
    UpsampleCase("camvid-hd", (1, 11, 90, 120), (1080, 1920), smooth=True, full_size=True),
    UpsampleCase("integer-scale", (1, 5, 6, 9), (48, 72), False),
    UpsampleCase("fractional-scale", (2, 7, 9, 11), (64, 83)),
    UpsampleCase("fractional-scale-half-pixel", (2, 7, 9, 11), (64, 83), False, smooth=True),
    UpsampleCase("same-size", (1, 4, 13, 17), (13, 17), False),
    UpsampleCase("down", (1, 4, 31, 45), (7, 11)),
    UpsampleCase("down-half-pixel", (1, 4, 31, 45), (7, 11), False),
    UpsampleCase("up-and-down", (1, 4, 31, 5), (7, 90), False),
    UpsampleCase("one-row", (1, 6, 1, 9), (13, 50)),
    UpsampleCase("one-column", (1, 6, 9, 1), (50, 13), False),
    UpsampleCase("one-logit", (2, 6, 1, 1), (8, 9)),
    UpsampleCase("to-one-pixel", (1, 6, 8, 9), (1, 1)),
    UpsampleCase("to-one-pixel-half-pixel", (1, 6, 8, 9), (1, 1), False),
    UpsampleCase("one-class", (1, 1, 4, 5), (32, 40)),
    UpsampleCase("two-classes", (1, 2, 6, 7), (50, 70), smooth=True),
    UpsampleCase("254-classes", (1, 254, 5, 6), (37, 41), False),
    UpsampleCase("f16", (1, 19, 8, 16), (64, 128), dtype="float16"),
    UpsampleCase("bf16", (1, 19, 8, 16), (64, 128), dtype="bfloat16"),
    UpsampleCase("channels-last", (2, 19, 8, 15), (63, 129), channels_last=True),
    UpsampleCase(
        "channels-last-f16", (2, 19, 8, 15), (63, 129), False, dtype="float16", channels_last=True
    ),
    UpsampleCase("letterbox", (1, 5, 12, 20), (60, 70), False, source=(1.5, 0.0, 9.0, 20.0)),
    UpsampleCase("letterbox-corners", (1, 5, 12, 20), (60, 70), source=(0.0, 3.25, 11.0, 13.5)),
    UpsampleCase(
        "source-beyond-grid", (1, 5, 12, 20), (60, 70), False, source=(-3.0, -2.5, 18.0, 26.0)
    ),
    UpsampleCase("source-within-one-cell", (1, 9, 4, 4), (30, 30), source=(1.2, 1.3, 0.5, 0.4)),
)

OVERLAY_CASES = (
    OverlayCase("cityscapes", (1024, 2048), 128, full_size=True),
    OverlayCase("odd-padded-rows", (37, 53), 100, row_padding=4),
    OverlayCase("transparent", (9, 21), 0),
    OverlayCase("opaque", (9, 21), 256),
    OverlayCase("one-pixel", (1, 1), 77),
)

Case = TypeVar("Case", PreprocessCase, ScoreMapCase, UpsampleCase, OverlayCase)


def small(cases: Sequence[Case]) -> list[Case]:
    """The cases that are cheap in double precision."""
    return [case for case in cases if not case.full_size]


def full_size(cases: Sequence[Case]) -> list[Case]:
    """The cases of a camera's and a network's real sizes."""
    return [case for case in cases if case.full_size]


def encode(values: NDArray[Any], dtype: DType) -> NDArray[Any]:
    """Rounds to `dtype`, to nearest even; bfloat16 as its bits in uint16."""
    if dtype != "bfloat16":
        return values.astype(dtype)
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def decode(values: NDArray[Any], dtype: DType) -> NDArray[np.float64]:
    """The float64 values of an array that `encode` or a kernel made."""
    if dtype == "bfloat16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float64)


def storage(dtype: DType) -> np.dtype[Any]:
    """The NumPy dtype of arrays of `dtype`."""
    return np.dtype("uint16" if dtype == "bfloat16" else dtype)


def channels_last(array: NDArray[Any]) -> NDArray[Any]:
    """The same N×C×H×W values with the channels innermost in memory."""
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def _rng(case: Any) -> np.random.Generator:
    return np.random.default_rng(list(case.name.encode()))
