"""Small data sets on disk, for tests that read them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeseg.classes import ClassTable

ROAD_SKY = ClassTable(("road", "sky"), ((128, 64, 128), (70, 130, 180)))


def write_picture(path: Path, pixels: NDArray[np.generic]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_image(path: Path, size: tuple[int, int] = (4, 6), seed: int = 0) -> NDArray[np.uint8]:
    """An RGB image of height × width; lossless if the suffix is."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    write_picture(path, pixels)
    return pixels


def rows(*values: int, width: int = 6, dtype: type = np.uint8) -> NDArray[np.generic]:
    """A label picture with one value per row."""
    return np.repeat(np.array(values, dtype)[:, None], width, axis=1)


def write_colours(path: Path, colours: Sequence[tuple[int, int, int]], width: int = 6) -> Path:
    """A label picture with one colour per row."""
    return write_picture(path, np.repeat(np.array(colours, np.uint8)[:, None], width, axis=1))
