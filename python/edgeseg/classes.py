"""Class names and palettes of the data sets that edgeseg knows by name.

A table without torch, numpy or files: the training side, the generator of synthetic streets and
the engine file all read class ids and colours from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeseg.errors import InputError

IGNORE = 255
"""Label of pixels that belong to no class: left out of losses, metrics and overlays."""

MAX_CLASSES = 254
"""Class ids are 0..253: labels are bytes, and 254 stays free beside 255."""


@dataclass(frozen=True)
class ClassTable:
    """Names and colours of K classes; a class id is an index into both.

    Attributes:
        names: K distinct class names, as they are given to the text encoder.
        palette: K colours, R, G, B in 0..255.
        categories: For each class the name of the coarser group that it belongs to; empty where a
            set knows none.

    Raises:
        InputError: No class, too many, an empty or repeated name, or lengths that differ.
    """

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    categories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= MAX_CLASSES:
            raise InputError(f"{len(self.names)} class names; expected 1 to {MAX_CLASSES}")
        if len(set(self.names)) != len(self.names) or not all(self.names):
            raise InputError(f"class names must be distinct and not empty: {', '.join(self.names)}")
        if len(self.names) != len(self.palette):
            raise InputError(f"{len(self.names)} names but {len(self.palette)} colours")
        if self.categories and len(self.categories) != len(self.names):
            raise InputError(f"{len(self.names)} names but {len(self.categories)} categories")

    @classmethod
    def named(cls, names: Sequence[str]) -> ClassTable:
        """Classes of which only the names are known; `distinct_colours` paints them."""
        return cls(tuple(name.strip() for name in names), distinct_colours(len(names)))

    def __len__(self) -> int:
        return len(self.names)


def distinct_colours(count: int) -> tuple[tuple[int, int, int], ...]:
    """Colours that are easily told apart, from each other and from black, white and grey.

    Each one is the farthest from all before it, so a longer list begins like a shorter one.
    Distances are Riemersma's weighted RGB ("redmean"), close to what the eye sees.
    """
    levels = range(0, 256, 42)
    grid = [(r, g, b) for r in levels for g in levels for b in levels]
    greys = ((0, 0, 0), (128, 128, 128), (255, 255, 255))
    nearest = {colour: min(_distance(colour, grey) for grey in greys) for colour in grid}
    chosen: list[tuple[int, int, int]] = []
    for _ in range(count):
        chosen.append(max(grid, key=nearest.__getitem__))
        nearest = {c: min(d, _distance(c, chosen[-1])) for c, d in nearest.items()}
    return tuple(chosen)


def _distance(a: tuple[int, int, int], b: tuple[int, int, int]) -> float:
    red = (a[0] + b[0]) / 2
    weights = (2 + red / 256, 4, 2 + (255 - red) / 256)
    return sum(w * (x - y) ** 2 for w, x, y in zip(weights, a, b, strict=True))


CAMVID = ClassTable(
    names=(
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ),
    palette=(
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (0, 0, 192),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
    categories=(
        "sky",
        "construction",
        "object",
        "flat",
        "flat",
        "nature",
        "object",
        "construction",
        "vehicle",
        "human",
        "human",
    ),
)

CITYSCAPES = ClassTable(
    names=(
        "road",
        "sidewalk",
        "building",
        "wall",
        "fence",
        "pole",
        "traffic light",
        "traffic sign",
        "vegetation",
        "terrain",
        "sky",
        "person",
        "rider",
        "car",
        "truck",
        "bus",
        "train",
        "motorcycle",
        "bicycle",
    ),
    palette=(
        (128, 64, 128),
        (244, 35, 232),
        (70, 70, 70),
        (102, 102, 156),
        (190, 153, 153),
        (153, 153, 153),
        (250, 170, 30),
        (220, 220, 0),
        (107, 142, 35),
        (152, 251, 152),
        (70, 130, 180),
        (220, 20, 60),
        (255, 0, 0),
        (0, 0, 142),
        (0, 0, 70),
        (0, 60, 100),
        (0, 80, 100),
        (0, 0, 230),
        (119, 11, 32),
    ),
    categories=(
        ("flat",) * 2
        + ("construction",) * 3
        + ("object",) * 3
        + ("nature",) * 2
        + ("sky",)
        + ("human",) * 2
        + ("vehicle",) * 6
    ),
)

IDD_LITE = ClassTable(
    names=(
        "drivable",
        "non-drivable",
        "living things",
        "vehicles",
        "roadside objects",
        "far objects",
        "sky",
    ),
    palette=(
        (128, 64, 128),
        (244, 35, 232),
        (220, 20, 60),
        (0, 0, 142),
        (190, 153, 153),
        (107, 142, 35),
        (70, 130, 180),
    ),
)

CLASS_TABLES: Mapping[str, ClassTable] = {
    "camvid": CAMVID,
    "cityscapes": CITYSCAPES,
    "idd_lite": IDD_LITE,
}
"""Sets known by name. IDD-lite is the India Driving Dataset with seven coarse classes."""
