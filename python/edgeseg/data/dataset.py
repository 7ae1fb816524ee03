"""Data sets, decoded once and kept in memory as uint8.

The layout is detected from what is there: a user's own folder (`edgeseg.data.folder`), CamVid
(`edgeseg.data.camvid`) or Cityscapes (`edgeseg.data.cityscapes`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from edgeseg.classes import CAMVID, ClassTable
from edgeseg.data.camvid import find_camvid
from edgeseg.data.cityscapes import find_cityscapes
from edgeseg.data.decode import Progress, channels_first, decode
from edgeseg.data.folder import DESCRIPTION, find_folder
from edgeseg.data.split import Split
from edgeseg.errors import InputError
from edgeseg.synthetic import street


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


def load_images(
    root: Path | str,
    split: str,
    table: ClassTable | None = None,
    *,
    max_side: int | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
) -> LabelledImages:
    """Find and decode one split of a data set.

    Args:
        root: Folder of the data set.
        split: "train", "val", ...
        table: Classes; None where the folder says them itself, by its layout or a ``dataset.toml``.
        max_side: Larger pictures are made smaller as they are decoded, until their longer side has
            so many pixels. For training where memory is short; scores would change.
        limit: Decode only so many images, evenly spread over the split.
        progress: Called with the number of images that are done and of all.

    Raises:
        InputError: No layout is recognised, class names or files are missing, files do not decode,
            do not match or hold labels without a class, or memory would not suffice. What was
            found is counted, and the first files are named.
    """
    root = Path(root)
    found = _find_split(root, split, table)
    if table is not None and found.table.names != table.names:
        raise InputError(
            f"{root} has the classes {', '.join(found.table.names)}, but wanted are "
            f"{', '.join(table.names)}; drop the names that were given, or give the folder a "
            f"{DESCRIPTION} with them"
        )
    if limit is not None and limit < len(found.pairs):
        chosen = [i * len(found.pairs) // limit for i in range(limit)]
        found = replace(found, pairs=tuple(found.pairs[i] for i in chosen))
    try:
        images, labels = decode(found, max_side, progress)
    except InputError as error:
        raise InputError(f"{root}, split {split!r}: {error}") from error
    return LabelledImages(found.table, tuple(pair.name for pair in found.pairs), images, labels)


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
        tuple(channels_first(d.frame) for d in drawn),
        tuple(torch.from_numpy(d.labels) for d in drawn),
    )


def _find_split(root: Path, split: str, table: ClassTable | None) -> Split:
    if not (root / DESCRIPTION).exists():
        for find in (find_camvid, find_cityscapes):
            if found := find(root, split):
                return found
    return find_folder(root, split, table)
