"""What is drawn on: frame, labels and air, always touched together by the same shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.classes import IGNORE
from edgeseg.synthetic.geometry import NEAR, Camera, Points, clip_near

Colour = tuple[float, float, float]
"""Blue, green, red in 0..255."""

Image = NDArray[np.uint8]

FRACTION_BITS = 4
"""Sub-pixel bits of polygon corners."""

FAR_OFF = 1 << 14
"""Pixels beyond which corners are clamped, so that fixed-point coordinates cannot overflow."""

SPLIT_RATIO = 1.8
"""Ratio of depths within one piece of a textured panel."""

FIRST_SPLIT = 1.5
"""Depth in metres nearer than which panels are not split further."""


def fixed(points: Points) -> NDArray[np.int32]:
    """Pixels (…×2) as the fixed-point integers that OpenCV's drawing takes."""
    clamped = np.clip(points, -FAR_OFF, FAR_OFF)
    return np.rint(clamped * (1 << FRACTION_BITS)).astype(np.int32)


class Canvas:
    """A frame under construction, painted from far to near.

    Attributes:
        camera: The camera whose image this is.
        extinction: Of the air, per metre.
        frame: H×W×3 uint8 BGR, as if the air were clear.
        labels: H×W uint8 class ids.
        air: H×W float32 in 0..1, the share of each pixel that haze will take in the end.
    """

    def __init__(self, camera: Camera, extinction: float) -> None:
        self.camera = camera
        self.extinction = extinction
        self.frame: Image = np.zeros((camera.height, camera.width, 3), np.uint8)
        self.labels: Image = np.full((camera.height, camera.width), IGNORE, np.uint8)
        self.air: NDArray[np.float32] = np.zeros(self.labels.shape, np.float32)

    def veil(self, depth: float) -> float:
        """Share of haze in front of something `depth` metres away."""
        return 1.0 - math.exp(-self.extinction * depth)

    def polygon(self, points: Points, colour: Colour, label: int, depth: float) -> None:
        """Fill a polygon given in pixels (N×2)."""
        self._fill(fixed(points), colour, label, self.veil(depth))

    def polygons(
        self, view: Points, sizes: Sequence[int], colours: Sequence[Colour], label: int
    ) -> None:
        """Fill the flat faces of one object, in the given order.

        Args:
            view: Camera coordinates of all corners (ΣN×3), face after face.
            sizes: Corners per face.
            colours: One per face.
            label: Class id of all.
        """
        ends = list(accumulate(sizes))
        depth = view[:, 2]
        if depth.min() >= NEAR:
            corners = fixed(self.camera.pixels(view))
            if self._misses(corners):
                return
            veil = self.veil(float(depth.mean()))
            for size, end, colour in zip(sizes, ends, colours, strict=True):
                self._fill(corners[end - size : end], colour, label, veil)
        elif depth.max() > NEAR:
            for size, end, colour in zip(sizes, ends, colours, strict=True):
                visible = clip_near(view[end - size : end])
                if len(visible) >= 3:
                    self.polygon(self.camera.pixels(visible), colour, label, NEAR)

    def capsules(
        self,
        ends: Points,
        radii: Points,
        colours: Sequence[Colour],
        label: int,
        *,
        rounded: bool = True,
    ) -> None:
        """Draw limbs or poles of one object, in the given order.

        Args:
            ends: Camera coordinates of both ends (N×2×3).
            radii: At both ends in metres (N×2).
            colours: One per limb.
            label: Class id of all.
            rounded: Whether the ends are half circles or cut straight.
        """
        if ends[:, :, 2].min() < 2.0 * radii.max():
            return
        pixels = self.camera.pixels(ends.reshape(-1, 3)).reshape(-1, 2, 2)
        reach = radii * (self.camera.focal / ends[:, :, 2])
        along = pixels[:, 1] - pixels[:, 0]
        angle = np.arctan2(along[:, 1], along[:, 0])
        # Half a circle back from the start, half a circle ahead from the end.
        turn = angle[:, None] + (_HALF_CIRCLE if rounded else _HALF_CIRCLE[[0, -1]])
        arc = np.stack([np.cos(turn), np.sin(turn)], axis=-1)
        outlines = np.concatenate(
            [
                pixels[:, None, 0] + arc * reach[:, 0, None, None],
                pixels[:, None, 1] - arc * reach[:, 1, None, None],
            ],
            axis=1,
        )
        corners = fixed(outlines)
        if self._misses(corners.reshape(-1, 2)):
            return
        veil = self.veil(float(ends[:, :, 2].mean()))
        for outline, colour in zip(corners, colours, strict=True):
            self._fill(outline, colour, label, veil)

    def panel(
        self,
        corners: Points,
        texture: Image,
        label: int,
        light: Colour = (1.0, 1.0, 1.0),
        *,
        solid: Image | None = None,
    ) -> None:
        """Draw a textured rectangle, split where its depth changes much.

        Args:
            corners: Camera coordinates (4×3): top left, top right, bottom right, bottom left,
                as the texture lies.
            texture: h×w×3 BGR, or h×w×4 with alpha.
            label: Class id.
            light: BGR factors on the texture.
            solid: h×w, 255 where the label counts; by default where alpha is above half.
        """
        if not self.sees(corners):
            return
        left, right = (max(float(depth), FIRST_SPLIT) for depth in corners[:2, 2])
        pieces = 1 + int(abs(math.log(right / left)) / math.log(SPLIT_RATIO))
        # Depth is linear along the panel; equal ratios of depth give cuts of equal sharpness.
        depths = left * (right / left) ** np.linspace(0.0, 1.0, pieces + 1)[1:-1]
        span = corners[1, 2] - corners[0, 2]
        cuts = [0.0, *((depths - corners[0, 2]) / span), 1.0] if pieces > 1 else [0.0, 1.0]
        columns = [round(cut * texture.shape[1]) for cut in cuts]
        across_top, across_bottom = corners[1] - corners[0], corners[2] - corners[3]
        # The farthest piece first, so that overlapping borders show the nearer one.
        order = range(pieces) if left > right else reversed(range(pieces))
        for i in order:
            a, b = cuts[i], cuts[i + 1]
            part = np.stack(
                [
                    corners[0] + across_top * a,
                    corners[0] + across_top * b,
                    corners[3] + across_bottom * b,
                    corners[3] + across_bottom * a,
                ]
            )
            piece = slice(
                min(columns[i], texture.shape[1] - 1), max(columns[i + 1], columns[i] + 1)
            )
            mask = None if solid is None else solid[:, piece]
            self._piece(part, texture[:, piece], label, light, mask)

    def sees(self, view: Points) -> bool:
        """Whether the hull of some points (N×3, camera coordinates) may touch the image."""
        visible = clip_near(view)
        return len(visible) > 0 and not self._misses(fixed(self.camera.pixels(visible)))

    def _fill(self, corners: NDArray[np.int32], colour: Colour, label: int, veil: float) -> None:
        """Fill a polygon in fixed-point pixels on all three layers."""
        outline = [corners]
        cv2.fillPoly(self.frame, outline, colour, cv2.LINE_AA, FRACTION_BITS)
        cv2.fillPoly(self.labels, outline, (label,), cv2.LINE_8, FRACTION_BITS)
        cv2.fillPoly(self.air, outline, (veil,), cv2.LINE_8, FRACTION_BITS)

    def _misses(self, corners: NDArray[np.int32]) -> bool:
        """Whether fixed-point corners lie all on one side of the image."""
        low, high = corners.min(axis=0), corners.max(axis=0)
        size = (self.camera.width << FRACTION_BITS, self.camera.height << FRACTION_BITS)
        margin = 1 << FRACTION_BITS
        return bool(
            high[0] < -margin
            or high[1] < -margin
            or low[0] > size[0] + margin
            or low[1] > size[1] + margin
        )

    def _window(self, points: Points) -> tuple[slice, slice] | None:
        """Rows and columns that a polygon in pixels may touch, or None outside the image."""
        left, top = points.min(axis=0)
        right, bottom = points.max(axis=0)
        rows = slice(max(math.floor(top) - 1, 0), min(math.ceil(bottom) + 2, self.camera.height))
        columns = slice(max(math.floor(left) - 1, 0), min(math.ceil(right) + 2, self.camera.width))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return None
        return rows, columns

    def _piece(
        self, corners: Points, texture: Image, label: int, light: Colour, solid: Image | None
    ) -> None:
        visible = clip_near(corners)
        if len(visible) < 3:
            return
        outline = self.camera.pixels(visible)
        window = self._window(outline)
        if window is None:
            return
        rows, columns = window
        texture, solid = _minify(texture, solid, outline)
        texture = tinted(texture, light)
        height, width = texture.shape[:2]

        # Texture pixel to camera coordinates is affine, and the pinhole makes it a homography.
        plane = np.stack(
            [
                (corners[1] - corners[0]) / width,
                (corners[3] - corners[0]) / height,
                corners[0]
                + 0.5 * ((corners[1] - corners[0]) / width)
                + 0.5 * ((corners[3] - corners[0]) / height),
            ],
            axis=1,
        )
        shift = np.array([[1.0, 0.0, -columns.start], [0.0, 1.0, -rows.start], [0.0, 0.0, 1.0]])
        homography = shift @ self.camera.intrinsics @ plane
        size = (columns.stop - columns.start, rows.stop - rows.start)
        warped = cv2.warpPerspective(texture, homography, size, borderMode=cv2.BORDER_REPLICATE)

        edge = [fixed(outline - np.array([columns.start, rows.start]))]
        cover = np.zeros((size[1], size[0]), np.uint8)
        cv2.fillPoly(cover, edge, (255,), cv2.LINE_AA, FRACTION_BITS)
        inside = np.zeros_like(cover)
        cv2.fillPoly(inside, edge, (255,), cv2.LINE_8, FRACTION_BITS)
        if texture.shape[2] == 4:
            cover = cv2.multiply(cover, cv2.extractChannel(warped, 3), scale=1 / 255)
            warped = cv2.cvtColor(warped, cv2.COLOR_BGRA2BGR)
            if solid is None:
                inside = cv2.bitwise_and(
                    inside, cv2.threshold(cover, 127, 255, cv2.THRESH_BINARY)[1]
                )
        if solid is not None:
            stencil = cv2.warpPerspective(
                solid, homography, size, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE
            )
            inside = cv2.bitwise_and(inside, stencil)
        weight = cover.astype(np.float32) * np.float32(1 / 255)
        rest = 1.0 - weight
        frame, air = self.frame[rows, columns], self.air[rows, columns]
        frame[:] = cv2.blendLinear(warped, frame, weight, rest)
        air *= rest
        air += np.float32(self.veil(float(visible[:, 2].mean()))) * weight
        self.labels[rows, columns][inside > 0] = label


