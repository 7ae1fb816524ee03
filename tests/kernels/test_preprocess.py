from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.kernels import reference
from tests.kernels.cases import (
    MEAN,
    PREPROCESS_CASES,
    STD,
    PreprocessCase,
    decode,
    encode,
    full_size,
    small,
    storage,
)
from tests.kernels.levels import at_level

from edgeseg import _core


def run(
    case: PreprocessCase,
    frame: NDArray[np.uint8],
    threads: int = 1,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """The kernel's output as 3×h×w in its own dtype; the layout is undone."""
    if out is None:
        shape = (3, *case.size) if case.layout == "nchw" else (*case.size, 3)
        out = np.empty(shape, storage(case.dtype))
    _core.preprocess(
        frame,
        out,
        mean=MEAN,
        std=STD,
        pixel_format=case.pixel_format,
        content=case.content,
        pad=case.pad,
        layout=case.layout,
        bfloat16=case.dtype == "bfloat16",
        threads=threads,
    )
    return out if case.layout == "nchw" else out.transpose(2, 0, 1)


def expected(case: PreprocessCase, frame: NDArray[np.uint8]) -> reference.Float64:
    grey = case.dtype == "uint8"
    return reference.preprocess(
        frame,
        case.size,
        mean=(0.0,) * 3 if grey else MEAN,
        std=(1.0,) * 3 if grey else STD,
        pixel_format=case.pixel_format,
        content=case.content,
        pad=case.pad,
    )


# Half the distance of neighbouring numbers, relative: what rounding to the type alone may cost.
HALF_ULP = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def check(case: PreprocessCase, threads: int) -> None:
    frame = case.make_frame()
    out = run(case, frame, threads)
    exact = expected(case, frame)
    if case.dtype == "uint8":
        # float32 may see the other side of a half.
        assert np.abs(out - exact).max() <= 0.5 + 1e-4
        return
    # float32 arithmetic loses a few parts in 2^24 of 255 grey levels; then one rounding.
    arithmetic = 2.0**-21 * 255 / min(STD)
    error = np.abs(decode(out, case.dtype) - exact)
    assert (error <= arithmetic + HALF_ULP[case.dtype] * np.abs(exact) * 1.001).all()


@pytest.mark.parametrize("case", small(PREPROCESS_CASES), ids=lambda case: case.name)
def test_equals_the_twin(case: PreprocessCase, level: str) -> None:
    check(case, threads=1)


@pytest.mark.parametrize("case", full_size(PREPROCESS_CASES), ids=lambda case: case.name)
def test_full_size_equals_the_twin(case: PreprocessCase) -> None:
    check(case, threads=2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision_beats_arithmetic_in_that_precision(dtype: Any, level: str) -> None:
    case = PreprocessCase("low-precision", (37, 53), (16, 24), "rgb", dtype)
    frame = case.make_frame()
    exact = expected(case, frame)
    grey = encode(reference.preprocess(frame, case.size, pixel_format="rgb"), dtype)
    mean, std = (encode(np.reshape(v, (3, 1, 1)), dtype) for v in (MEAN, STD))
    centred = encode(decode(grey, dtype) - decode(mean, dtype), dtype)
    naive = decode(encode(decode(centred, dtype) / decode(std, dtype), dtype), dtype)
    ours = decode(run(case, frame), dtype)
    assert np.abs(ours - exact).max() <= 0.75 * np.abs(naive - exact).max()


@pytest.mark.parametrize("size", [(512, 1024), (300, 410), (233, 377), (64, 64), (720, 961)])
def test_within_one_grey_level_of_opencv(size: tuple[int, int], level: str) -> None:
    case = PreprocessCase("opencv", (480, 640), size, "rgb", "uint8", "nhwc")
    frame = case.make_frame()
    resized = cv2.resize(frame, size[::-1], interpolation=cv2.INTER_LINEAR)
    assert np.abs(run(case, frame).transpose(1, 2, 0).astype(int) - resized).max() <= 1


def test_nv12_is_opencvs(level: str) -> None:
    # Every combination of luma and chroma levels in steps of 5, and the extremes.
    levels = np.array([*range(0, 255, 5), 255], np.uint8)
    v, u, y = (grid.reshape(-1) for grid in np.meshgrid(levels, levels, levels, indexing="ij"))
    frame = np.concatenate(
        [np.repeat(y, 2)[None].repeat(2, axis=0), np.stack([u, v], axis=1).reshape(1, -1)]
    )
    case = PreprocessCase("nv12", (2, 2 * len(y)), (2, 2 * len(y)), "nv12", "uint8", "nhwc")
    rgb = cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_NV12)
    np.testing.assert_array_equal(run(case, frame).transpose(1, 2, 0), rgb)


@pytest.mark.parametrize("case", small(PREPROCESS_CASES), ids=lambda case: case.name)
def test_threads_change_nothing(case: PreprocessCase) -> None:
    frame = case.make_frame()
    one = run(case, frame, threads=1)
    for threads in (2, 7):
        np.testing.assert_array_equal(run(case, frame, threads), one)


def test_padding_is_the_normalised_pad_value(level: str) -> None:
    case = PreprocessCase("pad", (8, 8), (8, 20), content=(0, 6, 8, 8), pad=114)
    out = run(case, case.make_frame())
    grey = (114 - np.array(MEAN)) / np.array(STD)
    for columns in (slice(0, 6), slice(14, 20)):
        np.testing.assert_allclose(
            out[:, :, columns], grey[:, None, None] + np.zeros((3, 8, 6)), rtol=0, atol=1e-6
        )


def test_writes_through_any_strides(level: str) -> None:
    case = PreprocessCase("views", (20, 30), (9, 14))
    frame = case.make_frame()
    buffer = np.full((3, 2 * 9, 3 * 14), -1.0, np.float32)
    view = buffer[:, ::-2, ::3]
    _core.preprocess(frame, view, mean=MEAN, std=STD)
    np.testing.assert_array_equal(view, run(case, frame))
    untouched = np.ones(buffer.shape, bool)
    untouched[:, ::-2, ::3] = False
    assert (buffer[untouched] == -1).all()


def test_reads_a_frame_upside_down(level: str) -> None:
    case = PreprocessCase("flipped", (20, 30), (9, 14))
    frame = case.make_frame()
    np.testing.assert_array_equal(run(case, frame[::-1]), run(case, frame[::-1].copy()))


def test_does_not_read_behind_the_frame(level: str) -> None:
    # The frame is the end of a larger buffer whose other bytes change nothing.
    case = PreprocessCase("end", (5, 7), (5, 7))
    outputs = []
    for filler in (0, 255):
        buffer = np.full((7, 11, 3), filler, np.uint8)
        view = buffer[1:6, 2:9]
        view[...] = case.make_frame()
        outputs.append(run(case, view))
    np.testing.assert_array_equal(outputs[0], outputs[1])


@st.composite
def preprocess_cases(draw: st.DrawFn) -> PreprocessCase:
    extent = st.integers(1, 40)
    size = draw(extent), draw(extent)
    top, left = draw(st.integers(0, size[0] - 1)), draw(st.integers(0, size[1] - 1))
    content = (
        top,
        left,
        draw(st.integers(1, size[0] - top)),
        draw(st.integers(1, size[1] - left)),
    )
    pixel_format = draw(st.sampled_from(["bgr", "rgb", "nv12"]))
    frame = draw(extent), draw(extent)
    return PreprocessCase(
        name=str(draw(st.integers(0, 99))),
        frame=(2 * frame[0], 2 * frame[1]) if pixel_format == "nv12" else frame,
        size=size,
        pixel_format=pixel_format,
        dtype=draw(st.sampled_from(["float32", "float16", "bfloat16", "uint8"])),
        layout=draw(st.sampled_from(["nchw", "nhwc"])),
        content=content,
        pad=draw(st.floats(0, 255)),
        row_padding=draw(st.integers(0, 9)),
    )


@given(
    case=preprocess_cases(),
    threads=st.integers(1, 5),
    level=st.sampled_from(_core.dispatch_levels()),
)
@settings(deadline=None)
def test_any_geometry_equals_the_twin(case: PreprocessCase, threads: int, level: str) -> None:
    with at_level(level):
        check(case, threads)


@given(
    case=preprocess_cases(),
    steps=st.tuples(*[st.sampled_from([-3, -2, -1, 1, 2, 3])] * 3),
    level=st.sampled_from(_core.dispatch_levels()),
)
@settings(deadline=None)
def test_any_strides_hold_the_same_and_nothing_around_them_is_written(
    case: PreprocessCase, steps: tuple[int, int, int], level: str
) -> None:
    """Of the output in every dimension, and of the frame's rows, upside down."""
    frame = case.make_frame()
    turned = frame if case.pixel_format == "nv12" else frame[::-1].copy()[::-1]
    with at_level(level):
        want = run(case, frame)
        shape = want.shape if case.layout == "nchw" else (*case.size, 3)
        buffer = np.full(
            [n * abs(s) + 1 for n, s in zip(shape, steps, strict=True)], 77, want.dtype
        )
        inside = tuple(
            slice(0, n * s, s) if s > 0 else slice(n * -s - 1, None, s)
            for n, s in zip(shape, steps, strict=True)
        )
        view = buffer[inside]
        run(case, turned, out=view)
    np.testing.assert_array_equal(view if case.layout == "nchw" else view.transpose(2, 0, 1), want)
    buffer[inside] = 77
    assert (buffer == 77).all()


@given(
    grey=st.integers(0, 255),
    frame=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
@settings(deadline=None)
def test_a_flat_frame_stays_flat(grey: int, frame: tuple[int, int], size: tuple[int, int]) -> None:
    case = PreprocessCase("flat", frame, size, dtype="uint8")
    assert (run(case, np.full((*frame, 3), grey, np.uint8)) == grey).all()
