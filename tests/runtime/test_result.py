from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgeseg.errors import InputError, OutputError
from edgeseg.runtime.frames import as_frame
from edgeseg.runtime.result import Result, Timings

CLASSES = ("road", "sky", "car")
PALETTE = np.array([(128, 64, 127), (70, 130, 180), (1, 2, 142)], np.uint8)
RNG = np.random.default_rng(0)


def result(
    labels: NDArray[np.uint8] | list[list[int]],
    pixels: NDArray[np.uint8] | None = None,
    pixel_format: Any = "bgr",
) -> Result:
    labels = np.array(labels, np.uint8)
    if pixels is None:
        pixels = RNG.integers(0, 256, (*labels.shape, 3), np.uint8)
    frame = as_frame(pixels, pixel_format)
    return Result(labels, CLASSES, PALETTE, frame, None, Timings(1.0, 10.5, 0.5))


def blobs(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Random connected shapes with holes, islands in them, and void."""
    noise = np.random.default_rng(seed).random((4, height, width), np.float32)
    scores = np.stack([cv2.GaussianBlur(channel, (0, 0), 1) for channel in noise])
    labels = scores.argmax(0).astype(np.uint8)
    labels[labels == 3] = 255
    return labels


# --------------------------------------------------------------------------------------- areas


def test_areas_are_fractions_of_labelled_pixels() -> None:
    areas = result([[0, 0, 0, 2], [2, 255, 255, 255]]).areas()
    assert areas == {"road": 0.6, "sky": 0.0, "car": 0.4}
    assert list(areas) == list(CLASSES)


def test_areas_without_any_label() -> None:
    assert result([[255, 255]]).areas() == {"road": 0.0, "sky": 0.0, "car": 0.0}


def test_areas_of_a_strided_label_map() -> None:
    one = result(blobs(40, 60, 0))
    labels = np.repeat(one.labels, 2, axis=1)[:, ::2]
    assert not labels.flags.c_contiguous
    assert replace(one, labels=labels).areas() == one.areas()


# ------------------------------------------------------------------------------------ pictures


def blended(frame: NDArray[np.uint8], labels: NDArray[np.uint8], weight: int) -> NDArray[np.uint8]:
    """The overlay's definition, one pixel after the other."""
    out = frame.copy()
    for y, x in np.ndindex(labels.shape):
        if labels[y, x] != 255:
            for channel in range(3):
                colour = int(PALETTE[labels[y, x], 2 - channel])
                grey = int(frame[y, x, channel])
                out[y, x, channel] = (grey * (256 - weight) + colour * weight + 128) >> 8
    return out


@pytest.mark.parametrize(("alpha", "weight"), [(0, 0), (0.3, 77), (0.5, 128), (1, 256)])
def test_overlay(alpha: float, weight: int) -> None:
    labels = blobs(20, 30, 1)
    one = result(labels)
    before = one.frame.pixels.copy()
    np.testing.assert_array_equal(one.overlay(alpha), blended(before, labels, weight))
    np.testing.assert_array_equal(one.frame.pixels, before)


def test_overlay_of_every_pixel_format_is_bgr() -> None:
    labels = blobs(20, 30, 2)
    bgr = RNG.integers(0, 256, (20, 30, 3), np.uint8)
    expected = result(labels, bgr).overlay(threads=2)
    rgb = np.ascontiguousarray(bgr[..., ::-1])
    np.testing.assert_array_equal(result(labels, rgb, "rgb").overlay(), expected)

    nv12 = RNG.integers(0, 256, (30, 30), np.uint8)
    decoded = cv2.cvtColor(nv12, cv2.COLOR_YUV2BGR_NV12)
    np.testing.assert_array_equal(
        result(labels, nv12, "nv12").overlay(), result(labels, decoded).overlay()
    )


def test_overlay_of_a_crop() -> None:
    labels = blobs(20, 30, 3)
    whole = RNG.integers(0, 256, (40, 50, 3), np.uint8)
    crop = whole[5:25, 7:37]
    np.testing.assert_array_equal(
        result(labels, crop).overlay(), result(labels, crop.copy()).overlay()
    )


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_overlay_alpha_out_of_range(alpha: float) -> None:
    with pytest.raises(InputError, match=r"alpha is .*from 0 to 1"):
        result([[0]]).overlay(alpha)
    with pytest.raises(InputError, match="threads is 0"):
        result([[0]]).overlay(threads=0)


def test_colored() -> None:
    colored = result([[0, 2], [255, 1]]).colored()
    assert colored.tolist() == [[[127, 64, 128], [142, 2, 1]], [[0, 0, 0], [180, 130, 70]]]


def test_side_by_side() -> None:
    one = result(blobs(20, 30, 6))
    both = one.side_by_side(0.3)
    np.testing.assert_array_equal(both, np.hstack((one.frame.pixels, one.overlay(0.3))))


@pytest.mark.parametrize("size", [(360, 480), (480, 360), (40, 60), (1080, 1920)])
def test_legend_is_below_and_says_what_is_there(size: tuple[int, int]) -> None:
    labels = np.zeros(size, np.uint8)
    one = result(labels)
    height, width = size
    plain, explained = one.overlay(), one.overlay(legend=True)
    assert explained.shape[1:] == (width, 3)
    np.testing.assert_array_equal(explained[:height], plain)
    strip = explained[height:]
    for colour in PALETTE[:, ::-1]:  # a patch of each class's colour
        assert (strip == colour).all(axis=2).sum() >= 100
    # Shares differ from frame to frame of a clip, the size does not.
    other = result(labels + 2, one.frame.pixels).overlay(legend=True)
    assert other.shape == explained.shape
    assert not np.array_equal(strip, other[height:])
    assert one.side_by_side(legend=True).shape[1] == 2 * width
    np.testing.assert_array_equal(one.colored(legend=True)[height:], strip)


def test_legend_names_are_written_or_replaced() -> None:
    def strip(*names: str) -> NDArray[np.uint8]:
        return replace(one, classes=names).overlay(legend=True)[360:]

    one = result(np.zeros((360, 480), np.uint8))
    assert not np.array_equal(strip("road", "sky", "car"), strip("road", "sky", "cat"))
    # Letters that would have to be joined: better none than wrong ones.
    np.testing.assert_array_equal(strip("طريق", "sky", "car"), strip("class 0", "sky", "car"))
    np.testing.assert_array_equal(strip("a\nb", "sky", "car"), strip("class 0", "sky", "car"))
    chinese = strip("道路", "sky", "car")
    as_id = np.array_equal(chinese, strip("class 0", "sky", "car"))
    assert as_id != hasattr(cv2, "FontFace")  # OpenCV 4 has ASCII only
    # A name that is too long is cut: nothing lies beyond the edge, no class is lost.
    assert strip("x" * 500, "sky", "car").shape[1] == 480


# -------------------------------------------------------------------------------------- filters


def test_only() -> None:
    one = result([[0, 1, 2, 255]])
    assert one.only("car").labels.tolist() == [[255, 255, 2, 255]]
    kept = one.only("sky", "road")
    assert kept.labels.tolist() == [[0, 1, 255, 255]]
    assert one.labels.tolist() == [[0, 1, 2, 255]]
    assert kept.areas() == {"road": 0.5, "sky": 0.5, "car": 0.0}


@pytest.mark.parametrize("names", [(), ("Car",), ("car", "tree", "bus")])
def test_only_of_unknown_classes_lists_those_there_are(names: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=r"no class is .*; there are road, sky, car$") as raised:
        result([[0]]).only(*names)
    assert ("'tree', 'bus'" in str(raised.value)) == (len(names) == 3)


def test_confident() -> None:
    one = result([[0, 1, 2, 255]])
    with pytest.raises(InputError, match=r"predict\(frame, confidence=True\)"):
        one.confident(0.5)
    one = replace(one, confidence=np.array([[0.5, 0.49, 0.9, 0.1]], np.float32))
    assert one.confident(0.5).labels.tolist() == [[0, 255, 2, 255]]
    assert one.confident(0.0).labels.tolist() == one.labels.tolist()
    assert one.confident(0.5).labels.dtype == np.uint8
    assert one.confident(0.5).only("car").labels.tolist() == [[255, 255, 2, 255]]
    with pytest.raises(InputError, match=r"threshold is 1\.5.*from 0 to 1"):
        one.confident(1.5)


# ------------------------------------------------------------------------------------ polygons


def test_polygons_of_a_ring_with_an_island() -> None:
    labels = np.full((20, 30), 255, np.uint8)
    labels[2:12, 3:13] = 0
    labels[4:10, 5:11] = 1
    labels[6:8, 7:9] = 0
    found = result(labels).polygons()
    assert [(p.class_id, p.class_name, len(p.holes)) for p in found].count((0, "road", 1)) == 1
    ring = next(p for p in found if p.class_id == 0 and p.holes)
    assert {tuple(corner) for corner in ring.exterior.tolist()} == {
        (3, 2),
        (12, 2),
        (12, 11),
        (3, 11),
    }
    assert cv2.contourArea(ring.holes[0]) == pytest.approx(49, abs=4)
    assert sorted((p.class_name, len(p.holes)) for p in found) == [
        ("road", 0),
        ("road", 1),
        ("sky", 1),
    ]
    assert ring.exterior.dtype == np.int32


def drawn(one: Result) -> NDArray[np.uint8]:
    labels = np.full(one.labels.shape, 255, np.uint8)
    for polygon in one.polygons():
        part = np.zeros(labels.shape, np.uint8)
        cv2.fillPoly(part, [polygon.exterior], 1)
        for hole in polygon.holes:
            cv2.fillPoly(part, [hole], 0)
            cv2.polylines(part, [hole], True, 1)  # a hole's outline belongs to the part around it
        labels[part == 1] = polygon.class_id
    return labels


@pytest.mark.parametrize("seed", range(8))
def test_polygons_drawn_again_give_the_labels(seed: int) -> None:
    # Three pixels wide at least: what is one pixel wide has no polygon.
    labels = np.kron(blobs(30, 40, seed), np.ones((3, 3), np.uint8))
    one = result(labels)
    assert any(polygon.holes for polygon in one.polygons())
    np.testing.assert_array_equal(drawn(one), labels)


def test_polygons_leave_out_what_is_too_small() -> None:
    labels = np.full((40, 40), 255, np.uint8)
    labels[0:21, 0:21] = 0  # 400 square pixels through pixel centres
    labels[5:8, 5:8] = 255  # a hole of 16
    labels[30:34, 30:34] = 0  # 9
    labels[25, :] = 1  # encloses nothing
    one = result(labels)
    assert sorted((len(p.exterior), len(p.holes)) for p in one.polygons()) == [(4, 0), (4, 1)]
    (large,) = one.polygons(min_area=10)
    assert len(large.holes) == 1
    (large,) = one.polygons(min_area=30)
    assert large.holes == ()
    assert one.polygons(min_area=401) == []


def test_polygons_simplified() -> None:
    labels = np.full((200, 200), 255, np.uint8)
    cv2.circle(labels, (100, 100), 80, 2, -1)
    (exact,) = result(labels).polygons()
    (simple,) = result(labels).polygons(simplify=3)
    assert 4 < len(simple.exterior) < len(exact.exterior) / 4
    distances = [
        abs(cv2.pointPolygonTest(simple.exterior, (float(x), float(y)), True))
        for x, y in exact.exterior
    ]
    assert max(distances) <= 3


@pytest.mark.parametrize("arguments", [{"min_area": -1.0}, {"simplify": float("nan")}])
def test_polygons_refuse_negative_arguments(arguments: dict[str, float]) -> None:
    with pytest.raises(
        InputError, match=r"a finite number( of at least 0| from 0 to 1000000) was expected"
    ):
        result([[0]]).polygons(**arguments)


# -------------------------------------------------------------------------------------- saving


def test_save(tmp_path: Path) -> None:
    one = result(blobs(20, 30, 4))
    path = tmp_path / "Ergebnis – 結果.png"
    one.save(path)
    data = np.fromfile(path, np.uint8)
    np.testing.assert_array_equal(cv2.imdecode(data, cv2.IMREAD_COLOR), one.overlay())
    one.save(path, "colored")
    data = np.fromfile(path, np.uint8)
    np.testing.assert_array_equal(cv2.imdecode(data, cv2.IMREAD_COLOR), one.colored())
    one.save(path, "side-by-side", alpha=0.8, legend=True)
    data = np.fromfile(path, np.uint8)
    np.testing.assert_array_equal(
        cv2.imdecode(data, cv2.IMREAD_COLOR), one.side_by_side(0.8, legend=True)
    )
    one.save(str(tmp_path / "overlay.JPG"))
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([path.name, "overlay.JPG"])


def test_saved_labels_are_ids_for_every_reader(tmp_path: Path) -> None:
    one = result(blobs(20, 30, 5))
    path = tmp_path / "labels.png"
    one.save(path, what="labels")
    np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), one.labels)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), one.labels)


