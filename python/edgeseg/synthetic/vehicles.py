"""Cars, vans and buses: a side profile swept across the vehicle's width."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgeseg.synthetic.canvas import Colour
from edgeseg.synthetic.geometry import Points
from edgeseg.synthetic.light import Vector, mix, tint
from edgeseg.synthetic.stage import LABEL, Stage, hull, shadow_offset

GLASS: Colour = (64.0, 58.0, 52.0)
RUBBER: Colour = (34.0, 33.0, 32.0)
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
    def reach(self) -> float:
        """See `Thing.reach`."""
        return 0.0

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
        painter = _Painter(self, stage, s)
        painter.sweep()
        for side in (-1.0, 1.0):
            if painter.shows(side):
                painter.flank(side)
        painter.end(front=False)
        painter.end(front=True)


class _Painter:
    """Draws one vehicle; local axes x from the rear bumper, y to the right, z up."""

    def __init__(self, vehicle: Vehicle, stage: Stage, s: float) -> None:
        self.vehicle, self.stage, self.s = vehicle, stage, s
        self.body = BODIES[vehicle.body]
        direction = 1.0 if vehicle.ahead else -1.0
        self.direction = direction
        origin, ahead, right = self.view(
            np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
        )
        self.eye = np.array([-(origin @ (ahead - origin)), -(origin @ (right - origin))])

    def view(self, local: Points) -> Points:
        return self.stage.view(self.vehicle._street(self.s, local))

    def light(self, ahead: float, right: float, up: float) -> Colour:
        normal: Vector = self.stage.normal(
            self.s, self.direction * ahead, self.direction * right, up
        )
        return self.stage.light.on(normal)

    def shows(self, side: float) -> bool:
        """Whether the flank on this side (−1 left, 1 right) faces the camera."""
        return bool(side * self.eye[1] > 0.5 * self.body.width)

    def half_width(self, heights: Points) -> Points:
        body = self.body
        share = np.clip((heights - body.waist) / (body.height - body.waist), 0.0, 1.0)
        return 0.5 * body.width * (1.0 - (1.0 - body.taper) * share)

    def sweep(self) -> None:
        """Bonnet, screens, roof and bumpers: the profile's edges across the width."""
        profile = np.array(self.body.profile)
        half = self.half_width(profile[:, 1])
        left = self.view(np.column_stack([profile[:, 0], -half, profile[:, 1]]))
        right = self.view(np.column_stack([profile[:, 0], half, profile[:, 1]]))
        edges = sorted(
            range(len(profile) - 1), key=lambda i: -(left[i] + left[i + 1])[2]
        )
        for i in edges:
            run, rise = profile[i + 1] - profile[i]
            length = math.hypot(run, rise)
            normal = (-rise / length, run / length)
            middle = 0.5 * (profile[i] + profile[i + 1])
            height = self.stage.canvas.camera.position[1]
            if (self.eye[0] - middle[0]) * normal[0] + (height - middle[1]) * normal[1] <= 0.0:
                continue
            quad = np.stack([left[i], left[i + 1], right[i + 1], right[i]])
            light = self.light(normal[0], 0.0, normal[1])
            paint = self.vehicle.paint
            if middle[1] < 0.5:
                paint = mix(paint, TRIM, 0.55)
            self.stage.canvas.face(quad, tint(paint, light), LABEL["car"])
            if i in self.body.glazed:
                centre = quad.mean(axis=0)
                inset = centre + (quad - centre) * 0.88
                sky = mix(GLASS, self.stage.light.horizon, 0.18 + 0.25 * max(0.0, normal[1]))
                self.stage.canvas.face(inset, sky, LABEL["car"])
                lower = np.stack(
                    [inset[0], 0.5 * (inset[0] + inset[1]), 0.5 * (inset[3] + inset[2]), inset[3]]
                )
                if normal[0] > 0:
                    lower = np.stack([lower[1], inset[1], inset[2], lower[2]])
                self.stage.canvas.face(lower, mix(sky, (20, 20, 20), 0.35), LABEL["car"])

    def flank(self, side: float) -> None:
        """One side: body, sill, windows, wheels."""
        body, canvas = self.body, self.stage.canvas
        light = self.light(0.0, side, 0.15)
        paint = self.vehicle.paint

        def flat(points: Points, lift: float = 0.0) -> Points:
            half = self.half_width(points[:, 1]) + lift
            return self.view(np.column_stack([points[:, 0], side * half, points[:, 1]]))

        profile = np.array(body.profile)
        canvas.face(flat(profile), tint(paint, light), LABEL["car"])
        length = body.length
        # The shoulder mirrors the sky, the sill the road.
        shoulder = np.array([[0.08, body.waist - 0.2], [0.08, body.waist - 0.03],
                             [0.72 * length, body.waist - 0.03], [0.95 * length, body.waist - 0.24]])
        bright = mix(tint(paint, light), self.stage.light.horizon, 0.18)
        canvas.face(flat(shoulder, 0.005), bright, LABEL["car"])
        sill = np.array([[0.06, 0.22], [0.03, 0.42], [length - 0.03, 0.42], [length - 0.04, 0.22]])
        canvas.face(flat(sill, 0.005), mix(tint(paint, light), TRIM, 0.55), LABEL["car"])
        for window in body.windows:
            glass = mix(GLASS, self.stage.light.horizon, 0.12)
            canvas.face(flat(np.array(window), 0.01), glass, LABEL["car"])
        turn = np.linspace(0.0, 2.0 * math.pi, 16, endpoint=False)
        circle = np.stack([np.cos(turn), np.sin(turn)], -1)
        for x in body.wheels:
            radius = body.wheel_radius
            hub = np.array([x, radius])
            arch = hub + circle * (radius + 0.06)
            arch[:, 1] = np.maximum(arch[:, 1], 0.2)
            canvas.face(flat(arch, 0.01), (24.0, 23.0, 22.0), LABEL["car"])
            canvas.face(flat(hub + circle * radius, 0.015), tint(RUBBER, light), LABEL["car"])
            rim = tint((150, 152, 154), light)
            canvas.face(flat(hub + circle * (0.62 * radius), 0.02), rim, LABEL["car"])
            canvas.face(
                flat(hub + circle * (0.3 * radius), 0.025), mix(rim, TRIM, 0.6), LABEL["car"]
            )

    def end(self, front: bool) -> None:
        """Lights, number plate and grille of the front or the rear, and the tyres below."""
        body, canvas = self.body, self.stage.canvas
        x = body.length + 0.01 if front else -0.01
        outward = 1.0 if front else -1.0
        if outward * (self.eye[0] - x) <= 0.0:
            return
        light = self.light(outward, 0.0, 0.1)
        half = 0.5 * body.width
        low, high = body.lights

        def plate(y: float, width: float, bottom: float, top: float, colour: Colour) -> None:
            corners = np.array([[x, y, bottom], [x, y + width, bottom], [x, y + width, top],
                                [x, y, top]])  # fmt: skip
            canvas.face(self.view(corners), colour, LABEL["car"])

        for side in (-1.0, 1.0):
            tyre = side * (half - 0.1) - 0.1
            plate(tyre, 0.2, 0.0, 0.26, RUBBER)
        plate(-half + 0.2, 2 * half - 0.4, 0.12, 0.26, (16.0, 16.0, 16.0))
        plate(-half + 0.08, 2 * half - 0.16, 0.3, 0.42, mix(tint(self.vehicle.paint, light), TRIM, 0.7))
        lamp: Colour = tint((226, 228, 226), light) if front else tint((36, 30, 168), light)
        for side in (-1.0, 1.0):
            y = side * (half - 0.18) - 0.15
            plate(y, 0.3, low, high, lamp)
            if not front:
                plate(y + 0.05, 0.2, low + 0.6 * (high - low), high, tint((60, 120, 220), light))
        if front:
            plate(-0.45, 0.9, low - 0.06, low + 0.14, (30.0, 30.0, 30.0))
        number = (215.0, 222.0, 222.0) if front else (60.0, 190.0, 215.0)
        plate(-0.26, 0.52, 0.48, 0.6, tint(number, light))
