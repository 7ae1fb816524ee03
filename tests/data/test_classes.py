import pytest

from edgeseg.classes import CAMVID, CITYSCAPES, CLASS_TABLES, ClassTable, distinct_colours
from edgeseg.errors import InputError


def test_colours_are_distinct_and_a_longer_list_begins_alike() -> None:
    colours = distinct_colours(254)
    assert len(set(colours)) == 254
    assert colours[:20] == distinct_colours(20)


def test_colours_are_far_apart_and_none_is_black_or_white() -> None:
    chosen = [*distinct_colours(20), (0, 0, 0), (255, 255, 255)]
    for i, a in enumerate(chosen):
        for b in chosen[:i]:
            assert max(abs(x - y) for x, y in zip(a, b, strict=True)) >= 84


def test_categories_follow_cityscapes() -> None:
    assert dict(zip(CAMVID.names, CAMVID.categories, strict=True))["bicyclist"] == "human"
    official = dict(zip(CITYSCAPES.names, CITYSCAPES.categories, strict=True))
    assert set(CAMVID.categories) == set(official.values())
    assert (official["sidewalk"], official["fence"], official["traffic sign"]) == (
        "flat",
        "construction",
        "object",
    )
    assert (official["terrain"], official["rider"], official["truck"]) == (
        "nature",
        "human",
        "vehicle",
    )


@pytest.mark.parametrize("table", CLASS_TABLES.values())
def test_known_palettes_are_distinct(table: ClassTable) -> None:
    assert len(set(table.palette)) == len(table)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a", ""), "not empty"),
        (("a", "a"), "distinct"),
        (tuple(map(str, range(255))), "255 class names"),
    ],
)
def test_wrong_names_are_refused(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ClassTable.named(names)
