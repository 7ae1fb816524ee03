from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.trees import ROAD_SKY, rows, write_colours, write_image, write_picture

from edgeseg.classes import CAMVID
from edgeseg.data import load_images
from edgeseg.errors import InputError

VOID, BRIDGE, LANE, SHOULDER, BICYCLIST, SKY = (
    (0, 0, 0),
    (0, 128, 64),
    (128, 0, 192),
    (128, 128, 192),
    (0, 128, 192),
    (128, 128, 128),
)


def write_tutorial(root: Path, split: str, *names: str) -> None:
    for name in names:
        write_image(root / split / f"{name}.png")
        write_picture(root / f"{split}annot" / f"{name}.png", rows(0, 10, 11, 255))


def write_kaggle(root: Path, split: str, *names: str) -> None:
    for name in names:
        write_image(root / split / f"{name}.png")
        labels = root / f"{split}_labels" / f"{name}_L.png"
        write_colours(labels, [SKY, BICYCLIST, BRIDGE, LANE])


def write_original(root: Path, *names: str) -> None:
    for name in names:
        write_image(root / "701_StillsRaw_full" / f"{name}.png")
        labels = root / "LabeledApproved_full" / f"{name}_L.png"
        write_colours(labels, [SKY, VOID, SHOULDER, BICYCLIST])


def test_the_tutorials_indices(tmp_path: Path) -> None:
    write_tutorial(tmp_path, "train", "a", "b")
    write_tutorial(tmp_path, "val", "c")
    data = load_images(tmp_path, "train")
    assert data.table == CAMVID
    assert data.names == ("a", "b")
    assert data.labels[0][:, 0].tolist() == [0, 10, 255, 255]
    assert load_images(tmp_path, "val", CAMVID).names == ("c",)


def test_the_tutorials_lists_choose(tmp_path: Path) -> None:
    write_tutorial(tmp_path, "val", "a", "b", "c")
    lines = [f"/SegNet/CamVid/val/{n}.png /SegNet/CamVid/valannot/{n}.png" for n in "ac"]
    (tmp_path / "val.txt").write_text("\n".join(lines) + "\n\n")
    assert load_images(tmp_path, "val").names == ("a", "c")
    (tmp_path / "val.txt").write_text("a.png\nz.png\n")
    with pytest.raises(InputError, match=r"val\.txt lists 1 of 2 names that have no image .*: z"):
        load_images(tmp_path, "val")


def test_colours_in_folders_per_split(tmp_path: Path) -> None:
    write_kaggle(tmp_path, "train", "a")
    data = load_images(tmp_path, "train")
    assert data.table == CAMVID
    assert data.names == ("a",)
    assert data.labels[0][:, 0].tolist() == [0, 10, 255, 3]


def test_colours_of_the_first_publication(tmp_path: Path) -> None:
    write_original(tmp_path, "a", "b", "c")
    (tmp_path / "train.txt").write_text("b\na\n")
    data = load_images(tmp_path, "train")
    assert data.names == ("a", "b")
    assert data.labels[0][:, 0].tolist() == [0, 255, 3, 10]
    with pytest.raises(InputError, match=r"val\.txt does not exist; it says which images"):
        load_images(tmp_path, "val")


def test_the_palette_is_what_its_classes_are_drawn_in(tmp_path: Path) -> None:
    """CamVid's own colours of the 11 classes stand for just these classes."""
    write_image(tmp_path / "val" / "a.png", (11, 6))
    write_colours(tmp_path / "val_labels" / "a_L.png", CAMVID.palette)
    assert load_images(tmp_path, "val").labels[0][:, 0].tolist() == list(range(11))


def test_unknown_colours_are_named(tmp_path: Path) -> None:
    write_kaggle(tmp_path, "val", "a", "b")
    for name in "ab":
        labels = [(1, 2, 3), SKY, SKY, (9, 9, 9) if name == "b" else VOID]
        write_colours(tmp_path / "val_labels" / f"{name}_L.png", labels)
    with pytest.raises(InputError) as caught:
        load_images(tmp_path, "val")
    message = str(caught.value)
    assert "2 of 2 label files hold colours without a class" in message
    assert "#010203 (12 pixels in 2 files), #090909 (6 pixels in 1 file)" in message
    assert "a_L.png" in message


def test_grey_labels_are_no_colours(tmp_path: Path) -> None:
    write_kaggle(tmp_path, "val", "a")
    write_picture(tmp_path / "val_labels" / "a_L.png", rows(0, 1, 2, 3))
    with pytest.raises(InputError, match=r"mode L; expected colours"):
        load_images(tmp_path, "val")


def test_colours_with_transparency_or_palette(tmp_path: Path) -> None:
    write_kaggle(tmp_path, "val", "a", "b")
    for name, mode in (("a", "RGBA"), ("b", "P")):
        path = tmp_path / "val_labels" / f"{name}_L.png"
        with Image.open(path) as picture:
            other = picture.quantize(16) if mode == "P" else picture.convert(mode)
        other.save(path)
    data = load_images(tmp_path, "val")
    assert torch.equal(data.labels[0], data.labels[1])
    assert data.labels[0][:, 0].tolist() == [0, 10, 255, 3]


@pytest.mark.parametrize(
    ("write", "labels"), [(write_tutorial, "valannot"), (write_kaggle, "val_labels")]
)
def test_a_missing_split_is_named(tmp_path: Path, write: Callable[..., None], labels: str) -> None:
    write(tmp_path, "train", "a")
    with pytest.raises(InputError, match=r"val does not exist"):
        load_images(tmp_path, "val")
    (tmp_path / "val").mkdir()
    with pytest.raises(InputError, match=f"{labels} does not exist"):
        load_images(tmp_path, "val")
    (tmp_path / labels).mkdir()
    with pytest.raises(InputError, match="split 'val': the split holds no image"):
        load_images(tmp_path, "val")


def test_other_classes_are_refused(tmp_path: Path) -> None:
    write_tutorial(tmp_path, "val", "a")
    with pytest.raises(InputError, match=r"has the classes sky, building, .* but wanted are road"):
        load_images(tmp_path, "val", ROAD_SKY)


def test_all_layouts_give_the_same(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 12, (20, 30)).astype(np.uint8)
    void = labels == 11
    ids = np.where(void, 255, labels).astype(np.uint8)
    colours = np.zeros((20, 30, 3), np.uint8)
    colours[~void] = np.array(CAMVID.palette, np.uint8)[labels[~void]]
    roots = [tmp_path / name for name in ("own", "tutorial", "kaggle", "original")]
    own, tutorial, kaggle, original = roots
    for folder in (
        own / "val" / "images",
        tutorial / "val",
        kaggle / "val",
        original / "701_StillsRaw_full",
    ):
        write_image(folder / "a.png", (20, 30))
    write_picture(own / "val" / "labels" / "a.png", ids)
    write_picture(tutorial / "valannot" / "a.png", labels)
    write_picture(kaggle / "val_labels" / "a_L.png", colours)
    write_picture(original / "LabeledApproved_full" / "a_L.png", colours)
    (original / "val.txt").write_text("a\n")
    sets = [load_images(root, "val", CAMVID) for root in roots]
    assert all(data.names == ("a",) for data in sets)
    assert all(torch.equal(data.labels[0], sets[0].labels[0]) for data in sets)
    assert all(torch.equal(data.images[0], sets[0].images[0]) for data in sets)
