"""Cars, vans and buses: a side profile swept across the vehicle's width."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from edgeseg.synthetic.canvas import Colour
from edgeseg.synthetic.geometry import Points
from edgeseg.synthetic.light import Vector, mix, tint
from edgeseg.synthetic.stage import LABEL, Box, Stage, hull, shadow_offset

GLASS: Colour = (64.0, 58.0, 52.0)
RUBBER: Colour = (34.0, 33.0, 32.0)
CORNER = 0.14
"""How far from a corner of the profile its rounding begins, in metres."""

TRIM: Colour = (44.0, 43.0, 42.0)


@dataclass(frozen=True)
class Body:
    """Shape of a vehicle type; metres, x from the rear bumper, y from the ground.

    Attributes:
        width: Across the body.
        waist: Height above which the cabin narrows.
        taper: Width of the roof relative to the body.
        profile: Outline from the rear's lower edge over the roof to the front's lower edge.
        glazed: Which edges of the outline are windscreens.
        windows: Side windows as polygons.
        wheels: x of the axles.
        wheel_radius: Of the tyres.
        lights: Heights (low, high) of the rear and front lights.
    """

    width: float
    waist: float
    taper: float
    profile: tuple[tuple[float, float], ...]
    glazed: tuple[int, ...]
    windows: tuple[tuple[tuple[float, float], ...], ...]
    wheels: tuple[float, ...]
    wheel_radius: float
    lights: tuple[float, float]

    @property
    def length(self) -> float:
        """From bumper to bumper."""
        return max(x for x, _ in self.profile)

    @property
    def height(self) -> float:
        """Of the roof."""
        return max(y for _, y in self.profile)


BODIES = {
    "hatchback": Body(
        width=1.72, waist=0.95, taper=0.76,
        profile=((0.06, 0.22), (0.0, 0.5), (0.06, 0.92), (0.38, 1.36), (0.75, 1.46), (1.9, 1.45),
                 (2.75, 0.98), (3.65, 0.80), (3.88, 0.6), (3.86, 0.22)),
        glazed=(2, 5),
        windows=(((0.42, 0.98), (0.66, 1.32), (1.22, 1.37), (1.26, 0.96)),
                 ((1.34, 0.96), (1.30, 1.37), (1.84, 1.36), (2.5, 0.96))),
        wheels=(0.68, 3.15), wheel_radius=0.31, lights=(0.64, 0.86),
    ),
    "saloon": Body(
        width=1.8, waist=0.95, taper=0.74,
        profile=((0.06, 0.22), (0.0, 0.5), (0.05, 0.90), (0.75, 0.98), (1.32, 1.38), (1.75, 1.44),
                 (2.5, 1.43), (3.35, 0.98), (4.3, 0.82), (4.5, 0.6), (4.48, 0.22)),
        glazed=(3, 6),
        windows=(((1.05, 0.98), (1.42, 1.33), (1.86, 1.36), (1.9, 0.96)),
                 ((1.98, 0.96), (1.94, 1.36), (2.44, 1.35), (3.1, 0.96))),
        wheels=(0.85, 3.6), wheel_radius=0.32, lights=(0.62, 0.84),
    ),
    "estate": Body(
        width=1.82, waist=1.0, taper=0.78,
        profile=((0.06, 0.24), (0.0, 0.5), (0.05, 0.98), (0.3, 1.45), (0.6, 1.55), (2.6, 1.52),
                 (3.4, 1.04), (4.35, 0.88), (4.55, 0.62), (4.52, 0.24)),
        glazed=(2, 5),
        windows=(((0.4, 1.04), (0.58, 1.4), (1.2, 1.44), (1.2, 1.02)),
                 ((1.28, 1.02), (1.28, 1.44), (1.92, 1.44), (1.96, 1.02)),
                 ((2.04, 1.02), (2.0, 1.44), (2.5, 1.43), (3.15, 1.02))),
        wheels=(0.85, 3.65), wheel_radius=0.33, lights=(0.68, 1.0),
    ),
    "van": Body(
        width=1.95, waist=1.2, taper=0.9,
        profile=((0.04, 0.28), (0.0, 0.6), (0.03, 1.2), (0.1, 2.15), (0.3, 2.25), (3.6, 2.22),
                 (4.35, 1.3), (4.95, 1.05), (5.1, 0.7), (5.08, 0.28)),
        glazed=(5,),
        windows=(((3.0, 1.3), (3.0, 1.95), (3.55, 1.92), (4.1, 1.28)),),
        wheels=(0.95, 4.2), wheel_radius=0.35, lights=(0.75, 1.2),
    ),
    "bus": Body(
        width=2.45, waist=1.3, taper=0.97,
        profile=((0.05, 0.32), (0.0, 0.7), (0.02, 1.3), (0.06, 2.7), (0.25, 3.0), (9.6, 3.0),
                 (9.85, 2.75), (9.98, 1.2), (10.0, 0.7), (9.98, 0.32)),
        glazed=(2, 6),
        windows=tuple(
            ((x, 1.3), (x, 2.4), (x + 1.3, 2.4), (x + 1.3, 1.3)) for x in
            (0.5, 1.9, 3.3, 4.7, 6.1, 7.5)
        ),
        wheels=(2.4, 7.6), wheel_radius=0.48, lights=(0.9, 1.25),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Vehicle:
    """A parked or moving vehicle.

    Attributes:
        s: Metres along the street at time 0, middle of the vehicle.
        d: Metres from the centre line, middle of the vehicle.
        speed: Metres per second along the street, negative towards the camera.
        ahead: Whether it points along the street (else against it).
        body: Key of `BODIES`.
        paint: Colour of the body.
    """

    s: float
    d: float
    speed: float
    ahead: bool
    body: str
    paint: Colour

    @property
    def box(self) -> Box:
        """See `Thing.box`."""
        body = BODIES[self.body]
        half, side = 0.5 * body.length, 0.5 * body.width
        return Box(half, half, self.d - side, self.d + side, body.height)

    def place(self, time: float) -> float:
        """See `Thing.place`."""
        return self.s + self.speed * time

    def _street(self, s: float, local: Points) -> Points:
        """Local points (x from the rear, y to the right, height) to street coordinates."""
        body = BODIES[self.body]
        direction = 1.0 if self.ahead else -1.0
        return np.column_stack(
            [
                s + direction * (local[:, 0] - 0.5 * body.length),
                self.d + direction * local[:, 1],
                local[:, 2],
            ]
        )

    def shadow(self, stage: Stage, s: float) -> tuple[Points, float]:
        """See `Thing.shadow`."""
        body = BODIES[self.body]
        base = self.footprint(s)[:, :2]
        waist = base + shadow_offset(stage, s, body.waist)
        cabin = 0.8 * (base - base.mean(0)) + base.mean(0) + shadow_offset(stage, s, body.height)
        return hull(np.concatenate([base, waist, cabin])), 1.0

    def footprint(self, s: float) -> Points:
        """Ground under the vehicle (4×3, street coordinates)."""
        body = BODIES[self.body]
        half, length = 0.5 * body.width, body.length
        return self._street(
            s, np.array([[0.1, -half, 0], [length - 0.1, -half, 0], [length - 0.1, half, 0],
                         [0.1, half, 0]])
        )  # fmt: skip

    def draw(self, stage: Stage, s: float) -> None:
        """See `Thing.draw`."""
        mesh = _mesh(self.body)
        view = stage.view(self._street(s, mesh.corners))
        direction = 1.0 if self.ahead else -1.0
        origin, *units = stage.view(self._street(s, np.vstack([np.zeros(3), np.eye(3)])))
        eye = np.array([-(origin @ (unit - origin)) for unit in units])
        visible = [
            side for side in mesh.sides if np.dot(side.normal, eye - np.array(side.point)) > 0.0
        ]
        visible.sort(key=lambda side: (side.rank, -view[side.faces[0].corners, 2].mean()))
        corners, sizes, colours = [], [], []
        for side in visible:
            ahead, right, up = side.normal
            light = stage.light.on(stage.normal(s, direction * ahead, direction * right, up))
            surfaces = self._surfaces(stage, light, up)
            for face in side.faces:
                corners.append(view[face.corners])
                sizes.append(face.corners.stop - face.corners.start)
                colours.append(surfaces[face.surface])
        if corners:
            stage.canvas.polygons(np.concatenate(corners), sizes, colours, LABEL["car"])

    def _surfaces(self, stage: Stage, light: Colour, up: float) -> dict[str, Colour]:
        """Colours of the surfaces on a side under its light; `up` is how much it faces the sky."""
        paint, horizon = tint(self.paint, light), stage.light.horizon
        screen = mix(GLASS, horizon, 0.18 + 0.25 * max(0.0, up))
        return {
            "paint": mix(paint, horizon, 0.10 * max(0.0, up)),
            "shoulder": mix(paint, horizon, 0.08),
            "sill": mix(paint, tint(TRIM, light), 0.55),
            "trim": tint(TRIM, light),
            "seam": mix(paint, (20.0, 20.0, 20.0), 0.5),
            "screen": screen,
            "screen foot": mix(screen, (20.0, 20.0, 20.0), 0.18),
            "window": mix(GLASS, horizon, 0.12),
            "dark": (22.0, 21.0, 20.0),
            "tyre": tint(RUBBER, light),
            "rim": tint((150.0, 152.0, 154.0), light),
            "hub": tint((80.0, 80.0, 82.0), light),
            "headlight": tint((226.0, 228.0, 226.0), light),
            "tail light": tint((36.0, 30.0, 168.0), light),
            "indicator": tint((60.0, 120.0, 220.0), light),
            "front plate": tint((215.0, 222.0, 222.0), light),
            "rear plate": tint((60.0, 190.0, 215.0), light),
        }


@dataclass(frozen=True)
class _Face:
    """One polygon of a mesh: its rows in the mesh's corners, and what it is made of."""

    corners: slice
    surface: str


