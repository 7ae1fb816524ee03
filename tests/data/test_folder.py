from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.trees import ROAD_SKY, rows, write_colours, write_image, write_picture

from edgeseg.classes import ClassTable, distinct_colours
from edgeseg.data import load_images
from edgeseg.errors import InputError


def write_pair(root: Path, images: str, labels: str, name: str, *values: int) -> None:
    write_image(root / images / f"{name}.jpg")
    write_picture(root / labels / f"{name}.png", rows(*values))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_pair(tmp_path, "train/images", "train/labels", "a", 1, 0, 2, 255)
    write_pair(tmp_path, "train/images", "train/labels", "b", 0, 0, 0, 0)
    return tmp_path


def describe(root: Path, text: str) -> None:
    (root / "dataset.toml").write_text(text, encoding="utf-8")


def test_names_alone_are_enough(root: Path) -> None:
    table = ClassTable.named(["road", " car", "person"])
    data = load_images(root, "train", table)
    assert data.table.names == ("road", "car", "person")
    assert data.table.palette == distinct_colours(3)
    assert data.labels[0][:, 0].tolist() == [1, 0, 2, 255]


def test_description_tells_everything(root: Path) -> None:
    describe(
        root,
        """
        names = ["road", "sky", "car"]
        palette = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
        categories = ["flat", "sky", "vehicle"]
        ignore = [9]
        """,
    )
    write_picture(root / "train" / "labels" / "b.png", rows(9, 0, 0, 0))
    data = load_images(root, "train")
    assert data.table == ClassTable(
        ("road", "sky", "car"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)), ("flat", "sky", "vehicle")
    )
    assert data.labels[1][:, 0].tolist() == [255, 0, 0, 0]


def test_sparse_values_and_other_folders(tmp_path: Path) -> None:
    write_pair(tmp_path, "rgb/day", "masks/day", "x", 7, 26, 0, 8)
    describe(
        tmp_path,
        """
        names = ["road", "car"]
        ignore = [0]
        values = { 7 = "road", 8 = "road", 26 = "car" }
        folders.train = { images = "rgb/day", labels = "masks/day" }
        """,
    )
    assert load_images(tmp_path, "train").labels[0][:, 0].tolist() == [0, 1, 255, 0]
    with pytest.raises(InputError, match=r"has folders of train, not of val; add folders\.val"):
        load_images(tmp_path, "val")


def test_a_mask_of_black_and_white(root: Path) -> None:
    for name in ("a", "b"):
        write_picture(root / "train" / "labels" / f"{name}.png", rows(0, 255, 255, 0))
    describe(root, 'names = ["other", "road"]\nvalues = { 0 = "other", 255 = "road" }')
    assert load_images(root, "train").labels[0][:, 0].tolist() == [0, 1, 1, 0]


@pytest.fixture
def coloured(tmp_path: Path) -> Path:
    road, car, void = (128, 64, 128), (0, 0, 142), (0, 0, 0)
    for name, colours in {"a": (road, car, void, road), "b": (road,) * 4}.items():
        write_image(tmp_path / "train" / "images" / f"{name}.jpg")
        write_colours(tmp_path / "train" / "labels" / f"{name}.png", colours)
    return tmp_path


def test_labels_in_colours(coloured: Path) -> None:
    describe(
        coloured,
        """
        names = ["road", "car"]
        ignore = ["#000000"]
        values = { "#804080" = "road", "#00008E" = "car" }
        """,
    )
    data = load_images(coloured, "train")
    assert [labels[:, 0].tolist() for labels in data.labels] == [[0, 1, 255, 0], [0, 0, 0, 0]]


def test_a_palette_may_be_read_by_its_colours(coloured: Path) -> None:
    picture = Image.fromarray(rows(1, 0, 1, 0).astype(np.uint8))
    picture.putpalette([128, 64, 128, 0, 0, 142])
    picture.save(coloured / "train" / "labels" / "a.png")
    describe(coloured, 'names = ["road", "car"]\nvalues = {"#804080" = "road", "#00008e" = "car"}')
    assert load_images(coloured, "train").labels[0][:, 0].tolist() == [1, 0, 1, 0]


def test_a_colour_without_a_class_is_told(coloured: Path) -> None:
    describe(coloured, 'names = ["road"]\nvalues = { "#804080" = "road" }')
    with pytest.raises(InputError) as caught:
        load_images(coloured, "train")
    message = str(caught.value)
    assert "1 of 2 label files hold colours without a class" in message
    assert "#00008e (6 pixels in 1 file)" in message
    assert "the colours in dataset.toml's values and ignore; add what is missing" in message


@pytest.mark.parametrize("description", [None, 'names = ["road", "sky"]'])
@pytest.mark.parametrize("table", [None, ROAD_SKY])
def test_colours_that_nobody_told_of_are_listed(
    table: ClassTable | None, description: str | None, coloured: Path
) -> None:
    if description is not None:
        describe(coloured, description)
    with pytest.raises(InputError) as caught:
        load_images(coloured, "train", table)
    message = str(caught.value)
    assert "in the colours #804080 (36 pixels), " in message
    assert 'names = ["NAME0", "NAME1", "NAME2"] and values = { "#804080" = "NAME0", "#0' in message


