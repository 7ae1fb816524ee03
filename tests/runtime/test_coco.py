"""COCO data sets, read by pycocotools as their users do."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from tests.runtime.test_result import CLASSES, blobs, result

from edgeseg import write_coco
from edgeseg.errors import InputError, OutputError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

LABELS = arrays(
    np.uint8,
    array_shapes(min_dims=2, max_dims=2, max_side=12),
    elements=st.sampled_from([0, 1, 255]),
)


def read(dataset: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = json.loads(json.dumps(dataset))
    coco.createIndex()
    return coco


def drawn(coco: COCO, image_id: int = 1) -> NDArray[np.uint8]:
    """Labels as pycocotools decodes them; no pixel may have two."""
    (image,) = coco.loadImgs([image_id])
    labels = np.full((image["height"], image["width"]), 255, np.uint8)
    for annotation in coco.loadAnns(coco.getAnnIds([image_id])):
        inside = coco.annToMask(annotation) == 1
        assert (labels[inside] == 255).all()
        labels[inside] = annotation["category_id"] - 1
        encoded = coco.annToRLE(annotation)
        assert coco_mask.area(encoded) == annotation["area"] == inside.sum()
        assert coco_mask.toBbox(encoded).tolist() == annotation["bbox"]
        assert annotation["iscrowd"] == 0
    return labels


@settings(max_examples=80, deadline=None)
@given(LABELS)
def test_pycocotools_gives_every_label_map_back(labels: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(drawn(read(result(labels).coco())), labels)


def test_a_part_is_a_polygon_unless_it_has_a_hole() -> None:
    labels = np.full((3, 4), 1, np.uint8)
    labels[1, 1] = 255
    labels[1, 2] = 0
    dataset = result(labels).coco("a.png")
    assert dataset["images"] == [{"id": 1, "file_name": "a.png", "width": 4, "height": 3}]
    assert [(c["id"], c["name"]) for c in dataset["categories"]] == [
        (1, "road"),
        (2, "sky"),
        (3, "car"),
    ]
    island, ring = dataset["annotations"]
    assert sorted(zip(*[iter(island["segmentation"][0])] * 2, strict=True)) == [
        (2, 1),
        (2, 2),
        (3, 1),
        (3, 2),
    ]
    assert (island["category_id"], island["bbox"], island["area"]) == (1, [2, 1, 1, 1], 1)
    assert ring["segmentation"] == {"size": [3, 4], "counts": [0, 4, 1, 2, 1, 4]}
    assert (ring["category_id"], ring["bbox"], ring["area"]) == (2, [0, 0, 4, 3], 10)


def test_simplified_polygons_and_least_area() -> None:
    one = result(blobs(60, 80, 3))
    found = one.coco(min_area=20, simplify=1.5)["annotations"]
    assert len(found) < len(one.coco()["annotations"])
    assert min(annotation["area"] for annotation in found) >= 20
    points = [
        sum(len(a["segmentation"][0]) for a in found if isinstance(a["segmentation"], list))
        for found in (found, one.coco(min_area=20)["annotations"])
    ]
    assert points[0] < points[1]
    with pytest.raises(InputError, match="min_area"):
        one.coco(min_area=-1)


def test_a_data_set_of_many_frames(tmp_path: Path) -> None:
    frames = [result(blobs(30, 40 + seed, seed)) for seed in range(3)]
    frames.append(result([[255, 255]]))
    frames.append(replace(result([[0, 0, 255]]), confidence=np.array([[0.5, 0.75, 0]], np.float32)))
    path = tmp_path / "drive – 道.json"
    with write_coco(path, CLASSES) as dataset:
        for index, frame in enumerate(frames):
            dataset.add(frame, f"bild – 道/{index:06d}.png")
        assert not path.exists()
    coco = COCO(str(path))
    assert [coco.imgs[n]["file_name"] for n in sorted(coco.imgs)] == [
        f"bild – 道/{index:06d}.png" for index in range(5)
    ]
    for image_id, frame in enumerate(frames, 1):
        np.testing.assert_array_equal(drawn(coco, image_id), frame.labels)
    assert sorted(coco.anns) == list(range(1, len(coco.anns) + 1))
    assert coco.anns[len(coco.anns)]["score"] == 0.625


def test_classes_of_another_engine_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with (
        pytest.raises(InputError, match="of the classes road, sky, car, the data set of road"),
        write_coco(path, ["road"]) as dataset,
    ):
        dataset.add(result([[0]]), "a.png")
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_of_nothing(tmp_path: Path) -> None:
    with write_coco(tmp_path / "empty.json", CLASSES):
        pass
    read = json.loads((tmp_path / "empty.json").read_bytes())
    assert (read["images"], read["annotations"], len(read["categories"])) == ([], [], 3)


def test_nothing_is_left_of_a_data_set_that_was_not_finished(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("before")
    with pytest.raises(FileNotFoundError), write_coco(path, CLASSES) as dataset:
        dataset.add(result([[0]]), (tmp_path / "the caller's own").read_text())
    assert path.read_text() == "before"
    with pytest.raises(OutputError, match=r"missing does not exist; create it first"):
        write_coco(tmp_path / "missing" / "a.json", CLASSES).__enter__()
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with (
        pytest.raises(OutputError, match=r"a\.json: No space left"),
        write_coco(tmp_path / "a.json", CLASSES) as dataset,
    ):
        dataset.add(result([[0]]), "a.png")
    assert list(tmp_path.iterdir()) == []
