"""Anyone's images and labels, described by ``dataset.toml`` or by class names alone.

    ROOT/SPLIT/images/NAME.jpg          any image format
    ROOT/SPLIT/labels/NAME.png          class id per pixel, 255 = no class: one channel or a palette

or ``ROOT/images/SPLIT`` and ``ROOT/labels/SPLIT``, or what ``ROOT/dataset.toml`` says:

    names = ["road", "car", "person"]                   # ids 0, 1, 2
    palette = [[128, 64, 128], [0, 0, 142], [220, 20, 60]]          # optional, as all that follows
    categories = ["flat", "vehicle", "human"]
    ignore = [0]                                        # label values of no class, beside 255
    values = { 7 = "road", 24 = "person", 26 = "car" }  # label value → class, instead of 0, 1, 2
    folders.train = { images = "rgb/train", labels = "masks/train" }
    folders.val = { images = "rgb/val", labels = "masks/val" }

Labels may be pictures in colours, which then stand where values do:

    ignore = ["#000000"]
    values = { "#804080" = "road", "#dc143c" = "person", "#00008e" = "car" }
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError

from edgeseg.classes import IGNORE, ClassTable, distinct_colours
from edgeseg.data.split import (
    LABEL_SUFFIXES,
    Coding,
    Colour,
    Split,
    colour_coding,
    first_few,
    holds_colours,
    index_coding,
    list_files,
    pair_files,
    read_values,
)
from edgeseg.errors import InputError
from edgeseg.images import IMAGE_SUFFIXES

DESCRIPTION = "dataset.toml"

_LAYOUTS = (("{split}/images", "{split}/labels"), ("images/{split}", "labels/{split}"))

_Byte = Annotated[int, Field(ge=0, le=255)]


def _value(written: object) -> int | Colour:
    """What a pixel of a label holds; TOML's keys are text."""
    if isinstance(written, str) and re.fullmatch("#[0-9A-Fa-f]{6}", written):
        red, green, blue = bytes.fromhex(written[1:])
        return red, green, blue
    if re.fullmatch("[0-9]{1,5}", str(written)) and int(str(written)) <= 65535:
        return int(str(written))
    raise ValueError(f"{written!r} is neither a value from 0 to 65535 nor a colour like '#804080'")


_Value = Annotated[int | Colour, PlainValidator(_value)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Folders(_Model):
    images: Path
    labels: Path


class _Description(_Model):
    names: tuple[str, ...]
    palette: tuple[tuple[_Byte, _Byte, _Byte], ...] | None = None
    categories: tuple[str, ...] = ()
    ignore: tuple[_Value, ...] = ()
    values: Mapping[_Value, str] = {}
    folders: Mapping[str, _Folders] = {}


def find_folder(root: Path, split: str, table: ClassTable | None) -> Split:
    """One split of a user's folder.

    Args:
        root: The folder.
        split: Name of the split.
        table: Classes where there is no ``dataset.toml``.

    Raises:
        InputError: Folders, partner files or class names are missing, or ``dataset.toml`` is wrong.
            Without class names the message lists the label values that occur, and the colours
            where labels are pictures in colours and ``dataset.toml`` tells of none.
    """
    path = root / DESCRIPTION
    about = _read_description(path) if path.exists() else None
    images, labels = _folders(root, split, about)
    label_of = list_files(labels, LABEL_SUFFIXES)
    image_of = list_files(images, IMAGE_SUFFIXES)
    if not image_of and not label_of:
        raise InputError(f"{images} holds no image; put images there and their labels in {labels}")
    if image_of and not label_of:
        raise InputError(
            f"{labels} holds no PNG; labels are PNG files with one class id per pixel (JPEG would "
            "change the ids)"
        )
    pairs = pair_files(image_of, label_of)
    told_of_colours = about is not None and not all(isinstance(v, int) for v in about.values)
    if holds_colours(pairs[0].labels) and not told_of_colours:  # the others will be like it
        raise InputError(_ask_for_colours(path, label_of.values()))
    if about is not None:
        palette = about.palette or distinct_colours(len(about.names))
        try:
            table = ClassTable(about.names, palette, about.categories)
            return Split(table, _coding(about), pairs)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    if table is None:
        raise InputError(_ask_for_names(path, label_of.values()))
    return Split(table, _id_coding(table.names), pairs)


def _read_description(path: Path) -> _Description:
    try:
        return _Description.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{path}: {place}: {first['msg']}; known are {', '.join(_Description.model_fields)}, "
            'for instance names = ["road", "car", "person"]'
        ) from error
    except (OSError, ValueError) as error:  # ValueError: no TOML, no UTF-8
        raise InputError(f"{path} cannot be read as TOML: {error}") from error


def _folders(root: Path, split: str, about: _Description | None) -> tuple[Path, Path]:
    if about is not None and about.folders:
        if split not in about.folders:
            raise InputError(
                f"{root / DESCRIPTION} has folders of {', '.join(about.folders)}, not of {split}; "
                f"add folders.{split}"
            )
        return root / about.folders[split].images, root / about.folders[split].labels
    layouts = [tuple(root / part.format(split=split) for part in pair) for pair in _LAYOUTS]
    for images, labels in layouts:
        if images.is_dir() and labels.is_dir():
            return images, labels
    if not root.is_dir():
        raise InputError(f"the folder {root} does not exist; check the path")
    raise InputError(
        f"{root} holds no split {split!r} in any known layout; expected {split}/images and "
        f"{split}/labels, images/{split} and labels/{split}, CamVid's {split} and {split}annot or "
        f"{split}_labels, Cityscapes' leftImg8bit/{split} and gtFine/{split}, or other folders "
        f"that a {DESCRIPTION} names"
    )


