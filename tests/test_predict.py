"""Files that a source becomes: which ones, what is in them, and what is left of a failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.errors import InputError, OutputError
from edgeseg.outputs import Outputs
from edgeseg.predict import predict_source
from edgeseg.runtime import Runtime
from edgeseg.video import open_source, write_video

EVERYTHING = Outputs(
    pictures=("overlay", "side-by-side", "colored", "labels"),
    legend=True,
    geojson=True,
    coco=True,
)


@pytest.fixture(scope="module")
def runtime(tiny_engine: Path) -> Runtime:
    """A network that takes the brightest colour for the class."""
    return Runtime(tiny_engine, threads=1)


def red_and_blue(height: int = 64, width: int = 96) -> NDArray[np.uint8]:
    """Red left, blue right."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[:, : width // 2, 2] = frame[:, width // 2 :, 0] = 200
    return frame


def names(paths: Any) -> list[str]:
    return sorted(Path(path).name for path in paths)


def test_images(runtime: Runtime, tmp_path: Path) -> None:
    folder, out = tmp_path / "photos.v2", tmp_path / "out"
    folder.mkdir()
    for name in ("a.png", "a.jpg", "b.png"):
        cv2.imwrite(str(folder / name), red_and_blue())
    report = predict_source(runtime, str(folder), out, EVERYTHING)
    stems = ("a.png", "a.jpg", "b.png")
    kinds = ("_overlay.png", "_side-by-side.png", "_colored.png", "_labels.png", ".geojson")
    expected = [stem + kind for stem in stems for kind in kinds] + ["photos_coco.json"]
    assert names(report.written) == names(out.iterdir()) == sorted(expected)

    coco = json.loads((out / "photos_coco.json").read_bytes())
    assert [image["file_name"] for image in coco["images"]] == ["a.jpg", "a.png", "b.png"]
    assert len(coco["annotations"]) == 6
    assert all(0 < annotation["score"] <= 1 for annotation in coco["annotations"])
    collection = json.loads((out / "b.png.geojson").read_bytes())
    assert [f["properties"]["class_name"] for f in collection["features"]] == ["red", "blue"]
    side_by_side = cv2.imread(str(out / "b.png_side-by-side.png"))
    assert side_by_side.shape[0] > 64
    np.testing.assert_array_equal(side_by_side[:64, :96], red_and_blue())
    labels = cv2.imread(str(out / "b.png_labels.png"), cv2.IMREAD_UNCHANGED)
    assert labels.shape == (64, 96)


def test_a_video(runtime: Runtime, tmp_path: Path) -> None:
    with write_video(tmp_path / "drive.mp4", fps=10) as video:
        for _ in range(6):
            video.write(red_and_blue())
    out = tmp_path / "out"
    report = predict_source(runtime, str(tmp_path / "drive.mp4"), out, EVERYTHING, limit=4)
    clips = ["drive_overlay.mp4", "drive_side-by-side.mp4", "drive_colored.mp4"]
    others = ["drive_labels", "drive_geojson", "drive_coco.json"]
    assert names(report.written) == names(out.iterdir()) == sorted(clips + others)
    numbers = [f"{index:06d}" for index in range(4)]
    assert names((out / "drive_geojson").iterdir()) == [f"{n}.geojson" for n in numbers]
    coco = json.loads((out / "drive_coco.json").read_bytes())
    assert [image["file_name"] for image in coco["images"]] == [f"drive/{n}.png" for n in numbers]
    sizes = []
    for clip in clips:
        with open_source(out / clip) as opened:
            assert len(list(opened)) == 4
            sizes.append(opened.size)
    assert sizes[0][1] * 2 == sizes[1][1]


