"""What is drawn on: frame, labels and depth, always touched together by the same shape."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.classes import IGNORE
from edgeseg.synthetic.geometry import Camera, Points, clip_near

Colour = tuple[float, float, float]
"""Blue, green, red in 0..255."""

Image = NDArray[np.uint8]

FRACTION_BITS = 4
"""Sub-pixel bits of polygon corners."""

FAR_OFF = 1 << 14
"""Pixels beyond which corners are clamped, so that fixed-point coordinates cannot overflow."""


def fixed(points: Points) -> NDArray[np.int32]:
    """Pixels (N×2) as the fixed-point integers that OpenCV's drawing takes."""
    clamped = np.clip(points, -FAR_OFF, FAR_OFF)
    return np.rint(clamped * (1 << FRACTION_BITS)).astype(np.int32)


class Canvas:
    """A frame under construction, painted from far to near.

    Attributes:
        camera: The camera whose image this is.
        frame: H×W×3 uint8 BGR.
        labels: H×W uint8 class ids.
        depth: H×W float32, metres from the camera plane; haze is laid over it at the end.
    """

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        self.frame: Image = np.zeros((camera.height, camera.width, 3), np.uint8)
        self.labels: Image = np.full((camera.height, camera.width), IGNORE, np.uint8)
        self.depth: NDArray[np.float32] = np.full(self.labels.shape, np.inf, np.float32)

    def window(self, points: Points) -> tuple[slice, slice] | None:
        """Rows and columns that a polygon in pixels may touch, or None outside the image."""
        left, top = np.floor(points.min(axis=0)) - 1
        right, bottom = np.ceil(points.max(axis=0)) + 2
        rows = slice(int(max(top, 0)), int(min(bottom, self.camera.height)))
        columns = slice(int(max(left, 0)), int(min(right, self.camera.width)))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return None
        return rows, columns

    def polygon(self, points: Points, colour: Colour, label: int, depth: float) -> None:
        """Fill a polygon given in pixels (N×2)."""
        if len(points) < 3 or self.window(points) is None:
            return
        corners = [fixed(points)]
        cv2.fillPoly(self.frame, corners, colour, cv2.LINE_AA, FRACTION_BITS)
        cv2.fillPoly(self.labels, corners, (label,), cv2.LINE_8, FRACTION_BITS)
        cv2.fillPoly(self.depth, corners, (depth,), cv2.LINE_8, FRACTION_BITS)

    def face(self, view: Points, colour: Colour, label: int) -> None:
        """Fill a flat polygon given in camera coordinates (N×3)."""
        visible = clip_near(view)
        if len(visible) >= 3:
            self.polygon(
                self.camera.pixels(visible), colour, label, float(visible[:, 2].mean())
            )

    def capsule(
        self, start: Points, end: Points, radii: tuple[float, float], colour: Colour, label: int
    ) -> None:
        """Draw a limb or a pole between two points in camera coordinates; radii in metres."""
        if min(start[2], end[2]) < 2.0 * max(radii):
            return
        ends = self.camera.pixels(np.stack([start, end]))
        scale = self.camera.focal / np.array([start[2], end[2]])
        across = ends[1] - ends[0]
        angle = math.atan2(across[1], across[0])
        # Two half circles, joined: at the start facing back, at the end facing ahead.
        turn = angle + math.pi / 2 + _HALF_CIRCLE
        arc = np.stack([np.cos(turn), np.sin(turn)], axis=-1)
        outline = np.concatenate(
            [ends[0] + arc * radii[0] * scale[0], ends[1] - arc * radii[1] * scale[1]]
        )
        self.polygon(outline, colour, label, float(start[2] + end[2]) / 2.0)

    def panel(
        self,
        corners: Points,
        texture: Image,
        label: int,
        *,
        strip: float = 4.0,
        solid: Image | None = None,
    ) -> None:
        """Draw a textured rectangle.

        Args:
            corners: Camera coordinates (4×3): top left, top right, bottom right, bottom left,
                as the texture lies.
            texture: h×w×3 BGR, or h×w×4 with alpha.
            label: Class id.
            strip: Width in metres of the vertical strips, each with its own minification.
            solid: h×w, non-zero where the label counts; by default where alpha is above half.
        """
        length = float(np.linalg.norm(corners[1] - corners[0]))
        pieces = max(1, math.ceil(length / strip))
        edges = np.linspace(0.0, 1.0, pieces + 1)
        across_top, across_bottom = corners[1] - corners[0], corners[2] - corners[3]
        # The farthest strip first, so that overlapping strip borders show the nearer one.
        order = range(pieces) if corners[0][2] > corners[1][2] else reversed(range(pieces))
        columns = np.rint(edges * texture.shape[1]).astype(int)
        for i in order:
            a, b = edges[i], edges[i + 1]
            part = np.stack(
                [
                    corners[0] + across_top * a,
                    corners[0] + across_top * b,
                    corners[3] + across_bottom * b,
                    corners[3] + across_bottom * a,
                ]
            )
            first, last = columns[i], max(columns[i + 1], columns[i] + 1)
            self._strip(
                part,
                texture[:, first:last],
                label,
                None if solid is None else solid[:, first:last],
            )

    def _strip(self, corners: Points, texture: Image, label: int, solid: Image | None) -> None:
        visible = clip_near(corners)
        if len(visible) < 3:
            return
        outline = self.camera.pixels(visible)
        window = self.window(outline)
        if window is None:
            return
        rows, columns = window
        texture, solid = self._minify(texture, solid, visible)
        height, width = texture.shape[:2]

        # Texture pixel -> camera coordinates is affine, and the pinhole makes it a homography.
        origin = np.array([columns.start, rows.start, 0.0])
        plane = np.stack(
            [
                (corners[1] - corners[0]) / width,
                (corners[3] - corners[0]) / height,
                corners[0],
            ],
            axis=1,
        )
        shift = np.eye(3) - np.outer(origin, [0.0, 0.0, 1.0])
        half_pixel = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
        homography = shift @ self.camera.intrinsics @ plane @ half_pixel
        size = (columns.stop - columns.start, rows.stop - rows.start)
        warped = cv2.warpPerspective(texture, homography, size, borderMode=cv2.BORDER_REPLICATE)

        shape = np.zeros((size[1], size[0]), np.uint8)
        corner_pixels = [fixed(outline - origin[:2])]
        cv2.fillPoly(shape, corner_pixels, (255,), cv2.LINE_AA, FRACTION_BITS)
        inside = np.zeros_like(shape)
        cv2.fillPoly(inside, corner_pixels, (255,), cv2.LINE_8, FRACTION_BITS)
        alpha = shape
        if texture.shape[2] == 4:
            alpha = cv2.multiply(shape, np.ascontiguousarray(warped[..., 3]), scale=1 / 255)
            warped = np.ascontiguousarray(warped[..., :3])
            if solid is None:
                inside = np.where(alpha >= 128, inside, 0)
        if solid is not None:
            inside &= cv2.warpPerspective(
                solid, homography, size, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE
            )
        weight = alpha.astype(np.float32) * np.float32(1 / 255)
        patch = np.ascontiguousarray(self.frame[rows, columns])
        self.frame[rows, columns] = cv2.blendLinear(warped, patch, weight, 1.0 - weight)
        hit = inside > 0
        self.labels[rows, columns][hit] = label
        self.depth[rows, columns][hit] = float(visible[:, 2].mean())

    def _minify(
        self, texture: Image, solid: Image | None, visible: Points
    ) -> tuple[Image, Image | None]:
        """Shrink a texture towards its size on screen, each axis for itself, against aliasing."""
        pixels = self.camera.pixels(visible)
        extent = pixels.max(axis=0) - pixels.min(axis=0)
        height, width = texture.shape[:2]
        # Slanted edges make the bounding box taller than the panel; the margin keeps it sharp.
        new_width = max(1, min(width, math.ceil(1.3 * extent[0])))
        new_height = max(1, min(height, math.ceil(1.3 * extent[1])))
        if new_width > 0.8 * width and new_height > 0.8 * height:
            return np.ascontiguousarray(texture), solid
        size = (new_width, new_height)
        shrunk = cv2.resize(texture, size, interpolation=cv2.INTER_AREA)
        if solid is not None:
            solid = cv2.resize(solid, size, interpolation=cv2.INTER_NEAREST)
        return shrunk, solid


_HALF_CIRCLE = np.linspace(0.0, math.pi, 7)
