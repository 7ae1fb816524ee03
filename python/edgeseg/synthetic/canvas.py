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

SPECK = 1.0
"""Pixels; smaller parts of an object are left out."""

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
            starts = np.array([0, *ends[:-1]])
            extent = np.maximum.reduceat(corners, starts) - np.minimum.reduceat(corners, starts)
            large = extent.max(axis=1) > SPECK * (1 << FRACTION_BITS)
            for i in np.flatnonzero(large).tolist():
                self._fill(corners[ends[i] - sizes[i] : ends[i]], colours[i], label, veil)
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
        size = np.hypot(along[:, 0], along[:, 1]) + 2.0 * reach.max(axis=1)
        for i in np.flatnonzero(size > SPECK).tolist():
            self._fill(corners[i], colours[i], label, veil)

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
        left, right = (max(float(depth), FIRST_SPLIT) for depth in corners[:2, 2])
        pieces = 1 + int(abs(math.log(right / left)) / math.log(SPLIT_RATIO))
        if pieces == 1:
            self._piece(corners, texture, label, light, solid)
            return
        # Depth is linear along the panel; equal ratios of depth give cuts of equal sharpness.
        depths = left * (right / left) ** np.linspace(0.0, 1.0, pieces + 1)[1:-1]
        inner = (depths - corners[0, 2]) / (corners[1, 2] - corners[0, 2])
        cuts = [0.0, *inner.tolist(), 1.0]
        across_top, across_bottom = corners[1] - corners[0], corners[2] - corners[3]
        # The farthest piece first, so that overlapping borders show the nearer one.
        order = range(pieces) if left > right else reversed(range(pieces))
        width = texture.shape[1]
        for i in order:
            a, b = cuts[i], cuts[i + 1]
            first = min(round(a * width), width - 1)
            columns = slice(first, max(round(b * width), first + 1))
            part = np.stack(
                [
                    corners[0] + across_top * a,
                    corners[0] + across_top * b,
                    corners[3] + across_bottom * b,
                    corners[3] + across_bottom * a,
                ]
            )
            mask = None if solid is None else solid[:, columns]
            self._piece(part, texture[:, columns], label, light, mask)

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

    def _window(self, outline: Points) -> tuple[slice, slice] | None:
        """Rows and columns that a polygon in pixels may touch, or None outside the image."""
        x, y = outline.T.tolist()
        rows = slice(max(math.floor(min(y)) - 1, 0), min(math.ceil(max(y)) + 2, self.camera.height))
        columns = slice(
            max(math.floor(min(x)) - 1, 0), min(math.ceil(max(x)) + 2, self.camera.width)
        )
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return None
        return rows, columns

    def _piece(
        self, corners: Points, texture: Image, label: int, light: Colour, solid: Image | None
    ) -> None:
        """Draw a panel or a part of one in a single perspective warp."""
        visible = clip_near(corners)
        if len(visible) < 3:
            return
        outline = self.camera.pixels(visible)
        window = self._window(outline)
        if window is None:
            return
        rows, columns = window
        size = (columns.stop - columns.start, rows.stop - rows.start)
        veil = self.veil(float(visible[:, 2].mean()))
        texture, solid = _minify(texture, solid, outline)
        homography = self._homography(corners, texture, window)
        warped = cv2.warpPerspective(
            tinted(texture, light), homography, size, borderMode=cv2.BORDER_REPLICATE
        )
        edge = [fixed(outline - np.array([columns.start, rows.start]))]
        cover = np.zeros((size[1], size[0]), np.uint8)
        cv2.fillPoly(cover, edge, (255,), cv2.LINE_AA, FRACTION_BITS)
        if texture.shape[2] == 3:
            weight = cover.astype(np.float32) * np.float32(1 / 255)
            whole = [fixed(outline)]
            cv2.fillPoly(self.labels, whole, (label,), cv2.LINE_8, FRACTION_BITS)
            cv2.fillPoly(self.air, whole, (veil,), cv2.LINE_8, FRACTION_BITS)
        else:
            alpha = cv2.multiply(cover, cv2.extractChannel(warped, 3), scale=1 / 255)
            warped = cv2.cvtColor(warped, cv2.COLOR_BGRA2BGR)
            weight = alpha.astype(np.float32) * np.float32(1 / 255)
            inside = np.zeros_like(cover)
            cv2.fillPoly(inside, edge, (1,), cv2.LINE_8, FRACTION_BITS)
            if solid is None:
                counts = alpha > 127
            else:
                counts = cv2.warpPerspective(solid, homography, size, flags=cv2.INTER_NEAREST) > 0
            self.labels[rows, columns][counts & (inside > 0)] = label
            air = self.air[rows, columns]
            air += weight * (np.float32(veil) - air)
        frame = self.frame[rows, columns]
        frame[:] = cv2.blendLinear(warped, frame, weight, 1.0 - weight)

    def _homography(self, corners: Points, texture: Image, window: tuple[slice, slice]) -> Points:
        """3×3 map from pixels of a panel's texture to pixels of a window of the image."""
        height, width = texture.shape[:2]
        right, down = (corners[1] - corners[0]) / width, (corners[3] - corners[0]) / height
        # Texture pixel to camera coordinates is affine, and the pinhole does the rest.
        plane = np.stack([right, down, corners[0] + 0.5 * (right + down)], axis=1)
        rows, columns = window
        shift = np.array([[1.0, 0.0, -columns.start], [0.0, 1.0, -rows.start], [0.0, 0.0, 1.0]])
        return np.asarray(shift @ self.camera.intrinsics @ plane)


def tinted(texture: Image, factors: Colour) -> Image:
    """A BGR or BGRA texture with its colours multiplied, saturating."""
    levels = np.arange(256, dtype=np.float32)[:, None] * np.array(factors, np.float32)
    table = np.minimum(levels, 255.0).astype(np.uint8)
    if texture.shape[2] == 4:
        table = np.column_stack([table, np.arange(256, dtype=np.uint8)])
    return np.asarray(cv2.LUT(texture, table[None]), np.uint8)


def _minify(texture: Image, solid: Image | None, outline: Points) -> tuple[Image, Image | None]:
    """Shrink a texture towards its size on screen, each axis for itself, against aliasing."""
    x, y = outline.T.tolist()
    height, width = texture.shape[:2]
    # Slanted edges make the bounding box taller than the panel; the margin keeps it sharp.
    new_width = max(1, min(width, math.ceil(1.3 * (max(x) - min(x)))))
    new_height = max(1, min(height, math.ceil(1.3 * (max(y) - min(y)))))
    if new_width > 0.8 * width and new_height > 0.8 * height:
        return texture, solid
    size = (new_width, new_height)
    shrunk = np.asarray(cv2.resize(texture, size, interpolation=cv2.INTER_AREA), np.uint8)
    if solid is not None:
        solid = np.asarray(cv2.resize(solid, size, interpolation=cv2.INTER_NEAREST), np.uint8)
    return shrunk, solid


_HALF_CIRCLE = math.pi / 2 + np.linspace(0.0, math.pi, 7)
