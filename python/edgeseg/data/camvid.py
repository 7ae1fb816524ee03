"""CamVid, in the three forms in which it is passed on.

The SegNet tutorial's, with indices of 11 classes and 11 = void:

    ROOT/train, ROOT/trainannot, ROOT/val, ROOT/valannot, ...; ROOT/train.txt, ... if there

In CamVid's 32 colours, in folders per split:

    ROOT/train, ROOT/train_labels with NAME_L.png, ROOT/val, ROOT/val_labels, ...

As first published, with a list of names per split:

    ROOT/701_StillsRaw_full, ROOT/LabeledApproved_full with NAME_L.png, ROOT/train.txt, ...
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeseg.classes import CAMVID, IGNORE
from edgeseg.data.split import (
    LABEL_SUFFIXES,
    Pair,
    Split,
    colour_coding,
    first_few,
    index_coding,
    list_files,
    pair_files,
)
from edgeseg.errors import InputError
from edgeseg.images import IMAGE_SUFFIXES

# Colour and class of CamVid's 32 labels; "" is no class. The grouping is that of the SegNet
# tutorial's labels, on which CamVid's published scores rest: found by comparing its labels with
# the 32 colours pixel by pixel. Others put Archway, Bridge, Child, CartLuggagePram, OtherMoving,
# TrafficCone and Animal into classes and RoadShoulder to the pavement. Train and Tunnel do not
# occur in the compared frames.
_COLOURS = {
    "Animal": ((64, 128, 64), ""),
    "Archway": ((192, 0, 128), ""),
    "Bicyclist": ((0, 128, 192), "bicyclist"),
    "Bridge": ((0, 128, 64), ""),
    "Building": ((128, 0, 0), "building"),
    "Car": ((64, 0, 128), "car"),
    "CartLuggagePram": ((64, 0, 192), ""),
    "Child": ((192, 128, 64), ""),
    "Column_Pole": ((192, 192, 128), "pole"),
    "Fence": ((64, 64, 128), "fence"),
    "LaneMkgsDriv": ((128, 0, 192), "road"),
    "LaneMkgsNonDriv": ((192, 0, 64), "road"),
    "Misc_Text": ((128, 128, 64), "sign"),
    "MotorcycleScooter": ((192, 0, 192), "bicyclist"),
    "OtherMoving": ((128, 64, 64), ""),
    "ParkingBlock": ((64, 192, 128), "pavement"),
    "Pedestrian": ((64, 64, 0), "pedestrian"),
    "Road": ((128, 64, 128), "road"),
    "RoadShoulder": ((128, 128, 192), "road"),
    "Sidewalk": ((0, 0, 192), "pavement"),
    "SignSymbol": ((192, 128, 128), "sign"),
    "Sky": ((128, 128, 128), "sky"),
    "SUVPickupTruck": ((64, 128, 192), "car"),
    "TrafficCone": ((0, 0, 64), ""),
    "TrafficLight": ((0, 64, 64), "sign"),
    "Train": ((192, 64, 128), "car"),
    "Tree": ((128, 128, 0), "tree"),
    "Truck_Bus": ((192, 128, 192), "car"),
    "Tunnel": ((64, 0, 64), "building"),
    "VegetationMisc": ((192, 192, 0), "tree"),
    "Void": ((0, 0, 0), ""),
    "Wall": ((64, 192, 0), "building"),
}

_VOID = len(CAMVID)
_INDICES = index_coding(
    {**{i: i for i in range(_VOID)}, _VOID: IGNORE},
    f"CamVid's 0..{_VOID - 1}, or {_VOID} or {IGNORE} for no class",
)
_IN_COLOURS = colour_coding(
    {colour: CAMVID.names.index(name) if name else IGNORE for colour, name in _COLOURS.values()},
    "CamVid's 32 colours; labels that were resized smoothly or stored as JPEG have others, "
    "take the original files",
)

_SPLITS = ("train", "val", "test")


def find_camvid(root: Path, split: str) -> Split | None:
    """One split of CamVid; None where the folder has none of its forms.

    Raises:
        InputError: A folder, list or partner file is missing.
    """
    listed = root / f"{split}.txt"
    if any((root / f"{s}annot").is_dir() for s in _SPLITS):
        pairs = _pairs(
            root / split, root / f"{split}annot", "", listed if listed.exists() else None
        )
        return Split(CAMVID, _INDICES, pairs)
    if any((root / f"{s}_labels").is_dir() for s in _SPLITS):
        pairs = _pairs(root / split, root / f"{split}_labels", "_L")
        return Split(CAMVID, _IN_COLOURS, pairs)
    if (root / "LabeledApproved_full").is_dir():
        folders = root / "701_StillsRaw_full", root / "LabeledApproved_full"
        return Split(CAMVID, _IN_COLOURS, _pairs(*folders, "_L", listed))
    return None


def _pairs(images: Path, labels: Path, ending: str, listed: Path | None = None) -> tuple[Pair, ...]:
    image_of = list_files(images, IMAGE_SUFFIXES)
    label_of = list_files(labels, LABEL_SUFFIXES, ending)
    if listed is not None:
        names = _read_list(listed)
        absent = [n for n in names if n not in image_of or n not in label_of]
        if absent:
            raise InputError(
                f"{listed} lists {len(absent)} of {len(names)} names that have no image in "
                f"{images} or no labels in {labels}: {first_few(absent)}"
            )
        image_of = {name: image_of[name] for name in names}
        label_of = {name: label_of[name] for name in names}
    return pair_files(image_of, label_of)


def _read_list(path: Path) -> Sequence[str]:
    """Names from lines like ``NAME``, ``NAME.png`` or ``/SegNet/CamVid/train/NAME.png LABELS``."""
    if not path.is_file():
        raise InputError(
            f"{path} does not exist; it says which images are in this split, one name a line (the "
            "SegNet tutorial has the lists that everyone uses)"
        )
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Path(line.split()[0]).stem.removesuffix("_L") for line in lines if line.strip()]
