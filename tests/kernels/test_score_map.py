from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.kernels import reference
from tests.kernels.cases import (
    SCORE_MAP_CASES,
    DType,
    ScoreMapCase,
    channels_last,
    decode,
    encode,
    small,
    storage,
)

from edgeseg import _core


def run(
    features: NDArray[Any], text: NDArray[np.float32], dtype: DType, threads: int = 1
) -> NDArray[Any]:
    """The kernel's output; its memory format is that of `features`."""
    n, c, h, w = features.shape
    shape = (n, c + len(text), h, w)
    out = np.empty(shape, storage(dtype))
    if not features.flags.c_contiguous:
        out = channels_last(out)
    _core.score_map_concat(features, text, out, bfloat16=dtype == "bfloat16", threads=threads)
    return out


def inputs(case: ScoreMapCase) -> tuple[NDArray[Any], NDArray[np.float32]]:
    features = encode(case.make_features(), case.dtype)
    return channels_last(features) if case.channels_last else features, case.make_text()


def naive_scores(features: NDArray[Any], text: NDArray[np.float32], dtype: DType) -> Any:
    """Cosines with every product, sum and quotient rounded to the storage type."""
    rounded_text = decode(encode(text, dtype), dtype)
    n, c, h, w = features.shape
    dot = np.zeros((n, len(text), h, w))
    square = np.zeros((n, 1, h, w))
    values = decode(features, dtype)
    for i in range(c):
        plane = values[:, i : i + 1]
        weight = rounded_text[:, i].reshape(1, -1, 1, 1)
        dot = decode(encode(dot + decode(encode(plane * weight, dtype), dtype), dtype), dtype)
        square = decode(encode(square + decode(encode(plane**2, dtype), dtype), dtype), dtype)
    norm = decode(encode(np.sqrt(square), dtype), dtype)
    return decode(encode(dot / norm, dtype), dtype)


@pytest.mark.parametrize("case", SCORE_MAP_CASES, ids=lambda case: case.name)
def test_equals_the_twin(case: ScoreMapCase, level: str) -> None:
    features, text = inputs(case)
    out = run(features, text, case.dtype)
    channels = features.shape[1]
    np.testing.assert_array_equal(out[:, :channels], features)
    exact = reference.score_map(decode(features, case.dtype), text)
    error = np.abs(decode(out[:, channels:], case.dtype) - exact)
    half_ulp = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}[case.dtype]
    assert (error <= 1e-6 + half_ulp * np.abs(exact) * 1.001).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_beats_arithmetic_in_the_storage_type(dtype: DType, level: str) -> None:
    case = ScoreMapCase("naive", (1, 512, 4, 6), 5, dtype)
    features, text = inputs(case)
    exact = reference.score_map(decode(features, dtype), text)
    naive = np.abs(naive_scores(features, text, dtype) - exact).max()
    ours = np.abs(decode(run(features, text, dtype)[:, 512:], dtype) - exact).max()
    assert ours <= 0.5 * naive


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("magnitude", ["zero", "smallest", "tiny", "65504", "largest"])
def test_any_magnitude(dtype: DType, magnitude: str, level: str) -> None:
    largest = {"float32": 3.4028234e38, "float16": 65504.0, "bfloat16": 3.3895e38}[dtype]
    smallest = {"float32": 1.4e-45, "float16": 6e-8, "bfloat16": 9.2e-41}[dtype]
    value = {
        "zero": 0.0,
        "smallest": smallest,
        "tiny": smallest * 1000,
        "65504": 65504.0,
        "largest": largest,
    }[magnitude]
    case = ScoreMapCase("magnitude", (1, 1024, 2, 5), 3, dtype)
    sign = np.sign(case.make_features())
    features = encode(sign * np.float32(value), dtype)
    text = case.make_text()
    scores = decode(run(features, text, dtype)[:, 1024:], dtype)
    exact = reference.score_map(decode(features, dtype), text)
    tolerance = {"float32": 1e-6, "float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]
    np.testing.assert_allclose(scores, exact, rtol=tolerance, atol=1e-6)
    if magnitude == "zero":
        assert (scores == 0).all()


def test_one_loud_channel_does_not_silence_the_pixel_beside_it(level: str) -> None:
    features = np.full((1, 64, 1, 40), 1e-20, np.float32)
    features[0, 0, 0, ::2] = 1e30
    features[0, :, 0, 5] = 0
    text = ScoreMapCase("loud", (1, 64, 1, 40), 4).make_text()
    scores = run(features, text, "float32")[:, 64:]
    exact = reference.score_map(features.astype(np.float64), text)
    np.testing.assert_allclose(scores, exact, rtol=0, atol=1e-6)
    assert (scores[..., 5] == 0).all()


@pytest.mark.parametrize("case", small(SCORE_MAP_CASES), ids=lambda case: case.name)
def test_threads_change_nothing(case: ScoreMapCase) -> None:
    features, text = inputs(case)
    one = run(features, text, case.dtype, threads=1)
    for threads in (2, 7):
        np.testing.assert_array_equal(run(features, text, case.dtype, threads), one)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("last", [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize("apart", [(False, True), (True, False)])
def test_features_and_output_may_lie_differently(
    dtype: DType, last: tuple[bool, bool], apart: tuple[bool, bool], level: str
) -> None:
    """One channels-last, one not; one whole, one with gaps between pixels and rows."""
    case = ScoreMapCase("unlike", (2, 20, 6, 35), 3, dtype)
    features, text = inputs(case)
    want = run(features, text, dtype)

    def placed(shape: tuple[int, ...], channels_last: bool, gaps: bool) -> NDArray[Any]:
        n, c, h, w = shape
        room = 2 * w + 1 if gaps else w
        buffer = np.zeros((n, h, room, c) if channels_last else (n, c, h, room), want.dtype)
        whole = buffer.transpose(0, 3, 1, 2) if channels_last else buffer
        return whole[..., : 2 * w : 2] if gaps else whole

    source = placed(features.shape, last[0], apart[0])
    source[...] = features
    out = placed(want.shape, last[1], apart[1])
    _core.score_map_concat(source, text, out, bfloat16=dtype == "bfloat16", threads=2)
    np.testing.assert_array_equal(out, want)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_views(dtype: DType, level: str) -> None:
    case = ScoreMapCase("views", (2, 20, 6, 10), 3, dtype)
    features, text = inputs(case)
    want = run(features, text, dtype)
    wide = np.zeros((2, 40, 12, 13), features.dtype)
    view = wide[:, ::2, ::-2, 1:11]
    view[...] = features
    out = np.zeros((4, 23, 6, 20), features.dtype)[::2, :, :, ::-2]
    _core.score_map_concat(view, text, out, bfloat16=dtype == "bfloat16")
    np.testing.assert_array_equal(out[:, :20], features)
    np.testing.assert_array_equal(out, want)
