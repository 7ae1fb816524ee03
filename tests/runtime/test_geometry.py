"""Where frames lie in networks, and labels in logits: `place`, which C++ programs use as well."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg import _core

SIZES = st.tuples(st.integers(1, 5000), st.integers(1, 5000))
INPUTS = st.tuples(st.integers(32, 2048), st.integers(32, 2048))


@given(SIZES, INPUTS)
def test_a_letterbox_is_the_largest_centred_picture_of_its_shape(
    frame: tuple[int, int], network: tuple[int, int]
) -> None:
    (y, x, height, width), _ = _core.place(
        frame, network, resize="letterbox", logits=(1, 1), align_corners=False
    )
    assert height == network[0] or width == network[1]
    assert 1 <= height <= network[0]
    assert 1 <= width <= network[1]
    assert y in ((network[0] - height) // 2, (network[0] - height + 1) // 2)
    assert x in ((network[1] - width) // 2, (network[1] - width + 1) // 2)
    scale = min(network[0] / frame[0], network[1] / frame[1])
    for side, pixels in ((height, frame[0]), (width, frame[1])):
        assert side == 1 or abs(side - pixels * scale) <= 0.5 + 1e-9


@given(SIZES, INPUTS)
def test_stretched_frames_fill_the_input(frame: tuple[int, int], network: tuple[int, int]) -> None:
    content, _ = _core.place(frame, network, resize="stretch", logits=(4, 4), align_corners=True)
    assert content == (0, 0, *network)


@given(SIZES, INPUTS, st.sampled_from(["stretch", "letterbox"]), st.floats(0, 1))
def test_labels_lie_over_the_pixels_that_the_frame_was_resized_to(
    frame: tuple[int, int], network: tuple[int, int], resize: str, along: float
) -> None:
    """Both kernels' coordinates, as kernels.h defines them, name the same place in the input."""
    grid = (-(-network[0] // 8), -(-network[1] // 8))
    for align_corners in (False, True):
        content, source = _core.place(
            frame, network, resize=resize, logits=grid, align_corners=align_corners
        )
        for axis in (0, 1):
            samples, pixels, cells = frame[axis], network[axis], grid[axis]
            offset, extent = content[axis], content[axis + 2]
            start, length = source[axis], source[axis + 2]
            index = round(along * (samples - 1))
            if align_corners:
                share = index / max(samples - 1, 1)
                expected = (offset + share * (extent - 1)) * (cells - 1) / (pixels - 1)
                found = start + share * length
            else:
                share = (index + 0.5) / samples
                expected = (offset + share * extent) * cells / pixels - 0.5
                found = start + share * length - 0.5
            assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame": (0, 5)}, r"frame: found \(0, 5\), expected \(height, width\), each at least 1"),
        ({"input": (5, -1)}, "input: found"),
        ({"logits": (0, 0)}, "logits: found"),
        ({"resize": "crop"}, 'resize: found "crop", expected "stretch" or "letterbox"'),
    ],
)
def test_what_is_no_size_is_refused(changes: dict[str, object], message: str) -> None:
    good = {"frame": (4, 4), "input": (32, 32), "resize": "stretch", "logits": (4, 4)}
    with pytest.raises(ValueError, match=message):
        _core.place(**(good | changes), align_corners=True)  # type: ignore[arg-type]
