from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.kernels import reference
from tests.kernels.cases import OVERLAY_CASES, OverlayCase, small

from edgeseg import _core

Bytes = NDArray[np.uint8]


def inputs(case: OverlayCase) -> tuple[Bytes, Bytes, Bytes]:
    """Frame, labels and palette; every id appears, 255 too where the frame is large enough."""
    rng = np.random.default_rng(0)
    height, width = case.size
    frame = rng.integers(0, 256, (height, width + case.row_padding, 3), dtype=np.uint8)[:, :width]
    labels = rng.integers(0, 256, case.size, dtype=np.uint8)
    labels[0, 0] = 255
    return frame, labels, rng.integers(0, 256, (256, 3), dtype=np.uint8)


@pytest.mark.parametrize("case", small(OVERLAY_CASES), ids=lambda case: case.name)
def test_equals_the_twin(case: OverlayCase, level: str) -> None:
    frame, labels, palette = inputs(case)
    want = reference.overlay(frame, labels, palette, case.alpha)
    for threads in (1, 2, 7):
        out = np.zeros(frame.shape, np.uint8)
        _core.overlay(frame, labels, palette, out, alpha=case.alpha, threads=threads)
        np.testing.assert_array_equal(out, want)


def test_every_grey_colour_and_weight(level: str) -> None:
    frame = np.arange(256, dtype=np.uint8)[None, :, None].repeat(255, 0).repeat(3, 2)
    labels = np.arange(255, dtype=np.uint8)[:, None].repeat(256, 1)
    palette = np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1)
    for alpha in range(0, 257, 8):
        out = np.empty_like(frame)
        _core.overlay(frame, labels, palette, out, alpha=alpha)
        np.testing.assert_array_equal(out, reference.overlay(frame, labels, palette, alpha))


def test_in_place_and_inside_a_larger_picture(level: str) -> None:
    frame, labels, palette = inputs(OverlayCase("in-place", (20, 30), 128))
    want = reference.overlay(frame, labels, palette, 128)
    picture = np.full((24, 40, 3), 7, np.uint8)
    window = picture[2:22, 5:35]
    window[...] = frame
    _core.overlay(window, labels, palette, window, alpha=128, threads=2)
    np.testing.assert_array_equal(window, want)
    picture[2:22, 5:35] = 7
    assert (picture == 7).all()
