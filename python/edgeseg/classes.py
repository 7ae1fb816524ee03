"""Class names and palettes of the data sets that edgeseg knows by name.

A table without torch, numpy or files: the training side, the generator of synthetic streets and
the engine file all read class ids and colours from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

IGNORE = 255
"""Label of pixels that belong to no class: left out of losses, metrics and overlays."""


@dataclass(frozen=True)
class ClassTable:
    """Names and colours of K classes; a class id is an index into both.

    Attributes:
        names: K distinct class names, as they are given to the text encoder.
        palette: K colours, R, G, B in 0..255.
        categories: For each class the name of the coarser group that it belongs to; empty where a
            set knows none.
    """

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    categories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.names) != len(self.palette):
            raise ValueError(f"{len(self.names)} names but {len(self.palette)} colours")
        if len(set(self.names)) != len(self.names):
            raise ValueError("class names must be distinct")
        if self.categories and len(self.categories) != len(self.names):
            raise ValueError(f"{len(self.names)} names but {len(self.categories)} categories")

    def __len__(self) -> int:
        return len(self.names)


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