@dataclass(frozen=True)
class _Side:
    """Faces that are seen or hidden together.

    Attributes:
        normal: Outward unit vector (ahead, right, up).
        point: Any point of the side.
        rank: Sides of lower rank are drawn first.
        faces: From the body outwards.
    """

    normal: Vector
    point: Vector
    rank: int
    faces: tuple[_Face, ...]


@dataclass(frozen=True)
class _Mesh:
    """A vehicle type's shape; corners N×3: x from the rear bumper, y to the right, z up."""

    corners: Points
    sides: tuple[_Side, ...]


def _rounded(profile: Sequence[tuple[float, float]]) -> Points:
    """A profile with its corners cut; edge i of the profile becomes edge 2i."""
    points = np.array(profile)
    steps = np.diff(points, axis=0)
    lengths = np.hypot(steps[:, 0], steps[:, 1])[:, None]
    cut = steps * np.minimum(CORNER / lengths, 0.3)
    ends = np.stack([points[:-1] + cut, points[1:] - cut], axis=1).reshape(-1, 2)
    ends[0], ends[-1] = points[0], points[-1]
    return ends


@cache
def _mesh(name: str) -> _Mesh:
    return _MeshBuilder(BODIES[name]).mesh()


class _MeshBuilder:
    """Sweeps a profile into a mesh."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self.corners: list[Points] = []
        self.count = 0

    def mesh(self) -> _Mesh:
        """The whole vehicle."""
        sides = [*self._sweep(), self._flank(-1.0), self._flank(1.0)]
        sides += [self._end(front=False), self._end(front=True)]
        return _Mesh(np.concatenate(self.corners), tuple(sides))

    def _face(self, corners: Points, surface: str) -> _Face:
        self.corners.append(corners)
        self.count += len(corners)
        return _Face(slice(self.count - len(corners), self.count), surface)

    def _half_width(self, heights: Points) -> Points:
        body = self.body
        share = np.clip((heights - body.waist) / (body.height - body.waist), 0.0, 1.0)
        return 0.5 * body.width * (1.0 - (1.0 - body.taper) * share)

    def _sweep(self) -> Iterator[_Side]:
        """Bumpers, bonnet, screens and roof: the profile's edges across the width."""
        profile = _rounded(self.body.profile)
        half = self._half_width(profile[:, 1])
        left = np.column_stack([profile[:, 0], -half, profile[:, 1]])
        right = np.column_stack([profile[:, 0], half, profile[:, 1]])
        for i in range(len(profile) - 1):
            run, rise = profile[i + 1] - profile[i]
            length = math.hypot(run, rise)
            quad = np.stack([left[i], left[i + 1], right[i + 1], right[i]])
            middle = quad.mean(axis=0)
            faces = [self._face(quad, "sill" if middle[2] < 0.5 else "paint")]
            if i % 2 == 0 and i // 2 in self.body.glazed:
                screen = middle + 0.88 * (quad - middle)
                foot = screen[[0, 3, 2, 1]] if run > 0 and rise > 0 else screen[[1, 2, 3, 0]]
                foot[2:] = foot[[1, 0]] + 0.5 * (foot[2:] - foot[[1, 0]])
                faces += [self._face(screen, "screen"), self._face(foot, "screen foot")]
            normal = (-rise / length, 0.0, run / length)
            yield _Side(normal, (middle[0], 0.0, middle[2]), 0, tuple(faces))

    def _flank(self, side: float) -> _Side:
        """The left (−1) or the right (1) side: body, windows, wheels."""
        body = self.body

        def face(outline: Points, surface: str, lift: float) -> _Face:
            half = self._half_width(outline[:, 1]) + lift
            corners = np.column_stack([outline[:, 0], side * half, outline[:, 1]])
            return self._face(corners, surface)

        length, waist, low = body.length, body.waist, body.profile[0][1]
        shoulder = [[0.08, waist - 0.2], [0.08, waist - 0.03], [0.72 * length, waist - 0.03],
                    [0.95 * length, waist - 0.24]]  # fmt: skip
        sill = [[0.06, low], [0.03, low + 0.2], [length - 0.03, low + 0.2], [length - 0.04, low]]
        faces = [
            face(_rounded(body.profile), "paint", 0.0),
            face(np.array(shoulder), "shoulder", 0.005),
            face(np.array(sill), "sill", 0.005),
        ]
        for window in body.windows:
            faces.append(face(np.array(window), "window", 0.01))
            x = max(x for x, _ in window) + 0.03
            seam = [[x, low + 0.1], [x + 0.025, low + 0.1], [x + 0.025, waist], [x, waist]]
            faces.append(face(np.array(seam), "seam", 0.01))
        turn = np.linspace(0.0, 2.0 * math.pi, 16, endpoint=False)
        circle = np.stack([np.cos(turn), np.sin(turn)], axis=-1)
        for x in body.wheels:
            hub, radius = np.array([x, body.wheel_radius]), body.wheel_radius
            arch = hub + circle * (radius + 0.06)
            arch[:, 1] = np.maximum(arch[:, 1], 0.2)
            faces.append(face(arch, "dark", 0.01))
            for share, surface in ((1.0, "tyre"), (0.62, "rim"), (0.3, "hub")):
                faces.append(face(hub + circle * (share * radius), surface, 0.02 - 0.005 * share))
        return _Side((0.0, side, 0.0), (0.0, side * 0.5 * body.width, 0.0), 1, tuple(faces))

    def _end(self, front: bool) -> _Side:
        """Bumper, lights, number plate and tyres of the front or the rear."""
        body = self.body
        x = body.length + 0.01 if front else -0.01
        half, (low, high) = 0.5 * body.width, body.lights

        def plate(y: float, width: float, bottom: float, top: float, surface: str) -> _Face:
            corners = [[x, y, bottom], [x, y + width, bottom], [x, y + width, top], [x, y, top]]
            return self._face(np.array(corners), surface)

        faces = [
            plate(-half, 0.2, 0.0, 0.3, "tyre"),
            plate(half - 0.2, 0.2, 0.0, 0.3, "tyre"),
            plate(-half + 0.2, 2 * half - 0.4, 0.06, 0.32, "dark"),
            plate(-half + 0.08, 2 * half - 0.16, 0.32, 0.44, "trim"),
        ]
        for y in (-half + 0.03, half - 0.33):
            faces.append(plate(y, 0.3, low, high, "headlight" if front else "tail light"))
            if not front:
                faces.append(plate(y + 0.05, 0.2, low + 0.6 * (high - low), high, "indicator"))
        if front:
            faces.append(plate(-0.45, 0.9, low - 0.06, low + 0.14, "dark"))
        faces.append(plate(-0.26, 0.52, 0.48, 0.6, "front plate" if front else "rear plate"))
        outward = 1.0 if front else -1.0
        return _Side((outward, 0.0, 0.0), (x, 0.0, 0.0), 2, tuple(faces))