def test_only_some_classes_and_what_is_sure(runtime: Runtime, tmp_path: Path) -> None:
    frame = red_and_blue()
    frame[:, :48, 2] = 1  # hardly red: the logits are the colours
    cv2.imwrite(str(tmp_path / "photo.png"), frame)
    everything, result = runtime.predict(frame).labels, runtime.predict(frame, confidence=True)
    assert result.confidence is not None
    assert result.confidence[:, :40].max() < 0.8 < result.confidence[:, 56:].min()

    def written(**filters: Any) -> list[list[int]]:
        source, labels = str(tmp_path / "photo.png"), Outputs(pictures=("labels",))
        report = predict_source(runtime, source, tmp_path, labels, **filters)
        assert report.areas == result.areas()  # as labelled, whatever is written of it
        labels = cv2.imread(str(tmp_path / "photo_labels.png"), cv2.IMREAD_UNCHANGED)
        return labels.tolist()

    assert written() == everything.tolist()
    assert written(only=["blue"]) == result.only("blue").labels.tolist()
    assert written(min_confidence=0.8) == result.confident(0.8).labels.tolist()
    both = {"only": ["red"], "min_confidence": 0.8}
    assert written(**both) == result.confident(0.8).only("red").labels.tolist()


def test_smoothing_holds_what_is_not_sure(runtime: Runtime, tmp_path: Path) -> None:
    for index in range(5):
        frame = np.zeros((64, 96, 3), np.uint8)
        frame[..., 2] = 1  # hardly red
        if index >= 2:
            frame[:8] = (1, 0, 0)  # a stripe that is hardly blue comes, and one that surely is
            frame[56:] = (200, 0, 0)
        cv2.imwrite(str(tmp_path / f"{index}.png"), frame)
    seen = {}
    for smoothing in (1, 2, 3):
        out = tmp_path / f"out{smoothing}"
        labels = Outputs(pictures=("labels",))
        predict_source(runtime, str(tmp_path), out, labels, smoothing=smoothing)
        files = [out / f"{index}_labels.png" for index in range(5)]
        maps = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in files]
        seen[smoothing] = [(int(labels[0, 0]), int(labels[-1, 0])) for labels in maps]
    assert seen[1] == [(0, 0), (0, 0), (2, 2), (2, 2), (2, 2)]
    assert seen[2] == [(0, 0), (0, 0), (0, 2), (2, 2), (2, 2)]
    assert seen[3] == [(0, 0), (0, 0), (0, 2), (0, 2), (2, 2)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"only": ("red", "rouge")}, "'rouge'; there are red, green, blue"),
        ({"min_confidence": 1.5}, "min_confidence is 1.5"),
        ({"smoothing": 0}, "frames is 0"),
    ],
)
def test_refused_before_anything_is_written(
    runtime: Runtime, tmp_path: Path, arguments: dict[str, Any], words: str
) -> None:
    cv2.imwrite(str(tmp_path / "photo.png"), red_and_blue())
    with pytest.raises(InputError, match=words):
        predict_source(runtime, str(tmp_path / "photo.png"), tmp_path / "out", **arguments)
    assert names(tmp_path.iterdir()) == ["photo.png"]


def test_what_was_made_before_a_damaged_image_is_kept(runtime: Runtime, tmp_path: Path) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    cv2.imwrite(str(folder / "1.png"), red_and_blue())
    (folder / "2.png").write_bytes(b"none")
    with pytest.raises(InputError, match=r"2\.png cannot be decoded"):
        predict_source(runtime, str(folder), out, EVERYTHING)
    coco = json.loads((out / "photos_coco.json").read_bytes())
    assert [image["file_name"] for image in coco["images"]] == ["1.png"]


def test_a_data_set_that_cannot_be_finished_leaves_nothing(
    runtime: Runtime, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / "b.geojson").mkdir(parents=True)  # where the second frame's file would be
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), red_and_blue())
    with pytest.raises(OutputError, match=r"b\.geojson is a folder"):
        predict_source(runtime, str(tmp_path), out, Outputs(pictures=(), geojson=True, coco=True))
    assert names(out.iterdir()) == ["a.geojson", "b.geojson"]


def test_nothing_but_times(runtime: Runtime, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "photo.png"), red_and_blue())
    source = str(tmp_path / "photo.png")
    report = predict_source(runtime, source, tmp_path / "out", Outputs(pictures=()))
    assert (report.frames, report.written) == (1, ())
