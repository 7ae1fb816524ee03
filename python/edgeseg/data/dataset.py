"""Data sets, decoded once and kept in memory as uint8.

On disk every set has one layout, also a user's own:

    ROOT/classes.json                   {"names": [...], "palette": [[r, g, b], ...]}
    ROOT/SPLIT/images/NAME.jpg          or .png; RGB
    ROOT/SPLIT/labels/NAME.png          one channel, class id per pixel, 255 = no class

Sets that edgeseg knows by name (`edgeseg.classes.CLASS_TABLES`) need no ``classes.json``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeseg.classes import CAMVID, IGNORE, ClassTable
from edgeseg.errors import InputError
from edgeseg.synthetic import street

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
_DECODER_THREADS = 4


@dataclass(frozen=True)
class LabelledImages:
    """Images with their label maps; sizes may differ from image to image.

    Attributes:
        table: Class names and palette.
        names: One name per image, for messages and pictures.
        images: RGB uint8, 3×H×W each.
        labels: Class ids uint8, H×W each; 255 = no class.
    """

    table: ClassTable
    names: tuple[str, ...]
    images: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.images)

    def updated(self, other: LabelledImages) -> LabelledImages:
        """This set with ``other``'s images added; where a name occurs in both, ``other``'s stays.

        Raises:
            InputError: The sets have different classes.
        """
        if other.table.names != self.table.names:
            raise InputError(
                f"sets with different classes cannot be joined: {list(self.table.names)} and "
                f"{list(other.table.names)}"
            )
        kept = [i for i, name in enumerate(self.names) if name not in set(other.names)]
        return LabelledImages(
            self.table,
            tuple(self.names[i] for i in kept) + other.names,
            tuple(self.images[i] for i in kept) + other.images,
            tuple(self.labels[i] for i in kept) + other.labels,
        )


def load_images(root: Path | str, split: str, table: ClassTable | None = None) -> LabelledImages:
    """Decode one split of a data set.

    Args:
        root: Folder that holds the splits.
        split: Sub-folder: "train", "val", ...
        table: Classes; None reads ``root/classes.json``.

    Raises:
        InputError: A folder or partner file is missing, a file does not decode, an image and its
            labels differ in size, or a label is neither a class id nor 255. The file is named.
    """
    root = Path(root)
    table = _read_classes(root / "classes.json") if table is None else table
    pairs = _pair_files(root / split / "images", root / split / "labels")

    def decode(pair: tuple[Path, Path]) -> tuple[Tensor, Tensor]:
        return _decode(*pair, num_classes=len(table))

    with ThreadPoolExecutor(_DECODER_THREADS) as pool:  # cv2 releases the GIL
        images, labels = zip(*pool.map(decode, pairs), strict=True)
    return LabelledImages(table, tuple(image.stem for image, _ in pairs), images, labels)


def load_synthetic(seeds: Sequence[int], size: tuple[int, int]) -> LabelledImages:
    """Draw one synthetic street per seed, in CamVid's classes.

    Args:
        seeds: Of the streets.
        size: Height and width of the images.
    """
    drawn = [street(seed, *size) for seed in seeds]
    return LabelledImages(
        CAMVID,
        tuple(f"street-{seed}" for seed in seeds),
        tuple(_channels_first(cv2.cvtColor(d.frame, cv2.COLOR_BGR2RGB)) for d in drawn),
        tuple(torch.from_numpy(d.labels) for d in drawn),
    )


def _read_classes(path: Path) -> ClassTable:
    expected = '{"names": ["road", ...], "palette": [[128, 64, 128], ...]}'
    if not path.is_file():
        raise InputError(f"{path} does not exist; write the set's classes there: {expected}")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        palette = tuple((int(r), int(g), int(b)) for r, g, b in about["palette"])
        return ClassTable(tuple(str(name) for name in about["names"]), palette)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} must be {expected}: {error!r}") from error


def _pair_files(images: Path, labels: Path) -> list[tuple[Path, Path]]:
    for folder in (images, labels):
        if not folder.is_dir():
            raise InputError(f"{folder} does not exist; a split holds images/ and labels/")
    image_of = {p.stem: p for p in sorted(images.iterdir()) if p.suffix.lower() in _IMAGE_SUFFIXES}
    label_of = {p.stem: p for p in sorted(labels.iterdir()) if p.suffix.lower() == ".png"}
    if lonely := sorted(image_of.keys() - label_of.keys()):
        raise InputError(
            f"{image_of[lonely[0]]} has no labels; expected {lonely[0]}.png in {labels}"
        )
    if lonely := sorted(label_of.keys() - image_of.keys()):
        raise InputError(
            f"{label_of[lonely[0]]} has no image; expected {lonely[0]}.jpg in {images}"
        )
    if not image_of:
        raise InputError(f"{images} holds no image ({', '.join(_IMAGE_SUFFIXES)})")
    return [(image_of[stem], label_of[stem]) for stem in sorted(image_of)]


def _decode(image_path: Path, label_path: Path, num_classes: int) -> tuple[Tensor, Tensor]:
    bgr = _read(image_path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    labels = _read(label_path, cv2.IMREAD_UNCHANGED)
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise InputError(
            f"{label_path} decodes to {labels.dtype} of shape {labels.shape}; expected one 8-bit "
            "channel of class ids, not colours"
        )
    if labels.shape != bgr.shape[:2]:
        raise InputError(
            f"{label_path} is {labels.shape[1]}×{labels.shape[0]} but its image is "
            f"{bgr.shape[1]}×{bgr.shape[0]}"
        )
    foreign = np.flatnonzero(np.bincount(labels.ravel(), minlength=256)[num_classes:IGNORE])
    if foreign.size:
        raise InputError(
            f"{label_path} holds label {foreign[0] + num_classes}; expected 0..{num_classes - 1} "
            f"or {IGNORE} for no class"
        )
    return _channels_first(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)), torch.from_numpy(labels)


def _read(path: Path, flags: int) -> NDArray[Any]:
    pixels = cv2.imread(str(path), flags)
    if pixels is None:
        raise InputError(f"{path} cannot be decoded; is it a whole JPEG or PNG file?")
    return pixels


def _channels_first(image: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
