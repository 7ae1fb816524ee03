from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.kernels import reference
from tests.kernels.cases import (
    UPSAMPLE_CASES,
    UpsampleCase,
    channels_last,
    decode,
    encode,
    full_size,
    small,
)
from tests.kernels.levels import at_level

from edgeseg import _core

# kernels.h: where the two best classes are closer than this, either is right.
ULPS = 16


def run(
    case: UpsampleCase,
    logits: NDArray[Any],
    threads: int = 1,
    confidence: NDArray[np.float32] | None = None,
) -> NDArray[np.uint8]:
    labels = np.full((len(logits), *case.size), 255, np.uint8)
    _core.upsample_argmax(
        logits,
        labels,
        source=case.source,
        align_corners=case.align_corners,
        confidence=confidence,
        bfloat16=case.dtype == "bfloat16",
        threads=threads,
    )
    return labels


def inputs(case: UpsampleCase) -> NDArray[Any]:
    logits = encode(case.make_logits(), case.dtype)
    return channels_last(logits) if case.channels_last else logits


def check(case: UpsampleCase, logits: NDArray[Any], labels: NDArray[np.uint8]) -> None:
    """Labels are the twin's, but where float32 cannot tell the two best classes apart."""
    twin = reference.upsample(
        decode(logits, case.dtype), case.size, align_corners=case.align_corners, source=case.source
    )
    assert labels.max() < logits.shape[1]
    chosen = np.take_along_axis(twin.values, labels[:, None].astype(int), axis=1)[:, 0]
    gap = twin.values.max(axis=1) - chosen
    assert (gap <= ULPS * np.spacing(twin.peak.astype(np.float32))).all()


@pytest.mark.parametrize("case", small(UPSAMPLE_CASES), ids=lambda case: case.name)
def test_equals_the_twin(case: UpsampleCase, level: str) -> None:
    logits = inputs(case)
    check(case, logits, run(case, logits))


def test_full_size_equals_the_twin() -> None:
    case = next(case for case in full_size(UPSAMPLE_CASES) if case.name == "camvid")
    logits = inputs(case)
    check(case, logits, run(case, logits, threads=2))


@pytest.mark.parametrize("case", small(UPSAMPLE_CASES), ids=lambda case: case.name)
def test_threads_change_nothing(case: UpsampleCase) -> None:
    logits = inputs(case)
    one = run(case, logits, threads=1)
    for threads in (2, 7):
        np.testing.assert_array_equal(run(case, logits, threads), one)


@pytest.mark.parametrize("case", small(UPSAMPLE_CASES), ids=lambda case: case.name)
def test_confidence_is_the_softmax_of_the_label(case: UpsampleCase, level: str) -> None:
    logits = inputs(case)
    confidence = np.full((len(logits), *case.size), np.nan, np.float32)
    labels = run(case, logits, confidence=confidence)
    np.testing.assert_array_equal(labels, run(case, logits))
    twin = reference.upsample(
        decode(logits, case.dtype), case.size, align_corners=case.align_corners, source=case.source
    )
    exact = reference.softmax_confidence(twin.values, labels)
    np.testing.assert_allclose(confidence, exact, rtol=2e-6)


def test_confidence_of_far_apart_logits(level: str) -> None:
    case = UpsampleCase("apart", (1, 3, 2, 2), (9, 9))
    logits = np.array([65504.0, -65504.0, 0.0], np.float32).reshape(1, 3, 1, 1) * np.ones(
        (2, 2), np.float32
    )
    confidence = np.empty((1, 9, 9), np.float32)
    assert (run(case, logits, confidence=confidence) == 0).all()
    assert (confidence == 1).all()