def test_splits_below_images_and_labels(tmp_path: Path) -> None:
    write_pair(tmp_path, "images/val", "labels/val", "x", 0, 1, 0, 1)
    assert load_images(tmp_path, "val", ROAD_SKY).names == ("x",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('names = ["a"', "cannot be read as TOML"),
        ('classes = ["a"]', r"dataset\.toml: names: Field required"),
        ('names = ["a"]\ncolour = 1', "colour: Extra inputs"),
        ('names = ["a", "b"]\npalette = [[0, 0, 0]]', "2 names but 1 colours"),
        ('names = ["a"]\npalette = [[0, 0, 256]]', r"palette\.0\.2: .*255"),
        ('names = ["a"]\ncategories = ["x", "y"]', "1 names but 2 categories"),
        ('names = ["a", "a"]', "must be distinct"),
        ("names = []", "0 class names; expected 1 to 254"),
        ('names = ["a", "b"]\nignore = [0]', "ignore holds 0, which is also the id of 'a'"),
        ('names = ["a"]\nvalues = { 7 = "b" }', "values name b, which is not among the names"),
        ('names = ["a"]\nvalues = { x = "a" }', r"values\.x"),
        ('names = ["a"]\nignore = [7]\nvalues = { 7 = "a" }', "also among the values"),
        (
            'names = ["a"]\nignore = [65536]',
            r"ignore\.0: .*65536 is neither a value",
        ),
        ('names = ["a"]\nignore = [true]', r"ignore\.0: .*True is neither a value"),
        (
            'names = ["a"]\nvalues = { "#80408" = "a" }',
            "'#80408' is neither .* nor a colour",
        ),
        (
            'names = ["a"]\nignore = ["#00000a"]\nvalues = { "#00000A" = "a" }',
            "ignore holds #00000a, which is also among the values",
        ),
        (
            'names = ["a"]\nignore = [0]\nvalues = { "#804080" = "a" }',
            "either colours or values, but #804080 and the value 0 were found",
        ),
        ('names = ["a"]\nignore = ["#804080"]', "but #804080 and ids were found"),
    ],
)
def test_wrong_descriptions_are_explained(root: Path, text: str, message: str) -> None:
    describe(root, text)
    with pytest.raises(InputError, match=message):
        load_images(root, "train")


def test_given_names_must_not_contradict_the_description(root: Path) -> None:
    describe(root, 'names = ["road", "sky", "car"]')
    with pytest.raises(
        InputError, match="has the classes road, sky, car, but wanted are road, sky"
    ):
        load_images(root, "train", ROAD_SKY)


def test_without_names_the_values_are_listed(root: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_images(root, "train")
    message = str(caught.value)
    assert "no class names" in message
    assert "0 (30 pixels), 1 (6 pixels), 2 (6 pixels), 255 (6 pixels)" in message
    assert "--classes NAME0,NAME1,NAME2" in message
    assert "dataset.toml" in message


def test_without_names_sparse_values_suggest_a_mapping(root: Path) -> None:
    write_picture(root / "train" / "labels" / "b.png", rows(700, 0, 0, 0, dtype=np.uint16))
    with pytest.raises(InputError, match=r'values = \{ 0 = "NAME0", .*700 = "NAME700" \}'):
        load_images(root, "train")


def test_missing_partners_are_counted(root: Path) -> None:
    write_image(root / "train" / "images" / "lonely.png")
    write_picture(root / "train" / "labels" / "astray.png", rows(0, 0, 0, 0))
    with pytest.raises(InputError) as caught:
        load_images(root, "train", ROAD_SKY)
    message = str(caught.value)
    assert "1 of 3 images have no labels of the same name" in message
    assert "lonely.png" in message
    assert "1 of 3 label files have no image of the same name" in message
    assert "astray.png" in message


def test_two_images_of_one_name_are_refused(root: Path) -> None:
    write_image(root / "train" / "images" / "a.png")
    with pytest.raises(InputError, match=r"a\.jpg and a\.png share the name 'a'"):
        load_images(root, "train", ROAD_SKY)


def test_labels_must_be_png(root: Path) -> None:
    for name in ("a", "b"):
        (root / "train" / "labels" / f"{name}.png").rename(
            root / "train" / "labels" / f"{name}.jpg"
        )
    with pytest.raises(InputError, match="holds no PNG; labels are PNG files"):
        load_images(root, "train", ROAD_SKY)


def test_hidden_files_are_left_alone(root: Path) -> None:
    (root / "train" / "images" / "._a.jpg").write_bytes(b"finder")
    assert len(load_images(root, "train", ClassTable.named("abc"))) == 2


def test_missing_and_empty_splits(root: Path) -> None:
    with pytest.raises(
        InputError, match=r"holds no split 'val' in any known layout; .*leftImg8bit"
    ):
        load_images(root, "val", ROAD_SKY)
    with pytest.raises(InputError, match="nowhere does not exist"):
        load_images(root / "nowhere", "val", ROAD_SKY)
    for folder in ("images", "labels"):
        (root / "val" / folder).mkdir(parents=True)
    with pytest.raises(InputError, match="val/images holds no image"):
        load_images(root, "val")
