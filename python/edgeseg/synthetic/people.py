"""Pedestrians and cyclists: jointed figures of capsules, posed by their phase of movement."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from edgeseg.synthetic.canvas import Colour
from edgeseg.synthetic.geometry import Points
from edgeseg.synthetic.light import mix, tint
from edgeseg.synthetic.stage import LABEL, Box, Stage, shadow_offset

STRIDE = 1.45
"""Metres walked in two steps."""

PEDAL_STROKE = 4.5
"""Metres ridden in one turn of the pedals."""


@dataclass(frozen=True)
class Clothes:
    """Colours of a person."""

    coat: Colour
    trousers: Colour
    shoes: Colour
    skin: Colour
    hair: Colour


@dataclass(frozen=True)
class Limb:
    """A body part between two local points (forward, right, up; metres) with radii at its ends."""

    start: tuple[float, float, float]
    end: tuple[float, float, float]
    radii: tuple[float, float]
    colour: Colour


@dataclass(frozen=True)
class Pedestrian:
    """Someone on foot.

    Attributes:
        s: Metres along the street at time 0.
        d: Metres from the centre line; the middle of the way, for one who crosses.
        speed: Metres per second, along the street (negative: towards −s) or across it.
        crosses: Half the width in metres that the person walks to and fro across, or 0.
        height: Metres.
        clothes: Colours.
        skirted: Whether a long coat or skirt covers the thighs.
        bag: Colour of a bag in the right hand, or None.
        phase: Of the walk at time 0, in radians.
    """

    s: float
    d: float
    speed: float
    crosses: float
    height: float
    clothes: Clothes
    skirted: bool
    bag: Colour | None
    phase: float

    @property
    def box(self) -> Box:
        """See `Thing.box`."""
        return Box.around(self.d, self.crosses + 0.6, self.height)

    def place(self, time: float) -> float:
        """See `Thing.place`."""
        return self.s if self.crosses else self.s + self.speed * time

    def _across(self, time: float) -> tuple[float, float]:
        """Distance from the centre line and direction (street angle) at a time."""
        if not self.crosses:
            return self.d, 0.0 if self.speed >= 0 else math.pi
        lap = 4.0 * self.crosses
        at = (self.phase * lap / (2 * math.pi) + abs(self.speed) * time) % lap
        if at < 0.5 * lap:
            return self.d - self.crosses + at, math.pi / 2
        return self.d + 3.0 * self.crosses - at, -math.pi / 2

    def shadow(self, stage: Stage, s: float) -> tuple[Points, float]:
        """See `Thing.shadow`."""
        d, _ = self._across(stage.time)
        return figure_shadow(stage, s, d, self.height, 0.22), 0.9

    def draw(self, stage: Stage, s: float) -> None:
        """See `Thing.draw`."""
        d, direction = self._across(stage.time)
        phase = self.phase + 2 * math.pi * abs(self.speed) * stage.time / STRIDE
        on_pavement = abs(d) > stage.road.half_width
        lift = stage.road.kerb_height if on_pavement else 0.0
        _draw_limbs(stage, (s, d, lift), direction, self._limbs(phase), LABEL["pedestrian"])

    def _limbs(self, phase: float) -> list[Limb]:
        h, clothes = self.height, self.clothes
        moving = min(1.0, abs(self.speed) / 1.2)
        limbs: list[Limb] = []
        for side in (-1.0, 1.0):
            swing = math.sin(phase + (math.pi if side > 0 else 0.0))
            lifted = max(0.0, math.cos(phase + (math.pi if side > 0 else 0.0)))
            thigh, knee_bend = 0.45 * swing * moving, (0.15 + 0.75 * lifted) * moving
            hip = (0.0, side * 0.055 * h, 0.50 * h)
            knee = (
                0.245 * h * math.sin(thigh),
                side * 0.05 * h,
                hip[2] - 0.245 * h * math.cos(thigh),
            )
            shin = thigh - knee_bend
            ankle = (
                knee[0] + 0.235 * h * math.sin(shin),
                side * 0.05 * h,
                max(0.03, knee[2] - 0.235 * h * math.cos(shin)),
            )
            toe = (ankle[0] + 0.075 * h, ankle[1], max(0.025, ankle[2] - 0.01 * h))
            limbs += [
                Limb(hip, knee, (0.050 * h, 0.036 * h), clothes.trousers),
                Limb(knee, ankle, (0.034 * h, 0.024 * h), clothes.trousers),
                Limb(ankle, toe, (0.024 * h, 0.018 * h), clothes.shoes),
            ]
            arm = -0.40 * swing * moving
            shoulder = (0.0, side * 0.115 * h, 0.80 * h)
            elbow = (
                0.16 * h * math.sin(arm), side * 0.135 * h, shoulder[2] - 0.16 * h * math.cos(arm)
            )  # fmt: skip
            fore = arm + 0.35
            hand = (
                elbow[0] + 0.15 * h * math.sin(fore), side * 0.13 * h,
                elbow[2] - 0.15 * h * math.cos(fore),
            )  # fmt: skip
            sleeve = mix(clothes.coat, (0.0, 0.0, 0.0), 0.15)
            limbs += [
                Limb(shoulder, elbow, (0.036 * h, 0.029 * h), sleeve),
                Limb(elbow, hand, (0.028 * h, 0.021 * h), sleeve),
                Limb(hand, hand, (0.022 * h, 0.022 * h), clothes.skin),
            ]
            if side > 0 and self.bag is not None:
                limbs.append(
                    Limb(
                        hand,
                        (hand[0], hand[1], hand[2] - 0.16 * h),
                        (0.05 * h, 0.075 * h),
                        self.bag,
                    )
                )
        limbs += torso(h, 0.0, 0.52 * h, 0.79 * h, clothes)
        if self.skirted:
            limbs.append(
                Limb((0.0, 0.0, 0.50 * h), (0.0, 0.0, 0.34 * h), (0.09 * h, 0.10 * h), clothes.coat)
            )
        return limbs


def torso(h: float, lean: float, hips: float, chest: float, clothes: Clothes) -> list[Limb]:
    """Trunk, neck and head of a person `h` metres tall who leans forward by `lean` metres."""
    limbs = [
        Limb((0.0, side * 0.055 * h, hips), (lean, side * 0.085 * h, chest),
             (0.058 * h, 0.052 * h), clothes.coat)
        for side in (-1.0, 1.0)
    ]  # fmt: skip
    head = (1.12 * lean + 0.015 * h, 0.0, chest + 0.145 * h)
    crown = (head[0] - 0.018 * h, 0.0, head[2] + 0.022 * h)
    return [
        *limbs,
        Limb((0.0, 0.0, hips), (lean, 0.0, chest), (0.06 * h, 0.065 * h), clothes.coat),
        Limb((lean, 0.0, chest), head, (0.030 * h, 0.030 * h), clothes.skin),
        Limb(crown, crown, (0.056 * h, 0.056 * h), clothes.hair),
        Limb((head[0] + 0.01 * h, 0.0, head[2] - 0.012 * h), (head[0] + 0.012 * h, 0.0, head[2]),
             (0.043 * h, 0.046 * h), clothes.skin),
    ]  # fmt: skip


@dataclass(frozen=True)
class Cyclist:
    """Someone on a bicycle.

    Attributes:
        s: Metres along the street at time 0.
        d: Metres from the centre line.
        speed: Metres per second, negative towards −s.
        height: Of the rider in metres.
        clothes: Colours; the hair's colour may be a helmet's.
        frame: Colour of the bicycle.
        phase: Of the pedals at time 0, in radians.
    """

    s: float
    d: float
    speed: float
    height: float
    clothes: Clothes
    frame: Colour
    phase: float

    @property
    def box(self) -> Box:
        """See `Thing.box`."""
        return Box.around(self.d, 1.0, 1.9)

    def place(self, time: float) -> float:
        """See `Thing.place`."""
        return self.s + self.speed * time

    def shadow(self, stage: Stage, s: float) -> tuple[Points, float]:
        """See `Thing.shadow`."""
        return figure_shadow(stage, s, self.d, 1.7, 0.3), 0.85

    def draw(self, stage: Stage, s: float) -> None:
        """See `Thing.draw`."""
        phase = self.phase + 2 * math.pi * abs(self.speed) * stage.time / PEDAL_STROKE
        direction = 0.0 if self.speed >= 0 else math.pi
        limbs = self._bicycle(phase) + self._rider(phase)
        _draw_limbs(stage, (s, self.d, 0.0), direction, limbs, LABEL["bicyclist"])

    def _bicycle(self, phase: float) -> list[Limb]:
        rubber: Colour = (30.0, 30.0, 30.0)
        radius, tyre = 0.34, 0.022
        saddle, bar, crank = (-0.18, 0.0, 0.95), (0.38, 0.0, 1.02), (0.0, 0.0, 0.29)
        rear, front = (-0.52, 0.0, radius), (0.54, 0.0, radius)
        head = (0.36, 0.0, 0.82)
        limbs = []
        turn = np.linspace(0.0, 2 * math.pi, 15)
        for hub in (rear, front):
            ring = [
                (hub[0] + radius * math.cos(t), 0.0, radius + (radius - tyre) * math.sin(t))
                for t in turn
            ]
            limbs += [Limb(a, b, (tyre, tyre), rubber) for a, b in pairwise(ring)]
        tubes = ((rear, crank), (crank, head), (saddle, crank), (rear, (-0.14, 0.0, 0.8)),
                 ((-0.14, 0.0, 0.8), head), (head, front), (head, bar))  # fmt: skip
        limbs += [Limb(a, b, (0.02, 0.02), self.frame) for a, b in tubes]
        limbs.append(Limb((0.4, -0.26, 1.03), (0.4, 0.26, 1.03), (0.018, 0.018), rubber))
        limbs.append(Limb((-0.3, 0.0, 0.97), (-0.08, 0.0, 0.96), (0.06, 0.03), rubber))
        return limbs

    def _rider(self, phase: float) -> list[Limb]:
        h, clothes = self.height, self.clothes
        limbs = []
        for side in (-1.0, 1.0):
            angle = -phase + (math.pi if side > 0 else 0.0)
            foot = (
                0.17 * math.cos(angle) + 0.02,
                side * 0.12,
                0.29 + 0.17 * math.sin(angle) + 0.04,
            )
            hip = (-0.16, side * 0.09, 0.98)
            reach = math.dist(hip, foot)
            bend = math.sqrt(max(0.0, (0.49 * h / 2) ** 2 - (reach / 2) ** 2))
            knee = (
                (hip[0] + foot[0]) / 2 + 0.85 * bend,
                side * 0.11,
                (hip[2] + foot[2]) / 2 + 0.5 * bend,
            )
            limbs += [
                Limb(hip, knee, (0.085, 0.06), clothes.trousers),
                Limb(knee, foot, (0.055, 0.04), clothes.trousers),
                Limb((foot[0] - 0.06, foot[1], foot[2]), (foot[0] + 0.1, foot[1], foot[2]),
                     (0.04, 0.035), clothes.shoes),
            ]  # fmt: skip
            sleeve = mix(clothes.coat, (0.0, 0.0, 0.0), 0.12)
            shoulder, elbow = (0.12, side * 0.18, 1.42), (0.22, side * 0.25, 1.2)
            limbs += [
                Limb(shoulder, elbow, (0.06, 0.048), sleeve),
                Limb(elbow, (0.4, side * 0.25, 1.06), (0.045, 0.036), sleeve),
            ]
        trunk = torso(h, 0.28, 1.0, 1.42, clothes)
        # The hips sit behind the pedals.
        limbs += [
            Limb(
                (p.start[0] - 0.16, *p.start[1:]), (p.end[0] - 0.16, *p.end[1:]), p.radii, p.colour
            )
            for p in trunk
        ]
        return limbs


def _draw_limbs(
    stage: Stage,
    at: tuple[float, float, float],
    direction: float,
    limbs: list[Limb],
    label: int,
) -> None:
    """Draw limbs from far to near; `direction` is the heading's angle from +s towards +d."""
    ends = np.array([[limb.start, limb.end] for limb in limbs]).reshape(-1, 3)
    sine, cosine = math.sin(direction), math.cos(direction)
    street = np.column_stack(
        [
            at[0] + ends[:, 0] * cosine - ends[:, 1] * sine,
            at[1] + ends[:, 0] * sine + ends[:, 1] * cosine,
            at[2] + ends[:, 2],
        ]
    )
    view = stage.view(street).reshape(-1, 2, 3)
    if view[0, 0, 2] < 1.0:
        return
    light = stage.light.on(stage.normal(at[0], -1.0, 0.0, 0.2))
    order = np.argsort(-view[:, :, 2].sum(axis=1), kind="stable")
    radii = np.array([limb.radii for limb in limbs])
    colours = [tint(limbs[i].colour, light) for i in order]
    stage.canvas.capsules(view[order], radii[order], colours, label)


def figure_shadow(stage: Stage, s: float, d: float, height: float, width: float) -> Points:
    """Shadow of a standing figure: a strip on the ground, in street coordinates."""
    ahead, right = shadow_offset(stage, s, height)
    length = math.hypot(ahead, right)
    across = 0.5 * width * np.array([-right, ahead]) / length
    foot, tip = np.array([s, d]), np.array([s + ahead, d + right])
    corners = np.array([foot - across, foot + across, tip + 0.7 * across, tip - 0.7 * across])
    return np.column_stack([corners, np.zeros(4)])
