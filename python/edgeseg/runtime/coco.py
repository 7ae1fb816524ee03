"""Label maps as a COCO data set: categories, images, and an annotation for every connected part."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeseg import _core
from edgeseg.errors import InputError
from edgeseg.files import cannot_write, replacing
from edgeseg.runtime.outlines import Part, checked_limits, outline, parts

if TYPE_CHECKING:
    from edgeseg.runtime.result import Result

INFO = {"description": f"labels by edgeseg {_core.__version__}"}


def categories(classes: Sequence[str]) -> list[dict[str, Any]]:
    """COCO counts from 1: the category of class k is k + 1."""
    return [
        {"id": class_id + 1, "name": name, "supercategory": ""}
        for class_id, name in enumerate(classes)
    ]


def image(result: Result, image_id: int, file_name: str) -> dict[str, Any]:
    """The entry of a frame."""
    height, width = result.labels.shape
    return {"id": image_id, "file_name": file_name, "width": width, "height": height}


def annotate(
    result: Result, image_id: int, first_id: int, *, min_area: float = 0.0, simplify: float = 0.0
) -> Iterator[dict[str, Any]]:
    """See `Result.coco`; ids count up from `first_id`."""
    min_area, simplify = checked_limits(min_area, simplify)
    found = parts(result.labels, len(result.classes), min_area)
    for annotation_id, part in enumerate(found, first_id):
        exterior, holes = outline(part, simplify)
        entry: dict[str, Any] = {
            "id": annotation_id,
            "image_id": image_id,
            "category_id": part.class_id + 1,
            # Several polygons of one annotation add up: none can cut a hole.
            "segmentation": run_lengths(part, result.labels.shape)
            if holes
            else [exterior.ravel().tolist()],
            "bbox": list(part.box),
            "area": part.area,
            "iscrowd": 0,
        }
        if result.confidence is not None:
            entry["score"] = round(part.mean(result.confidence), 4)
        yield entry


def run_lengths(part: Part, shape: tuple[int, ...]) -> dict[str, Any]:
    """COCO's uncompressed RLE: pixels outside, inside, outside, … of the image, column by column.

    Args:
        part: the pixels.
        shape: (height, width) of the image.
    """
    height, width = shape
    left, top, _, _ = part.box
    columns = np.pad(part.mask.T, ((0, 0), (1, 1))).astype(np.int8)
    steps = np.diff(columns, axis=1)
    begins, ends = (_positions(steps == step, left, top, height) for step in (1, -1))
    # A run to the foot of a column goes on at the head of the next.
    ongoing = begins[1:] == ends[:-1]
    begins = begins[np.append(True, ~ongoing)]
    ends = ends[np.append(~ongoing, True)]
    borders = np.stack((begins, ends), axis=1).ravel()
    counts = np.diff(borders, prepend=0, append=height * width)
    if counts[-1] == 0:
        counts = counts[:-1]
    return {"size": [height, width], "counts": counts.tolist()}


def _positions(found: NDArray[np.bool_], left: int, top: int, height: int) -> NDArray[np.int64]:
    column, row = np.nonzero(found)
    return (left + column) * height + top + row


class CocoWriter:
    """Takes frames for a COCO file; made by `write_coco`."""

    def __init__(
        self, path: Path, classes: Sequence[str], file: IO[bytes], images: IO[bytes]
    ) -> None:
        self._path = path
        self._classes = tuple(classes)
        self._file = file
        self._images = images
        self._image_id = 0
        self._annotation_id = 0

    def add(
        self, result: Result, file_name: str, *, min_area: float = 0.0, simplify: float = 0.0
    ) -> None:
        """Add a frame and its annotations, of which nothing is kept in memory.

        Args:
            result: of a Runtime with the data set's classes.
            file_name: the image's, relative to the folder of images.
            min_area: as for `Result.coco`.
            simplify: as for `Result.coco`.

        Raises:
            InputError: an argument is out of range, or the classes are others.
            OutputError: the disk does not take it.
        """
        if result.classes != self._classes:
            raise InputError(
                f"the result is of the classes {', '.join(result.classes)}, the data set of "
                f"{', '.join(self._classes)}; write one for each"
            )
        self._image_id += 1
        self._put(self._images, image(result, self._image_id, file_name), self._image_id == 1)
        for entry in annotate(
            result, self._image_id, self._annotation_id + 1, min_area=min_area, simplify=simplify
        ):
            self._annotation_id += 1
            self._put(self._file, entry, self._annotation_id == 1)

    def _put(self, file: IO[bytes], entry: dict[str, Any], first: bool) -> None:
        text = json.dumps(entry, ensure_ascii=False, separators=(",", ":"))
        with _reported(self._path):
            file.write(f"{'' if first else ','}\n{text}".encode())


@contextmanager
def write_coco(path: str | os.PathLike[str], classes: Sequence[str]) -> Iterator[CocoWriter]:
    """Write a COCO data set of any number of frames, which appears when the block ends well.

        with edgeseg.write_coco("drive.json", runtime.classes) as coco:
            for index, result in enumerate(runtime.stream("drive.mp4")):
                coco.add(result, f"{index:06d}.png")

    Args:
        path: the JSON file; one that was there before is replaced.
        classes: K names, in the order of the class ids.

    Raises:
        OutputError: the file cannot be written.
    """
    target = Path(path)
    with replacing(target) as temporary:
        with _reported(target):
            file, images = temporary.open("wb"), tempfile.TemporaryFile()  # noqa: SIM115
        try:
            with _reported(target):
                head = {"info": INFO, "licenses": [], "categories": categories(classes)}
                file.write(json.dumps(head, ensure_ascii=False).encode()[:-1])
                file.write(b', "annotations": [')
            yield CocoWriter(target, classes, file, images)
            with _reported(target):
                file.write(b'\n], "images": [')
                images.seek(0)
                while chunk := images.read(1 << 20):
                    file.write(chunk)
                file.write(b"\n]}\n")
                file.flush()
                os.fsync(file.fileno())
        finally:
            for opened in (file, images):
                with suppress(OSError):  # of what could not be written before, which is reported
                    opened.close()


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error