def tinted(texture: Image, factors: Colour) -> Image:
    """A BGR or BGRA texture with its colours multiplied, saturating."""
    levels = np.arange(256, dtype=np.float32)[:, None] * np.array(factors, np.float32)
    table = np.minimum(levels, 255.0).astype(np.uint8)
    if texture.shape[2] == 4:
        table = np.column_stack([table, np.arange(256, dtype=np.uint8)])
    return np.asarray(cv2.LUT(texture, table[None]), np.uint8)


def _minify(texture: Image, solid: Image | None, outline: Points) -> tuple[Image, Image | None]:
    """Shrink a texture towards its size on screen, each axis for itself, against aliasing."""
    extent = outline.max(axis=0) - outline.min(axis=0)
    height, width = texture.shape[:2]
    # Slanted edges make the bounding box taller than the panel; the margin keeps it sharp.
    new_width = max(1, min(width, math.ceil(1.3 * float(extent[0]))))
    new_height = max(1, min(height, math.ceil(1.3 * float(extent[1]))))
    if new_width > 0.8 * width and new_height > 0.8 * height:
        return texture, solid
    size = (new_width, new_height)
    shrunk = np.asarray(cv2.resize(texture, size, interpolation=cv2.INTER_AREA), np.uint8)
    if solid is not None:
        solid = np.asarray(cv2.resize(solid, size, interpolation=cv2.INTER_NEAREST), np.uint8)
    return shrunk, solid


_HALF_CIRCLE = math.pi / 2 + np.linspace(0.0, math.pi, 7)
