from pathlib import Path

import pytest
from tests.data.trees import ROAD_SKY, rows, write_image, write_picture

from edgeseg.classes import CITYSCAPES
from edgeseg.data import load_images
from edgeseg.errors import InputError

NAMES = ("aachen/aachen_000000_000019", "bremen/bremen_000001_000019")


def write_tree(root: Path, kind: str, *values: int, split: str = "train") -> None:
    for name in NAMES:
        write_image(root / "leftImg8bit" / split / f"{name}_leftImg8bit.png")
        labels = root / "gtFine" / split / f"{name}_gtFine_{kind}.png"
        write_picture(labels, rows(*values))
        write_picture(labels.with_name(f"{Path(name).name}_gtFine_instanceIds.png"), rows(*values))


def test_ids_become_train_ids(tmp_path: Path) -> None:
    write_tree(tmp_path, "labelIds", 7, 33, 5, 255)
    data = load_images(tmp_path, "train")
    assert data.table == CITYSCAPES
    assert data.names == ("aachen_000000_000019", "bremen_000001_000019")
    assert data.labels[1][:, 0].tolist() == [0, 18, 255, 255]


@pytest.mark.parametrize(
    ("value", "name"),
    [(7, "road"), (12, "wall"), (17, "pole"), (21, "vegetation"), (25, "rider"), (31, "train")],
)
def test_official_ids(tmp_path: Path, value: int, name: str) -> None:
    write_tree(tmp_path, "labelIds", value, 0, 0, 0)
    label = int(load_images(tmp_path, "train").labels[0][0, 0])
    assert CITYSCAPES.names[label] == name


def test_train_ids_are_taken_as_they_are(tmp_path: Path) -> None:
    write_tree(tmp_path, "labelTrainIds", 0, 18, 255, 3)
    assert load_images(tmp_path, "train").labels[0][:, 0].tolist() == [0, 18, 255, 3]


def test_values_out_of_range(tmp_path: Path) -> None:
    write_tree(tmp_path, "labelIds", 7, 34, 34, 7)
    with pytest.raises(InputError, match=r"34 \(24 pixels in 2 files\).*\n.*\n.*ids 0\.\.33"):
        load_images(tmp_path, "train")


def test_the_secret_test_labels_are_refused(tmp_path: Path) -> None:
    write_tree(tmp_path, "labelIds", 0, 1, 2, 3, split="test")
    with pytest.raises(InputError, match=r"no pixel in 2 label files .*choose another split"):
        load_images(tmp_path, "test")


def test_missing_parts_are_named(tmp_path: Path) -> None:
    write_tree(tmp_path, "labelIds", 7, 7, 7, 7)
    with pytest.raises(InputError, match="leftImg8bit/val does not exist"):
        load_images(tmp_path, "val")
    with pytest.raises(InputError, match="but wanted are road, sky"):
        load_images(tmp_path, "train", ROAD_SKY)
    (tmp_path / "gtFine" / "train" / f"{NAMES[0]}_gtFine_labelIds.png").unlink()
    with pytest.raises(InputError, match=r"1 of 2 images .*aachen_000000_000019_leftImg8bit\.png"):
        load_images(tmp_path, "train")
    (tmp_path / "leftImg8bit" / "val").mkdir()
    with pytest.raises(InputError, match="gtFine/val does not exist"):
        load_images(tmp_path, "val")
    (tmp_path / "gtFine" / "train" / f"{NAMES[1]}_gtFine_labelIds.png").unlink()
    with pytest.raises(InputError, match=r"unpack gtFine_trainvaltest\.zip"):
        load_images(tmp_path, "train")