def _coding(about: _Description) -> Coding:
    ids = {name: i for i, name in enumerate(about.names)}
    if foreign := sorted(set(about.values.values()) - ids.keys()):
        raise InputError(f"values name {first_few(foreign)}, which is not among the names")
    if taken := [v for v in about.ignore if v in about.values]:
        raise InputError(f"ignore holds {_written(taken[0])}, which is also among the values")
    class_of = dict.fromkeys(about.ignore, IGNORE) | {v: ids[n] for v, n in about.values.items()}
    numbers = {v: class_id for v, class_id in class_of.items() if isinstance(v, int)}
    colours = {v: class_id for v, class_id in class_of.items() if not isinstance(v, int)}
    if colours and (numbers or not about.values):
        number = f"the value {next(iter(numbers))}" if numbers else "ids"
        raise InputError(
            f"labels hold either colours or values, but {_written(next(iter(colours)))} and "
            f"{number} were found; write all values and what to ignore as colours, or none"
        )
    if colours:
        return colour_coding(
            colours,
            f"the colours in {DESCRIPTION}'s values and ignore; add what is missing there. Labels "
            "that were resized smoothly or stored as JPEG hold others: take the original files",
        )
    if about.values:
        return index_coding(
            numbers,
            f"the values and ignored values of {DESCRIPTION}, or {IGNORE}; add what is missing "
            "there",
        )
    if clash := [v for v in numbers if v < len(ids)]:
        raise InputError(
            f"ignore holds {clash[0]}, which is also the id of {about.names[clash[0]]!r}; say "
            'with values = { 1 = "…", 2 = "…" } which label value is which class'
        )
    return _id_coding(about.names, tuple(numbers))


def _written(value: int | Colour) -> str:
    return str(value) if isinstance(value, int) else "#" + bytes(value).hex()


def _id_coding(names: tuple[str, ...], ignored: tuple[int, ...] = ()) -> Coding:
    last = len(names) - 1
    void = " or ".join(str(value) for value in sorted({*ignored, IGNORE}))
    return index_coding(
        dict.fromkeys(ignored, IGNORE) | {i: i for i in range(len(names))},
        f"0 ({names[0]}) to {last} ({names[last]}), or {void} for no class; name more classes, or "
        f"say in {DESCRIPTION} which values are which class, and which to ignore",
    )


def _ask_for_names(path: Path, labels: Iterable[Path]) -> str:
    """What to write, and the values that the labels hold."""
    counts = _count_values(labels, in_colours=False)
    values = sorted(counts.keys() - {IGNORE})
    occurring = first_few((f"{v} ({counts[v]:,} pixels)" for v in sorted(counts)), limit=30)
    if not values or values[-1] < 2 * len(values):  # ids, of which some may not occur
        count = values[-1] + 1 if values else 2
        names = ",".join(f"NAME{v}" for v in range(count)) if count < 20 else "NAME0,NAME1,…"
        advice = (
            f"name the classes of 0, 1, … in order, with --classes {names} or as names = [...] "
            f"in {path}"
        )
    else:
        advice = (
            f"write {path} with {_names_and_values({str(v): f'NAME{v}' for v in values})}, or "
            "name the classes of 0, 1, … in order with --classes NAME0,NAME1,…"
        )
    return (
        f"{path.parent} has no class names; its labels hold the values {occurring} "
        f"({IGNORE} is no class). To go on, {advice}"
    )


def _ask_for_colours(path: Path, labels: Iterable[Path]) -> str:
    """What to write, and the colours that the labels hold."""
    counts = _count_values(labels, in_colours=True).most_common()
    names = {f'"#{colour:06x}"': f"NAME{i}" for i, (colour, _) in enumerate(counts)}
    occurring = first_few((f"#{c:06x} ({count:,} pixels)" for c, count in counts), limit=30)
    return (
        f"the labels of {path.parent} are pictures in the colours {occurring}, and nothing says "
        f"which colour is which class. To go on, write {path} with {_names_and_values(names)}; "
        'what is no class goes into ignore = ["#rrggbb"]'
    )


def _count_values(labels: Iterable[Path], *, in_colours: bool) -> Counter[int]:
    counts: Counter[int] = Counter()
    with ThreadPoolExecutor() as pool:
        for picture in pool.map(partial(read_values, in_colours=in_colours), labels):
            found, pixels = np.unique(picture, return_counts=True)
            counts.update(dict(zip(found.tolist(), pixels.tolist(), strict=True)))
    return counts


def _names_and_values(names: Mapping[str, str]) -> str:
    """The first few of both as TOML."""
    first = list(names.items())[:4]
    dots = ", …" if len(names) > 4 else ""
    listed = ", ".join(f'"{name}"' for _, name in first)
    table = ", ".join(f'{value} = "{name}"' for value, name in first)
    return f"names = [{listed}{dots}] and values = {{ {table}{dots} }}"
