"""Files that `edgeseg predict` leaves: pictures, clips, label maps, GeoJSON and COCO."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from edgeseg.errors import OutputError
from edgeseg.files import make_folder, write_atomically
from edgeseg.images import write_image
from edgeseg.runtime import Result
from edgeseg.runtime.coco import CocoWriter, write_coco
from edgeseg.runtime.result import Picture
from edgeseg.video import ImageSource, LiveSource, VideoSource, write_video

_DEFAULT_FPS = 25.0  # of a camera that does not tell


@dataclass(frozen=True)
class Outputs:
    """What to write of every frame.

    Attributes:
        pictures: see `Result.picture`.
        alpha: weight of the colours, 0..1, where they lie over the frame.
        legend: below every picture of colours, see `Result.overlay`.
        geojson: a file for every frame, see `Result.geojson`.
        coco: one file for all frames, see `edgeseg.write_coco`.
        min_area: fewest pixels of a part in GeoJSON and COCO.
        simplify: pixels by which outlines in GeoJSON and COCO may be moved to save corners.
    """

    pictures: tuple[Picture, ...] = ("overlay",)
    alpha: float = 0.5
    legend: bool = False
    geojson: bool = False
    coco: bool = False
    min_area: float = 0.0
    simplify: float = 0.0

    @property
    def parts(self) -> bool:
        """Whether connected parts are written, which have a confidence."""
        return self.geojson or self.coco


OVERLAYS = Outputs()
"""An overlay of every frame."""


class ImageFiles:
    """One file per image and picture.

    Attributes:
        written: files, in the order in which they were begun.
    """

    def __init__(
        self, source: ImageSource, out: Path, outputs: Outputs, classes: Sequence[str]
    ) -> None:
        self.written: list[Path] = []
        self._out = out
        self._outputs = outputs
        self._parts = _Parts(outputs, out / f"{Path(source.name).stem}_coco.json", classes)
        self._sources = {path.resolve() for path in source.paths}
        # Whole names where stems would not tell two images apart: a.jpg beside a.png.
        self._whole_names = len({path.stem for path in source.paths}) < len(source.paths)

    def __enter__(self) -> ImageFiles:
        return self

    def __exit__(self, *exception: object) -> None:
        self._parts.__exit__(*exception)

    def write(self, name: str, result: Result) -> None:
        """Write what is wanted of the image of that name."""
        stem = name if self._whole_names else Path(name).stem
        outputs = self._outputs
        for picture in outputs.pictures:
            path = self._out / f"{stem}_{picture}.png"
            if path.resolve() in self._sources:
                raise OutputError(
                    f"{path} is one of the images to be read; choose another folder for the results"
                )
            make_folder(self._out)  # not before there is a picture: the first may be damaged
            write_image(path, result.picture(picture, alpha=outputs.alpha, legend=outputs.legend))
            self.written.append(path)
        if outputs.parts:
            make_folder(self._out)
            self.written += self._parts.write(result, self._out / f"{stem}.geojson", name)


class Clips:
    """One clip per picture; labels become a folder, since a video codec would change them.

    Attributes:
        written: files and folders, in the order in which they were begun.
    """

    def __init__(
        self,
        source: VideoSource | LiveSource,
        out: Path,
        outputs: Outputs,
        classes: Sequence[str],
    ) -> None:
        self.written: list[Path] = []
        self._stem = re.sub(r"[^\w-]+", "-", Path(source.name).stem).strip("-") or "video"
        self._out = out
        self._outputs = outputs
        self._parts = _Parts(outputs, out / f"{self._stem}_coco.json", classes)
        self._fps = source.fps or _DEFAULT_FPS
        self._count = 0
        self._size: tuple[int, ...] | None = None
        self._clips = 0
        self._stack = ExitStack()

    def __enter__(self) -> Clips:
        make_folder(self._out)
        self._begin()  # before the work: where nothing can be written, it would be for nothing
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._stack.__exit__(*exception)  # type: ignore[arg-type]
        finally:
            self._parts.__exit__(*exception)

    def write(self, name: str, result: Result) -> None:
        """Write what is wanted of the next frame."""
        if self._size not in (None, result.labels.shape):  # a live source came back as another
            self._stack.close()
            self._begin()
        self._size = result.labels.shape
        outputs, number = self._outputs, f"{self._count:06d}"
        for picture, path in self._paths.items():
            pixels = result.picture(picture, alpha=outputs.alpha, legend=outputs.legend)
            if picture == "labels":
                make_folder(path)
                write_image(path / f"{number}.png", pixels)
            else:
                self._writers[picture].write(pixels)
            self._note(path)
        if outputs.parts:
            folder = self._out / f"{self._stem}_geojson"
            if outputs.geojson:
                make_folder(folder)
            for path in self._parts.write(
                result, folder / f"{number}.geojson", f"{self._stem}/{number}.png"
            ):
                self._note(folder if path.parent == folder else path)
        self._count += 1

    def _note(self, path: Path) -> None:
        if path not in self.written:
            self.written.append(path)

    def _begin(self) -> None:
        """Open one clip for each picture."""
        self._clips += 1
        number = "" if self._clips == 1 else f"-{self._clips}"
        self._paths = {
            picture: self._out
            / (
                f"{self._stem}_labels"
                if picture == "labels"
                else f"{self._stem}_{picture}{number}.mp4"
            )
            for picture in self._outputs.pictures
        }
        self._stack = ExitStack()
        self._writers = {
            picture: self._stack.enter_context(write_video(path, self._fps))
            for picture, path in self._paths.items()
            if picture != "labels"
        }


class _Parts:
    """The connected parts of frames: a GeoJSON file for each, one COCO file for all."""

    def __init__(self, outputs: Outputs, coco: Path, classes: Sequence[str]) -> None:
        self._outputs = outputs
        self._path = coco
        self._classes = classes
        self._coco: CocoWriter | None = None
        self._stack = ExitStack()

    def __exit__(self, *exception: object) -> None:
        self._stack.__exit__(*exception)  # type: ignore[arg-type]

    def write(self, result: Result, geojson: Path, file_name: str) -> list[Path]:
        """Write a frame's; gives the files that were begun."""
        begun = []
        min_area, simplify = self._outputs.min_area, self._outputs.simplify
        if self._outputs.geojson:
            collection = result.geojson(min_area=min_area, simplify=simplify)
            write_atomically(geojson, [json.dumps(collection, ensure_ascii=False).encode()])
            begun.append(geojson)
        if self._outputs.coco:
            if self._coco is None:
                self._coco = self._stack.enter_context(write_coco(self._path, self._classes))
                begun.append(self._path)
            self._coco.add(result, file_name, min_area=min_area, simplify=simplify)
        return begun
