import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from edgeseg.classes import CAMVID, ClassTable
from edgeseg.data import LabelledImages, load_images, load_synthetic
from edgeseg.errors import InputError
from edgeseg.synthetic import street

TABLE = ClassTable(("road", "sky"), ((128, 64, 128), (70, 130, 180)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images: a is 6×4 (width × height), b is 8×4."""
    for folder in ("images", "labels"):
        (tmp_path / "train" / folder).mkdir(parents=True)
    for name, width in (("a", 6), ("b", 8)):
        image = np.zeros((4, width, 3), np.uint8)
        image[..., 2] = 200  # red, in OpenCV's order
        labels = np.zeros((4, width), np.uint8)
        labels[0], labels[3] = 1, 255
        cv2.imwrite(str(tmp_path / "train" / "images" / f"{name}.png"), image)
        cv2.imwrite(str(tmp_path / "train" / "labels" / f"{name}.png"), labels)
    classes = {"names": TABLE.names, "palette": TABLE.palette}
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    return tmp_path


def test_images_are_rgb_and_labels_ids(root: Path) -> None:
    data = load_images(root, "train")
    assert data.table == TABLE
    assert data.names == ("a", "b")
    assert data.images[1].shape == (3, 4, 8)
    assert data.images[0].dtype == data.labels[0].dtype == torch.uint8
    assert data.images[0][:, 0, 0].tolist() == [200, 0, 0]
    assert data.labels[0][:, 0].tolist() == [1, 0, 0, 255]


def _write_labels(root: Path, labels: np.ndarray) -> None:
    cv2.imwrite(str(root / "train" / "labels" / "b.png"), labels)


def _remove(root: Path, name: str) -> None:
    (root / "train" / name).unlink()


def _truncate(root: Path, name: str) -> None:
    (root / "train" / name).write_bytes(b"\x89PNG")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r: _remove(r, "labels/b.png"), r"b\.png has no labels; expected b\.png in"),
        (lambda r: _remove(r, "images/a.png"), r"a\.png has no image"),
        (lambda r: _truncate(r, "images/a.png"), r"images/a\.png cannot be decoded"),
        (lambda r: _write_labels(r, np.zeros((4, 7), np.uint8)), r"b\.png is 7×4 .* 8×4"),
        (
            lambda r: _write_labels(r, np.full((4, 8), 2, np.uint8)),
            r"holds label 2; expected 0\.\.1",
        ),
        (lambda r: _write_labels(r, np.full((4, 8), 254, np.uint8)), "holds label 254"),
        (lambda r: _write_labels(r, np.zeros((4, 8, 3), np.uint8)), "not colours"),
        (lambda r: (r / "classes.json").unlink(), r"classes\.json does not exist"),
        (lambda r: (r / "classes.json").write_text("{}"), r"classes\.json must be"),
    ],
)
def test_bad_files_are_named(root: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(root)
    with pytest.raises(InputError, match=message):
        load_images(root, "train")


def test_missing_or_empty_split(root: Path) -> None:
    with pytest.raises(InputError, match="val/images does not exist"):
        load_images(root, "val")
    for folder in ("images", "labels"):
        (root / "val" / folder).mkdir(parents=True)
    with pytest.raises(InputError, match="holds no image"):
        load_images(root, "val")


def _set(names: str, value: int, table: ClassTable = TABLE) -> LabelledImages:
    count = len(names)
    return LabelledImages(
        table,
        tuple(names),
        tuple(torch.full((3, 2, 2), value, dtype=torch.uint8) for _ in range(count)),
        tuple(torch.zeros(2, 2, dtype=torch.uint8) for _ in range(count)),
    )


def test_updated_replaces_images_of_the_same_name() -> None:
    both = _set("abc", 1).updated(_set("bd", 2))
    assert sorted(zip(both.names, (int(i[0, 0, 0]) for i in both.images), strict=True)) == [
        ("a", 1),
        ("b", 2),
        ("c", 1),
        ("d", 2),
    ]


def test_updated_refuses_other_classes() -> None:
    other = ClassTable(("sky", "road"), TABLE.palette)
    with pytest.raises(InputError, match="different classes"):
        _set("a", 1).updated(_set("b", 1, other))


def test_synthetic_set_is_drawn_by_seed() -> None:
    data = load_synthetic(range(3, 5), (48, 64))
    assert data.table == CAMVID
    assert data.names == ("street-3", "street-4")
    expected = street(4, 48, 64)
    image = torch.from_numpy(expected.frame[..., ::-1].copy()).permute(2, 0, 1)
    assert torch.equal(data.images[1], image)
    assert torch.equal(data.labels[1], torch.from_numpy(expected.labels))
