"""What every layout of a data set comes to: pairs of files, and what label files mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeseg.classes import IGNORE, MAX_CLASSES, ClassTable
from edgeseg.errors import InputError

LABEL_SUFFIXES = frozenset({".png"})

_UNKNOWN = MAX_CLASSES  # in lookup tables only: no class has this id
_GREY_MODES = ("1", "L", "P", "I", "I;16", "I;16B")  # Pillow's; P gives a palette's indices
_COLOUR_MODES = ("RGB", "RGBA")
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises of a file that is no picture, or a broken one."""

Colour = tuple[int, int, int]
"""R, G, B in 0..255."""


@dataclass(frozen=True)
class Coding:
    """What the values in label files mean.

    Attributes:
        class_of: Class id, or 255 for no class, of each value that may occur. A value is a grey
            level, an index into a palette or, if ``in_colours``, ``R << 16 | G << 8 | B``.
        expected: For messages: which values there should be, and what to do about others.
        in_colours: Whether labels are pictures in colours.
    """

    class_of: Mapping[int, int]
    expected: str
    in_colours: bool = False

    def labels(self, values: NDArray[Any]) -> tuple[NDArray[np.uint8], Counter[int]]:
        """Class ids (H×W uint8, 255 = no class), and the pixel counts of values without meaning."""
        labels = self._lookup[values]
        unknown = labels == _UNKNOWN
        if not unknown.any():
            return labels, Counter()
        foreign, counts = np.unique(values[unknown], return_counts=True)
        return labels, Counter(dict(zip(foreign.tolist(), counts.tolist(), strict=True)))

    @cached_property
    def _lookup(self) -> NDArray[np.uint8]:
        lookup = np.full(1 << (24 if self.in_colours else 16), _UNKNOWN, np.uint8)
        lookup[list(self.class_of)] = list(self.class_of.values())
        return lookup

    def describe(self, value: int) -> str:
        """A value as a user writes it."""
        if self.in_colours:
            return f"#{value:06x}"
        return str(value)


def index_coding(class_of: Mapping[int, int], expected: str) -> Coding:
    """Coding of grey or palette PNGs, in which 255 is no class unless it is said to be one."""
    return Coding({IGNORE: IGNORE, **class_of}, expected)


def colour_coding(class_of: Mapping[Colour, int], expected: str) -> Coding:
    """Coding of pictures whose colours stand for classes."""
    packed = {r << 16 | g << 8 | b: class_id for (r, g, b), class_id in class_of.items()}
    return Coding(packed, expected, in_colours=True)


def read_values(path: Path, *, in_colours: bool = False) -> NDArray[Any]:
    """Read a label file as it is stored.

    Pillow, since OpenCV turns a palette's indices into colours.

    Returns:
        H×W whole numbers, see `Coding`; a picture of 1 bit gives 0 and 1.

    Raises:
        InputError: The file is no picture, cut off, or of another kind than expected.
    """
    try:
        with Image.open(path) as picture:
            if picture.mode not in ((*_COLOUR_MODES, "P") if in_colours else _GREY_MODES):
                raise InputError(
                    f"{path} is a picture of mode {picture.mode}; expected "
                    + ("colours" if in_colours else "one channel of label values, not colours")
                )
            if not in_colours:
                values = np.asarray(picture)
                return values.astype(np.uint8) if picture.mode == "1" else values
            rgb = np.asarray(picture.convert("RGB")).astype(np.int32)
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(
            f"{path} cannot be decoded ({error}); copy the whole file again"
        ) from error
    return rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]


def holds_colours(path: Path) -> bool:
    """Whether a label file is a picture in colours; a palette's indices are values."""
    try:
        with Image.open(path) as picture:
            return picture.mode in _COLOUR_MODES
    except UNREADABLE:
        return False  # whoever reads it says why


@dataclass(frozen=True)
class Pair:
    """An image and its labels."""

    name: str
    image: Path
    labels: Path


@dataclass(frozen=True)
class Split:
    """One part of a data set, found but not yet read."""

    table: ClassTable
    coding: Coding
    pairs: tuple[Pair, ...] = field(repr=False)


def list_files(
    folder: Path, suffixes: Collection[str], ending: str = "", *, recursive: bool = False
) -> dict[str, Path]:
    """Files of a folder by the name that pairs them: without suffix and ``ending``.

    Files with another ending are left out, and hidden ones.

    Raises:
        InputError: The folder does not exist, or two files have one name.
    """
    if not folder.is_dir():
        raise InputError(f"the folder {folder} does not exist; check the path and the split's name")
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*") if recursive else folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        if not path.stem.endswith(ending):
            continue
        name = path.stem.removesuffix(ending)
        if name in files:
            raise InputError(
                f"{files[name]} and {path.name} share the name {name!r}; labels are found by name, "
                "remove one of the two"
            )
        files[name] = path
    return files


def pair_files(images: Mapping[str, Path], labels: Mapping[str, Path]) -> tuple[Pair, ...]:
    """Put images and labels of the same name together, in the order of names.

    Raises:
        InputError: Some have no partner; the first few are named.
    """
    complaints = [
        f"{len(alone)} of {len(some)} {kind} have no {other} of the same name: "
        + first_few(some[name] for name in sorted(alone))
        for kind, some, other, partners in (
            ("images", images, "labels", labels),
            ("label files", labels, "image", images),
        )
        if (alone := some.keys() - partners.keys())
    ]
    if complaints:
        raise InputError("; ".join(complaints) + ". Add what is missing or move the others away")
    return tuple(Pair(name, images[name], labels[name]) for name in sorted(images))


def first_few(items: Iterable[object], limit: int = 3) -> str:
    """The first items as text, and how many more there are."""
    texts = [str(item) for item in items]
    more = f" and {len(texts) - limit:,} more" if len(texts) > limit else ""
    return ", ".join(texts[:limit]) + more
