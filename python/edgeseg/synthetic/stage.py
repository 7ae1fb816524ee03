"""What every object needs to draw itself: the canvas, the road it stands by, the light."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from edgeseg.classes import CAMVID
from edgeseg.synthetic.canvas import Canvas, Colour
from edgeseg.synthetic.geometry import Points, Road
from edgeseg.synthetic.light import Light, Vector

LABEL = {name: index for index, name in enumerate(CAMVID.names)}
"""CamVid's class ids by name."""

LONGEST_SHADOW = 60.0
"""Metres; a shadow longer than this has left the street."""


@dataclass(frozen=True)
class Stage:
    """One moment of a scene, ready to be drawn on.

    Attributes:
        canvas: What is drawn on.
        road: The centre line that street coordinates follow.
        light: Sun, sky and weather.
        time: Seconds since the start of the drive.
    """

    canvas: Canvas
    road: Road
    light: Light
    time: float

    def view(self, street: Sequence[Sequence[float]] | Points) -> Points:
        """Street coordinates (N×3: s, d, height) to camera coordinates (N×3)."""
        s, d, y = np.asarray(street, dtype=np.float64).T
        return self.canvas.camera.view(self.road.world(s, d, y))

    def polygons(self, faces: Sequence[tuple[Points, Colour]], label: int) -> None:
        """Fill the flat faces (street coordinates, N×3) of one object in this order."""
        corners = np.concatenate([face for face, _ in faces])
        sizes, colours = [len(face) for face, _ in faces], [colour for _, colour in faces]
        self.canvas.polygons(self.view(corners), sizes, colours, label)

    def normal(self, s: float, ahead: float, right: float, up: float) -> Vector:
        """A direction given in street axes at `s`, in world axes."""
        heading = self.road.heading(s)
        sine, cosine = math.sin(heading), math.cos(heading)
        return (right * cosine + ahead * sine, up, ahead * cosine - right * sine)


@dataclass(frozen=True)
class Box:
    """What a thing occupies, in metres.

    Attributes:
        behind: How far it reaches back along the street from its place.
        ahead: How far it reaches ahead of its place.
        left: Its least distance to the right of the centre line.
        right: Its greatest distance to the right of the centre line.
        height: Above the ground.
    """

    behind: float
    ahead: float
    left: float
    right: float
    height: float

    @classmethod
    def around(cls, d: float, radius: float, height: float) -> Box:
        """A thing that stands at a distance `d` and reaches `radius` all round."""
        return cls(radius, radius, d - radius, d + radius, height)


class Thing(Protocol):
    """An object of the street; every kind of object is a frozen dataclass that satisfies this."""

    @property
    def box(self) -> Box:
        """What it occupies around its place."""
        ...

    def place(self, time: float) -> float:
        """Where it is along the street at a time, in metres; the street wraps around."""
        ...

    def draw(self, stage: Stage, s: float) -> None:
        """Draw it at `s`, its place shifted by whole periods to where the camera sees it."""
        ...

    def shadow(self, stage: Stage, s: float) -> tuple[Points, float] | None:
        """Outline (street coordinates, N×3) and density 0..1 of its shadow, if it throws one."""
        ...


def box_shadow(
    stage: Stage, s: tuple[float, float], d: tuple[float, float], height: float
) -> Points:
    """Ground outline of the shadow of a box, in street coordinates; at most 8 corners."""
    base = np.array([[s[0], d[0]], [s[1], d[0]], [s[1], d[1]], [s[0], d[1]]])
    return hull(np.concatenate([base, base + shadow_offset(stage, 0.5 * (s[0] + s[1]), height)]))


def shadow_offset(stage: Stage, s: float, height: float) -> Points:
    """Where the shadow of a point at a height falls, relative to its foot: (ahead, right)."""
    x, y, z = stage.light.sun
    heading = stage.road.heading(s)
    sine, cosine = math.sin(heading), math.cos(heading)
    length = min(height / max(y, 0.05), LONGEST_SHADOW)
    return -length * np.array([x * sine + z * cosine, x * cosine - z * sine])


def hull(points: Points) -> Points:
    """Convex hull of ground points (N×2: s, d) as street coordinates (M×3) at height 0."""
    corners = cv2.convexHull(points.astype(np.float32))[:, 0].astype(np.float64)
    return np.column_stack([corners, np.zeros(len(corners))])
