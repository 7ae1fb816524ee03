from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.trees import ROAD_SKY, rows, write_image, write_picture

import edgeseg.data.decode as decoding
from edgeseg.classes import CAMVID, ClassTable
from edgeseg.data import LabelledImages, load_images, load_synthetic
from edgeseg.errors import InputError
from edgeseg.images import read_image
from edgeseg.synthetic import street


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three images, a and c of 6×4 (width × height), b of 8×4."""
    for name, width in (("a", 6), ("b", 8), ("c", 6)):
        write_image(tmp_path / "train" / "images" / f"{name}.png", (4, width), seed=width)
        labels = rows(1, 0, 0, 255, width=width)
        write_picture(tmp_path / "train" / "labels" / f"{name}.png", labels)
    return tmp_path


def test_images_are_rgb_and_labels_ids(root: Path) -> None:
    data = load_images(root, "train", ROAD_SKY)
    assert data.table == ROAD_SKY
    assert data.names == ("a", "b", "c")
    assert data.images[1].shape == (3, 4, 8)
    assert data.images[0].dtype == data.labels[0].dtype == torch.uint8
    assert data.labels[0][:, 0].tolist() == [1, 0, 0, 255]
    as_at_run_time = read_image(root / "train" / "images" / "b.png")[..., ::-1]
    assert np.array_equal(data.images[1].permute(1, 2, 0).numpy(), as_at_run_time)


@pytest.mark.parametrize(("limit", "names"), [(1, "a"), (2, "ab"), (3, "abc"), (9, "abc")])
def test_a_limit_spreads_over_the_split(root: Path, limit: int, names: str) -> None:
    assert load_images(root, "train", ROAD_SKY, limit=limit).names == tuple(names)


def test_all_files_that_cannot_be_used_are_counted(root: Path) -> None:
    (root / "train" / "images" / "a.png").write_bytes(b"\x89PNG")
    whole = (root / "train" / "labels" / "b.png").read_bytes()
    (root / "train" / "labels" / "b.png").write_bytes(whole[: len(whole) // 2])
    write_picture(root / "train" / "labels" / "c.png", rows(0, 0, 0, 0, width=7))
    with pytest.raises(InputError) as caught:
        load_images(root, "train", ROAD_SKY)
    message = str(caught.value)
    assert "3 of 3 images" in message
    assert "images/a.png cannot be decoded" in message
    assert "labels/b.png cannot be decoded" in message
    assert "labels/c.png is 7×4 but its image c.png is 6×4" in message


def test_a_long_list_of_bad_files_is_cut(root: Path) -> None:
    for i in range(9):
        (root / "train" / "images" / f"{i}.jpg").write_bytes(b"\xff\xd8\xff")
        write_picture(root / "train" / "labels" / f"{i}.png", rows(0))
    with pytest.raises(InputError, match=r"(?s)9 of 12 images.*0\.jpg.*4\.jpg.*and 4 more"):
        load_images(root, "train", ROAD_SKY)


def test_values_without_a_class_are_counted_over_the_whole_split(root: Path) -> None:
    write_picture(root / "train" / "labels" / "a.png", rows(0, 2, 2, 254))
    write_picture(root / "train" / "labels" / "c.png", rows(0, 1, 2, 255))
    with pytest.raises(InputError) as caught:
        load_images(root, "train", ROAD_SKY)
    message = str(caught.value)
    assert "2 of 3 label files" in message
    assert "2 (18 pixels in 2 files), 254 (6 pixels in 1 file)" in message
    assert "labels/a.png" in message
    assert "labels/c.png" in message
    assert "0 (road) to 1 (sky), or 255" in message


def test_bad_files_and_bad_values_are_told_together(root: Path) -> None:
    (root / "train" / "images" / "b.png").write_bytes(b"")
    write_picture(root / "train" / "labels" / "a.png", rows(0, 0, 0, 7))
    with pytest.raises(InputError, match=r"(?s)b\.png is empty.*7 \(6 pixels in 1 file\)"):
        load_images(root, "train", ROAD_SKY)


def test_colours_are_no_label_values(root: Path) -> None:
    write_image(root / "train" / "labels" / "b.png", (4, 8))
    with pytest.raises(InputError, match=r"b\.png is a picture of mode RGB; expected one channel"):
        load_images(root, "train", ROAD_SKY)


def test_a_palette_gives_its_indices(root: Path) -> None:
    picture = Image.fromarray(rows(1, 0, 255, 0).astype(np.uint8))
    picture.putpalette([200, 10, 10, 10, 200, 10] + [7] * 762)
    picture.save(root / "train" / "labels" / "a.png")
    assert Image.open(root / "train" / "labels" / "a.png").mode == "P"
    data = load_images(root, "train", ROAD_SKY)
    assert data.labels[0][:, 0].tolist() == [1, 0, 255, 0]


def test_sixteen_bits_and_one_bit_are_read(root: Path) -> None:
    write_picture(root / "train" / "labels" / "a.png", rows(1, 0, 255, 0, dtype=np.uint16))
    write_picture(root / "train" / "labels" / "c.png", rows(1, 0, 1, 0, dtype=np.bool_))
    data = load_images(root, "train", ROAD_SKY)
    assert data.labels[0][:, 0].tolist() == [1, 0, 255, 0]
    assert data.labels[2][:, 0].tolist() == [1, 0, 1, 0]
    write_picture(root / "train" / "labels" / "a.png", rows(1, 0, 256, 60000, dtype=np.uint16))
    with pytest.raises(InputError, match=r"256 \(6 pixels in 1 file\), 60000 \(6 pixels"):
        load_images(root, "train", ROAD_SKY)


def test_labels_without_any_class_are_refused(root: Path) -> None:
    for name, width in (("a", 6), ("b", 8), ("c", 6)):
        write_picture(root / "train" / "labels" / f"{name}.png", rows(*[255] * 4, width=width))
    with pytest.raises(InputError, match="no pixel in 3 label files has a class"):
        load_images(root, "train", ROAD_SKY)


def test_larger_pictures_are_made_smaller(root: Path) -> None:
    write_image(root / "train" / "images" / "b.png", (40, 80))
    write_picture(root / "train" / "labels" / "b.png", rows(*[0, 1] * 20, width=80))
    data = load_images(root, "train", ROAD_SKY, max_side=40)
    assert [tuple(label.shape) for label in data.labels] == [(4, 6), (20, 40), (4, 6)]
    assert data.images[1].shape == (3, 20, 40)
    assert set(data.labels[1].unique().tolist()) <= {0, 1}
    pixels = cv2.imread(str(root / "train" / "images" / "b.png"))[:2, :2, ::-1]
    mean = pixels.reshape(4, 3).mean(axis=0)
    assert np.abs(data.images[1][:, 0, 0].numpy() - mean).max() <= 1


def test_progress_counts_to_the_end(root: Path) -> None:
    seen: list[tuple[int, int]] = []
    load_images(root, "train", ROAD_SKY, progress=lambda done, of: seen.append((done, of)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_memory_is_compared_before_decoding(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 4 * 3 * (24 + 32 + 24) // 3
    monkeypatch.setattr(decoding, "available_memory", lambda: int(needed / 0.8) - 1)
    with pytest.raises(InputError, match=r"3 images, the first of 6×4, need .*--max-side"):
        load_images(root, "train", ROAD_SKY)
    assert len(load_images(root, "train", ROAD_SKY, max_side=4)) == 3
    monkeypatch.setattr(decoding, "available_memory", lambda: int(needed / 0.8) + 1)
    assert len(load_images(root, "train", ROAD_SKY)) == 3


def _set(names: str, value: int, table: ClassTable = ROAD_SKY) -> LabelledImages:
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
    other = ClassTable(("sky", "road"), ROAD_SKY.palette)
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