@pytest.mark.parametrize("classes", [2, 3, 254])
def test_confidence_at_any_distance(classes: int, level: str) -> None:
    """One class ahead of all others by every gap up to where e^-gap is nothing, and far beyond."""
    gaps = np.concatenate([np.arange(0, 200, 0.25), 2.0 ** np.arange(8, 17)]).astype(np.float32)
    case = UpsampleCase("gaps", (len(gaps), classes, 1, 1), (1, 3))
    logits = np.zeros(case.shape, np.float32)
    logits[:, -1, 0, 0] = gaps
    confidence = np.empty((len(gaps), 1, 3), np.float32)
    run(case, logits, confidence=confidence)
    exact = 1 / (1 + (classes - 1) * np.exp(-gaps.astype(np.float64)))
    rounding = 1e-6 + classes * 2.0**-24  # of a sum of that many numbers
    np.testing.assert_allclose(confidence, exact[:, None, None].repeat(3, 2), rtol=rounding)
    assert (confidence[gaps > 40] == 1).all()


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("value", [0.0, -1.5, 65504.0, 3e38])
def test_a_tie_at_all_corners_goes_to_the_lowest_id(
    align_corners: bool, value: float, level: str
) -> None:
    case = UpsampleCase("tie", (1, 9, 7, 5), (50, 33), align_corners)
    logits = case.make_logits() - 10
    logits[:, 3] = logits[:, 6] = value * np.sign(case.make_logits()[:, 0])
    logits[:, 3:7:3] = np.maximum(logits[:, 3:7:3], -5)
    assert (run(case, logits) == 3).all()


def test_ties_between_interleaved_winners_go_to_the_lowest_id(level: str) -> None:
    # Classes 4 and 2 share one plane, 1 and 5 another: only 1 and 2 may appear.
    case = UpsampleCase("pairs", (1, 2, 8, 9), (61, 75))
    planes = case.make_logits()[0]
    logits = np.full((1, 7, 8, 9), -10, np.float32)
    logits[0, [4, 2]] = planes[0]
    logits[0, [1, 5]] = planes[1]
    assert set(np.unique(run(case, logits))) == {1, 2}


def test_all_equal_logits_give_class_zero(level: str) -> None:
    case = UpsampleCase("equal", (1, 254, 3, 3), (20, 20), False)
    assert (run(case, np.zeros(case.shape, np.float32)) == 0).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_no_pixel_is_lost_to_low_precision(dtype: Any, level: str) -> None:
    # The naive form interpolates in the storage type; ours errs only where float32 does.
    case = UpsampleCase("low", (1, 8, 9, 12), (70, 95), dtype=dtype, smooth=True)
    logits = inputs(case)
    twin = reference.upsample(decode(logits, dtype), case.size, align_corners=True)
    exact = twin.values.argmax(axis=1)
    naive = decode(encode(twin.values, dtype), dtype).argmax(axis=1)
    wrong = (run(case, logits) != exact).sum()
    assert wrong <= 0.1 * (naive != exact).sum()


def test_a_pixel_on_a_logit_has_its_label(level: str) -> None:
    # Logits that differ in their last bit: nothing but the sample itself decides, at borders too.
    case = UpsampleCase("on-grid", (1, 5, 7, 9), (6 * 4 + 1, 8 * 4 + 1))
    base = case.make_logits()[:, :1]
    steps = np.random.default_rng(0).integers(0, 4, case.shape)
    logits = (base + steps * np.spacing(np.abs(base))).astype(np.float32)
    np.testing.assert_array_equal(run(case, logits)[:, ::4, ::4], logits.argmax(axis=1))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_logits_give_some_class(bad: float, level: str) -> None:
    case = UpsampleCase("bad", (1, 5, 6, 7), (40, 50))
    logits = case.make_logits()
    logits[0, :, 2:4, 3] = bad
    logits[0, 1, 0, 0] = bad
    assert run(case, logits).max() < 5
    assert run(case, np.full(case.shape, bad, np.float32)).max() < 5


def test_views(level: str) -> None:
    case = UpsampleCase("views", (2, 5, 7, 9), (44, 51))
    logits = inputs(case)
    want = run(case, logits)
    wide = np.zeros((2, 10, 14, 20), np.float32)
    view = wide[:, ::-2, ::2, 1:19:2]
    view[...] = logits
    buffer = np.full((2, 46, 60), 255, np.uint8)
    labels = buffer[::-1, 1:45, 4:55]
    _core.upsample_argmax(view, labels, align_corners=True)
    np.testing.assert_array_equal(labels, want)
    buffer[:, 1:45, 4:55] = 255
    assert (buffer == 255).all()


def test_the_letterbox_source_is_the_crop_of_the_whole(level: str) -> None:
    # Labels over half the grid at half the size are the matching half of the whole.
    case = UpsampleCase("whole", (1, 6, 8, 10), (64, 80), False)
    part = UpsampleCase("part", (1, 6, 8, 10), (32, 80), False, source=(2.0, 0.0, 4.0, 10.0))
    logits = inputs(case)
    np.testing.assert_array_equal(run(part, logits), run(case, logits)[:, 16:48])


