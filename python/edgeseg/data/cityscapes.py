"""Cityscapes, as its archives unpack.

ROOT/leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png
ROOT/gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png     or ..._labelTrainIds.png
"""

from __future__ import annotations

from pathlib import Path

from edgeseg.classes import CITYSCAPES, IGNORE
from edgeseg.data.split import LABEL_SUFFIXES, Split, index_coding, list_files, pair_files
from edgeseg.errors import InputError
from edgeseg.images import IMAGE_SUFFIXES

# Official ids (cityscapesScripts' labels.py) of the 19 classes that are evaluated; the other ids
# up to 33 are no class. A licence plate's id is −1: 255 in a byte.
_EVALUATED_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

_LABEL_IDS = index_coding(
    dict.fromkeys(range(34), IGNORE) | {v: i for i, v in enumerate(_EVALUATED_IDS)},
    f"Cityscapes' ids 0..33, or {IGNORE}",
)
_TRAIN_IDS = index_coding(
    {i: i for i in range(len(CITYSCAPES))}, f"Cityscapes' train ids 0..18, or {IGNORE}"
)


def find_cityscapes(root: Path, split: str) -> Split | None:
    """One split of Cityscapes; None where the folder has another layout.

    Raises:
        InputError: A folder or partner file is missing.
    """
    if not (root / "leftImg8bit").is_dir():
        return None
    images = list_files(
        root / "leftImg8bit" / split, IMAGE_SUFFIXES, "_leftImg8bit", recursive=True
    )
    folder = root / "gtFine" / split
    for ending, coding in (("_gtFine_labelIds", _LABEL_IDS), ("_gtFine_labelTrainIds", _TRAIN_IDS)):
        if labels := list_files(folder, LABEL_SUFFIXES, ending, recursive=True):
            return Split(CITYSCAPES, coding, pair_files(images, labels))
    raise InputError(
        f"{folder} holds no CITY/NAME_gtFine_labelIds.png and no CITY/NAME_gtFine_labelTrainIds.png"
        "; unpack gtFine_trainvaltest.zip there"
    )
