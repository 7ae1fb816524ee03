"""What the bindings refuse, and that they say why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeseg import _core

ZERO = (0.0, 0.0, 0.0)
ONE = (1.0, 1.0, 1.0)


def read_only(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    array.flags.writeable = False
    return array


def preprocess(**changes: Any) -> None:
    arguments = {
        "frame": np.zeros((8, 10, 3), np.uint8),
        "out": np.zeros((3, 4, 6), np.float32),
        "mean": ZERO,
        "std": ONE,
    }
    _core.preprocess(**(arguments | changes))


def score_map_concat(**changes: Any) -> None:
    arguments = {
        "features": np.zeros((1, 8, 2, 3), np.float32),
        "text": np.zeros((4, 8), np.float32),
        "out": np.zeros((1, 12, 2, 3), np.float32),
    }
    _core.score_map_concat(**(arguments | changes))


def upsample_argmax(**changes: Any) -> None:
    arguments = {
        "logits": np.zeros((1, 5, 2, 3), np.float32),
        "labels": np.zeros((1, 8, 9), np.uint8),
        "align_corners": True,
    }
    _core.upsample_argmax(**(arguments | changes))


def overlay(**changes: Any) -> None:
    arguments = {
        "frame": np.zeros((8, 9, 3), np.uint8),
        "labels": np.zeros((8, 9), np.uint8),
        "palette": np.zeros((256, 3), np.uint8),
        "out": np.zeros((8, 9, 3), np.uint8),
        "alpha": 128,
    }
    _core.overlay(**(arguments | changes))


@pytest.mark.parametrize("call", [preprocess, score_map_concat, upsample_argmax, overlay])
def test_good_arguments_pass(call: Any) -> None:
    call()


@pytest.mark.parametrize("call", [preprocess, score_map_concat, upsample_argmax, overlay])
@pytest.mark.parametrize("threads", [0, -3, 1025, 2**31 - 1])
def test_threads(call: Any, threads: int) -> None:
    with pytest.raises(ValueError, match=f"^threads: found {threads}, expected 1 to 1024"):
        call(threads=threads)


def shaped(dtype: Any, *shape: int) -> np.ndarray[Any, Any]:
    """An array of which only one element is there."""
    return np.lib.stride_tricks.as_strided(np.zeros(1, dtype), shape, (0,) * len(shape))


def misaligned(dtype: Any, *shape: int) -> np.ndarray[Any, Any]:
    """Zeros one byte beside where their dtype wants them."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.zeros(count + 1, np.uint8)[1:].view(dtype).reshape(shape)


NOT_ALIGNED = "found an address that is no multiple of the element size, expected .* np.array"