@pytest.mark.parametrize("align_corners", [True, False])
def test_equals_torch(align_corners: bool) -> None:
    torch = pytest.importorskip("torch")
    case = UpsampleCase("torch", (2, 7, 9, 12), (57, 80), align_corners, smooth=True)
    logits = inputs(case)
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(logits).double(), case.size, mode="bilinear", align_corners=align_corners
    )
    agree = run(case, logits) == resized.argmax(dim=1).numpy()
    assert agree.mean() > 0.999


@st.composite
def upsample_cases(draw: st.DrawFn) -> UpsampleCase:
    grid = draw(st.integers(1, 12)), draw(st.integers(1, 40))
    align_corners = draw(st.booleans())
    source = None
    if draw(st.booleans()):
        number = st.floats(-3, 15, width=16)
        length = st.floats(0, 45, width=16)
        source = draw(number), draw(number), draw(length), draw(length)
    return UpsampleCase(
        name=str(draw(st.integers(0, 999))),
        shape=(draw(st.integers(1, 2)), draw(st.integers(1, 24)), *grid),
        size=(draw(st.integers(1, 40)), draw(st.integers(1, 70))),
        align_corners=align_corners,
        source=source,
        dtype=draw(st.sampled_from(["float32", "float16", "bfloat16"])),
        smooth=draw(st.booleans()),
        channels_last=draw(st.booleans()),
    )


levels = st.sampled_from(_core.dispatch_levels())


@given(case=upsample_cases(), threads=st.integers(1, 5), level=levels)
@settings(deadline=None)
def test_any_geometry_equals_the_twin(case: UpsampleCase, threads: int, level: str) -> None:
    logits = inputs(case)
    confidence = np.full((len(logits), *case.size), np.nan, np.float32)
    with at_level(level):
        labels = run(case, logits, threads)
        np.testing.assert_array_equal(run(case, logits, threads, confidence), labels)
    check(case, logits, labels)
    twin = reference.upsample(
        decode(logits, case.dtype), case.size, align_corners=case.align_corners, source=case.source
    )
    exact = reference.softmax_confidence(twin.values, labels)
    np.testing.assert_allclose(confidence, exact, rtol=2e-5)


@given(
    grid=st.tuples(st.integers(1, 4), st.integers(1, 9)),
    classes=st.integers(1, 40),
    steps=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    spread=st.integers(0, 3),
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    align_corners=st.booleans(),
    level=levels,
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_ties_anywhere_go_to_the_lowest_id(
    grid: tuple[int, int],
    classes: int,
    steps: tuple[int, int],
    spread: int,
    dtype: Any,
    align_corners: bool,
    level: str,
    seed: int,
) -> None:
    """Small whole logits and weights of a few bits: float32 is exact, a tie is beyond doubt."""
    border = 1 if align_corners else 0
    height, width = ((n - border) * 2**step + border for n, step in zip(grid, steps, strict=True))
    case = UpsampleCase("ties", (1, classes, *grid), (height, width), align_corners, dtype=dtype)
    logits = np.random.default_rng(seed).integers(-spread, spread + 1, case.shape).astype(float)
    twin = reference.upsample(logits, case.size, align_corners=align_corners)
    with at_level(level):
        labels = run(case, encode(logits, dtype))
    np.testing.assert_array_equal(labels, twin.values.argmax(axis=1))


@given(
    specials=st.lists(st.sampled_from([np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e38, 0.0])),
    classes=st.integers(1, 40),
    confident=st.booleans(),
    level=levels,
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_whatever_the_logits_an_id_is_given(
    specials: list[float], classes: int, confident: bool, level: str, seed: int
) -> None:
    random = np.random.default_rng(seed)
    case = UpsampleCase("special", (1, classes, 3, 5), (20, 31))
    logits = random.normal(size=case.shape).astype(np.float32)
    places = random.integers(0, logits.size, (4, len(specials)))
    logits.reshape(-1)[places] = specials
    confidence = np.empty((1, *case.size), np.float32) if confident else None
    with at_level(level):
        assert run(case, logits, 2, confidence).max() < classes
