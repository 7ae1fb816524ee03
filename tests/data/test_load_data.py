from dataclasses import replace
from pathlib import Path

import pytest
from tests.data.trees import rows, write_image, write_picture

from edgeseg.classes import CAMVID, ClassTable
from edgeseg.errors import ConfigError, InputError
from edgeseg.recipes import PRESETS
from edgeseg.train import load_data

FOLDER = PRESETS["folder-cpu"]
ROAD_CAR = ClassTable.named(["road", "car"])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of two classes, two images to train and one to validate."""
    for split, names in (("train", "ab"), ("val", "c")):
        for name in names:
            write_image(tmp_path / split / "images" / f"{name}.png", (40, 60))
            labels = rows(*[0, 1] * 20, width=60)
            write_picture(tmp_path / split / "labels" / f"{name}.png", labels)
    return tmp_path


def test_a_folder_with_names(root: Path) -> None:
    seen: list[tuple[int, int]] = []
    data, validation = load_data(
        FOLDER, [root], ROAD_CAR, max_side=30, progress=lambda done, of: seen.append((done, of))
    )
    assert data.table == validation.table == ROAD_CAR
    assert (data.names, validation.names) == (("a", "b"), ("c",))
    assert data.labels[0].shape == (20, 30)
    assert validation.labels[0].shape == (40, 60)  # scores are those of the whole pictures
    assert seen == [(1, 2), (2, 2), (1, 1)]


def test_a_folder_without_names_is_asked_for_them(root: Path) -> None:
    with pytest.raises(InputError, match="--classes NAME0,NAME1"):
        load_data(FOLDER, [root])


def test_a_later_folder_replaces_images(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_image(other / "train" / "images" / "b.png")
    write_picture(other / "train" / "labels" / "b.png", rows(0, 1, 0, 1))
    data, _ = load_data(FOLDER, [root, other], ROAD_CAR)
    assert data.names == ("a", "b")
    assert data.labels[1].shape == (4, 6)


def test_a_recipe_for_a_known_set_knows_its_classes(root: Path) -> None:
    camvid = replace(PRESETS["camvid-cpu"], synthetic=0)
    assert load_data(camvid, [root])[0].table == CAMVID
    assert load_data(camvid, [root], ClassTable.named(CAMVID.names))[0].table == CAMVID
    with pytest.raises(ConfigError, match=r"for the classes of camvid; .*--set dataset=folder"):
        load_data(camvid, [root], ROAD_CAR)


def test_streets_and_folders_exclude_each_other(root: Path) -> None:
    with pytest.raises(ConfigError, match="leave --data out"):
        load_data(PRESETS["synthetic-cpu"], [root])
    with pytest.raises(ConfigError, match="--data ROOT"):
        load_data(FOLDER, [])