@pytest.mark.parametrize(
    ("name", "what", "words"),
    [
        ("missing/a.png", "overlay", "folder does not exist"),
        ("a.docx", "overlay", "'.docx' .png"),
        ("a", "overlay", "'no suffix' .png"),
        ("a.jpg", "labels", "'.jpg' ids .png"),
        ("folder.png", "overlay", "is a folder"),
    ],
)
def test_save_refused(tmp_path: Path, name: str, what: Any, words: str) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError) as raised:
        result([[0, 1]]).save(tmp_path / name, what)
    assert all(word in str(raised.value) for word in words.split()), str(raised.value)
    assert [file.name for file in tmp_path.iterdir()] == ["folder.png"]


def test_save_what_the_format_cannot_hold(tmp_path: Path) -> None:
    wide = result(np.zeros((1, 70_000), np.uint8))
    with pytest.raises(OutputError, match=r"70000×1 pixels do not fit \.jpg; use \.png"):
        wide.save(tmp_path / "wide.jpg")
    wide.save(tmp_path / "wide.png")
    assert [file.name for file in tmp_path.iterdir()] == ["wide.png"]


def test_save_unknown_picture(tmp_path: Path) -> None:
    words = "'masks' is unknown; use 'overlay', 'side-by-side', 'colored' or 'labels'"
    with pytest.raises(InputError, match=words):
        result([[0]]).save(tmp_path / "a.png", "masks")  # type: ignore[arg-type]


def test_repr_and_timings() -> None:
    one = result([[0, 0, 0, 2], [2, 255, 255, 255]])
    assert repr(one) == "Result(4×2: road 60%, car 40%; 12.0 ms)"
    assert repr(result([[255]])) == "Result(1×1: no class; 12.0 ms)"
    assert one.timings.total == 12.0
