"""What a Runtime gives for a frame, and what can be made of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg import _core
from edgeseg.arguments import check_choice, check_number, check_threads
from edgeseg.classes import IGNORE
from edgeseg.errors import InputError, OutputError
from edgeseg.images import write_image
from edgeseg.runtime import coco
from edgeseg.runtime.frames import Frame
from edgeseg.runtime.geojson import feature_collection
from edgeseg.runtime.legend import draw_legend
from edgeseg.runtime.outlines import checked_limits

if TYPE_CHECKING:
    from edgeseg.runtime.gpu import DeviceFrame

Picture = Literal["overlay", "side-by-side", "colored", "labels"]


@dataclass(frozen=True)
class Timings:
    """Where the time went, in milliseconds."""

    preprocess: float
    inference: float
    upsample_argmax: float

    @property
    def total(self) -> float:
        """From the frame in memory to the label map, waiting for other frames left out."""
        return self.preprocess + self.inference + self.upsample_argmax

    def stages(self) -> dict[str, float]:
        """All of them by name, in order, then the total."""
        return {**asdict(self), "total": self.total}


@dataclass(frozen=True, eq=False)
class Polygon:
    """One connected part of a class.

    Attributes:
        class_id: index of the class.
        class_name: its name.
        exterior: n×2 int32, n ≥ 3, (x, y) of the corners, in pixels, through the centres of the
            part's outermost pixels.
        holes: outlines of what is cut out of it, each m×2 int32, m ≥ 3, through the centres of
            the pixels around the hole.
    """

    class_id: int
    class_name: str
    exterior: NDArray[np.int32]
    holes: tuple[NDArray[np.int32], ...]


@dataclass(frozen=True, eq=False)
class Result:
    """Labels of one frame.

    Attributes:
        labels: H×W uint8, class ids at the frame's own size; 255 is no class.
        classes: K class names; a label is an index into them.
        palette: K×3 uint8, R, G, B.
        frame: the frame it came from, by reference: a frame buffer that is used again changes it.
            One in a GPU's memory is copied to the host when its pixels are first needed.
        confidence: H×W float32, softmax probability of each pixel's label, if it was asked for.
        timings: where the time went.
    """

    labels: NDArray[np.uint8]
    classes: tuple[str, ...]
    palette: NDArray[np.uint8]
    frame: Frame | DeviceFrame
    confidence: NDArray[np.float32] | None
    timings: Timings

    def __repr__(self) -> str:
        height, width = self.labels.shape
        areas = sorted(self.areas().items(), key=lambda item: -item[1])
        largest = ", ".join(f"{name} {area:.0%}" for name, area in areas[:3] if area > 0)
        return f"Result({width}×{height}: {largest or 'no class'}; {self.timings.total:.1f} ms)"

    def only(self, *names: str) -> Result:
        """The same result with these classes alone; pixels of others get 255, no class.

        `areas`, pictures, polygons, GeoJSON and COCO then tell of these.

        Raises:
            InputError: no name, or one that is no class; the message lists the classes.
        """
        if not names:
            raise InputError(f"no class is named; there are {', '.join(self.classes)}")
        check_classes(names, self.classes)
        table = np.full(256, IGNORE, np.uint8)
        for class_id in map(self.classes.index, names):
            table[class_id] = class_id
        return replace(self, labels=table[self.labels])

    def confident(self, threshold: float) -> Result:
        """The same result with what is less sure than `threshold` taken out: 255, no class.

        Args:
            threshold: least softmax probability of a pixel's label, 0..1.

        Raises:
            InputError: it is out of range, or confidence was not asked for.
        """
        threshold = check_number("threshold", threshold, 0, 1)
        if self.confidence is None:
            raise InputError(
                "this result has no confidence; ask for it: predict(frame, confidence=True)"
            )
        sure = self.confidence >= threshold
        return replace(self, labels=np.where(sure, self.labels, np.uint8(IGNORE)))

    def overlay(
        self, alpha: float = 0.5, *, legend: bool = False, threads: int = 1
    ) -> NDArray[np.uint8]:
        """Blend the classes' colours over the frame.

        Args:
            alpha: weight of the colours, 0 (the frame alone) to 1 (the colours alone).
            legend: add a strip below with every class's colour, name and share of the frame.
            threads: CPU threads to use.

        Returns:
            H×W×3 uint8 BGR, a new array, higher than the frame with a legend; pixels without a
            class show the frame.

        Raises:
            InputError: an argument is out of range.
        """
        blended = self._blend(self._bgr_frame(), alpha, threads)
        return self._with_legend(blended) if legend else blended

    def side_by_side(
        self, alpha: float = 0.5, *, legend: bool = False, threads: int = 1
    ) -> NDArray[np.uint8]:
        """The frame, and right of it the overlay.

        Args:
            alpha: as for `overlay`; 1 shows the colours alone.
            legend: as for `overlay`.
            threads: as for `overlay`.

        Returns:
            H×2W×3 uint8 BGR, a new array, higher with a legend.

        Raises:
            InputError: an argument is out of range.
        """
        frame = self._bgr_frame()
        both = np.concatenate((frame, self._blend(frame, alpha, threads)), axis=1)
        return self._with_legend(both) if legend else both

    def colored(self, *, legend: bool = False) -> NDArray[np.uint8]:
        """Label map in the palette's colours: H×W×3 uint8 BGR, black where there is no class.

        Args:
            legend: as for `overlay`.
        """
        table = self._bgr_table()[:, None]
        colored = cv2.applyColorMap(self.labels, table).astype(np.uint8, copy=False)
        return self._with_legend(colored) if legend else colored

    def picture(
        self, what: Picture = "overlay", *, alpha: float = 0.5, legend: bool = False
    ) -> NDArray[np.uint8]:
        """The pixels that `save` writes.

        Args:
            what: "overlay", "side-by-side" or "colored": see the methods. "labels": `labels`.
            alpha: of "overlay" and "side-by-side".
            legend: not of "labels", which are no picture of colours.

        Raises:
            InputError: an argument is out of range.
        """
        check_choice("what", what, get_args(Picture))
        if what == "overlay":
            return self.overlay(alpha, legend=legend)
        if what == "side-by-side":
            return self.side_by_side(alpha, legend=legend)
        return self.colored(legend=legend) if what == "colored" else self.labels

    def areas(self) -> dict[str, float]:
        """Fraction of the labelled pixels that each class holds.

        Returns:
            Every class, in the order of `classes`; the fractions sum to 1, or are all 0 where no
            pixel has a class.
        """
        counts = self._counts().astype(np.float64)
        fractions = counts / max(counts.sum(), 1.0)
        return dict(zip(self.classes, fractions.tolist(), strict=True))

    def polygons(self, *, min_area: float = 0.0, simplify: float = 0.0) -> list[Polygon]:
        """Outlines of every connected part (8 neighbours) of every class.

        Outlines run through pixel centres, so parts one pixel wide enclose no area: they are left
        out, and so are such holes.

        Args:
            min_area: smallest part and smallest hole to keep, in square pixels inside its outline.
            simplify: how far, in pixels, an outline may be moved to save corners (Douglas-Peucker).

        Raises:
            InputError: an argument is negative, or not a number.
        """
        min_area, simplify = checked_limits(min_area, simplify)
        found = []
        for class_id in np.flatnonzero(self._counts()).tolist():
            mask = (self.labels == class_id).view(np.uint8)
            outlines, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
            for index, outline in enumerate(outlines):
                _, _, first_hole, parent = hierarchy[0, index]
                exterior = _corners(outline, min_area, simplify) if parent < 0 else None
                if exterior is None:
                    continue
                holes = []
                hole = first_hole
                while hole >= 0:
                    if (corners := _corners(outlines[hole], min_area, simplify)) is not None:
                        holes.append(corners)
                    hole = hierarchy[0, hole, 0]
                found.append(Polygon(class_id, self.classes[class_id], exterior, tuple(holes)))
        return found

    def geojson(
        self,
        *,
        min_area: float = 0.0,
        simplify: float = 0.0,
        transform: Sequence[float] | None = None,
    ) -> dict[str, Any]:
        """A GeoJSON FeatureCollection (RFC 7946): a polygon for every connected part of a class.

        Polygons follow the edges of the pixels, holes included, so that their area is the number
        of pixels and `rasterio.features.rasterize` gives the labels back. Coordinates are pixels:
        x to the right, y down, (0, 0) the outer corner of the top left pixel, (width, height)
        that of the bottom right one. Parts hang together by edges (4 neighbours): what meets in a
        corner only is two features, since a valid polygon does not touch itself.

        Args:
            min_area: fewest pixels of a part.
            simplify: how far, in pixels, an outline may be moved to save corners (Douglas-Peucker);
                polygons stay valid, but neighbours then overlap or leave gaps.
            transform: from pixels to the world, a, b, c, d, e, f as in rasterio's
                `dataset.transform` or an `affine.Affine`: x = a·column + b·row + c,
                y = d·column + e·row + f. (GDAL's order is another: `Affine.from_gdal`.)

        Returns:
            A dict for `json.dumps`. Properties of a feature: "class_id", "class_name", "area" in
            pixels (before simplification, whatever the transform) and, if there is confidence, its
            mean over the part, "confidence". Beside the features, "image" says the frame's width
            and height and what the coordinates are.

        Raises:
            InputError: an argument is negative, no number, or a transform that cannot be inverted.
        """
        return feature_collection(self, min_area=min_area, simplify=simplify, transform=transform)

    def coco(
        self, file_name: str = "", *, min_area: float = 0.0, simplify: float = 0.0
    ) -> dict[str, Any]:
        """A COCO data set of this frame alone; `edgeseg.write_coco` makes one of many.

        An annotation is a connected part, as in `geojson`: a polygon along the edges of its
        pixels, from which pycocotools gives the same pixels back, or, since COCO's polygons have
        no holes, a run-length encoding (uncompressed, `iscrowd` 0) where there is one. Coordinates
        are pixels: x to the right, y down, (0, 0) the outer corner of the top left pixel.

        Args:
            file_name: the image's, relative to the folder of images.
            min_area: fewest pixels of a part.
            simplify: how far, in pixels, an outline may be moved to save corners
                (Douglas-Peucker); parts with holes are not simplified.

        Returns:
            A dict for `json.dumps`: "info", "licenses", "categories" (class k has id k + 1),
            "annotations" (area in pixels, before simplification; with confidence its mean over the
            part, "score") and "images".

        Raises:
            InputError: an argument is negative, or not a number.
        """
        found = coco.annotate(self, 1, 1, min_area=min_area, simplify=simplify)
        return {
            "info": coco.INFO,
            "licenses": [],
            "categories": coco.categories(self.classes),
            "annotations": list(found),
            "images": [coco.image(self, 1, file_name)],
        }

    def save(
        self,
        path: str | os.PathLike[str],
        what: Picture = "overlay",
        *,
        alpha: float = 0.5,
        legend: bool = False,
    ) -> None:
        """Write a picture; it appears whole or not at all.

        Args:
            path: file name; its suffix chooses the format.
            what: "overlay", "side-by-side" or "colored", in any image format, or "labels": the
                class ids themselves as an 8-bit grey PNG. (Not one with a palette: `cv2.imread`
                gives the colours of such a file in place of the ids.)
            alpha: as for `overlay`.
            legend: as for `overlay`; labels have none.

        Raises:
            InputError: `what` is unknown, or `alpha` out of range.
            OutputError: the file cannot be written, or the format would damage the labels.
        """
        if what == "labels" and (suffix := Path(path).suffix).lower() != ".png":
            raise OutputError(
                f"cannot write labels to {path}: {suffix or 'no suffix'!r} may change class "
                "ids; end the name in .png"
            )
        write_image(path, self.picture(what, alpha=alpha, legend=legend))

    def _blend(self, frame: NDArray[np.uint8], alpha: float, threads: int) -> NDArray[np.uint8]:
        weight = round(256 * check_number("alpha", alpha, 0, 1))
        threads = check_threads(threads)
        out = np.empty((*self.labels.shape, 3), np.uint8)
        _core.overlay(frame, self.labels, self._bgr_table(), out, alpha=weight, threads=threads)
        return out

    def _with_legend(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        strip = draw_legend(
            self.classes,
            self.palette[:, ::-1],
            (self._counts() / self.labels.size).tolist(),
            width=picture.shape[1],
            text_height=max(12, round(min(self.labels.shape) / 36)),
        )
        return np.concatenate((picture, strip))

    def _bgr_frame(self) -> NDArray[np.uint8]:
        pixels = self.frame.pixels
        if self.frame.pixel_format == "bgr":
            return pixels
        code = cv2.COLOR_RGB2BGR if self.frame.pixel_format == "rgb" else cv2.COLOR_YUV2BGR_NV12
        return cv2.cvtColor(pixels, code).astype(np.uint8, copy=False)

    def _bgr_table(self) -> NDArray[np.uint8]:
        """256×3: a colour for every label that there could be."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self.palette)] = self.palette[:, ::-1]
        return table

    def _counts(self) -> NDArray[np.float32]:
        """Pixels of each of the K classes."""
        histogram = cv2.calcHist([self.labels], [0], None, [256], [0, 256])
        # A column in OpenCV 4, a vector in 5.
        return histogram.ravel()[: len(self.classes)].astype(np.float32, copy=False)


def check_classes(names: Sequence[str], classes: Sequence[str]) -> None:
    """Names that are all among the classes.

    Raises:
        InputError: one is not; the message lists those that are.
    """
    if unknown := [name for name in names if name not in classes]:
        listed = ", ".join(map(repr, unknown))
        raise InputError(f"no class is called {listed}; there are {', '.join(classes)}")


def _corners(
    outline: cv2.typing.MatLike, min_area: float, simplify: float
) -> NDArray[np.int32] | None:
    """n×2 corners of a contour, or None where it encloses no area, or too little."""
    area = cv2.contourArea(outline)
    if area == 0 or area < min_area:
        return None
    if simplify > 0:
        outline = cv2.approxPolyDP(outline, simplify, closed=True)
    corners = outline.reshape(-1, 2)
    return corners.astype(np.int32, copy=False) if len(corners) >= 3 else None
