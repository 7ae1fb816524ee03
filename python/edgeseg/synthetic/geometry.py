"""Where things are: the road's centre line and the camera that drives along it.

World frame: x to the right and z ahead, in metres on the ground; y up. Street coordinates follow
the road: `s` ahead along it, `d` to the right of its centre line. Camera frame: x right, y down,
z forward. The whole street repeats every `PERIOD` metres, so a drive never ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""N×3 points in metres, or N×2 in pixels."""

PERIOD = 320.0
"""Length of the street in metres before it repeats."""

FARTHEST = 1500.0
"""Depth in metres that stands for the horizon."""

NEAR = 0.4
"""Depth in metres below which surfaces are cut off."""


@dataclass(frozen=True)
class Road:
    """A street whose centre line swings like a sine, in metres.

    Attributes:
        half_width: Centre line to kerb.
        pavement_width: Kerb to building plot.
        kerb_height: Height of the pavements above the road.
        bend: Amplitude of the centre line's swing; 0 is a straight street.
        swings: Full waves per `PERIOD`.
        phase: Phase of the swing in radians.
    """

    half_width: float
    pavement_width: float
    kerb_height: float
    bend: float
    swings: int
    phase: float

    @property
    def plot_edge(self) -> float:
        """Distance from the centre line at which building plots begin."""
        return self.half_width + self.pavement_width

    @property
    def _rate(self) -> float:
        return 2.0 * math.pi * self.swings / PERIOD

    def heading(self, s: float) -> float:
        """Direction of the road at `s`: angle from +z towards +x, in radians."""
        return math.atan(self.bend * self._rate * math.cos(self._rate * s + self.phase))

    def world(self, s: Points, d: Points, y: Points) -> Points:
        """Street coordinates (any shape) to world points (…×3)."""
        angle = self._rate * s + self.phase
        heading = np.arctan(self.bend * self._rate * np.cos(angle))
        x = self.bend * np.sin(angle) + d * np.cos(heading)
        return np.stack([x, y, s - d * np.sin(heading)], axis=-1)

    def street(
        self, x: NDArray[np.float32], z: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """World ground points to street coordinates (s, d), for gentle bends."""
        if self.bend == 0.0:
            return z, x
        # One step from the naive foot point z: enough, as headings stay below a quarter radian.
        angle = np.float32(self._rate) * z + np.float32(self.phase)
        slope = np.float32(self.bend * self._rate) * np.cos(angle)
        cosine = 1.0 / np.sqrt(1.0 + slope * slope)
        d = (x - np.float32(self.bend) * np.sin(angle)) * cosine
        return z + d * slope * cosine, d


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without roll.

    Attributes:
        height: Image height in pixels.
        width: Image width in pixels.
        focal: Focal length in pixels.
        position: World position in metres.
        yaw: Heading, from +z towards +x, in radians.
        pitch: Downward tilt in radians.
    """

    height: int
    width: int
    focal: float
    position: tuple[float, float, float]
    yaw: float
    pitch: float

    @cached_property
    def rotation(self) -> Points:
        """3×3 matrix from world to camera axes."""
        sy, cy = math.sin(self.yaw), math.cos(self.yaw)
        sp, cp = math.sin(self.pitch), math.cos(self.pitch)
        return np.array([[cy, 0.0, -sy], [-sy * sp, -cp, -cy * sp], [sy * cp, -sp, cy * cp]])

    @property
    def centre(self) -> tuple[float, float]:
        """Principal point (x, y) in pixels, pixel centres at integers."""
        return (self.width - 1) / 2.0, (self.height - 1) / 2.0

    @property
    def horizon(self) -> float:
        """Image row of the horizon."""
        return self.centre[1] - self.focal * math.tan(self.pitch)

    @cached_property
    def intrinsics(self) -> Points:
        """3×3 matrix from camera coordinates to homogeneous pixels."""
        x, y = self.centre
        return np.array([[self.focal, 0.0, x], [0.0, self.focal, y], [0.0, 0.0, 1.0]])

    def view(self, world: Points) -> Points:
        """World points (…×3) to camera coordinates."""
        return np.asarray((world - np.asarray(self.position)) @ self.rotation.T)

    def pixels(self, view: Points) -> Points:
        """Camera coordinates with positive depth to pixels (N×2)."""
        return np.asarray(view[:, :2] * (self.focal / view[:, 2:3]) + np.asarray(self.centre))


def clip_near(polygon: Points, near: float = NEAR) -> Points:
    """The part of a polygon (N×3, camera coordinates) that lies beyond depth `near`."""
    depth = polygon[:, 2]
    if depth.min() >= near:
        return polygon
    kept: list[Points] = []
    for a, b in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if a[2] >= near:
            kept.append(a)
        if (a[2] >= near) != (b[2] >= near):
            kept.append(a + (b - a) * ((near - a[2]) / (b[2] - a[2])))
    return np.array(kept).reshape(-1, 3)


def faces_camera(corners: Points) -> bool:
    """Whether a panel (top left, top right, bottom right, …; camera axes) shows its front."""
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = corners[:3].tolist()
    # The volume spanned by three corners, seen from the camera.
    volume = ax * (by * cz - bz * cy) - ay * (bx * cz - bz * cx) + az * (bx * cy - by * cx)
    return bool(volume > 0.0)