BAD_PREPROCESS = [
    (
        {"frame": shaped(np.uint8, 1, 2**24 + 1, 3)},
        "frame: found 1×16777217×3 uint8, expected at most 16777216 a dimension",
    ),
    ({"frame": shaped(np.uint8, 2**24 + 1, 1, 3)}, "frame: .* at most 16777216 a dimension"),
    (
        {"frame": shaped(np.uint8, 3, 2**24 + 2), "pixel_format": "nv12"},
        "frame: found 3×16777218 uint8, expected at most 16777216 a dimension",
    ),
    ({"out": shaped(np.float32, 3, 4, 2**24 + 1)}, "out: .* at most 16777216 a dimension"),
    ({"out": misaligned(np.float32, 3, 4, 6)}, f"out: {NOT_ALIGNED}"),
    (
        {"frame": np.zeros((8, 10, 3), np.float32)},
        "frame: found 8×10×3 float32, expected dtype uint8",
    ),
    ({"frame": np.zeros((8, 10), np.uint8)}, "frame: found 8×10 uint8, expected H×W×3"),
    ({"frame": np.zeros((8, 10, 2), np.uint8)}, "frame: found 8×10×2 uint8, .*three channels"),
    ({"frame": np.zeros((0, 10, 3), np.uint8)}, "frame: found 0×10×3"),
    ({"frame": np.zeros((8, 10, 3), np.uint8)[:, :, ::-1]}, "frame: .*contiguous"),
    ({"frame": np.zeros((8, 20, 3), np.uint8)[:, ::2]}, "frame: .*contiguous"),
    ({"pixel_format": "yuv"}, 'pixel_format: found "yuv", expected "bgr", "rgb" or "nv12"'),
    ({"pixel_format": "nv12"}, "frame: found 8×10×3 uint8, expected 3H/2×W"),
    ({"pixel_format": "nv12", "frame": np.zeros((10, 4), np.uint8)}, "frame: .*H and W even"),
    ({"pixel_format": "nv12", "frame": np.zeros((9, 5), np.uint8)}, "frame: .*H and W even"),
    ({"out": np.zeros((3, 4, 6), np.float64)}, "out: found 3×4×6 float64, expected float32"),
    ({"out": np.zeros((3, 4, 6), np.uint16)}, "out: found .* with bfloat16=True"),
    ({"bfloat16": True}, "out: found 3×4×6 float32, expected uint16"),
    ({"out": np.zeros((4, 6, 3), np.float32)}, "out: found 4×6×3 float32, expected 3×h×w"),
    ({"layout": "nhwc"}, "out: found 3×4×6 float32, expected h×w×3"),
    ({"layout": "chwn"}, 'layout: found "chwn"'),
    ({"out": np.zeros((1, 3, 4, 6), np.float32)}, "out: found 1×3×4×6"),
    ({"out": read_only(np.zeros((3, 4, 6), np.float32))}, "out: found a read-only array"),
    ({"std": (1.0, 0.0, 1.0)}, "std: found 0"),
    ({"std": (1.0, 1e-39, 1.0)}, "std: found 0.0*, expected .* finite reciprocal"),
    ({"std": (1.0, float("nan"), 1.0)}, "std: found -?nan"),
    ({"mean": (float("inf"), 0.0, 1.0)}, "mean: found inf"),
    ({"pad": 256.0}, "pad: found 256"),
    ({"content": (0, 0, 5, 6)}, r"content: .*height=5.*inside the 4×6 output"),
    ({"content": (0, 1, 4, 6)}, "content: "),
    ({"content": (0, -1, 4, 6)}, "content: "),
    ({"content": (0, 0, 0, 6)}, "content: "),
    ({"content": (2**31 - 1, 0, 2**31 - 1, 6)}, "content: "),
]

BAD_SCORE_MAP = [
    (
        {"features": np.zeros((8, 2, 3), np.float32)},
        "features: found 8×2×3 float32, expected N×C×H×W",
    ),
    (
        {"features": np.zeros((1, 8, 2, 3), np.float64)},
        "features: found .*float64, expected float32",
    ),
    ({"features": misaligned(np.float32, 1, 8, 2, 3)}, f"features: {NOT_ALIGNED}"),
    ({"features": misaligned(np.float16, 1, 8, 2, 3)}, f"features: {NOT_ALIGNED}"),
    ({"text": misaligned(np.float32, 4, 8)}, f"text: {NOT_ALIGNED}"),
    ({"out": misaligned(np.float32, 1, 12, 2, 3)}, f"out: {NOT_ALIGNED}"),
    (
        {"features": shaped(np.float32, 1024, 8, 1024, 1025)},
        "features: found 1024×8×1024×1025 float32, expected at most 1073741824 pixels in all",
    ),
    ({"text": shaped(np.float32, 2**24 + 1, 8)}, "text: .* at most 16777216 a dimension"),
    ({"text": np.zeros((4, 7), np.float32)}, "text: found 4×7 float32, expected shape 4×8"),
    ({"text": np.zeros((4, 8), np.float16)}, "text: found 4×8 float16, expected dtype float32"),
    ({"text": np.zeros((8, 4), np.float32).T}, "text: .*contiguous"),
    ({"out": np.zeros((1, 11, 2, 3), np.float32)}, "out: found 1×11×2×3 .*expected shape 1×12×2×3"),
    ({"out": np.zeros((1, 12, 2, 3), np.float16)}, "out: .*dtype of features, float32"),
    ({"out": read_only(np.zeros((1, 12, 2, 3), np.float32))}, "out: found a read-only array"),
    ({"bfloat16": True}, "features: .*bfloat16=True"),
]

