"""How results become 16-bit and 8-bit numbers, to the last bit: ties, subnormals, the largest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.kernels import reference
from tests.kernels.cases import DType, encode, storage

from edgeseg import _core

Bytes = NDArray[np.uint8]


def thirty_seconds() -> tuple[Bytes, tuple[int, int]]:
    """A frame, and a size at which its interpolated grey levels are all whole 1/32s.

    float32 holds them exactly, so only the last rounding remains.
    """
    frame = np.random.default_rng(0).integers(0, 256, (9, 61, 3), dtype=np.uint8)
    return frame, (9, 61 * 16)


def run(frame: Bytes, size: tuple[int, int], dtype: DType, mean: float, std: float) -> Any:
    out = np.empty((3, *size), storage(dtype))
    _core.preprocess(
        frame, out, mean=(mean,) * 3, std=(std,) * 3, bfloat16=dtype == "bfloat16", threads=2
    )
    return out


# The scale, a power of two, moves grey levels to where the type's numbers are dense, subnormal or
# at their end.
@pytest.mark.parametrize(
    ("dtype", "exponent"),
    [("float16", e) for e in (0, 9, -16, -22)] + [("bfloat16", e) for e in (0, 120, -126)],
)
@pytest.mark.parametrize("mean", [0.0, 127.5])
def test_halves_go_to_the_even_neighbour(
    dtype: DType, exponent: int, mean: float, level: str
) -> None:
    frame, size = thirty_seconds()
    scale = 2.0**exponent
    exact = reference.preprocess(frame, size, mean=(mean,) * 3, std=(1 / scale,) * 3)
    np.testing.assert_array_equal(exact, exact.astype(np.float32))
    with np.errstate(over="ignore"):
        want = encode(exact, dtype)
    np.testing.assert_array_equal(
        run(frame, size, dtype, mean, 1 / scale).view(np.uint16), want.view(np.uint16)
    )


def test_half_a_grey_level_is_rounded_up(level: str) -> None:
    frame, size = thirty_seconds()
    exact = reference.preprocess(frame, size)
    np.testing.assert_array_equal(run(frame, size, "uint8", 0.0, 1.0), np.floor(exact + 0.5))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_frames_hold_ties_of_both_kinds(dtype: DType) -> None:
    """Or the tests above would pass with any rule."""
    frame, size = thirty_seconds()
    exact = reference.preprocess(frame, size).astype(np.float32)
    dropped = {"float16": 13, "bfloat16": 16}[dtype]
    bits = exact[exact >= 128].view(np.uint32)
    tied = (bits & ((1 << dropped) - 1)) == 1 << (dropped - 1)
    odd = (bits >> dropped) & 1 == 1
    assert min((tied & odd).sum(), (tied & ~odd).sum()) > 50


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_scores_are_rounded_to_even(dtype: DType, level: str) -> None:
    """A pixel (1, 0) has the cosine t0 with any text (t0, t1): here halfway between two numbers."""
    step = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]  # of numbers in [1/2, 1)
    exact = (0.5 + step * (np.arange(60) + 0.5)).astype(np.float32)
    text = np.stack([exact, np.sqrt(1 - exact**2)], axis=1)
    features = np.zeros((1, 2, 5, 7), storage(dtype))
    features[:, 0] = encode(np.float32([1.0]), dtype)[0]
    out = np.empty((1, 62, 5, 7), storage(dtype))
    _core.score_map_concat(features, text, out, bfloat16=dtype == "bfloat16")
    want = encode(exact, dtype)[None, :, None, None].repeat(5, 2).repeat(7, 3)
    np.testing.assert_array_equal(out[:, 2:].view(np.uint16), want.view(np.uint16))