BAD_UPSAMPLE = [
    ({"logits": np.zeros((5, 2, 3), np.float32)}, "logits: found 5×2×3 float32, expected N×K×h×w"),
    (
        {"logits": np.zeros((1, 255, 2, 3), np.float32)},
        "logits: found 255 classes, expected at most 254",
    ),
    ({"logits": np.zeros((1, 5, 0, 3), np.float32)}, "logits: found 1×5×0×3"),
    ({"logits": misaligned(np.float32, 1, 5, 2, 3)}, f"logits: {NOT_ALIGNED}"),
    ({"confidence": misaligned(np.float32, 1, 8, 9)}, f"confidence: {NOT_ALIGNED}"),
    (
        {
            "logits": shaped(np.float32, 1025, 5, 2, 3),
            "labels": shaped(np.uint8, 1025, 2**20, 1),
        },
        "labels: found 1025×1048576×1 uint8, expected at most 1073741824 rows in all",
    ),
    ({"logits": np.zeros((1, 5, 2, 3), np.int32)}, "logits: found .*int32"),
    ({"labels": np.zeros((2, 8, 9), np.uint8)}, "labels: found 2×8×9 uint8, expected shape 1×8×9"),
    ({"labels": np.zeros((8, 9), np.uint8)}, "labels: found 8×9"),
    ({"labels": np.zeros((1, 8, 9), np.int64)}, "labels: found 1×8×9 int64, expected dtype uint8"),
    ({"labels": np.zeros((1, 8, 18), np.uint8)[:, :, ::2]}, "labels: .*contiguous"),
    ({"labels": read_only(np.zeros((1, 8, 9), np.uint8))}, "labels: found a read-only array"),
    ({"source": (0.0, 0.0, -1.0, 2.0)}, "source: .*not negative"),
    ({"source": (0.0, float("nan"), 1.0, 2.0)}, "source: .*finite"),
    ({"confidence": np.zeros((1, 8, 8), np.float32)}, "confidence: .*expected shape 1×8×9"),
    ({"confidence": np.zeros((1, 8, 9), np.float64)}, "confidence: .*dtype float32"),
    ({"confidence": np.zeros((1, 16, 9), np.float32)[:, ::2]}, "confidence: .*contiguous"),
]

BAD_OVERLAY = [
    ({"labels": np.zeros((8, 8), np.uint8)}, "labels: found 8×8 uint8, expected shape 8×9"),
    ({"labels": np.zeros((8, 9), bool)}, "labels: found 8×9 bool"),
    ({"palette": np.zeros((19, 3), np.uint8)}, "palette: found 19×3 uint8, expected shape 256×3"),
    ({"out": np.zeros((8, 10, 3), np.uint8)}, "out: found 8×10×3"),
    ({"out": read_only(np.zeros((8, 9, 3), np.uint8))}, "out: found a read-only array"),
    ({"alpha": 257}, "alpha: found 257, expected 0..256"),
    ({"alpha": -1}, "alpha: found -1"),
]


@pytest.mark.parametrize(
    ("call", "changes", "message"),
    [
        (call, changes, message)
        for call, bad in [
            (preprocess, BAD_PREPROCESS),
            (score_map_concat, BAD_SCORE_MAP),
            (upsample_argmax, BAD_UPSAMPLE),
            (overlay, BAD_OVERLAY),
        ]
        for changes, message in bad
    ],
)
def test_bad_arguments_are_named(call: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        call(**changes)


def test_unaligned_strides_are_refused() -> None:
    packed = np.zeros(8, np.dtype([("logits", "<f4", (1, 2, 1, 2)), ("flag", "u1")]))
    logits = packed["logits"].reshape(8, 2, 1, 2)
    with pytest.raises(ValueError, match=r"^logits: found a stride of 17 bytes"):
        upsample_argmax(logits=logits, labels=np.zeros((8, 3, 3), np.uint8))


@pytest.mark.parametrize("name", ["frame", "out"])
def test_lists_are_not_arrays(name: str) -> None:
    with pytest.raises(TypeError):
        preprocess(**{name: [[[0, 0, 0]]]})
